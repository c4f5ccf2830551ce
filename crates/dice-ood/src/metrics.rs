//! How well scores separate in-distribution from out-of-distribution inputs: exact, tie-safe, in f64.
//!
//! Scores are higher = more in-distribution. [`Curve`] groups equal scores, and every metric is a function of those
//! groups, so ties are never broken by the order of the input. Metrics whose name is shared by different conventions
//! have different names here.

mod bootstrap;
pub(crate) mod paired;

use crate::error::{Error, ErrorKind, Result};
pub(crate) use bootstrap::Rates;
pub use paired::Loss;
pub(crate) use paired::{Compared, Setting};

/// The joint ranking of in-distribution and out-of-distribution scores.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Distinct scores, descending.
    scores: Vec<f64>,
    /// For each of them, how many in-distribution and out-of-distribution inputs have it.
    counts: Vec<(u32, u32)>,
}

/// Every metric of one pair of score sets. Rates are fractions.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Metrics {
    /// Out-of-distribution inputs accepted where at least `tpr` of in-distribution ones are (positive = ID; the paper).
    pub fpr_at_tpr: f64,
    /// In-distribution inputs rejected where at least `tpr` of out-of-distribution ones are (positive = OOD; OpenOOD v1.5).
    pub fpr_at_tpr_ood_positive: f64,
    /// Probability that an ID input outscores an OOD input, ties one half.
    pub auroc: f64,
    /// Average precision, positive = ID (scikit-learn's `average_precision_score`).
    pub aupr_in: f64,
    /// Average precision, positive = OOD.
    pub aupr_out: f64,
    /// Trapezoidal area under precision-recall, positive = ID (OpenOOD's AUPR_IN).
    pub aupr_in_trapezoid: f64,
    /// Trapezoidal area under precision-recall, positive = OOD (OpenOOD's AUPR_OUT).
    pub aupr_out_trapezoid: f64,
    /// Area under the mean of FPR and FNR over min-max normalised thresholds (Humblot-Renaux et al. 2023); lower is better.
    pub autc: f64,
    /// What the DICE authors' `util/metrics.py` prints.
    pub official: OfficialMetrics,
}

/// The five numbers of the DICE authors' evaluation code.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OfficialMetrics {
    /// OOD scores strictly above the ID score of rank `round(0.05 n)` (half to even).
    pub fpr: f64,
    /// Area under ROC with ties collapsed.
    pub auroc: f64,
    /// Smallest pooled error `(FN + FP) / (n + m)`.
    pub dterr: f64,
    /// Area under precision-recall of ID, with the authors' end points.
    pub auin: f64,
    /// Area under precision-recall of OOD, with the authors' end points.
    pub auout: f64,
}

/// A two-sided percentile interval of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Bootstrap intervals of the headline metrics.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Intervals {
    /// Of [`Metrics::fpr_at_tpr`].
    pub fpr_at_tpr: Interval,
    /// Of [`Metrics::auroc`].
    pub auroc: Interval,
    /// Of [`Metrics::aupr_in`].
    pub aupr_in: Interval,
    /// Of [`Metrics::aupr_out`].
    pub aupr_out: Interval,
}

impl Curve {
    /// Ranks `id` and `ood` scores, in any order.
    ///
    /// Negative infinity is a score like any other (an input that could not be scored).
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] where a side has no scores, [`ErrorKind::NotFinite`] for NaN, saying where.
    pub fn new(id: &[f64], ood: &[f64]) -> Result<Self> {
        check_scores(id, ood)?;
        // Keys that sort descending as integers do ascending: faster than comparing floats, and with the standard
        // library faster on one thread than with rayon on two.
        let sorted = |scores: &[f64]| {
            let mut keys: Vec<u64> = scores.iter().map(|score| descending_key(*score)).collect();
            keys.sort_unstable();
            keys
        };
        let (id, ood) = rayon::join(|| sorted(id), || sorted(ood));
        let (mut i, mut o) = (0, 0);
        let mut curve = Self { scores: Vec::new(), counts: Vec::new() };
        curve.scores.reserve(id.len() + ood.len());
        curve.counts.reserve(id.len() + ood.len());
        while i < id.len() || o < ood.len() {
            let key = match (id.get(i), ood.get(o)) {
                (Some(a), Some(b)) => *a.min(b),
                (Some(only), None) | (None, Some(only)) => *only,
                (None, None) => break,
            };
            let run = |keys: &[u64]| keys.iter().take_while(|other| **other == key).count();
            let (ids, oods) = (run(&id[i..]), run(&ood[o..]));
            (i, o) = (i + ids, o + oods);
            curve.scores.push(score_of_key(key));
            curve.counts.push((ids as u32, oods as u32));
        }
        Ok(curve)
    }

    /// Groups of equal scores, the highest first: how many in-distribution and out-of-distribution inputs have each.
    pub(crate) fn groups(&self) -> &[(u32, u32)] {
        &self.counts
    }

    /// Every metric, at the given TPR in (0, 1] (0.95 for FPR@95TPR). AUTC is NaN where a score is infinite.
    pub fn metrics(&self, tpr: f64) -> Metrics {
        let counts = &self.counts;
        let ((rates, official), ((of_id, of_ood), autc)) = rayon::join(
            || {
                let rates =
                    || (fpr_at_tpr(counts.iter().copied(), tpr), fpr_at_tpr(mirrored(counts), tpr), auroc(counts));
                rayon::join(rates, || self.official())
            },
            || {
                let areas = || (precision_areas(counts.iter().copied()), precision_areas(mirrored(counts)));
                rayon::join(areas, || self.autc())
            },
        );
        Metrics {
            fpr_at_tpr: rates.0,
            fpr_at_tpr_ood_positive: rates.1,
            auroc: rates.2,
            aupr_in: of_id.average,
            aupr_out: of_ood.average,
            aupr_in_trapezoid: of_id.trapezoid,
            aupr_out_trapezoid: of_ood.trapezoid,
            autc,
            official,
        }
    }

    /// Closed form: the area of FPR over normalised thresholds is the mean normalised OOD score, that of FNR one minus
    /// the mean normalised ID score.
    fn autc(&self) -> f64 {
        let (Some(high), Some(low)) = (self.scores.first(), self.scores.last()) else { return f64::NAN };
        let range = high - low;
        if !range.is_finite() {
            return f64::NAN;
        }
        if range == 0.0 {
            return 0.5;
        }
        let (id_total, ood_total) = totals(&self.counts);
        let (mut id, mut ood) = (0.0, 0.0);
        for (score, (ids, oods)) in self.scores.iter().zip(&self.counts) {
            let normalised = (score - low) / range;
            id += normalised * f64::from(*ids);
            ood += normalised * f64::from(*oods);
        }
        (ood / ood_total as f64 + 1.0 - id / id_total as f64) / 2.0
    }

    fn official(&self) -> OfficialMetrics {
        let (id_total, ood_total) = totals(&self.counts);
        let (n, m) = (id_total as f64, ood_total as f64);
        let rank = (0.05 * n).round_ties_even() as u64;
        let mut above = 0u64;
        let mut left = id_total;
        let mut fpr = f64::NAN;
        for (ids, oods) in &self.counts {
            left -= u64::from(*ids);
            // This group holds the ID score of that ascending rank.
            if left <= rank {
                fpr = above as f64 / m;
                break;
            }
            above += u64::from(*oods);
        }
        // Points (ID accepted, OOD accepted) from accepting everything down to accepting nothing, ties collapsed.
        let (mut tp, mut fp) = (n, m);
        let (mut auin, mut auout, mut errors) = (0.0, 0.0, m);
        // The authors end their curves at precision 0.5 where the rate is 1, a point of zero width, and at 0 where it is 0.
        let (mut last_in, mut last_out) = ((1.0, n / (n + m)), (0.0, 0.0));
        for (ids, oods) in self.counts.iter().rev() {
            tp -= f64::from(*ids);
            fp -= f64::from(*oods);
            errors = f64::min(errors, n - tp + fp);
            let point_in = (tp / n, if tp + fp > 0.0 { tp / (tp + fp) } else { 0.0 });
            auin += (last_in.0 - point_in.0) * (last_in.1 + point_in.1) / 2.0;
            last_in = point_in;
            let point_out = (1.0 - fp / m, (m - fp) / (n - tp + m - fp));
            auout += (point_out.0 - last_out.0) * (last_out.1 + point_out.1) / 2.0;
            last_out = point_out;
        }
        OfficialMetrics { fpr, auroc: auroc(&self.counts), dterr: errors / (n + m), auin, auout }
    }
}

/// Correct-classification rate at a false-positive rate: the share of in-distribution inputs that are classified
/// correctly and score strictly above the `ceil(fpr m)`-th largest out-of-distribution score (OpenOOD's `ccr_fpr`).
///
/// # Errors
/// [`ErrorKind::Shape`] where `correct` has another length than `id`, [`ErrorKind::Empty`] for no scores,
/// [`ErrorKind::NotFinite`] for NaN, [`ErrorKind::Argument`] for a rate outside (0, 1].
pub fn ccr_at_fpr(id: &[f64], correct: &[bool], ood: &[f64], fpr: f64) -> Result<f64> {
    if id.len() != correct.len() {
        return Err(Error::new(ErrorKind::Shape, format!("[{}]", correct.len()))
            .argument("correct predictions")
            .expected(format!("[{}], one for each score", id.len())));
    }
    if !(fpr > 0.0 && fpr <= 1.0) {
        return Err(Error::new(ErrorKind::Argument, fpr.to_string()).argument("FPR").expected("a rate in (0, 1]"));
    }
    check_scores(id, ood)?;
    let mut descending = ood.to_vec();
    let rank = ((fpr * ood.len() as f64).ceil() as usize).clamp(1, ood.len());
    let (_, threshold, _) = descending.select_nth_unstable_by(rank - 1, |a, b| b.total_cmp(a));
    let hits = id.iter().zip(correct).filter(|(score, correct)| **correct && **score > *threshold).count();
    Ok(hits as f64 / id.len() as f64)
}

/// An integer whose ascending order is the descending order of scores. Adding zero makes -0.0 equal to 0.0.
fn descending_key(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { bits } else { bits ^ (u64::MAX >> 1) }
}

fn score_of_key(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key } else { key ^ (u64::MAX >> 1) })
}

fn check_scores(id: &[f64], ood: &[f64]) -> Result<()> {
    for (name, scores) in [("in-distribution scores", id), ("out-of-distribution scores", ood)] {
        if scores.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "no scores").tensor(name).expected("at least one"));
        }
        if u32::try_from(scores.len()).is_err() {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} scores", scores.len()))
                .tensor(name)
                .expected("at most 2^32 - 1"));
        }
        if let Some(row) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("NaN at row {row}")).tensor(name).expected("numbers"));
        }
    }
    Ok(())
}

fn totals(counts: &[(u32, u32)]) -> (u64, u64) {
    counts.iter().fold((0, 0), |(id, ood), (ids, oods)| (id + u64::from(*ids), ood + u64::from(*oods)))
}

/// The same groups with OOD as the positive class: scores ascending, sides exchanged.
fn mirrored(counts: &[(u32, u32)]) -> impl Iterator<Item = (u32, u32)> + Clone + '_ {
    counts.iter().rev().map(|(ids, oods)| (*oods, *ids))
}

/// The false-positive rate at the first threshold whose true-positive rate is at least `tpr`. Groups are (positives,
/// negatives), the most positive first.
pub(crate) fn fpr_at_tpr(groups: impl Iterator<Item = (u32, u32)> + Clone, tpr: f64) -> f64 {
    let (positives, negatives) = sums(groups.clone());
    let (mut tp, mut fp) = (0u64, 0u64);
    for (hits, misses) in groups {
        tp += u64::from(hits);
        fp += u64::from(misses);
        if tp as f64 / positives as f64 >= tpr {
            return fp as f64 / negatives as f64;
        }
    }
    1.0
}

fn sums(groups: impl Iterator<Item = (u32, u32)>) -> (u64, u64) {
    groups.fold((0, 0), |(p, n), (hits, misses)| (p + u64::from(hits), n + u64::from(misses)))
}

/// The Mann-Whitney count over all pairs, in integers.
pub(crate) fn auroc(counts: &[(u32, u32)]) -> f64 {
    let (id_total, ood_total) = totals(counts);
    // Twice the number of won pairs, so that a tie counts one.
    let mut doubled = 0u128;
    let mut ood_below = ood_total;
    for (ids, oods) in counts {
        ood_below -= u64::from(*oods);
        doubled += u128::from(*ids) * (2 * u128::from(ood_below) + u128::from(*oods));
    }
    doubled as f64 / (2 * u128::from(id_total) * u128::from(ood_total)) as f64
}

/// Average precision with in-distribution as the positive class, or with out-of-distribution.
pub(crate) fn average_precision(counts: &[(u32, u32)], of_ood: bool) -> f64 {
    match of_ood {
        false => precision_areas(counts.iter().copied()).average,
        true => precision_areas(mirrored(counts)).average,
    }
}

/// Two areas under precision over recall.
struct PrecisionAreas {
    /// `sum (recall_i - recall_{i-1}) precision_i`: average precision.
    average: f64,
    /// By trapezoids, from precision 1 at recall 0 (scikit-learn's curve and `auc`).
    trapezoid: f64,
}

fn precision_areas(groups: impl Iterator<Item = (u32, u32)> + Clone) -> PrecisionAreas {
    let (positives, _) = sums(groups.clone());
    let (mut tp, mut fp) = (0u64, 0u64);
    let (mut average, mut trapezoid) = (0.0, 0.0);
    // Where nothing positive is added the curve falls without area: its precision is only needed once it goes on.
    let mut last = Some(1.0);
    for (hits, misses) in groups {
        let before = (tp, fp);
        tp += u64::from(hits);
        fp += u64::from(misses);
        if hits == 0 {
            if misses > 0 {
                last = None;
            }
            continue;
        }
        let previous = last.unwrap_or_else(|| before.0 as f64 / (before.0 + before.1) as f64);
        let precision = tp as f64 / (tp + fp) as f64;
        average += f64::from(hits) * precision;
        trapezoid += f64::from(hits) * (precision + previous) / 2.0;
        last = Some(precision);
    }
    PrecisionAreas { average: average / positives as f64, trapezoid: trapezoid / positives as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coarse(scores: &[i8]) -> Vec<f64> {
        scores.iter().map(|score| f64::from(*score)).collect()
    }

    proptest! {
        #[test]
        fn auroc_is_the_count_over_all_pairs(
            id in proptest::collection::vec(-8i8..8, 1..60),
            ood in proptest::collection::vec(-8i8..8, 1..60),
        ) {
            let (id, ood) = (coarse(&id), coarse(&ood));
            let mut won = 0.0;
            for a in &id {
                for b in &ood {
                    won += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            let found = Curve::new(&id, &ood).unwrap().metrics(0.95);
            prop_assert!((found.auroc - won / (id.len() * ood.len()) as f64).abs() < 1e-15);
            prop_assert_eq!(found.official.auroc, found.auroc);
        }

        #[test]
        fn metrics_are_invariant_under_increasing_maps_and_mirror_under_exchange(
            id in proptest::collection::vec(-8i8..8, 1..60),
            ood in proptest::collection::vec(-8i8..8, 1..60),
        ) {
            let (id, ood) = (coarse(&id), coarse(&ood));
            let metrics = |id: &[f64], ood: &[f64]| Curve::new(id, ood).unwrap().metrics(0.9);
            let plain = metrics(&id, &ood);
            let map = |scores: &[f64]| -> Vec<f64> { scores.iter().map(|s| (s / 3.0).exp() * 7.0).collect() };
            let mut mapped = metrics(&map(&id), &map(&ood));
            mapped.autc = plain.autc;
            prop_assert_eq!(mapped, plain);
            let negate = |scores: &[f64]| -> Vec<f64> { scores.iter().map(|s| -s).collect() };
            let exchanged = metrics(&negate(&ood), &negate(&id));
            prop_assert_eq!(exchanged.fpr_at_tpr, plain.fpr_at_tpr_ood_positive);
            prop_assert_eq!(exchanged.aupr_in, plain.aupr_out);
            prop_assert_eq!(exchanged.aupr_in_trapezoid, plain.aupr_out_trapezoid);
            prop_assert!((exchanged.auroc - plain.auroc).abs() < 1e-15);
            prop_assert!((exchanged.autc - plain.autc).abs() < 1e-12);
        }

        #[test]
        fn fpr_is_what_the_definition_says(
            id in proptest::collection::vec(-8i8..8, 1..60),
            ood in proptest::collection::vec(-8i8..8, 1..60),
            tpr in 0.01f64..1.0,
        ) {
            let (id, ood) = (coarse(&id), coarse(&ood));
            // The strictest threshold among the scores that still accepts `tpr` of the ID side.
            let share = |scores: &[f64], t: f64| scores.iter().filter(|s| **s >= t).count() as f64 / scores.len() as f64;
            let threshold = id.iter().chain(&ood).copied().filter(|t| share(&id, *t) >= tpr).fold(f64::MIN, f64::max);
            let found = Curve::new(&id, &ood).unwrap().metrics(tpr).fpr_at_tpr;
            prop_assert_eq!(found, share(&ood, threshold));
        }
    }

    #[test]
    fn perfect_and_useless_scores() {
        let perfect = Curve::new(&[3.0, 4.0], &[1.0, 2.0]).unwrap().metrics(0.95);
        assert_eq!((perfect.fpr_at_tpr, perfect.auroc, perfect.aupr_in, perfect.aupr_out), (0.0, 1.0, 1.0, 1.0));
        let equal = Curve::new(&[1.0; 5], &[1.0; 3]).unwrap().metrics(0.95);
        assert_eq!((equal.fpr_at_tpr, equal.auroc, equal.autc), (1.0, 0.5, 0.5));
        assert_eq!(equal.aupr_in, 5.0 / 8.0);
    }

    #[test]
    fn nan_and_nothing_are_refused_by_place() {
        assert!(Curve::new(&[1.0, f64::NAN], &[0.0]).unwrap_err().to_string().contains("NaN at row 1"));
        assert_eq!(Curve::new(&[1.0], &[]).unwrap_err().kind(), ErrorKind::Empty);
        let unscored = Curve::new(&[1.0, 2.0], &[f64::NEG_INFINITY, 1.5]).unwrap().metrics(0.95);
        assert_eq!(unscored.auroc, 0.75);
    }

    #[test]
    fn ccr_counts_correct_inputs_above_the_threshold() {
        let id = [5.0, 4.0, 3.0, 2.0];
        let correct = [true, false, true, true];
        let ood = [1.0, 2.5, 0.0, -1.0];
        // ceil(0.25 * 4) = 1: the largest OOD score, 2.5.
        assert_eq!(ccr_at_fpr(&id, &correct, &ood, 0.25).unwrap(), 0.5);
        assert_eq!(ccr_at_fpr(&id, &correct, &ood, 1.0).unwrap(), 0.75);
        assert!(ccr_at_fpr(&id, &correct[1..], &ood, 0.5).is_err());
        assert!(ccr_at_fpr(&id, &correct, &ood, 0.0).is_err());
    }
}
