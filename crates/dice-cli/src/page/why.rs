//! What pruning does inside the network, and what else could be dropped.

use std::fmt::Write;

use dice_ood::diagnosis::{Ablation, Anatomy, Estimate, Level, SetAccount, Spread};

use super::Contents;
use super::parts::opened;
use super::svg::{Axis, Figure};
use crate::html::{escaped, named};
use crate::names::shown;
use crate::report::{Table, count, percent};

/// Points of a figure over units or classes; more are drawn as means of neighbours.
const POINTS: usize = 120;
/// Rows and columns of the pattern of the head.
const TILES: (usize, usize) = (40, 120);

pub(super) fn why(page: &Contents<'_>) -> String {
    let found = match page.anatomy {
        None if page.comparison.scores => return String::new(),
        None => {
            return "<h2>Why</h2>\n<p>None of these detectors drops weights of the head: there is nothing to show of what pruning \
                    does. <code>-d 'dice(0.9) | energy'</code> adds one that does.</p>\n"
                .into();
        }
        Some(Err(reason)) => return format!("<h2>Why</h2>\n<p>Not shown: {}</p>\n", escaped(&shown(reason))),
        Some(Ok(found)) => found,
    };
    [introduction(found), contributions(page, found), outputs(page, found), pattern(page, found), sweep(page, found)]
        .concat()
}

fn introduction(found: &Anatomy) -> String {
    let mask = &found.mask;
    format!(
        "<h2>Why: what {} does inside</h2>\n<p>Of {} weights of the head it keeps {}, which carry {} % of the positive contributions on the training \
         inputs. {} of {} units keep no weight; {} are silent (mean activation below 1 % of the largest), {} both.</p>\n",
        escaped(&found.detector),
        count(mask.weights),
        count(mask.kept),
        percent(mask.contribution_kept),
        count(mask.unused_units),
        count(found.kept.ncols()),
        count(mask.silent_units),
        count(mask.silent_and_unused)
    )
}

/// The paper's figure of unit contributions, before and after.
fn contributions(page: &Contents<'_>, found: &Anatomy) -> String {
    let of = &found.contributions;
    let ends = of.sets.iter().flat_map(|set| {
        let points = set.mean.iter().zip(&set.deviation);
        points.flat_map(|(mean, deviation)| [mean - deviation, mean + deviation])
    });
    let (low, high) = ends.fold((0f64, f64::MIN_POSITIVE), |(low, high), end| (low.min(end), high.max(end)));
    let figures: String = of
        .sets
        .iter()
        .zip(&found.sets)
        .flat_map(|(set, account)| {
            let all = vec![true; of.kept.len()];
            let output = &account.pruned_outputs().classes[of.class];
            [
                ("before", contribution(set, &all, (low, high)), output.mean_before, output.variance_before),
                ("after", contribution(set, &of.kept, (low, high)), output.mean_after, output.variance_after),
            ]
            .map(|(when, figure, mean, variance)| {
                let name = shown(&set.name);
                let what = format!("{name}, {when} pruning: output {mean:.3}, its variance {variance:.4}");
                page.framed(
                    "contributions",
                    &format!("{name}, {when}"),
                    figure.finish(&format!("Contributions to class {} on {name}", of.class), &what),
                    &what,
                )
            })
        })
        .collect();
    let together = of.kept.len().div_ceil(POINTS);
    let grouped = if together > 1 { format!("; a point is the mean of {together} units") } else { String::new() };
    format!(
        "<h3>What units contribute</h3>\n<p class=\"soft\">Weight times activation, mean and one standard deviation to either side, of the units of class {}, \
         sorted by their mean on the in-distribution inputs{grouped}. It is the class whose output's variance falls by the median of all.</p>\n\
         <div class=\"figures\">\n{figures}</div>\n",
        of.class
    )
}

fn contribution<'a>(set: &Spread, kept: &[bool], (low, high): (f64, f64)) -> Figure<'a> {
    let units = Axis { from: 0.0, to: kept.len() as f64, name: "unit, sorted" };
    let mut figure = Figure::new(units, Axis { from: low, to: high, name: "contribution" });
    let values = |of: &[f64]| -> Vec<f64> {
        of.iter().zip(kept).map(|(value, kept)| if *kept { *value } else { 0.0 }).collect()
    };
    let (mean, deviation) = (thinned(&values(&set.mean)), thinned(&values(&set.deviation)));
    let band: Vec<(f64, f64, f64)> =
        mean.iter().zip(&deviation).map(|((x, mean), (_, off))| (*x, mean - off, mean + off)).collect();
    figure.band("id", &band);
    figure.line("id", &mean);
    figure.line("rule", &[(0.0, 0.0), (kept.len() as f64, 0.0)]);
    figure.key("id", "mean, and a standard deviation to either side");
    figure
}

/// Values by their place, at most [`POINTS`] of them: means of neighbours.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let together = values.len().div_ceil(POINTS).max(1);
    let point = |(place, part): (usize, &[f64])| {
        let middle = (place * together) as f64 + part.len() as f64 / 2.0;
        (middle, part.iter().sum::<f64>() / part.len() as f64)
    };
    values.chunks(together).enumerate().map(point).collect()
}

/// The variance of every class's output, and the two sides of the lemma.
fn outputs(page: &Contents<'_>, found: &Anatomy) -> String {
    let columns = ["variance kept", "if units were independent", "2 cov / dropped", "classes lower", "mean shift"];
    let mut text = "<h3>What becomes of the outputs</h3>\n<p class=\"soft\">The lemma of the paper: without the dropped units the variance of an output falls by \
                    the sum of theirs and twice their covariances. For independent units the second is 0; the variance falls wherever twice the covariances \
                    over the variance dropped is above -1. Summed over classes, with 95 % jackknife intervals; below 1, pruning lowers the variance.</p>\n"
        .to_owned();
    text += &opened("Output variance", "set", columns.iter().map(|name| (*name).to_owned()));
    for set in &found.sets {
        let outputs = set.pruned_outputs();
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{} of {}</td><td>{}</td></tr>",
            named(&set.name),
            estimate(&outputs.variance_kept),
            estimate(&outputs.variance_kept_if_independent),
            estimate(&outputs.covariance_over_dropped),
            outputs.classes_lower,
            outputs.classes.len(),
            estimate(&outputs.mean_shift)
        );
    }
    let figures: String = found.sets.iter().map(|set| variances(page, set)).collect();
    text + &format!(
        "</tbody></table></div>\n<p class=\"soft\">Variance of each class's output, the largest first. <span class=\"key id\"></span>after pruning, filled · \
         <span class=\"key ood\"></span>before</p>\n<div class=\"figures\">\n{figures}</div>\n"
    )
}

fn estimate(of: &Estimate) -> String {
    let interval = format!("<br><small>{:.3} to {:.3}</small>", of.low, of.high);
    format!("{:.3}{}", of.value, if of.low.is_finite() { &interval } else { "" })
}

fn variances(page: &Contents<'_>, set: &SetAccount) -> String {
    let mut classes: Vec<(f64, f64)> =
        set.pruned_outputs().classes.iter().map(|class| (class.variance_before, class.variance_after)).collect();
    classes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (before, after): (Vec<f64>, Vec<f64>) = classes.into_iter().unzip();
    let most = before.iter().chain(&after).copied().fold(f64::MIN_POSITIVE, f64::max);
    let x = Axis { from: 0.0, to: before.len() as f64, name: "class, sorted" };
    let mut figure = Figure::new(x, Axis { from: 0.0, to: 1.05 * most, name: "variance" });
    figure.area("id", &steps(&after));
    figure.line("id", &steps(&after));
    figure.line("ood", &steps(&before));
    figure.key("id", "after pruning");
    figure.key("ood", "before");
    let sum = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (name, what) =
        (shown(&set.name), format!("mean over classes: {:.4} before, {:.4} after", sum(&before), sum(&after)));
    page.framed("variance", &name, figure.finish(&format!("Output variance on {name}"), &what), &what)
}

/// Values as stairs.
fn steps(values: &[f64]) -> Vec<(f64, f64)> {
    let points = thinned(values);
    let edge = |place: usize| values.len() as f64 * place as f64 / points.len() as f64;
    points
        .iter()
        .enumerate()
        .flat_map(|(place, (_, value))| [(edge(place), *value), (edge(place + 1), *value)])
        .collect()
}

/// Which weights of the head are kept; units that most classes keep stand to the left.
fn pattern(page: &Contents<'_>, found: &Anatomy) -> String {
    let (classes, units) = found.kept.dim();
    let mut order: Vec<usize> = (0..units).collect();
    let keeping = |unit: usize| found.kept.column(unit).iter().filter(|kept| **kept).count();
    order.sort_by_key(|unit| std::cmp::Reverse(keeping(*unit)));
    let (rows, columns) = (classes.min(TILES.0), units.min(TILES.1));
    let part = |of: usize, parts: usize, place: usize| (of * place / parts)..(of * (place + 1) / parts);
    let tile = |row: usize, column: usize| {
        let (across, along) = (part(units, columns, column), part(classes, rows, row));
        let all = across.len() * along.len();
        let kept: usize =
            along.map(|class| order[across.clone()].iter().filter(|unit| found.kept[(class, **unit)]).count()).sum();
        kept as f64 / all as f64
    };
    let tiles: Vec<Vec<f64>> = (0..rows).map(|row| (0..columns).map(|column| tile(row, column)).collect()).collect();
    let x = Axis { from: 0.0, to: units as f64, name: "unit, the most used first" };
    let mut figure = Figure::new(x, Axis { from: 0.0, to: classes as f64, name: "class" });
    figure.tiles(&tiles);
    let used = units - found.mask.unused_units;
    figure.upright("rule", used as f64);
    figure.key("rule", "units to the left keep a weight");
    let (few, many) =
        found.mask.kept_by_class.iter().fold((usize::MAX, 0), |(few, many), kept| (few.min(*kept), many.max(*kept)));
    let what = format!("{used} units keep a weight, left of the dotted line; classes keep {few} to {many} weights");
    format!(
        "<h3>Which weights are kept</h3>\n<p class=\"soft\">The darker, the more of the weights at a place are kept.</p>\n<div class=\"figures\">\n{}</div>\n",
        page.framed("kept-weights", &found.detector, figure.finish("Kept weights of the head", &what), &what)
    )
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The detector at other sparsities.
fn sweep(page: &Contents<'_>, found: &Anatomy) -> String {
    let compared = found.sets.len() > 1;
    let by =
        if found.by_energy { String::new() } else { " by the energy, whatever the detector's own score".to_owned() };
    let mut text = format!(
        "<h3>Other sparsities</h3>\n<p class=\"soft\">The same detector at other p{by}; means over sets, in percent; FPR where 95 % of in-distribution \
         inputs are accepted. p = 0 is the dense head; ★ marks the detector's own p.</p>\n"
    );
    let columns =
        ["weights kept", "contribution kept", "unused units", "FPR ↓", "AUROC ↑", "accuracy", "variance kept"];
    text += &opened("Other sparsities", "p", columns.iter().map(|name| (*name).to_owned()));
    for level in &found.levels {
        text += &level_row(level, level.kept == found.mask.kept, compared);
    }
    text += "</tbody></table></div>\n";
    match compared {
        true => text + &format!("<div class=\"figures\">\n{}</div>\n", sweep_figure(page, found)),
        false => text,
    }
}

fn level_row(level: &Level, chosen: bool, compared: bool) -> String {
    let (class, star) = if chosen { (" class=\"best\"", "★ ") } else { ("", "") };
    let rate = |values: &[f64]| if compared { percent(mean(values)) } else { "-".into() };
    format!(
        "<tr{class}><th scope=\"row\">{star}{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td></tr>\n",
        level.p,
        count(level.kept),
        percent(level.contribution_kept),
        count(level.unused_units),
        rate(&level.fpr),
        rate(&level.auroc),
        level.accuracy.map_or("-".into(), percent),
        level.variance_kept
    )
}

const SHARE: Axis<'static> = Axis { from: 0.0, to: 1.0, name: "share" };
const DROPPED: Axis<'static> = Axis { from: 0.0, to: 1.0, name: "p, the share dropped" };

fn sweep_figure(page: &Contents<'_>, found: &Anatomy) -> String {
    let mut figure = Figure::new(DROPPED, SHARE);
    let line = |of: &dyn Fn(&Level) -> Option<f64>| -> Vec<(f64, f64)> {
        found.levels.iter().filter_map(|level| Some((level.p, of(level)?))).collect()
    };
    figure.line("first", &line(&|level| Some(mean(&level.auroc))));
    figure.line("second", &line(&|level| Some(mean(&level.fpr))));
    let accuracy = line(&|level| level.accuracy);
    figure.line("third", &accuracy);
    figure.key("first", "AUROC");
    figure.key("second", "FPR");
    if !accuracy.is_empty() {
        figure.key("third", "accuracy");
    }
    if let Some(chosen) = found.levels.iter().find(|level| level.kept == found.mask.kept) {
        figure.upright("rule", chosen.p);
        figure.key("rule", "its own p");
    }
    let right = if accuracy.is_empty() { "" } else { ", accuracy dash-dotted" };
    let what = format!("AUROC solid, FPR dashed{right}; the dotted line is the detector's own p");
    page.framed("sparsities", &found.detector, figure.finish("FPR, AUROC and accuracy by p", &what), &what)
}

/// The paper's ablations beside the detector's own sparsity.
pub(super) fn ablations(page: &Contents<'_>) -> String {
    let Some(Ok(found)) = page.anatomy else { return String::new() };
    let Some(own) = found.levels.iter().find(|level| level.kept == found.mask.kept) else { return String::new() };
    let names: Vec<&str> = found.ablations.iter().map(|one| one.name).collect();
    let groups: Vec<&[Ablation]> = found.ablations.chunk_by(|a, b| a.name == b.name).collect();
    if found.sets.len() < 2 || names.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "<h2>Ablations</h2>\n<p class=\"soft\">Weights or units dropped at random (mean and range of five seeds) or by size, in place of what {} drops, by the \
         energy; means over sets. <span class=\"key first\"></span>its own sparsity · <span class=\"key second\"></span>the other, its range as a band</p>\n",
        escaped(&found.detector)
    );
    text += &opened(
        "Ablations",
        &format!("sparsity at p = {}", own.p),
        ["FPR ↓", "AUROC ↑", "accuracy"].iter().map(|name| (*name).to_owned()),
    );
    let _ = writeln!(
        text,
        "<tr class=\"best\"><th scope=\"row\">★ its own</th><td>{}</td><td>{}</td><td>{}</td></tr>",
        percent(mean(&own.fpr)),
        percent(mean(&own.auroc)),
        own.accuracy.map_or("-".into(), percent)
    );
    for group in &groups {
        let at: Vec<_> = group.iter().filter_map(|one| one.levels.iter().find(|level| level.p == own.p)).collect();
        let cell = |of: &dyn Fn(&&dice_ood::diagnosis::Rates) -> Option<f64>| match ranged(at.iter().filter_map(of)) {
            Some((_, low, high)) if low == high => format!("<td>{}</td>", percent(low)),
            Some((mean, low, high)) => {
                format!("<td>{}<br><small>{} to {}</small></td>", percent(mean), percent(low), percent(high))
            }
            None => "<td>-</td>".into(),
        };
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{}</th>{}{}{}</tr>",
            group[0].name,
            cell(&|level| Some(level.fpr)),
            cell(&|level| Some(level.auroc)),
            cell(&|level| level.accuracy)
        );
    }
    let figures: String = groups.iter().map(|group| ablation(page, found, group)).collect();
    text + &format!("</tbody></table></div>\n<div class=\"figures\">\n{figures}</div>\n")
}

/// Mean, smallest and largest of values, where there are some.
fn ranged(values: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let values: Vec<f64> = values.collect();
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    (!values.is_empty()).then(|| (mean(&values), low, high))
}

fn ablation(page: &Contents<'_>, found: &Anatomy, group: &[Ablation]) -> String {
    let mut figure = Figure::new(DROPPED, Axis { name: "FPR", ..SHARE });
    let band: Vec<(f64, f64, f64, f64)> = (0..group[0].levels.len())
        .filter_map(|place| {
            let (mean, low, high) =
                ranged(group.iter().filter_map(|one| one.levels.get(place)).map(|level| level.fpr))?;
            Some((group[0].levels[place].p, mean, low, high))
        })
        .collect();
    figure.band("ood", &band.iter().map(|(p, _, low, high)| (*p, *low, *high)).collect::<Vec<_>>());
    figure.line("second", &band.iter().map(|(p, mean, ..)| (*p, *mean)).collect::<Vec<_>>());
    figure.line("first", &found.levels.iter().map(|level| (level.p, mean(&level.fpr))).collect::<Vec<_>>());
    let name = group[0].name;
    figure.key("first", &*found.detector);
    figure.key("second", format!("{name}, five seeds as a band"));
    let what = format!("FPR of {name} beside that of {}, by p", found.detector);
    page.framed("ablation", name, figure.finish(&format!("FPR by p, {name}"), &what), &what)
}

/// The tables of these sections, for files of their own.
pub(super) fn tables(found: &Anatomy) -> Vec<(&'static str, Table)> {
    let mut variance = Table::new(
        format!("Output variance of {}, pruned over dense, with 95 % jackknife intervals", found.detector),
        &["set", "variance kept", "", "if independent", "2 cov / dropped", "", "classes lower", "classes"],
        1,
    );
    let interval =
        |of: &Estimate| if of.low.is_finite() { format!("[{:.3}, {:.3}]", of.low, of.high) } else { String::new() };
    for set in &found.sets {
        let outputs = set.pruned_outputs();
        let (kept, covariance) = (&outputs.variance_kept, &outputs.covariance_over_dropped);
        variance.rows.push(vec![
            set.name.clone(),
            format!("{:.3}", kept.value),
            interval(kept),
            format!("{:.3}", outputs.variance_kept_if_independent.value),
            format!("{:.3}", covariance.value),
            interval(covariance),
            outputs.classes_lower.to_string(),
            outputs.classes.len().to_string(),
        ]);
    }
    let mut levels = Table::new(
        format!("{} at other p; means over sets, in percent", found.detector),
        &[
            "p",
            "weights kept",
            "contribution kept",
            "unused units",
            "FPR@95TPR ↓",
            "AUROC ↑",
            "accuracy",
            "variance kept",
        ],
        1,
    );
    let share = |value: Option<f64>| value.map_or("-".into(), percent);
    let compared = found.sets.len() > 1;
    for level in &found.levels {
        levels.rows.push(vec![
            level.p.to_string(),
            level.kept.to_string(),
            percent(level.contribution_kept),
            level.unused_units.to_string(),
            share(compared.then(|| mean(&level.fpr))),
            share(compared.then(|| mean(&level.auroc))),
            share(level.accuracy),
            format!("{:.3}", level.variance_kept),
        ]);
    }
    let mut tables = vec![("variance", variance), ("sparsities", levels)];
    if compared && !found.ablations.is_empty() {
        let title = format!("Ablations of {}; means over sets, in percent", found.detector);
        let mut ablations = Table::new(title, &["sparsity", "seed", "p", "FPR@95TPR ↓", "AUROC ↑", "accuracy"], 1);
        for one in &found.ablations {
            ablations.rows.extend(one.levels.iter().map(|level| {
                vec![
                    one.name.to_owned(),
                    one.seed.map_or("-".into(), |seed| seed.to_string()),
                    level.p.to_string(),
                    percent(level.fpr),
                    percent(level.auroc),
                    share(level.accuracy),
                ]
            }));
        }
        tables.push(("ablations", ablations));
    }
    tables
}
