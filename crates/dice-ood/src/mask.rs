//! Which weights of the head survive: contributions, masks, and the conventions of the published implementations.

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::random::SplitMix64;

/// The kept entries of a head, `[C, D]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Array2<bool>);

impl Mask {
    /// A mask from its kept entries `[C, D]`.
    pub fn new(kept: Array2<bool>) -> Self {
        Self(kept.as_standard_layout().into_owned())
    }

    /// The mask `[C, D]` of a method; one that keeps nothing is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`].
    pub(crate) fn of_method(kept: Array2<bool>) -> Result<Self> {
        let mask = Self::new(kept);
        if mask.count() > 0 {
            return Ok(mask);
        }
        Err(Error::new(ErrorKind::Argument, "a mask that keeps nothing")
            .argument("sparsity")
            .expected("at least one kept weight")
            .fix("all ranked values are tied at the cut (dead units?), or the fraction dropped is too large: lower it"))
    }

    /// The mask that keeps the weights of some units, for all `classes`.
    pub(crate) fn of_units(classes: usize, kept: &[bool]) -> Result<Self> {
        Self::of_method(Array2::from_shape_fn((classes, kept.len()), |(_, unit)| kept[unit]))
    }

    /// The mask `[C, D]` of weights row by row.
    pub(crate) fn of_weights(units: usize, kept: &[bool]) -> Result<Self> {
        let classes = kept.len() / units;
        Self::of_method(Array2::from_shape_fn((classes, units), |(class, unit)| kept[class * units + unit]))
    }

    /// The kept entries `[C, D]`.
    pub fn kept(&self) -> ArrayView2<'_, bool> {
        self.0.view()
    }

    /// How many weights are kept.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|kept| **kept).count()
    }

    /// How many weights each class keeps, `[C]`.
    pub fn count_per_class(&self) -> Vec<usize> {
        self.0.rows().into_iter().map(|row| row.iter().filter(|kept| **kept).count()).collect()
    }

    /// How many units keep no weight at all: they no longer influence any logit.
    pub fn unused_units(&self) -> usize {
        self.0.columns().into_iter().filter(|column| !column.iter().any(|kept| *kept)).count()
    }
}

/// The contribution `V = W * mean` `[C, D]`, signed, in f64 (paper, section 3).
///
/// # Panics
/// Where the mean has another length than the head has units.
pub fn contribution(head: &LinearHead, mean_activation: ArrayView1<'_, f64>) -> Array2<f64> {
    head.weight().mapv(f64::from) * mean_activation
}

/// `count` values in a random order that `seed` decides.
pub(crate) fn random_values(count: usize, seed: u64) -> Vec<f64> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| (random.next() >> 11) as f64).collect()
}

/// Keeps the largest `(1 - p) * n` values (to the nearest whole number), dropping all that tie with the largest
/// dropped one; `p` that drops nothing keeps all.
pub(crate) fn largest(values: &[f64], p: f64) -> Vec<bool> {
    let count = values.len();
    let keep = ((1.0 - p) * count as f64).round() as usize;
    if keep >= count {
        return vec![true; count];
    }
    let mut ordered = values.to_vec();
    let (_, cut, _) = ordered.select_nth_unstable_by(count - keep - 1, f64::total_cmp);
    let cut = *cut;
    values.iter().map(|value| *value > cut).collect()
}

/// The order statistics at `index` and `index + 1` (clamped to the last).
pub(crate) fn neighbours<T: Copy>(
    values: &[T],
    index: usize,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering + Copy,
) -> (T, T) {
    let mut ordered = values.to_vec();
    let index = index.min(values.len() - 1);
    let (_, low, above) = ordered.select_nth_unstable_by(index, compare);
    let low = *low;
    let high = above.iter().copied().min_by(compare).unwrap_or(low);
    (low, high)
}

/// `numpy.percentile(values, 100 * quantile)` in f64, linear interpolation.
pub(crate) fn numpy_quantile_f64(values: &[f64], quantile: f64) -> f64 {
    let place = (values.len() - 1) as f64 * quantile;
    let (low, high) = neighbours(values, place.floor() as usize, f64::total_cmp);
    let weight = place - place.floor();
    // numpy interpolates from the nearer end, so that both ends are met exactly.
    if weight >= 0.5 { high - (high - low) * (1.0 - weight) } else { low + (high - low) * weight }
}

/// The same of f32 values, where numpy computes in f32 throughout.
pub(crate) fn numpy_quantile_f32(values: &[f32], quantile: f64) -> f32 {
    let place = (values.len() - 1) as f32 * quantile as f32;
    let (low, high) = neighbours(values, place.floor() as usize, f32::total_cmp);
    let weight = place - place.floor();
    if weight >= 0.5 { high - (high - low) * (1.0 - weight) } else { low + (high - low) * weight }
}

/// `torch.quantile(values, quantile)` of f32 values: the rank in f32, and torch's `lerp`.
pub(crate) fn torch_quantile(values: &[f32], quantile: f64) -> f32 {
    let place = quantile as f32 * (values.len() - 1) as f32;
    let (low, high) = neighbours(values, place as usize, f32::total_cmp);
    let weight = place - place.floor();
    if weight < 0.5 { low + weight * (high - low) } else { high - (high - low) * (1.0 - weight) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_at_the_cut_are_all_dropped() {
        let values = [3.0, 1.0, 1.0, 1.0, 2.0, 0.0];
        assert_eq!(largest(&values, 0.5), [true, false, false, false, true, false]);
        assert_eq!(largest(&values, 0.0), [true; 6]);
    }

    /// Golden comparison with the peers themselves is in `tests/golden.rs`; here the three agree up to rounding.
    #[test]
    fn quantiles_interpolate_as_the_peers_do() {
        let single: Vec<f32> = (0..50u32).map(|k| (k * 37 % 100) as f32 / 100.0).collect();
        let double: Vec<f64> = single.iter().map(|value| f64::from(*value)).collect();
        for quantile in [0.0, 0.1, 0.5, 0.7, 0.9, 0.99, 1.0] {
            let reference = numpy_quantile_f64(&double, quantile);
            assert!((f64::from(numpy_quantile_f32(&single, quantile)) - reference).abs() < 1e-5);
            assert!((f64::from(torch_quantile(&single, quantile)) - reference).abs() < 1e-5);
        }
    }
}
