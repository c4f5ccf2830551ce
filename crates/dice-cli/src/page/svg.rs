//! Figures as SVG inside a page: colours and dashes by class, for the style sheet to choose; a title and a description for whoever
//! does not see them.
//!
//! Seven kinds of marks are all that the report draws. A plotting library would bring its own colours and sizes, which a page that
//! follows the reader's light or dark setting would have to take out again.

use std::fmt::Write;

use crate::html::escaped;

/// Width and height of a figure, in its own units; text of 11 is legible where a figure is as wide as a phone.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 232.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 34.0;
/// Height of a line of words, about the width of a letter, and of the line before a key's words with what is beside it.
const LINE: f64 = 16.0;
const LETTER: f64 = 6.0;
const KEY: f64 = 27.0;
/// Letters of a title that fit a figure.
const LONGEST: usize = 54;

/// What is drawn along an axis: from, to, and what it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis<'a> {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) name: &'a str,
}

/// A figure that is being drawn.
pub(super) struct Figure<'a> {
    x: Axis<'a>,
    y: Axis<'a>,
    marks: String,
    keys: Vec<(&'static str, String)>,
}

/// A figure that is drawn.
pub(super) struct Drawing {
    /// For a page, whose words say what its marks are.
    pub(super) svg: String,
    title: String,
    keys: Vec<(&'static str, String)>,
}

impl<'a> Figure<'a> {
    pub(super) fn new(x: Axis<'a>, y: Axis<'a>) -> Self {
        Self { x, y, marks: String::new(), keys: Vec::new() }
    }

    /// Where a point of the data stands.
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let part = |axis: &Axis<'_>, value: f64| ((value - axis.from) / (axis.to - axis.from)).clamp(0.0, 1.0);
        let across = LEFT + part(&self.x, x) * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - part(&self.y, y) * (HEIGHT - TOP - BOTTOM))
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (place, point) in points.iter().enumerate() {
            let (x, y) = self.at(*point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { "M" } else { "L" });
        }
        path
    }

    /// A line through `points`, of a kind that the style sheet knows.
    pub(super) fn line(&mut self, kind: &str, points: &[(f64, f64)]) {
        if points.is_empty() {
            return;
        }
        let path = self.path(points);
        let _ = write!(self.marks, "<path class=\"line {kind}\" d=\"{path}\"/>");
    }

    /// What lines of a kind are, for where no page says it.
    pub(super) fn key(&mut self, kind: &'static str, name: impl Into<String>) {
        self.keys.push((kind, name.into()));
    }

    /// The area below `points`.
    pub(super) fn area(&mut self, kind: &str, points: &[(f64, f64)]) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let below = [(last.0, self.y.from), (first.0, self.y.from)];
        let path = self.path(&[points, &below].concat());
        let _ = write!(self.marks, "<path class=\"area {kind}\" d=\"{path}Z\"/>");
    }

    /// The area between a lower and an upper value at each place.
    pub(super) fn band(&mut self, kind: &str, points: &[(f64, f64, f64)]) {
        let upper = points.iter().map(|(x, _, high)| (*x, *high));
        let lower = points.iter().rev().map(|(x, low, _)| (*x, *low));
        let path = self.path(&upper.chain(lower).collect::<Vec<_>>());
        if !path.is_empty() {
            let _ = write!(self.marks, "<path class=\"area {kind}\" d=\"{path}Z\"/>");
        }
    }

    /// A grid that fills the figure, the first row at the bottom, of values in [0, 1]: the larger, the darker.
    pub(super) fn tiles(&mut self, rows: &[Vec<f64>]) {
        const SHADES: usize = 5;
        let height = (HEIGHT - TOP - BOTTOM) / rows.len().max(1) as f64;
        for shade in 1..=SHADES {
            let mut path = String::new();
            for (row, values) in rows.iter().enumerate() {
                let width = (WIDTH - LEFT - RIGHT) / values.len().max(1) as f64;
                let shades: Vec<usize> = values.iter().map(|value| (value * SHADES as f64).ceil() as usize).collect();
                let mut start = 0;
                for run in shades.chunk_by(|a, b| a == b) {
                    if run[0] == shade {
                        let (x, y) = (LEFT + width * start as f64, HEIGHT - BOTTOM - height * (row + 1) as f64);
                        let _ = write!(path, "M{x:.1} {y:.1}h{:.1}v{height:.1}H{x:.1}Z", width * run.len() as f64);
                    }
                    start += run.len();
                }
            }
            if !path.is_empty() {
                let _ = write!(self.marks, "<path class=\"tile shade{shade}\" d=\"{path}\"/>");
            }
        }
    }

    /// Where a value of the horizontal axis is, from bottom to top.
    pub(super) fn upright(&mut self, kind: &str, x: f64) {
        self.line(kind, &[(x, self.y.from), (x, self.y.to)]);
    }

    /// The figure, with what it is called and what it shows in words.
    pub(super) fn finish(self, title: &str, description: &str) -> Drawing {
        let mut axes = String::new();
        for value in ticks(self.x.from, self.x.to) {
            let (x, y) = self.at((value, self.y.from));
            let _ = write!(axes, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{y:.1}\"/>");
            let _ = write!(
                axes,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                y + 13.0,
                number(value)
            );
        }
        for value in ticks(self.y.from, self.y.to) {
            let (x, y) = self.at((self.x.from, value));
            let _ = write!(axes, "<path class=\"grid\" d=\"M{x:.1} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
            let _ = write!(
                axes,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                x - 4.0,
                y + 3.5,
                number(value)
            );
        }
        let (middle, height) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let _ = write!(
            axes,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 5.0,
            escaped(self.x.name)
        );
        let _ = write!(
            axes,
            "<text x=\"10\" y=\"{height}\" text-anchor=\"middle\" transform=\"rotate(-90 10 {height})\">{}</text>",
            escaped(self.y.name)
        );
        let svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title><desc>{}</desc>{axes}{}</svg>\n",
            escaped(title),
            escaped(description),
            self.marks
        );
        Drawing { svg, title: title.to_owned(), keys: self.keys }
    }
}

impl Drawing {
    /// The figure with its title above and its keys below, for where no page says what it shows, and where its frame is: left, top,
    /// width, height.
    pub(super) fn alone(&self) -> (String, [f64; 4]) {
        let title: String = self.title.chars().take(LONGEST).collect();
        let more = if self.title.chars().count() > LONGEST { "..." } else { "" };
        let mut words = format!("<text class=\"title\" x=\"{LEFT}\" y=\"-5\">{}{more}</text>", escaped(&title));
        let (mut x, mut y) = (LEFT, HEIGHT + LINE - 4.0);
        for (kind, name) in &self.keys {
            let width = KEY + LETTER * name.chars().count() as f64;
            if x > LEFT && x + width > WIDTH {
                (x, y) = (LEFT, y + LINE);
            }
            let middle = y - 4.0;
            let _ = write!(words, "<path class=\"line {kind}\" d=\"M{x:.1} {middle}h22\"/>");
            let _ = write!(words, "<text x=\"{:.1}\" y=\"{y}\">{}</text>", x + 27.0, escaped(name));
            x += width + 14.0;
        }
        let bottom = if self.keys.is_empty() { HEIGHT } else { y + 6.0 };
        let frame = [0.0, -LINE, WIDTH, bottom + LINE];
        let viewed = format!("viewBox=\"0 {} {WIDTH} {}\"", frame[1], frame[3]);
        let svg = self.svg.replacen(&format!("viewBox=\"0 0 {WIDTH} {HEIGHT}\""), &viewed, 1);
        (svg.replacen("</svg>", &format!("{words}</svg>"), 1), frame)
    }
}

/// Round values between two others, three to six of them.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    let rough = (to - from) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last.min(first + 10)).map(|place| place as f64 * step).collect()
}

fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".into(),
        _ if !(1e-3..1e5).contains(&size) => format!("{value:.0e}"),
        _ => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(0.9, 0.99).len(), 4);
        assert_eq!(ticks(-3.0, 30.0), [0.0, 10.0, 20.0, 30.0]);
        for (from, to) in [(1e-9, 3e-9), (-1e300, 1e300), (0.1, 0.1000001), (5.0, 5e7)] {
            assert!((1..=7).contains(&ticks(from, to).len()), "{from} to {to}: {:?}", ticks(from, to));
        }
        assert_eq!(["0", "0.5", "12", "-0.25", "1e-9"].to_vec(), [0.0, 0.5, 12.0, -0.25, 1e-9].map(number).to_vec());
    }

    #[test]
    fn a_figure_says_what_it_is_and_keeps_to_its_frame() {
        let axis = Axis { from: 0.0, to: 1.0, name: "<x>" };
        let mut figure = Figure::new(axis, axis);
        figure.line("one", &[(-5.0, 0.0), (0.5, 9.0)]);
        figure.area("two", &[]);
        figure.key("one", "<a>");
        figure.key("two", "b".repeat(60));
        let drawing = figure.finish("a & b", "what");
        let (alone, frame) = drawing.alone();
        assert_eq!(frame, [0.0, -16.0, 360.0, 282.0]);
        for part in ["viewBox=\"0 -16 360 282\"", ">&lt;a&gt;</text>", "class=\"title\" x=\"44\" y=\"-5\">a &amp; b<"] {
            assert!(alone.contains(part) && !drawing.svg.contains(part), "{part}: {alone}");
        }
        let text = drawing.svg;
        assert!(
            text.contains("<title>a &amp; b</title>") && text.contains("role=\"img\"") && text.contains("&lt;x&gt;")
        );
        assert!(text.contains("M44.0 198.0L197.0 8.0"), "{text}");
    }
}
