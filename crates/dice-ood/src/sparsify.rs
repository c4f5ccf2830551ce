//! Which weights of the head survive: contributions, masks, and the conventions of the published implementations.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::random::SplitMix64;
use crate::spec::{Contribution, Preset, Scope, Sparsity};
use crate::statistics::{Gather, Statistics};

/// The kept entries of a head, `[C, D]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Array2<bool>);

impl Mask {
    /// A mask from its kept entries `[C, D]`.
    pub fn new(kept: Array2<bool>) -> Self {
        Self(kept.as_standard_layout().into_owned())
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
    pub fn silent_units(&self) -> usize {
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

impl Sparsity {
    /// What this step needs of [`Statistics`] beyond the mean.
    pub fn gather(&self) -> Gather {
        Gather { sequential: matches!(self, Self::Dice { preset: Preset::OpenOod, .. }), ..Gather::default() }
    }

    /// The mask of this step for `head`, or `None` where every weight is kept by definition.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where the statistics have another D than the head, [`ErrorKind::Argument`] where no weight
    /// would survive.
    pub fn mask(&self, head: &LinearHead, statistics: &Statistics) -> Result<Option<Mask>> {
        if statistics.units() != head.units() {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", statistics.units()))
                .tensor("mean activation")
                .expected(format!("[{}], one for each unit of the head", head.units()))
                .fix("are features and head of the same network?"));
        }
        let shape = (head.classes(), head.units());
        let units_to_head = |kept: Vec<bool>| Array2::from_shape_fn(shape, |(_, unit)| kept[unit]);
        let weights_to_head =
            |kept: Vec<bool>| Array2::from_shape_fn(shape, |(class, unit)| kept[class * shape.1 + unit]);
        let kept = match *self {
            Self::Dense => return Ok(None),
            Self::Dice { p, preset: Preset::Paper, contribution: ranked, scope } => {
                let values = ranked_values(head, statistics, ranked);
                match scope {
                    Scope::Global => weights_to_head(largest(values.as_slice().unwrap_or_default(), p)),
                    Scope::PerClass => {
                        let mut kept = Array2::from_elem(shape, false);
                        for (mut kept, values) in kept.rows_mut().into_iter().zip(values.rows()) {
                            kept.assign(&Array1::from(largest(values.as_slice().unwrap_or_default(), p)));
                        }
                        kept
                    }
                }
            }
            Self::Dice { p, preset: Preset::Official, .. } => {
                let values = contribution(head, statistics.mean_activation().view());
                let threshold = numpy_quantile_f64(values.as_slice().unwrap_or_default(), p);
                values.mapv(|value| value > threshold)
            }
            Self::Dice { p, preset: Preset::OpenOod, .. } => {
                let mean = match statistics.sequential_mean_activation() {
                    Some(mean) => mean,
                    // All that is known of a published mean, and what OpenOOD would be given.
                    None if statistics.is_published() => statistics.mean_activation().mapv(|mean| mean as f32),
                    None => {
                        return Err(Error::new(ErrorKind::Missing, "only the f64 mean")
                            .tensor("statistics")
                            .expected("the f32 mean that preset=openood ranks by")
                            .fix("gather with `spec.gather()` or `Gather::ALL`"));
                    }
                };
                let values = &head.weight() * &mean;
                let threshold = numpy_quantile_f32(values.as_slice().unwrap_or_default(), p);
                values.mapv(|value| value > threshold)
            }
            Self::Dice { p, preset: Preset::PytorchOod, .. } => {
                let mean = statistics.mean_activation().mapv(|mean| mean as f32);
                let values = &head.weight() * &mean;
                let threshold = torch_quantile(values.as_slice().unwrap_or_default(), p);
                values.mapv(|value| value > threshold)
            }
            Self::WeightDrop { p, seed } => weights_to_head(largest(&random_values(shape.0 * shape.1, seed), p)),
            Self::UnitDrop { p, seed } => units_to_head(largest(&random_values(shape.1, seed), p)),
            Self::WeightPrune { p } => {
                let magnitudes: Vec<f64> = head.weight().iter().map(|weight| f64::from(weight.abs())).collect();
                weights_to_head(largest(&magnitudes, p))
            }
            Self::UnitPrune { p } => units_to_head(largest(&statistics.mean_activation().to_vec(), p)),
        };
        let mask = Mask::new(kept);
        if mask.count() == 0 {
            return Err(Error::new(ErrorKind::Argument, "a mask that keeps nothing")
                .tensor("sparsity")
                .expected("at least one kept weight")
                .fix("all ranked values are tied at the cut (dead units?), or the fraction dropped is too large: lower it"));
        }
        Ok(Some(mask))
    }
}

fn ranked_values(head: &LinearHead, statistics: &Statistics, ranked: Contribution) -> Array2<f64> {
    let mean = statistics.mean_activation();
    match ranked {
        Contribution::Signed => contribution(head, mean.view()),
        Contribution::Absolute => contribution(head, mean.view()).mapv(f64::abs),
        Contribution::AbsoluteMean => contribution(head, mean.mapv(f64::abs).view()),
    }
}

fn random_values(count: usize, seed: u64) -> Vec<f64> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| (random.next() >> 11) as f64).collect()
}

/// Keeps the largest `(1 - p) * n` values (to the nearest whole number), dropping all that tie with the largest
/// dropped one; `p` that drops nothing keeps all.
fn largest(values: &[f64], p: f64) -> Vec<bool> {
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
fn numpy_quantile_f64(values: &[f64], quantile: f64) -> f64 {
    let place = (values.len() - 1) as f64 * quantile;
    let (low, high) = neighbours(values, place.floor() as usize, f64::total_cmp);
    let weight = place - place.floor();
    // numpy interpolates from the nearer end, so that both ends are met exactly.
    if weight >= 0.5 { high - (high - low) * (1.0 - weight) } else { low + (high - low) * weight }
}

/// The same of f32 values, where numpy computes in f32 throughout.
fn numpy_quantile_f32(values: &[f32], quantile: f64) -> f32 {
    let place = (values.len() - 1) as f32 * quantile as f32;
    let (low, high) = neighbours(values, place.floor() as usize, f32::total_cmp);
    let weight = place - place.floor();
    if weight >= 0.5 { high - (high - low) * (1.0 - weight) } else { low + (high - low) * weight }
}

/// `torch.quantile(values, quantile)` of f32 values: the rank in f32, and torch's `lerp`.
fn torch_quantile(values: &[f32], quantile: f64) -> f32 {
    let place = quantile as f32 * (values.len() - 1) as f32;
    let (low, high) = neighbours(values, place as usize, f32::total_cmp);
    let weight = place - place.floor();
    if weight < 0.5 { low + weight * (high - low) } else { high - (high - low) * (1.0 - weight) }
}

/// What decides whether DICE can help a head: how unequal its units are.
///
/// DICE prunes what contributes little on in-distribution data. Where many units are near-silent there is much noise
/// to prune and little signal lost; where all units speak alike, pruning removes signal.
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
            unused_units: mask.map_or(0.0, |mask| mask.silent_units() as f64 / mask.kept().len_of(Axis(1)) as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head_and_mean(classes: usize, units: usize, seed: u64) -> (LinearHead, Statistics) {
        let mut random = SplitMix64::new(seed);
        let mut uniform = || (random.next() >> 40) as f32 / (1u64 << 24) as f32;
        let weight: Vec<f32> = (0..classes * units).map(|_| uniform() - 0.4).collect();
        let head = LinearHead::from_rows(weight, vec![0.0; classes], units).unwrap();
        let mean: Vec<f64> = (0..units).map(|_| f64::from(uniform())).collect();
        (head, Statistics::from_mean_activation(Array1::from(mean)).unwrap())
    }

    fn mask_of(text: &str, head: &LinearHead, statistics: &Statistics) -> Mask {
        let spec: crate::Spec = format!("{text} | energy").parse().unwrap();
        spec.sparsity.mask(head, statistics).unwrap().unwrap()
    }

    proptest! {
        #[test]
        fn masks_nest_as_p_grows(seed: u64, low in 0.0f64..0.95, more in 0.0f64..0.5) {
            let (head, statistics) = head_and_mean(5, 30, seed);
            let high = (low + more).min(0.95);
            for step in ["dice", "weight-drop", "unit-drop", "weight-prune", "unit-prune"] {
                let wide = mask_of(&format!("{step}({low})"), &head, &statistics);
                let narrow = mask_of(&format!("{step}({high})"), &head, &statistics);
                let nested = narrow.kept().iter().zip(wide.kept()).all(|(narrow, wide)| !narrow || *wide);
                prop_assert!(nested, "{} {} {}", step, low, high);
            }
        }

        #[test]
        fn whole_counts_survive_without_ties_and_presets_agree_there(seed: u64, tenths in 1u32..10) {
            let (head, statistics) = head_and_mean(4, 50, seed);
            let p = f64::from(tenths) / 10.0;
            let paper = mask_of(&format!("dice({p})"), &head, &statistics);
            prop_assert_eq!(paper.count(), (200 - 20 * tenths) as usize);
            prop_assert_eq!(&mask_of(&format!("dice({p}, preset=official)"), &head, &statistics), &paper);
        }
    }

    #[test]
    fn p_zero_keeps_all_in_the_paper_and_drops_the_smallest_in_the_authors_code() {
        let (head, statistics) = head_and_mean(3, 7, 1);
        assert_eq!(mask_of("dice(0)", &head, &statistics).count(), 21);
        assert_eq!(mask_of("dice(0, preset=official)", &head, &statistics).count(), 20);
    }

    #[test]
    fn ties_at_the_cut_are_all_dropped() {
        let values = [3.0, 1.0, 1.0, 1.0, 2.0, 0.0];
        assert_eq!(largest(&values, 0.5), [true, false, false, false, true, false]);
        assert_eq!(largest(&values, 0.0), [true; 6]);
    }

    #[test]
    fn per_class_keeps_the_same_number_in_each_class() {
        let (head, statistics) = head_and_mean(4, 20, 3);
        assert_eq!(mask_of("dice(0.75, scope=per-class)", &head, &statistics).count_per_class(), [5; 4]);
    }

    #[test]
    fn a_mask_of_nothing_is_refused() {
        let head = LinearHead::from_rows(vec![1.0; 6], vec![0.0; 2], 3).unwrap();
        let statistics = Statistics::from_mean_activation(Array1::zeros(3)).unwrap();
        let spec: crate::Spec = "dice(0.5) | energy".parse().unwrap();
        assert_eq!(spec.sparsity.mask(&head, &statistics).unwrap_err().kind(), ErrorKind::Argument);
        let other = Statistics::from_mean_activation(Array1::zeros(4)).unwrap();
        assert_eq!(spec.sparsity.mask(&head, &other).unwrap_err().kind(), ErrorKind::Shape);
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
        let mask = mask_of("dice(0.75)", &head, &silent);
        let measured = Salience::measure(&head, &silent, Some(&mask));
        assert_eq!(measured.unused_units, 0.75);
        assert!(measured.contribution_kept > 0.99);
    }
}
