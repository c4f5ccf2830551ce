//! The fit: head, training features and calibration features in, calibrated detectors out.
//!
//! ```text
//! training features --one pass--> Statistics --Spec::fit--> Detector --scores of calibration features--> Calibrated
//!        |                                                                        |
//!        +------------------------ checks: do they belong together? --------------+
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::artifact::{Artifact, Calibrated};
use crate::calibration::Calibration;
use crate::checks::{Accuracy, Finding, Judged, Witness, judge_calibration_alone};
use crate::detector::{Detector, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, HoldOut, Layout, Opening, for_each_block};
use crate::head::LinearHead;
use crate::pipeline::{Fitting, Pipeline};
use crate::plan::{NonFinite, Plan};
use crate::progress::Progress;
use crate::random::SplitMix64;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};

/// Fits detectors to a head and its training features, and sets a threshold for each.
///
/// ```
/// # use std::sync::Arc;
/// # use dice_ood::{ArraySource, Fit, HoldOut, LinearHead};
/// # use ndarray::Array2;
/// # fn main() -> dice_ood::Result<()> {
/// # let head = Arc::new(LinearHead::from_rows(vec![1.0, -0.2, 0.0, -0.1, 1.5, 0.0], vec![0.0, 0.0], 3)?);
/// # let features = Array2::from_shape_fn((400, 3), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
/// let training = || Ok(ArraySource::new(features.view()));
/// let fitted = Fit::new(head)
///     .detector("dice(0.5) | energy".parse()?)
///     .hold_out(HoldOut::new(0.25, 0)?, training)
///     .tpr(0.9)
///     .features(training()?)?;
/// for finding in &fitted.findings {
///     eprintln!("Warning: {finding}");
/// }
/// let decides = fitted.artifact.detectors()[0].threshold().is_some();
/// # assert!(decides);
/// # Ok(())
/// # }
/// ```
pub struct Fit<'a> {
    head: Arc<LinearHead>,
    specs: Vec<Spec>,
    needs: Needs,
    calibration: CalibrateOn<'a>,
    tpr: f64,
    provenance: BTreeMap<String, String>,
    progress: Box<dyn Progress + 'a>,
}

enum CalibrateOn<'a> {
    Nothing,
    /// A part of the training features, which are opened a second time for it.
    HeldOut(HoldOut, Opening<'a>),
    Separate(Opening<'a>),
}

/// What a fit produced.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The detectors, and what they rest on.
    pub artifact: Artifact,
    /// How often the head is right on the training features; `None` where these have no labels.
    pub accuracy: Option<Accuracy>,
    /// What is probably a mistake.
    pub findings: Vec<Finding>,
}

impl<'a> Fit<'a> {
    /// The rate promised unless another is asked for.
    pub const TPR: f64 = 0.95;

    /// A fit to `head`, so far without detectors and without calibration.
    pub fn new(head: Arc<LinearHead>) -> Self {
        Self {
            head,
            specs: Vec::new(),
            needs: Needs::default(),
            calibration: CalibrateOn::Nothing,
            tpr: Self::TPR,
            provenance: BTreeMap::new(),
            progress: Box::new(()),
        }
    }

    /// Adds a detector to be fitted from the same pass; the first one decides unless another is named.
    #[must_use]
    pub fn detector(mut self, spec: Spec) -> Self {
        self.specs.push(spec);
        self
    }

    /// Also gathers these statistics, for detectors that may be fitted to the artifact later.
    #[must_use]
    pub fn gather(mut self, needs: Needs) -> Self {
        self.needs = self.needs.and(needs);
        self
    }

    /// Holds a part of the training features out of the fit, and sets the thresholds on it. `again` opens the training features a
    /// second time.
    ///
    /// If the network was trained on these inputs it is surer of them than of new ones, and fewer of those are accepted
    /// than promised: [`Fit::calibrate_on`] inputs that it has not seen where there are such.
    #[must_use]
    pub fn hold_out<S: FeatureSource + 'a>(mut self, part: HoldOut, again: impl FnOnce() -> Result<S> + 'a) -> Self {
        self.calibration = CalibrateOn::HeldOut(part, boxed(again));
        self
    }

    /// Sets the thresholds on in-distribution features `[N, D]` of their own, which `open` opens after the fit.
    #[must_use]
    pub fn calibrate_on<S: FeatureSource + 'a>(mut self, open: impl FnOnce() -> Result<S> + 'a) -> Self {
        self.calibration = CalibrateOn::Separate(boxed(open));
        self
    }

    /// The probability with which a fresh in-distribution input is to be accepted: [`Fit::TPR`] unless said.
    #[must_use]
    pub fn tpr(mut self, tpr: f64) -> Self {
        self.tpr = tpr;
        self
    }

    /// What the artifact is to say of where it came from.
    #[must_use]
    pub fn provenance(mut self, provenance: BTreeMap<String, String>) -> Self {
        self.provenance = provenance;
        self
    }

    /// Reports how far the fit is.
    #[must_use]
    pub fn progress(mut self, progress: impl Progress + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Fits to training features `[N, D]`, read once, with labels where the source has them.
    ///
    /// # Errors
    /// What reading meets; [`ErrorKind::Shape`] for another D than the head's; [`ErrorKind::NotFinite`] for NaN and infinity;
    /// those of [`Spec::fit`]; [`ErrorKind::Calibration`] where the calibration features are too few for the promise, all
    /// equal, or mostly training features; [`ErrorKind::Argument`] for no detector, or one twice.
    pub fn features(mut self, training: impl FeatureSource + 'a) -> Result<Fitted> {
        self.check_specs()?;
        self.head.check_features(training.units())?;
        let (training, total): (Box<dyn FeatureSource + 'a>, _) = match &self.calibration {
            CalibrateOn::HeldOut(part, _) => {
                let total = training.rows();
                (part.remaining(training), total)
            }
            _ => (Box::new(training), None),
        };
        let mut witness = Witness::new(self.head.classes());
        let mut watched = Watched::new(training, &mut witness, &mut *self.progress, "gathering");
        watched.total = watched.total.or(total);
        let needs = self.specs.iter().fold(self.needs.clone(), |needs, spec| needs.and(spec.needs()));
        let statistics = Statistics::gather(&mut watched, Some(&self.head), &needs)?;
        drop(watched);
        let checks = Judged::judge(&self.head, witness);
        self.finish(statistics, Some(checks))
    }

    /// Fits to statistics that were gathered before, or published.
    ///
    /// # Errors
    /// As [`Fit::features`], and [`ErrorKind::Argument`] for a hold-out, as there is nothing to hold out of.
    pub fn statistics(self, statistics: Statistics) -> Result<Fitted> {
        self.check_specs()?;
        if matches!(self.calibration, CalibrateOn::HeldOut(..)) {
            return Err(Error::new(ErrorKind::Argument, "statistics alone")
                .argument("training features")
                .expected("rows to hold a part out of")
                .fix("calibrate on features of their own"));
        }
        self.finish(statistics, None)
    }

    fn check_specs(&self) -> Result<()> {
        if self.specs.is_empty() {
            return Err(Error::new(ErrorKind::Argument, "none").argument("detectors").expected("at least one"));
        }
        match (1..self.specs.len()).find(|at| self.specs[..*at].contains(&self.specs[*at])) {
            None => Ok(()),
            Some(twice) => Err(Error::new(ErrorKind::Argument, format!("'{}' twice", self.specs[twice]))
                .argument("detectors")
                .expected("different ones")),
        }
    }

    fn finish(mut self, statistics: Statistics, mut checks: Option<Judged>) -> Result<Fitted> {
        let fitting = Fitting::new(&self.head, &statistics)?;
        let prepared = self.specs.iter().map(|spec| spec.prepare(&fitting)).collect::<Result<Vec<_>>>()?;
        let mut findings = Vec::new();
        let (source, held_out) = match std::mem::replace(&mut self.calibration, CalibrateOn::Nothing) {
            CalibrateOn::Nothing => (None, false),
            CalibrateOn::HeldOut(part, open) => (Some(part.held_out(open()?)), true),
            CalibrateOn::Separate(open) => (Some(open()?), false),
        };
        let detectors = match source {
            None => {
                let alone = |prepared: Prepared| Ok(Calibrated::scores_only(prepared.finish(&[])?));
                prepared.into_iter().map(alone).collect::<Result<_>>()?
            }
            Some(source) => {
                self.head.check_features(source.units())?;
                let mut witness = Witness::new(self.head.classes());
                let mut watched = Watched::new(source, &mut witness, &mut *self.progress, "calibrating");
                let scores = CalibrationScores::of(&prepared, &mut watched, self.tpr)?;
                drop(watched);
                match &mut checks {
                    Some(training) => training.judge_calibration(&self.head, witness, held_out)?,
                    None => findings.extend(judge_calibration_alone(witness)?),
                }
                prepared.into_iter().map(|one| scores.calibrate(one, self.tpr)).collect::<Result<_>>()?
            }
        };
        let mut accuracy = None;
        if let Some(training) = checks {
            accuracy = training.accuracy;
            findings.extend(training.findings);
        }
        drop(fitting);
        let artifact = Artifact::new(self.head, statistics, detectors, self.provenance)?;
        Ok(Fitted { artifact, accuracy, findings })
    }
}

fn boxed<'a, S: FeatureSource + 'a>(open: impl FnOnce() -> Result<S> + 'a) -> Opening<'a> {
    Box::new(move || Ok(Box::new(open()?) as Box<dyn FeatureSource + 'a>))
}

/// Scores of the calibration features, in the order in which these were read.
struct CalibrationScores {
    pipelines: Vec<Arc<Pipeline>>,
    /// For each pipeline `[n]`.
    scores: Vec<Vec<f64>>,
    /// Which rows the p-values of members rest on; thresholds of combinations rest on the others.
    reference: Vec<bool>,
}

impl CalibrationScores {
    /// One pass, whatever shares pipelines.
    fn of(prepared: &[Prepared], source: &mut dyn FeatureSource, tpr: f64) -> Result<Self> {
        let mut pipelines: Vec<Arc<Pipeline>> = Vec::new();
        for pipeline in prepared.iter().flat_map(Prepared::fitted) {
            if !pipelines.iter().any(|known| Arc::ptr_eq(known, pipeline)) {
                pipelines.push(Arc::clone(pipeline));
            }
        }
        let detectors: Vec<Detector> = pipelines.iter().cloned().map(Detector::of_pipeline).collect();
        let plan = Plan::new(&detectors);
        let mut scores = vec![Vec::new(); detectors.len()];
        for_each_block(source, |block| {
            for (all, scored) in scores.iter_mut().zip(plan.score_block(block, NonFinite::Reject)?) {
                all.extend(scored.scores);
            }
            Ok(())
        })?;
        let rows = scores.first().map_or(0, Vec::len);
        if rows == 0 {
            return Err(Error::new(ErrorKind::Calibration, "no calibration inputs")
                .expected(format!("at least {} for a TPR of {tpr}", Calibration::inputs_needed(tpr)))
                .fix("give calibration inputs, or more training inputs to hold a part out of"));
        }
        Ok(Self { pipelines, scores, reference: halves(rows) })
    }

    /// Sets the threshold of a detector. That of a pipeline rests on all rows. The p-values of a combination's members rest on
    /// one half and its threshold on the other: on the same rows the promise would not hold.
    fn calibrate(&self, prepared: Prepared, tpr: f64) -> Result<Calibrated> {
        let own: Vec<&Vec<f64>> = prepared.fitted().iter().map(|pipeline| self.of_pipeline(pipeline)).collect();
        if !prepared.takes_reference() {
            let scores = own[0].clone();
            return Calibrated::new(prepared.finish(&[])?, Calibration::new(scores)?, tpr);
        }
        let half = |wanted: bool| -> Vec<Vec<f64>> {
            let rows = |scores: &&Vec<f64>| {
                scores
                    .iter()
                    .zip(&self.reference)
                    .filter(|(_, half)| **half == wanted)
                    .map(|(score, _)| *score)
                    .collect()
            };
            own.iter().map(rows).collect()
        };
        let detector = prepared.finish(&half(true))?;
        let scores = detector.combine(&half(false))?;
        Calibrated::new(detector, Calibration::new(scores)?, tpr)
    }

    fn of_pipeline(&self, pipeline: &Arc<Pipeline>) -> &Vec<f64> {
        let place = self.pipelines.iter().position(|known| Arc::ptr_eq(known, pipeline));
        &self.scores[place.unwrap_or(0)]
    }
}

/// One of every two consecutive rows, by a draw that depends on its place alone.
fn halves(rows: usize) -> Vec<bool> {
    let first = |pair: u64| SplitMix64::mix(pair ^ 0x5eed) & 1 == 0;
    (0..rows).map(|row| first(row as u64 / 2) == (row % 2 == 0)).collect()
}

/// A source whose blocks a witness sees and a progress counts as they are read.
struct Watched<'a, 'b> {
    source: Box<dyn FeatureSource + 'a>,
    witness: &'b mut Witness,
    progress: &'b mut (dyn Progress + 'a),
    what: &'static str,
    done: u64,
    total: Option<u64>,
}

impl<'a, 'b> Watched<'a, 'b> {
    fn new(
        source: Box<dyn FeatureSource + 'a>,
        witness: &'b mut Witness,
        progress: &'b mut (dyn Progress + 'a),
        what: &'static str,
    ) -> Self {
        let total = source.rows();
        Self { source, witness, progress, what, done: 0, total }
    }
}

impl FeatureSource for Watched<'_, '_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)?;
        self.witness.see(block);
        self.done += block.rows() as u64;
        self.progress.advance(self.what, self.done, self.total);
        Ok(())
    }
}
