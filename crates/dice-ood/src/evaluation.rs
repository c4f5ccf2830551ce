//! How detectors do on test sets: sources of features in, a [`Report`] out.
//!
//! ```
//! use std::sync::Arc;
//! use dice_ood::evaluation::{EvaluationOptions, TestSet, evaluate};
//! use dice_ood::{ArraySource, Calibrated, Needs, LinearHead, Spec, Statistics};
//! use ndarray::array;
//!
//! let head = Arc::new(LinearHead::from_rows(vec![1.0, -0.2, -0.1, 1.5], vec![0.0, 0.0], 2)?);
//! let statistics = Statistics::new(2, &Needs::default());
//! let energy = Calibrated::scores_only("energy".parse::<Spec>()?.fit(&head, &statistics)?);
//! let (id, far) = (array![[2.0, 0.1], [0.2, 1.4]], array![[0.1, 0.1]]);
//! let sets = vec![TestSet::new("far", || Ok(Box::new(ArraySource::new(far.view()))))];
//! let id = ArraySource::with_labels(id.view(), &[0, 1])?;
//! let report = evaluate(&[energy], TestSet::of("test", id), sets, &EvaluationOptions::default(), &mut ())?;
//! assert_eq!((report.dense_accuracy, report.detectors[0].sets[0].metrics.auroc), (Some(1.0), 1.0));
//! # Ok::<(), dice_ood::Error>(())
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::artifact::Calibrated;
use crate::calibration::{Decision, Threshold};
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::exchangeability::{BatchCheck, Check, Verdict};
use crate::features::{Block, FeatureSource, Opening, for_each_block};
use crate::head::LinearHead;
use crate::metrics::{Curve, Interval, Intervals, Metrics, ccr_at_fpr};
use crate::plan::{NonFinite, Plan};
use crate::progress::Progress;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};

/// The level of the intervals.
const LEVEL: f64 = 0.95;

/// How an evaluation is done.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationOptions {
    /// The TPR at which FPR is taken, in (0, 1].
    pub at_tpr: f64,
    /// Bootstrap replicates for the intervals of metrics; 0 for none.
    pub bootstrap: u32,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// What is done with inputs that hold NaN or infinity.
    pub non_finite: NonFinite,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self { at_tpr: 0.95, bootstrap: 200, seed: 0, non_finite: NonFinite::Reject }
    }
}

/// A named test set, opened when its turn has come.
pub struct TestSet<'a> {
    name: String,
    open: Opening<'a>,
}

impl<'a> TestSet<'a> {
    /// A set that `open` opens.
    pub fn new(name: impl Into<String>, open: impl FnOnce() -> Result<Box<dyn FeatureSource + 'a>> + 'a) -> Self {
        Self { name: name.into(), open: Box::new(open) }
    }

    /// A set that is open already.
    pub fn of(name: impl Into<String>, source: impl FeatureSource + 'a) -> Self {
        Self::new(name, || Ok(Box::new(source)))
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
}

/// Means over the out-of-distribution sets.
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

/// A detector whose predicted classes are the network's own: those of the dense head, which its scores, the largest logits, go
/// with.
///
/// # Errors
/// As [`Spec::fit`].
pub fn dense_predictor(head: &Arc<LinearHead>) -> Result<Detector> {
    "max-logit".parse::<Spec>()?.fit(head, &Statistics::new(head.units(), &Needs::default()))
}

/// Evaluates `detectors`, all of one head, on an in-distribution set and any number of out-of-distribution sets, each read once
/// and in order.
///
/// Labels of the in-distribution set give accuracies; those of other sets are not looked at. Without out-of-distribution sets
/// the report says what the detectors do on the in-distribution set alone. Scores are kept: 8 bytes for each input and
/// detector.
///
/// # Errors
/// [`ErrorKind::Argument`] for no detectors, detectors of different heads, two sets of one name and a TPR outside (0, 1];
/// [`ErrorKind::Empty`] for a set without rows; [`ErrorKind::Shape`] for features or labels that do not fit the head; and what
/// reading and scoring can meet.
pub fn evaluate(
    detectors: &[Calibrated],
    id: TestSet<'_>,
    ood: Vec<TestSet<'_>>,
    options: &EvaluationOptions,
    progress: &mut dyn Progress,
) -> Result<Report> {
    check(options, ood.iter().map(|set| set.name.as_str()))?;
    let head = one_head(detectors)?;
    let dense = dense_predictor(head)?;
    let mut scoring: Vec<&Detector> = detectors.iter().map(|calibrated| calibrated.detector()).collect();
    scoring.push(&dense);
    let id = SetScores::of(id, &scoring, Some(head.classes()), options, progress)?;
    scoring.pop();
    let ood = ood
        .into_iter()
        .map(|set| {
            let name = set.name.clone();
            Ok((name, SetScores::of(set, &scoring, None, options, progress)?.scores))
        })
        .collect::<Result<Vec<_>>>()?;
    let correct = |index: usize| id.correct.as_ref().map(|correct| &correct[index][..]);
    let reporter = Reporter::new(options, progress, detectors.len() * ood.len());
    let reports = detectors.iter().enumerate().map(|(index, calibrated)| {
        let sets = ood.iter().map(|(name, scores)| (name.as_str(), &scores[index][..]));
        let name = calibrated.detector().spec().to_string();
        reporter.detector(name, &id.scores[index], correct(index), Some(calibrated), sets)
    });
    let reports = reports.collect::<Result<_>>()?;
    Ok(Report {
        at_tpr: options.at_tpr,
        id_inputs: id.rows(),
        dense_accuracy: correct(detectors.len()).map(share),
        detectors: reports,
    })
}

/// Evaluates scores `[N]` that any tool gave, higher = more in-distribution; `name` stands for the detector.
///
/// # Errors
/// As [`evaluate`], and [`ErrorKind::NotFinite`] for NaN.
pub fn evaluate_scores(
    name: &str,
    id: &[f64],
    ood: &[(String, Vec<f64>)],
    options: &EvaluationOptions,
    progress: &mut dyn Progress,
) -> Result<Report> {
    check(options, ood.iter().map(|(name, _)| name.as_str()))?;
    if id.is_empty() {
        return Err(no_rows("in-distribution scores"));
    }
    if let Some(row) = id.iter().position(|score| score.is_nan()) {
        return Err(Error::new(ErrorKind::NotFinite, format!("NaN at row {row}"))
            .argument("in-distribution scores")
            .expected("numbers"));
    }
    let reporter = Reporter::new(options, progress, ood.len());
    let sets = ood.iter().map(|(name, scores)| (name.as_str(), &scores[..]));
    let report = reporter.detector(name.into(), id, None, None, sets)?;
    Ok(Report { at_tpr: options.at_tpr, id_inputs: id.len(), dense_accuracy: None, detectors: vec![report] })
}

fn check<'a>(options: &EvaluationOptions, names: impl Iterator<Item = &'a str>) -> Result<()> {
    if !(options.at_tpr > 0.0 && options.at_tpr <= 1.0) {
        return Err(Error::new(ErrorKind::Argument, options.at_tpr.to_string())
            .argument("TPR at which FPR is taken")
            .expected("a rate in (0, 1]"));
    }
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::new(ErrorKind::Argument, format!("'{name}' twice"))
                .argument("out-of-distribution sets")
                .expected("different names"));
        }
    }
    Ok(())
}

fn one_head(detectors: &[Calibrated]) -> Result<&Arc<LinearHead>> {
    let mut heads = detectors.iter().map(|calibrated| calibrated.detector().head());
    let none = || Error::new(ErrorKind::Argument, "no detectors").expected("at least one to evaluate");
    let first = heads.next().ok_or_else(none)?;
    if heads.all(|head| Arc::ptr_eq(head, first) || head == first) {
        return Ok(first);
    }
    Err(Error::new(ErrorKind::Argument, "detectors of different heads").expected("detectors of one network"))
}

fn no_rows(name: &str) -> Error {
    Error::new(ErrorKind::Empty, "no rows").file(name).expected("at least one input")
}

/// What several detectors make of a set in one pass.
struct SetScores {
    /// For each detector `[N]`.
    scores: Vec<Vec<f64>>,
    /// For each detector `[N]` whether its class is the label, where labels were looked for and found.
    correct: Option<Vec<Vec<bool>>>,
}

impl SetScores {
    /// Scores `set`; labels are looked at where the number of classes is given.
    fn of(
        set: TestSet<'_>,
        detectors: &[&Detector],
        classes: Option<usize>,
        options: &EvaluationOptions,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut source = (set.open)()?;
        let total = source.rows();
        let mut done = 0;
        let mut all = Self {
            scores: vec![Vec::new(); detectors.len()],
            correct: classes.map(|_| vec![Vec::new(); detectors.len()]),
        };
        let plan = Plan::new(detectors.iter().copied());
        for_each_block(&mut *source, |block| {
            let labels = match classes {
                Some(classes) => checked_labels(block, classes)?,
                None => None,
            };
            for (index, scored) in plan.score_block(block, options.non_finite)?.into_iter().enumerate() {
                all.scores[index].extend(scored.scores);
                if let (Some(correct), Some(labels)) = (&mut all.correct, labels) {
                    let hits = labels.iter().zip(scored.classes).map(|(label, class)| *label == i64::from(class));
                    correct[index].extend(hits);
                }
            }
            if labels.is_none() {
                all.correct = None;
            }
            done += block.rows() as u64;
            progress.advance(&set.name, done, total);
            Ok(())
        })?;
        if all.rows() == 0 { Err(no_rows(&set.name)) } else { Ok(all) }
    }

    fn rows(&self) -> usize {
        self.scores.first().map_or(0, Vec::len)
    }
}

/// The labels of a block, where it has them, all of them classes.
fn checked_labels(block: &Block, classes: usize) -> Result<Option<&[i64]>> {
    let Some(labels) = &block.labels else { return Ok(None) };
    match labels.iter().position(|label| !(0..classes as i64).contains(label)) {
        None => Ok(Some(labels)),
        Some(row) => {
            let found = format!("{} at row {}", labels[row], block.row_number(row));
            Err(block.located(
                Error::new(ErrorKind::Shape, found)
                    .tensor("labels")
                    .expected(format!("class indices 0 to {}, as the head has {classes} classes", classes - 1)),
            ))
        }
    }
}

/// Makes reports of scores.
struct Reporter<'a> {
    options: &'a EvaluationOptions,
    /// Replicates drawn, and the progress that reports them. They are drawn on all threads.
    drawn: Mutex<(u64, &'a mut dyn Progress)>,
    replicates: u64,
}

impl<'a> Reporter<'a> {
    /// Reports on so many pairs of detector and out-of-distribution set.
    fn new(options: &'a EvaluationOptions, progress: &'a mut dyn Progress, pairs: usize) -> Self {
        let replicates = u64::from(options.bootstrap) * pairs as u64;
        Self { options, drawn: Mutex::new((0, progress)), replicates }
    }

    fn advance(&self) {
        let (drawn, progress) = &mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        *drawn += 1;
        progress.advance("bootstrap", *drawn, Some(self.replicates));
    }

    fn detector<'s>(
        &self,
        detector: String,
        id: &[f64],
        correct: Option<&[bool]>,
        calibrated: Option<&Calibrated>,
        sets: impl Iterator<Item = (&'s str, &'s [f64])>,
    ) -> Result<DetectorReport> {
        let threshold = calibrated.and_then(|calibrated| calibrated.threshold().copied());
        let sets = sets.map(|(name, ood)| self.set(name, id, correct, ood, threshold)).collect::<Result<Vec<_>>>()?;
        Ok(DetectorReport {
            detector,
            accuracy: correct.map(share),
            id_scores: Quantiles::of(id),
            decision: calibrated.and_then(|calibrated| decision(calibrated, id)),
            average: Averages::of(&sets),
            sets,
        })
    }

    fn set(
        &self,
        name: &str,
        id: &[f64],
        correct: Option<&[bool]>,
        ood: &[f64],
        threshold: Option<Threshold>,
    ) -> Result<SetReport> {
        let EvaluationOptions { at_tpr, bootstrap, seed, .. } = *self.options;
        let curve = Curve::new(id, ood).map_err(|error| error.file(name))?;
        let drawn = || self.advance();
        let intervals =
            (bootstrap > 0).then(|| curve.intervals_observed(at_tpr, bootstrap as usize, LEVEL, seed, &drawn));
        let ccr = |fpr: f64| correct.map(|correct| ccr_at_fpr(id, correct, ood, fpr)).transpose();
        Ok(SetReport {
            ood: name.to_owned(),
            ood_inputs: ood.len(),
            metrics: curve.metrics(at_tpr),
            intervals,
            ccr_at_fpr_1: ccr(0.01)?,
            ccr_at_fpr_10: ccr(0.1)?,
            accepted: threshold.map(|threshold| accepted(threshold, ood)),
        })
    }
}

fn decision(calibrated: &Calibrated, id: &[f64]) -> Option<DecisionReport> {
    let (calibration, threshold) = (calibrated.calibration()?, calibrated.threshold().copied()?);
    let mut check = BatchCheck::new(calibration, threshold);
    id.iter().for_each(|score| {
        check.add(*score);
    });
    let (low, high) = threshold.interval_among(id.len(), LEVEL);
    Some(DecisionReport {
        threshold: threshold.score(),
        promised_tpr: threshold.tpr(),
        id_accepted: check.accepted() as f64 / id.len() as f64,
        id_expected: Interval { low, high },
        check: check.result()?,
    })
}

fn accepted(threshold: Threshold, scores: &[f64]) -> f64 {
    let accepted = scores.iter().filter(|score| threshold.decide(**score) == Decision::InDistribution).count();
    accepted as f64 / scores.len() as f64
}

impl Averages {
    fn of(sets: &[SetReport]) -> Option<Self> {
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
    fn of(scores: &[f64]) -> Self {
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

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|flag| **flag).count() as f64 / flags.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use crate::features::ArraySource;
    use ndarray::{Array2, array};

    fn head() -> Arc<LinearHead> {
        Arc::new(LinearHead::from_rows(vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.0], 2).unwrap())
    }

    fn fitted(spec: &str, head: &Arc<LinearHead>) -> Detector {
        spec.parse::<Spec>().unwrap().fit(head, &Statistics::new(2, &Needs::default())).unwrap()
    }

    fn rows(count: usize, scale: f32) -> Array2<f32> {
        Array2::from_shape_fn(
            (count, 2),
            |(row, unit)| if row % 2 == unit { scale * (1 + row % 50) as f32 } else { 0.0 },
        )
    }

    fn labels(count: i64) -> Vec<i64> {
        (0..count).map(|row| row % 2).collect()
    }

    #[derive(Default)]
    struct Listener(Vec<(String, u64, Option<u64>)>);

    impl Progress for Listener {
        fn advance(&mut self, what: &str, done: u64, total: Option<u64>) {
            match self.0.last_mut() {
                Some(last) if last.0 == what => *last = (what.into(), done, total),
                _ => self.0.push((what.into(), done, total)),
            }
        }
    }

    #[test]
    fn a_report_of_two_detectors_and_two_sets() {
        let head = head();
        let calibration = Calibration::new((0..100).map(|i| f64::from(1 + i % 50)).collect()).unwrap();
        let detectors = [
            Calibrated::new(fitted("max-logit", &head), calibration, 0.9).unwrap(),
            Calibrated::scores_only(fitted("energy", &head)),
        ];
        let (id, near, far) = (rows(100, 1.0), rows(60, 0.5), rows(40, 0.01));
        let labels = labels(100);
        let options = EvaluationOptions { bootstrap: 10, ..EvaluationOptions::default() };
        let sets = vec![
            TestSet::of("near", ArraySource::new(near.view())),
            TestSet::new("far", || Ok(Box::new(ArraySource::new(far.view())))),
        ];
        let mut listener = Listener::default();
        let id = TestSet::of("test", ArraySource::with_labels(id.view(), &labels).unwrap());
        let report = evaluate(&detectors, id, sets, &options, &mut listener).unwrap();
        assert_eq!((report.id_inputs, report.dense_accuracy), (100, Some(1.0)));
        let first = &report.detectors[0];
        assert_eq!((first.detector.as_str(), first.sets.len(), first.sets[1].ood_inputs), ("max-logit", 2, 40));
        assert_eq!((first.id_scores.min, first.id_scores.q50, first.id_scores.max), (1.0, 25.0, 50.0));
        let decision = first.decision.unwrap();
        // The threshold is the tenth smallest of the calibration scores 1, 1, 2, 2, ...: 5.
        assert_eq!((decision.threshold, decision.id_accepted), (5.0, 0.92));
        assert_eq!((decision.check.statistic, decision.check.verdict), (0.0, Verdict::Consistent));
        assert!(!first.breaks_its_promise() && report.detectors[1].decision.is_none());
        assert_eq!(first.sets[1].accepted, Some(0.0));
        let mean = (first.sets[0].metrics.auroc + first.sets[1].metrics.auroc) / 2.0;
        assert_eq!(first.average.unwrap().auroc, mean);
        let expected = [("test", 100), ("near", 60), ("far", 40), ("bootstrap", 40)];
        assert_eq!(listener.0, expected.map(|(stage, steps)| (stage.to_owned(), steps, Some(steps))));
    }

    #[test]
    fn the_in_distribution_set_alone_is_a_report() {
        let detectors = [Calibrated::scores_only(fitted("msp", &head()))];
        let (id, labels) = (rows(20, 1.0), labels(20));
        let source = ArraySource::with_labels(id.view(), &labels).unwrap();
        let report =
            evaluate(&detectors, TestSet::of("test", source), vec![], &EvaluationOptions::default(), &mut ()).unwrap();
        assert_eq!(report.detectors[0].average, None);
        assert_eq!(report.detectors[0].accuracy, Some(1.0));
        let unlabelled = TestSet::of("test", ArraySource::new(id.view()));
        let report = evaluate(&detectors, unlabelled, vec![], &EvaluationOptions::default(), &mut ()).unwrap();
        assert_eq!((report.dense_accuracy, report.detectors[0].accuracy), (None, None));
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused_in_words() {
        let detectors = [Calibrated::scores_only(fitted("energy", &head()))];
        let other = Arc::new(LinearHead::from_rows(vec![2.0; 4], vec![0.0; 2], 2).unwrap());
        let two_heads = [detectors[0].clone(), Calibrated::scores_only(fitted("energy", &other))];
        let (id, none) = (rows(4, 1.0), Array2::zeros((0, 2)));
        let plain = EvaluationOptions::default();
        let message = |detectors: &[Calibrated], labels: &[i64], names: &[&str], ood: &Array2<f32>, options| {
            let sets = names.iter().map(|name| TestSet::of(*name, ArraySource::new(ood.view()))).collect();
            let id = TestSet::of("test", ArraySource::with_labels(id.view(), labels).unwrap());
            evaluate(detectors, id, sets, options, &mut ()).unwrap_err().to_string()
        };
        let good = [0, 1, 0, 1];
        let steep = EvaluationOptions { at_tpr: 1.5, ..plain };
        for (found, part) in [
            (message(&detectors, &good, &["a", "b", "a"], &id, &plain), "'a' twice"),
            (message(&detectors, &good, &["a"], &none, &plain), "a: expected at least one input, found no rows"),
            (message(&detectors, &[0, 1, 2, 0], &[], &id, &plain), "class indices 0 to 1"),
            (message(&detectors, &[0, -1, 1, 0], &[], &id, &plain), "-1 at row 1"),
            (message(&detectors, &good, &[], &id, &steep), "1.5"),
            (message(&[], &good, &[], &id, &plain), "no detectors"),
            (message(&two_heads, &good, &[], &id, &plain), "different heads"),
        ] {
            assert!(found.contains(part) && !found.contains("--"), "`{part}` is missing from: {found}");
        }
        let nan = evaluate_scores("s", &[1.0, f64::NAN], &[], &plain, &mut ()).unwrap_err().to_string();
        assert!(nan.contains("NaN at row 1"), "{nan}");
        assert!(evaluate_scores("s", &[], &[], &plain, &mut ()).is_err());
    }

    #[test]
    fn scores_of_other_tools_are_evaluated_alike() {
        let ood = [("x".to_owned(), vec![0.0, 1.0])];
        let report = evaluate_scores("theirs", &[2.0, 3.0], &ood, &EvaluationOptions::default(), &mut ()).unwrap();
        assert_eq!(report.detectors[0].sets[0].metrics.auroc, 1.0);
        assert_eq!(report.detectors[0].detector, "theirs");
        // Features that could not be scored count as out-of-distribution.
        let detectors = [Calibrated::scores_only(fitted("energy", &head()))];
        let (id, broken) = (rows(4, 1.0), array![[f32::NAN, 0.0]]);
        let options = EvaluationOptions { non_finite: NonFinite::OutOfDistribution, ..Default::default() };
        let sets = vec![TestSet::of("broken", ArraySource::new(broken.view()))];
        let report =
            evaluate(&detectors, TestSet::of("id", ArraySource::new(id.view())), sets, &options, &mut ()).unwrap();
        assert_eq!(report.detectors[0].sets[0].metrics.auroc, 1.0);
    }
}
