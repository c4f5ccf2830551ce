//! A diagnosis in words, and the numbers behind them.

use std::fmt::Write;

use dice_ood::diagnosis::{
    Diagnosis, Effect, Estimate, Expectation, FEWEST, Kind, Outputs, RELIABLE, Rule, SIGNAL, SIGNED, SetAccount,
    Simulation, Tried,
};

use crate::report::{Table, count, percent};

/// Everything of a diagnosis, the verdict first.
/// Tables are fitted to a width where one is given.
pub(super) fn diagnosis(found: &Diagnosis, width: Option<usize>) -> String {
    let mut text = format!(
        "\x1b[1m{}\x1b[0m on a head of {} classes and {} units, {} training inputs\n\n",
        found.detector,
        count(found.classes),
        count(found.units),
        count(found.training.rows as usize)
    );
    text += &forecast(found);
    text += "\n";
    text += &inside(found);
    text += "\n";
    text += &sets(found).fitted(width);
    if found.sets.len() > 1 {
        text += "\n";
        text += &separations(found).fitted(width);
    }
    text += "\n";
    text += &sensitivity(found).fitted(width);
    if let Some(simulated) = &found.simulation {
        text += "\n";
        text += &simulation(simulated);
        text += &assumptions(found);
    }
    text
}

/// The verdict.
fn forecast(found: &Diagnosis) -> String {
    let (near, far) = (&found.forecast.near, &found.forecast.far);
    let mut text = format!("\x1b[1mExpect: far OOD {}, near OOD {}.\x1b[0m\n", word(far.effect), word(near.effect));
    let _ = writeln!(text, "  far   {}", reason(found, far));
    let _ = writeln!(text, "  near  {}", reason(found, near));
    text += &instead(found);
    text
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Helps => "better",
        Effect::Hurts => "worse",
        Effect::NoDifference => "no different",
        Effect::CannotTell => "cannot tell",
    }
}

/// Why, and how often that was right.
fn reason(found: &Diagnosis, expected: &Expectation) -> String {
    let signal = &found.sets[0].signal;
    let gain = expected.gain.map_or_else(String::new, |gain| format!("{:+.1} points of AUROC", 100.0 * gain));
    let says = word(expected.rule_says);
    let because = match expected.rule {
        Rule::Measured => return format!("measured on your sets: {gain} on average"),
        Rule::Untried => return "no rule was tried for such a detector: give --ood sets and measure".into(),
        Rule::StandIns => format!("on the stand-ins {gain} on average: {says}"),
        Rule::NearLoses => "near inputs lose by pruning: worse".into(),
        Rule::SignedFeatures => format!(
            "{} % of the feature values are negative, {} % or more: {says}",
            percent(found.training.negative),
            100.0 * SIGNED
        ),
        Rule::SignalFalls => format!("the own-logit signal falls ({:.2}, at most {}): {says}", signal.value, -SIGNAL),
        Rule::SignalRises => format!("the own-logit signal rises ({:.2}, at least {SIGNAL}): {says}", signal.value),
        Rule::SignalStays => {
            format!("the own-logit signal moves by less than {SIGNAL} ({:.2}): {says}", signal.value)
        }
    };
    let Some(tried) = expected.tried else { return format!("{because}; but no such network was tried") };
    let unseen = expected.unseen.map(|unseen| unseen.hits(expected.rule_says));
    let mut hits = hits(&tried, expected.rule_says);
    if let Some((right, of)) = unseen.filter(|(_, of)| *of > 0) {
        let _ = write!(hits, ", and on {right} of {of} of networks that set no threshold");
    }
    match expected.effect {
        Effect::CannotTell if tried.hits(expected.rule_says).1 < FEWEST => {
            format!("{because}; but that was {hits}: of fewer than {FEWEST} sets nothing is said")
        }
        Effect::CannotTell => {
            format!("{because}; but that was {hits}: below {:.0} % nothing is said", 100.0 * RELIABLE)
        }
        _ => format!("{because}; that was {hits}"),
    }
}

/// How often a rule was right, in words.
fn hits(tried: &Tried, said: Effect) -> String {
    let (right, of) = tried.hits(said);
    match said {
        Effect::NoDifference => format!("right on {right} of {of} sets, tried with dice({})", tried.p),
        _ => format!(
            "right on {right} of the {of} sets that moved by a point, {} moved less, tried with dice({})",
            tried.same, tried.p
        ),
    }
}

/// What to take in its place.
fn instead(found: &Diagnosis) -> String {
    let instead = &found.forecast.instead;
    let counts = |tried: &Tried| {
        let all = tried.better + tried.worse + tried.same;
        format!("better on {} of {all} and worse on {}", tried.better, tried.worse)
    };
    let keep = match found.forecast.near.effect {
        Effect::Hurts => "\nWhere near inputs matter keep `energy`: pruning loses there.",
        _ => "",
    };
    format!(
        "Compare with `{}`: by a point of AUROC against the better of dice(0.7) and energy it was {} on far sets, {} on \
         near sets.{keep}\n",
        instead.detector,
        counts(&instead.far),
        counts(&instead.near)
    )
}

/// What the mask keeps, and what features and head are like.
fn inside(found: &Diagnosis) -> String {
    let (mask, training, collapse) = (&found.mask, &found.training, &found.collapse);
    let mut text = "\x1b[1mInside\x1b[0m\n".to_owned();
    let mut by_class = mask.kept_by_class.clone();
    by_class.sort_unstable();
    let _ = writeln!(
        text,
        "  kept       {} of {} weights, with {} % of the positive contribution; {} to {} units a class, median {}",
        count(mask.kept),
        count(mask.weights),
        percent(mask.contribution_kept),
        count(by_class[0]),
        count(by_class[by_class.len() - 1]),
        count(by_class[by_class.len() / 2])
    );
    let _ = writeln!(
        text,
        "  units      {} used, {} unused (keep no weight); {} near-silent (mean activation below 1 % of the largest), {} of \
         them unused",
        count(found.units - mask.unused_units),
        count(mask.unused_units),
        count(mask.silent_units),
        count(mask.silent_and_unused)
    );
    let _ = writeln!(
        text,
        "  features   {} % zero, {} % negative; length {:.4} +- {:.4}",
        percent(training.zero),
        percent(training.negative),
        training.norm,
        training.norm_deviation
    );
    let _ = writeln!(
        text,
        "  collapse   (0 = collapsed) NC1 {}, NC2 lengths {} angles {} (head {} {}), NC3 {}, NC4 {}; classes by {}",
        number(collapse.variability),
        number(collapse.means_lengths),
        number(collapse.means_angles),
        number(collapse.head_lengths),
        number(collapse.head_angles),
        number(collapse.duality),
        collapse.not_nearest.map_or_else(|| "-".into(), number),
        if collapse.by_label { "label" } else { "prediction" }
    );
    text
}

/// A number of any size, or a dash where it is not known.
fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "-".into() }
}

fn interval(estimate: &Estimate, digits: usize) -> String {
    if !estimate.value.is_finite() {
        return "-".into();
    }
    match estimate.low.is_finite() && estimate.high.is_finite() {
        true => format!("{:.digits$} [{:.digits$}, {:.digits$}]", estimate.value, estimate.low, estimate.high),
        false => format!("{:.digits$}", estimate.value),
    }
}

/// What pruning does to the outputs on each set.
fn sets(found: &Diagnosis) -> Table {
    let mut table = Table::new(
        "Outputs without bias, summed over classes: kept weights over all weights, with 95 % intervals",
        &[
            "set",
            "inputs",
            "variance kept",
            "if units were independent",
            "2 cov / dropped var (holds above -1)",
            "classes lower",
            "mean shift",
            "own-logit signal",
            "class changed %",
            "accuracy %",
        ],
        1,
    );
    for set in &found.sets {
        let mut rows = vec![(label(set), &set.outputs)];
        rows.extend(set.outputs_shaped.as_ref().map(|outputs| (format!("{}, shaped", set.name), outputs)));
        let last = rows.len() - 1;
        for (place, (name, outputs)) in rows.into_iter().enumerate() {
            table.rows.push(output_row(name, set, outputs, place == last));
        }
    }
    table
}

fn label(set: &SetAccount) -> String {
    match (set.kind, set.distance) {
        (Kind::InDistribution, _) => format!("{} (ID)", set.name),
        (_, Some(distance)) => format!("{} ({})", set.name, format!("{distance:?}").to_lowercase()),
        (_, None) => set.name.clone(),
    }
}

/// `by_detector`: whether these are the outputs of the detector itself, whose signal and classes stand beside them.
fn output_row(name: String, set: &SetAccount, outputs: &Outputs, by_detector: bool) -> Vec<String> {
    let own = |text: String| if by_detector { text } else { String::new() };
    vec![
        name,
        count(set.features.rows as usize),
        interval(&outputs.variance_kept, 3),
        number(outputs.variance_kept_if_independent.value),
        interval(&outputs.covariance_over_dropped, 2),
        format!("{} of {}", count(outputs.classes_lower), count(outputs.classes.len())),
        interval(&outputs.mean_shift, 2),
        own(interval(&set.signal, 2)),
        own(percent(set.class_changed)),
        own(set
            .accuracy
            .map_or_else(String::new, |(before, after)| format!("{} -> {}", percent(before), percent(after)))),
    ]
}

/// What is gained on each set.
fn separations(found: &Diagnosis) -> Table {
    let mut table = Table::new(
        "Told from the ID inputs by energy: all weights, then the detector; in percent",
        &["set", "AUROC ↑", "", "gain", "FPR@95TPR ↓", "", "energy", ""],
        1,
    );
    for set in found.sets.iter().filter(|set| set.separation.is_some()) {
        let Some(separation) = set.separation else { continue };
        let gain = separation.gain;
        let energy = |(mean, deviation): (f64, f64)| format!("{mean:.2} +- {deviation:.2}");
        table.rows.push(vec![
            label(set),
            percent(separation.auroc_before),
            percent(separation.auroc_after),
            format!("{:+.2} [{:+.2}, {:+.2}]", 100.0 * gain.value, 100.0 * gain.low, 100.0 * gain.high),
            percent(separation.fpr_before),
            percent(separation.fpr_after),
            energy(set.energy_before),
            energy(set.energy_after),
        ]);
    }
    table
}

/// The same at other sparsities.
fn sensitivity(found: &Diagnosis) -> Table {
    let mut header: Vec<String> = [
        "p",
        "kept",
        "contribution %",
        "unused units",
        "variance kept",
        "own-logit signal",
        "class changed %",
        "accuracy %",
    ]
    .map(str::to_owned)
    .to_vec();
    header.extend(found.sets[1..].iter().map(|set| format!("gain {}", label(set))));
    let mut table = Table::new("At other sparsities; gains in points of AUROC over all weights", &[], 0);
    table.header = header;
    for level in &found.sensitivity {
        let mut row = vec![
            level.p.to_string(),
            count(level.kept),
            percent(level.contribution_kept),
            count(level.unused_units),
            number(level.variance_kept),
            number(level.signal.value),
            percent(level.class_changed),
            level.accuracy.map_or_else(String::new, percent),
        ];
        row.extend(level.gains.iter().map(|gain| format!("{:+.2}", 100.0 * gain)));
        table.rows.push(row);
    }
    table
}

/// The lemma on drawn units.
pub(super) fn simulation(found: &Simulation) -> String {
    format!(
        "\x1b[1mThe lemma\x1b[0m on {} drawn inputs of independent normal units (seed {})\n  \
         variance   {:.4} before, {:.4} after, summed over {} classes; lower for {} of them\n  \
         reduction  {:.4} as drawn, {:.4} by the lemma (the variance of what is dropped)\n",
        count(found.rows),
        found.seed,
        found.variance_before,
        found.variance_after,
        count(found.classes),
        count(found.classes_lower),
        found.reduction,
        found.reduction_by_lemma
    )
}

/// Where the features at hand depart from what the lemma assumes.
fn assumptions(found: &Diagnosis) -> String {
    let mut text = "\x1b[1mWhat the lemma assumes, and your features\x1b[0m\n".to_owned();
    let id = &found.sets[0];
    let outputs = id.outputs_shaped.as_ref().unwrap_or(&id.outputs);
    let _ = writeln!(
        text,
        "  units are independent       twice the covariances are {} times the variance dropped (0 if independent);\n{INDENT}\
         the variance kept is {} where independence gives {}",
        interval(&outputs.covariance_over_dropped, 2),
        number(outputs.variance_kept.value),
        number(outputs.variance_kept_if_independent.value)
    );
    let _ = writeln!(
        text,
        "  dropped are 0 on average    they carry {} % of the magnitude of all contributions, and {} % of the\n{INDENT}\
         dropped weights contribute negatively: without them outputs shift by {}",
        percent(found.mask.dropped_magnitude),
        percent(found.mask.dropped_negative),
        interval(&outputs.mean_shift, 2)
    );
    let _ = writeln!(
        text,
        "  units are normal            {} % of the values are exactly zero and {} % negative",
        percent(id.features.zero),
        percent(id.features.negative)
    );
    text
}

/// Before the second line of an assumption.
const INDENT: &str = "                              ";
