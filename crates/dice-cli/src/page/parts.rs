//! What sections share.

use std::fmt::Write;

use dice_ood::metrics::Interval;

use super::svg::Axis;

pub(super) const RATE: Axis<'static> = Axis { from: 0.0, to: 1.0, name: "" };

/// The beginning of a table that can be wider than the page: what it is called, the heading of its first column, those of the others.
pub(super) fn opened(name: &str, first: &str, columns: impl Iterator<Item = String>) -> String {
    let mut text = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\"><table>\n<thead><tr><th scope=\"col\">{first}</th>"
    );
    columns.for_each(|column| _ = write!(text, "<th scope=\"col\">{column}</th>"));
    text + "</tr></thead>\n<tbody>\n"
}

pub(super) fn within(interval: Interval) -> String {
    format!("{:.1} to {:.1}", 100.0 * interval.low, 100.0 * interval.high)
}
