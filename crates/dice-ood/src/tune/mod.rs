//! Choosing a detector: candidates are compared on some rows, and what is said of the chosen one was measured on others.
//!
//! ```text
//! candidates --fit--> scores of choosing rows --> losses --halving--> chosen, runner-up, energy
//!                                                                        |
//!            reporting rows, which chose nothing --paired bootstrap--> differences with intervals
//!            calibration rows, which did neither -----------------------> threshold
//! ```

mod choosing;
mod ground;
mod memo;
mod noise;
mod outcome;
mod split;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::FeatureSource;
use crate::head::LinearHead;
pub use crate::metrics::Loss;
use crate::progress::Progress;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};
use choosing::Tuning;
use ground::{Ground, Selection, for_each_part, head_without, without};
pub use memo::Memo;
use noise::Moments;
pub use outcome::{Difference, Finalist, Outcome, Parts, Ranked, Tuned};
use split::Part;
use survey::{Survey, set_of_class};

/// Opens a source, as often as it is called.
pub type Open<'a> = Box<dyn Fn() -> Result<Box<dyn FeatureSource + 'a>> + 'a>;

/// The detector that every chosen one is compared with.
pub const BASELINE: &str = "energy";

/// What the training features say.
pub enum Training<'a> {
    /// Statistics that were gathered before: held-out classes are then not to be had.
    Statistics(Statistics),
    /// The features, which are read once, and for held-out classes once more for each.
    Features(Open<'a>),
}

/// What stands for out-of-distribution inputs.
pub enum Validation<'a> {
    /// Real ones, by name.
    Sets(Vec<(String, Open<'a>)>),
    /// Distorted in-distribution images, by name.
    StandIns(Vec<(String, Open<'a>)>),
    /// So many classes in turn: features and head without the class, whose inputs are then out-of-distribution.
    Classes(usize),
    /// Gaussian noise with the mean and the deviation of each unit.
    Noise,
}

impl Validation<'_> {
    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sets(_) => "real out-of-distribution inputs",
            Self::StandIns(_) => "distorted in-distribution images",
            Self::Classes(_) => "held-out classes",
            Self::Noise => "Gaussian noise in feature space",
        }
    }

    /// How well it ranks detectors, in a sentence.
    pub fn worth(&self) -> &'static str {
        match self {
            Self::Sets(_) => "Nothing ranks detectors better, for inputs like these.",
            Self::StandIns(_) => {
                "Flips, mixes and jigsaws rank detectors much like near sets, blur, zoom and shuffled pixels much like far ones, where \
                 the network is not invariant to them."
            }
            Self::Classes(_) => "They rank detectors for near inputs only.",
            Self::Noise => {
                "It ranks detectors badly, as it rewards distance to the mean alone: take the choice as a guess, and give \
                 out-of-distribution inputs or distorted images if there are any."
            }
        }
    }
}

/// How a choice is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// What is minimised, averaged over sets.
    pub loss: Loss,
    /// The TPR at which FPR is taken, in (0, 1].
    pub at_tpr: f64,
    /// The promise of the threshold.
    pub tpr: f64,
    /// Bootstrap replicates.
    pub replicates: u32,
    /// The level of the intervals.
    pub level: f64,
    /// Seed of the split, of the held-out classes, of noise and of the bootstrap.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { loss: Loss::Fpr, at_tpr: 0.95, tpr: 0.95, replicates: 1000, level: 0.95, seed: 0 }
    }
}

/// A detector that may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Hopeful {
    /// What it is.
    pub spec: Spec,
    /// Whether it is an error, and no mere reason to pass it over, that it cannot be fitted.
    pub required: bool,
}

/// Chooses one of `candidates` for `head`, with `id` the in-distribution inputs `[N, D]` to choose, report and calibrate on: best ones
/// that the network has not seen. [`BASELINE`] is compared whether it is among the candidates or not.
///
/// No row is used for two things: see [`Parts`]. More than sixteen candidates are compared on a part of the choosing rows first, and the
/// better half of them on twice as many, until all rows have chosen.
///
/// # Errors
/// [`ErrorKind::Argument`] for no candidates, one twice, real sets that share more than 1 % of their rows with `id`, stand-ins of one row repeated,
/// fewer than three classes to hold out of, and stand-ins that no candidate tells apart; [`ErrorKind::Empty`] for sets of fewer than ten rows;
/// [`ErrorKind::Missing`] for held-out classes without labels or features; [`ErrorKind::Calibration`] for too few inputs; and what
/// fitting, reading and scoring meet.
#[expect(clippy::too_many_arguments, reason = "inputs, what is asked of them, and who is told")]
pub fn tune<'a>(
    head: &Arc<LinearHead>,
    training: Training<'a>,
    id: Open<'a>,
    validation: Validation<'a>,
    candidates: &[Hopeful],
    options: &Options,
    memo: &mut Memo,
    progress: &mut dyn Progress,
) -> Result<Tuned> {
    let candidates = with_baseline(candidates)?;
    let survey = Survey::of(head, &id, &validation, options, progress)?;
    let mut tuning = Tuning { head, candidates, options, survey, left_out: BTreeMap::new() };
    memo.begin(tuning.key(&validation))?;
    let (name, worth) = (validation.name(), validation.worth());
    match validation {
        Validation::Classes(folds) => {
            let Training::Features(training) = training else {
                return Err(Error::lacking(Missing::Features, "statistics alone")
                    .argument("held-out classes")
                    .expected("training features, from which a class is left out"));
            };
            let classes = tuning.survey.classes_to_hold_out(head, folds, options.seed)?;
            let grounds = |class: i64, needs: &Needs| class_ground(head, &training, &id, class, needs);
            tuning.by_classes(&classes, &grounds, (name, worth), &training, &id, memo, progress)
        }
        other => {
            let needs = tuning.needs();
            let statistics = match &training {
                Training::Statistics(statistics) => statistics.clone(),
                Training::Features(open) => tuning.gather(open, &needs, progress)?,
            };
            let stand_ins = matches!(other, Validation::StandIns(_));
            let sets = match other {
                Validation::Sets(sets) | Validation::StandIns(sets) => sets,
                Validation::Noise | Validation::Classes(_) => vec![noise_set(&id, head.units(), options.seed)?],
            };
            let ground = Ground { head: Arc::clone(head), statistics, id, sets };
            tuning.on_ground(ground, stand_ins, (name, worth), memo, progress)
        }
    }
}

/// The candidates, and the baseline first.
fn with_baseline(candidates: &[Hopeful]) -> Result<Vec<Hopeful>> {
    if candidates.is_empty() {
        return Err(Error::new(ErrorKind::Argument, "none").argument("candidates").expected("at least one"));
    }
    let mut all = vec![Hopeful { spec: BASELINE.parse()?, required: true }];
    for candidate in candidates {
        match all.iter().skip(1).any(|known| known.spec == candidate.spec) {
            true => {
                return Err(Error::new(ErrorKind::Argument, format!("'{}' twice", candidate.spec))
                    .argument("candidates")
                    .expected("different ones"));
            }
            false if candidate.spec == all[0].spec => {}
            false => all.push(candidate.clone()),
        }
    }
    Ok(all)
}

/// Noise like the in-distribution inputs that report nothing.
fn noise_set<'g>(id: &Open<'_>, units: usize, seed: u64) -> Result<(String, Open<'g>)> {
    let mut moments = Moments::new(units);
    for part in [Part::Reference, Part::Choosing] {
        for_each_part(id, &Selection::id(part), seed, |block| {
            moments.see(block);
            Ok(())
        })?;
    }
    let open = move || -> Result<Box<dyn FeatureSource + 'g>> { Ok(Box::new(moments.noise(seed))) };
    Ok(("noise".into(), Box::new(open)))
}

/// The network without a class, whose inputs are the set.
fn class_ground<'g>(
    head: &LinearHead,
    training: &'g Open<'_>,
    id: &'g Open<'_>,
    class: i64,
    needs: &Needs,
) -> Result<Ground<'g>> {
    let fewer = head_without(head, class as usize)?;
    let statistics = Statistics::gather(&mut without(training()?, class), Some(&fewer), needs)?;
    let others = move || -> Result<Box<dyn FeatureSource + 'g>> { Ok(Box::new(without(id()?, class))) };
    let held = move || -> Result<Box<dyn FeatureSource + 'g>> {
        Ok(Box::new(crate::features::Picked::new(id()?, move |_, label| label == Some(class))))
    };
    let name = set_of_class(class);
    Ok(Ground { head: fewer, statistics, id: Box::new(others), sets: vec![(name, Box::new(held))] })
}

impl Tuned {
    /// The chosen detector as a file.
    ///
    /// # Errors
    /// As [`Artifact::new`].
    pub fn artifact(&self, provenance: BTreeMap<String, String>) -> Result<Artifact> {
        Artifact::new(Arc::clone(&self.head), self.statistics.clone(), vec![self.calibrated.clone()], provenance)
    }
}

#[cfg(test)]
mod tests;
