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

mod advice;
mod curves;
mod figures;
mod report;

use std::sync::{Arc, Mutex, PoisonError};

use advice::{BASELINE, Compared, advise};

use crate::artifact::Calibrated;
use crate::calibration::{Decision, Threshold};
use crate::checks::{MOST_SHARED, Witness};
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::exchangeability::BatchCheck;
use crate::features::{Block, FeatureSource, Opening, for_each_block};
use crate::head::LinearHead;
use crate::metrics::paired::PairedScores;
use crate::metrics::{Curve, Interval, Rates, ccr_at_fpr};
use crate::plan::{NonFinite, Plan};
use crate::progress::Progress;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};
pub use curves::{BandAt, Curves, FprAt, PrecisionPoint, RocPoint};
pub use figures::{Bins, Drawn, Reliability};
pub use report::{
    AccuracyLoss, Advice, Averages, DecisionReport, DetectorReport, Difference, Distance, Next, Overlap, Quantiles,
    Ranking, RankingMetric, Report, SetReport, Standing,
};

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
    /// By what detectors are compared with each other and with energy, by a paired bootstrap of so many replicates; `None` for no
    /// [`Advice`].
    pub advise: Option<Ranking>,
    /// Whether the report carries what figures are drawn from: counts of scores, curves, shares of p-values.
    pub draw: bool,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self { at_tpr: 0.95, bootstrap: 200, seed: 0, non_finite: NonFinite::Reject, advise: None, draw: false }
    }
}

/// A named test set, opened when its turn has come.
pub struct TestSet<'a> {
    label: SetLabel,
    open: Opening<'a>,
}

/// What a set is called, and how far it is from the in-distribution data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetLabel {
    /// Its name.
    pub name: String,
    /// Whether it is near or far, where that is known.
    pub distance: Option<Distance>,
}

impl SetLabel {
    /// A name in front of which may stand how far the set is, as in `near:cifar100`.
    pub fn tagged(text: &str) -> Self {
        let tagged = Distance::ALL.into_iter().find_map(|distance| {
            let name = text.strip_prefix(distance.name())?.strip_prefix(':')?;
            Some(Self { name: name.into(), distance: Some(distance) })
        });
        tagged.unwrap_or_else(|| text.into())
    }
}

impl From<&str> for SetLabel {
    fn from(name: &str) -> Self {
        Self { name: name.into(), distance: None }
    }
}

impl From<String> for SetLabel {
    fn from(name: String) -> Self {
        Self { name, distance: None }
    }
}

impl<'a> TestSet<'a> {
    /// A set that `open` opens.
    pub fn new(label: impl Into<SetLabel>, open: impl FnOnce() -> Result<Box<dyn FeatureSource + 'a>> + 'a) -> Self {
        Self { label: label.into(), open: Box::new(open) }
    }

    /// A set that is open already.
    pub fn of(label: impl Into<SetLabel>, source: impl FeatureSource + 'a) -> Self {
        Self::new(label, || Ok(Box::new(source)))
    }
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
    evaluate_by(|detectors| Ok(Plan::new(detectors.iter().copied())), detectors, id, ood, options, progress)
}

/// The same where detectors differ in values of their parameters: those whose masks nest are scored in one pass, as by
/// [`Plan::nesting`], and scores differ by rounding from those of [`evaluate`].
///
/// # Errors
/// As [`evaluate`].
pub fn sweep(
    detectors: &[Calibrated],
    id: TestSet<'_>,
    ood: Vec<TestSet<'_>>,
    options: &EvaluationOptions,
    progress: &mut dyn Progress,
) -> Result<Report> {
    evaluate_by(|detectors| Plan::nesting(detectors.iter().copied()), detectors, id, ood, options, progress)
}

fn evaluate_by(
    plan: impl Fn(&[&Detector]) -> Result<Plan>,
    detectors: &[Calibrated],
    id: TestSet<'_>,
    ood: Vec<TestSet<'_>>,
    options: &EvaluationOptions,
    progress: &mut dyn Progress,
) -> Result<Report> {
    check(options, ood.iter().map(|set| set.label.name.as_str()))?;
    let head = one_head(detectors)?;
    let dense = dense_predictor(head)?;
    let mut scoring: Vec<&Detector> = detectors.iter().map(|calibrated| calibrated.detector()).collect();
    let baseline = baseline(detectors, head, options)?;
    scoring.push(&dense);
    scoring.extend(&baseline);
    let mut seen = Witness::new(head.classes());
    let id = SetScores::of(id, &plan(&scoring)?, scoring.len(), Some(head.classes()), &mut seen, options, progress)?;
    scoring.remove(detectors.len());
    let plan = plan(&scoring)?;
    let mut overlaps = Vec::new();
    let ood = ood
        .into_iter()
        .map(|set| {
            let (label, mut own) = (set.label.clone(), Witness::new(head.classes()));
            let scores = SetScores::of(set, &plan, scoring.len(), None, &mut own, options, progress)?.scores;
            let share = own.share_in(&mut seen);
            overlaps.extend((share > MOST_SHARED).then(|| Overlap { ood: label.name.clone(), share }));
            Ok((label, scores))
        })
        .collect::<Result<Vec<_>>>()?;
    let correct = |index: usize| id.correct.as_ref().map(|correct| &correct[index][..]);
    let reporter = Reporter::new(options, progress, detectors.len() * ood.len());
    let reports = detectors.iter().enumerate().map(|(index, calibrated)| {
        let sets = ood.iter().map(|(label, scores)| (label, &scores[index][..]));
        let name = calibrated.detector().spec().to_string();
        reporter.detector(name, &id.scores[index], correct(index), Some(calibrated), sets)
    });
    let reports = reports.collect::<Result<_>>()?;
    let mut report = Report {
        at_tpr: options.at_tpr,
        id_inputs: id.rows(),
        dense_accuracy: correct(detectors.len()).map(share),
        detectors: reports,
        overlaps,
        advice: None,
    };
    if let Some(ranking) = options.advise {
        // Behind the detectors the whole head stands among the in-distribution scores alone.
        let columns = (0..detectors.len()).map(|place| (place, place));
        let columns = columns.chain(baseline.iter().map(|_| (detectors.len() + 1, detectors.len())));
        let scores = columns.map(|(in_id, in_ood)| PairedScores {
            id: &id.scores[in_id],
            ood: ood.iter().map(|(_, scores)| &scores[in_ood][..]).collect(),
        });
        let compared = Compared { report: &report, scores: scores.collect(), correct: id.correct.as_deref() };
        report.advice = advise(&compared, ranking, options);
    }
    Ok(report)
}

/// What detectors are compared with, where it is wanted and none of them.
fn baseline(detectors: &[Calibrated], head: &Arc<LinearHead>, options: &EvaluationOptions) -> Result<Option<Detector>> {
    let spec: Spec = BASELINE.parse()?;
    if options.advise.is_none() || detectors.iter().any(|one| *one.detector().spec() == spec) {
        return Ok(None);
    }
    spec.fit(head, &Statistics::new(head.units(), &Needs::default())).map(Some)
}

/// Evaluates scores `[N]` that any tool gave, higher = more in-distribution; `name` stands for the detector.
///
/// # Errors
/// As [`evaluate`], and [`ErrorKind::NotFinite`] for NaN.
pub fn evaluate_scores(
    name: &str,
    id: &[f64],
    ood: &[(SetLabel, Vec<f64>)],
    options: &EvaluationOptions,
    progress: &mut dyn Progress,
) -> Result<Report> {
    check(options, ood.iter().map(|(label, _)| label.name.as_str()))?;
    if id.is_empty() {
        return Err(no_rows("in-distribution scores"));
    }
    if let Some(row) = id.iter().position(|score| score.is_nan()) {
        return Err(Error::new(ErrorKind::NotFinite, format!("NaN at row {row}"))
            .argument("in-distribution scores")
            .expected("numbers"));
    }
    let reporter = Reporter::new(options, progress, ood.len());
    let sets = ood.iter().map(|(label, scores)| (label, &scores[..]));
    let report = reporter.detector(name.into(), id, None, None, sets)?;
    Ok(Report {
        at_tpr: options.at_tpr,
        id_inputs: id.len(),
        dense_accuracy: None,
        detectors: vec![report],
        overlaps: Vec::new(),
        advice: None,
    })
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
    /// Scores `set` by a plan of so many detectors; labels are looked at where the number of classes is given.
    fn of(
        set: TestSet<'_>,
        plan: &Plan,
        detectors: usize,
        classes: Option<usize>,
        witness: &mut Witness,
        options: &EvaluationOptions,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut source = (set.open)()?;
        let total = source.rows();
        let mut done = 0;
        let mut all =
            Self { scores: vec![Vec::new(); detectors], correct: classes.map(|_| vec![Vec::new(); detectors]) };
        for_each_block(&mut *source, |block| {
            witness.see(block);
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
            progress.advance(&set.label.name, done, total);
            Ok(())
        })?;
        if all.rows() == 0 { Err(no_rows(&set.label.name)) } else { Ok(all) }
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
        sets: impl Iterator<Item = (&'s SetLabel, &'s [f64])>,
    ) -> Result<DetectorReport> {
        let threshold = calibrated.and_then(|calibrated| calibrated.threshold().copied());
        let sets: Vec<(&SetLabel, &[f64])> = sets.collect();
        let bins = self.options.draw.then(|| Bins::of(std::iter::once(id).chain(sets.iter().map(|(_, ood)| *ood))));
        let sets = sets.into_iter().map(|(label, ood)| self.set(label, (id, correct), ood, threshold, bins));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        Ok(DetectorReport {
            detector,
            accuracy: correct.map(share),
            id_scores: Quantiles::of(id),
            decision: calibrated.and_then(|calibrated| decision(calibrated, id)),
            average: Averages::of(sets.iter()),
            near: of_distance(&sets, Distance::Near),
            far: of_distance(&sets, Distance::Far),
            drawn: bins.map(|bins| Drawn {
                bins,
                id: bins.counts(id),
                reliability: calibrated.and_then(|calibrated| Reliability::of(calibrated.calibration()?, id)),
            }),
            sets,
        })
    }

    fn set(
        &self,
        label: &SetLabel,
        (id, correct): (&[f64], Option<&[bool]>),
        ood: &[f64],
        threshold: Option<Threshold>,
        bins: Option<Bins>,
    ) -> Result<SetReport> {
        let EvaluationOptions { at_tpr, bootstrap, seed, .. } = *self.options;
        let curve = Curve::new(id, ood).map_err(|error| error.file(&label.name))?;
        let drawn = || self.advance();
        let more: &Rates<'_> = if bins.is_some() { &curves::rates } else { &|_| Vec::new() };
        let intervals =
            (bootstrap > 0).then(|| curve.intervals_observed(at_tpr, bootstrap as usize, LEVEL, seed, more, &drawn));
        let (intervals, of_curves) = intervals.map_or((None, Vec::new()), |(found, more)| (Some(found), more));
        let ccr = |fpr: f64| correct.map(|correct| ccr_at_fpr(id, correct, ood, fpr)).transpose();
        Ok(SetReport {
            ood: label.name.clone(),
            distance: label.distance,
            ood_inputs: ood.len(),
            metrics: curve.metrics(at_tpr),
            intervals,
            ccr_at_fpr_1: ccr(0.01)?,
            ccr_at_fpr_10: ccr(0.1)?,
            accepted: threshold.map(|threshold| accepted(threshold, ood)),
            scores: bins.map(|bins| bins.counts(ood)),
            curves: bins.map(|_| Curves::of(&curve, &of_curves)),
        })
    }
}

fn of_distance(sets: &[SetReport], distance: Distance) -> Option<Averages> {
    Averages::of(sets.iter().filter(|set| set.distance == Some(distance)))
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

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|flag| **flag).count() as f64 / flags.len() as f64
}

#[cfg(test)]
mod tests;
