//! Choosing a detector: candidates are compared on some rows, and what is said of the chosen one was measured on others.
//!
//! ```text
//! candidates --fit--> scores of choosing rows --> losses --halving--> chosen, runner-up, energy
//!                                                                        |
//!            reporting rows, which chose nothing --paired bootstrap--> differences with intervals
//!            calibration rows, which did neither -----------------------> threshold
//! ```

mod ground;
mod memo;
mod noise;
mod outcome;
mod split;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::artifact::{Artifact, Calibrated};
use crate::calibration::Calibration;
use crate::checks::Witness;
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{FeatureSource, for_each_block};
use crate::head::LinearHead;
pub use crate::metrics::Loss;
use crate::metrics::{Compared, Setting};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::random::shuffle;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};
use ground::{Ground, Rows, for_each_part, head_without, scores, without};
pub use memo::Memo;
use memo::Stage;
use noise::Moments;
pub use outcome::{Difference, Finalist, Outcome, Parts, Ranked, Tuned};
use split::Part;

/// Opens a source, as often as it is called.
pub type Open<'a> = Box<dyn Fn() -> Result<Box<dyn FeatureSource + 'a>> + 'a>;

/// The detector that every chosen one is compared with.
pub const BASELINE: &str = "energy";

/// Fewer rows of a set than this tell detectors apart by chance.
const FEWEST_ROWS: u64 = 10;
/// A set shares at most this part of its rows with the in-distribution inputs.
const MOST_SHARED: f64 = 0.01;
/// A stand-in that no candidate tells from in-distribution inputs better than this (AUROC) is none: the network may be invariant to
/// what was done to it.
const NOT_APART: f64 = 0.6;
/// More candidates than this are compared on few rows first.
const MANY: usize = 16;
/// Rows of a part that are left at the least.
const FEWEST_EARLY: u64 = 500;

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
/// [`ErrorKind::Argument`] for no candidates, one twice, sets that share more than 1 % of their rows with `id`, fewer than three classes
/// to hold out of, and stand-ins that no candidate tells apart; [`ErrorKind::Empty`] for sets of fewer than ten rows;
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
    let tuning = Tuning { head, candidates, options, survey, left_out: BTreeMap::new() };
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
        for_each_part(id, &Rows::id(part), seed, |block| {
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
    let name = format!("class {class}");
    Ok(Ground { head: fewer, statistics, id: Box::new(others), sets: vec![(name, Box::new(held))] })
}

/// What is known of the inputs before anything is fitted.
struct Survey {
    id_rows: u64,
    /// How many inputs have each label; `None` where there are inputs without.
    labels: Option<BTreeMap<i64, u64>>,
    /// Name, rows and fingerprint of each set.
    sets: Vec<(String, u64)>,
    fingerprint: u64,
}

impl Survey {
    fn of(
        head: &LinearHead,
        id: &Open<'_>,
        validation: &Validation<'_>,
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut labels = Some(BTreeMap::new());
        let mut see = |block: &crate::features::Block| match (&mut labels, &block.labels) {
            (Some(counts), Some(labels)) => labels.iter().for_each(|label| *counts.entry(*label).or_default() += 1),
            _ => labels = None,
        };
        let (mut witness, id_rows) = watched(head, id, "in-distribution inputs", &mut see, progress)?;
        let needed = Calibration::inputs_needed(options.tpr) as u64;
        let calibrating =
            (0..id_rows).filter(|row| split::part(split::ID, options.seed, *row) == Part::Calibration).count() as u64;
        if calibrating < needed {
            return Err(Error::new(ErrorKind::Calibration, format!("{id_rows} in-distribution inputs"))
                .expected(format!("at least {}: two of ten set the threshold, which takes {needed}", 5 * needed))
                .fix("give more in-distribution inputs"));
        }
        let mut survey = Self { id_rows, labels, sets: Vec::new(), fingerprint: witness.fingerprint() };
        if let Validation::Sets(sets) | Validation::StandIns(sets) = validation {
            if sets.is_empty() {
                return Err(Error::new(ErrorKind::Argument, "none")
                    .argument("validation sets")
                    .expected("at least one"));
            }
            for (name, open) in sets {
                survey.add(head, name, open, &mut witness, progress)?;
            }
        }
        Ok(survey)
    }

    fn add(
        &mut self,
        head: &LinearHead,
        name: &str,
        open: &Open<'_>,
        id: &mut Witness,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if self.sets.iter().any(|(known, _)| known == name) {
            return Err(Error::new(ErrorKind::Argument, format!("'{name}' twice"))
                .argument("validation sets")
                .expected("different names"));
        }
        let (mut witness, rows) = watched(head, open, name, &mut |_| (), progress)?;
        if rows < FEWEST_ROWS {
            return Err(Error::new(ErrorKind::Empty, format!("{rows} row{}", if rows == 1 { "" } else { "s" }))
                .argument(format!("validation set '{name}'"))
                .expected(format!("at least {FEWEST_ROWS}: half of them choose, the others report")));
        }
        let shared = witness.share_in(id);
        if shared > MOST_SHARED {
            return Err(Error::new(
                ErrorKind::Argument,
                format!("{:.1} % of its rows are in-distribution inputs too", 100.0 * shared),
            )
            .argument(format!("validation set '{name}'"))
            .expected("inputs that are none of the in-distribution ones")
            .fix("was the same file given twice?"));
        }
        self.fingerprint = self.fingerprint.rotate_left(7).wrapping_add(witness.fingerprint());
        self.sets.push((name.to_owned(), rows));
        Ok(())
    }

    /// Classes to hold out: chosen by seed from those that have enough inputs.
    fn classes_to_hold_out(&self, head: &LinearHead, folds: usize, seed: u64) -> Result<Vec<i64>> {
        let wrong = |found: String, expected: &str| {
            Err(Error::new(ErrorKind::Argument, found).argument("held-out classes").expected(expected))
        };
        let Some(labels) = &self.labels else {
            return Err(Error::lacking(Missing::Labels, "in-distribution inputs without labels")
                .argument("held-out classes")
                .expected("the class of each input"));
        };
        let fit = |(label, rows): (&i64, &u64)| {
            ((0..head.classes() as i64).contains(label) && *rows >= FEWEST_ROWS).then_some(*label)
        };
        let usable: Vec<i64> = labels.iter().filter_map(fit).collect();
        match (head.classes(), usable.len()) {
            (classes, _) if classes < 3 => {
                return wrong(format!("a head of {classes} classes"), "at least three: two are left without one");
            }
            (_, 0 | 1) => {
                let found = format!("inputs of {} class{}", usable.len(), if usable.len() == 1 { "" } else { "es" });
                return wrong(found, "at least ten inputs of each of two classes of the head");
            }
            _ => {}
        }
        let order = shuffle(usable.len(), seed);
        let mut chosen: Vec<i64> = order.into_iter().take(folds.max(1)).map(|place| usable[place]).collect();
        chosen.sort_unstable();
        Ok(chosen)
    }
}

/// Reads a source once: what is needed to know of its rows, and how many there are.
fn watched(
    head: &LinearHead,
    open: &Open<'_>,
    name: &str,
    see: &mut dyn FnMut(&crate::features::Block),
    progress: &mut dyn Progress,
) -> Result<(Witness, u64)> {
    let mut source = open()?;
    head.check_features(source.units())?;
    let (total, mut rows, mut witness) = (source.rows(), 0, Witness::new(head.classes()));
    for_each_block(&mut *source, |block| {
        witness.see(block);
        see(block);
        rows += block.rows() as u64;
        progress.advance(&format!("looking at {name}"), rows, total);
        Ok(())
    })?;
    Ok((witness, rows))
}

/// A choice that is being made.
struct Tuning<'t> {
    head: &'t Arc<LinearHead>,
    /// The first is the baseline.
    candidates: Vec<Hopeful>,
    options: &'t Options,
    survey: Survey,
    /// Candidates that could not be fitted, and why.
    left_out: BTreeMap<String, String>,
}

/// Candidates by name, each fitted or the reason why not.
type Fitted = Vec<(String, Result<Detector>)>;

/// What choosing came to.
struct Choice {
    /// What was fitted on the way, where it was: nothing where all stages were kept.
    fitted: Option<Fitted>,
    /// Candidates with their loss on choosing rows, best first: those that were compared on all of them, then the others.
    ranking: Vec<Ranked>,
    /// Stand-ins that nobody tells apart.
    dropped: Vec<String>,
    /// Choosing rows.
    id_rows: usize,
}

impl Tuning<'_> {
    /// What the kept stages rest on.
    fn key(&self, validation: &Validation<'_>) -> String {
        let specs: Vec<String> = self.candidates.iter().map(|one| one.spec.to_string()).collect();
        let folds = if let Validation::Classes(folds) = validation { *folds } else { 0 };
        let head = self
            .head
            .weight()
            .iter()
            .chain(self.head.bias().iter())
            .fold(0u64, |sum, weight| sum.rotate_left(5).wrapping_add(u64::from(weight.to_bits())));
        format!(
            "{} {} {folds} {head:x} {:x} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            validation.name(),
            self.survey.fingerprint,
            self.options,
            specs.join(" ; ")
        )
    }

    fn needs(&self) -> Needs {
        self.candidates.iter().fold(Needs::marginals(), |needs, one| needs.and(one.spec.needs()))
    }

    /// Statistics of the training features.
    fn gather(&self, open: &Open<'_>, needs: &Needs, progress: &mut dyn Progress) -> Result<Statistics> {
        progress.advance("gathering", 0, None);
        Statistics::gather(&mut open()?, Some(self.head), needs)
    }

    /// Chooses on one ground, reports on it, and calibrates.
    fn on_ground(
        mut self,
        ground: Ground<'_>,
        stand_ins: bool,
        what: (&'static str, &'static str),
        memo: &mut Memo,
        progress: &mut dyn Progress,
    ) -> Result<Tuned> {
        let mut choice = self.choose(&ground, stand_ins, memo, progress)?;
        let finalists = finalists(&choice)?;
        let detectors = self.detectors(&ground, &finalists, choice.fitted.take(), progress)?;
        let mut parts = Parts { id_choosing: choice.id_rows, ..Parts::default() };
        let setting = self.report_on(&ground, &detectors, &choice.dropped, &mut parts, progress)?;
        let chosen = detectors[0].clone();
        self.conclude(choice, finalists, &[setting], what, parts, (&ground, chosen), progress)
    }

    /// The same where a class is left out at a time.
    #[expect(clippy::too_many_arguments, reason = "one call, of what `tune` was given")]
    fn by_classes<'g>(
        mut self,
        classes: &[i64],
        ground: &dyn Fn(i64, &Needs) -> Result<Ground<'g>>,
        what: (&'static str, &'static str),
        training: &Open<'_>,
        id: &'g Open<'_>,
        memo: &mut Memo,
        progress: &mut dyn Progress,
    ) -> Result<Tuned> {
        let needs = self.needs();
        let (mut stages, mut grounds) = (Vec::new(), Vec::new());
        for class in classes {
            let mut kept = None;
            stages.push(memo.stage(&format!("class {class}"), || {
                let mut ground = ground(*class, &needs)?;
                let fitted = self.fit(&ground, &self.all(), progress)?;
                let stage = self.compare(&ground, &fitted, &self.all(), 0, progress)?;
                // What is fitted holds what it needs: a bank for each class would fill the memory.
                ground.statistics = Statistics::new(ground.head.units(), &Needs::default());
                kept = Some((ground, fitted));
                Ok(stage)
            })?);
            grounds.push(kept);
        }
        let choice = Choice {
            fitted: None,
            ranking: self.rank(&stages, &self.all(), &[]),
            dropped: Vec::new(),
            id_rows: self.choosing_rows(),
        };
        let finalists = finalists(&choice)?;
        let mut parts = Parts { id_choosing: choice.id_rows, ..Parts::default() };
        let needs = finalists.iter().fold(Needs::marginals(), |needs, spec| needs.and(spec.needs()));
        let mut settings = Vec::new();
        for (class, kept) in classes.iter().zip(grounds) {
            let (ground, fitted) = match kept {
                Some((ground, fitted)) => (ground, Some(fitted)),
                None => (ground(*class, &needs)?, None),
            };
            let detectors = self.detectors(&ground, &finalists, fitted, progress)?;
            settings.push(self.report_on(&ground, &detectors, &[], &mut parts, progress)?);
        }
        let statistics = self.gather(training, &needs, progress)?;
        let whole = Ground {
            head: Arc::clone(self.head),
            statistics,
            id: Box::new(move || Ok(Box::new(id()?) as Box<dyn FeatureSource + 'g>)),
            sets: Vec::new(),
        };
        let chosen = self.detectors(&whole, &finalists[..1], None, progress)?.remove(0);
        self.conclude(choice, finalists, &settings, what, parts, (&whole, chosen), progress)
    }

    fn all(&self) -> Vec<usize> {
        (0..self.candidates.len()).collect()
    }

    /// How many in-distribution rows choose.
    fn choosing_rows(&self) -> usize {
        let chooses = |row: &u64| split::part(split::ID, self.options.seed, *row) == Part::Choosing;
        (0..self.survey.id_rows).filter(chooses).count()
    }

    /// Detectors of `specs`, from what was fitted already where it was.
    fn detectors(
        &self,
        ground: &Ground<'_>,
        specs: &[Spec],
        fitted: Option<Fitted>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Detector>> {
        if let Some(fitted) = fitted {
            let known = |spec: &Spec| {
                let detector = fitted.iter().find(|(name, _)| *name == spec.to_string());
                detector.and_then(|(_, detector)| detector.as_ref().ok()).cloned()
            };
            if let Some(all) = specs.iter().map(known).collect() {
                return Ok(all);
            }
        }
        ground.fit(&specs.iter().collect::<Vec<_>>(), self.options, progress)?.into_iter().collect()
    }

    /// Fits the candidates at these places; those that cannot be fitted and need not are left out.
    fn fit(&self, ground: &Ground<'_>, alive: &[usize], progress: &mut dyn Progress) -> Result<Fitted> {
        let specs: Vec<&Spec> = alive.iter().map(|place| &self.candidates[*place].spec).collect();
        let fitted = ground.fit(&specs, self.options, progress)?;
        let mut named = Vec::with_capacity(fitted.len());
        for (place, fitted) in alive.iter().zip(fitted) {
            let candidate = &self.candidates[*place];
            match fitted {
                Err(error) if candidate.required => {
                    return Err(error.argument(format!("detector '{}'", candidate.spec)));
                }
                fitted => named.push((candidate.spec.to_string(), fitted)),
            }
        }
        Ok(named)
    }

    /// Losses and AUROCs of the fitted candidates at the places `alive` on choosing rows, a part `2^-halvings` of them.
    fn compare(
        &self,
        ground: &Ground<'_>,
        fitted: &Fitted,
        alive: &[usize],
        halvings: u32,
        progress: &mut dyn Progress,
    ) -> Result<Stage> {
        let names: Vec<String> = alive.iter().map(|place| self.candidates[*place].spec.to_string()).collect();
        let mut stage = Stage::default();
        let mut usable: Vec<(&String, &Detector)> = Vec::new();
        for (name, one) in fitted.iter().filter(|(name, _)| names.contains(name)) {
            match one {
                Ok(detector) => usable.push((name, detector)),
                Err(error) => drop(stage.left_out.insert(name.clone(), error.to_string())),
            }
        }
        let plan = Plan::nesting(usable.iter().map(|(_, detector)| *detector))?;
        let rows = Rows::id(Part::Choosing).thinned(halvings);
        let id = ground.id_scores(&plan, usable.len(), &rows, self.options, progress)?;
        for (name, open) in &ground.sets {
            let rows = Rows::ood(Part::Choosing).thinned(halvings.min(self.most_halvings(name)));
            let ood = scores(&plan, usable.len(), open, &rows, self.options, progress, name)?;
            for ((name, _), (id, ood)) in usable.iter().zip(id.iter().zip(&ood)) {
                let loss = self.options.loss.measure(id, ood, self.options.at_tpr)?;
                let auroc = 1.0 - Loss::Auroc.measure(id, ood, self.options.at_tpr)?;
                stage.losses.entry((*name).clone()).or_default().push([loss, auroc]);
            }
        }
        Ok(stage)
    }

    /// How often the rows of a set can be halved with enough of them left to compare by.
    fn most_halvings(&self, set: &str) -> u32 {
        let rows = self.survey.sets.iter().find(|(name, _)| name == set).map_or(u64::MAX, |(_, rows)| rows / 2);
        (rows / FEWEST_EARLY).checked_ilog2().unwrap_or(0)
    }

    /// Successive halving (Jamieson and Talwalkar, AISTATS 2016) on one ground.
    fn choose(
        &mut self,
        ground: &Ground<'_>,
        stand_ins: bool,
        memo: &mut Memo,
        progress: &mut dyn Progress,
    ) -> Result<Choice> {
        let (mut alive, mut fitted) = (self.all(), None);
        let most = (self.survey.id_rows * 3 / 10 / FEWEST_EARLY).checked_ilog2().unwrap_or(0);
        let wanted = if alive.len() > MANY { (alive.len() / (MANY / 2)).ilog2() } else { 0 };
        let (mut lost, mut gone) = (Vec::new(), None);
        for halvings in (0..=wanted.min(most)).rev() {
            let part = format!("1/{} of the rows", 1u64 << halvings);
            let stage = memo.stage(&part, || {
                let fitted = match &mut fitted {
                    Some(fitted) => fitted,
                    unset => unset.insert(self.fit(ground, &alive, progress)?),
                };
                self.compare(ground, fitted, &alive, halvings, progress)
            })?;
            if gone.is_none() {
                gone = Some(if stand_ins { not_apart(&stage)? } else { Vec::new() });
            }
            let mut ranking = self.rank(&[stage], &alive, gone.as_deref().unwrap_or_default());
            if halvings > 0 {
                let worse = ranking.split_off(ranking.len().div_ceil(2));
                let (baseline, worse): (Vec<Ranked>, Vec<Ranked>) =
                    worse.into_iter().partition(|one| one.detector == BASELINE);
                ranking.extend(baseline);
                lost.splice(0..0, worse.into_iter().map(|one| Ranked { compared_on: part.clone(), ..one }));
                alive.retain(|place| {
                    let name = self.candidates[*place].spec.to_string();
                    ranking.iter().any(|one| one.detector == name)
                });
            } else {
                lost.splice(0..0, ranking);
            }
        }
        let dropped = gone.unwrap_or_default().into_iter().map(|place| ground.sets[place].0.clone()).collect();
        Ok(Choice { fitted, ranking: lost, dropped, id_rows: self.choosing_rows() })
    }

    /// The candidates at the places `alive` by their mean loss over the sets that are not `gone`, those that were fitted in every stage;
    /// the others are left out.
    fn rank(&mut self, stages: &[Stage], alive: &[usize], gone: &[usize]) -> Vec<Ranked> {
        for stage in stages {
            self.left_out.extend(stage.left_out.clone());
        }
        let mut ranking = Vec::new();
        for place in alive {
            let name = self.candidates[*place].spec.to_string();
            let found: Vec<&Vec<[f64; 2]>> = stages.iter().filter_map(|stage| stage.losses.get(&name)).collect();
            if found.len() < stages.len() {
                continue;
            }
            let losses: Vec<f64> = found
                .iter()
                .flat_map(|sets| sets.iter().enumerate().filter(|(place, _)| !gone.contains(place)))
                .map(|(_, [loss, _])| *loss)
                .collect();
            let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
            ranking.push(Ranked { detector: name, loss, compared_on: "all rows".into() });
        }
        // The sort is stable: of equals the earlier candidate is taken.
        ranking.sort_by(|a, b| a.loss.total_cmp(&b.loss));
        ranking
    }

    /// Scores of the finalists on reporting rows.
    fn report_on(
        &self,
        ground: &Ground<'_>,
        detectors: &[Detector],
        dropped: &[String],
        parts: &mut Parts,
        progress: &mut dyn Progress,
    ) -> Result<Setting> {
        let plan = Plan::new(detectors);
        let id = ground.id_scores(&plan, detectors.len(), &Rows::id(Part::Reporting), self.options, progress)?;
        parts.id_reporting = parts.id_reporting.max(id[0].len());
        let mut setting = Setting { id, sets: Vec::new() };
        for (name, open) in ground.sets.iter().filter(|(name, _)| !dropped.contains(name)) {
            let found =
                scores(&plan, detectors.len(), open, &Rows::ood(Part::Reporting), self.options, progress, name)?;
            let mut choosing = 0;
            for_each_part(open, &Rows::ood(Part::Choosing), self.options.seed, |block| {
                choosing += block.rows();
                Ok(())
            })?;
            parts.sets.push((name.clone(), choosing, found[0].len()));
            setting.sets.push(found);
        }
        Ok(setting)
    }

    /// Intervals, and the chosen detector with its threshold.
    #[expect(clippy::too_many_arguments, reason = "the last step takes what all others made")]
    fn conclude(
        self,
        choice: Choice,
        finalists: Vec<Spec>,
        settings: &[Setting],
        (validation, worth): (&'static str, &'static str),
        mut parts: Parts,
        (ground, chosen): (&Ground<'_>, Detector),
        progress: &mut dyn Progress,
    ) -> Result<Tuned> {
        let options = self.options;
        progress.advance("bootstrap", 0, None);
        let compared =
            Compared::new(settings, options.loss, options.at_tpr, options.replicates, options.level, options.seed);
        let plan = Plan::new([&chosen]);
        let calibration = ground.id_scores(&plan, 1, &Rows::id(Part::Calibration), options, progress)?.remove(0);
        parts.id_calibration = calibration.len();
        for_each_part(&ground.id, &Rows::id(Part::Reference), options.seed, |block| {
            parts.id_reference += block.rows();
            Ok(())
        })?;
        let calibrated = Calibrated::new(chosen, Calibration::new(calibration)?, options.tpr)?;
        let finalist = |(place, spec): (usize, &Spec)| Finalist {
            detector: spec.to_string(),
            loss: compared.losses[place],
            interval: compared.interval(place),
        };
        let difference = |(place, spec): (usize, &Spec)| {
            Difference::new(
                spec.to_string(),
                compared.losses[0] - compared.losses[place],
                compared.difference(0, place),
            )
        };
        let outcome = Outcome {
            validation: validation.into(),
            worth: worth.into(),
            loss: options.loss,
            at_tpr: options.at_tpr,
            level: options.level,
            seed: options.seed,
            chosen: finalists[0].to_string(),
            finalists: finalists.iter().enumerate().map(finalist).collect(),
            differences: finalists.iter().enumerate().skip(1).map(difference).collect(),
            parts,
            ranking: choice.ranking,
            dropped: choice.dropped,
            left_out: self.left_out,
        };
        Ok(Tuned { outcome, head: Arc::clone(self.head), statistics: ground.statistics.clone(), calibrated })
    }
}

/// The chosen detector, the next best one and the baseline, each once.
fn finalists(choice: &Choice) -> Result<Vec<Spec>> {
    let names = choice.ranking.iter().take(2).map(|one| one.detector.as_str()).chain([BASELINE]);
    let mut found: Vec<Spec> = Vec::new();
    for name in names {
        let spec: Spec = name.parse()?;
        if !found.contains(&spec) {
            found.push(spec);
        }
    }
    Ok(found)
}

/// Places of the stand-ins that no candidate tells apart.
fn not_apart(stage: &Stage) -> Result<Vec<usize>> {
    let sets = stage.losses.values().next().map_or(0, Vec::len);
    let best = |set: usize| stage.losses.values().map(|sets| sets[set][1]).fold(0.0, f64::max);
    let gone: Vec<usize> = (0..sets).filter(|set| best(*set) < NOT_APART).collect();
    if gone.len() < sets {
        return Ok(gone);
    }
    Err(Error::new(ErrorKind::Argument, "stand-ins that no candidate tells from in-distribution inputs")
        .argument("validation sets")
        .expected(format!("at least one with an AUROC of {NOT_APART} by some candidate"))
        .fix("distort images more strongly, or give out-of-distribution inputs"))
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
