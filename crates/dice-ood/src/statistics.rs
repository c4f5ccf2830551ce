//! What one pass over the training features gathers, and every fit rests on.

use std::collections::BTreeMap;
use std::ops::Range;

use ndarray::{Array1, ArrayView2};
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, for_each_block, not_finite};
use crate::kernel;

/// Streaming statistics of penultimate features `[N, D]`: the mean activation, and where asked for the distribution
/// of all activations pooled.
///
/// Sums are f64, added row by row in stream order, so the result depends neither on the block size nor on the number
/// of threads. [`Statistics::merge`] is associative and commutative up to f64 rounding.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    rows: u64,
    /// Whether the rows behind the mean are unknown: `rows` is 1 then, and stands for nothing.
    published: bool,
    sum: Array1<f64>,
    sequential: Option<Array1<f32>>,
    activations: Option<ActivationHistogram>,
    classes: Option<ClassSums>,
}

/// Which statistics to gather beyond the mean activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gather {
    /// The distribution of all activations, pooled over units: what `react(0.9)` takes its percentile from.
    pub activations: bool,
    /// The f32 sum in row order that `numpy.mean(axis=0)` makes of f32 features: what `preset=openood` ranks by.
    pub sequential: bool,
    /// The mean activation of each class; takes labelled features. No spec asks for it: it is for methods of one's own
    /// that measure distances to classes.
    pub class_means: bool,
}

impl Gather {
    /// Everything any spec can ask for.
    pub const ALL: Self = Self { activations: true, sequential: true, class_means: false };

    /// What either needs.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            activations: self.activations || other.activations,
            sequential: self.sequential || other.sequential,
            class_means: self.class_means || other.class_means,
        }
    }
}

impl Statistics {
    /// Statistics of no rows yet, over `units` units.
    pub fn new(units: usize, gather: Gather) -> Self {
        Self {
            rows: 0,
            published: false,
            sum: Array1::zeros(units),
            sequential: gather.sequential.then(|| Array1::zeros(units)),
            activations: gather.activations.then(ActivationHistogram::default),
            classes: gather.class_means.then(ClassSums::default),
        }
    }

    /// Statistics of a published mean activation `[D]`, of which nothing else is known.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] or [`ErrorKind::NotFinite`].
    pub fn from_mean_activation(mean: Array1<f64>) -> Result<Self> {
        if mean.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "no values").tensor("mean activation").expected("[D] values"));
        }
        if let Some((unit, value)) = mean.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("{value} at unit {unit}"))
                .tensor("mean activation")
                .expected("finite values"));
        }
        let mean = mean.as_standard_layout().into_owned();
        Ok(Self { rows: 1, published: true, sum: mean, sequential: None, activations: None, classes: None })
    }

    pub(crate) fn from_parts(
        rows: u64,
        published: bool,
        sum: Array1<f64>,
        sequential: Option<Array1<f32>>,
        activations: Option<ActivationHistogram>,
        classes: Option<ClassSums>,
    ) -> Result<Self> {
        if rows == 0 {
            return Err(no_rows());
        }
        let mut statistics = Self::from_mean_activation(sum)?;
        if sequential.as_ref().is_some_and(|sequential| sequential.len() != statistics.units()) {
            return Err(Error::new(ErrorKind::Malformed, "statistics of different lengths"));
        }
        statistics.rows = rows;
        statistics.published = published;
        statistics.sequential = sequential.map(|sums| sums.as_standard_layout().into_owned());
        statistics.activations = activations;
        statistics.classes = classes;
        Ok(statistics)
    }

    /// Gathers the statistics of a whole source.
    ///
    /// # Errors
    /// What reading meets, [`ErrorKind::NotFinite`], or [`ErrorKind::Empty`] for no rows.
    pub fn gather(source: &mut dyn FeatureSource, gather: Gather) -> Result<Self> {
        // Made with the first row and not before: until then its width is only a claim.
        let mut statistics = None;
        for_each_block(source, |block| {
            statistics.get_or_insert_with(|| Self::new(block.units, gather)).update_block(block)
        })?;
        statistics.ok_or_else(no_rows)
    }

    /// Adds the rows of `features` `[n, D]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D, [`ErrorKind::NotFinite`] for NaN or infinity, [`ErrorKind::Missing`] where
    /// class means are gathered, which takes [`Statistics::update_labelled`] (nothing is added then).
    pub fn update(&mut self, features: ArrayView2<'_, f32>) -> Result<()> {
        let rows = self.rows;
        self.update_at(features, None, |row, column, value| not_finite(rows + row as u64, column, value))
    }

    /// Adds the rows of `features` `[n, D]`, whose classes are `labels` `[n]`.
    ///
    /// # Errors
    /// As [`Statistics::update`], and [`ErrorKind::Shape`] where there is not one label a row.
    pub fn update_labelled(&mut self, features: ArrayView2<'_, f32>, labels: &[i64]) -> Result<()> {
        let rows = self.rows;
        self.update_at(features, Some(labels), |row, column, value| not_finite(rows + row as u64, column, value))
    }

    /// Adds the rows of `block`; errors name its file and row.
    ///
    /// # Errors
    /// As [`Statistics::update`].
    pub fn update_block(&mut self, block: &Block) -> Result<()> {
        let labels = block.labels.as_deref();
        self.update_at(block.view(), labels, |row, column, value| block.not_finite(row, column, value))
            .map_err(|error| block.located(error))
    }

    fn update_at(
        &mut self,
        features: ArrayView2<'_, f32>,
        labels: Option<&[i64]>,
        located: impl FnOnce(usize, usize, f32) -> Error,
    ) -> Result<()> {
        let units = self.units();
        if features.ncols() != units {
            return Err(Error::new(ErrorKind::Shape, format!("[N, {}]", features.ncols()))
                .tensor("features")
                .expected(format!("[N, {units}]")));
        }
        let features = features.as_standard_layout();
        let features = features.as_slice().unwrap_or_default();
        let rows = features.len().checked_div(units).unwrap_or(0);
        if let Some(labels) = labels.filter(|labels| labels.len() != rows) {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", labels.len()))
                .tensor("labels")
                .expected(format!("[{rows}], one for each row of features")));
        }
        if self.classes.is_some() && labels.is_none() {
            return Err(Error::new(ErrorKind::Missing, "features without labels")
                .tensor("labels")
                .expected("a class for each row, for the mean of each class"));
        }
        // Sums of f32 cannot overflow f64, so a sum that is not finite has met a value that is not: the features are
        // read once, and the sums taken back if need be.
        let before = self.sum.clone();
        add_rows(self.sum.as_slice_mut().unwrap_or_default(), features);
        if self.sum.iter().any(|sum| !sum.is_finite())
            && let Some(place) = features.iter().position(|value| !value.is_finite())
        {
            self.sum = before;
            return Err(located(place / units, place % units, features[place]));
        }
        if let Some(sequential) = &mut self.sequential {
            add_rows(sequential.as_slice_mut().unwrap_or_default(), features);
        }
        if let Some(activations) = &mut self.activations {
            activations.add(features);
        }
        if let (Some(classes), Some(labels)) = (&mut self.classes, labels) {
            classes.add(features, labels, units);
        }
        self.rows += rows as u64;
        Ok(())
    }

    /// Adds the rows that `other` has seen. The f32 sum of the merged parts is that of numpy only where the rows of
    /// `other` follow those of `self` in one part each; the f64 sum does not depend on it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D, [`ErrorKind::Missing`] where one side has not gathered what the other has, or
    /// is a published mean of unknown weight. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.units() != other.units() {
            return Err(Error::new(ErrorKind::Shape, format!("{} units", other.units()))
                .tensor("statistics")
                .expected(format!("{} units, as in the others", self.units())));
        }
        if self.published || other.published {
            return Err(Error::new(ErrorKind::Missing, "a published mean")
                .tensor("statistics")
                .expected("the number of rows behind each part, to weigh it")
                .fix("use one published mean alone, or gather statistics from features"));
        }
        let gathered = |statistics: &Self| {
            (statistics.sequential.is_some(), statistics.activations.is_some(), statistics.classes.is_some())
        };
        if gathered(self) != gathered(other) {
            return Err(Error::new(ErrorKind::Missing, "statistics that were gathered differently")
                .fix("gather all of them with the same detectors in mind"));
        }
        let rows = self.rows.checked_add(other.rows);
        self.rows = rows.ok_or_else(|| Error::new(ErrorKind::Malformed, "more rows than can be counted"))?;
        self.sum += &other.sum;
        if let (Some(mine), Some(theirs)) = (&mut self.sequential, &other.sequential) {
            *mine += theirs;
        }
        if let (Some(mine), Some(theirs)) = (&mut self.activations, &other.activations) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.classes, &other.classes) {
            mine.merge(theirs);
        }
        Ok(())
    }

    /// D.
    pub fn units(&self) -> usize {
        self.sum.len()
    }

    /// How many rows were seen; 1 for a published mean.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether this is a published mean, of which nothing else is known.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// The mean activation `[D]` in f64 (paper, section 3).
    pub fn mean_activation(&self) -> Array1<f64> {
        &self.sum / self.rows.max(1) as f64
    }

    /// The mean activation `[D]` in f32 as `numpy.mean(axis=0)` of f32 features gives it: the sum in f32, row by row.
    /// `None` where that sum was not gathered.
    pub fn sequential_mean_activation(&self) -> Option<Array1<f32>> {
        self.sequential.as_ref().map(|sums| sums / self.rows.max(1) as f32)
    }

    /// The `quantile` (0 to 1) of all N * D activations pooled, interpolated linearly as `numpy.percentile` does.
    ///
    /// Exact for features stored as f16 or bf16; within 2^-12 relative otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where the distribution was not gathered.
    pub fn activation_quantile(&self, quantile: f64) -> Result<f64> {
        self.activations.as_ref().and_then(|activations| activations.quantile(quantile)).ok_or_else(|| {
            Error::new(ErrorKind::Missing, "only a mean activation")
                .tensor("statistics")
                .expected("the distribution of training activations, for a clip at a percentile")
                .fix("fit from features (`--features`), or give the clip itself: react(c=1.0)")
        })
    }

    /// For each class that was seen, ascending: its label, its number of rows, and its mean activation `[D]`. `None`
    /// where class means were not gathered.
    pub fn class_means(&self) -> Option<Vec<(i64, u64, Array1<f64>)>> {
        let mean = |(label, (rows, sum)): (&i64, &(u64, Vec<f64>))| {
            (*label, *rows, sum.iter().map(|sum| sum / (*rows).max(1) as f64).collect())
        };
        self.classes.as_ref().map(|classes| classes.0.iter().map(mean).collect())
    }

    pub(crate) fn classes(&self) -> Option<&ClassSums> {
        self.classes.as_ref()
    }

    pub(crate) fn sum(&self) -> &Array1<f64> {
        &self.sum
    }

    pub(crate) fn sequential_sum(&self) -> Option<&Array1<f32>> {
        self.sequential.as_ref()
    }

    pub(crate) fn activations(&self) -> Option<&ActivationHistogram> {
        self.activations.as_ref()
    }
}

/// A sum that values are added to, in order.
trait Sum: Copy + Send {
    fn plus(self, value: f32) -> Self;
}

impl Sum for f64 {
    #[inline(always)]
    fn plus(self, value: f32) -> Self {
        self + Self::from(value)
    }
}

impl Sum for f32 {
    #[inline(always)]
    fn plus(self, value: f32) -> Self {
        self + value
    }
}

/// Adds the rows of `features` `[n, D]` to `sums` `[D]`, each column one chain of additions in row order: columns are
/// split over threads, never rows.
fn add_rows<S: Sum>(sums: &mut [S], features: &[f32]) {
    /// Columns whose sums are in registers while some rows are added.
    const COLUMNS: usize = 16;
    /// Rows added at a time: sums are loaded and stored once for all of them.
    const ROWS: usize = 8;
    let units = sums.len();
    if units == 0 {
        return;
    }
    let share = units.div_ceil(rayon::current_num_threads()).next_multiple_of(COLUMNS).max(64);
    sums.par_chunks_mut(share).enumerate().for_each(|(index, sums)| {
        let start = index * share;
        for rows in features.chunks(ROWS * units) {
            let (whole, rest) = sums.as_chunks_mut::<COLUMNS>();
            for (place, sums) in whole.iter_mut().enumerate() {
                let mut running = *sums;
                for row in rows.chunks_exact(units) {
                    let Some(values) = row[start + place * COLUMNS..].first_chunk::<COLUMNS>() else { continue };
                    kernel::will_read(values.as_ptr().wrapping_add(ROWS * units));
                    for (sum, value) in running.iter_mut().zip(values) {
                        *sum = sum.plus(*value);
                    }
                }
                *sums = running;
            }
            let done = start + whole.len() * COLUMNS;
            for row in rows.chunks_exact(units) {
                for (sum, value) in rest.iter_mut().zip(&row[done..]) {
                    *sum = sum.plus(*value);
                }
            }
        }
    });
}

/// By label the number of rows and their sum `[D]`; grows with the labels that are there.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ClassSums(pub(crate) BTreeMap<i64, (u64, Vec<f64>)>);

impl ClassSums {
    /// Adds rows in order; columns are split over threads, never rows.
    fn add(&mut self, features: &[f32], labels: &[i64], units: usize) {
        for label in labels {
            self.0.entry(*label).or_insert_with(|| (0, vec![0.0; units])).0 += 1;
        }
        let places: BTreeMap<i64, usize> = self.0.keys().enumerate().map(|(place, label)| (*label, place)).collect();
        let share = units.div_ceil(rayon::current_num_threads()).max(64);
        let mut shares: Vec<Vec<&mut [f64]>> = (0..units.div_ceil(share)).map(|_| Vec::new()).collect();
        for (_, sums) in self.0.values_mut() {
            for (share, sums) in shares.iter_mut().zip(sums.chunks_mut(share)) {
                share.push(sums);
            }
        }
        shares.into_par_iter().enumerate().for_each(|(index, mut classes)| {
            for (row, label) in features.chunks_exact(units).zip(labels) {
                for (sum, value) in classes[places[label]].iter_mut().zip(&row[index * share..]) {
                    *sum += f64::from(*value);
                }
            }
        });
    }

    fn merge(&mut self, other: &Self) {
        for (label, (rows, sum)) in &other.0 {
            let mine = self.0.entry(*label).or_insert_with(|| (0, vec![0.0; sum.len()]));
            mine.0 = mine.0.saturating_add(*rows);
            for (mine, theirs) in mine.1.iter_mut().zip(sum) {
                *mine += theirs;
            }
        }
    }
}

fn no_rows() -> Error {
    Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row to fit on")
}

/// Counts of activations by the leading 21 bits of their order-preserving bit pattern (sign, exponent, 12 of the 23
/// mantissa bits): a mergeable distribution of bounded size whose quantiles have a bounded relative error.
///
/// f16 and bf16 values have at most 10 mantissa bits, so each has a bin of its own and their quantiles are exact.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActivationHistogram {
    /// Counts by bin, in tables that threads fill side by side; a bin's count is the sum. Zeroed memory is only there
    /// once it is touched, and activations rarely span twenty of the 512 exponents.
    tables: Vec<Vec<u64>>,
    /// Only these bins can hold anything.
    span: Range<usize>,
    /// All bits that were ever cut off, or-ed: zero says that every bin holds copies of one value.
    cut_off: u32,
}

const BIN_BITS: u32 = 12;
const CUT: u32 = 23 - BIN_BITS;
const BINS: usize = 512 << BIN_BITS;
/// More threads than this fill a table one after the other.
const TABLES: usize = 8;

impl PartialEq for ActivationHistogram {
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

impl ActivationHistogram {
    fn add(&mut self, features: &[f32]) {
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

    fn merge(&mut self, other: &Self) {
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
    pub(crate) fn bins(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.span.clone().filter_map(|bin| {
            let count = self.tables.iter().fold(0u64, |count, table| count.saturating_add(table[bin]));
            (count > 0).then_some((bin as u32, count))
        })
    }

    pub(crate) fn cut_off(&self) -> u32 {
        self.cut_off
    }

    pub(crate) fn from_bins(bins: impl Iterator<Item = (u32, u64)>, cut_off: u32) -> Result<Self> {
        let mut histogram = Self { cut_off, ..Self::default() };
        for (bin, count) in bins {
            if bin as usize >= BINS {
                return Err(Error::new(ErrorKind::Malformed, format!("bin {bin} of an activation histogram"))
                    .expected(format!("a bin below {}", BINS)));
            }
            histogram.add_bin(bin, count);
        }
        Ok(histogram)
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
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
    use crate::features::ArraySource;
    use half::f16;
    use ndarray::Array2;
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
        fn merging_parts_is_gathering_the_whole(
            values in proptest::collection::vec(-1e3f32..1e3, 60),
            cut in 1usize..19,
        ) {
            let all = Array2::from_shape_vec((20, 3), values).unwrap();
            let whole = Statistics::gather(&mut ArraySource::new(all.view()), Gather::ALL).unwrap();
            let (first, second) = all.view().split_at(ndarray::Axis(0), cut);
            let mut parts = Statistics::new(3, Gather::ALL);
            parts.update(second).unwrap();
            let mut other = Statistics::new(3, Gather::ALL);
            other.update(first).unwrap();
            parts.merge(&other).unwrap();
            prop_assert_eq!(parts.rows(), 20);
            prop_assert_eq!(&parts.activations, &whole.activations);
            for (a, b) in parts.mean_activation().iter().zip(&whole.mean_activation()) {
                // Twenty additions of values below 1e3, in any order: Higham's (n-1) eps sum|x| / n.
                prop_assert!((a - b).abs() <= 20.0 * f64::EPSILON * 1e3);
            }
        }

        #[test]
        fn quantiles_of_half_precision_features_are_exact(
            values in proptest::collection::vec(-300f32..300.0, 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let halves: Vec<f32> = values.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
            let mut histogram = ActivationHistogram::default();
            histogram.add(&halves);
            let expected = numpy_percentile(halves.iter().map(|value| f64::from(*value)).collect(), quantile);
            prop_assert!((histogram.quantile(quantile).unwrap() - expected).abs() <= 1e-12 * expected.abs());
        }

        #[test]
        fn quantiles_of_single_precision_features_are_within_a_bin(
            values in proptest::collection::vec(-300f32..300.0, 1..200),
            quantile in 0.0f64..=1.0,
        ) {
            let mut histogram = ActivationHistogram::default();
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

    #[test]
    fn the_mean_does_not_depend_on_blocks_or_threads() {
        let features =
            Array2::from_shape_fn((3000, 200), |(row, unit)| ((row * 31 + unit * 17) % 1009) as f32 * 1.1e-3);
        let whole = {
            let mut statistics = Statistics::new(200, Gather::ALL);
            statistics.update(features.view()).unwrap();
            statistics
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let blocks = pool.install(|| {
            let mut statistics = Statistics::new(200, Gather::ALL);
            for block in features.axis_chunks_iter(ndarray::Axis(0), 7) {
                statistics.update(block).unwrap();
            }
            statistics
        });
        assert_eq!(whole, blocks);
    }

    #[test]
    fn a_nan_is_named_and_nothing_is_added() {
        let mut features = Array2::zeros((4, 3));
        features[(2, 1)] = f32::NAN;
        let mut statistics = Statistics::new(3, Gather::default());
        let error = statistics.update(features.view()).unwrap_err();
        assert!(error.to_string().contains("row 2, column 1"), "{error}");
        assert_eq!(statistics.rows(), 0);
    }

    #[test]
    fn a_published_mean_has_no_percentiles() {
        let statistics = Statistics::from_mean_activation(Array1::from(vec![0.5, 0.0])).unwrap();
        assert_eq!(statistics.mean_activation(), Array1::from(vec![0.5, 0.0]));
        assert_eq!(statistics.activation_quantile(0.9).unwrap_err().kind(), ErrorKind::Missing);
        assert!(Statistics::from_mean_activation(Array1::from(vec![f64::NAN])).is_err());
        let mut merged = statistics.clone();
        assert_eq!(merged.merge(&statistics).unwrap_err().kind(), ErrorKind::Missing);
        assert_eq!(merged, statistics, "a refused merge adds nothing");
    }

    #[test]
    fn class_means_are_those_of_each_class_and_merge() {
        let features = Array2::from_shape_fn((500, 150), |(row, unit)| ((row * 31 + unit * 17) % 101) as f32 * 0.1);
        let labels: Vec<i64> = (0..500).map(|row| [7, -1, 3][row * row % 3]).collect();
        let gather = Gather { class_means: true, ..Gather::default() };
        let mut whole = Statistics::new(150, gather);
        whole.update_labelled(features.view(), &labels).unwrap();
        let means = whole.class_means().unwrap();
        assert_eq!(means.iter().map(|(label, ..)| *label).collect::<Vec<_>>(), [-1, 7]);
        for (label, rows, mean) in &means {
            let members: Vec<usize> = (0..500).filter(|row| labels[*row] == *label).collect();
            assert_eq!(*rows, members.len() as u64);
            let sum: f64 = members.iter().map(|row| f64::from(features[(*row, 70)])).sum();
            assert_eq!(mean[70], sum / members.len() as f64);
        }
        let mut parts = Statistics::new(150, gather);
        parts.update_labelled(features.slice(ndarray::s![..200, ..]), &labels[..200]).unwrap();
        let mut other = Statistics::new(150, gather);
        other.update_labelled(features.slice(ndarray::s![200.., ..]), &labels[200..]).unwrap();
        parts.merge(&other).unwrap();
        for ((_, rows, a), (_, expected, b)) in parts.class_means().unwrap().iter().zip(&means) {
            assert_eq!(rows, expected);
            assert!((a - b).iter().all(|difference| difference.abs() < 1e-12));
        }
        assert_eq!(whole.update(features.view()).unwrap_err().kind(), ErrorKind::Missing);
        assert_eq!(whole.update_labelled(features.view(), &labels[1..]).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(whole.rows(), 500, "a refused update adds nothing");
        assert!(parts.merge(&Statistics::new(150, Gather::default())).is_err());
    }
}
