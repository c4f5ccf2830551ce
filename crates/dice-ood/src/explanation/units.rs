//! What each unit does to a score, by occlusion.

use ndarray::ArrayView2;
use serde::Serialize;

use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::explanation::logits::Reading;
use crate::features::block_rows;
use crate::statistics::Statistics;

/// What one unit does to a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UnitShare {
    /// Its number.
    pub unit: usize,
    /// Its activation in this input, as the network makes it.
    pub activation: f32,
    /// Its mean activation over the training inputs.
    pub mean: f64,
    /// The score less what it would be with this unit at its mean and all others as they are. Negative: the activation makes the
    /// input look more out-of-distribution. Shares need not add up to anything: units act together in most scores.
    pub share: f64,
    /// Whether the weight of this unit for the predicted class is kept, where weights are dropped.
    pub kept: Option<bool>,
}

/// The shares of all units `[D]`. Rows with one unit at its mean are scored a block at a time.
pub(super) fn shares(
    detector: &Detector,
    features: &[f32],
    statistics: &Statistics,
    score: f64,
    reading: &Reading<'_>,
) -> Result<Vec<UnitShare>> {
    let units = features.len();
    let mean = statistics.mean_activation();
    let all: Vec<usize> = (0..units).collect();
    let mut shares = Vec::with_capacity(units);
    for some in all.chunks(block_rows(units)) {
        let mut rows = features.repeat(some.len());
        for (row, unit) in rows.chunks_exact_mut(units).zip(some) {
            row[*unit] = mean[*unit] as f32;
        }
        let rows = ArrayView2::from_shape((some.len(), units), &rows)
            .map_err(|error| Error::caused_by(ErrorKind::Shape, error).tensor("features"))?;
        let occluded = detector.score(rows)?;
        shares.extend(some.iter().zip(occluded).map(|(unit, occluded)| UnitShare {
            unit: *unit,
            activation: features[*unit],
            mean: mean[*unit],
            share: score - occluded,
            kept: reading.kept(*unit),
        }));
    }
    Ok(shares)
}
