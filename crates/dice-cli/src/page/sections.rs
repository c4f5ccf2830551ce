//! The sections of the page, in the order in which they are read.

use std::fmt::Write;

use dice_ood::evaluation::{Averages, DetectorReport, Distance, Drawn, SetReport};
use dice_ood::metrics::Interval;

use super::svg::{Axis, Figure};
use super::{Contents, inputs, provenance, published, why};
use crate::html::{escaped, named};
use crate::report::{count, percent};

/// The whole page.
pub(super) const ALL: [fn(&Contents<'_>) -> String; 10] = [
    answer,
    decisions,
    scores,
    curves,
    methods,
    published::published,
    why::why,
    why::ablations,
    inputs::inputs,
    provenance::section,
];

const RATE: Axis<'static> = Axis { from: 0.0, to: 1.0, name: "" };

impl<'a> Contents<'a> {
    pub(super) fn first(&self) -> Option<&'a DetectorReport> {
        self.report.detectors.first()
    }

    /// What the first detector is drawn beside: energy, or the second.
    fn beside(&self) -> Option<&'a DetectorReport> {
        let others = || self.report.detectors.iter().skip(1);
        others().find(|one| one.detector == "energy").or_else(|| others().next())
    }

    /// A figure with its heading and a line of words below.
    pub(super) fn framed(&self, kind: &'static str, heading: &str, svg: String, words: &str) -> String {
        let frame = format!(
            "<figure><h3><bdi>{}</bdi></h3>\n{svg}<figcaption class=\"soft\">{}</figcaption></figure>\n",
            escaped(heading),
            escaped(words)
        );
        self.figures.borrow_mut().push((kind, svg));
        frame
    }

    fn drawn(&self) -> impl Iterator<Item = &'a DetectorReport> {
        self.first().into_iter().chain(self.beside())
    }
}

fn answer(page: &Contents<'_>) -> String {
    let Some(first) = page.first() else { return String::new() };
    let mut text = format!("<p class=\"soft\">dice report · {} in-distribution inputs", count(page.report.id_inputs));
    for set in &first.sets {
        let _ = write!(text, " · {} of {}", count(set.ood_inputs), named(&set.ood));
    }
    let _ = writeln!(text, "</p>\n<h1>{}</h1>", headline(page, first));
    if let Some(sentence) = promise(first) {
        let _ = writeln!(text, "<p>{sentence}</p>");
    }
    if let Some(sentence) = misses(page, first) {
        let _ = writeln!(text, "<p>{sentence}</p>");
    }
    if !page.advice.is_empty() {
        text += "<h2>Advice</h2>\n";
        for line in &page.advice {
            match line.trim_start().strip_prefix("$ ") {
                Some(command) => _ = writeln!(text, "<p><code>{}</code></p>", escaped(command)),
                None => _ = writeln!(text, "<p>{}</p>", escaped(line)),
            }
        }
    }
    text
}

fn headline(page: &Contents<'_>, first: &DetectorReport) -> String {
    let name = escaped(&first.detector);
    let of = if page.report.detectors.len() > 1 {
        format!(", the best of {}", page.report.detectors.len())
    } else {
        String::new()
    };
    match &first.average {
        None => format!("{name}{of}: on in-distribution inputs alone"),
        Some(average) => format!(
            "{name}{of}, accepts {} % of out-of-distribution inputs where {} % of in-distribution ones are accepted",
            percent(average.fpr_at_tpr),
            percent(page.report.at_tpr)
        ),
    }
}

/// What its threshold promises and did.
fn promise(first: &DetectorReport) -> Option<String> {
    let decision = first.decision.as_ref()?;
    let outcome = match first.breaks_its_promise() {
        true => "which contradicts the promise: these inputs are not like those of the calibration",
        false if decision.id_accepted > decision.id_expected.high => "more than promised",
        false => "as promised",
    };
    Some(format!(
        "Its threshold was set to accept at least {} % of in-distribution inputs. Here it accepts {} %, {outcome} (expected of so many inputs: {}).",
        percent(decision.promised_tpr),
        percent(decision.id_accepted),
        within(decision.id_expected)
    ))
}

/// The set of which it accepts most.
fn misses(page: &Contents<'_>, first: &DetectorReport) -> Option<String> {
    let worst = first.sets.iter().max_by(|a, b| a.metrics.fpr_at_tpr.total_cmp(&b.metrics.fpr_at_tpr))?;
    let accuracy = match (page.report.dense_accuracy, first.accuracy) {
        (Some(dense), Some(own)) => {
            format!(
                " The network is right on {} % of the in-distribution inputs, this detector's own head on {} %.",
                percent(dense),
                percent(own)
            )
        }
        _ => String::new(),
    };
    let missed = match worst.metrics.fpr_at_tpr {
        0.0 => "It misses none of these sets at that rate.".to_owned(),
        most => format!(
            "It misses most of {}: {} % of it is accepted at that rate (AUROC {}).",
            named(&worst.ood),
            percent(most),
            percent(worst.metrics.auroc)
        ),
    };
    Some(missed + &accuracy)
}

fn decisions(page: &Contents<'_>) -> String {
    let decided: Vec<&DetectorReport> = page.report.detectors.iter().filter(|one| one.decision.is_some()).collect();
    let Some(sets) = decided.first().map(|one| &one.sets) else {
        return "<h2>Decisions</h2>\n<p>None of these detectors has a threshold.</p>\n".into();
    };
    let columns = ["promised", "in-distribution", "expected"].map(String::from).into_iter();
    let mut text =
        "<h2>Decisions</h2>\n<p class=\"soft\">Percent accepted, each at its own threshold.</p>\n".to_owned();
    text += &opened("Decisions", "detector", columns.chain(sets.iter().map(|set| named(&set.ood))));
    for one in &decided {
        let Some(decision) = &one.decision else { continue };
        let mark = if one.breaks_its_promise() { " (contradicted)" } else { "" };
        let _ = write!(
            text,
            "<tr><th scope=\"row\">{}</th><td>≥ {}</td><td>{}{mark}</td><td>{}</td>",
            escaped(&one.detector),
            percent(decision.promised_tpr),
            percent(decision.id_accepted),
            within(decision.id_expected)
        );
        for set in &one.sets {
            let _ = write!(text, "<td>{}</td>", set.accepted.map_or("-".into(), percent));
        }
        text += "</tr>\n";
    }
    text += "</tbody></table></div>\n";
    let figures: String = decided.iter().take(2).filter_map(|one| reliability(page, one)).collect();
    if !figures.is_empty() {
        let _ = write!(
            text,
            "<h3>Are p-values what they say?</h3>\n<p class=\"soft\">Share of in-distribution inputs whose p-value is at most a level. On the dotted line, or \
             below it, a level rejects no more than it says.</p>\n<div class=\"figures\">\n{figures}</div>\n"
        );
    }
    text
}

fn reliability(page: &Contents<'_>, one: &DetectorReport) -> Option<String> {
    let found = one.drawn.as_ref()?.reliability.as_ref()?;
    let mut figure = Figure::new(Axis { name: "level", ..RATE }, Axis { name: "share at most", ..RATE });
    figure.line("rule", &[(0.0, 0.0), (1.0, 1.0)]);
    let points: Vec<(f64, f64)> = found.levels.iter().copied().zip(found.shares.iter().copied()).collect();
    figure.line("first", &[&[(0.0, 0.0)], &points[..]].concat());
    let most = points.iter().map(|(level, share)| share - level).fold(f64::NEG_INFINITY, f64::max);
    let what = format!("The share exceeds its level by at most {most:.3}.");
    let svg = figure.finish(&format!("Reliability of the p-values of {}", one.detector), &what);
    Some(page.framed("reliability", &one.detector, svg, &what))
}

fn scores(page: &Contents<'_>) -> String {
    let places = page.first().map_or(0, |first| first.sets.len());
    // The two detectors of a set stand beside each other.
    let figures: String = (0..places)
        .flat_map(|place| page.drawn().filter_map(move |one| distribution(page, one, one.sets.get(place)?)))
        .collect();
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Scores</h2>\n<p class=\"soft\">Share of inputs by score, higher = more in-distribution; the outermost bins hold what lies beyond. \
         <span class=\"key id\"></span>in-distribution, filled · <span class=\"key ood\"></span>out-of-distribution · \
         <span class=\"key rule\"></span>threshold</p>\n<div class=\"figures\">\n{figures}</div>\n"
    )
}

fn distribution(page: &Contents<'_>, one: &DetectorReport, set: &SetReport) -> Option<String> {
    let Drawn { bins, id, .. } = one.drawn.as_ref()?;
    let (id, ood) = (shares(id), shares(set.scores.as_ref()?));
    let most = id.iter().chain(&ood).copied().fold(f64::MIN_POSITIVE, f64::max);
    let x = Axis { from: bins.low, to: bins.high, name: "score" };
    let mut figure = Figure::new(x, Axis { from: 0.0, to: 1.05 * most, name: "share" });
    let steps = |shares: &[f64]| -> Vec<(f64, f64)> {
        let width = (bins.high - bins.low) / shares.len() as f64;
        let edge = |place: usize| bins.low + width * place as f64;
        shares
            .iter()
            .enumerate()
            .flat_map(|(place, share)| [(edge(place), *share), (edge(place + 1), *share)])
            .collect()
    };
    figure.area("id", &steps(&id));
    figure.line("id", &steps(&id));
    figure.line("ood", &steps(&ood));
    if let Some(decision) = &one.decision {
        figure.upright("rule", decision.threshold);
    }
    let accepted = set.accepted.map_or(String::new(), |share| format!("; {} % of it accepted", percent(share)));
    let what = format!("{}: AUROC {}{accepted}", one.detector, percent(set.metrics.auroc));
    let title = format!("Scores of {} on {}", one.detector, crate::names::shown(&set.ood));
    Some(page.framed("scores", &crate::names::shown(&set.ood), figure.finish(&title, &what), &what))
}

fn shares(counts: &[u64]) -> Vec<f64> {
    let all = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|count| *count as f64 / all).collect()
}

fn curves(page: &Contents<'_>) -> String {
    let Some(first) = page.first() else { return String::new() };
    let beside = page.beside();
    let figures: String = (0..first.sets.len()).filter_map(|place| roc(page, first, beside, place)).collect();
    if figures.is_empty() {
        return String::new();
    }
    let second =
        beside.map_or(String::new(), |one| format!(" · <span class=\"key second\"></span>{}", escaped(&one.detector)));
    format!(
        "<h2>ROC curves</h2>\n<p class=\"soft\">In-distribution positive; within 0.4 points of the curve. <span class=\"key first\"></span>{}{second} · \
         <span class=\"key rule\"></span>{} % of in-distribution inputs</p>\n<div class=\"figures\">\n{figures}</div>\n",
        escaped(&first.detector),
        percent(page.report.at_tpr)
    )
}

fn roc(page: &Contents<'_>, first: &DetectorReport, beside: Option<&DetectorReport>, place: usize) -> Option<String> {
    let axis = |name: &'static str| Axis { name, ..RATE };
    let mut figure = Figure::new(axis("out-of-distribution accepted"), axis("in-distribution accepted"));
    let tpr = page.report.at_tpr;
    figure.line("rule", &[(0.0, tpr), (1.0, tpr)]);
    let set = first.sets.get(place)?;
    let mut areas = Vec::new();
    for (kind, one) in [("second", beside), ("first", Some(first))] {
        let Some((one, set)) = one.and_then(|one| Some((one, one.sets.get(place)?))) else { continue };
        let points: Vec<(f64, f64)> = set.roc.as_ref()?.iter().map(|point| (point.fpr, point.tpr)).collect();
        figure.line(kind, &points);
        areas.push(format!("{} {}", one.detector, percent(set.metrics.auroc)));
    }
    areas.reverse();
    let what = format!("AUROC: {}", areas.join(", "));
    let name = crate::names::shown(&set.ood);
    Some(page.framed("roc", &name, figure.finish(&format!("ROC curves on {name}"), &what), &what))
}

/// The beginning of a table that can be wider than the page: what it is called, the heading of its first column, those of the others.
pub(super) fn opened(name: &str, first: &str, columns: impl Iterator<Item = String>) -> String {
    let mut text = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\"><table>\n<thead><tr><th scope=\"col\">{first}</th>"
    );
    columns.for_each(|column| _ = write!(text, "<th scope=\"col\">{column}</th>"));
    text + "</tr></thead>\n<tbody>\n"
}

/// What a detector has in a column, as a share, and its interval where there is one.
type Value<'a> = dyn Fn(&'a DetectorReport) -> Option<(f64, Option<Interval>)> + 'a;

/// A column of the table of methods: a metric on a set, or its average over sets.
struct Column<'a> {
    name: String,
    value: Box<Value<'a>>,
    less_is_better: bool,
}

fn methods(page: &Contents<'_>) -> String {
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
    // Where all sets are near, or all far, their average is the average.
    let told = |over: Option<Distance>| {
        first.average_over(over).is_some() && (over.is_none() || first.sets.iter().any(|set| set.distance != over))
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
            value: Box::new(move |one| one.sets.get(place).map(|set| (set.metrics.aupr_in, None))),
            less_is_better: false,
        });
    }
    columns
}

fn within(interval: Interval) -> String {
    format!("{:.1} to {:.1}", 100.0 * interval.low, 100.0 * interval.high)
}
