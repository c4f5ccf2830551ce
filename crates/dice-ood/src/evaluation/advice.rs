//! What an evaluation says about which detector to take, with intervals: differences between detectors over the same inputs.
//!
//! Standard errors are those of a paired bootstrap. Intervals hold for all comparisons of a family together (Bonferroni); p-values are
//! those of a normal difference, adjusted for the family (Holm). One family are the comparisons over the sets that detectors are
//! ranked by, another one those over near sets, far sets or single sets.

mod families;

use super::report::{AccuracyLoss, Advice, Difference, Distance, Next, Ranking, RankingMetric, Report, Standing};
use super::{EvaluationOptions, LEVEL};
use crate::metrics::paired::{PairedScores, Replicates};
use crate::metrics::{Interval, auroc, average_precision, fpr_at_tpr};
use families::{Contrast, judged};

/// What detectors are compared with.
pub(super) const BASELINE: &str = "energy";
/// A set, or in-distribution inputs, of fewer are too few to say anything about differences.
const FEWEST: usize = 20;

/// What is compared: every detector, the baseline among them.
pub(super) struct Compared<'a> {
    pub(super) report: &'a Report,
    /// In the order of the report, and behind them the baseline where it is none of them.
    pub(super) scores: Vec<PairedScores<'a>>,
    /// For each detector of the report `[N]` whether its class is the label, and behind them for the whole head.
    pub(super) correct: Option<&'a [Vec<bool>]>,
}

/// Advice by `ranking`; none where there are no sets to average over, or no replicates to judge differences by.
pub(super) fn advise(of: &Compared<'_>, ranking: Ranking, options: &EvaluationOptions) -> Option<Advice> {
    let report = of.report;
    let first = report.detectors.first()?;
    let ranked: Vec<usize> = places(report, |distance| ranking.over.is_none_or(|over| distance == Some(over)));
    if ranked.is_empty() || options.bootstrap < 2 {
        return None;
    }
    let table = MetricTable::of(of, ranking.metric, options);
    let name = ranking.over.map_or("all sets".to_owned(), |over| format!("{} sets", over.name()));
    let overall = table.standings(&[(name, ranked)]).pop()?;
    let mut groups: Vec<(String, Vec<usize>)> = Distance::ALL
        .into_iter()
        .map(|kind| (format!("{} sets", kind.name()), places(report, |distance| distance == Some(kind))))
        .filter(|(_, sets)| !sets.is_empty())
        .collect();
    let tagged = !groups.is_empty();
    if !tagged && first.sets.len() > 1 {
        groups = first.sets.iter().enumerate().map(|(place, set)| (set.ood.clone(), vec![place])).collect();
    }
    let groups = table.standings(&groups);
    let accuracy = accuracy(of, &overall.best);
    let broken = report.detectors.iter().filter(|detector| detector.breaks_its_promise());
    let contradicted: Vec<String> = broken.map(|detector| detector.detector.clone()).collect();
    let next = next(report, &overall, &groups, tagged, !contradicted.is_empty());
    let baseline = BASELINE.into();
    Some(Advice { metric: ranking.metric, over: ranking.over, baseline, overall, groups, accuracy, contradicted, next })
}

fn places(report: &Report, wanted: impl Fn(Option<Distance>) -> bool) -> Vec<usize> {
    let sets = report.detectors.first().map(|detector| &detector.sets[..]).unwrap_or_default();
    (0..sets.len()).filter(|place| wanted(sets[*place].distance)).collect()
}

/// The metric of every detector on every set, and how it varies.
struct MetricTable<'a> {
    names: Vec<&'a str>,
    sets: Vec<&'a str>,
    /// Out-of-distribution inputs of each set.
    inputs: Vec<usize>,
    id_inputs: usize,
    /// `[detectors][sets]`
    values: Vec<Vec<f64>>,
    replicates: Replicates,
    /// Detectors of the report; the baseline may be one more.
    given: usize,
    baseline: usize,
    lower_is_better: bool,
}

impl<'a> MetricTable<'a> {
    fn of(of: &Compared<'a>, metric: RankingMetric, options: &EvaluationOptions) -> Self {
        let report = of.report;
        let tpr = options.at_tpr;
        let mut names: Vec<&str> = report.detectors.iter().map(|detector| detector.detector.as_str()).collect();
        let baseline = names.iter().position(|name| *name == BASELINE).unwrap_or(names.len());
        if baseline == names.len() {
            names.push(BASELINE);
        }
        let estimate = move |groups: &[(u32, u32)]| match metric {
            RankingMetric::FprAtTpr => fpr_at_tpr(groups.iter().copied(), tpr),
            RankingMetric::Auroc => auroc(groups),
            RankingMetric::AuprIn => average_precision(groups, false),
            RankingMetric::AuprOut => average_precision(groups, true),
        };
        let sets = &report.detectors[0].sets;
        Self {
            names,
            sets: sets.iter().map(|set| set.ood.as_str()).collect(),
            inputs: sets.iter().map(|set| set.ood_inputs).collect(),
            id_inputs: report.id_inputs,
            values: of.scores.iter().map(|scores| scores.exact(&estimate)).collect(),
            replicates: Replicates::draw(&of.scores, &estimate, options.bootstrap as usize, options.seed),
            given: report.detectors.len(),
            baseline,
            lower_is_better: metric == RankingMetric::FprAtTpr,
        }
    }

    fn mean(&self, detector: usize, sets: &[usize]) -> f64 {
        sets.iter().map(|set| self.values[detector][*set]).sum::<f64>() / sets.len() as f64
    }

    /// The standings over several groups of sets, whose comparisons are one family.
    fn standings(&self, groups: &[(String, Vec<usize>)]) -> Vec<Standing> {
        let orders: Vec<Vec<usize>> = groups.iter().map(|(_, sets)| self.order(sets)).collect();
        let mut contrasts = Vec::new();
        for ((_, sets), order) in groups.iter().zip(&orders) {
            let against_baseline =
                (0..self.given).filter(|place| *place != self.baseline).map(|one| (one, self.baseline));
            let against_best = order[1..].iter().map(|one| (*one, order[0]));
            contrasts.extend(against_baseline.chain(against_best).map(|(one, other)| self.contrast(one, other, sets)));
        }
        let mut judged = judged(&contrasts, LEVEL).into_iter();
        let standing = |((name, sets), order): (&(String, Vec<usize>), Vec<usize>)| {
            let against = (0..self.given).filter(|place| *place != self.baseline).count();
            let named = |(one, other, difference): (usize, usize, Difference)| Difference {
                detector: self.names[one].into(),
                against: self.names[other].into(),
                ..difference
            };
            let comparisons: Vec<Difference> = judged.by_ref().take(against).map(named).collect();
            let others: Vec<Difference> = judged.by_ref().take(order.len() - 1).map(named).collect();
            let best = self.names[order[0]];
            Standing {
                name: name.clone(),
                sets: sets.iter().map(|set| self.sets[*set].to_owned()).collect(),
                best: best.into(),
                value: self.mean(order[0], sets),
                against_baseline: comparisons.iter().find(|one| one.detector == best).cloned(),
                runner_up: others.into_iter().next(),
                comparisons,
            }
        };
        groups.iter().zip(orders).map(standing).collect()
    }

    /// The detectors of the report, the best first; those that do equally well in their order.
    fn order(&self, sets: &[usize]) -> Vec<usize> {
        let sign = if self.lower_is_better { 1.0 } else { -1.0 };
        let mut order: Vec<usize> = (0..self.given).collect();
        order.sort_by(|a, b| (sign * self.mean(*a, sets)).total_cmp(&(sign * self.mean(*b, sets))));
        order
    }

    fn contrast(&self, one: usize, other: usize, sets: &[usize]) -> Contrast {
        let difference = self.mean(one, sets) - self.mean(other, sets);
        let fewest = sets.iter().map(|set| self.inputs[*set]).chain([self.id_inputs]).min().unwrap_or(0);
        // No drawing of few inputs may show a difference that one input more would: no rate is known better than to one input.
        let finest: f64 = sets.iter().map(|set| (self.inputs[*set] as f64 * sets.len() as f64).powi(-2)).sum();
        let standard_error = self.replicates.standard_error(one, other, sets).max(finest.sqrt());
        Contrast { one, other, difference, standard_error: (fewest >= FEWEST).then_some(standard_error) }
    }
}

fn accuracy(of: &Compared<'_>, best: &str) -> Option<AccuracyLoss> {
    let correct = of.correct?;
    let place = of.report.detectors.iter().position(|detector| detector.detector == best)?;
    let (own, dense) = (&correct[place], &correct[of.report.detectors.len()]);
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as f64;
    let (gained, lost) = (only(own, dense), only(dense, own));
    if gained + lost == 0.0 {
        return None;
    }
    let share = |flags: &[bool]| flags.iter().filter(|flag| **flag).count() as f64 / flags.len() as f64;
    let inputs = own.len() as f64 + 2.0;
    let (gained, lost) = (gained + 0.5, lost + 0.5);
    let centre = (lost - gained) / inputs;
    let error = (gained + lost - (lost - gained).powi(2) / inputs).sqrt() / inputs;
    let reach = families::normal_quantile(1.0 - (1.0 - LEVEL) / 2.0) * error;
    Some(AccuracyLoss {
        detector: best.into(),
        accuracy: share(own),
        dense_accuracy: share(dense),
        lost: share(dense) - share(own),
        interval: Interval { low: centre - reach, high: centre + reach },
    })
}

fn next(report: &Report, overall: &Standing, groups: &[Standing], tagged: bool, contradicted: bool) -> Vec<Next> {
    let mut next = Vec::new();
    if contradicted {
        next.push(Next::Recalibrate);
    }
    let is_panel = |name: &str| name.parse::<crate::Spec>().is_ok_and(|spec| spec.as_pipeline().is_none());
    let panels = report.detectors.iter().any(|detector| is_panel(&detector.detector));
    if !panels {
        next.push(Next::Panel);
    }
    let leads = |standing: &Standing| standing.runner_up.as_ref().is_some_and(|second| second.beyond_noise);
    match groups {
        [near, far] if tagged && near.best != far.best && leads(near) && leads(far) => next.push(Next::Combine),
        _ if !tagged && groups.len() > 1 => next.push(Next::Distances),
        _ => {}
    }
    let unsure =
        [&overall.runner_up, &overall.against_baseline].into_iter().flatten().filter_map(|one| one.inputs_needed);
    if let Some(times) = unsure.reduce(f64::max).filter(|times| *times <= 100.0) {
        next.push(Next::MoreInputs { times });
    }
    next
}

#[cfg(test)]
mod tests;
