//! What pruning does to sets that are read for another purpose: their blocks are looked at as they pass.
//!
//! ```text
//! source --Watch::over--> the same blocks, for an evaluation
//!              |
//!              +--> Reading by the detector's ladder, and by one ladder for each ablation --finish--> Anatomy
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array2, ArrayView2};
use serde::Serialize;

use super::account::{Told, accuracy, levels, rates};
use super::ladder::Ladder;
use super::reading::{Reading, labels_of};
use super::report::{Kind, Level, MaskAccount, SetAccount};
use super::variance::mean_and_variance;
use super::{Estimate, is_energy};
use crate::error::{Error, ErrorKind, Result};
use crate::evaluation::SetLabel;
use crate::features::{Block, FeatureSource, Observed};
use crate::head::LinearHead;
use crate::spec::{PipelineSpec, Spec};
use crate::statistics::Statistics;
use crate::training::Training;

/// The sparsities of the paper's ablations, each with the seeds that it is drawn from.
const ABLATIONS: [(&str, u64); 4] = [("weight-drop", 5), ("unit-drop", 5), ("weight-prune", 0), ("unit-prune", 0)];

/// Looks at sets while something else reads them, the in-distribution inputs first.
///
/// ```
/// # use std::sync::Arc;
/// # use dice_ood::{ArraySource, LinearHead, Statistics, Needs, for_each_block};
/// # use dice_ood::diagnosis::{Kind, Watch};
/// # use ndarray::Array2;
/// # let head = Arc::new(LinearHead::from_rows(vec![1.0, -0.2, 0.1, -0.1, 1.5, 0.2], vec![0.0, 0.0], 3)?);
/// # let some = |phase: f32| Array2::from_shape_fn((99, 3), |(row, unit)| 1.0 + (row as f32 + 2.0 * unit as f32 + phase).sin());
/// # let (test, photographs) = (some(0.0), some(0.5) * 0.3);
/// # let mut statistics = Statistics::new(3, &Needs::default());
/// # statistics.update(test.view())?;
/// let watch = Watch::new(&head, &statistics, &"dice(0.5) | energy".parse()?, true)?;
/// for (name, kind, rows) in [("test", Kind::InDistribution, &test), ("photographs", Kind::OutOfDistribution, &photographs)] {
///     let source = Box::new(ArraySource::new(rows.view()));
///     for_each_block(&mut watch.over(&name.into(), kind, source), |_| Ok(()))?;
/// }
/// let found = watch.finish()?;
/// assert_eq!((found.contributions.order.len(), found.sets.len()), (3, 2));
/// # Ok::<(), dice_ood::Error>(())
/// ```
pub struct Watch<'a> {
    spec: PipelineSpec,
    statistics: &'a Statistics,
    ladder: Ladder,
    /// What the detector's sparsity is compared with: its name, the seed that its mask was drawn from, its masks.
    others: Vec<(&'static str, Option<u64>, Ladder)>,
    seen: Mutex<Seen>,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// By set; the first ladder's reading, then those of the others.
    sets: Vec<(Told, Vec<Reading>)>,
    /// Why there is nothing to tell.
    failed: Option<Error>,
}

/// What pruning does inside a network, as figures are drawn from it. Energies decide everywhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Anatomy {
    /// The detector that it is about.
    pub detector: String,
    /// Whether the detector's score is the energy: else the levels are those of the energy with its shaping and sparsity.
    pub by_energy: bool,
    /// What the mask keeps.
    pub mask: MaskAccount,
    /// The kept weights `[C, D]`.
    #[serde(skip)]
    pub kept: Array2<bool>,
    /// What units contribute to the output of one class.
    pub contributions: Contributions,
    /// Every set, the in-distribution inputs first.
    pub sets: Vec<SetAccount>,
    /// The detector's sparsity at several p, ascending; the first is the dense head.
    pub levels: Vec<Level>,
    /// What else weights could be dropped by.
    pub ablations: Vec<Ablation>,
}

/// What units contribute to the output of one class: weight times what the pruned head reads of the unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contributions {
    /// The class whose output's variance on the in-distribution inputs falls by the median of all classes.
    pub class: usize,
    /// The units, the largest mean contribution on the in-distribution inputs first.
    pub order: Vec<usize>,
    /// Whether the detector keeps each, in that order.
    pub kept: Vec<bool>,
    /// Each set, in that order of units.
    pub sets: Vec<Spread>,
}

/// Mean and standard deviation of the contribution of each unit over a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The set.
    pub name: String,
    /// The means.
    pub mean: Vec<f64>,
    /// The standard deviations.
    pub deviation: Vec<f64>,
}

/// Another way to drop the same share of weights or units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ablation {
    /// The sparsity.
    pub name: &'static str,
    /// What its mask was drawn from, where it is drawn.
    pub seed: Option<u64>,
    /// What it does at several p, ascending.
    pub levels: Vec<Rates>,
}

/// What a sparsity does, on average over the sets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Share of the weights or units dropped.
    pub p: f64,
    /// Mean over sets of the share accepted where 95 % of the in-distribution inputs are.
    pub fpr: f64,
    /// Mean over sets of AUROC.
    pub auroc: f64,
    /// Accuracy, where there are labels.
    pub accuracy: Option<f64>,
}

impl<'a> Watch<'a> {
    /// A watch on what `spec` prunes of `head` `[C, D]`, fitted to `statistics`; where wanted also on the ablations of the paper,
    /// each at the same sparsities and for five seeds where it is drawn.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for a spec that prunes nothing and for a combination; those of fitting.
    pub fn new(head: &Arc<LinearHead>, statistics: &'a Statistics, spec: &Spec, ablations: bool) -> Result<Self> {
        let pruning = |spec: &Spec| spec.as_pipeline().filter(|spec| spec.stem.sparsity.is_some()).cloned();
        let spec = pruning(spec).ok_or_else(|| {
            Error::new(ErrorKind::Argument, format!("'{spec}'"))
                .argument("detector")
                .expected("one that prunes the head")
        })?;
        let on = Training::new(head, statistics)?;
        let ladder = |spec: &PipelineSpec| -> Result<Ladder> {
            let shaper = spec.stem.shaping.as_ref().map(|shaping| shaping.fit(&on)).transpose()?;
            match &spec.stem.sparsity {
                Some(sparsity) => Ladder::new(&on, shaper, sparsity),
                None => Err(Error::new(ErrorKind::Argument, "no sparsity").argument("detector")),
            }
        };
        let own = ladder(&spec)?;
        let p = own.rungs[own.asked].p;
        let mut others = Vec::new();
        for (name, seeds) in ABLATIONS.into_iter().filter(|_| ablations) {
            for seed in 0..seeds.max(1) {
                let drawn = seeds > 0;
                let arguments = if drawn { format!("{p}, seed={seed}") } else { p.to_string() };
                let mut other = spec.clone();
                other.stem.sparsity =
                    pruning(&format!("{name}({arguments}) | energy").parse()?).and_then(|it| it.stem.sparsity);
                others.push((name, drawn.then_some(seed), ladder(&other)?));
            }
        }
        Ok(Self { ladder: own, spec, statistics, others, seen: Mutex::default() })
    }

    /// The same blocks, seen as they are read. Rows that are not finite are passed over; what cannot be told for another reason is
    /// an error of [`Watch::finish`], not of reading.
    pub fn over<'s>(
        &'s self,
        label: &SetLabel,
        kind: Kind,
        source: Box<dyn FeatureSource + 's>,
    ) -> Box<dyn FeatureSource + 's> {
        let told = Told { name: label.name.clone(), kind, distance: label.distance };
        let readings = self.ladders().map(Reading::new).collect();
        let place = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.sets.push((told, readings));
            seen.sets.len() - 1
        };
        Box::new(Observed::new(source, move |block: &mut Block| {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.failed.is_none() {
                let outcome = self.see(&mut seen.sets[place], block);
                seen.failed = outcome.err();
            }
            Ok(())
        }))
    }

    /// The detector's own, then those of the ablations.
    fn ladders(&self) -> impl Iterator<Item = &Ladder> {
        std::iter::once(&self.ladder).chain(self.others.iter().map(|(.., ladder)| ladder))
    }

    fn see(&self, (told, readings): &mut (Told, Vec<Reading>), block: &Block) -> Result<()> {
        self.ladder.head.check_features(block.units)?;
        let finite = finite(block);
        let block = finite.as_ref().unwrap_or(block);
        let labels = match told.kind {
            Kind::InDistribution => labels_of(block, self.ladder.head.classes())?,
            Kind::OutOfDistribution | Kind::StandIn => None,
        };
        for (reading, ladder) in readings.iter_mut().zip(self.ladders()) {
            reading.add(block, ladder, labels, None)?;
        }
        Ok(())
    }

    /// What was seen.
    ///
    /// # Errors
    /// [`ErrorKind::NotFinite`] for a row of finite values whose energy is not, [`ErrorKind::Argument`] for labels that are no
    /// classes of the head, [`ErrorKind::Empty`] where a set had no finite row.
    pub fn finish(self) -> Result<Anatomy> {
        let Seen { sets, failed } = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failed {
            return Err(error);
        }
        let empty = |readings: &[Reading]| readings[0].rows.iter().sum::<u64>() == 0;
        if sets.is_empty() || sets.iter().any(|(_, readings)| empty(readings)) {
            return Err(Error::new(ErrorKind::Empty, "no finite rows")
                .tensor("features")
                .expected("at least one in each set"));
        }
        // By ladder: the readings of all sets.
        let mut by_ladder: Vec<Vec<(Told, Reading)>> = (0..=self.others.len()).map(|_| Vec::new()).collect();
        for (told, readings) in sets {
            for (read, reading) in by_ladder.iter_mut().zip(readings) {
                read.push((told.clone(), reading));
            }
        }
        let (ladder, read) = (&self.ladder, &by_ladder[0]);
        let accounts = read.iter().map(|(told, reading)| told.account(reading, &read[0].1, ladder));
        let accounts = accounts.collect::<Result<Vec<_>>>()?;
        let ablations = self.others.iter().zip(&by_ladder[1..]);
        Ok(Anatomy {
            detector: self.spec.to_string(),
            by_energy: is_energy(&self.spec),
            mask: MaskAccount::of(ladder, self.statistics),
            kept: ladder.mask().kept().to_owned(),
            contributions: Contributions::of(ladder, read, &accounts[0]),
            sets: accounts,
            levels: levels(ladder, self.statistics, read)?,
            ablations: ablations
                .map(|((name, seed, ladder), read)| Ok(Ablation { name, seed: *seed, levels: averages(ladder, read)? }))
                .collect::<Result<_>>()?,
        })
    }
}

impl SetAccount {
    /// What pruning does to the outputs of the features that the detector's head reads.
    pub fn pruned_outputs(&self) -> &super::Outputs {
        self.outputs_shaped.as_ref().unwrap_or(&self.outputs)
    }
}

impl Contributions {
    fn of(ladder: &Ladder, read: &[(Told, Reading)], id: &SetAccount) -> Self {
        let class = median(&id.pruned_outputs().classes.iter().map(|class| class.reduction).collect::<Vec<_>>());
        let spreads: Vec<Spread> =
            read.iter().map(|(told, reading)| Spread::of(told, reading, ladder, class)).collect();
        let mut order: Vec<usize> = (0..ladder.head.units()).collect();
        order.sort_by(|a, b| spreads[0].mean[*b].total_cmp(&spreads[0].mean[*a]));
        let kept: ArrayView2<'_, bool> = ladder.mask().kept();
        let sorted = |values: &[f64]| order.iter().map(|unit| values[*unit]).collect();
        Self {
            class,
            kept: order.iter().map(|unit| kept[(class, *unit)]).collect(),
            sets: spreads
                .iter()
                .map(|spread| Spread {
                    name: spread.name.clone(),
                    mean: sorted(&spread.mean),
                    deviation: sorted(&spread.deviation),
                })
                .collect(),
            order,
        }
    }
}

impl Spread {
    /// By unit, in the order of the head.
    fn of(told: &Told, reading: &Reading, ladder: &Ladder, class: usize) -> Self {
        let rows = reading.rows.iter().sum::<u64>() as f64;
        let sums = reading.units[ladder.stages() - 1].without(None);
        let (plain, squares) = sums.split_at(ladder.head.units());
        let weights = ladder.head.weight();
        let parts = plain.iter().zip(squares).zip(weights.row(class)).map(|((sum, square), weight)| {
            let ((mean, variance), weight) = (mean_and_variance(*sum, *square, rows), f64::from(*weight));
            (weight * mean, weight.abs() * variance.sqrt())
        });
        let (mean, deviation) = parts.unzip();
        Self { name: told.name.clone(), mean, deviation }
    }
}

/// The place of the median.
fn median(values: &[Estimate]) -> usize {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|a, b| values[*a].value.total_cmp(&values[*b].value));
    places[(places.len() - 1) / 2]
}

/// Means over the other sets at every rung; none where there are no others.
fn averages(ladder: &Ladder, read: &[(Told, Reading)]) -> Result<Vec<Rates>> {
    if read.len() < 2 {
        return Ok(Vec::new());
    }
    let level = |(place, rung): (usize, &super::ladder::Rung)| {
        // The first rung is the dense head, which reads the features as they are.
        let stage = if place == 0 { 0 } else { ladder.stages() - 1 };
        let found = rates(read, stage, place)?;
        let sets = found.len() as f64;
        let id = &read[0].1;
        Ok(Rates {
            p: rung.p,
            fpr: found.iter().map(|set| set.fpr_at_tpr).sum::<f64>() / sets,
            auroc: found.iter().map(|set| set.auroc).sum::<f64>() / sets,
            accuracy: accuracy(id, &id.readouts[stage][place]),
        })
    };
    ladder.rungs.iter().enumerate().map(level).collect()
}

/// The rows of a block that are finite; `None` where all are.
fn finite(block: &Block) -> Option<Block> {
    if block.features.iter().all(|value| value.is_finite()) {
        return None;
    }
    let rows = || block.features.chunks_exact(block.units.max(1)).enumerate();
    let fine: Vec<usize> =
        rows().filter(|(_, row)| row.iter().all(|value| value.is_finite())).map(|(place, _)| place).collect();
    Some(Block {
        features: fine.iter().flat_map(|row| &block.features[row * block.units..][..block.units]).copied().collect(),
        units: block.units,
        labels: block.labels.as_ref().map(|labels| fine.iter().map(|row| labels[*row]).collect()),
        row_numbers: Some(fine.iter().map(|row| block.row_number(*row)).collect()),
        origin: Arc::clone(&block.origin),
        ..Block::default()
    })
}
