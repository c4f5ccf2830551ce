//! How much of a head's contribution its units carry.

use ndarray::Axis;

use crate::head::LinearHead;
use crate::mask::{Mask, contribution, neighbours};
use crate::statistics::Statistics;

/// Below this share of the largest mean activation a unit is near-silent.
pub(crate) const NEAR_SILENT: f64 = 0.01;

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
        let silent = magnitudes.iter().filter(|magnitude| **magnitude < NEAR_SILENT * most).count();
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
    use ndarray::{Array1, Array2};

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
