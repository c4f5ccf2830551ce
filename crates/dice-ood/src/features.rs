//! Blocks of penultimate features, and where they come from.
//!
//! A [`FeatureSource`] yields [`Block`]s of rows; a block is the only thing that is ever in memory, so a fit or a
//! scoring run is bounded by the block and not by the number of inputs.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;

use ndarray::ArrayView2;

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::random::SplitMix64;

/// The name of an input, of the type that its source has it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A whole number of a source whose numbers need not fit `i64`.
    Unsigned(u64),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
        }
    }
}

/// The names of inputs `[n]`, all of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// Text.
    Text(Vec<String>),
    /// Whole numbers.
    Integer(Vec<i64>),
    /// Whole numbers of a source whose numbers need not fit `i64`.
    Unsigned(Vec<u64>),
}

impl Ids {
    /// The name of row `row`.
    pub fn get(&self, row: usize) -> Id {
        match self {
            Self::Text(all) => Id::Text(all[row].clone()),
            Self::Integer(all) => Id::Integer(all[row]),
            Self::Unsigned(all) => Id::Unsigned(all[row]),
        }
    }

    /// How many there are, n.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(all) => all.len(),
            Self::Integer(all) => all.len(),
            Self::Unsigned(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of those that are text, from `first` on.
    #[cfg(feature = "columns")]
    pub(crate) fn bytes_from(&self, first: usize) -> usize {
        if let Self::Text(all) = self { all.iter().skip(first).map(String::len).sum() } else { 0 }
    }

    /// What they are, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "whole numbers",
            Self::Unsigned(_) => "unsigned whole numbers",
        }
    }

    /// Keeps the names of the rows that `keep` marks.
    fn retain(&mut self, keep: &[bool]) {
        fn marked<T>(all: &mut Vec<T>, keep: &[bool]) {
            let mut flags = keep.iter();
            all.retain(|_| *flags.next().unwrap_or(&false));
        }
        match self {
            Self::Text(all) => marked(all, keep),
            Self::Integer(all) => marked(all, keep),
            Self::Unsigned(all) => marked(all, keep),
        }
    }
}

/// What a source took for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The names of the units `[D]`, where each is a column with a name; empty where units have no names but places.
    pub units: Vec<String>,
    /// The column or tensor that names the inputs.
    pub ids: Option<String>,
    /// What the user should know of it.
    pub notes: Vec<Note>,
    /// The column that is least like the other features, in words: a hint where there is one too many.
    pub stray: Option<String>,
}

impl Layout {
    /// The error for `found` units where `expected` are wanted, if that is one too many and a column is unlike the others.
    pub fn one_too_many(&self, found: usize, expected: usize) -> Option<Error> {
        let stray = self.stray.as_ref().filter(|_| found == expected + 1)?;
        Some(
            Error::new(ErrorKind::Columns, format!("[N, {found}]"))
                .tensor("features")
                .expected(format!("[N, {expected}]"))
                .fix(format!("is {stray}, one of the features? If not, drop it, or say what it is")),
        )
    }
}

/// What the user should know of how a file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// No column names the inputs of a table: rows are numbered.
    NoIds,
    /// Columns of numbers that are no features for their names.
    LeftOut(Vec<String>),
    /// Names of units are known on one side only: columns are taken in the order of the table.
    TakenByPlace,
    /// A tensor that names the inputs, of a type that is not read: rows are numbered.
    UnreadIds(String),
    /// A tensor of this shape was read as `[N, D]`.
    Squeezed(Vec<usize>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIds => f.write_str("no column of ids (id, path, user_id, uuid, ...): rows are named by their number, from 0"),
            Self::LeftOut(columns) => {
                let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
                write!(f, "not taken as features, for their names: {}", columns.join(", "))
            }
            Self::TakenByPlace => f.write_str(
                "feature columns are taken in the order of the table: names are known either of the fit's features or of these, \
                 not of both",
            ),
            Self::UnreadIds(tensor) => {
                write!(f, "`{tensor}` is of a type that is not read as ids: rows are named by their number, from 0")
            }
            Self::Squeezed(shape) => {
                let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
                write!(f, "features of shape [{}] are read as [N, D]", shape.join(", "))
            }
        }
    }
}

/// Some consecutive rows of penultimate features `[n, D]`, with what is known about each row.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Row-major features, `n * units` values.
    pub features: Vec<f32>,
    /// D.
    pub units: usize,
    /// Class labels `[n]`, where the source has them.
    pub labels: Option<Vec<i64>>,
    /// Names of the inputs `[n]`, where the source has them.
    pub ids: Option<Ids>,
    /// What the rows came from, for messages: a file name.
    pub origin: Arc<str>,
    /// Index of the first row within `origin`.
    pub first_row: u64,
    /// Indices of the rows within `origin`, where they are not consecutive.
    pub row_numbers: Option<Vec<u64>>,
}

impl Block {
    /// Empties the block for rows of `units` values from `first_row` on: how a source begins each read.
    pub fn restart(&mut self, units: usize, first_row: u64) {
        self.features.clear();
        self.units = units;
        self.labels = None;
        self.ids = None;
        self.origin = Arc::default();
        self.first_row = first_row;
        self.row_numbers = None;
    }

    /// Number of rows, n.
    pub fn rows(&self) -> usize {
        self.features.len().checked_div(self.units).unwrap_or(0)
    }

    /// The features as `[n, D]`.
    #[expect(clippy::expect_used, reason = "the slice has just that many values")]
    pub fn view(&self) -> ArrayView2<'_, f32> {
        let rows = self.rows();
        ArrayView2::from_shape((rows, self.units), &self.features[..rows * self.units])
            .expect("n * D values make [n, D]")
    }

    /// The name of row `row`: its id, or its index within the source.
    pub fn id(&self, row: usize) -> Id {
        match &self.ids {
            Some(ids) => ids.get(row),
            // Rows of a file are fewer than 2^63.
            None => Id::Integer(self.row_number(row) as i64),
        }
    }

    /// Index within the source of row `row` of this block.
    pub fn row_number(&self, row: usize) -> u64 {
        match &self.row_numbers {
            Some(numbers) => numbers[row],
            None => self.first_row + row as u64,
        }
    }

    /// The error for a value that is not finite at `row` and `column` of this block.
    pub(crate) fn not_finite(&self, row: usize, column: usize, value: f32) -> Error {
        self.located(not_finite(self.row_number(row), column, value))
    }

    /// `error`, with the file the rows came from where that is known.
    pub(crate) fn located(&self, error: Error) -> Error {
        if self.origin.is_empty() { error } else { error.file(&self.origin) }
    }

    /// Keeps the rows for which `keep` says so.
    fn retain(&mut self, keep: &[bool]) {
        let units = self.units;
        let mut kept = 0;
        let numbers = (0..keep.len()).filter(|row| keep[*row]).map(|row| self.row_number(row)).collect();
        self.row_numbers = Some(numbers);
        for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            self.features.copy_within(row * units..(row + 1) * units, kept * units);
            kept += 1;
        }
        self.features.truncate(kept * units);
        let mut flags = keep.iter();
        if let Some(labels) = &mut self.labels {
            labels.retain(|_| *flags.next().unwrap_or(&false));
        }
        if let Some(ids) = &mut self.ids {
            ids.retain(keep);
        }
    }
}

/// The error for a value that is not finite, or for a finite one so large that logits are not.
pub(crate) fn not_finite(row: u64, column: usize, value: f32) -> Error {
    if value.is_finite() {
        return Error::new(ErrorKind::NotFinite, format!("{value:e} at row {row}, column {column}"))
            .tensor("features")
            .expected("values whose logits fit f32")
            .fix("are these the features that the head was trained on?");
    }
    Error::new(ErrorKind::NotFinite, format!("{value} at row {row}, column {column}"))
        .tensor("features")
        .expected("finite values")
        .fix("drop the row, or score it as out-of-distribution")
        .with_remedy(Remedy::AcceptNonFinite)
}

/// Whether any value is NaN or infinite; no branch, so that it runs at the speed of reading.
pub(crate) fn any_not_finite(values: &[f32]) -> bool {
    values.iter().fold(false, |bad, value| bad | !value.is_finite())
}

/// Something that yields blocks of penultimate features, once, in order.
pub trait FeatureSource: Send {
    /// D, known before the first block.
    fn units(&self) -> usize;

    /// How many rows there are in all, where that is known beforehand.
    fn rows(&self) -> Option<u64>;

    /// What was taken for what, known before the first block.
    fn layout(&self) -> Layout {
        Layout::default()
    }

    /// Replaces the content of `block` by the next rows, at most `max_rows`; leaves it empty at the end.
    ///
    /// # Errors
    /// Whatever reading can meet: see [`ErrorKind`].
    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()>;
}

impl<S: FeatureSource + ?Sized> FeatureSource for &mut S {
    fn units(&self) -> usize {
        (**self).units()
    }

    fn rows(&self) -> Option<u64> {
        (**self).rows()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        (**self).read(block, max_rows)
    }
}

impl<S: FeatureSource + ?Sized> FeatureSource for Box<S> {
    fn units(&self) -> usize {
        (**self).units()
    }

    fn rows(&self) -> Option<u64> {
        (**self).rows()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        (**self).read(block, max_rows)
    }
}

/// Rows that make a block of about 4 MiB: enough to share out among threads, and a few of them still in a cache.
pub(crate) fn block_rows(units: usize) -> usize {
    const VALUES: usize = 1 << 20;
    (VALUES / units.max(1)).clamp(1, 1 << 14)
}

/// Reads `source` to its end on a thread of its own and hands each block to `consume`, in order.
///
/// Reading and consuming overlap; at most four blocks are alive.
///
/// # Errors
/// The first error of either side.
pub fn for_each_block(source: &mut dyn FeatureSource, mut consume: impl FnMut(&Block) -> Result<()>) -> Result<()> {
    let max_rows = block_rows(source.units());
    let (full, blocks) = mpsc::sync_channel::<Result<Block>>(2);
    let (empty, reuse) = mpsc::channel::<Block>();
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("dice-reader".into()).spawn_scoped(scope, move || {
            loop {
                let mut block = reuse.try_recv().unwrap_or_default();
                let outcome = source.read(&mut block, max_rows);
                let done = outcome.is_err() || block.rows() == 0;
                let sent = match outcome {
                    Err(error) => full.send(Err(error)),
                    Ok(()) if done => return,
                    Ok(()) => full.send(Ok(block)),
                };
                if done || sent.is_err() {
                    return;
                }
            }
        });
        reader.map_err(|error| Error::new(ErrorKind::Io, error.to_string()).tensor("reading thread"))?;
        for block in blocks {
            let block = block?;
            consume(&block)?;
            // The reader may be gone already: then the block is simply dropped.
            let _ = empty.send(block);
        }
        Ok(())
    })
}

/// Features that are already in memory, `[N, D]`.
#[derive(Debug, Clone)]
pub struct ArraySource<'a> {
    features: ArrayView2<'a, f32>,
    labels: Option<&'a [i64]>,
    next: usize,
}

impl<'a> ArraySource<'a> {
    /// A source of the rows of `features` `[N, D]`, in any memory order.
    pub fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, labels: None, next: 0 }
    }

    /// The same with class labels `[N]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] when there is not one label a row.
    pub fn with_labels(features: ArrayView2<'a, f32>, labels: &'a [i64]) -> Result<Self> {
        if labels.len() != features.nrows() {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", labels.len()))
                .tensor("labels")
                .expected(format!("[{}], one for each row of features", features.nrows())));
        }
        Ok(Self { features, labels: Some(labels), next: 0 })
    }
}

impl FeatureSource for ArraySource<'_> {
    fn units(&self) -> usize {
        self.features.ncols()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.features.nrows() as u64)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        let end = self.features.nrows().min(self.next.saturating_add(max_rows));
        block.restart(self.units(), self.next as u64);
        for row in self.features.slice(ndarray::s![self.next..end, ..]).rows() {
            block.features.extend(row);
        }
        block.labels = self.labels.map(|labels| labels[self.next..end].to_vec());
        self.next = end;
        Ok(())
    }
}

/// Which rows are held out of the fit for calibration: a seeded choice, stratified by label where there are labels.
///
/// Of every `parts` consecutive rows of a class, `held` are held out, chosen at random. The choice depends on the
/// seed and on the order of rows alone, needs no second look and no knowledge of N, so it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldOut {
    held: u64,
    parts: u64,
    seed: u64,
}

impl HoldOut {
    /// Holds out `fraction` of the rows, to the nearest percent.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] unless `fraction` rounds to 0.01 to 0.99.
    pub fn new(fraction: f64, seed: u64) -> Result<Self> {
        let percent = (fraction * 100.0).round();
        if !(1.0..=99.0).contains(&percent) {
            return Err(Error::new(ErrorKind::Argument, fraction.to_string())
                .tensor("calibration fraction")
                .expected("a fraction between 0.01 and 0.99"));
        }
        let percent = percent as u64;
        let divisor =
            (1..=percent).rev().find(|d| percent.is_multiple_of(*d) && 100u64.is_multiple_of(*d)).unwrap_or(1);
        Ok(Self { held: percent / divisor, parts: 100 / divisor, seed })
    }

    /// The rows of `source` that are (`held == true`) or are not (`held == false`) held out.
    pub fn select<'a>(&self, source: Box<dyn FeatureSource + 'a>, held: bool) -> Box<dyn FeatureSource + 'a> {
        Box::new(Selected { source, hold_out: *self, want: held, seen: Default::default(), flags: Vec::new() })
    }

    /// Whether member number `index` of class `class` is held out.
    fn holds(&self, class: i64, index: u64) -> bool {
        let group = index / self.parts;
        let place = index % self.parts;
        // A seeded shuffle of the places of this group; `held` of them are taken.
        let mut random = SplitMix64::new(self.seed ^ SplitMix64::mix(class as u64) ^ SplitMix64::mix(!group));
        let mut needed = self.held;
        for candidate in 0..=place {
            let left = self.parts - candidate;
            let take = random.below(left) < needed;
            if candidate == place {
                return take;
            }
            needed -= u64::from(take);
        }
        false
    }
}

struct Selected<'a> {
    source: Box<dyn FeatureSource + 'a>,
    hold_out: HoldOut,
    want: bool,
    seen: std::collections::HashMap<i64, u64>,
    flags: Vec<bool>,
}

impl FeatureSource for Selected<'_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        // An empty block means the end, so blocks that lose every row are passed over.
        loop {
            self.source.read(block, max_rows)?;
            let rows = block.rows();
            if rows == 0 {
                return Ok(());
            }
            self.flags.clear();
            for row in 0..rows {
                let class = block.labels.as_ref().map_or(0, |labels| labels[row]);
                let seen = self.seen.entry(class).or_default();
                self.flags.push(self.hold_out.holds(class, *seen) == self.want);
                *seen += 1;
            }
            block.retain(&self.flags);
            if block.rows() > 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn counting(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 3), |(row, unit)| (row * 10 + unit) as f32)
    }

    fn first_column(source: &mut dyn FeatureSource, max_rows: usize) -> Vec<usize> {
        let mut block = Block::default();
        let mut seen = Vec::new();
        loop {
            source.read(&mut block, max_rows).unwrap();
            if block.rows() == 0 {
                return seen;
            }
            seen.extend(block.view().column(0).iter().map(|value| *value as usize / 10));
        }
    }

    #[test]
    fn held_out_and_kept_rows_partition_the_source_whatever_the_block_size() {
        let features = counting(1003);
        let labels: Vec<i64> = (0..1003).map(|row| row % 7).collect();
        let hold_out = HoldOut::new(0.3, 5).unwrap();
        let rows = |held, size| {
            let source = ArraySource::with_labels(features.view(), &labels).unwrap();
            first_column(&mut *hold_out.select(Box::new(source), held), size)
        };
        let held = rows(true, 64);
        assert_eq!(held, rows(true, 1));
        assert_eq!(held, rows(true, 5000));
        let mut all = [held.clone(), rows(false, 64)].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
        for class in 0..7 {
            let members = labels.iter().filter(|label| **label == class).count() as f64;
            let taken = held.iter().filter(|row| labels[**row] == class).count() as f64;
            assert!((taken / members - 0.3).abs() < 0.03, "class {class}: {taken} of {members}");
        }
    }

    #[test]
    fn a_hold_out_is_exact_in_whole_groups_and_moves_with_the_seed() {
        let features = counting(1000);
        let held = |seed| {
            let hold_out = HoldOut::new(0.1, seed).unwrap();
            first_column(&mut *hold_out.select(Box::new(ArraySource::new(features.view())), true), 77)
        };
        assert_eq!(held(1).len(), 100);
        assert_ne!(held(1), held(2));
        // Every place of a group is taken now and then.
        let places: std::collections::HashSet<_> = (0..50).flat_map(held).map(|row| row % 10).collect();
        assert_eq!(places.len(), 10);
        assert!(HoldOut::new(0.0, 0).is_err());
        assert!(HoldOut::new(f64::NAN, 0).is_err());
    }

    #[test]
    fn blocks_arrive_in_order_and_errors_stop_the_reader() {
        let features = counting(40_000);
        let mut rows = 0;
        for_each_block(&mut ArraySource::new(features.view()), |block| {
            assert_eq!(block.first_row, rows);
            rows += block.rows() as u64;
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, 40_000);
        let stopped =
            for_each_block(&mut ArraySource::new(features.view()), |_| Err(Error::new(ErrorKind::Empty, "stop")));
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Empty);
    }
}
