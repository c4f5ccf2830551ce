//! The largest of many values, as they come.

/// Values that are compared at once.
const TOGETHER: usize = 64;

/// The k largest values so far, those of rows that were seen often counting as often.
pub(crate) struct Nearest {
    k: usize,
    /// Values that are among the k largest, and some that may be.
    kept: Vec<(f32, u64)>,
    /// Values up to this cannot be.
    beyond: f32,
}

impl Nearest {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, kept: Vec::new(), beyond: f32::NEG_INFINITY }
    }

    pub(crate) fn add(&mut self, values: &[f32], counts: &[u64]) {
        for (values, counts) in values.chunks(TOGETHER).zip(counts.chunks(TOGETHER)) {
            // Most values are too small, and without branches many are compared at once.
            if !values.iter().fold(false, |any, value| any | (*value > self.beyond)) {
                continue;
            }
            for (value, count) in values.iter().zip(counts) {
                if *value > self.beyond {
                    self.kept.push((*value, *count));
                }
            }
            if self.kept.len() >= 2 * self.k + TOGETHER {
                self.prune();
            }
        }
    }

    /// Keeps the largest values whose counts reach k.
    fn prune(&mut self) {
        self.kept.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut rows = 0u64;
        let reached = self.kept.iter().position(|(_, count)| {
            rows = rows.saturating_add(*count);
            rows >= self.k as u64
        });
        if let Some(last) = reached {
            self.kept.truncate(last + 1);
            self.beyond = self.kept[last].0;
        }
    }

    /// The k-th largest value.
    pub(crate) fn last(mut self) -> f32 {
        self.prune();
        self.kept.last().map_or(f32::NEG_INFINITY, |(value, _)| *value)
    }

    /// The mean of the k largest values.
    pub(crate) fn mean(mut self) -> f64 {
        self.prune();
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
    fn the_largest_are_found_with_their_counts_in_any_pieces() {
        let values: Vec<f32> = (0..500).map(|i| ((i * 7919) % 503) as f32).collect();
        let counts: Vec<u64> = (0..500).map(|i| 1 + i % 3).collect();
        let mut all: Vec<f32> =
            values.iter().zip(&counts).flat_map(|(value, count)| vec![*value; *count as usize]).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 7, 50, 300] {
            let found = || {
                let mut nearest = Nearest::new(k);
                values.chunks(37).zip(counts.chunks(37)).for_each(|(values, counts)| nearest.add(values, counts));
                nearest
            };
            assert_eq!(found().last(), all[k - 1], "{k}");
            let mean = all[..k].iter().map(|value| f64::from(*value)).sum::<f64>() / k as f64;
            assert!((found().mean() - mean).abs() < 1e-9, "{k}");
        }
    }
}
