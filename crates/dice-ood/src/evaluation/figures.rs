//! What figures are drawn from: scores as counts, p-values as shares.

use serde::Serialize;

use crate::calibration::Calibration;

/// Bins of scores.
const BINS: usize = 60;
/// The share of scores that lie beyond the bins on either side, and are counted in the outermost ones.
const BEYOND: f64 = 0.001;

/// Bins of equal width between two scores. What lies beyond counts in the outermost ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bins {
    /// Where the first begins.
    pub low: f64,
    /// Where the last ends.
    pub high: f64,
}

/// What the figures of a detector are drawn from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drawn {
    /// Where its scores are counted.
    pub bins: Bins,
    /// How many in-distribution scores lie in each.
    pub id: Vec<u64>,
    /// What its p-values do on the in-distribution set, where it is calibrated.
    pub reliability: Option<Reliability>,
}

/// Shares of in-distribution inputs whose p-value is at most some levels. Calibrated p-values are so in a share of about the level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// The levels, in (0, 1].
    pub levels: Vec<f64>,
    /// The share at each.
    pub shares: Vec<f64>,
}

impl Bins {
    /// Bins over all but the outermost of the finite scores of some sets.
    pub(super) fn of<'a>(sets: impl Iterator<Item = &'a [f64]>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for scores in sets {
            let mut finite: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
            if finite.is_empty() {
                continue;
            }
            let last = finite.len() - 1;
            let mut at = |share: f64| {
                let place = (share * last as f64).round() as usize;
                *finite.select_nth_unstable_by(place, f64::total_cmp).1
            };
            low = low.min(at(BEYOND));
            high = high.max(at(1.0 - BEYOND));
        }
        match low < high {
            true => Self { low, high },
            // One value, or none: it stands in the middle.
            false if low.is_finite() => Self { low: low - 0.5, high: low + 0.5 },
            false => Self { low: 0.0, high: 1.0 },
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        BINS
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many of `scores` lie in each.
    pub(super) fn counts(&self, scores: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; BINS];
        for score in scores {
            // A negative or undefined place is the first by the rules of the cast.
            let place = (score - self.low) / (self.high - self.low) * BINS as f64;
            counts[(place as usize).min(BINS - 1)] += 1;
        }
        counts
    }
}

impl Reliability {
    pub(super) fn of(calibration: &Calibration, id: &[f64]) -> Option<Self> {
        let mut values: Vec<f64> = id.iter().map(|score| calibration.p_value(*score)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let levels: Vec<f64> = (1..=50).map(|step| f64::from(step) / 50.0).collect();
        // A p-value is a quotient of counts: the level is met within rounding.
        let at_most =
            |level: &f64| values.partition_point(|value| *value <= level + 1e-12) as f64 / values.len() as f64;
        let shares = levels.iter().map(at_most).collect();
        (!values.is_empty()).then_some(Self { levels, shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_counted_once() {
        let scores = [f64::NEG_INFINITY, -3.0, 0.0, 0.25, 1.0, 1e300, f64::INFINITY];
        let bins = Bins { low: -1.0, high: 1.0 };
        let counts = bins.counts(&scores);
        assert_eq!(counts.iter().sum::<u64>(), 7);
        assert_eq!((counts[0], counts[BINS - 1]), (2, 3));
        for set in [&[][..], &[2.0; 5], &[f64::NEG_INFINITY]] {
            let bins = Bins::of(std::iter::once(set));
            assert!(bins.low < bins.high && bins.low.is_finite() && bins.high.is_finite());
            assert_eq!(bins.counts(set).iter().sum::<u64>(), set.len() as u64);
        }
    }
}
