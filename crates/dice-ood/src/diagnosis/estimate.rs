//! Numbers with intervals: a jackknife over groups of rows for functions of sums, DeLong's for a difference of AUROC.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::error::{Error, ErrorKind, Result};
use crate::random::SplitMix64;

/// Groups that rows are put into; each has sums of its own.
pub(super) const GROUPS: usize = 32;
/// Part of the hash that puts rows into groups.
const SEED: u64 = 0x6469_6167_6e6f_7365;
/// The level of intervals.
const LEVEL: f64 = 0.95;

/// A number and its 95 % interval. The ends are NaN (`null` in JSON) where the sample is too small for one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// The number `half` to either side.
    fn about(value: f64, half: f64) -> Self {
        Self { value, low: value - half, high: value + half }
    }
}

/// The group of a row, by its place alone: neither blocks nor an order of the rows by class make groups unlike each other.
pub(super) fn group_of(row: u64) -> usize {
    (SplitMix64::mix(row ^ SEED) % GROUPS as u64) as usize
}

/// Sums of `width` values, by group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    width: usize,
    values: Vec<f64>,
}

impl Sums {
    pub(super) fn new(width: usize) -> Self {
        Self { width, values: vec![0.0; GROUPS * width] }
    }

    /// The sums of a group.
    pub(super) fn of(&mut self, group: usize) -> &mut [f64] {
        &mut self.values[group * self.width..][..self.width]
    }

    /// The sums over all groups but `left_out`.
    pub(super) fn without(&self, left_out: Option<usize>) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        let parts = self.values.chunks_exact(self.width.max(1)).enumerate();
        for (_, part) in parts.filter(|(group, _)| Some(*group) != left_out) {
            sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        sums
    }
}

/// What to leave out, first nothing and then each group that has rows in turn, with the rows of what is left out.
pub(super) fn folds(rows: &[u64; GROUPS]) -> Vec<(Option<usize>, u64)> {
    let groups = rows.iter().enumerate().filter(|(_, rows)| **rows > 0);
    std::iter::once((None, 0)).chain(groups.map(|(group, rows)| (Some(group), *rows))).collect()
}

/// The estimate from the values of a statistic for each of `folds`: the delete-a-group jackknife for groups of unequal size
/// (Busing, Meijer and van der Leeden 1999, equation 6), with Student's quantile.
pub(super) fn jackknife(folds: &[(Option<usize>, u64)], values: &[f64]) -> Estimate {
    let (whole, parts) = (values[0], &values[1..]);
    let total: u64 = folds.iter().map(|(_, rows)| rows).sum();
    let groups = parts.len() as f64;
    if parts.len() < 2 {
        return Estimate::about(whole, f64::NAN);
    }
    let shares = folds[1..].iter().map(|(_, rows)| *rows as f64 / total as f64);
    let centre = groups * whole - shares.clone().zip(parts).map(|(share, part)| (1.0 - share) * part).sum::<f64>();
    let squares = shares.zip(parts).map(|(share, part)| {
        let times = 1.0 / share;
        (times * whole - (times - 1.0) * part - centre).powi(2) / (times - 1.0)
    });
    let deviation = (squares.sum::<f64>() / groups).sqrt();
    let quantile = StudentsT::new(0.0, 1.0, groups - 1.0).map_or(f64::NAN, |law| law.inverse_cdf(0.5 + LEVEL / 2.0));
    Estimate::about(whole, quantile * deviation)
}

/// AUROC of `after` less that of `before`, both scores of the same inputs, with the interval of DeLong, DeLong and
/// Clarke-Pearson (1988). Each is a pair of scores of ID and of OOD inputs.
pub(super) fn auroc_gain(before: (&[f64], &[f64]), after: (&[f64], &[f64])) -> Result<Estimate> {
    let (of_id, of_ood) = placements(before.0, before.1)?;
    let (to_id, to_ood) = placements(after.0, after.1)?;
    let differences = |to: &[f64], of: &[f64]| to.iter().zip(of).map(|(to, of)| to - of).collect::<Vec<f64>>();
    let (id, ood) = (differences(&to_id, &of_id), differences(&to_ood, &of_ood));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let value = mean(&id);
    let of_mean = |values: &[f64]| {
        let (mean, count) = (mean(values), values.len() as f64);
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
    };
    let quantile = Normal::standard().inverse_cdf(0.5 + LEVEL / 2.0);
    Ok(Estimate::about(value, quantile * (of_mean(&id) + of_mean(&ood)).sqrt()))
}

/// For each ID score the share of OOD scores below it, and for each OOD score the share of ID scores above it; ties one half.
fn placements(id: &[f64], ood: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    if id.is_empty() || ood.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "no scores").expected("at least one on each side"));
    }
    let sorted = |scores: &[f64]| {
        let mut sorted = scores.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    };
    let below = |others: &[f64], score: f64| {
        let less = others.partition_point(|other| *other < score);
        let not_more = others.partition_point(|other| *other <= score);
        (less + not_more) as f64 / (2 * others.len()) as f64
    };
    let (all_id, all_ood) = (sorted(id), sorted(ood));
    let of_id = id.iter().map(|score| below(&all_ood, *score)).collect();
    Ok((of_id, ood.iter().map(|score| 1.0 - below(&all_id, *score)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(random: &mut SplitMix64) -> f64 {
        // Twelve uniforms: near enough to normal for a coverage.
        (0..12).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }

    /// Of 400 intervals of a variance of 300 rows, as many hold the truth as the level says, within five deviations.
    #[test]
    fn the_jackknife_covers() {
        let mut random = SplitMix64::new(7);
        let mut covered = 0;
        for _ in 0..400 {
            let (mut sums, mut rows) = (Sums::new(2), [0; GROUPS]);
            for row in 0..300 {
                let (value, group) = (3.0 + 2.0 * normal(&mut random), group_of(row));
                rows[group] += 1;
                sums.of(group).iter_mut().zip([value, value * value]).for_each(|(sum, value)| *sum += value);
            }
            let folds = folds(&rows);
            let variance = |(fold, left_out): &(Option<usize>, u64)| {
                let (sums, count) = (sums.without(*fold), (300 - left_out) as f64);
                sums[1] / count - (sums[0] / count).powi(2)
            };
            let found = jackknife(&folds, &folds.iter().map(variance).collect::<Vec<_>>());
            covered += usize::from((found.low..found.high).contains(&4.0));
        }
        assert!((358..=400).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn few_rows_have_no_interval() {
        let found = jackknife(&[(None, 0), (Some(3), 5)], &[1.5, 0.0]);
        assert!(found.value == 1.5 && found.low.is_nan() && found.high.is_nan());
    }

    /// Against all pairs, one by one.
    #[test]
    fn the_gain_is_that_of_all_pairs() {
        let mut random = SplitMix64::new(1);
        let mut scores = |count: usize| -> Vec<f64> { (0..count).map(|_| random.below(9) as f64).collect() };
        let (before, after) = ((scores(40), scores(30)), (scores(40), scores(30)));
        let won = |id: &f64, ood: &f64| {
            if id > ood {
                1.0
            } else if id == ood {
                0.5
            } else {
                0.0
            }
        };
        let auroc = |(id, ood): &(Vec<f64>, Vec<f64>)| {
            id.iter().flat_map(|id| ood.iter().map(move |ood| won(id, ood))).sum::<f64>() / 1200.0
        };
        let found = auroc_gain((&before.0, &before.1), (&after.0, &after.1)).unwrap();
        assert!((found.value - (auroc(&after) - auroc(&before))).abs() < 1e-14);
        let same = auroc_gain((&before.0, &before.1), (&before.0, &before.1)).unwrap();
        assert_eq!((same.value, same.low, same.high), (0.0, 0.0, 0.0));
        assert!(auroc_gain((&[], &[1.0]), (&[], &[1.0])).is_err());
    }
}
