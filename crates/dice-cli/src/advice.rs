//! The last paragraph of `dice eval`: which detector to take, how sure that is, and what to try next.

use std::collections::BTreeMap;
use std::path::Path;

use dice_ood::evaluation::{AccuracyLoss, Advice, Difference, Next, RankingMetric, Standing};
use dice_ood::metrics::Interval;
use serde::Serialize;

use crate::names::{quoted, recorded_files, shown, visible};

/// What a next step is for, and the command that takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) why: String,
    pub(crate) command: String,
}

/// What commands are made of.
pub(crate) struct Given<'a> {
    /// The detector file.
    pub(crate) detector: &'a Path,
    /// Where that came from.
    pub(crate) provenance: &'a BTreeMap<String, String>,
    /// In-distribution files, and out-of-distribution ones with the names of their sets.
    pub(crate) id: &'a [String],
    pub(crate) ood: Vec<(&'a str, &'a str)>,
    pub(crate) model: Option<&'a String>,
}

impl Given<'_> {
    /// `dice fit` on what the detector file was fitted to, as it records that.
    fn fit(&self, detectors: &[&str], calibration: Option<&str>) -> String {
        let recorded = |key: &str| self.provenance.get(key);
        let files = |key: &str| recorded(key).and_then(|files| recorded_files(files));
        let mut words = vec!["dice fit".to_owned()];
        match (self.model, files("images"), files("features"), files("head")) {
            (Some(model), Some(images), ..) => words.push(format!("--model {} --images {images}", quoted(model))),
            (Some(model), None, ..) if recorded("arrays").is_some() => {
                let arrays = files("arrays").unwrap_or_else(|| "TRAINING".into());
                words.push(format!("--model {} --inputs {arrays}", quoted(model)));
            }
            (_, _, Some(features), Some(head)) => words.push(format!("--features {features} --head {head}")),
            _ => words.push("--features TRAINING --head HEAD".into()),
        }
        // A part of the training data is recorded in words, not as a file.
        let separate = recorded("calibration").filter(|what| *what != "none" && !what.contains(" of the "));
        let separate = separate.and_then(|files| recorded_files(files));
        words.extend(calibration.map(str::to_owned).or(separate).map(|files| format!("--calibration {files}")));
        words.extend(detectors.iter().map(|spec| format!("-d {}", quoted(spec))));
        words.push("-o next.safetensors".into());
        words.join(" ")
    }

    fn eval(&self, ood: impl Fn(&str, &str) -> String, more: &str) -> String {
        let id: Vec<String> = self.id.iter().map(|file| quoted(file)).collect();
        let sets: Vec<String> =
            self.ood.iter().map(|(name, file)| format!(" --ood {}", quoted(&ood(name, file)))).collect();
        let model = self.model.map(|model| format!(" --model {}", quoted(model))).unwrap_or_default();
        format!(
            "dice eval {}{model} --id {}{}{more}",
            quoted(&self.detector.display().to_string()),
            id.join(" "),
            sets.concat()
        )
    }
}

/// The steps that `advice` names, as commands.
pub(crate) fn steps(advice: &Advice, given: &Given<'_>) -> Vec<Step> {
    advice.next.iter().map(|next| step(next, advice, given)).collect()
}

fn step(next: &Next, advice: &Advice, given: &Given<'_>) -> Step {
    let best = advice.overall.best.as_str();
    let (why, command) = match next {
        Next::Recalibrate => (
            "take thresholds from inputs that neither the network nor the detector was fitted to".to_owned(),
            given.fit(&[best], Some("UNSEEN")),
        ),
        Next::Panel => (
            "compare a panel of one method of each family, which was best on average over the networks we measured".into(),
            given.fit(&["auto", best], None),
        ),
        Next::Combine => {
            let bests: Vec<&str> = advice.groups.iter().map(|group| group.best.as_str()).collect();
            ("near and far sets have different best detectors: combine them".into(), given.fit(&[&format!("fisher({})", bests.join(", "))], None))
        }
        Next::Distances => (
            "say which sets are near (the same kind, other classes) by near: in place of far:, as what wins on one often loses on the other"
                .into(),
            given.eval(|name, file| format!("far:{name}={file}"), ""),
        ),
        Next::MoreInputs { times } => (
            format!("evaluate on about {} times as many inputs, which would show differences of this size", rounded(*times)),
            given.eval(|name, _| format!("{name}=MORE"), ""),
        ),
    };
    Step { why, command }
}

/// Up to two digits.
fn rounded(times: f64) -> String {
    if times < 10.0 { format!("{times:.1}") } else { format!("{times:.0}") }
}

/// The paragraph.
pub(crate) fn paragraph(advice: &Advice, steps: &[Step], at_tpr: f64) -> String {
    let told = Told { metric: advice.metric, at_tpr };
    let mut lines = vec![told.overall(&advice.overall)];
    lines.extend(advice.overall.runner_up.as_ref().map(|second| told.runner_up(second)));
    lines.extend(advice.groups.iter().map(|group| told.group(group, &advice.baseline)));
    lines.extend(told.worse(advice));
    lines.extend(advice.accuracy.as_ref().map(accuracy));
    if !advice.contradicted.is_empty() {
        lines.push(format!("These in-distribution inputs contradict the promise of {}.", names(&advice.contradicted)));
    }
    if told.judged(advice) {
        lines.push(
            "Intervals hold with 95 % for all comparisons of a kind together (paired bootstrap); p-values are adjusted for them (Holm).".into(),
        );
    }
    for step in steps {
        lines.push(format!("Next: {}.\n  $ {}", step.why, visible(&step.command)));
    }
    format!("\x1b[1mAdvice\x1b[0m\n{}\n", lines.join("\n"))
}

/// What a metric is called in sentences.
pub(crate) fn metric_name(metric: RankingMetric, at_tpr: f64) -> String {
    match metric {
        RankingMetric::FprAtTpr => format!("FPR at {} % TPR", points(at_tpr)),
        RankingMetric::Auroc => "AUROC".into(),
        RankingMetric::AuprIn => "AUPR-in".into(),
        RankingMetric::AuprOut => "AUPR-out".into(),
    }
}

struct Told {
    metric: RankingMetric,
    at_tpr: f64,
}

impl Told {
    fn overall(&self, overall: &Standing) -> String {
        let average = match &overall.sets[..] {
            [one] => format!("on {}", shown(one)),
            sets => format!("mean of {} ({} sets)", overall.name, sets.len()),
        };
        let lead =
            overall.against_baseline.as_ref().map(|lead| format!(": {}", self.against(lead))).unwrap_or_default();
        format!(
            "Best by {}, {average}: {} with {} %{lead}.",
            metric_name(self.metric, self.at_tpr),
            overall.best,
            points(overall.value)
        )
    }

    fn runner_up(&self, second: &Difference) -> String {
        format!("Next best: {}, {}.", second.detector, self.against(second))
    }

    /// Of a group: its best, and how that stands to the baseline.
    fn group(&self, group: &Standing, baseline: &str) -> String {
        let lead = match &group.against_baseline {
            Some(lead) => self.against(lead),
            None => format!("no detector is better than {baseline}"),
        };
        format!("{}: best is {} with {} %; {lead}.", shown(&group.name), group.best, points(group.value))
    }

    /// How a detector differs from another one: by how many points, where that lies, and whether it is more than noise.
    fn against(&self, one: &Difference) -> String {
        let direction = if one.difference < 0.0 { "lower" } else { "higher" };
        let size = match &*points(one.difference.abs()) {
            "0" => format!("level with {}", one.against),
            points => format!("{points} points {direction} than {}", one.against),
        };
        match (&one.interval, one.p_value) {
            (Some(interval), Some(p_value)) if one.beyond_noise => {
                format!("{size} {} (p {})", self.interval(interval, one), p(p_value))
            }
            (Some(interval), _) => {
                format!("{size} {}: no difference that these data can show", self.interval(interval, one))
            }
            _ => format!("{size}, by too few inputs to say more"),
        }
    }

    /// An interval of the size of a difference, in the direction that is told.
    fn interval(&self, of: &Interval, one: &Difference) -> String {
        let (low, high) = if one.difference < 0.0 { (-of.high, -of.low) } else { (of.low, of.high) };
        format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
    }

    /// Sets or kinds of sets on which the best detector is worse than the baseline.
    fn worse(&self, advice: &Advice) -> Option<String> {
        let best = &advice.overall.best;
        let better_is = if self.metric == RankingMetric::FprAtTpr { 1.0 } else { -1.0 };
        let worse = advice.groups.iter().filter_map(|group| {
            let one = group.comparisons.iter().find(|one| one.detector == *best)?;
            let is_worse = one.beyond_noise && one.difference * better_is > 0.0;
            is_worse.then(|| format!("on {} {}", shown(&group.name), self.against(one)))
        });
        let worse: Vec<String> = worse.collect();
        (!worse.is_empty()).then(|| format!("But {best} is worse: {}.", worse.join("; ")))
    }

    fn judged(&self, advice: &Advice) -> bool {
        let all = advice.groups.iter().chain([&advice.overall]);
        all.flat_map(|standing| standing.comparisons.iter().chain(&standing.runner_up))
            .any(|one| one.interval.is_some())
    }
}

fn accuracy(loss: &AccuracyLoss) -> String {
    let interval = format!("[{:.2}, {:.2}]", 100.0 * loss.interval.low, 100.0 * loss.interval.high);
    let told = match (loss.interval.low > 0.0, loss.interval.high < 0.0) {
        (true, _) => format!("{} points fewer than the whole head {interval}", points(loss.lost)),
        (_, true) => format!("{} points more than the whole head {interval}", points(-loss.lost)),
        _ => format!(
            "the whole head for {} %, no difference that these data can show {interval}",
            points(loss.dense_accuracy)
        ),
    };
    format!(
        "The head of {} is right for {} % of the in-distribution inputs, {told}; predict with the whole head.",
        loss.detector,
        points(loss.accuracy)
    )
}

fn names(all: &[String]) -> String {
    match all {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        _ => all.join(", "),
    }
}

/// A fraction in percent.
fn points(fraction: f64) -> String {
    let text = format!("{:.2}", 100.0 * fraction);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn p(value: f64) -> String {
    if value < 0.001 { "< 0.001".into() } else { format!("= {value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_sentences() {
        assert_eq!(
            (points(0.95), points(0.9412), rounded(3.24), rounded(31.4)),
            ("95".into(), "94.12".into(), "3.2".into(), "31".into())
        );
    }
}
