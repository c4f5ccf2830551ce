//! A paired bootstrap: detectors scored the same inputs, so the same inputs are drawn for all of them. What their scores have in
//! common then cancels from differences.
//!
//! Of sides of more than 4,096 inputs as many are taken, one from each of 4,096 equal parts of the side, and as many inputs as the
//! side has are drawn from those: the spread is that of the whole side, estimated from 4,096 of its inputs. For a rate that is an
//! error of a few hundredths of the standard error; estimates themselves rest on all inputs.

use rayon::prelude::*;

use super::bootstrap::draw_evenly;
use super::descending_key;
use crate::random::SplitMix64;

/// Inputs of a side that are drawn from.
const MOST: usize = 4096;

/// Sides of more inputs are drawn as counts.
const MOST_ONE_BY_ONE: usize = 1 << 16;

/// What one detector scores: the in-distribution inputs `[N]`, and those of each set.
#[derive(Debug, Clone)]
pub(crate) struct PairedScores<'a> {
    pub(crate) id: &'a [f64],
    pub(crate) ood: Vec<&'a [f64]>,
}

/// A metric of groups of equal scores, the highest first: how many in-distribution and out-of-distribution inputs have each.
pub(crate) type OfGroups = dyn Fn(&[(u32, u32)]) -> f64 + Sync;

/// A metric of every detector on every set, for each drawing of the inputs.
#[derive(Debug)]
pub(crate) struct Replicates {
    /// `[replicates][detectors][sets]`
    values: Vec<f64>,
    detectors: usize,
    sets: usize,
}

impl Replicates {
    /// Draws the inputs `count` times and takes `metric` of `detectors`, all of the same inputs; the same seed draws the same.
    pub(crate) fn draw(detectors: &[PairedScores<'_>], metric: &OfGroups, count: usize, seed: u64) -> Self {
        let Some(first) = detectors.first() else { return Self { values: Vec::new(), detectors: 0, sets: 0 } };
        let sides: Vec<Side> = std::iter::once(first.id)
            .chain(first.ood.iter().copied())
            .map(|side| Side::new(side.len(), seed))
            .collect();
        let sets = first.ood.len();
        let pairs: Vec<Pair> = detectors
            .par_iter()
            .flat_map_iter(|one| one.ood.iter().enumerate().map(|(set, ood)| Pair::new(&sides, one.id, ood, set)))
            .collect();
        let replicate = |number: u64| -> Vec<f64> {
            let mut random = SplitMix64::new(SplitMix64::mix(seed) ^ SplitMix64::mix(!number));
            let drawn: Vec<Vec<u32>> = sides.iter().map(|side| side.draw(&mut random)).collect();
            let mut groups = Vec::new();
            let of =
                |(place, pair): (usize, &Pair)| pair.metric(&drawn[0], &drawn[1 + place % sets], &mut groups, metric);
            pairs.iter().enumerate().map(of).collect()
        };
        let values = (0..count as u64).into_par_iter().flat_map_iter(replicate).collect();
        Self { values, detectors: detectors.len(), sets }
    }

    /// The standard error of the mean over `sets` of the metric of detector `one` less that of detector `other`.
    pub(crate) fn standard_error(&self, one: usize, other: usize, sets: &[usize]) -> f64 {
        let mean = |replicate: &[f64], detector: usize| {
            sets.iter().map(|set| replicate[detector * self.sets + set]).sum::<f64>() / sets.len() as f64
        };
        let size = (self.detectors * self.sets).max(1);
        let differences: Vec<f64> =
            self.values.chunks_exact(size).map(|replicate| mean(replicate, one) - mean(replicate, other)).collect();
        let count = differences.len() as f64;
        let centre = differences.iter().sum::<f64>() / count;
        (differences.iter().map(|difference| (difference - centre).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()
    }
}

/// One side, as it is drawn from.
struct Side {
    rows: usize,
    /// The rows that are drawn from.
    taken: Vec<usize>,
}

impl Side {
    fn new(rows: usize, seed: u64) -> Self {
        if rows <= MOST {
            return Self { rows, taken: (0..rows).collect() };
        }
        let mut random = SplitMix64::new(SplitMix64::mix(seed ^ rows as u64));
        let part = |part: usize| (part * rows / MOST, (part + 1) * rows / MOST);
        let one_of = |(first, end): (usize, usize)| first + random.below((end - first) as u64) as usize;
        Self { rows, taken: (0..MOST).map(part).map(one_of).collect() }
    }

    /// How often each of the rows taken is drawn, as often in all as there are rows.
    fn draw(&self, random: &mut SplitMix64) -> Vec<u32> {
        let cells = self.taken.len();
        let mut drawn = vec![0; cells];
        match self.rows <= MOST_ONE_BY_ONE {
            true => (0..self.rows).for_each(|_| drawn[random.below(cells as u64) as usize] += 1),
            false => draw_evenly(self.rows as u64, &mut drawn, random),
        }
        drawn
    }
}

/// The groups of equal scores of one detector and set.
struct Pair {
    /// The group of each row taken, by side.
    id: Vec<u32>,
    ood: Vec<u32>,
    groups: usize,
}

impl Pair {
    fn new(sides: &[Side], id: &[f64], ood: &[f64], set: usize) -> Self {
        let (ids, oods) = (&sides[0].taken, &sides[1 + set].taken);
        let scores = ids.iter().map(|row| id[*row]).chain(oods.iter().map(|row| ood[*row]));
        let mut order: Vec<(u64, u32)> = scores.map(descending_key).zip(0..).collect();
        order.sort_unstable();
        let mut group_of = vec![0; order.len()];
        let mut groups = 0;
        for equal in order.chunk_by(|a, b| a.0 == b.0) {
            equal.iter().for_each(|(_, place)| group_of[*place as usize] = groups);
            groups += 1;
        }
        let of_ood = group_of.split_off(ids.len());
        Self { id: group_of, ood: of_ood, groups: groups as usize }
    }

    fn metric(&self, ids: &[u32], oods: &[u32], groups: &mut Vec<(u32, u32)>, metric: &OfGroups) -> f64 {
        groups.clear();
        groups.resize(self.groups, (0, 0));
        self.id.iter().zip(ids).for_each(|(group, drawn)| groups[*group as usize].0 += drawn);
        self.ood.iter().zip(oods).for_each(|(group, drawn)| groups[*group as usize].1 += drawn);
        metric(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{auroc, fpr_at_tpr};

    fn uniform(count: usize, random: &mut SplitMix64) -> Vec<f64> {
        (0..count).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).collect()
    }

    #[test]
    fn a_metric_of_drawn_groups_is_that_of_the_rows_drawn() {
        let mut random = SplitMix64::new(3);
        let round = |values: Vec<f64>| values.into_iter().map(|value| (value * 20.0).floor()).collect::<Vec<f64>>();
        let (id, ood) = (round(uniform(60, &mut random)), round(uniform(40, &mut random)));
        let sides = [Side::new(60, 0), Side::new(40, 0)];
        let pair = Pair::new(&sides, &id, &ood, 0);
        let (ids, oods) = (sides[0].draw(&mut random), sides[1].draw(&mut random));
        assert_eq!((ids.iter().sum::<u32>(), oods.iter().sum::<u32>()), (60, 40));
        let again = |scores: &[f64], drawn: &[u32]| -> Vec<f64> {
            scores.iter().zip(drawn).flat_map(|(score, drawn)| std::iter::repeat_n(*score, *drawn as usize)).collect()
        };
        let metrics = crate::metrics::Curve::new(&again(&id, &ids), &again(&ood, &oods)).unwrap().metrics(0.9);
        let mut groups = Vec::new();
        assert_eq!(pair.metric(&ids, &oods, &mut groups, &auroc), metrics.auroc);
        let fpr = |groups: &[(u32, u32)]| fpr_at_tpr(groups.iter().copied(), 0.9);
        assert_eq!(pair.metric(&ids, &oods, &mut groups, &fpr), metrics.fpr_at_tpr);
    }

    /// What two detectors have in common cancels, and a part of a large side has the spread of the whole.
    #[test]
    fn differences_are_paired_and_large_sides_keep_their_spread() {
        let mut random = SplitMix64::new(5);
        for rows in [1000usize, 20_000] {
            let id = uniform(rows, &mut random);
            let ood: Vec<f64> = uniform(rows, &mut random).into_iter().map(|score| score - 0.5).collect();
            let twice: Vec<f64> = id.iter().map(|score| 2.0 * score).collect();
            let ood_twice: Vec<f64> = ood.iter().map(|score| 2.0 * score).collect();
            let other = uniform(rows, &mut random);
            let detectors = [(&id, &ood), (&twice, &ood_twice), (&other, &ood)]
                .map(|(id, ood)| PairedScores { id, ood: vec![&ood[..]] });
            let replicates = Replicates::draw(&detectors, &auroc, 400, 1);
            assert_eq!(replicates.standard_error(0, 1, &[0]), 0.0, "the same order, the same metric");
            // AUROC is 7/8, and the share of OOD scores below an ID score has the second moment 19/24. ID scores are independent
            // and OOD scores the same: only the ID part of the variance is left, twice.
            let variance = 19.0 / 24.0 - 49.0 / 64.0;
            let expected = (2.0 * variance / rows as f64).sqrt();
            let found = replicates.standard_error(0, 2, &[0]);
            assert!((found / expected - 1.0).abs() < 0.15, "{rows}: {found} for {expected}");
        }
    }
}
