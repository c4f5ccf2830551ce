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
use crate::auto::{Choice, Panel, RECIPE, ValidationSets};
use crate::checks::{Accuracy, Finding, Judged, Witness, judge_calibration_alone};
use crate::detector::Prepared;
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{FeatureSource, HoldOut, Observed, Opening, Peeked};
use crate::head::LinearHead;
use crate::pipeline::Fitting;
use crate::progress::Progress;
use crate::reference::CalibrationScores;
use crate::selection::{LeftOut, Selection, Wanted};
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
    wanted: Vec<Wanted>,
    auto: Option<Auto>,
    needs: Needs,
    calibration: CalibrateOn<'a>,
    validation: Vec<(String, Opening<'a>)>,
    tpr: f64,
    provenance: BTreeMap<String, String>,
    progress: Box<dyn Progress + 'a>,
}

/// The detector that is chosen here.
#[derive(Debug, Clone, Copy)]
struct Auto {
    /// Before which of those wanted it comes.
    place: usize,
    /// Whether the fit fails where nothing can be chosen.
    required: bool,
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
    /// What could not be fitted here, of what was to be fitted only where that is possible.
    pub left_out: Vec<LeftOut>,
    /// What [`Fit::auto`] or [`Fit::auto_if_possible`] chose.
    pub choice: Option<Choice>,
}

impl<'a> Fit<'a> {
    /// The rate promised unless another is asked for.
    pub const TPR: f64 = 0.95;

    /// A fit to `head`, so far without detectors and without calibration.
    pub fn new(head: Arc<LinearHead>) -> Self {
        Self {
            head,
            wanted: Vec::new(),
            auto: None,
            needs: Needs::default(),
            calibration: CalibrateOn::Nothing,
            validation: Vec::new(),
            tpr: Self::TPR,
            provenance: BTreeMap::new(),
            progress: Box::new(()),
        }
    }

    /// Adds a detector to be fitted from the same pass; the first one decides unless another is named.
    #[must_use]
    pub fn detector(mut self, spec: Spec) -> Self {
        self.wanted.push(Wanted { spec, required: true });
        self
    }

    /// Adds a detector where it can be fitted to this head and these features; where not, because labels are missing or there are
    /// too few inputs for it, say, [`Fitted::left_out`] says why and the fit goes on. Detectors that were added before by
    /// [`Fit::detector`] are left alone, so that [`Spec::all`] can be added to those that must be there.
    #[must_use]
    pub fn detector_if_possible(mut self, spec: Spec) -> Self {
        if !self.wanted.iter().any(|known| known.required && known.spec == spec) {
            self.wanted.push(Wanted { spec, required: false });
        }
        self
    }

    /// Adds the detector that is good on most networks, near and far: the panel of [`Choice`], of the members that can be fitted to
    /// this head and these features. It rests on in-distribution inputs alone, unless [`Fit::validate_on`] gives others, and
    /// needs inputs to calibrate on.
    #[must_use]
    pub fn auto(mut self) -> Self {
        let place = self.auto.map_or(self.wanted.len(), |auto| auto.place);
        self.auto = Some(Auto { place, required: true });
        self
    }

    /// As [`Fit::auto`] where that can be done with three of its members or more; where not, [`Fitted::left_out`] says why and the
    /// fit goes on without.
    #[must_use]
    pub fn auto_if_possible(mut self) -> Self {
        self.auto = self.auto.or(Some(Auto { place: self.wanted.len(), required: false }));
        self
    }

    /// Fits the weights of the members of [`Fit::auto`] to out-of-distribution features `[N, D]`, which `open` opens after the fit;
    /// may be called for several sets. Half of each set fits the weights, the other half tells whether they are better than equal
    /// ones; do not report on either.
    #[must_use]
    pub fn validate_on<S: FeatureSource + 'a>(
        mut self,
        name: impl Into<String>,
        open: impl FnOnce() -> Result<S> + 'a,
    ) -> Self {
        self.validation.push((name.into(), boxed(open)));
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
    /// equal, or mostly training features; [`ErrorKind::Argument`] for no detector, or one twice. Where every detector was left
    /// out, the reason of the first.
    pub fn features(mut self, training: impl FeatureSource + 'a) -> Result<Fitted> {
        self.check_specs()?;
        self.head.check_features(training.units())?;
        let total = training.rows();
        let training = Peeked::new(training)?;
        let mut selection = Selection::default();
        let mut panel = self.panel(&mut selection)?;
        if !training.labelled() {
            panel.iter_mut().for_each(Panel::drop_labelled);
            self.leave_out_what_takes_labels(&mut selection);
        }
        let (training, total): (Box<dyn FeatureSource + 'a>, _) = match &self.calibration {
            CalibrateOn::HeldOut(part, _) => (part.remaining(training), total),
            _ => (Box::new(training), None),
        };
        let mut witness = Witness::new(self.head.classes());
        let total = training.rows().or(total);
        let mut source = watched(training, total, &mut witness, &mut *self.progress, "gathering");
        let needs = self.wanted.iter().fold(self.needs.clone(), |needs, wanted| needs.and(wanted.spec.needs()));
        let needs = panel.iter().fold(needs, |needs, panel| needs.and(panel.needs()));
        let statistics = Statistics::gather(&mut source, Some(&self.head), &needs)?;
        drop(source);
        let checks = Judged::judge(&self.head, witness);
        self.finish(statistics, Some(checks), panel, selection)
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
        let mut selection = Selection::default();
        let panel = self.panel(&mut selection)?;
        self.finish(statistics, None, panel, selection)
    }

    fn check_specs(&self) -> Result<()> {
        if self.wanted.is_empty() && self.auto.is_none() {
            return Err(Error::new(ErrorKind::Argument, "none").argument("detectors").expected("at least one"));
        }
        let twice = |at: &usize| self.wanted[..*at].iter().any(|known| known.spec == self.wanted[*at].spec);
        match (1..self.wanted.len()).find(twice) {
            None => Ok(()),
            Some(twice) => Err(Error::new(ErrorKind::Argument, format!("'{}' twice", self.wanted[twice].spec))
                .argument("detectors")
                .expected("different ones")),
        }
    }

    /// The members to choose from; `None` where nothing is to be chosen, or need not be and cannot.
    fn panel(&self, selection: &mut Selection) -> Result<Option<Panel>> {
        let Some(auto) = self.auto else { return Ok(None) };
        if !matches!(self.calibration, CalibrateOn::Nothing) {
            return Panel::new().map(Some);
        }
        let error = Error::lacking(Missing::Reference, "no calibration inputs")
            .argument("detector 'auto'")
            .expected("inputs held out of the fit, for the p-values of its members");
        selection.unless_required(RECIPE.panel.parse()?, auto.required, error).map(|()| None)
    }

    /// Drops detectors that need labels and are not required: the statistics of all are gathered in one pass, which would fail.
    fn leave_out_what_takes_labels(&mut self, selection: &mut Selection) {
        let without = |wanted: &Wanted| wanted.required || !wanted.spec.needs().takes_labels();
        let (kept, dropped) = std::mem::take(&mut self.wanted).into_iter().partition(without);
        self.wanted = kept;
        let reason = Error::lacking(Missing::Labels, "features without labels")
            .tensor("labels")
            .expected("a class for each training row");
        let reason = Arc::new(reason);
        let left_out = |wanted: Wanted| LeftOut { spec: wanted.spec, reason: Arc::clone(&reason) };
        selection.left_out.extend(Vec::into_iter(dropped).map(left_out));
    }

    fn finish(
        self,
        statistics: Statistics,
        mut checks: Option<Judged>,
        panel: Option<Panel>,
        mut selection: Selection,
    ) -> Result<Fitted> {
        let Self { head, mut wanted, auto, calibration, validation, tpr, provenance, mut progress, .. } = self;
        let fitting = Fitting::new(&head, &statistics)?;
        let choice = match (panel, auto) {
            (Some(panel), Some(auto)) => choose(panel, auto, &mut wanted, &fitting, &mut selection)?,
            _ => None,
        };
        let prepared = wanted.into_iter().map(|wanted| {
            let prepared = wanted.spec.prepare(&fitting);
            (wanted, prepared)
        });
        let mut prepared = selection.keep(prepared)?;
        let (mut findings, mut id) = (Vec::new(), Vec::new());
        let scores = match calibration.open()? {
            None => None,
            Some((source, held_out)) => {
                head.check_features(source.units())?;
                let mut witness = Witness::new(head.classes());
                let total = source.rows();
                let mut source = watched(source, total, &mut witness, &mut *progress, "calibrating");
                let scores = CalibrationScores::of(&prepared, &mut source, tpr)?;
                drop(source);
                match &mut checks {
                    Some(training) => training.judge_calibration(&head, &mut witness, held_out)?,
                    None => findings.extend(judge_calibration_alone(&mut witness)?),
                }
                id.push(witness);
                Some(scores)
            }
        };
        let choice = match (choice, &scores) {
            (Some(made), Some(scores)) => {
                let id = id.iter_mut().chain(checks.as_mut().map(|training| &mut training.witness)).collect();
                let validation = ValidationSets { sets: validation, id };
                settle(made, &mut prepared, &fitting, scores, validation, &mut selection)?
            }
            _ => None,
        };
        let detectors = prepared.into_iter().map(|(wanted, prepared)| match &scores {
            None => (wanted, prepared.finish(&[]).map(Calibrated::scores_only)),
            Some(scores) => (wanted, scores.calibrate(prepared, tpr)),
        });
        let detectors: Vec<Calibrated> =
            selection.keep(detectors)?.into_iter().map(|(_, calibrated)| calibrated).collect();
        let choice = choice.filter(|made| detectors.iter().any(|one| *one.detector().spec() == made.spec()));
        let accuracy = checks.as_ref().and_then(|training| training.accuracy);
        findings.extend(checks.into_iter().flat_map(|training| training.findings));
        drop(fitting);
        let artifact = Artifact::new(head, statistics, detectors, provenance)?;
        Ok(Fitted { artifact, accuracy, findings, left_out: selection.left_out, choice })
    }
}

/// Chooses of the panel, and puts the choice among those wanted: there once where it was also named.
fn choose(
    panel: Panel,
    auto: Auto,
    wanted: &mut Vec<Wanted>,
    fitting: &Fitting<'_>,
    selection: &mut Selection,
) -> Result<Option<Choice>> {
    let made = panel.choose(fitting);
    let made = if auto.required { made } else { made.and_then(Choice::unless_few) };
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            return selection.unless_required(RECIPE.panel.parse()?, auto.required, error).map(|()| None);
        }
    };
    let (spec, mut required) = (made.spec(), auto.required);
    let before = wanted.iter().take(auto.place).filter(|known| known.spec == spec).count();
    wanted.retain(|known| {
        required |= known.required && known.spec == spec;
        known.spec != spec
    });
    wanted.insert((auto.place - before).min(wanted.len()), Wanted { spec, required });
    Ok(Some(made))
}

/// What is left of a choice once it is known what its members score, in the place of what was made first.
fn settle(
    choice: Choice,
    prepared: &mut Vec<(Wanted, Prepared)>,
    fitting: &Fitting<'_>,
    scores: &CalibrationScores,
    validation: ValidationSets<'_, '_>,
    selection: &mut Selection,
) -> Result<Option<Choice>> {
    let chosen = choice.spec();
    let Some(place) = prepared.iter().position(|(wanted, _)| wanted.spec == chosen) else { return Ok(None) };
    let required = prepared[place].0.required;
    let settled = choice.settle(fitting, &|prepared| scores.half(prepared, true), validation);
    let settled = if required { settled } else { settled.and_then(Choice::unless_few) };
    match settled.and_then(|made| Ok((made.spec().prepare(fitting)?, made))) {
        Ok((again, made)) => {
            prepared[place] = (Wanted { spec: made.spec(), required }, again);
            Ok(Some(made))
        }
        Err(error) => {
            selection.unless_required(chosen, required, error)?;
            prepared.remove(place);
            Ok(None)
        }
    }
}

impl<'a> CalibrateOn<'a> {
    /// The calibration features, and whether they are a part of the training features.
    fn open(self) -> Result<Option<(Box<dyn FeatureSource + 'a>, bool)>> {
        Ok(match self {
            Self::Nothing => None,
            Self::HeldOut(part, open) => Some((part.held_out(open()?), true)),
            Self::Separate(open) => Some((open()?, false)),
        })
    }
}

fn boxed<'a, S: FeatureSource + 'a>(open: impl FnOnce() -> Result<S> + 'a) -> Opening<'a> {
    Box::new(move || Ok(Box::new(open()?) as Box<dyn FeatureSource + 'a>))
}

/// The blocks of `source`, which a witness sees and a progress counts, of `total` rows, as they are read.
fn watched<'b>(
    source: impl FeatureSource + 'b,
    total: Option<u64>,
    witness: &'b mut Witness,
    progress: &'b mut dyn Progress,
    what: &'static str,
) -> impl FeatureSource + 'b {
    let mut done = 0;
    Observed::new(source, move |block| {
        witness.see(block);
        done += block.rows() as u64;
        progress.advance(what, done, total);
        Ok(())
    })
}

#[cfg(test)]
mod acceptance;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::ArraySource;
    use ndarray::Array2;

    fn head() -> Arc<LinearHead> {
        let weight = vec![1.0, -0.2, 0.0, 0.3, -0.1, 1.5, 0.2, -0.3];
        Arc::new(LinearHead::from_rows(weight, vec![0.1, 0.0], 4).unwrap())
    }

    fn features(rows: usize, phase: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, 4), |(row, unit)| 1.0 + (0.7 * row as f32 + 2.1 * unit as f32 + phase).sin())
    }

    fn spec(text: &str) -> Spec {
        text.parse().unwrap()
    }

    fn names(fitted: &Fitted) -> (Vec<String>, Vec<String>) {
        let detectors = fitted.artifact.detectors().iter().map(|one| one.detector().spec().to_string()).collect();
        (detectors, fitted.left_out.iter().map(|left_out| left_out.spec.to_string()).collect())
    }

    #[test]
    fn what_takes_labels_is_left_out_where_there_are_none() {
        let (training, calibration) = (features(200, 0.0), features(99, 0.3));
        let fit = |specs: &[&str]| {
            let fit = Fit::new(head()).calibrate_on(|| Ok(ArraySource::new(calibration.view())));
            specs.iter().fold(fit, |fit, text| fit.detector_if_possible(spec(text)))
        };
        let fitted = fit(&["mds", "energy", "temp-scale", "fisher(energy, mds)"]);
        let fitted = fitted.features(ArraySource::new(training.view())).unwrap();
        let (kept, left_out) = names(&fitted);
        assert_eq!(
            (kept, left_out),
            (vec!["energy".into()], ["mds", "temp-scale", "fisher(energy, mds)"].map(String::from).to_vec())
        );
        assert_eq!(fitted.left_out[0].reason.missing(), Some(Missing::Labels));
        // A required one fails, and so does a fit of which nothing is left.
        let required = fit(&["energy"]).detector(spec("mds")).features(ArraySource::new(training.view()));
        assert_eq!(required.unwrap_err().missing(), Some(Missing::Labels));
        let nothing = fit(&["mds", "temp-scale"]).features(ArraySource::new(training.view())).unwrap_err();
        assert_eq!(nothing.missing(), Some(Missing::Labels));
    }

    #[test]
    fn what_the_data_cannot_support_is_left_out_and_the_rest_is_as_alone() {
        let training = features(200, 0.0);
        let labels: Vec<i64> = (0..200).map(|row| row % 2).collect();
        let calibration = features(99, 0.3);
        let fit = || Fit::new(head()).calibrate_on(|| Ok(ArraySource::new(calibration.view())));
        let source = || ArraySource::with_labels(training.view(), &labels).unwrap();
        let all = Spec::all().into_iter().fold(fit(), Fit::detector_if_possible).features(source()).unwrap();
        let (kept, left_out) = names(&all);
        assert_eq!(kept.len() + left_out.len(), Spec::all().len());
        assert!(kept.contains(&"energy".to_owned()) && kept.contains(&"knn".to_owned()), "{kept:?}");
        for (calibrated, name) in all.artifact.detectors().iter().zip(&kept) {
            let alone = fit().detector(spec(name)).features(source()).unwrap();
            let alone = &alone.artifact.detectors()[0];
            let scores = |one: &Calibrated| one.detector().score(calibration.view()).unwrap();
            assert_eq!(scores(calibrated), scores(alone), "{name}");
            assert_eq!(calibrated.threshold(), alone.threshold(), "{name}");
        }
        for left_out in &all.left_out {
            assert!(fit().detector(left_out.spec.clone()).features(source()).is_err(), "{}", left_out.spec);
        }
    }

    /// Too few inputs for the tail of `evidence`, which rests on half of them, and enough for a threshold.
    #[test]
    fn a_combination_without_enough_inputs_is_left_out() {
        let (training, calibration) = (features(200, 0.0), features(8, 0.3));
        let fit = Fit::new(head()).tpr(0.5).calibrate_on(|| Ok(ArraySource::new(calibration.view())));
        let fit = fit.detector(spec("energy")).detector_if_possible(spec("evidence(energy, msp)"));
        let fitted = fit.features(ArraySource::new(training.view())).unwrap();
        assert_eq!(names(&fitted), (vec!["energy".into()], vec!["evidence(energy, msp)".into()]));
    }

    /// Two of the panel's members take eigenvectors.
    #[cfg(feature = "linalg")]
    #[test]
    fn what_is_chosen_where_that_can_be_done_is_left_out_where_it_cannot() {
        let (training, labels) = (features(200, 0.0), (0..200).map(|row| row % 2).collect::<Vec<i64>>());
        let (many, few) = (features(99, 0.3), features(20, 0.3));
        let source = || ArraySource::with_labels(training.view(), &labels).unwrap();
        let fit = || Fit::new(head()).auto_if_possible().detector(spec("energy"));
        let without = |fitted: Fitted| {
            assert!(fitted.choice.is_none());
            assert_eq!(names(&fitted), (vec!["energy".into()], vec![RECIPE.panel.into()]));
            fitted.left_out[0].reason.to_string()
        };
        assert!(without(fit().features(source()).unwrap()).contains("no calibration inputs"));
        // Of a published mean only one member can be fitted.
        let mean = Statistics::from_mean_activation(vec![1.0; 4].into()).unwrap();
        let fitted = fit().calibrate_on(|| Ok(ArraySource::new(many.view()))).statistics(mean).unwrap();
        assert!(without(fitted).contains("of 6 members"));
        // Enough for the threshold of the energy, and too few for the panel, of which half is for p-values.
        let fitted = fit().calibrate_on(|| Ok(ArraySource::new(few.view()))).features(source()).unwrap();
        assert_eq!((fitted.choice.is_none(), names(&fitted).0), (true, vec!["energy".to_owned()]));
        assert!(fitted.left_out[0].reason.to_string().contains("19"), "{}", fitted.left_out[0].reason);
        // Asked for by name it is an error, and where it is possible it comes where it was asked for.
        let strict = Fit::new(head()).auto().detector(spec("energy"));
        assert_eq!(strict.features(source()).unwrap_err().missing(), Some(Missing::Reference));
        let fitted = fit().calibrate_on(|| Ok(ArraySource::new(many.view()))).features(source()).unwrap();
        let chosen = fitted.choice.as_ref().unwrap().spec().to_string();
        assert_eq!(names(&fitted).0, [chosen, "energy".into()]);
    }

    /// Rows of the training features and of the calibration inputs are refused, others are not.
    #[test]
    fn validation_sets_are_none_of_the_inputs_that_were_fitted_to() {
        let (training, calibration, other) = (features(200, 0.0), features(99, 0.3), features(40, 0.5));
        let fitted = |set: &Array2<f32>| {
            let fit = Fit::new(head()).calibrate_on(|| Ok(ArraySource::new(calibration.view()))).auto();
            let fit = fit.validate_on("other", || Ok(ArraySource::new(set.view())));
            fit.features(ArraySource::new(training.view()))
        };
        for same in [&training, &calibration] {
            let refused = fitted(same).unwrap_err().to_string();
            assert!(refused.contains("'other'") && refused.contains("100.0 %"), "{refused}");
        }
        assert!(fitted(&other).unwrap().choice.unwrap().weighed().is_some());
    }

    #[test]
    fn required_detectors_are_not_added_twice() {
        let training = features(60, 0.0);
        let fit = Fit::new(head()).detector(spec("msp")).detector_if_possible(spec("msp"));
        let fitted = fit.detector_if_possible(spec("energy")).features(ArraySource::new(training.view())).unwrap();
        assert_eq!(names(&fitted).0, ["msp", "energy"]);
        let twice = Fit::new(head()).detector(spec("msp")).detector(spec("msp"));
        assert!(twice.features(ArraySource::new(training.view())).unwrap_err().to_string().contains("'msp' twice"));
    }
}
