//! Published numbers, and ours beside them.

use std::fmt::Write;

use dice_ood::metrics::Interval;

use super::parts::opened;
use super::{Contents, PaperNotes};
use crate::html::{escaped, named};
use crate::names::shown_words;
use crate::report::{Table, percent};

/// A published number with ours beside it, as fractions.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) detector: String,
    pub(crate) set: String,
    pub(crate) source: &'static str,
    pub(crate) fpr: Pair,
    pub(crate) auroc: Pair,
}

/// One metric, published and ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) published: f64,
    /// The standard deviation over the published runs, where it was printed.
    pub(crate) deviation: Option<f64>,
    pub(crate) ours: f64,
    /// The bootstrap interval of ours; averages have none.
    pub(crate) interval: Option<Interval>,
}

impl Pair {
    /// Whether the published number lies in our interval, or ours within two deviations of it; `None` where there is neither.
    pub(crate) fn agrees(&self) -> Option<bool> {
        let inside = self.interval.map(|interval| (interval.low..=interval.high).contains(&self.published));
        let near = self.deviation.map(|deviation| (self.ours - self.published).abs() <= 2.0 * deviation);
        match (inside, near) {
            (None, None) => None,
            (inside, near) => Some(inside == Some(true) || near == Some(true)),
        }
    }
}

const COLUMNS: [&str; 6] = ["set", "FPR published", "FPR ours", "AUROC published", "AUROC ours", "source"];

pub(super) fn published(page: &Contents<'_>) -> String {
    let Some(PaperNotes { beside, notes, .. }) = page.notes else { return String::new() };
    let mut text = "<h2>Beside the published numbers</h2>\n".to_owned();
    if beside.is_empty() {
        text += "<p>There are none of this network and these sets.</p>\n";
    } else {
        text += "<p class=\"soft\">In percent. = where the published number lies within our 95 % bootstrap interval, or ours within two standard \
                 deviations of the published runs; \u{2260} outside; nothing where neither is known.</p>\n";
        text += &opened("Published numbers", "detector", COLUMNS.map(String::from).into_iter());
        for one in beside {
            let _ = writeln!(
                text,
                "<tr><th scope=\"row\">{}</th><td>{}</td>{}{}<td class=\"words\">{}</td></tr>",
                escaped(&one.detector),
                named(&one.set),
                cells(&one.fpr),
                cells(&one.auroc),
                escaped(one.source)
            );
        }
        text += "</tbody></table></div>\n";
    }
    text += "<p class=\"soft\">What cannot be had:</p>\n<ul class=\"soft\">\n";
    notes.iter().for_each(|note| _ = writeln!(text, "<li>{}</li>", escaped(&shown_words(note))));
    text + "</ul>\n"
}

fn cells(pair: &Pair) -> String {
    let (class, _) = mark(pair);
    format!("<td>{}</td><td{class}>{}</td>", percent(pair.published), judged(pair))
}

/// The class of a cell, and what it says without colour.
fn mark(pair: &Pair) -> (&'static str, &'static str) {
    match pair.agrees() {
        Some(true) => (" class=\"inside\"", "= "),
        Some(false) => (" class=\"outside\"", "\u{2260} "),
        None => ("", ""),
    }
}

fn judged(pair: &Pair) -> String {
    format!("{}{}", mark(pair).1, percent(pair.ours))
}

/// The same, for files of their own.
pub(super) fn table(PaperNotes { beside, .. }: &PaperNotes) -> Table {
    let header: Vec<&str> = std::iter::once("detector").chain(COLUMNS).collect();
    let mut table = Table::new("Published numbers and ours, in percent", &header, 2);
    table.rows.extend(beside.iter().map(|one| {
        vec![
            one.detector.clone(),
            one.set.clone(),
            percent(one.fpr.published),
            judged(&one.fpr),
            percent(one.auroc.published),
            judged(&one.auroc),
            one.source.to_owned(),
        ]
    }));
    table
}
