//! A laid-out figure as a page of PDF.
//!
//! Figures are paths of one colour, texts among them as outlines. What else SVG has is refused, not left out.

use std::collections::BTreeMap;

use dice_ood::{Error, ErrorKind, Result};
use pdf_writer::types::{LineCapStyle, LineJoinStyle};
use pdf_writer::{Content, Name, Pdf, Rect, Ref, TextStr};
use resvg::tiny_skia::{PathSegment, Point};
use resvg::usvg::{
    BlendMode, Color, FillRule, Group, LineCap, LineJoin, Node, Opacity, Paint, PaintOrder, Path, Transform, Tree,
};

/// Points of PDF in a pixel of CSS.
const POINTS: f32 = 72.0 / 96.0;

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const PAGE: Ref = Ref::new(3);
const CONTENT: Ref = Ref::new(4);
const INFO: Ref = Ref::new(5);
/// Of the first graphics state; the others follow.
const FIRST_STATE: i32 = 6;

/// A document of one page of the figure's size. It holds no date, so that the same figure is the same bytes.
pub(super) fn page(figure: &Tree, title: &str) -> Result<Vec<u8>> {
    let mut sheet = Sheet { content: Content::new(), states: BTreeMap::new() };
    let (width, height) = (POINTS * figure.size().width(), POINTS * figure.size().height());
    // PDF counts from the bottom upwards.
    sheet.content.transform([POINTS, 0.0, 0.0, -POINTS, 0.0, height]);
    sheet.group(figure.root())?;

    let mut pdf = Pdf::new();
    pdf.set_version(1, 4);
    pdf.catalog(CATALOG).pages(PAGES);
    pdf.pages(PAGES).kids([PAGE]).count(1);
    pdf.document_info(INFO).title(TextStr(title));
    let mut page = pdf.page(PAGE);
    page.parent(PAGES).media_box(Rect::new(0.0, 0.0, width, height)).contents(CONTENT);
    page.group().transparency().color_space().device_rgb();
    let mut resources = page.resources();
    let mut states = resources.ext_g_states();
    for (name, id) in sheet.states.values() {
        states.pair(Name(name.as_bytes()), *id);
    }
    drop(states);
    drop(resources);
    drop(page);
    pdf.stream(CONTENT, &sheet.content.finish());
    for (opacity, (_, id)) in &sheet.states {
        let opacity = f32::from_bits(*opacity);
        pdf.ext_graphics(*id).non_stroking_alpha(opacity).stroking_alpha(opacity);
    }
    Ok(pdf.finish())
}

fn beyond(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, what).expected("paths of one colour, as a figure in PDF")
}

/// A page that is being drawn.
struct Sheet {
    content: Content,
    /// Graphics states by the bits of their opacity: the name of each, and its place in the file.
    states: BTreeMap<u32, (String, Ref)>,
}

impl Sheet {
    fn group(&mut self, group: &Group) -> Result<()> {
        let plain = group.opacity() == Opacity::ONE && group.blend_mode() == BlendMode::Normal;
        if !plain {
            return Err(beyond("a group with an opacity or blending of its own"));
        }
        if group.clip_path().is_some() || group.mask().is_some() || !group.filters().is_empty() {
            return Err(beyond("a clip path, mask or filter"));
        }
        group.children().iter().try_for_each(|node| match node {
            Node::Group(group) => self.group(group),
            Node::Path(path) => self.path(path),
            Node::Text(text) => self.group(text.flattened()),
            Node::Image(_) => Err(beyond("an image")),
        })
    }

    fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_visible() {
            return Ok(());
        }
        let Transform { sx, kx, ky, sy, tx, ty } = path.abs_transform();
        self.content.save_state().transform([sx, ky, kx, sy, tx, ty]);
        let paints: [fn(&mut Self, &Path) -> Result<()>; 2] = match path.paint_order() {
            PaintOrder::FillAndStroke => [Self::filled, Self::stroked],
            PaintOrder::StrokeAndFill => [Self::stroked, Self::filled],
        };
        paints.iter().try_for_each(|paint| paint(self, path))?;
        self.content.restore_state();
        Ok(())
    }

    fn filled(&mut self, path: &Path) -> Result<()> {
        let Some(fill) = path.fill() else { return Ok(()) };
        let [red, green, blue] = colour(fill.paint())?;
        self.opacity(fill.opacity());
        self.content.set_fill_rgb(red, green, blue);
        self.outline(path);
        match fill.rule() {
            FillRule::NonZero => self.content.fill_nonzero(),
            FillRule::EvenOdd => self.content.fill_even_odd(),
        };
        Ok(())
    }

    fn stroked(&mut self, path: &Path) -> Result<()> {
        let Some(stroke) = path.stroke() else { return Ok(()) };
        let [red, green, blue] = colour(stroke.paint())?;
        self.opacity(stroke.opacity());
        self.content
            .set_stroke_rgb(red, green, blue)
            .set_line_width(stroke.width().get())
            .set_miter_limit(stroke.miterlimit().get())
            .set_line_cap(match stroke.linecap() {
                LineCap::Butt => LineCapStyle::ButtCap,
                LineCap::Round => LineCapStyle::RoundCap,
                LineCap::Square => LineCapStyle::ProjectingSquareCap,
            })
            .set_line_join(match stroke.linejoin() {
                LineJoin::Miter => LineJoinStyle::MiterJoin,
                LineJoin::MiterClip => return Err(beyond("a clipped mitre join")),
                LineJoin::Round => LineJoinStyle::RoundJoin,
                LineJoin::Bevel => LineJoinStyle::BevelJoin,
            })
            .set_dash_pattern(stroke.dasharray().unwrap_or_default().iter().copied(), stroke.dashoffset());
        self.outline(path);
        self.content.stroke();
        Ok(())
    }

    fn opacity(&mut self, opacity: Opacity) {
        let place = self.states.len() as i32;
        let new = || (format!("a{place}"), Ref::new(FIRST_STATE + place));
        let (name, _) = self.states.entry(opacity.get().to_bits()).or_insert_with(new);
        self.content.set_parameters(Name(name.as_bytes()));
    }

    fn outline(&mut self, path: &Path) {
        let mut last = Point::zero();
        for segment in path.data().segments() {
            match segment {
                PathSegment::MoveTo(to) => self.content.move_to(to.x, to.y),
                PathSegment::LineTo(to) => self.content.line_to(to.x, to.y),
                PathSegment::QuadTo(by, to) => self.curve(towards(last, by), towards(to, by), to),
                PathSegment::CubicTo(one, two, to) => self.curve(one, two, to),
                PathSegment::Close => self.content.close_path(),
            };
            if let PathSegment::MoveTo(to)
            | PathSegment::LineTo(to)
            | PathSegment::QuadTo(_, to)
            | PathSegment::CubicTo(_, _, to) = segment
            {
                last = to;
            }
        }
    }

    fn curve(&mut self, one: Point, two: Point, to: Point) -> &mut Content {
        self.content.cubic_to(one.x, one.y, two.x, two.y, to.x, to.y)
    }
}

/// Two thirds of the way, where a cubic curve has the control points of a quadratic one.
fn towards(from: Point, to: Point) -> Point {
    let part = |from: f32, to: f32| from + (to - from) * 2.0 / 3.0;
    Point::from_xy(part(from.x, to.x), part(from.y, to.y))
}

fn colour(paint: &Paint) -> Result<[f32; 3]> {
    match paint {
        Paint::Color(Color { red, green, blue }) => Ok([*red, *green, *blue].map(|part| f32::from(part) / 255.0)),
        Paint::LinearGradient(_) | Paint::RadialGradient(_) | Paint::Pattern(_) => Err(beyond("a gradient or pattern")),
    }
}
