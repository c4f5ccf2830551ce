//! The choice: candidates halved on choosing rows, finalists measured on reporting rows, the threshold set on others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ground::{Ground, Selection, for_each_part, scores};
use super::memo::{Memo, Stage};
use super::outcome::{Difference, Finalist, Outcome, Parts, Ranked, Tuned};
use super::split::{self, Part};
use super::survey::Survey;
use super::{BASELINE, Hopeful, Open, Options, Validation};
use crate::artifact::Calibrated;
use crate::calibration::Calibration;
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::features::FeatureSource;
use crate::head::LinearHead;
use crate::metrics::{Compared, Loss, Setting};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};

/// A stand-in that no candidate tells from in-distribution inputs better than this (AUROC) is none: the network may be invariant to
/// what was done to it.
const NOT_APART: f64 = 0.6;
/// More candidates than this are compared on few rows first.
const MANY: usize = 16;
/// Rows of a part that are left at the least.
const FEWEST_EARLY: u64 = 500;

/// A choice that is being made.
pub(super) struct Tuning<'t> {
    pub(super) head: &'t Arc<LinearHead>,
    /// The first is the baseline.
    pub(super) candidates: Vec<Hopeful>,
    pub(super) options: &'t Options,
    pub(super) survey: Survey,
    /// Candidates that could not be fitted, and why.
    pub(super) left_out: BTreeMap<String, String>,
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

/// What successive halving came to.
struct Halved {
    ranking: Vec<Ranked>,
    /// Places of the stand-ins that nobody tells apart.
    gone: Vec<usize>,
}

/// Compares candidates on a part of the choosing rows.
type Compare<'c> = dyn FnMut(&Tuning<'_>, &str, &[usize], u32) -> Result<Vec<Stage>> + 'c;

impl Tuning<'_> {
    /// What the kept stages rest on.
    pub(super) fn key(&self, validation: &Validation<'_>) -> String {
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

    pub(super) fn needs(&self) -> Needs {
        self.candidates.iter().fold(Needs::marginals(), |needs, one| needs.and(one.spec.needs()))
    }

    /// Statistics of the training features.
    pub(super) fn gather(&self, open: &Open<'_>, needs: &Needs, progress: &mut dyn Progress) -> Result<Statistics> {
        progress.advance("gathering", 0, None);
        Statistics::gather(&mut open()?, Some(self.head), needs)
    }

    /// Chooses on one ground, reports on it, and calibrates.
    pub(super) fn on_ground(
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
    pub(super) fn by_classes<'g>(
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
        let mut grounds: Vec<Option<(Ground<'g>, Fitted)>> = classes.iter().map(|_| None).collect();
        let halved = self.halve(false, &mut |tuning, part, alive, halvings| {
            let stage = |(class, kept): (&i64, &mut Option<(Ground<'g>, Fitted)>)| {
                memo.stage(&format!("class {class}, {part}"), || {
                    let (ground, fitted) = match kept {
                        Some(kept) => kept,
                        unset => {
                            let mut ground = ground(*class, &needs)?;
                            let fitted = tuning.fit(&ground, alive, progress)?;
                            // What is fitted holds what it needs: a bank for each class would fill the memory.
                            ground.statistics = Statistics::new(ground.head.units(), &Needs::default());
                            unset.insert((ground, fitted))
                        }
                    };
                    tuning.compare(ground, fitted, alive, halvings, progress)
                })
            };
            classes.iter().zip(&mut grounds).map(stage).collect()
        })?;
        let choice =
            Choice { fitted: None, ranking: halved.ranking, dropped: Vec::new(), id_rows: self.choosing_rows() };
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
        let rows = Selection::id(Part::Choosing).thinned(halvings);
        let id = ground.id_scores(&plan, usable.len(), &rows, self.options, progress)?;
        for (name, open) in &ground.sets {
            let rows = Selection::ood(Part::Choosing).thinned(halvings.min(self.most_halvings(name)));
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

    /// Chooses on one ground.
    fn choose(
        &mut self,
        ground: &Ground<'_>,
        stand_ins: bool,
        memo: &mut Memo,
        progress: &mut dyn Progress,
    ) -> Result<Choice> {
        let mut fitted = None;
        let halved = self.halve(stand_ins, &mut |tuning, part, alive, halvings| {
            let stage = memo.stage(part, || {
                let fitted = match &mut fitted {
                    Some(fitted) => fitted,
                    unset => unset.insert(tuning.fit(ground, alive, progress)?),
                };
                tuning.compare(ground, fitted, alive, halvings, progress)
            })?;
            Ok(vec![stage])
        })?;
        let dropped = halved.gone.into_iter().map(|place| ground.sets[place].0.clone()).collect();
        Ok(Choice { fitted, ranking: halved.ranking, dropped, id_rows: self.choosing_rows() })
    }

    /// Successive halving (Jamieson and Talwalkar, AISTATS 2016). `compare` is told which part of the choosing rows, as words and as
    /// halvings, and the places of the candidates that are left, and gives a stage for each ground.
    fn halve(&mut self, stand_ins: bool, compare: &mut Compare<'_>) -> Result<Halved> {
        let mut alive = self.all();
        let most = (self.survey.id_rows * 3 / 10 / FEWEST_EARLY).checked_ilog2().unwrap_or(0);
        let wanted = if alive.len() > MANY { (alive.len() / (MANY / 2)).ilog2() } else { 0 };
        let (mut lost, mut gone) = (Vec::new(), None);
        for halvings in (0..=wanted.min(most)).rev() {
            let part = format!("1/{} of the rows", 1u64 << halvings);
            let stages = compare(self, &part, &alive, halvings)?;
            if gone.is_none() {
                gone = Some(if stand_ins { not_apart(&stages[0])? } else { Vec::new() });
            }
            let mut ranking = self.rank(&stages, &alive, gone.as_deref().unwrap_or_default());
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
        Ok(Halved { ranking: lost, gone: gone.unwrap_or_default() })
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
        let id = ground.id_scores(&plan, detectors.len(), &Selection::id(Part::Reporting), self.options, progress)?;
        parts.id_reporting = parts.id_reporting.max(id[0].len());
        let mut setting = Setting { id, sets: Vec::new() };
        for (name, open) in ground.sets.iter().filter(|(name, _)| !dropped.contains(name)) {
            let found =
                scores(&plan, detectors.len(), open, &Selection::ood(Part::Reporting), self.options, progress, name)?;
            let mut choosing = 0;
            for_each_part(open, &Selection::ood(Part::Choosing), self.options.seed, |block| {
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
        let calibration = ground.id_scores(&plan, 1, &Selection::id(Part::Calibration), options, progress)?.remove(0);
        parts.id_calibration = calibration.len();
        for_each_part(&ground.id, &Selection::id(Part::Reference), options.seed, |block| {
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
