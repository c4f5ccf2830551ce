//! What figures are drawn from: scores as counts, curves as few points.

use serde::Serialize;

use crate::calibration::Calibration;
use crate::metrics::Curve;

/// Bins of scores.
const BINS: usize = 60;
/// The share of scores that lie beyond the bins on either side, and are counted in the outermost ones.
const BEYOND: f64 = 0.001;
/// How far a curve may be from the line between two of its points, in either rate.
const ERROR: f64 = 0.004;

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

/// A point of a ROC curve, in-distribution positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RocPoint {
    /// The share of out-of-distribution inputs that are accepted.
    pub fpr: f64,
    /// The share of in-distribution inputs that are accepted.
    pub tpr: f64,
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

/// The curve by as many of its corners as keep lines between them within [`ERROR`] of it.
pub(super) fn roc(curve: &Curve) -> Vec<RocPoint> {
    let groups = curve.groups();
    let (ids, oods) =
        groups.iter().fold((0u64, 0u64), |(i, o), group| (i + u64::from(group.0), o + u64::from(group.1)));
    let mut points = vec![RocPoint { fpr: 0.0, tpr: 0.0 }];
    let (mut last, mut kept) = (points[0], points[0]);
    let (mut id, mut ood) = (0u64, 0u64);
    for group in groups {
        (id, ood) = (id + u64::from(group.0), ood + u64::from(group.1));
        let here = RocPoint { fpr: ood as f64 / oods as f64, tpr: id as f64 / ids as f64 };
        // Both rates only rise: between two kept points the curve lies in the rectangle that they span.
        if (here.fpr - kept.fpr).min(here.tpr - kept.tpr) > ERROR {
            if last != kept {
                points.push(last);
            }
            kept = last;
            if (here.fpr - kept.fpr).min(here.tpr - kept.tpr) > ERROR {
                points.push(here);
                kept = here;
            }
        }
        last = here;
    }
    if last != kept {
        points.push(last);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }

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

    #[test]
    fn a_curve_of_few_points_is_near_the_curve() {
        let mut random = SplitMix64::new(4);
        let id: Vec<f64> = (0..20_000).map(|_| 0.3 + uniform(&mut random).powi(2)).collect();
        let ood: Vec<f64> = (0..5_000).map(|_| uniform(&mut random)).collect();
        let curve = Curve::new(&id, &ood).unwrap();
        let points = roc(&curve);
        assert!(points.len() < 600, "{}", points.len());
        let area: f64 = points.windows(2).map(|two| (two[1].fpr - two[0].fpr) * (two[1].tpr + two[0].tpr) / 2.0).sum();
        assert!((area - curve.metrics(0.95).auroc).abs() < ERROR, "{area}");
        let (mut i, mut o) = (0u32, 0u32);
        for group in curve.groups() {
            (i, o) = (i + group.0, o + group.1);
            let (fpr, tpr) = (f64::from(o) / 5_000.0, f64::from(i) / 20_000.0);
            let next = points.partition_point(|point| point.fpr < fpr).clamp(1, points.len() - 1);
            let (a, b) = (points[next - 1], points[next]);
            let off = (tpr - a.tpr).min(b.tpr - tpr).max(0.0).min((fpr - a.fpr).min(b.fpr - fpr).max(0.0));
            assert!(off <= ERROR, "{off} at {fpr}, {tpr}");
        }
        assert_eq!(points.last(), Some(&RocPoint { fpr: 1.0, tpr: 1.0 }));
    }
}
