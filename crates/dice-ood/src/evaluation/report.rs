//! What an evaluation found, as plain data, and its order.

use serde::Serialize;

use super::curves::Curves;
use super::figures::Drawn;
use crate::error::{Error, ErrorKind, Result};
use crate::exchangeability::{Check, Verdict};
use crate::metrics::{Interval, Intervals, Metrics};

/// How far an out-of-distribution set is from the in-distribution data. Methods that win on one kind often lose on the other, so
/// that each gets averages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// Of the same kind with other classes: CIFAR-100 for CIFAR-10.
    Near,
    /// Of another kind: textures or digits for CIFAR-10.
    Far,
}

impl Distance {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Near, Self::Far];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// Everything an evaluation found. Rates are fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The TPR at which FPR was taken.
    pub at_tpr: f64,
    /// Number of in-distribution inputs.
    pub id_inputs: usize,
    /// Accuracy of the dense head, where there are labels.
    pub dense_accuracy: Option<f64>,
    /// What each detector did, in the order they were given.
    pub detectors: Vec<DetectorReport>,
    /// Out-of-distribution sets of which more than one row of a hundred is an in-distribution input too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overlaps: Vec<Overlap>,
    /// Which detector to take, where that was asked for and there are sets to compare them on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
}

/// A set that is out-of-distribution in part only, by hashes of its rows: was a file given twice?
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overlap {
    /// The set.
    pub ood: String,
    /// The share of its rows that the in-distribution set has too.
    pub share: f64,
}

/// What one detector did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DetectorReport {
    /// Its spec, or a name for scores of other origin.
    pub detector: String,
    /// Accuracy of the detector's own (shaped, sparsified) head, where there are labels.
    pub accuracy: Option<f64>,
    /// Where its scores of the in-distribution set lie.
    pub id_scores: Quantiles,
    /// What its threshold did, where it has one.
    pub decision: Option<DecisionReport>,
    /// How it did against each out-of-distribution set.
    pub sets: Vec<SetReport>,
    /// Means over the out-of-distribution sets, where there are any.
    pub average: Option<Averages>,
    /// Means over the sets that are near, where there are such.
    pub near: Option<Averages>,
    /// Means over the sets that are far, where there are such.
    pub far: Option<Averages>,
    /// What figures are drawn from, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
}

impl DetectorReport {
    /// Whether the in-distribution set contradicts what the threshold promises.
    pub fn breaks_its_promise(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.check.verdict == Verdict::Contradicted)
    }
}

/// Quantiles of scores: each the smallest score that at least this share of all scores does not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// The smallest score.
    pub min: f64,
    /// 1 %.
    pub q01: f64,
    /// 5 %.
    pub q05: f64,
    /// 25 %.
    pub q25: f64,
    /// The median.
    pub q50: f64,
    /// 75 %.
    pub q75: f64,
    /// 95 %.
    pub q95: f64,
    /// 99 %.
    pub q99: f64,
    /// The largest score.
    pub max: f64,
}

/// What a threshold did on the in-distribution set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DecisionReport {
    /// Scores of at least this are accepted.
    pub threshold: f64,
    /// The rate promised.
    pub promised_tpr: f64,
    /// The share accepted.
    pub id_accepted: f64,
    /// Where the share accepted of so many inputs was to be expected with 95 % confidence.
    pub id_expected: Interval,
    /// Whether these inputs are like those of the calibration.
    pub check: Check,
}

/// How a detector did against one out-of-distribution set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetReport {
    /// The set's name.
    pub ood: String,
    /// How far from the in-distribution data it was said to be, where it was.
    pub distance: Option<Distance>,
    /// Number of its inputs.
    pub ood_inputs: usize,
    /// Every metric.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// 95 % bootstrap intervals, where there were replicates.
    pub intervals: Option<Intervals>,
    /// Correct-classification rate at 1 % FPR (OpenOOD), where there are labels.
    pub ccr_at_fpr_1: Option<f64>,
    /// The same at 10 % FPR.
    pub ccr_at_fpr_10: Option<f64>,
    /// Share accepted by the detector's own threshold.
    pub accepted: Option<f64>,
    /// How many scores lie in each of the detector's bins, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<u64>>,
    /// How it does at every threshold, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curves: Option<Curves>,
}

/// Means over out-of-distribution sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Averages {
    /// Of [`Metrics::fpr_at_tpr`].
    pub fpr_at_tpr: f64,
    /// Of [`Metrics::auroc`].
    pub auroc: f64,
    /// Of [`Metrics::aupr_in`].
    pub aupr_in: f64,
    /// Of [`Metrics::aupr_out`].
    pub aupr_out: f64,
}

/// By what detectors are ranked: an average over out-of-distribution sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranking {
    /// Over which sets; over all where it is `None`.
    pub over: Option<Distance>,
    /// What is averaged.
    pub metric: RankingMetric,
}

/// A metric that detectors are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RankingMetric {
    /// [`Averages::fpr_at_tpr`], lower is better.
    FprAtTpr,
    /// [`Averages::auroc`], higher is better, as for the next two.
    Auroc,
    /// [`Averages::aupr_in`].
    AuprIn,
    /// [`Averages::aupr_out`].
    AuprOut,
}

impl RankingMetric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FprAtTpr, Self::Auroc, Self::AuprIn, Self::AuprOut];

    /// What it is in `of`, as a number of which less is better.
    fn loss(self, of: &Averages) -> f64 {
        match self {
            Self::FprAtTpr => of.fpr_at_tpr,
            Self::Auroc => -of.auroc,
            Self::AuprIn => -of.aupr_in,
            Self::AuprOut => -of.aupr_out,
        }
    }
}

/// Which detector did best, whether that is more than noise, and what to try next. Rates are fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The metric that detectors are ranked by.
    pub metric: RankingMetric,
    /// Over which sets it is averaged; over all where it is `None`.
    pub over: Option<Distance>,
    /// What detectors are compared with.
    pub baseline: String,
    /// Over the sets that detectors are ranked by.
    pub overall: Standing,
    /// Over near sets and over far ones where sets are said to be so, else over each set; none where there is one set only.
    pub groups: Vec<Standing>,
    /// What the best detector's own head loses against the whole head, where there are labels and it is another one.
    pub accuracy: Option<AccuracyLoss>,
    /// Detectors whose promise the in-distribution set contradicts.
    pub contradicted: Vec<String>,
    /// What to try next, the most urgent first.
    pub next: Vec<Next>,
}

/// How detectors stand over some sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// `all sets`, `near sets`, `far sets`, or the name of a set.
    pub name: String,
    /// The names of the sets.
    pub sets: Vec<String>,
    /// The detector of the best mean.
    pub best: String,
    /// That mean.
    pub value: f64,
    /// The best detector against the baseline, where it is another one.
    pub against_baseline: Option<Difference>,
    /// The second best against the best, where there is one.
    pub runner_up: Option<Difference>,
    /// Every detector against the baseline, in the order they were given.
    pub comparisons: Vec<Difference>,
}

/// A detector against another one over the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The detector.
    pub detector: String,
    /// The other one.
    pub against: String,
    /// Its mean metric less that of the other one, in the metric's own direction.
    pub difference: f64,
    /// Where that difference lies with 95 % confidence for all comparisons of the family together; `None` where a side has
    /// fewer than 20 inputs.
    pub interval: Option<Interval>,
    /// Its p-value, adjusted for the family.
    pub p_value: Option<f64>,
    /// Whether it is more than noise: an adjusted p-value of at most 0.05, and an interval without 0.
    pub beyond_noise: bool,
    /// About how many times as many inputs it would take to show a difference of this size, where it is not more than noise.
    pub inputs_needed: Option<f64>,
}

/// How often the head of a detector is right, against the whole head on the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccuracyLoss {
    /// The detector.
    pub detector: String,
    /// How often its own head is right.
    pub accuracy: f64,
    /// How often the whole head is.
    pub dense_accuracy: f64,
    /// What is lost: `dense_accuracy - accuracy`.
    pub lost: f64,
    /// Where that lies with 95 % confidence (Agresti and Min, 2005: half an input is added to each of the four outcomes).
    pub interval: Interval,
}

/// What to try next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Next {
    /// Promises are contradicted: calibrate on inputs that neither network nor detector was fitted to.
    Recalibrate,
    /// Only single methods were compared: a panel of one method of each family is best on average over networks.
    Panel,
    /// Different detectors are best on near and on far sets: combine them.
    Combine,
    /// Sets are not said to be near or far: methods that win on one kind often lose on the other.
    Distances,
    /// The best detector's lead is not more than noise: so many times as many inputs would show one of this size.
    MoreInputs {
        /// How many times as many.
        times: f64,
    },
}

impl Report {
    /// Puts the best detector first. Those that do equally well stay in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where there are no sets to average over.
    pub fn sort(&mut self, by: Ranking) -> Result<()> {
        let loss = |detector: &DetectorReport| detector.average_over(by.over).map(|of| by.metric.loss(of));
        if self.detectors.iter().any(|detector| loss(detector).is_none()) {
            let kind = by.over.map_or(String::new(), |distance| format!(" that is {}", distance.name()));
            return Err(Error::new(ErrorKind::Argument, "none")
                .argument("ranking")
                .expected(format!("an out-of-distribution set{kind}, to rank detectors by")));
        }
        let key = |detector: &DetectorReport| loss(detector).unwrap_or(f64::INFINITY);
        self.detectors.sort_by(|a, b| key(a).total_cmp(&key(b)));
        Ok(())
    }
}

impl DetectorReport {
    /// Means over the sets of one distance, or over all; `None` where there are no such sets.
    pub fn average_over(&self, distance: Option<Distance>) -> Option<&Averages> {
        match distance {
            None => self.average.as_ref(),
            Some(Distance::Near) => self.near.as_ref(),
            Some(Distance::Far) => self.far.as_ref(),
        }
    }
}

impl Averages {
    /// Of some sets, where there are any.
    pub(super) fn of<'a>(sets: impl Iterator<Item = &'a SetReport>) -> Option<Self> {
        let sets: Vec<&SetReport> = sets.collect();
        let mean = |of: fn(&Metrics) -> f64| sets.iter().map(|set| of(&set.metrics)).sum::<f64>() / sets.len() as f64;
        (!sets.is_empty()).then(|| Self {
            fpr_at_tpr: mean(|m| m.fpr_at_tpr),
            auroc: mean(|m| m.auroc),
            aupr_in: mean(|m| m.aupr_in),
            aupr_out: mean(|m| m.aupr_out),
        })
    }
}

impl Quantiles {
    /// Of at least one score.
    pub(super) fn of(scores: &[f64]) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        Self {
            min: at(0.0),
            q01: at(0.01),
            q05: at(0.05),
            q25: at(0.25),
            q50: at(0.5),
            q75: at(0.75),
            q95: at(0.95),
            q99: at(0.99),
            max: at(1.0),
        }
    }
}
