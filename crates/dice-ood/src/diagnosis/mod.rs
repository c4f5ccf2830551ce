//! What happens inside a network when weights of its head are dropped, and whether that will help.
//!
//! ```text
//! training features --pass 1--> Statistics, class means --> mask at every p, NC1 to NC3
//! ID features (these, or held-out ones) --pass 2--\
//! OOD sets, stand-ins ------------one pass each----+--> Reading: sums by group of rows, scores --> Diagnosis
//! ```
//!
//! Masks nest in p, so a pass gives the logits at every p for the price of one dense product (`ladder`). Every number is a
//! function of sums that merge, kept by group of rows, so that each has a jackknife interval (`estimate`, `reading`).

mod account;
mod anatomy;
mod collapse;
mod estimate;
mod forecast;
mod ladder;
mod reading;
mod report;
mod simulate;
#[cfg(test)]
mod tests;
mod variance;

use std::sync::Arc;

pub use crate::evaluation::Distance;
pub use anatomy::{Ablation, Anatomy, Contributions, Rates, Spread, Watch};
pub use collapse::Collapse;
pub use estimate::Estimate;
pub use forecast::{
    Effect, Expectation, FEWEST, Forecast, Instead, MATERIAL, RELIABLE, Rule, SIGNAL, SIGNED, Tried, effect_of,
};
pub use reading::Profile;
pub use report::{Diagnosis, Kind, Level, MaskAccount, Separation, SetAccount};
pub use simulate::Simulation;
pub use variance::{ClassOutput, Outputs};

use crate::checks::{Witness, refuse_few};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{FeatureSource, Observed, Opening, for_each_block};
use crate::head::LinearHead;
use crate::kernel::Kernel;
use crate::methods::Sparsity;
use crate::progress::Progress;
use crate::spec::{PipelineSpec, Spec};
use crate::statistics::{By, ClassMean, Need, Needs, Space, Statistics};
use crate::training::Training;
use account::{Told, levels, simulate};
use forecast::Evidence;
use ladder::Ladder;
use reading::{Reading, Tally};

/// A named set, opened when its turn has come.
pub struct Sample<'a> {
    name: String,
    kind: Kind,
    distance: Option<Distance>,
    open: Opening<'a>,
}

impl<'a> Sample<'a> {
    /// Out-of-distribution inputs, or [`Kind::StandIn`]s for them. Those of a known distance take part in the forecast.
    pub fn new(
        name: impl Into<String>,
        kind: Kind,
        distance: Option<Distance>,
        open: impl FnOnce() -> Result<Box<dyn FeatureSource + 'a>> + 'a,
    ) -> Self {
        Self { name: name.into(), kind, distance, open: Box::new(open) }
    }
}

/// Finds out what pruning does inside a network.
///
/// ```
/// # use std::sync::Arc;
/// # use dice_ood::{ArraySource, LinearHead};
/// # use dice_ood::diagnosis::{Diagnose, Distance, Effect, Kind, Sample};
/// # use ndarray::Array2;
/// # let head = Arc::new(LinearHead::from_rows(vec![1.0, -0.2, 0.1, -0.1, 1.5, 0.2], vec![0.0, 0.0], 3)?);
/// # let some = |phase: f32| Array2::from_shape_fn((99, 3), |(row, unit)| 1.0 + (row as f32 + 2.0 * unit as f32 + phase).sin());
/// # let (features, photographs) = (some(0.0), some(0.5) * 0.3);
/// let training = || Ok(Box::new(ArraySource::new(features.view())) as Box<dyn dice_ood::FeatureSource>);
/// let far = || Ok(Box::new(ArraySource::new(photographs.view())) as Box<dyn dice_ood::FeatureSource>);
/// let found = Diagnose::new(head, "dice(0.5) | energy".parse()?)?
///     .sample(Sample::new("photographs", Kind::OutOfDistribution, Some(Distance::Far), far))
///     .run(&training)?;
/// assert!(found.sets[1].separation.is_some() && found.forecast.far.effect != Effect::CannotTell);
/// # Ok::<(), dice_ood::Error>(())
/// ```
pub struct Diagnose<'a> {
    head: Arc<LinearHead>,
    spec: PipelineSpec,
    id: Option<Sample<'a>>,
    samples: Vec<Sample<'a>>,
    simulate: Option<u64>,
    progress: Box<dyn Progress + 'a>,
}

impl<'a> Diagnose<'a> {
    /// A diagnosis of `spec`, `[shaping |] sparsity | energy`, on `head`.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for a spec that prunes nothing, or whose score is not the energy.
    pub fn new(head: Arc<LinearHead>, spec: Spec) -> Result<Self> {
        let fits = |spec: &&PipelineSpec| spec.stem.sparsity.is_some() && is_energy(spec);
        match spec.as_pipeline().filter(fits) {
            Some(pipeline) => Ok(Self {
                head,
                spec: pipeline.clone(),
                id: None,
                samples: Vec::new(),
                simulate: None,
                progress: Box::new(()),
            }),
            None => Err(Error::new(ErrorKind::Argument, format!("'{spec}'"))
                .argument("detector")
                .expected("[SHAPING |] SPARSITY | energy, such as 'dice(0.9) | energy': one that prunes the head")),
        }
    }

    /// Takes in-distribution inputs for all that is not fitted, in place of the training features: inputs that the network has
    /// not seen, as it is surer of those that it was trained on.
    #[must_use]
    pub fn in_distribution(
        mut self,
        name: impl Into<String>,
        open: impl FnOnce() -> Result<Box<dyn FeatureSource + 'a>> + 'a,
    ) -> Self {
        self.id = Some(Sample::new(name, Kind::InDistribution, None, open));
        self
    }

    /// Adds a set to compare with.
    #[must_use]
    pub fn sample(mut self, sample: Sample<'a>) -> Self {
        self.samples.push(sample);
        self
    }

    /// Also simulates the lemma, from this seed.
    #[must_use]
    pub fn simulate(mut self, seed: u64) -> Self {
        self.simulate = Some(seed);
        self
    }

    /// Reports how far the diagnosis is.
    #[must_use]
    pub fn progress(mut self, progress: impl Progress + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Diagnoses from training features `[N, D]`, with labels where the source has them. They are opened once, and a second time
    /// where no other in-distribution inputs were given.
    ///
    /// # Errors
    /// What reading meets; [`ErrorKind::Shape`] for another D than the head's; [`ErrorKind::NotFinite`]; [`ErrorKind::Argument`]
    /// for labels that are no classes of the head, two sets of one name, an out-of-distribution set whose rows are in-distribution
    /// inputs, and masks that do not nest in p; [`ErrorKind::Empty`] for a set of fewer than ten rows; those of fitting.
    pub fn run(mut self, training: &'a (dyn Fn() -> Result<Box<dyn FeatureSource + 'a>> + 'a)) -> Result<Diagnosis> {
        self.check_names()?;
        let mut known = Witness::new(self.head.classes());
        let mut source = Observed::new(training()?, |block| {
            known.see(block);
            Ok(())
        });
        let gathered = Gathered::of(&mut source, &self.head, self.spec.needs(), &mut *self.progress)?;
        drop(source);
        let on = Training::new(&self.head, &gathered.statistics)?;
        let shaper = self.spec.stem.shaping.as_ref().map(|shaping| shaping.fit(&on)).transpose()?;
        let Some(sparsity) = &self.spec.stem.sparsity else {
            return Err(Error::new(ErrorKind::Argument, "no sparsity").argument("detector"));
        };
        let ladder = Ladder::new(&on, shaper, sparsity)?;
        let moment = gathered.statistics.second_moment(Space::Features)?;
        let mut collapse = Collapse::measure(&self.head, &gathered.means, &moment, gathered.by_label)?;
        let nearest = collapse::nearest(&self.head, &gathered.means)?;
        let id = self.id.take().unwrap_or_else(|| Sample {
            name: "training".into(),
            kind: Kind::InDistribution,
            distance: None,
            open: Box::new(training),
        });
        let samples: Vec<Sample<'a>> = std::iter::once(id).chain(std::mem::take(&mut self.samples)).collect();
        let mut read = Vec::with_capacity(samples.len());
        for sample in samples {
            read.push(self.read(sample, &ladder, nearest.as_ref(), &mut known)?);
        }
        let (_, id) = &read[0];
        collapse.not_nearest = id.nearest.map(|same| 1.0 - same as f64 / id.rows.iter().sum::<u64>() as f64);
        let sets = read.iter().map(|(told, reading)| told.account(reading, id, &ladder)).collect::<Result<Vec<_>>>()?;
        let simulation = self.simulate.map(|seed| simulate(&ladder, id, seed)).transpose()?;
        Ok(Diagnosis {
            detector: self.spec.to_string(),
            forecast: self.evidence(&gathered.tally.profile(), &sets).forecast(),
            classes: self.head.classes(),
            units: self.head.units(),
            training: gathered.tally.profile(),
            mask: MaskAccount::of(&ladder, &gathered.statistics),
            collapse,
            sensitivity: levels(&ladder, &gathered.statistics, &read)?,
            sets,
            simulation,
        })
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = std::collections::HashSet::new();
        match self.samples.iter().find(|sample| !seen.insert(&*sample.name)) {
            None => Ok(()),
            Some(twice) => Err(Error::new(ErrorKind::Argument, format!("'{}' twice", twice.name))
                .argument("sets")
                .expected("different names")),
        }
    }

    /// Reads a set whole. `known` are the in-distribution inputs so far.
    fn read(
        &mut self,
        sample: Sample<'a>,
        ladder: &Ladder,
        nearest: Option<&Kernel>,
        known: &mut Witness,
    ) -> Result<(Told, Reading)> {
        let is_id = sample.kind == Kind::InDistribution;
        let mut own = Witness::new(self.head.classes());
        let seen = if is_id { &mut *known } else { &mut own };
        let mut source = Observed::new((sample.open)()?, |block| {
            seen.see(block);
            Ok(())
        });
        let means = nearest.filter(|_| is_id);
        let told = Told { name: sample.name, kind: sample.kind, distance: sample.distance };
        let reading = Reading::of(&mut source, ladder, is_id, means, ("reading", &mut *self.progress))
            .map_err(|error| error.file(&told.name))?;
        drop(source);
        let named = |error: Error| error.argument(format!("set '{}'", told.name));
        refuse_few(reading.tally.profile().rows, "how scores vary cannot be told from fewer").map_err(named)?;
        // What a network does not see of a distortion leaves the row as it was.
        if told.kind == Kind::OutOfDistribution {
            own.refuse_shared(known).map_err(named)?;
        }
        Ok((told, reading))
    }

    fn evidence(&self, training: &Profile, sets: &[SetAccount]) -> Evidence {
        let gains = |kind: Kind| {
            let own = sets.iter().filter(|set| set.kind == kind);
            own.filter_map(|set| Some((set.distance?, set.separation?.gain.value))).collect()
        };
        let sparsity = self.spec.stem.sparsity.as_ref();
        Evidence {
            negative: training.negative,
            signal: sets[0].signal.value,
            dice: sparsity.filter(|step| plain_dice(&self.spec, step)).and_then(|step| step.level()),
            measured: gains(Kind::OutOfDistribution),
            stand_ins: gains(Kind::StandIn),
        }
    }
}

/// Whether it is `dice(p)` as in the paper, and nothing shapes the features: what rules were tried with.
fn plain_dice(spec: &PipelineSpec, sparsity: &Arc<dyn Sparsity>) -> bool {
    spec.stem.shaping.is_none() && sparsity.card().name == "dice" && sparsity.arguments().printed().count() == 1
}

/// Whether the score is the energy at temperature 1.
fn is_energy(spec: &PipelineSpec) -> bool {
    spec.score.card().name == "energy" && spec.score.arguments().real("temperature") == 1.0
}

/// What the pass over the training features gathers.
struct Gathered {
    statistics: Statistics,
    tally: Tally,
    /// Of the classes that have rows.
    means: Vec<ClassMean>,
    by_label: bool,
}

impl Gathered {
    /// Labels are used where the first block has them.
    fn of(
        source: &mut dyn FeatureSource,
        head: &LinearHead,
        needs: Needs,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        head.check_features(source.units())?;
        let total = source.rows();
        let (mut tally, mut found) = (Tally::default(), None);
        for_each_block(source, |block| {
            let (statistics, _) = match &mut found {
                Some(found) => found,
                slot => {
                    let by = if block.labels.is_some() { By::Label } else { By::Prediction };
                    let own = [Need::SecondMoment(Space::Features), Need::Classes(by, Space::Features)];
                    slot.insert((Statistics::of_head(head, &needs.clone().and(Needs::of(own)))?, by))
                }
            };
            statistics.update_block(block)?;
            tally.see(block);
            progress.advance("gathering", statistics.rows(), total);
            Ok(())
        })?;
        let Some((statistics, by)) = found else {
            return Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row"));
        };
        let means = statistics.class_means(by, Space::Features)?;
        if let Some(other) = means.iter().find(|mean| !(0..head.classes() as i64).contains(&mean.class)) {
            return Err(Error::new(ErrorKind::Argument, format!("label {}", other.class))
                .tensor("labels")
                .expected(format!("classes of the head, 0 to {}", head.classes() - 1)));
        }
        Ok(Self { statistics, tally, means, by_label: by == By::Label })
    }
}
