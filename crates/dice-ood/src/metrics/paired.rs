//! A paired bootstrap: detectors scored the same inputs, so the same inputs are drawn for all of them. What their scores have in
//! common then cancels from differences.
//!
//! Of sides of more than 4,096 inputs as many are taken, one from each of 4,096 equal parts of the side, and as many inputs as the
//! side has are drawn from those: the spread is that of the whole side, estimated from 4,096 of its inputs. For a rate that is an
//! error of a few hundredths of the standard error; estimates themselves rest on all inputs.
//!
//! `evaluation/advice` takes standard errors of differences ([`Replicates`]), `tune` percentile intervals of losses that are averaged
//! over the sets of one or several networks ([`Compared`]).

use rayon::prelude::*;

use super::bootstrap::draw_evenly;
use super::{Curve, Interval, auroc, descending_key, fpr_at_tpr};
use crate::error::Result;
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

impl PairedScores<'_> {
    /// A metric of all inputs on each set; NaN where there is none.
    pub(crate) fn exact(&self, metric: &OfGroups) -> Vec<f64> {
        let of = |ood: &&[f64]| Curve::new(self.id, ood).map_or(f64::NAN, |curve| metric(curve.groups()));
        self.ood.iter().map(of).collect()
    }
}

/// A metric of every detector on every set, for each drawing of the inputs.
#[derive(Debug)]
pub(crate) struct Replicates {
    /// `[replicates][detectors][sets]`
    values: Vec<f64>,
    /// The same of the inputs that are drawn from, each once: `[detectors][sets]`.
    taken: Vec<f64>,
    detectors: usize,
    sets: usize,
}

impl Replicates {
    /// Draws the inputs `count` times and takes `metric` of `detectors`, all of the same inputs; the same seed draws the same.
    pub(crate) fn draw(detectors: &[PairedScores<'_>], metric: &OfGroups, count: usize, seed: u64) -> Self {
        let Some(first) = detectors.first() else {
            return Self { values: Vec::new(), taken: Vec::new(), detectors: 0, sets: 0 };
        };
        let sides: Vec<Side> = std::iter::once(first.id)
            .chain(first.ood.iter().copied())
            .map(|side| Side::new(side.len(), seed))
            .collect();
        let sets = first.ood.len();
        let pairs: Vec<Pair> = detectors
            .par_iter()
            .flat_map_iter(|one| one.ood.iter().enumerate().map(|(set, ood)| Pair::new(&sides, one.id, ood, set)))
            .collect();
        let of_drawn = |drawn: Vec<Vec<u32>>| -> Vec<f64> {
            let mut groups = Vec::new();
            let of =
                |(place, pair): (usize, &Pair)| pair.metric(&drawn[0], &drawn[1 + place % sets], &mut groups, metric);
            pairs.iter().enumerate().map(of).collect()
        };
        let replicate = |number: u64| {
            let mut random = SplitMix64::new(SplitMix64::mix(seed) ^ SplitMix64::mix(!number));
            of_drawn(sides.iter().map(|side| side.draw(&mut random)).collect())
        };
        let values = (0..count as u64).into_par_iter().flat_map_iter(replicate).collect();
        let taken = of_drawn(sides.iter().map(|side| vec![1; side.taken.len()]).collect());
        Self { values, taken, detectors: detectors.len(), sets }
    }

    /// For each drawing, by how much the sum over sets of the metric of each detector differs from that of the inputs that are
    /// drawn from: `[replicates][detectors]`.
    fn deviations(&self) -> impl Iterator<Item = Vec<f64>> {
        let size = (self.detectors * self.sets).max(1);
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        self.values.chunks_exact(size).map(move |replicate| {
            let sets = self.sets.max(1);
            let pairs = replicate.chunks_exact(sets).zip(self.taken.chunks_exact(sets));
            pairs.map(|(drawn, taken)| sum(drawn) - sum(taken)).collect()
        })
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

/// A metric as a number of which less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The share of out-of-distribution inputs accepted where a given share of in-distribution ones is.
    Fpr,
    /// One minus the area under the ROC curve.
    Auroc,
}

impl Loss {
    fn of_groups(self, groups: &[(u32, u32)], tpr: f64) -> f64 {
        match self {
            Self::Fpr => fpr_at_tpr(groups.iter().copied(), tpr),
            Self::Auroc => 1.0 - auroc(groups),
        }
    }

    /// The loss of scores at a TPR in (0, 1].
    pub(crate) fn measure(self, id: &[f64], ood: &[f64], tpr: f64) -> Result<f64> {
        Ok(self.of_groups(Curve::new(id, ood)?.groups(), tpr))
    }
}

/// What detectors make of in-distribution inputs and of sets that are not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    /// By detector `[n]`.
    pub(crate) id: Vec<Vec<f64>>,
    /// By set, then by detector `[m]`.
    pub(crate) sets: Vec<Vec<Vec<f64>>>,
}

impl Setting {
    fn scores(&self) -> Vec<PairedScores<'_>> {
        let of = |detector: usize| self.sets.iter().map(|set| &set[detector][..]).collect();
        self.id.iter().enumerate().map(|(detector, id)| PairedScores { id, ood: of(detector) }).collect()
    }
}

/// Losses of detectors, averaged over all sets of all settings, and how they vary with the inputs.
pub(crate) struct Compared {
    /// By detector, of all inputs.
    pub(crate) losses: Vec<f64>,
    /// By replicate, then by detector: what is to be added to the losses.
    deviations: Vec<Vec<f64>>,
    level: f64,
}

impl Compared {
    /// Compares detectors by `loss` at `tpr`; the same seed gives the same intervals on any number of threads.
    pub(crate) fn new(settings: &[Setting], loss: Loss, tpr: f64, replicates: u32, level: f64, seed: u64) -> Self {
        let metric = move |groups: &[(u32, u32)]| loss.of_groups(groups, tpr);
        let detectors = settings.first().map_or(0, |setting| setting.id.len());
        let sets = settings.iter().map(|setting| setting.sets.len()).sum::<usize>().max(1) as f64;
        let replicates = replicates.max(1) as usize;
        let (mut losses, mut deviations) = (vec![0.0; detectors], vec![vec![0.0; detectors]; replicates]);
        for (place, setting) in settings.iter().enumerate() {
            let scores = setting.scores();
            let exact = scores.iter().map(|one| one.exact(&metric).iter().sum::<f64>());
            losses.iter_mut().zip(exact).for_each(|(sum, loss)| *sum += loss / sets);
            let drawn = Replicates::draw(&scores, &metric, replicates, seed.wrapping_add(place as u64));
            for (sums, deviation) in deviations.iter_mut().zip(drawn.deviations()) {
                sums.iter_mut().zip(deviation).for_each(|(sum, deviation)| *sum += deviation / sets);
            }
        }
        Self { losses, deviations, level }
    }

    /// Where the loss of a detector lies.
    pub(crate) fn interval(&self, detector: usize) -> Interval {
        let Interval { low, high } = self.percentiles(|values| values[detector]);
        Interval { low: low.clamp(0.0, 1.0), high: high.clamp(0.0, 1.0) }
    }

    /// Where the loss of one detector less that of another lies.
    pub(crate) fn difference(&self, one: usize, other: usize) -> Interval {
        self.percentiles(|values| values[one] - values[other])
    }

    fn percentiles(&self, of: impl Fn(&[f64]) -> f64) -> Interval {
        let around = of(&self.losses);
        let mut values: Vec<f64> = self.deviations.iter().map(|deviation| around + of(deviation)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (last, tail) = ((values.len() - 1) as f64, (1.0 - self.level.clamp(0.0, 1.0)) / 2.0);
        Interval { low: values[(tail * last).floor() as usize], high: values[((1.0 - tail) * last).ceil() as usize] }
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

    #[test]
    fn losses_are_those_of_the_curve_with_ties_too() {
        let mut random = SplitMix64::new(3);
        let mut side =
            |count: usize, shift: u64| -> Vec<f64> { (0..count).map(|_| (random.below(20) + shift) as f64).collect() };
        let setting = Setting {
            id: vec![side(80, 5), side(80, 2)],
            sets: vec![vec![side(60, 0), side(60, 0)], vec![side(30, 1), side(30, 1)]],
        };
        for loss in [Loss::Fpr, Loss::Auroc] {
            let compared = Compared::new(std::slice::from_ref(&setting), loss, 0.95, 20, 0.95, 0);
            for detector in 0..2 {
                let of = |set: usize| loss.measure(&setting.id[detector], &setting.sets[set][detector], 0.95).unwrap();
                assert!((compared.losses[detector] - (of(0) + of(1)) / 2.0).abs() < 1e-12);
            }
            let again = Compared::new(std::slice::from_ref(&setting), loss, 0.95, 20, 0.95, 0);
            assert_eq!(compared.difference(0, 1), again.difference(0, 1));
        }
    }

    #[test]
    fn a_detector_does_not_differ_from_itself_whatever_is_drawn() {
        let mut random = SplitMix64::new(1);
        let mut side =
            |shift: f64| -> Vec<f64> { uniform(100, &mut random).into_iter().map(|value| value + shift).collect() };
        let (id, ood) = (side(0.3), side(0.0));
        let setting = Setting { id: vec![id.clone(), id], sets: vec![vec![ood.clone(), ood]] };
        let compared = Compared::new(&[setting], Loss::Fpr, 0.95, 50, 0.95, 0);
        assert_eq!(compared.difference(0, 1), Interval { low: 0.0, high: 0.0 });
        assert!(compared.interval(0).low < compared.interval(0).high);
    }
    /// Intervals of sides that are drawn from in part lie around the loss of all inputs.
    #[test]
    fn intervals_lie_around_what_all_inputs_say() {
        let mut random = SplitMix64::new(9);
        let rows = 20_000;
        let (id, ood) = (uniform(rows, &mut random), uniform(rows, &mut random));
        let better: Vec<f64> = ood.iter().map(|score| score - 0.02).collect();
        let setting = Setting { id: vec![id.clone(), id], sets: vec![vec![ood, better]] };
        let compared = Compared::new(&[setting], Loss::Auroc, 0.95, 400, 0.95, 3);
        let interval = compared.interval(0);
        let (middle, reach) = ((interval.low + interval.high) / 2.0, (interval.high - interval.low) / 2.0);
        // The standard error of the AUROC of two uniform sides of n is sqrt(1 / 6n).
        let error = (1.0 / (6.0 * rows as f64)).sqrt();
        assert!((middle - compared.losses[0]).abs() < 0.5 * error, "{interval:?} around {}", compared.losses[0]);
        assert!((reach / (1.96 * error) - 1.0).abs() < 0.2, "{reach}");
        assert!(compared.difference(0, 1).low > 0.0);
    }
}
