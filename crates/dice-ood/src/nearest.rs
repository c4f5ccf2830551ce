//! The largest of many products, as they are computed.

use crate::kernel::{Product, Scratch};

/// Values that are gathered beyond k before the smallest of them are dropped.
const SPARE: usize = 64;

/// The k largest values so far, those of rows that were seen often counting as often.
pub(crate) struct Nearest {
    k: usize,
    /// Values that are among the k largest, and some that may be.
    kept: Vec<(f32, u64)>,
    /// Values up to this cannot be.
    floor: f32,
}

impl Nearest {
    /// The `k` largest products of each of `rows` `[n, D]` with the rows of `product`, which were seen `counts` `[M]` times.
    pub(crate) fn of(product: &Product, rows: &[f32], counts: &[u64], k: usize, scratch: &mut Scratch) -> Vec<Self> {
        let mut floors = vec![f32::NEG_INFINITY; rows.len() / product.units()];
        let mut nearest: Vec<Self> = floors.iter().map(|_| Self::new(k)).collect();
        // Rows that are not finite are refused by who scores them.
        let _ = product
            .for_each_above(rows, scratch, &mut floors, |row, output, value| nearest[row].add(value, counts[output]));
        nearest
    }

    fn new(k: usize) -> Self {
        Self { k, kept: Vec::new(), floor: f32::NEG_INFINITY }
    }

    /// Returns the floor: only larger values can be among the k largest.
    fn add(&mut self, value: f32, count: u64) -> f32 {
        if value > self.floor && count > 0 {
            self.kept.push((value, count));
            if self.kept.len() >= 2 * self.k + SPARE {
                self.prune();
            }
        }
        self.floor
    }

    /// Keeps the largest values whose counts reach k, in descending order.
    fn sort(&mut self) {
        self.kept.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut rows = 0u64;
        let reached = self.kept.iter().position(|(_, count)| {
            rows = rows.saturating_add(*count);
            rows >= self.k as u64
        });
        if let Some(last) = reached {
            self.kept.truncate(last + 1);
        }
    }

    /// Keeps the k largest values, or fewer whose counts reach k.
    fn prune(&mut self) {
        if self.kept.iter().all(|(_, count)| *count == 1) {
            // The k-th is put in its place, which sorting would take several times as long to do.
            self.kept.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0));
            self.kept.truncate(self.k);
        } else {
            self.sort();
        }
        self.floor = self.kept.last().map_or(self.floor, |(value, _)| *value);
    }

    /// The k-th largest value.
    pub(crate) fn last(mut self) -> f32 {
        self.sort();
        self.kept.last().map_or(f32::NEG_INFINITY, |(value, _)| *value)
    }

    /// The mean of the k largest values.
    pub(crate) fn mean(mut self) -> f64 {
        self.sort();
        let (mut left, mut sum) = (self.k as u64, 0.0);
        for (value, count) in &self.kept {
            let taken = left.min(*count);
            left -= taken;
            sum += taken as f64 * f64::from(*value);
        }
        sum / self.k as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_with_their_counts() {
        let values: Vec<f32> = (0..500).map(|i| ((i * 7919) % 503) as f32).collect();
        for counts in [vec![1; 500], (0..500).map(|i| 1 + i % 3).collect::<Vec<u64>>()] {
            check(&values, &counts);
        }
    }

    fn check(values: &[f32], counts: &[u64]) {
        let mut all: Vec<f32> =
            values.iter().zip(counts).flat_map(|(value, count)| vec![*value; *count as usize]).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 7, 50, 300] {
            let found = || {
                let mut nearest = Nearest::new(k);
                values.iter().zip(counts).for_each(|(value, count)| {
                    nearest.add(*value, *count);
                });
                nearest
            };
            assert_eq!(found().last(), all[k - 1], "{k}");
            let mean = all[..k].iter().map(|value| f64::from(*value)).sum::<f64>() / k as f64;
            assert!((found().mean() - mean).abs() < 1e-9, "{k}");
        }
    }
}
