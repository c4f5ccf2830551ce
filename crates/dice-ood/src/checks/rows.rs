//! What is kept of the rows that stream by: a uniform sample of them, and a hash of each.

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, block_rows};
use crate::random::{SplitMix64, shuffle};

/// Rows of the sample: an accuracy is then known to about a percent. Wide rows are fewer: half a block in all.
const MOST_ROWS: usize = 2048;
/// Hashes that are kept, at most twice as many while rows come in: 16 MiB.
const MOST_HASHES: usize = 1 << 19;
/// The stream of the sample, and another for the keys of the hash.
const SEEDS: [u64; 2] = [0x5eed_0001, 0x5eed_0002];

/// Out-of-distribution sets that share more of their rows with the in-distribution inputs are no such sets.
pub(crate) const MOST_SHARED: f64 = 0.01;

/// A set that something is measured on has at least so many rows.
pub(crate) const FEWEST: u64 = 10;

/// Refuses a set of fewer than [`FEWEST`] rows; `why` says what cannot be done with them.
///
/// # Errors
/// [`ErrorKind::Empty`]; whoever calls names the set.
pub(crate) fn refuse_few(rows: u64, why: &str) -> Result<()> {
    if rows >= FEWEST {
        return Ok(());
    }
    let found = format!("{rows} row{}", if rows == 1 { "" } else { "s" });
    Err(Error::new(ErrorKind::Empty, found).expected(format!("at least {FEWEST}: {why}")))
}

/// Keeps what [`checks`](super) needs of a source while it is read.
pub(crate) struct Witness {
    classes: usize,
    random: SplitMix64,
    keys: Vec<u32>,
    /// Rows of the sample, once the width is known.
    capacity: usize,
    rows: u64,
    units: usize,
    sample: Vec<f32>,
    sample_labels: Vec<Option<i64>>,
    pub(super) labels: Labels,
    pub(super) hashes: RowHashes,
}

/// Labels of all rows against the classes of the head.
#[derive(Default)]
pub(super) struct Labels {
    /// The smallest and the largest.
    pub(super) range: Option<(i64, i64)>,
    /// How many name no class.
    pub(super) outside: u64,
}

impl Witness {
    /// A witness of features that a head of `classes` classes reads.
    pub(crate) fn new(classes: usize) -> Self {
        Self {
            classes,
            random: SplitMix64::new(SEEDS[0]),
            keys: Vec::new(),
            capacity: 0,
            rows: 0,
            units: 0,
            sample: Vec::new(),
            sample_labels: Vec::new(),
            labels: Labels::default(),
            hashes: RowHashes::default(),
        }
    }

    /// Takes note of the rows of `block`.
    pub(crate) fn see(&mut self, block: &Block) {
        if self.keys.is_empty() {
            self.units = block.units;
            self.keys = keys(block.units);
            self.capacity = (block_rows(block.units) / 2).clamp(1, MOST_ROWS);
        }
        if block.units != self.units {
            // The pass over these very blocks refuses them.
            return;
        }
        for (row, features) in block.features.chunks_exact(self.units.max(1)).enumerate() {
            self.hashes.add(hash(features, &self.keys));
            self.draw(features, block.labels.as_ref().map(|labels| labels[row]));
        }
        for label in block.labels.iter().flatten() {
            self.labels.add(*label, self.classes);
        }
    }

    /// Reservoir sampling (Vitter's algorithm R): every row seen so far is in the sample with the same probability.
    fn draw(&mut self, features: &[f32], label: Option<i64>) {
        self.rows += 1;
        if self.sample_labels.len() < self.capacity {
            self.sample.extend_from_slice(features);
            self.sample_labels.push(label);
            return;
        }
        let place = self.random.below(self.rows) as usize;
        if let Some(kept) = self.sample_labels.get_mut(place) {
            *kept = label;
            self.sample[place * self.units..(place + 1) * self.units].copy_from_slice(features);
        }
    }

    /// Ends the watch: brings hashes and sample into the state that everything below wants.
    pub(super) fn settle(&mut self) {
        self.hashes.settle();
        // Where few rows came by the sample lies in their order, and its first part would be no sample.
        let order = shuffle(self.sample_labels.len(), SEEDS[0]);
        self.sample_labels = order.iter().map(|place| self.sample_labels[*place]).collect();
        let mut sample = Vec::with_capacity(self.sample.len());
        for place in order {
            sample.extend_from_slice(&self.sample[place * self.units..(place + 1) * self.units]);
        }
        self.sample = sample;
    }

    /// The share of the rows that came by `other` too, surely.
    pub(crate) fn share_in(&mut self, other: &mut Self) -> f64 {
        self.hashes.settle();
        other.hashes.settle();
        let (share, margin) = self.hashes.share_in(&other.hashes);
        (share - margin).max(0.0)
    }

    /// Refuses rows of which more than [`MOST_SHARED`] came by `id` too: out-of-distribution sets are none of its inputs.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`]; whoever calls names the set.
    pub(crate) fn refuse_shared(&mut self, id: &mut Self) -> Result<()> {
        let shared = self.share_in(id);
        if shared <= MOST_SHARED {
            return Ok(());
        }
        let found = format!("{:.1} % of its rows are in-distribution inputs too", 100.0 * shared);
        Err(Error::new(ErrorKind::Argument, found)
            .expected("inputs that are none of the in-distribution ones")
            .fix("was the same file given twice?"))
    }

    /// Refuses rows that are all the same: of one input repeated, nothing follows for others.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`]; whoever calls names the set.
    pub(crate) fn refuse_alike(&mut self) -> Result<()> {
        self.hashes.settle();
        if self.rows < 2 || self.hashes.distinct() != 1 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Argument, format!("{} rows that are all the same", self.rows))
            .expected("different inputs: of one input repeated, nothing follows for others"))
    }

    /// A number that depends on which rows came by, and not on their order.
    pub(crate) fn fingerprint(&mut self) -> u64 {
        self.hashes.settle();
        let mixed =
            self.hashes.counts.iter().map(|(hash, count)| SplitMix64::mix(hash.wrapping_add(u64::from(*count))));
        mixed.fold(self.rows, u64::wrapping_add)
    }

    /// How many rows came by.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// D.
    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// The sampled rows with their labels, in random order once settled.
    pub(super) fn sampled(&self) -> impl ExactSizeIterator<Item = (&[f32], Option<i64>)> {
        self.sample.chunks_exact(self.units.max(1)).zip(self.sample_labels.iter().copied())
    }

    /// The first `rows` sampled rows `[rows, D]`: a uniform sample as well.
    pub(super) fn sampled_features(&self, rows: usize) -> &[f32] {
        &self.sample[..self.sample.len().min(rows * self.units)]
    }
}

impl Labels {
    fn add(&mut self, label: i64, classes: usize) {
        let (low, high) = self.range.unwrap_or((label, label));
        self.range = Some((low.min(label), high.max(label)));
        self.outside += u64::from(usize::try_from(label).map_or(true, |label| label >= classes));
    }
}

/// Random keys for the hash of rows of `units` values, an even number of them.
fn keys(units: usize) -> Vec<u32> {
    let mut random = SplitMix64::new(SEEDS[1]);
    (0..units.next_multiple_of(LANES)).map(|_| (random.next() >> 32) as u32).collect()
}

/// Values that are hashed at a time: the first half is multiplied by the second.
const LANES: usize = 16;

/// The NH hash of a row's bits (Black et al., UMAC, CRYPTO 1999), mixed: two different rows agree with a probability
/// of about 2^-32 at most over the keys.
fn hash(row: &[f32], keys: &[u32]) -> u64 {
    let mut sums = [0u64; LANES / 2];
    let (whole, rest) = row.as_chunks::<LANES>();
    let (whole_keys, _) = keys.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let add = |sums: &mut [u64; LANES / 2], values: &[f32; LANES], keys: &[u32; LANES]| {
        for lane in 0..LANES / 2 {
            let left = values[lane].to_bits().wrapping_add(keys[lane]);
            let right = values[lane + LANES / 2].to_bits().wrapping_add(keys[lane + LANES / 2]);
            sums[lane] = sums[lane].wrapping_add(u64::from(left) * u64::from(right));
        }
    };
    for (values, keys) in whole.iter().zip(whole_keys) {
        add(&mut sums, values, keys);
    }
    if let (false, Some(keys)) = (rest.is_empty(), whole_keys.get(whole.len())) {
        add(&mut sums, &last, keys);
    }
    SplitMix64::mix(sums.into_iter().fold(0, u64::wrapping_add))
}

/// How often each row was seen, by its hash: of all rows, or, where there are too many different ones, of those whose
/// hash begins with `level` zero bits. That is a uniform sample of the different rows, the same one in every set.
#[derive(Default)]
pub(super) struct RowHashes {
    level: u32,
    counts: Vec<(u64, u32)>,
}

impl RowHashes {
    fn add(&mut self, hash: u64) {
        if hash.leading_zeros() < self.level {
            return;
        }
        self.counts.push((hash, 1));
        if self.counts.len() >= 2 * MOST_HASHES {
            self.settle();
        }
    }

    /// Sorts, adds up the counts of equal rows, and lets go of what is too much.
    fn settle(&mut self) {
        self.counts.par_sort_unstable_by_key(|(hash, _)| *hash);
        self.counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        while self.counts.len() > MOST_HASHES {
            self.level += 1;
            self.counts.retain(|(hash, _)| hash.leading_zeros() >= self.level);
        }
    }

    /// How many different rows there are, settled: exact up to [`MOST_HASHES`], estimated beyond.
    pub(super) fn distinct(&self) -> u64 {
        (self.counts.len() as u64) << self.level
    }

    /// Share of the rows that `other` has seen too, both settled, and how far the share can be off: not at all where
    /// all rows are compared, three standard errors where a sample is.
    pub(super) fn share_in(&self, other: &Self) -> (f64, f64) {
        let level = self.level.max(other.level);
        let (mut compared, mut shared, mut distinct) = (0u64, 0u64, 0u64);
        for (hash, count) in self.counts.iter().filter(|(hash, _)| hash.leading_zeros() >= level) {
            let seen = other.counts.binary_search_by_key(hash, |(hash, _)| *hash).is_ok();
            compared += u64::from(*count);
            shared += if seen { u64::from(*count) } else { 0 };
            distinct += 1;
        }
        let margin = if level == 0 { 0.0 } else { 1.5 / (distinct.max(1) as f64).sqrt() };
        (shared as f64 / compared.max(1) as f64, margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: std::ops::Range<usize>, units: usize) -> Block {
        let features = rows.clone().flat_map(|row| (0..units).map(move |unit| (row * 31 + unit) as f32)).collect();
        Block { features, units, labels: Some(rows.map(|row| row as i64).collect()), ..Block::default() }
    }

    fn witness(rows: std::ops::Range<usize>, units: usize) -> Witness {
        let mut witness = Witness::new(10);
        witness.see(&block(rows, units));
        witness.hashes.settle();
        witness
    }

    #[test]
    fn rows_differ_in_their_hash_if_they_differ_anywhere() {
        for units in [1, 2, 15, 16, 17, 40] {
            let keys = keys(units);
            let zeros = vec![0.0; units];
            let mut seen = vec![hash(&zeros, &keys)];
            for unit in 0..units {
                let mut row = zeros.clone();
                row[unit] = 1.0;
                seen.push(hash(&row, &keys));
            }
            let distinct = seen.iter().collect::<std::collections::HashSet<_>>().len();
            assert_eq!(distinct, units + 1, "{units} units");
        }
    }

    #[test]
    fn overlaps_and_repetitions_are_counted_exactly() {
        let (training, other) = (witness(0..900, 5), witness(600..1200, 5));
        assert_eq!(other.hashes.share_in(&training.hashes), (0.5, 0.0));
        assert_eq!(training.hashes.distinct(), 900);
        let mut twice = Witness::new(10);
        twice.see(&block(0..300, 5));
        twice.see(&block(0..300, 5));
        twice.hashes.settle();
        assert_eq!((twice.hashes.distinct(), twice.rows()), (300, 600));
        assert_eq!(twice.hashes.share_in(&training.hashes), (1.0, 0.0));
    }

    #[test]
    fn beyond_the_bound_overlaps_are_estimated_from_the_same_rows_in_both_sets() {
        let set = |rows: std::ops::Range<u64>| {
            let mut hashes = RowHashes::default();
            rows.for_each(|row| hashes.add(SplitMix64::mix(row)));
            hashes.settle();
            hashes
        };
        let (large, small) = (set(0..3 * MOST_HASHES as u64), set(0..20_000));
        assert!(large.counts.len() <= MOST_HASHES && large.level >= 1);
        assert_eq!(small.share_in(&large).0, 1.0);
        let half = set(3 * MOST_HASHES as u64 - 10_000..3 * MOST_HASHES as u64 + 10_000);
        // At least a fourth of 20,000 rows is compared: three standard errors are below 2.2 %.
        let (share, margin) = half.share_in(&large);
        assert!((share - 0.5).abs() < margin && margin < 0.022, "{share} {margin}");
        let distinct = large.distinct() as f64 / (3.0 * MOST_HASHES as f64);
        assert!((distinct - 1.0).abs() < 0.01, "{distinct}");
    }

    #[test]
    fn the_sample_is_uniform_and_bounded() {
        let mut witness = Witness::new(10);
        for start in (0..40_000).step_by(500) {
            witness.see(&block(start..start + 500, 3));
        }
        let labels: Vec<f64> = witness.sampled().map(|(_, label)| label.unwrap() as f64).collect();
        assert_eq!(labels.len(), MOST_ROWS);
        // The mean of a uniform draw from 0..40,000 has a standard error of 11,547 / 64 = 180.
        let mean = labels.iter().sum::<f64>() / labels.len() as f64;
        assert!((mean - 20_000.0).abs() < 900.0, "{mean}");
        for (features, label) in witness.sampled() {
            assert_eq!(features[0], (label.unwrap() * 31) as f32, "labels stay beside their rows");
        }
        assert_eq!(witness.labels.range, Some((0, 39_999)));
        assert_eq!(witness.labels.outside, 40_000 - 10);
    }
}
