//! Bootstrap percentile intervals: both sides drawn anew with replacement, as counts over the groups of equal scores.
//!
//! Small sets are drawn a row at a time. Of large ones only the counts are drawn, by halving: a binomial says how many
//! of all draws fall into the first half of the groups, and so on down to single groups. That is the multinomial law
//! exactly, and costs one random word for 64 rows and level instead of one visit of memory for every row.
//!
//! Large sets of scores without ties have as many groups as rows. Their neighbours are merged first, into groups of at most
//! 2^-13 of either side. The intervals lie around the exact estimate all the same, since what is drawn is the deviation
//! from the estimate of the merged groups. What merging can change is how far that deviation reaches: in FPR by less than
//! what one group draws (below 2^-11), in AUROC by less than the ties that merging makes (2^-14), in AUPR by the change
//! of precision within one group.

use rayon::prelude::*;

use super::{Curve, Interval, Intervals, auroc, fpr_at_tpr, mirrored, precision_areas, totals};
use crate::random::SplitMix64;

/// Sides of at most so many rows are drawn a row at a time.
const MOST_ROWS: u64 = 1 << 16;
/// A merged group holds at most this power of one half of either side, unless all its scores are equal.
const GRID_BITS: u32 = 13;

type Counts = Vec<(u32, u32)>;

/// Rates of groups of equal scores, always as many.
pub(crate) type Rates<'a> = dyn Fn(&[(u32, u32)]) -> Vec<f64> + Sync + 'a;

/// How the sides are drawn.
#[derive(Clone, Copy)]
enum Drawing {
    /// A row at a time.
    Rows,
    /// The counts of groups, after merging to that grid.
    Counts { grid_bits: u32 },
}

impl Curve {
    /// Bootstrap percentile intervals at `level` from `replicates` resamplings of both sides; the same seed gives the
    /// same intervals on any machine. Sides of more than 2^16 rows are resampled on a grid of 2^13 parts of either side:
    /// that moves an end of FPR by less than 2^-11 and one of AUROC by less than 2^-14; estimates stay exact.
    pub fn intervals(&self, tpr: f64, replicates: usize, level: f64, seed: u64) -> Intervals {
        self.intervals_observed(tpr, replicates, level, seed, &|_| Vec::new(), &|| ()).0
    }

    /// The same, and behind them intervals of other rates of the groups, by the same replicates; calls `drawn` after each, from any
    /// thread.
    pub(crate) fn intervals_observed(
        &self,
        tpr: f64,
        replicates: usize,
        level: f64,
        seed: u64,
        more: &Rates<'_>,
        drawn: &(dyn Fn() + Sync),
    ) -> (Intervals, Vec<Interval>) {
        let (ids, oods) = totals(&self.counts);
        let drawing = if ids.max(oods) <= MOST_ROWS { Drawing::Rows } else { Drawing::Counts { grid_bits: GRID_BITS } };
        let rates = |groups: &[(u32, u32)]| {
            let mut rates = estimates(groups, tpr).to_vec();
            rates.extend(more(groups));
            rates
        };
        let mut found = self.intervals_by(drawing, &rates, replicates, level, seed, drawn);
        let others = found.split_off(4);
        (Intervals { fpr_at_tpr: found[0], auroc: found[1], aupr_in: found[2], aupr_out: found[3] }, others)
    }

    /// An interval of each of `rates`.
    fn intervals_by(
        &self,
        drawing: Drawing,
        rates: &Rates<'_>,
        replicates: usize,
        level: f64,
        seed: u64,
        drawn: &(dyn Fn() + Sync),
    ) -> Vec<Interval> {
        let exact = rates(&self.counts);
        let merged;
        let (counts, shift) = match drawing {
            Drawing::Rows => (&self.counts, vec![0.0; exact.len()]),
            Drawing::Counts { grid_bits } => {
                merged = merge(&self.counts, grid_bits);
                (&merged, exact.iter().zip(rates(&merged)).map(|(exact, coarse)| exact - coarse).collect())
            }
        };
        let (id, ood) = (Cumulated::new(counts, |group| group.0), Cumulated::new(counts, |group| group.1));
        let draws: Vec<Vec<f64>> = (0..replicates.max(1) as u64)
            .into_par_iter()
            .map_init(
                || (counts.clone(), vec![0u32; counts.len()]),
                |(counts, drawn_counts), replicate| {
                    let mut random = SplitMix64::new(SplitMix64::mix(seed) ^ SplitMix64::mix(!replicate));
                    id.draw(drawing, drawn_counts, &mut random);
                    counts.iter_mut().zip(&*drawn_counts).for_each(|(group, drawn)| group.0 = *drawn);
                    ood.draw(drawing, drawn_counts, &mut random);
                    counts.iter_mut().zip(&*drawn_counts).for_each(|(group, drawn)| group.1 = *drawn);
                    let found = rates(counts);
                    drawn();
                    found.iter().zip(&shift).map(|(found, shift)| (found + shift).clamp(0.0, 1.0)).collect()
                },
            )
            .collect();
        (0..exact.len()).map(|rate| percentiles(draws.iter().map(|draw| draw[rate]).collect(), level)).collect()
    }
}

/// The middle part of values, of which `level` are inside.
fn percentiles(mut values: Vec<f64>, level: f64) -> Interval {
    values.sort_unstable_by(f64::total_cmp);
    let (last, tail) = ((values.len() - 1) as f64, (1.0 - level.clamp(0.0, 1.0)) / 2.0);
    Interval { low: values[(tail * last).floor() as usize], high: values[((1.0 - tail) * last).ceil() as usize] }
}

/// The metrics that get intervals, in the order of [`Intervals`].
fn estimates(counts: &[(u32, u32)], tpr: f64) -> [f64; 4] {
    [
        fpr_at_tpr(counts.iter().copied(), tpr),
        auroc(counts),
        precision_areas(counts.iter().copied()).average,
        precision_areas(mirrored(counts)).average,
    ]
}

/// Merges neighbouring groups as long as neither side of the result exceeds its share of the grid.
fn merge(counts: &[(u32, u32)], grid_bits: u32) -> Counts {
    let (ids, oods) = totals(counts);
    let (most_ids, most_oods) = ((ids >> grid_bits).max(1), (oods >> grid_bits).max(1));
    let mut merged: Counts = Vec::new();
    for (id, ood) in counts {
        match merged.last_mut() {
            Some(last)
                if u64::from(last.0) + u64::from(*id) <= most_ids
                    && u64::from(last.1) + u64::from(*ood) <= most_oods =>
            {
                *last = (last.0 + id, last.1 + ood);
            }
            _ => merged.push((*id, *ood)),
        }
    }
    merged
}

/// One side of the groups, to be drawn from.
struct Cumulated {
    /// Rows before each group, and behind the last one all rows.
    before: Vec<u64>,
}

impl Cumulated {
    fn new(counts: &[(u32, u32)], of: fn(&(u32, u32)) -> u32) -> Self {
        let mut rows = 0;
        let before = std::iter::once(0).chain(counts.iter().map(|group| {
            rows += u64::from(of(group));
            rows
        }));
        Self { before: before.collect() }
    }

    fn rows(&self) -> u64 {
        self.before[self.before.len() - 1]
    }

    /// Draws as many rows as there are, with replacement: `drawn[g]` of them are of group g.
    fn draw(&self, drawing: Drawing, drawn: &mut [u32], random: &mut SplitMix64) {
        match drawing {
            Drawing::Rows => self.draw_rows(drawn, random),
            Drawing::Counts { .. } => self.draw_counts(0, self.rows(), drawn, random),
        }
    }

    fn draw_rows(&self, drawn: &mut [u32], random: &mut SplitMix64) {
        // Each draw names a row; counting rows first keeps this linear without a search.
        let rows = self.rows();
        let mut hits = vec![0u32; rows as usize];
        for _ in 0..rows {
            hits[random.below(rows) as usize] += 1;
        }
        for (drawn, group) in drawn.iter_mut().zip(self.before.windows(2)) {
            *drawn = hits[group[0] as usize..group[1] as usize].iter().sum();
        }
    }

    /// Shares `draws` out among the groups from `first` on that `drawn` has room for.
    fn draw_counts(&self, first: usize, draws: u64, drawn: &mut [u32], random: &mut SplitMix64) {
        if drawn.len() <= 1 || draws == 0 {
            drawn.fill(draws as u32);
            return;
        }
        let half = drawn.len() / 2;
        let [start, middle, end] = [first, first + half, first + drawn.len()].map(|group| self.before[group]);
        let left = binomial(draws, middle - start, end - start, random);
        let (left_groups, right_groups) = drawn.split_at_mut(half);
        self.draw_counts(first, left, left_groups, random);
        self.draw_counts(first + half, draws - left, right_groups, random);
    }
}

/// Shares `draws` out among cells that are all equally likely: multinomial, exactly.
pub(super) fn draw_evenly(draws: u64, drawn: &mut [u32], random: &mut SplitMix64) {
    let cells: Counts = vec![(1, 0); drawn.len()];
    Cumulated::new(&cells, |cell| cell.0).draw_counts(0, draws, drawn, random);
}

/// How many of `draws` uniform numbers are below `part / whole`: binomial, exactly, in integers.
///
/// Numbers are compared bit by bit with the binary fraction of `part / whole`, all at once: a fair coin for each number that
/// is still undecided. Half of them are decided at every bit.
fn binomial(draws: u64, part: u64, whole: u64, random: &mut SplitMix64) -> u64 {
    if part == whole {
        return draws;
    }
    let (mut undecided, mut below, mut rest) = (draws, 0, part);
    // Without a rest all further bits of the fraction are 0, and nothing undecided is below it.
    while undecided > 0 && rest > 0 {
        rest *= 2;
        let ones = heads(undecided, random);
        if rest >= whole {
            rest -= whole;
            below += undecided - ones;
            undecided = ones;
        } else {
            undecided -= ones;
        }
    }
    below
}

/// How many of so many fair coins show heads.
fn heads(coins: u64, random: &mut SplitMix64) -> u64 {
    let whole_words: u64 = (0..coins / 64).map(|_| u64::from(random.next().count_ones())).sum();
    match coins % 64 {
        0 => whole_words,
        rest => whole_words + u64::from((random.next() >> (64 - rest)).count_ones()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn headline(groups: &[(u32, u32)]) -> Vec<f64> {
        estimates(groups, 0.95).to_vec()
    }

    /// Scores of two sides whose AUROC is 0.875: uniform on (0, 1) against uniform on (-0.5, 0.5).
    fn sides(rows: usize, seed: u64) -> Curve {
        let mut random = SplitMix64::new(SplitMix64::mix(seed));
        let id: Vec<f64> = (0..rows).map(|_| uniform(&mut random)).collect();
        let ood: Vec<f64> = (0..rows).map(|_| uniform(&mut random) - 0.5).collect();
        Curve::new(&id, &ood).unwrap()
    }

    #[test]
    fn bootstrap_is_seeded_and_brackets_the_estimate() {
        let id: Vec<f64> = (0..500).map(|i| f64::from(i * 7919 % 1000) / 1000.0 + 0.3).collect();
        let ood: Vec<f64> = (0..400).map(|i| f64::from(i * 6007 % 1000) / 1000.0).collect();
        let curve = Curve::new(&id, &ood).unwrap();
        let intervals = curve.intervals(0.95, 400, 0.95, 1);
        assert_eq!(intervals, curve.intervals(0.95, 400, 0.95, 1));
        assert_ne!(intervals, curve.intervals(0.95, 400, 0.95, 2));
        let auroc = curve.metrics(0.95).auroc;
        assert!(intervals.auroc.low < auroc && auroc < intervals.auroc.high);
        // Hanley and McNeil's standard error is near 0.013 here; the interval is about four of them wide.
        let width = intervals.auroc.high - intervals.auroc.low;
        assert!((0.03..0.09).contains(&width), "{width}");
    }

    #[test]
    fn a_binomial_has_its_mean_and_variance() {
        let mut random = SplitMix64::new(7);
        for (draws, part, whole) in [(1u64, 1u64, 3u64), (64, 1, 2), (100, 1, 7), (1000, 999, 1000), (5000, 3, 4)] {
            let (runs, p) = (4000, part as f64 / whole as f64);
            let found: Vec<f64> = (0..runs).map(|_| binomial(draws, part, whole, &mut random) as f64).collect();
            let mean = found.iter().sum::<f64>() / f64::from(runs);
            let variance = found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(runs - 1);
            let expected = draws as f64 * p * (1.0 - p);
            // Five standard errors of the mean; a variance is good to about two in a hundred here.
            assert!((mean - draws as f64 * p).abs() < 5.0 * (expected / f64::from(runs)).sqrt(), "{draws} {p}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.25, "{draws} {p}: {variance}, not {expected}");
        }
        assert_eq!((binomial(9, 0, 5, &mut random), binomial(9, 5, 5, &mut random)), (0, 9));
    }

    #[test]
    fn drawn_counts_are_multinomial() {
        let groups = [(0u32, 0u32), (1, 0), (50, 0), (0, 0), (200, 0), (749, 0)];
        let side = Cumulated::new(&groups, |group| group.0);
        let (runs, rows) = (4000, 1000.0);
        let mut random = SplitMix64::new(3);
        let mut sums = [0.0; 6];
        let mut product = 0.0;
        for _ in 0..runs {
            let mut drawn = [0; 6];
            side.draw_counts(0, 1000, &mut drawn, &mut random);
            assert_eq!(drawn.iter().sum::<u32>(), 1000);
            sums.iter_mut().zip(drawn).for_each(|(sum, drawn)| *sum += f64::from(drawn));
            product += (f64::from(drawn[4]) - 200.0) * (f64::from(drawn[5]) - 749.0);
        }
        for (sum, (size, _)) in sums.iter().zip(groups) {
            let share = f64::from(size) / rows;
            let error = (rows * share * (1.0 - share) / f64::from(runs)).sqrt();
            assert!((sum / f64::from(runs) - f64::from(size)).abs() <= 5.0 * error, "{size}: {sum}");
        }
        // Covariance -n p q of two groups.
        let covariance = product / f64::from(runs);
        assert!((covariance / (-rows * 0.2 * 0.749) - 1.0).abs() < 0.15, "{covariance}");
    }

    proptest! {
        #[test]
        fn merging_keeps_every_row_and_the_grid(
            counts in proptest::collection::vec((0u32..40, 0u32..40), 2..300), grid_bits in 1u32..8,
        ) {
            let (ids, oods) = totals(&counts);
            prop_assume!(ids > 0 && oods > 0);
            let merged = merge(&counts, grid_bits);
            prop_assert_eq!(totals(&merged), (ids, oods));
            for group in &merged {
                let in_grid = u64::from(group.0) <= (ids >> grid_bits).max(1) && u64::from(group.1) <= (oods >> grid_bits).max(1);
                prop_assert!(in_grid || counts.contains(group));
            }
            // A half of the largest groups' shares bounds what ties made by merging are worth.
            let coarse = merged.iter().map(|g| f64::from(g.0) / ids as f64 * f64::from(g.1) / oods as f64).sum::<f64>();
            prop_assert!((auroc(&merged) - auroc(&counts)).abs() <= coarse / 2.0 + 1e-12);
        }
    }

    /// Both ways of drawing give the same law: ends of 1,000 replicates differ by what chance explains.
    #[test]
    fn counts_of_merged_groups_give_the_intervals_of_rows() {
        let curve = sides(20_000, 1);
        let by = |drawing, seed| curve.intervals_by(drawing, &headline, 1000, 0.9, seed, &|| ());
        for (a, b) in by(Drawing::Rows, 1).into_iter().zip(by(Drawing::Counts { grid_bits: 9 }, 2)) {
            // An end of 1,000 replicates has a standard error near 0.067 standard deviations, 0.02 widths.
            let width = a.high - a.low;
            assert!((a.low - b.low).abs() < 0.12 * width && (a.high - b.high).abs() < 0.12 * width, "{a:?} {b:?}");
        }
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let (sets, level) = (300u32, 0.9);
        for drawing in [Drawing::Rows, Drawing::Counts { grid_bits: 7 }] {
            let covered = (0..sets).filter(|set| {
                let intervals = sides(600, u64::from(*set)).intervals_by(drawing, &headline, 200, level, 0, &|| ());
                // At TPR 0.95 the threshold is 0.05, and 0.45 of the OOD side is above it.
                let covers = |interval: Interval, truth: f64| interval.low <= truth && truth <= interval.high;
                covers(intervals[1], 0.875) && covers(intervals[0], 0.45)
            });
            // Two intervals at 0.9 that are not independent: both cover 0.8 to 0.9 of the time.
            let covered = covered.count();
            assert!((234..=282).contains(&covered), "{covered} of {sets}");
        }
    }

    #[test]
    fn large_sides_are_drawn_on_the_grid_around_the_exact_estimate() {
        let curve = sides(100_000, 5);
        let replicates = std::sync::atomic::AtomicUsize::new(0);
        let counting = || _ = replicates.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (intervals, more) = curve.intervals_observed(0.95, 50, 0.95, 0, &headline, &counting);
        assert_eq!(
            more,
            [intervals.fpr_at_tpr, intervals.auroc, intervals.aupr_in, intervals.aupr_out],
            "other rates are drawn with them"
        );
        assert_eq!(replicates.into_inner(), 50);
        let exact = curve.metrics(0.95);
        for (interval, estimate) in [
            (intervals.fpr_at_tpr, exact.fpr_at_tpr),
            (intervals.auroc, exact.auroc),
            (intervals.aupr_in, exact.aupr_in),
            (intervals.aupr_out, exact.aupr_out),
        ] {
            assert!(interval.low < estimate && estimate < interval.high, "{interval:?} {estimate}");
            assert!(interval.high - interval.low < 0.02);
        }
        assert!(merge(&curve.counts, GRID_BITS).len() <= 4 << GRID_BITS);
    }
}
