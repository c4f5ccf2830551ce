//! What pages share: colours, and names from files that are shown and never executed.

use std::path::Path;

use dice_onnx::thumbnail;

use crate::names::shown;

/// Colours in light and dark, for `:root`, on paper light ones; those of marks differ for every kind of colour vision (after Okabe and Ito).
pub(crate) const COLOURS: &str = "\
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --panel: #f4f6f8; --line: #d5dae0; --low: #b45309; --high: #0067a5;
  --third: #00734f; --fourth: #a0417a; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #a3adb8; --paper: #14171b; --panel: #1d2228; --line: #343b44; --low: #fb923c; --high: #6cb2f0; --third: #4fc3a1;
    --fourth: #e39cc6; }
}
@media print { :root { color-scheme: light; } }
";

/// Text that stands in a page as it is.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// A name from a file, apart from the text around it.
pub(crate) fn named(name: &str) -> String {
    format!("<bdi>{}</bdi>", escaped(&shown(name)))
}

/// RFC 4648.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Small pictures, as long as there is room.
pub(crate) struct Pictures {
    side: u32,
    left: usize,
}

impl Pictures {
    /// Pictures of at most `side` pixels, of so many bytes together as they stand in a page.
    pub(crate) fn new(side: u32, bytes: usize) -> Self {
        Self { side, left: bytes }
    }

    /// The picture of an id that is the path of an image; nothing for any other.
    pub(crate) fn of(&mut self, id: &str) -> String {
        let Ok(png) = thumbnail(Path::new(id), self.side) else { return String::new() };
        let data = base64(&png);
        if data.len() > self.left {
            return String::new();
        }
        self.left -= data.len();
        format!("<img alt=\"{}\" src=\"data:image/png;base64,{data}\">\n", escaped(&shown(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_base64() {
        // The vectors of RFC 4648, section 10.
        let all = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in all {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }
}
