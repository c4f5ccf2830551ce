//! The paired bootstrap: what detectors lose against each other on the same inputs, with intervals.
//!
//! In each replicate the in-distribution inputs and those of each set are drawn anew with replacement, and every detector is measured
//! on that very draw: what a draw of harder inputs does to all of them cancels in their differences. Loss is averaged over sets.
//! Intervals are percentiles.

use rayon::prelude::*;

use super::{Curve, Interval, Rates, auroc, fpr_at_tpr};
use crate::error::Result;
use crate::random::SplitMix64;

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
    fn of(self, rates: Rates) -> f64 {
        match self {
            Self::Fpr => rates.fpr_at_tpr,
            Self::Auroc => 1.0 - rates.auroc,
        }
    }

    /// The loss of scores at a TPR in (0, 1].
    pub(crate) fn measure(self, id: &[f64], ood: &[f64], tpr: f64) -> Result<f64> {
        Ok(self.of(Curve::new(id, ood)?.rates(tpr)))
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

/// Losses of detectors over all sets of all settings, in the given draws and in replicates of them.
pub(crate) struct Compared {
    /// By detector.
    pub(crate) losses: Vec<f64>,
    /// By replicate, then by detector.
    replicates: Vec<Vec<f64>>,
    level: f64,
}

/// One detector on one set: all rows by score, descending.
struct Ranked {
    /// Row numbers, those of the out-of-distribution set behind the others.
    rows: Vec<u32>,
    /// The ends of runs of equal scores.
    ends: Vec<u32>,
    ids: usize,
}

impl Ranked {
    fn new(id: &[f64], ood: &[f64]) -> Self {
        let scores: Vec<f64> = id.iter().chain(ood).copied().collect();
        let mut rows: Vec<u32> = (0..scores.len() as u32).collect();
        rows.sort_unstable_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
        let differ = |at: &u32| {
            let at = *at as usize;
            at == rows.len() || scores[rows[at - 1] as usize] != scores[rows[at] as usize]
        };
        let ends = (1..=rows.len() as u32).filter(differ).collect();
        Self { rows, ends, ids: id.len() }
    }

    /// The rates where each row counts as often as it was drawn.
    fn rates(&self, id: &[u32], ood: &[u32], tpr: f64, groups: &mut Vec<(u32, u32)>) -> Rates {
        groups.clear();
        let mut start = 0;
        for end in &self.ends {
            let mut group = (0, 0);
            for row in &self.rows[start..*end as usize] {
                match (*row as usize).checked_sub(self.ids) {
                    None => group.0 += id[*row as usize],
                    Some(row) => group.1 += ood[row],
                }
            }
            start = *end as usize;
            if group != (0, 0) {
                groups.push(group);
            }
        }
        Rates { fpr_at_tpr: fpr_at_tpr(groups.iter().copied(), tpr), auroc: auroc(groups) }
    }
}

impl Compared {
    /// Compares detectors by `loss` at `tpr`; the same seed gives the same intervals on any number of threads.
    pub(crate) fn new(settings: &[Setting], loss: Loss, tpr: f64, replicates: u32, level: f64, seed: u64) -> Self {
        let ranked = |setting: &Setting| -> Vec<Vec<Ranked>> {
            let set = |set: &Vec<Vec<f64>>| setting.id.iter().zip(set).map(|(id, ood)| Ranked::new(id, ood)).collect();
            setting.sets.iter().map(set).collect()
        };
        let all: Vec<Vec<Vec<Ranked>>> = settings.iter().map(ranked).collect();
        let detectors = settings.first().map_or(0, |setting| setting.id.len());
        let losses = |draw: &mut dyn FnMut(usize) -> Vec<u32>| -> Vec<f64> {
            let (mut sums, mut sets, mut groups) = (vec![0.0; detectors], 0.0, Vec::new());
            for (setting, ranked) in settings.iter().zip(&all) {
                let id = draw(setting.id.first().map_or(0, Vec::len));
                for (set, ranked) in setting.sets.iter().zip(ranked) {
                    let ood = draw(set.first().map_or(0, Vec::len));
                    sets += 1.0;
                    for (sum, ranked) in sums.iter_mut().zip(ranked) {
                        *sum += loss.of(ranked.rates(&id, &ood, tpr, &mut groups));
                    }
                }
            }
            sums.iter().map(|sum| sum / sets).collect()
        };
        let replicate = |replicate: u64| {
            let mut random = SplitMix64::new(SplitMix64::mix(seed) ^ SplitMix64::mix(!replicate));
            losses(&mut |rows| drawn(rows, &mut random))
        };
        Self {
            losses: losses(&mut |rows| vec![1; rows]),
            replicates: (0..u64::from(replicates.max(1))).into_par_iter().map(replicate).collect(),
            level,
        }
    }

    /// Where the loss of a detector lies.
    pub(crate) fn interval(&self, detector: usize) -> Interval {
        self.percentiles(|losses| losses[detector])
    }

    /// Where the loss of one detector less that of another lies.
    pub(crate) fn difference(&self, one: usize, other: usize) -> Interval {
        self.percentiles(|losses| losses[one] - losses[other])
    }

    fn percentiles(&self, of: impl Fn(&[f64]) -> f64) -> Interval {
        let mut values: Vec<f64> = self.replicates.iter().map(|losses| of(losses)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (last, tail) = ((values.len() - 1) as f64, (1.0 - self.level.clamp(0.0, 1.0)) / 2.0);
        Interval { low: values[(tail * last).floor() as usize], high: values[((1.0 - tail) * last).ceil() as usize] }
    }
}

/// How often each of so many rows is drawn in as many draws.
fn drawn(rows: usize, random: &mut SplitMix64) -> Vec<u32> {
    let mut counts = vec![0; rows];
    (0..rows).for_each(|_| counts[random.below(rows as u64) as usize] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
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
        let mut side = |shift: f64| -> Vec<f64> { (0..100).map(|_| uniform(&mut random) + shift).collect() };
        let (id, ood) = (side(0.3), side(0.0));
        let setting = Setting { id: vec![id.clone(), id], sets: vec![vec![ood.clone(), ood]] };
        let compared = Compared::new(&[setting], Loss::Fpr, 0.95, 50, 0.95, 0);
        assert_eq!(compared.difference(0, 1), Interval { low: 0.0, high: 0.0 });
        assert!(compared.interval(0).low < compared.interval(0).high);
    }
}
