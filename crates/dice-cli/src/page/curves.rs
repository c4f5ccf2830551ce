//! Curves of the best detector beside those of energy, with the bands of a bootstrap.

use dice_ood::evaluation::{BandAt, Curves, DetectorReport, SetReport};

use super::Contents;
use super::parts::RATE;
use super::svg::{Axis, Figure};
use crate::html::escaped;
use crate::names::shown;
use crate::report::percent;

/// The TPR whose FPR stand in words below a figure.
const TOLD: [f64; 3] = [0.9, 0.95, 0.99];

pub(super) fn curves(page: &Contents<'_>) -> String {
    let Some(first) = page.first() else { return String::new() };
    let figures: String = (0..first.sets.len()).filter_map(|place| of_set(page, first, place)).collect();
    if figures.is_empty() {
        return String::new();
    }
    let second = page
        .beside()
        .map_or(String::new(), |one| format!(" · <span class=\"key second\"></span>{}", escaped(&one.detector)));
    let bands = match page.comparison.bootstrap {
        0 => String::new(),
        replicates => format!(
            " Bands say where a curve lies at each place by itself with 95 %: percentiles of {replicates} bootstrap replicates, in which the inputs of \
             each set are drawn anew by themselves, seed {}.",
            page.comparison.seed
        ),
    };
    format!(
        "<h2>Curves</h2>\n<p class=\"soft\">In-distribution positive. Lines through a part of the points are within 0.4 points of the curve; FPR at high TPR is \
         exact at every half point of TPR.{bands} <span class=\"key first\"></span>{}{second} · <span class=\"key rule\"></span>{} % of \
         in-distribution inputs accepted</p>\n<div class=\"figures three\">\n{figures}</div>\n",
        escaped(&first.detector),
        percent(page.report.at_tpr)
    )
}

/// A detector as it is drawn: the kind of its marks, its name, and what it did on a set.
struct Drawn<'a> {
    kind: &'static str,
    name: &'a str,
    set: &'a SetReport,
    curves: &'a Curves,
}

fn of_set(page: &Contents<'_>, first: &DetectorReport, place: usize) -> Option<String> {
    let all = [("first", Some(first)), ("second", page.beside())];
    let drawn = all.into_iter().filter_map(|(kind, one)| {
        let one = one?;
        let set = one.sets.get(place)?;
        Some(Drawn { kind, name: &one.detector, set, curves: set.curves.as_ref()? })
    });
    let drawn: Vec<Drawn<'_>> = drawn.collect();
    let name = shown(&drawn.first()?.set.ood);
    Some([roc(page, &drawn, &name), precision(page, &drawn, &name), high_tpr(page, &drawn, &name)].concat())
}

fn roc(page: &Contents<'_>, drawn: &[Drawn<'_>], name: &str) -> String {
    let mut figure = Figure::new(
        Axis { name: "out-of-distribution accepted", ..RATE },
        Axis { name: "in-distribution accepted", ..RATE },
    );
    let tpr = page.report.at_tpr;
    figure.line("rule", &[(0.0, tpr), (1.0, tpr)]);
    // The first is drawn last, above the other.
    for one in drawn.iter().rev() {
        figure.band(one.kind, &band(&one.curves.roc_band));
        figure.line(one.kind, &one.curves.roc.iter().map(|point| (point.fpr, point.tpr)).collect::<Vec<_>>());
    }
    keys(&mut figure, page, drawn);
    let what = format!("AUROC: {}", listed(drawn, |one| percent(one.set.metrics.auroc), ", "));
    page.framed("roc", &format!("ROC, {name}"), figure.finish(&format!("ROC curves on {name}"), &what), &what)
}

fn precision(page: &Contents<'_>, drawn: &[Drawn<'_>], name: &str) -> String {
    let lowest = drawn.iter().flat_map(|one| one.curves.precision.iter().map(|point| point.precision));
    // Where most inputs are in-distribution, precision is high throughout: the figure begins at the round tenth below.
    let from = (lowest.fold(1.0, f64::min) * 10.0).floor().min(9.0) / 10.0;
    let mut figure = Figure::new(
        Axis { name: "recall: in-distribution accepted", ..RATE },
        Axis { from, name: "precision", ..RATE },
    );
    figure.upright("rule", page.report.at_tpr);
    for one in drawn.iter().rev() {
        figure.band(one.kind, &band(&one.curves.precision_band));
        let points = one.curves.precision.iter().map(|point| (point.recall, point.precision));
        figure.line(one.kind, &points.collect::<Vec<_>>());
    }
    keys(&mut figure, page, drawn);
    let what = format!("AUPR-in: {}", listed(drawn, |one| percent(one.set.metrics.aupr_in), ", "));
    let drawing = figure.finish(&format!("Precision by recall on {name}"), &what);
    page.framed("precision", &format!("Precision and recall, {name}"), drawing, &what)
}

fn high_tpr(page: &Contents<'_>, drawn: &[Drawn<'_>], name: &str) -> String {
    let points = || drawn.iter().flat_map(|one| &one.curves.high_tpr);
    let most = points().map(|one| one.interval.map_or(one.fpr, |interval| interval.high.max(one.fpr)));
    let to = most.fold(0.01, f64::max).min(1.0);
    let mut figure = Figure::new(
        Axis { from: 0.9, to: 0.99, name: "in-distribution accepted" },
        Axis { from: 0.0, to, name: "out-of-distribution accepted" },
    );
    if (0.9..=0.99).contains(&page.report.at_tpr) {
        figure.upright("rule", page.report.at_tpr);
    }
    for one in drawn.iter().rev() {
        let of = &one.curves.high_tpr;
        let band = of.iter().filter_map(|one| one.interval.map(|interval| (one.tpr, interval.low, interval.high)));
        figure.band(one.kind, &band.collect::<Vec<_>>());
        figure.line(one.kind, &of.iter().map(|one| (one.tpr, one.fpr)).collect::<Vec<_>>());
    }
    keys(&mut figure, page, drawn);
    let rates = |one: &Drawn<'_>| {
        let told = TOLD.iter().filter_map(|tpr| one.curves.high_tpr.iter().find(|point| point.tpr == *tpr));
        told.map(|point| percent(point.fpr)).collect::<Vec<_>>().join(", ")
    };
    let what = format!("FPR at 90, 95 and 99 % TPR: {}", listed(drawn, rates, "; "));
    let drawing = figure.finish(&format!("FPR at high TPR on {name}"), &what);
    page.framed("high-tpr", &format!("FPR at high TPR, {name}"), drawing, &what)
}

/// What the lines are.
fn keys(figure: &mut Figure<'_>, page: &Contents<'_>, drawn: &[Drawn<'_>]) {
    drawn.iter().for_each(|one| figure.key(one.kind, one.name));
    figure.key("rule", format!("{} % of in-distribution inputs accepted", percent(page.report.at_tpr)));
}

/// Every detector with what it has, in words.
fn listed(drawn: &[Drawn<'_>], of: impl Fn(&Drawn<'_>) -> String, between: &str) -> String {
    drawn.iter().map(|one| format!("{} {}", one.name, of(one))).collect::<Vec<_>>().join(between)
}

fn band(of: &[BandAt]) -> Vec<(f64, f64, f64)> {
    of.iter().map(|place| (place.at, place.low, place.high)).collect()
}
