//! Methods and sets: every metric with its interval, and how methods differ from energy over the same inputs.

use std::fmt::Write;

use dice_ood::evaluation::{Averages, DetectorReport, Difference, Distance, RankingMetric, Standing};
use dice_ood::metrics::Interval;

use super::Contents;
use super::parts::{opened, within};
use crate::advice::metric_name;
use crate::html::{escaped, named};
use crate::report::percent;

/// What a detector has in a column, as a share, and its interval where there is one.
type Value<'a> = dyn Fn(&'a DetectorReport) -> Option<(f64, Option<Interval>)> + 'a;

/// A column of the table of methods: a metric on a set, or its average over sets.
struct Column<'a> {
    name: String,
    value: Box<Value<'a>>,
    less_is_better: bool,
}

pub(super) fn methods(page: &Contents<'_>) -> String {
    let detectors = &page.report.detectors;
    let columns = columns(page);
    if columns.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "<h2>Methods and sets</h2>\n<p class=\"soft\">In percent, in-distribution positive{}; ★ marks the best of a column. With scripts on, a \
         heading sorts.</p>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Methods and sets\"><table class=\"sorts\">\n<thead><tr>\
         <th scope=\"col\">detector</th>",
        if page.comparison.bootstrap > 0 { ", with 95 % bootstrap intervals" } else { "" }
    );
    columns.iter().for_each(|column| _ = write!(text, "<th scope=\"col\">{}</th>", column.name));
    text += "</tr></thead>\n<tbody>\n";
    let best: Vec<f64> = columns
        .iter()
        .map(|column| {
            let loss = |value: f64| if column.less_is_better { value } else { -value };
            detectors
                .iter()
                .filter_map(|one| (column.value)(one))
                .map(|(value, _)| loss(value))
                .fold(f64::INFINITY, f64::min)
        })
        .collect();
    for one in detectors {
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", escaped(&one.detector));
        for (column, best) in columns.iter().zip(&best) {
            let Some((value, interval)) = (column.value)(one) else {
                text += "<td>-</td>";
                continue;
            };
            let is_best = detectors.len() > 1 && *best == if column.less_is_better { value } else { -value };
            let (class, star) = if is_best { (" class=\"best\"", "★ ") } else { ("", "") };
            let interval =
                interval.map_or(String::new(), |interval| format!("<br><small>{}</small>", within(interval)));
            let _ = write!(text, "<td{class} data-v=\"{value}\">{star}{}{interval}</td>", percent(value));
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div>\n"
}

fn columns<'a>(page: &Contents<'a>) -> Vec<Column<'a>> {
    let Some(first) = page.first() else { return Vec::new() };
    let fpr = format!("FPR@{}TPR", percent(page.report.at_tpr).trim_end_matches('0').trim_end_matches('.'));
    let mut columns = Vec::new();
    let groups = [("average", None), ("near average", Some(Distance::Near)), ("far average", Some(Distance::Far))];
    // Where all sets are near, or all far, their average is the average; of one set it is that set.
    let told = |over: Option<Distance>| {
        let of_kind = first.sets.iter().filter(|set| over.is_none() || set.distance == over).count();
        of_kind > 1 && (over.is_none() || of_kind < first.sets.len())
    };
    for (name, over) in groups.into_iter().filter(|(_, over)| told(*over)) {
        let mean = |of: fn(&Averages) -> f64| {
            move |one: &'a DetectorReport| one.average_over(over).map(|mean| (of(mean), None))
        };
        columns.push(Column {
            name: format!("{name}<br>{fpr} ↓"),
            value: Box::new(mean(|m| m.fpr_at_tpr)),
            less_is_better: true,
        });
        columns.push(Column {
            name: format!("{name}<br>AUROC ↑"),
            value: Box::new(mean(|m| m.auroc)),
            less_is_better: false,
        });
    }
    for (place, set) in first.sets.iter().enumerate() {
        let distance = set.distance.map(|distance| format!(" ({})", distance.name())).unwrap_or_default();
        let name = |metric: &str| format!("{}{distance}<br>{metric}", named(&set.ood));
        columns.push(Column {
            name: name(&format!("{fpr} ↓")),
            value: Box::new(move |one| {
                one.sets.get(place).map(|set| (set.metrics.fpr_at_tpr, set.intervals.map(|i| i.fpr_at_tpr)))
            }),
            less_is_better: true,
        });
        columns.push(Column {
            name: name("AUROC ↑"),
            value: Box::new(move |one| {
                one.sets.get(place).map(|set| (set.metrics.auroc, set.intervals.map(|i| i.auroc)))
            }),
            less_is_better: false,
        });
        columns.push(Column {
            name: name("AUPR-in ↑"),
            value: Box::new(move |one| {
                one.sets.get(place).map(|set| (set.metrics.aupr_in, set.intervals.map(|i| i.aupr_in)))
            }),
            less_is_better: false,
        });
    }
    columns
}

/// Every method against what the advice compares with, over all sets and over each kind or each of them.
pub(super) fn differences(page: &Contents<'_>) -> String {
    let Some(advice) = page.report.advice.as_ref().filter(|advice| !advice.overall.comparisons.is_empty()) else {
        return String::new();
    };
    let standings: Vec<&Standing> = std::iter::once(&advice.overall).chain(&advice.groups).collect();
    let families = match advice.groups.len() {
        0 => "all rows",
        _ => "the rows of the first column, and those of all others",
    };
    let mut text = format!(
        "<h3>Differences to {}</h3>\n<p class=\"soft\">{} less that of {0}, in points. The same inputs are drawn for all detectors (paired bootstrap, {} \
         replicates, seed {}). Intervals hold with 95 % for a family of comparisons together (Bonferroni), p-values are adjusted for it (Holm); families are \
         {families}.</p>\n",
        escaped(&advice.baseline),
        metric_name(advice.metric, page.report.at_tpr),
        page.comparison.bootstrap,
        page.comparison.seed
    );
    let column = |standing: &&Standing| match &standing.sets[..] {
        [one] if *one == standing.name => named(one),
        [one] => format!("{}<br>{}", named(&standing.name), named(one)),
        sets => format!("{}<br>mean of {}", named(&standing.name), sets.len()),
    };
    text += &opened(&format!("Differences to {}", escaped(&advice.baseline)), "detector", standings.iter().map(column));
    let less_is_better = advice.metric == RankingMetric::FprAtTpr;
    for (place, one) in advice.overall.comparisons.iter().enumerate() {
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", escaped(&one.detector));
        let cells = standings.iter().filter_map(|standing| standing.comparisons.get(place));
        cells.for_each(|one| text += &difference(one, less_is_better));
        text += "</tr>\n";
    }
    text + "</tbody></table></div>\n"
}

fn difference(of: &Difference, less_is_better: bool) -> String {
    let told = match (&of.interval, of.p_value) {
        (Some(interval), Some(p_value)) => {
            let p_value = if p_value < 0.001 { "p &lt; 0.001".to_owned() } else { format!("p = {p_value:.3}") };
            let verdict = match (of.beyond_noise, (of.difference < 0.0) == less_is_better) {
                (false, _) => "no difference shown",
                (true, true) => "better",
                (true, false) => "worse",
            };
            format!("{}<br>{p_value}, {verdict}", within(*interval))
        }
        _ => "too few inputs to say more".to_owned(),
    };
    let class = if of.beyond_noise { " class=\"best\"" } else { "" };
    format!("<td{class} data-v=\"{}\">{:+.2}<br><small>{told}</small></td>", of.difference, 100.0 * of.difference)
}
