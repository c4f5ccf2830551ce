//! Figures as PNG and PDF, with a font that is a part of this program: the same bytes on every machine.

use std::sync::Arc;

use dice_ood::{Error, ErrorKind, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::roxmltree::Document;
use resvg::usvg::{Options, Tree};

use super::pdf;

/// See `fonts/README.md` for how it was made.
const FONT: &[u8] = include_bytes!("../../fonts/DejaVuSans-subset.ttf");
const FAMILY: &str = "DejaVu Sans";
/// Pixels of a PNG to one of the figure, along each side: sharp on dense screens and in print.
const SCALE: f32 = 2.0;

/// What pictures are made with.
pub(super) struct Studio {
    options: Options<'static>,
}

impl Studio {
    pub(super) fn new() -> Self {
        let mut fonts = Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family(FAMILY);
        Self { options: Options { font_family: FAMILY.into(), fontdb: Arc::new(fonts), ..Options::default() } }
    }

    /// A figure, from the text of an SVG file. A character that the font has not becomes a box.
    pub(super) fn picture(&self, svg: &str) -> Result<Picture> {
        let malformed = |error: String| Error::new(ErrorKind::Malformed, error).expected("an SVG figure");
        let document = Document::parse(svg).map_err(|error| malformed(error.to_string()))?;
        let tree = Tree::from_xmltree(&document, &self.options).map_err(|error| malformed(error.to_string()))?;
        let title = document.descendants().find(|node| node.has_tag_name("title")).and_then(|node| node.text());
        Ok(Picture { tree, title: title.unwrap_or_default().to_owned() })
    }
}

/// A figure that is laid out.
pub(super) struct Picture {
    tree: Tree,
    title: String,
}

impl Picture {
    /// As PNG, two pixels to one of the figure.
    pub(super) fn png(&self) -> Result<Vec<u8>> {
        let size = self.tree.size().to_int_size();
        let side = |length: u32| (length as f32 * SCALE) as u32;
        let failed = |found: String| Error::new(ErrorKind::Unsupported, found).expected("a figure that fits an image");
        let mut pixels = Pixmap::new(side(size.width()), side(size.height()))
            .ok_or_else(|| failed(format!("{} x {} pixels", size.width(), size.height())))?;
        resvg::render(&self.tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| failed(error.to_string()))
    }

    /// As PDF: one page of the figure's size, its texts as outlines.
    pub(super) fn pdf(&self) -> Result<Vec<u8>> {
        pdf::page(&self.tree, &self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(marks: &str) -> Result<Picture> {
        let svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='80' height='40'><title>a &lt; é</title>{marks}</svg>"
        );
        Studio::new().picture(&svg)
    }

    #[test]
    fn what_a_page_cannot_hold_is_refused() {
        for (marks, what) in [
            (
                "<defs><linearGradient id='g'><stop offset='0'/><stop offset='1' stop-color='#fff'/></linearGradient></defs><path d='M0 0h9v9z' fill='url(#g)'/>",
                "gradient",
            ),
            ("<g opacity='.5'><path d='M0 0h9v9z'/><path d='M3 3h9v9z'/></g>", "opacity"),
            ("<clipPath id='c'><path d='M0 0h9v9z'/></clipPath><path d='M0 0h99v9z' clip-path='url(#c)'/>", "clip"),
        ] {
            let error = drawn(marks).unwrap().pdf().unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(what), "{error}");
        }
        assert_eq!(drawn("<path d='M0 0'").map(|_| ()).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn a_page_has_the_marks_of_its_figure() {
        let marks = "<path d='M1 2L3 4Q6 4 6 10C1 1 2 2 3 3Z' fill='#ff0000' fill-opacity='.5' fill-rule='evenodd' stroke='#00ff00' \
                     stroke-width='3' stroke-dasharray='6 3' stroke-linecap='round' stroke-linejoin='bevel'/>";
        let pdf = drawn(marks).unwrap().pdf().unwrap();
        let text = String::from_utf8_lossy(&pdf);
        // A quadratic curve is the cubic one whose control points lie two thirds of the way to its own.
        let outline = "1 2 m\n3 4 l\n5 4 6 6 6 10 c\n1 1 2 2 3 3 c\nh\n";
        for part in [
            format!("1 0 0 rg\n{outline}f*"),
            "/ca 0.5".into(),
            format!("0 1 0 RG\n3 w\n4 M\n1 J\n2 j\n[6 3] 0 d\n{outline}S"),
            "/Title".into(),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
        assert!(text.contains("0.75 0 0 -0.75 0 30 cm"), "{text}");
    }

    #[test]
    fn characters_beyond_the_font_are_boxes() {
        let ink = |text: &str| {
            let png = drawn(&format!("<text y='20' font-family='sans-serif'>{text}</text>")).unwrap().png().unwrap();
            let pixels = Pixmap::decode_png(&png).unwrap();
            pixels.pixels().iter().filter(|pixel| pixel.alpha() > 0).count()
        };
        assert_eq!((ink(" "), ink("\u{6f22}"), ink("\u{6f22}") > 50), (0, ink("\u{5b57}"), true));
        assert!(ink("Aé≥↓Ωж") > 500 && ink("A") != ink("\u{6f22}"));
    }
}
