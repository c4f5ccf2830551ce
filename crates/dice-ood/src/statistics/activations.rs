//! The distribution of all activations, pooled over units.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::state::State;

/// Counts of activations by the leading 21 bits of their order-preserving bit pattern (sign, exponent, 12 of the 23
/// mantissa bits): a mergeable distribution of bounded size whose quantiles have a bounded relative error.
///
/// f16 and bf16 values have at most 10 mantissa bits, so each has a bin of its own and their quantiles are exact.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activations {
    /// Counts by bin, in tables that threads fill side by side; a bin's count is the sum. Zeroed memory is only there
    /// once it is touched, and activations rarely span twenty of the 512 exponents.
    tables: Vec<Vec<u64>>,
    /// Only these bins can hold anything.
    span: Range<usize>,
    /// All bits that were ever cut off, or-ed: zero says that every bin holds copies of one value.
    cut_off: u32,
}

pub(super) const BIN_BITS: u32 = 12;
const CUT: u32 = 23 - BIN_BITS;
const BINS: usize = 512 << BIN_BITS;
/// More threads than this fill a table one after the other.
const TABLES: usize = 8;

impl PartialEq for Activations {
    fn eq(&self, other: &Self) -> bool {
        self.cut_off == other.cut_off && self.bins().eq(other.bins())
    }
}

/// A bit pattern whose unsigned order is the numeric order; negative zero counts as zero.
fn ordered(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn from_ordered(key: u32) -> f64 {
    f64::from(f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key }))
}

impl Activations {
    pub(super) fn add(&mut self, features: &[f32]) {
        let tables = rayon::current_num_threads().clamp(1, TABLES);
        if self.tables.len() < tables {
            self.tables.resize_with(tables, || vec![0; BINS]);
        }
        let share = features.len().div_ceil(tables).max(1 << 12);
        let counted = features.par_chunks(share).zip(&mut self.tables).map(|(values, counts)| {
            let (mut lowest, mut highest, mut cut_off) = (u32::MAX, 0, 0);
            for value in values {
                let key = ordered(*value);
                (lowest, highest) = (lowest.min(key), highest.max(key));
                // Low bits of negative values are stored complemented: undo that before asking whether any was set.
                cut_off |= if key >> 31 == 1 { key } else { !key };
                counts[(key >> CUT) as usize] += 1;
            }
            (lowest, highest, cut_off)
        });
        let (lowest, highest, cut_off) =
            counted.reduce(|| (u32::MAX, 0, 0), |a, b| (a.0.min(b.0), a.1.max(b.1), a.2 | b.2));
        if lowest <= highest {
            self.cover((lowest >> CUT) as usize);
            self.cover((highest >> CUT) as usize);
        }
        self.cut_off |= cut_off & ((1 << CUT) - 1);
    }

    fn cover(&mut self, bin: usize) {
        self.span =
            if self.span.is_empty() { bin..bin + 1 } else { self.span.start.min(bin)..self.span.end.max(bin + 1) };
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (bin, count) in other.bins() {
            self.add_bin(bin, count);
        }
        self.cut_off |= other.cut_off;
    }

    fn add_bin(&mut self, bin: u32, count: u64) {
        if self.tables.is_empty() {
            self.tables.push(vec![0; BINS]);
        }
        self.cover(bin as usize);
        let slot = &mut self.tables[0][bin as usize];
        *slot = slot.saturating_add(count);
    }

    /// The bins that hold anything, ascending, as (bin, count).
    fn bins(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.span.clone().filter_map(|bin| {
            let count = self.tables.iter().fold(0u64, |count, table| count.saturating_add(table[bin]));
            (count > 0).then_some((bin as u32, count))
        })
    }

    /// How many activations were counted.
    pub(super) fn total(&self) -> u64 {
        self.bins().fold(0, |total, (_, count)| total.saturating_add(count))
    }

    pub(super) fn save(&self, to: &mut State) {
        let (bins, counts): (Vec<u32>, Vec<u64>) = self.bins().unzip();
        let shape = [bins.len()];
        to.put("bins", &shape, bins);
        to.put("counts", &shape, counts);
        to.put("cut_off", &[1], vec![self.cut_off]);
    }

    pub(super) fn load(state: &mut State) -> Result<Self> {
        let bins = state.take::<u32>("bins", &[None])?;
        let counts = state.take::<u64>("counts", &[Some(bins.len())])?;
        let cut_off = state.take::<u32>("cut_off", &[Some(1)])?[0];
        Self::from_bins(bins.iter().copied().zip(counts.iter().copied()), cut_off)
    }

    /// Counts by bin, which must ascend.
    pub(super) fn from_bins(bins: impl Iterator<Item = (u32, u64)>, cut_off: u32) -> Result<Self> {
        let mut activations = Self { cut_off, ..Self::default() };
        let mut next = 0;
        for (bin, count) in bins {
            if bin < next || bin as usize >= BINS || count == 0 || cut_off >> CUT != 0 {
                return Err(Error::new(ErrorKind::Malformed, format!("bin {bin} with a count of {count}"))
                    .tensor("activations")
                    .expected(format!("ascending bins below {BINS} that hold something")));
            }
            activations.add_bin(bin, count);
            next = bin + 1;
        }
        Ok(activations)
    }

    /// The `quantile` (0 to 1), interpolated linearly between order statistics; `None` of nothing.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let bins: Vec<(u32, u64)> = self.bins().collect();
        let total = bins.iter().fold(0u64, |total, (_, count)| total.saturating_add(*count));
        let last = total.checked_sub(1)?;
        let place = quantile.clamp(0.0, 1.0) * last as f64;
        let below = self.order_statistic(&bins, place.floor() as u64)?;
        let above = self.order_statistic(&bins, (place.floor() as u64 + 1).min(last))?;
        Some(below + (above - below) * place.fract())
    }

    /// The value at `rank` (0-based, ascending), spread evenly within its bin.
    fn order_statistic(&self, bins: &[(u32, u64)], rank: u64) -> Option<f64> {
        let mut before = 0u64;
        for (bin, count) in bins {
            if rank < before.saturating_add(*count) {
                let low = bin << CUT;
                let high = low | ((1 << CUT) - 1);
                if low == ordered(0.0) {
                    // Zeros, where ReLU puts half of all activations; with them subnormals below 1e-41.
                    return Some(0.0);
                }
                if self.cut_off == 0 {
                    // A bin then holds one value: the one whose cut-off bits are zero.
                    return Some(from_ordered(if low >> 31 == 1 { low } else { high }));
                }
                let within = ((rank - before) as f64 + 0.5) / *count as f64;
                return Some(from_ordered(low) + (from_ordered(high) - from_ordered(low)) * within);
            }
            before = before.saturating_add(*count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    fn numpy_percentile(mut values: Vec<f64>, quantile: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        let place = quantile * (values.len() - 1) as f64;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn quantiles_of_half_precision_features_are_exact(
            values in proptest::collection::vec(-300f32..300.0, 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let halves: Vec<f32> = values.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
            let mut histogram = Activations::default();
            histogram.add(&halves);
            let expected = numpy_percentile(halves.iter().map(|value| f64::from(*value)).collect(), quantile);
            prop_assert!((histogram.quantile(quantile).unwrap() - expected).abs() <= 1e-12 * expected.abs());
        }

        #[test]
        fn quantiles_of_single_precision_features_are_within_a_bin(
            values in proptest::collection::vec(-300f32..300.0, 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let mut histogram = Activations::default();
            histogram.add(&values);
            let mut sorted: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            sorted.sort_by(f64::total_cmp);
            let found = histogram.quantile(quantile).unwrap();
            let place = quantile * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            let slack = low.abs().max(high.abs()) / f64::from(1 << BIN_BITS) + 1e-41;
            prop_assert!(found >= low - slack && found <= high + slack, "{} not in [{}, {}]", found, low, high);
        }
    }
}
