//! Readings of sets as numbers.

use super::estimate::{Estimate, Sums, auroc_gain, folds, jackknife};
use super::ladder::{Ladder, Rung};
use super::reading::{Reading, Readout};
use super::report::{Kind, Level, MaskAccount, Separation, SetAccount};
use super::simulate::{Simulation, Units};
use super::variance::{Outputs, mean_and_variance};
use crate::error::Result;
use crate::evaluation::Distance;
use crate::mask::contribution;
use crate::metrics::{Curve, Metrics};
use crate::salience::{NEAR_SILENT, Salience};
use crate::statistics::Statistics;

/// The TPR at which FPR is taken.
const TPR: f64 = 0.95;
/// Inputs drawn to simulate the lemma.
const DRAWS: usize = 2000;

/// What a set is called, and what was said of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) distance: Option<Distance>,
}

impl Told {
    /// What the detector does to the set; `id` is the reading of the in-distribution inputs.
    pub(super) fn account(&self, reading: &Reading, id: &Reading, ladder: &Ladder) -> Result<SetAccount> {
        let (before, after) = (dense(reading), asked(reading, ladder));
        let rows = reading.tally.profile().rows as f64;
        let is_id = self.kind == Kind::InDistribution;
        Ok(SetAccount {
            name: self.name.clone(),
            kind: self.kind,
            distance: self.distance,
            features: reading.tally.profile(),
            outputs: Outputs::of(reading, ladder, 0),
            outputs_shaped: (ladder.stages() > 1).then(|| Outputs::of(reading, ladder, 1)),
            signal: signal(reading, after),
            energy_before: mean_and_deviation(&before.scores),
            energy_after: mean_and_deviation(&after.scores),
            class_changed: 1.0 - after.agree as f64 / rows,
            accuracy: accuracy(reading, before).zip(accuracy(reading, after)),
            separation: if is_id { None } else { Some(separation((before, after), id, ladder)?) },
        })
    }
}

/// What the dense head makes of the features as they are.
fn dense(reading: &Reading) -> &Readout {
    &reading.readouts[0][0]
}

/// What the detector makes of them.
fn asked<'a>(reading: &'a Reading, ladder: &Ladder) -> &'a Readout {
    &reading.readouts[ladder.stages() - 1][ladder.asked]
}

pub(super) fn accuracy(reading: &Reading, readout: &Readout) -> Option<f64> {
    (reading.labelled > 0).then(|| readout.correct as f64 / reading.labelled as f64)
}

fn separation((before, after): (&Readout, &Readout), id: &Reading, ladder: &Ladder) -> Result<Separation> {
    let (id_before, id_after) = (&dense(id).scores, &asked(id, ladder).scores);
    let of = |id: &[f64], ood: &[f64]| Ok(Curve::new(id, ood)?.metrics(TPR));
    let (was, is) = (of(id_before, &before.scores)?, of(id_after, &after.scores)?);
    Ok(Separation {
        auroc_before: was.auroc,
        auroc_after: is.auroc,
        gain: auroc_gain((id_before, &before.scores), (id_after, &after.scores))?,
        fpr_before: was.fpr_at_tpr,
        fpr_after: is.fpr_at_tpr,
    })
}

/// The log of the ratio of two own-logit signal-to-noise ratios: that of `readout` over that of the dense head. Minus infinity
/// where the logit is not positive on average any more; NaN where it never was.
fn signal(reading: &Reading, readout: &Readout) -> Estimate {
    let folds = folds(&reading.rows);
    let total = reading.rows.iter().sum::<u64>();
    let ratio = |sums: &Sums, fold: Option<usize>, rows: f64| {
        let sums = sums.without(fold);
        let (mean, variance) = mean_and_variance(sums[0], sums[1], rows);
        mean / variance.sqrt()
    };
    let logs = folds.iter().map(|(fold, left)| {
        let rows = (total - left) as f64;
        let (before, after) = (ratio(&dense(reading).own, *fold, rows), ratio(&readout.own, *fold, rows));
        if before > 0.0 { (after.max(0.0) / before).ln() } else { f64::NAN }
    });
    jackknife(&folds, &logs.collect::<Vec<_>>())
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, square.sqrt())
}

impl MaskAccount {
    pub(super) fn of(ladder: &Ladder, statistics: &Statistics) -> Self {
        let mask = ladder.mask();
        let values = contribution(&ladder.head, statistics.mean_activation().view());
        let dropped = || values.indexed_iter().filter(|(place, _)| !mask.kept()[*place]).map(|(_, value)| *value);
        let magnitude = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).sum::<f64>();
        let mean = statistics.mean_activation();
        let most = mean.iter().fold(f64::MIN_POSITIVE, |most, mean| most.max(mean.abs()));
        let silent: Vec<bool> = mean.iter().map(|mean| mean.abs() < NEAR_SILENT * most).collect();
        let unused: Vec<bool> =
            mask.kept().columns().into_iter().map(|column| !column.iter().any(|kept| *kept)).collect();
        Self {
            weights: values.len(),
            kept: mask.count(),
            contribution_kept: Salience::measure(&ladder.head, statistics, Some(mask)).contribution_kept,
            dropped_negative: dropped().filter(|value| *value < 0.0).count() as f64 / dropped().count().max(1) as f64,
            dropped_magnitude: magnitude(&mut dropped()) / magnitude(&mut values.iter().copied()),
            unused_units: mask.unused_units(),
            silent_units: silent.iter().filter(|silent| **silent).count(),
            silent_and_unused: silent.iter().zip(&unused).filter(|(silent, unused)| **silent && **unused).count(),
            kept_by_class: mask.count_per_class(),
        }
    }
}

/// Every rung, on the readings of all sets, the in-distribution inputs first.
pub(super) fn levels(ladder: &Ladder, statistics: &Statistics, read: &[(Told, Reading)]) -> Result<Vec<Level>> {
    let stage = ladder.stages() - 1;
    let (_, id) = &read[0];
    let rows = id.tally.profile().rows as f64;
    let variance = |readout: &Readout| {
        let (sums, classes) = (readout.logits.without(None), ladder.head.classes());
        (0..classes).map(|class| mean_and_variance(sums[class], sums[classes + class], rows).1).sum::<f64>()
    };
    let before = rates(read, 0, 0)?;
    let level = |(place, rung): (usize, &Rung)| {
        // The first rung is the dense head, which reads the features as they are.
        let stage = if place == 0 { 0 } else { stage };
        let readout = &id.readouts[stage][place];
        let salience = Salience::measure(&ladder.head, statistics, Some(&rung.mask));
        let after = rates(read, stage, place)?;
        Ok(Level {
            p: rung.p,
            kept: rung.mask.count(),
            contribution_kept: salience.contribution_kept,
            unused_units: rung.mask.unused_units(),
            signal: signal(id, readout),
            variance_kept: variance(readout) / variance(dense(id)),
            class_changed: 1.0 - readout.agree as f64 / rows,
            accuracy: accuracy(id, readout),
            gains: after.iter().zip(&before).map(|(after, before)| after.auroc - before.auroc).collect(),
            auroc: after.iter().map(|rates| rates.auroc).collect(),
            fpr: after.iter().map(|rates| rates.fpr_at_tpr).collect(),
        })
    };
    ladder.rungs.iter().enumerate().map(level).collect()
}

/// How well energies at a stage and rung tell each of the other sets from the first.
pub(super) fn rates(read: &[(Told, Reading)], stage: usize, rung: usize) -> Result<Vec<Metrics>> {
    let id = &read[0].1.readouts[stage][rung].scores;
    read[1..].iter().map(|(_, other)| Ok(Curve::new(id, &other.readouts[stage][rung].scores)?.metrics(TPR))).collect()
}

/// The lemma on independent normal units that have the means and variances of those of `id`, as the pruned head reads them.
pub(super) fn simulate(ladder: &Ladder, id: &Reading, seed: u64) -> Result<Simulation> {
    let rows = id.tally.profile().rows as f64;
    let sums = id.units[ladder.stages() - 1].without(None);
    let (plain, squares) = sums.split_at(ladder.head.units());
    let (means, variances): (Vec<f64>, Vec<f64>) =
        plain.iter().zip(squares).map(|(sum, square)| mean_and_variance(*sum, *square, rows)).unzip();
    let units = Units { head: &ladder.head, mask: ladder.mask(), means: &means, variances: &variances };
    Simulation::run(&units, DRAWS, seed)
}
