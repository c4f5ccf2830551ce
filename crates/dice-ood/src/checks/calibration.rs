//! Whether calibration inputs can carry the promise of a threshold.

use super::reading::HeadReading;
use super::rows::Witness;
use super::{FEWEST_ROWS, Finding};
use crate::error::{Error, ErrorKind, Result};

/// Copies in real data are a few percent: share of calibration rows that may be training rows.
const MOST_OVERLAP: f64 = 0.05;
/// More of them cannot be meant.
const REFUSED_OVERLAP: f64 = 0.5;
/// Share of calibration rows that have to be different.
const LEAST_DISTINCT: f64 = 0.8;
/// Validation sets stay below 0.05, and other data sets are beyond 0.34, but for those of nearly the same images.
const LARGEST_DISTANCE: f64 = 0.3;
/// Probability of a higher energy for a training row. A network is surer of its training inputs than of validation
/// inputs, 0.54 for those at hand and up to 0.8 where it has learnt them by heart.
const LARGEST_SEPARATION: f64 = 0.9;
/// Total variance of calibration features over that of training features, or the reverse.
const LARGEST_SPREAD: f64 = 2.5;

/// Refuses what can never be meant.
///
/// # Errors
/// [`ErrorKind::Calibration`] for rows that are all equal.
pub(super) fn refuse_equal_rows(calibration: &Witness) -> Result<()> {
    if calibration.rows() < 2 || calibration.hashes.distinct() != 1 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Calibration, format!("{} equal rows", calibration.rows()))
        .tensor("calibration features")
        .expected("different inputs: of one input repeated, nothing follows for others"))
}

/// Copies: of training rows, and of each other. `held_out` rows are a part of the training data, where copies are the
/// data's and not a confusion of two files.
///
/// # Errors
/// [`ErrorKind::Calibration`] where most of separate calibration rows are training rows.
pub(super) fn copies(training: &Witness, calibration: &Witness, held_out: bool) -> Result<Option<Finding>> {
    let (share, margin) = calibration.hashes.share_in(&training.hashes);
    let rows = calibration.rows();
    if share > REFUSED_OVERLAP + margin && !held_out {
        return Err(Error::new(
            ErrorKind::Calibration,
            format!("{rows} rows, {:.1} % of which the detector was fitted to", 100.0 * share),
        )
        .tensor("calibration features")
        .expected("inputs that are not among the training features")
        .fix("a network is surer of inputs it was trained on: calibrate on others, or hold a part of the training data out"));
    }
    Ok((share > MOST_OVERLAP + margin).then_some(Finding::CalibrationOverlapsTraining { share, rows }))
}

/// Calibration rows that are copies of each other.
pub(super) fn repetitions(calibration: &Witness) -> Option<Finding> {
    let (distinct, rows) = (calibration.hashes.distinct().min(calibration.rows()), calibration.rows());
    ((distinct as f64) < LEAST_DISTINCT * rows as f64).then_some(Finding::CalibrationRepeats { distinct, rows })
}

/// Calibration inputs that are not like the training inputs, by the mean or spread of their features or by their energies.
pub(super) fn unlike(training: (&Witness, &HeadReading), calibration: (&Witness, &HeadReading)) -> Option<Finding> {
    let (rows, others) = (training.0.sampled().len() as f64, calibration.0.sampled().len() as f64);
    if training.0.sampled().len() < FEWEST_ROWS || calibration.0.sampled().len() < 2 {
        return None;
    }
    let (mean, variance) = moments(training.0);
    let (other, other_variance) = moments(calibration.0);
    let apart: f64 = mean.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
    let total: f64 = variance.iter().sum();
    let spread = other_variance.iter().sum::<f64>() / total;
    if total <= 0.0 {
        return None;
    }
    // Two samples of one set are that far apart on average; a small one three times as far now and then.
    let by_chance = 1.0 / rows + 1.0 / others;
    let squared = (apart / total - by_chance).max(0.0);
    let separation = separation(&training.1.energies, &calibration.1.energies);
    let few = 3.0 * (12.0 * others.min(calibration.1.energies.len() as f64)).sqrt().recip();
    let far = squared > LARGEST_DISTANCE * LARGEST_DISTANCE + 3.0 * by_chance;
    let separate = (separation - 0.5).abs() > (LARGEST_SEPARATION - 0.5 + few).min(0.49);
    let otherwise_spread = calibration.0.sampled().len() >= FEWEST_ROWS && spread.max(1.0 / spread) > LARGEST_SPREAD;
    (far || separate || otherwise_spread).then_some(Finding::CalibrationUnlikeTraining {
        distance: squared.sqrt(),
        spread,
        separation,
    })
}

/// Mean and variance of each unit over the sampled rows.
fn moments(witness: &Witness) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut squares) = (vec![0.0; witness.units()], vec![0.0; witness.units()]);
    for (row, _) in witness.sampled() {
        for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(row) {
            *sum += f64::from(*value);
            *square += f64::from(*value) * f64::from(*value);
        }
    }
    let rows = witness.sampled().len().max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= rows);
    let variance = squares.iter().zip(&sums).map(|(square, mean)| (square / rows - mean * mean).max(0.0)).collect();
    (sums, variance)
}

/// Probability that one of `higher` exceeds one of `lower`, ties at one half.
fn separation(higher: &[f64], lower: &[f64]) -> f64 {
    let mut sorted = lower.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let below = |score: &f64| {
        let (less, at_most) =
            (sorted.partition_point(|other| other < score), sorted.partition_point(|other| other <= score));
        (less + at_most) as f64 / 2.0
    };
    higher.iter().map(below).sum::<f64>() / (higher.len() as f64 * lower.len() as f64).max(1.0)
}
