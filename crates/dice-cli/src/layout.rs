//! Tables as lines of text: as wide as they are, or as wide as a terminal.

use std::io::{IsTerminal, stdout};
use std::path::Path;

use terminal_size::{Width, terminal_size_of};

/// Columns of text are wrapped to no less than this.
const NARROWEST: usize = 20;
/// What stands between columns.
const GAP: usize = 2;

/// How wide lines on standard output may be: as COLUMNS or the terminal says; without limit where it is no terminal, or where
/// results go to a file.
pub(crate) fn width_of(output: Option<&Path>) -> Option<usize> {
    if output.is_some_and(|path| path != Path::new("-")) || !stdout().is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    said.filter(|columns| *columns > 0).or_else(|| terminal_size_of(stdout()).map(|(Width(columns), _)| columns.into()))
}

/// Whether the terminal is said to show Unicode.
pub(crate) fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|set| !set.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// Values as bars of eight heights, or as digits from 0 to 7.
pub(crate) fn curve(values: &[f64], low: f64, high: f64, unicode: bool) -> String {
    let bars = if unicode {
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        ['0', '1', '2', '3', '4', '5', '6', '7']
    };
    let range = (high - low).max(f64::MIN_POSITIVE);
    values.iter().map(|value| bars[(((value - low) / range * 7.0).round() as usize).min(7)]).collect()
}

/// Columns of text that fit a width.
pub(crate) struct Fitted {
    /// The columns that are shown, by place, each with its width.
    columns: Vec<(usize, usize)>,
    /// The places of those that are not.
    dropped: Vec<usize>,
    /// The first columns are text: they stand to the left, and are wrapped.
    left: usize,
}

impl Fitted {
    /// Fits columns of these widths, the first `left` of them text, to `limit`: text is wrapped, then columns are left out: of numbers
    /// the last first, those that are `lesser` before others, then of text. One column of text and one of numbers always stay.
    pub(crate) fn new(widths: &[usize], left: usize, limit: Option<usize>, lesser: impl Fn(usize) -> bool) -> Self {
        let mut columns: Vec<(usize, usize)> = widths.iter().copied().enumerate().collect();
        let mut dropped = Vec::new();
        if let Some(limit) = limit {
            let least = |(place, width): &(usize, usize)| if *place < left { (*width).min(NARROWEST) } else { *width };
            while total(columns.iter().map(least)) > limit {
                let numbers = columns.iter().filter(|(place, _)| *place >= left).count();
                let texts = columns.len() - numbers;
                let last = |wanted: &dyn Fn(usize) -> bool| columns.iter().rposition(|(place, _)| wanted(*place));
                let next = match (numbers > 1, texts > 1) {
                    (true, _) => last(&|place| place >= left && lesser(place)).or(last(&|place| place >= left)),
                    (false, true) => last(&|place| place < left),
                    (false, false) => None,
                };
                let Some(next) = next else { break };
                dropped.push(columns.remove(next).0);
            }
            narrow(&mut columns, left, limit);
        }
        dropped.sort_unstable();
        Self { columns, dropped, left }
    }

    /// The places of columns that are not shown.
    pub(crate) fn dropped(&self) -> &[usize] {
        &self.dropped
    }

    /// A row as lines of text.
    pub(crate) fn row(&self, cells: &[String]) -> String {
        let wrapped: Vec<Vec<String>> =
            self.columns.iter().map(|(place, width)| wrap(&cells[*place], *width)).collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(1);
        let line = |number: usize| {
            let mut line = String::new();
            for ((place, width), lines) in self.columns.iter().zip(&wrapped) {
                let cell = lines.get(number).map_or("", String::as_str);
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                line += &if *place < self.left { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
                line += &" ".repeat(GAP);
            }
            line.trim_end().to_owned() + "\n"
        };
        (0..height).map(line).collect()
    }
}

fn total(widths: impl ExactSizeIterator<Item = usize>) -> usize {
    let gaps = GAP * widths.len().saturating_sub(1);
    widths.sum::<usize>() + gaps
}

/// Takes from the widest columns of text what they are too wide together.
fn narrow(columns: &mut [(usize, usize)], left: usize, limit: usize) {
    while total(columns.iter().map(|(_, width)| *width)) > limit {
        let widest = columns.iter_mut().filter(|(place, width)| *place < left && *width > NARROWEST);
        let Some((_, width)) = widest.max_by_key(|(_, width)| *width) else { return };
        *width -= 1;
    }
}

/// Lines of at most `width` characters, broken at spaces where there are some. At least one line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        let gap = usize::from(room < width);
        if letters.len() + gap > room && room < width {
            lines.push(String::new());
            room = width;
        } else if gap == 1 {
            letters.insert(0, ' ');
        }
        for part in letters.chunks(width.max(1)) {
            if part.len() > room {
                lines.push(String::new());
                room = width;
            }
            lines.last_mut().into_iter().for_each(|line| line.extend(part));
            room = room.saturating_sub(part.len());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_rises_with_its_values() {
        assert_eq!(curve(&[0.0, 0.5, 1.0], 0.0, 1.0, false), "047");
        assert_eq!(curve(&[0.2, 0.2], 0.2, 0.2, true), "▁▁");
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_long_words_are_broken() {
        assert_eq!(wrap("react(0.9) | dice(0.9) | energy", 20), ["react(0.9) |", "dice(0.9) | energy"]);
        assert_eq!(wrap("short", 20), ["short"]);
        assert_eq!(wrap("", 20), [""]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        for width in 1..12 {
            let lines = wrap("a long-ish sentence of words, 1234567890123", width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
            let bare = |text: &str| text.replace(' ', "");
            assert_eq!(bare(&lines.concat()), bare("a long-ish sentence of words, 1234567890123"));
        }
    }

    #[test]
    fn columns_are_wrapped_before_they_are_left_out_and_one_of_each_kind_stays() {
        let widths = [31, 12, 6, 14, 6, 14];
        let fit = |limit| Fitted::new(&widths, 2, limit, |place| place == 3 || place == 5);
        assert!(fit(None).dropped().is_empty() && fit(Some(93)).dropped().is_empty());
        let narrower = fit(Some(83));
        assert!(narrower.dropped().is_empty() && narrower.columns[0].1 == 21);
        assert_eq!(fit(Some(81)).dropped(), [5]);
        assert_eq!(fit(Some(60)).dropped(), [3, 5]);
        assert_eq!(fit(Some(45)).dropped(), [3, 4, 5]);
        assert_eq!(fit(Some(10)).dropped(), [1, 3, 4, 5]);
        for limit in [40, 60, 83, 120] {
            let fitted = fit(Some(limit));
            let cells = ["react(0.9) | dice(0.9) | energy", "a name", "1.00", "[0.1, 0.2]", "2.00", "[0.1, 0.2]"];
            let text = fitted.row(&cells.map(str::to_owned));
            assert!(text.lines().all(|line| line.chars().count() <= limit), "{limit}: {text}");
        }
    }
}
