//! Parquet in windows of rows and groups of columns.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Schema};

use crate::error::{Error, ErrorKind, Result};
use crate::io::budget::MOST_UNITS;
use crate::io::tables::parquet::{ParquetBatches, ParquetFile, Reading};
use crate::io::tables::values::list_width;

/// Rows decoded at a time: small, because every column of a wide table holds a page of its own besides.
const BATCH_ROWS: usize = 1024;

/// Parquet, a few columns at a time.
///
/// Each column that is being read holds a page and a dictionary of its own, a megabyte each as common writers make
/// them. A table with one column a unit is therefore read in windows of rows, within a window one group of columns
/// after the other; a table of few columns is one window.
pub(super) struct ParquetWindows {
    file: ParquetFile,
    /// Leaves of the wanted columns, ascending, in groups.
    groups: Vec<Vec<usize>>,
    pub(super) rows: usize,
    next: usize,
    window: usize,
    /// The most values of a list, once the first was seen.
    width: Option<usize>,
    /// Whether lists may be longer than the first.
    ragged: bool,
    /// Where there is one group, its reader goes on from batch to batch.
    reader: Option<ParquetBatches>,
}

/// Columns that are read together, where there are more than fit at once.
const COLUMN_GROUP: usize = 64;

/// Columns that are read at once without windows: about 200 MB of pages and dictionaries.
const FEW_COLUMNS: usize = 3 * COLUMN_GROUP;

/// Bytes of pages and dictionaries that columns hold together, where that is more than one holds.
const HELD_PAGES: u64 = 512 << 20;

/// Values in a window of several groups: 32 MiB of f32.
const WINDOW_VALUES: usize = 1 << 23;

/// Values of all lists in a batch, where these are no wider.
const BATCH_VALUES: usize = 1 << 22;

/// Where lists differ in length, so many values are none too many, nor so many times those of the first.
const RAGGED_WIDTH: usize = 1 << 16;
const RAGGED_TIMES: usize = 4;

/// A list that may be met without a reason but an error: it is then named by its row.
const ODD_WIDTH: usize = 1 << 12;

impl ParquetWindows {
    pub(super) fn new(file: ParquetFile, columns: &[usize]) -> Result<Self> {
        let leaves = file.leaves(|column, _| columns.binary_search(&column).is_ok());
        let kind = |column: &usize| file.schema().field(*column).data_type();
        let texts = file.leaves(|column, _| columns.contains(&column) && *kind(&column) == DataType::Utf8View);
        let few = leaves.len() <= FEW_COLUMNS;
        let groups = groups_of(&file, &leaves, if few { FEW_COLUMNS } else { COLUMN_GROUP })?;
        let most = match &groups[..] {
            [_] => BATCH_ROWS,
            _ => (WINDOW_VALUES / leaves.len().max(1)).clamp(1, 1 << 16),
        };
        let window = file.sizes(&texts)?.rows_of_views(most);
        let no_lists = !columns.iter().any(|column| matches!(kind(column), DataType::List(_)));
        let rows = file.rows();
        Ok(Self { file, groups, rows, next: 0, window, width: no_lists.then_some(0), ragged: false, reader: None })
    }

    /// Lists of which no two need be of one length.
    pub(super) fn ragged(file: ParquetFile, columns: &[usize]) -> Result<Self> {
        Ok(Self { ragged: true, ..Self::new(file, columns)? })
    }

    fn read(&self, leaves: &[usize], rows: Range<usize>, batch: usize) -> Result<ParquetBatches> {
        // The first row is read alone: it says how many others fit a batch.
        let widest = self.width.map_or(MOST_UNITS, |width| width.max(ODD_WIDTH));
        self.file.read(&Reading { leaves: leaves.to_vec(), rows, batch, widest })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let rows = if self.width.is_some() { self.window } else { 1 };
        let limit = rows.min(self.rows.saturating_sub(self.next));
        if limit == 0 {
            return Ok(None);
        }
        let batch = match (&self.groups[..], self.width) {
            ([only], Some(_)) => self.go_on(&only.clone())?,
            _ => self.window_of(limit)?,
        };
        self.next += batch.num_rows();
        if self.width.is_none() {
            let first = batch.columns().iter().filter_map(list_width).max().unwrap_or(0);
            let width = if self.ragged { (first * RAGGED_TIMES).clamp(RAGGED_WIDTH, MOST_UNITS) } else { first };
            self.window = self.window.min(BATCH_VALUES / width.max(ODD_WIDTH)).max(1);
            self.width = Some(width);
        }
        Ok(Some(batch))
    }

    /// The next batch of the only group.
    fn go_on(&mut self, leaves: &[usize]) -> Result<RecordBatch> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.read(leaves, self.next..self.rows, self.window)?,
        };
        let batch = reader.next()?;
        self.reader = Some(reader);
        batch.ok_or_else(|| {
            Error::new(ErrorKind::Malformed, format!("the end of the data after {} of {} rows", self.next, self.rows))
                .expected("a complete Parquet file")
        })
    }

    /// The next `limit` rows, of one group after the other.
    fn window_of(&self, limit: usize) -> Result<RecordBatch> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let batch = self.read(group, self.next..self.next + limit, limit)?.next()?;
            let Some(batch) = batch.filter(|batch| batch.num_rows() == limit) else {
                return Err(Error::new(ErrorKind::Malformed, "columns of different lengths")
                    .expected("a complete Parquet file"));
            };
            fields.extend(batch.schema().fields().iter().cloned());
            columns.extend(batch.columns().iter().cloned());
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
    }
}

/// Columns that are read together: at most `most`, and no more than may hold their pages at once.
fn groups_of(file: &ParquetFile, leaves: &[usize], most: usize) -> Result<Vec<Vec<usize>>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut held = 0;
    for leaf in leaves {
        let pages = file.sizes(&[*leaf])?.held();
        held += pages;
        match groups.last_mut() {
            Some(group) if group.len() < most && held <= HELD_PAGES => group.push(*leaf),
            _ => {
                groups.push(vec![*leaf]);
                held = pages;
            }
        }
    }
    Ok(groups)
}

fn failed(error: ArrowError) -> Error {
    Error::caused_by(ErrorKind::Malformed, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    use arrow_array::cast::AsArray;
    use arrow_array::types::Float32Type;
    use arrow_array::{ArrayRef, Float32Array};
    use parquet::arrow::arrow_writer::ArrowWriter;

    #[test]
    fn windows_and_groups_of_columns_make_the_same_rows() {
        let (rows, columns) = (103, FEW_COLUMNS + 7);
        let value = |row: usize, column: usize| (row * columns + column) as f32;
        let batch = RecordBatch::try_from_iter((0..columns).map(|column| {
            let values: Float32Array = (0..rows).map(|row| Some(value(row, column))).collect();
            (format!("f{column}"), Arc::new(values) as ArrayRef)
        }))
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wide.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        for window in [1, 10, 103, 1000] {
            let file = ParquetFile::new(File::open(&path).unwrap()).unwrap();
            let mut windows = ParquetWindows::new(file, &(0..columns).collect::<Vec<_>>()).unwrap();
            windows.window = window;
            let mut row = 0;
            while let Some(batch) = windows.next().unwrap() {
                for (column, values) in batch.columns().iter().enumerate() {
                    for (place, found) in values.as_primitive::<Float32Type>().values().iter().enumerate() {
                        assert_eq!(*found, value(row + place, column));
                    }
                }
                row += batch.num_rows();
            }
            assert_eq!(row, rows, "windows of {window}");
        }
    }
}
