//! Some rows of features.

use std::sync::Arc;

use ndarray::ArrayView2;

use crate::error::{Error, ErrorKind, Remedy};
use crate::features::ids::{Id, Ids};

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
    pub(super) fn retain(&mut self, keep: &[bool]) {
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
