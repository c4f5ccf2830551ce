//! Which weights of the head survive: contributions, masks, and the conventions of the published implementations.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::random::SplitMix64;
use crate::statistics::Statistics;

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
            .tensor("sparsity")
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
fn neighbours<T: Copy>(values: &[T], index: usize, compare: impl Fn(&T, &T) -> std::cmp::Ordering + Copy) -> (T, T) {
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

/// How unequal the units of a head are, and what a mask keeps of them. It does not decide whether pruning helps: that depends
/// on the network and on what is out-of-distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Salience {
    /// Share of units whose mean activation is below 1 % of the largest.
    pub silent_units: f64,
    /// Median of the mean activations over the largest.
    pub median_activation: f64,
    /// Share of the sum of positive contributions that the kept weights carry; 1 where nothing is dropped.
    pub contribution_kept: f64,
    /// Share of units that keep no weight.
    pub unused_units: f64,
}

impl Salience {
    /// Measures `mask` (all weights where `None`) on `head` with `statistics`.
    ///
    /// # Panics
    /// Where mask or statistics are not of this head's shape.
    pub fn measure(head: &LinearHead, statistics: &Statistics, mask: Option<&Mask>) -> Self {
        let mean = statistics.mean_activation();
        let magnitudes: Vec<f64> = mean.iter().map(|mean| mean.abs()).collect();
        let most = magnitudes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let silent = magnitudes.iter().filter(|magnitude| **magnitude < 0.01 * most).count();
        let (median, _) = neighbours(&magnitudes, (magnitudes.len() - 1) / 2, f64::total_cmp);
        let values = contribution(head, mean.view());
        let positive = |keep: &dyn Fn(usize, usize) -> bool| -> f64 {
            values
                .indexed_iter()
                .filter(|((class, unit), value)| **value > 0.0 && keep(*class, *unit))
                .map(|(_, value)| value)
                .sum()
        };
        let all = positive(&|_, _| true);
        let kept = mask.map_or(all, |mask| positive(&|class, unit| mask.kept()[(class, unit)]));
        let units = head.units() as f64;
        Self {
            silent_units: silent as f64 / units,
            median_activation: median / most,
            contribution_kept: if all > 0.0 { kept / all } else { 1.0 },
            unused_units: mask.map_or(0.0, |mask| mask.unused_units() as f64 / mask.kept().len_of(Axis(1)) as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

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

    #[test]
    fn salience_tells_silent_heads_from_loud_ones() {
        let head = LinearHead::from_rows(vec![1.0; 8], vec![0.0; 2], 4).unwrap();
        let loud = Statistics::from_mean_activation(Array1::from(vec![1.0, 0.9, 0.8, 0.7])).unwrap();
        let silent = Statistics::from_mean_activation(Array1::from(vec![1.0, 0.001, 0.002, 0.0])).unwrap();
        assert_eq!(Salience::measure(&head, &loud, None).silent_units, 0.0);
        assert_eq!(Salience::measure(&head, &silent, None).silent_units, 0.75);
        let mask = Mask::new(Array2::from_shape_fn((2, 4), |(_, unit)| unit == 0));
        let measured = Salience::measure(&head, &silent, Some(&mask));
        assert_eq!(measured.unused_units, 0.75);
        assert!(measured.contribution_kept > 0.99);
    }
}
