//! The sections of the page, in the order in which they are read.

use std::fmt::Write;

use dice_ood::evaluation::{Bins, DetectorReport, Drawn, SetReport};

use super::parts::{RATE, opened, within};
use super::svg::{Axis, Drawing, Figure};
use super::{Contents, curves, inputs, methods, provenance, published, why};
use crate::html::{escaped, named};
use crate::report::{count, percent};

/// The whole page.
pub(super) const ALL: [fn(&Contents<'_>) -> String; 11] = [
    answer,
    decisions,
    scores,
    curves::curves,
    methods::methods,
    methods::differences,
    published::published,
    why::why,
    why::ablations,
    inputs::inputs,
    provenance::section,
];

impl<'a> Contents<'a> {
    pub(super) fn first(&self) -> Option<&'a DetectorReport> {
        self.report.detectors.first()
    }

    /// What the first detector is drawn beside: energy, or the second.
    pub(super) fn beside(&self) -> Option<&'a DetectorReport> {
        let others = || self.report.detectors.iter().skip(1);
        others().find(|one| one.detector == "energy").or_else(|| others().next())
    }

    /// A figure with its heading and a line of words below.
    pub(super) fn framed(&self, kind: &'static str, heading: &str, drawing: Drawing, words: &str) -> String {
        let frame = format!(
            "<figure><h3><bdi>{}</bdi></h3>\n{}<figcaption class=\"soft\">{}</figcaption></figure>\n",
            escaped(heading),
            drawing.svg,
            escaped(words)
        );
        self.figures.borrow_mut().push((kind, drawing));
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
    figure.key("first", "p-values");
    figure.key("rule", "as they promise at most");
    let points: Vec<(f64, f64)> = found.levels.iter().copied().zip(found.shares.iter().copied()).collect();
    figure.line("first", &[&[(0.0, 0.0)], &points[..]].concat());
    let most = points.iter().map(|(level, share)| share - level).fold(f64::NEG_INFINITY, f64::max);
    let what = format!("The share exceeds its level by at most {most:.3}.");
    let drawing = figure.finish(&format!("Reliability of the p-values of {}", one.detector), &what);
    Some(page.framed("reliability", &one.detector, drawing, &what))
}

fn scores(page: &Contents<'_>) -> String {
    let places = page.first().map_or(0, |first| first.sets.len());
    let common = common(page);
    // The two detectors of a set stand beside each other.
    let figures: String = (0..places)
        .flat_map(|place| page.drawn().filter_map(move |one| distribution(page, one, one.sets.get(place)?, common)))
        .collect();
    if figures.is_empty() {
        return String::new();
    }
    let axis = if common.is_some() { " Both detectors are on one axis, as their scores are of one kind." } else { "" };
    format!(
        "<h2>Scores</h2>\n<p class=\"soft\">Share of inputs in each sixtieth of the axis, higher = more in-distribution; the outermost bins hold what lies \
         beyond.{axis} <span class=\"key id\"></span>in-distribution, filled · <span class=\"key ood\"></span>out-of-distribution · \
         <span class=\"key rule\"></span>threshold</p>\n<div class=\"figures\">\n{figures}</div>\n"
    )
}

/// An axis for the scores of all that are drawn, where these are of one kind: what shapings and sparsities do is then seen.
fn common(page: &Contents<'_>) -> Option<Bins> {
    let kind = |one: &DetectorReport| one.detector.rsplit(" | ").next().map(str::to_owned);
    let mut all = page.drawn();
    let first = all.next()?;
    let mut bins = first.drawn.as_ref()?.bins;
    let mut several = false;
    for one in all {
        let other = one.drawn.as_ref().filter(|_| kind(one) == kind(first))?.bins;
        bins = Bins { low: bins.low.min(other.low), high: bins.high.max(other.high) };
        several = true;
    }
    several.then_some(bins)
}

fn distribution(page: &Contents<'_>, one: &DetectorReport, set: &SetReport, common: Option<Bins>) -> Option<String> {
    let Drawn { bins, id, .. } = one.drawn.as_ref()?;
    let across = common.unwrap_or(*bins);
    // Bins that are narrower than those of the axis hold less of it.
    let scale = (across.high - across.low) / (bins.high - bins.low);
    let on_axis = |counts: &[u64]| -> Vec<f64> { shares(counts).into_iter().map(|share| share * scale).collect() };
    let (id, ood) = (on_axis(id), on_axis(set.scores.as_ref()?));
    let most = id.iter().chain(&ood).copied().fold(f64::MIN_POSITIVE, f64::max);
    let x = Axis { from: across.low, to: across.high, name: "score" };
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
    figure.key("id", "in-distribution");
    figure.key("ood", crate::names::shown(&set.ood));
    if let Some(decision) = &one.decision {
        figure.upright("rule", decision.threshold);
        figure.key("rule", "threshold");
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
