//! Arrays in the columns of Parquet and Arrow IPC: a number or a list of numbers for each input.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Layout, Note};
use crate::io::arrays::{ArrayFile, ArrayRows, ArrayValues, Arrays, Extent, MOST_VALUES, WantedArray};
use crate::io::format::Format;
use crate::io::request::Request;
use crate::io::tables::batches::{Batches, columns_of};
use crate::io::tables::roles::{Column, TableHeader, names};
use crate::io::tables::values::{append_ids, lists_of, no_ids, null, numbers};
use crate::io::whole::{not_a_label, whole};

/// Rows that are handed out at a time, whose ids then take 64 MiB at most.
const MOST_ROWS: usize = 1024;

struct ColumnArrays {
    batches: Batches,
    rows: Option<u64>,
    wanted: Vec<WantedArray>,
    places: Places,
    layout: Layout,
    /// The batch being handed out, and how many of its rows were.
    pending: Option<RecordBatch>,
    offset: usize,
    next: u64,
}

/// Columns by their role.
#[derive(Clone)]
struct Places {
    arrays: Vec<Option<usize>>,
    label: Option<usize>,
    id: Option<usize>,
}

pub(crate) fn open(
    path: &Path,
    format: Format,
    wanted: &[WantedArray],
    request: &Request<'_>,
) -> Result<Box<dyn ArrayFile>> {
    let mut assigned = None;
    let mut batches = Batches::open_ragged(path, format, |columns| {
        let (places, layout) = Places::assign(columns, wanted, request)?;
        let used = places.columns();
        assigned = Some((places.within(&used), layout));
        Ok(used)
    })?;
    let rows = batches.rows();
    let Some(first) = batches.next()? else {
        return Err(Error::new(ErrorKind::Empty, "no rows").expected("at least one input"));
    };
    // Arrow IPC hands out all columns, and its schema with the first batch.
    let (places, layout) = match assigned {
        Some(assigned) => assigned,
        None => Places::assign(&columns_of(&first.schema()), wanted, request)?,
    };
    let arrays = wanted.iter().zip(&places.arrays);
    arrays
        .filter_map(|(wanted, place)| Some((wanted, (*place)?)))
        .try_for_each(|(wanted, place)| check_type(&first.schema(), place, wanted))?;
    let wanted = wanted.to_vec();
    Ok(Box::new(ColumnArrays { batches, rows, wanted, places, layout, pending: Some(first), offset: 0, next: 0 }))
}

impl Places {
    fn assign(columns: &[Column], wanted: &[WantedArray], request: &Request<'_>) -> Result<(Self, Layout)> {
        let find = |name: &str| columns.iter().position(|(column, _)| column == name);
        let of = |wanted: &WantedArray| {
            let name = request.name.unwrap_or(&wanted.name);
            match find(name) {
                None if wanted.optional => Ok(None),
                None => Err(wanted
                    .missing(names(columns))
                    .fix("name the columns as the model names its inputs, each a number or a list of numbers")),
                found => Ok(found),
            }
        };
        let arrays = wanted.iter().map(of).collect::<Result<Vec<_>>>()?;
        let is_free = |column: &usize| !arrays.contains(&Some(*column));
        let (label, id) = TableHeader { columns, named: true }.beside(request, is_free)?;
        let mut layout = Layout { ids: id.map(|id| columns[id].0.clone()), ..Layout::default() };
        if request.ids && id.is_none() {
            layout.notes.push(Note::NoIds);
        }
        let (label, id) = (label.filter(|_| request.labels), id.filter(|_| request.ids));
        Ok((Self { arrays, label, id }, layout))
    }

    /// All columns, ascending.
    fn columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> = self.arrays.iter().copied().chain([self.label, self.id]).flatten().collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The same in a table of only these `columns`, ascending.
    fn within(&self, columns: &[usize]) -> Self {
        let place = |column: Option<usize>| column.and_then(|column| columns.binary_search(&column).ok());
        Self {
            arrays: self.arrays.iter().map(|column| place(*column)).collect(),
            label: place(self.label),
            id: place(self.id),
        }
    }
}

/// Refuses a column whose values are no numbers of the wanted kind.
fn check_type(schema: &Schema, place: usize, wanted: &WantedArray) -> Result<()> {
    let kind = schema.field(place).data_type();
    let item = match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item.data_type(),
        other => other,
    };
    if wanted.integers && item.is_integer() || !wanted.integers && item.is_numeric() {
        return Ok(());
    }
    let error = wanted.refuse(ErrorKind::Unsupported, format!("a column of {kind}"));
    Err(match item {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            error.fix("flatten the values of each input to one list; its shape is that of the model's input")
        }
        _ => error,
    })
}

impl ArrayFile for ColumnArrays {
    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn has(&self) -> Vec<bool> {
        self.places.arrays.iter().map(Option::is_some).collect()
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, max_rows: usize, max_values: usize) -> Result<Arrays> {
        let Some(batch) = &self.pending else { return Ok(Arrays::default()) };
        let left = batch.slice(self.offset, max_rows.min(MOST_ROWS).min(batch.num_rows() - self.offset));
        let count = self.rows_within(&left, max_values);
        let read = self.read_batch(&left.slice(0, count))?;
        self.next += count as u64;
        self.offset += count;
        if self.pending.as_ref().is_some_and(|batch| self.offset == batch.num_rows()) {
            self.pending = self.batches.next()?;
            self.offset = 0;
        }
        Ok(read)
    }
}

impl ColumnArrays {
    /// How many rows of `batch` hold no more than `max_values`; at least one.
    fn rows_within(&self, batch: &RecordBatch, max_values: usize) -> usize {
        let mut each = vec![0usize; batch.num_rows()];
        for place in self.places.arrays.iter().flatten() {
            match lists_of(batch.column(*place)) {
                Some((_, lengths)) => each.iter_mut().zip(lengths).for_each(|(sum, length)| *sum += length),
                None => each.iter_mut().for_each(|sum| *sum += 1),
            }
        }
        let mut held = 0;
        let over = each.iter().position(|values| {
            held += values;
            held > max_values
        });
        over.unwrap_or(batch.num_rows()).max(1)
    }

    fn read_batch(&self, batch: &RecordBatch) -> Result<Arrays> {
        let (schema, first_row) = (batch.schema(), self.next);
        let named = |error: Error, column: usize| error.tensor(schema.field(column).name());
        let mut read = Arrays { rows: batch.num_rows(), first_row, ..Arrays::default() };
        for (wanted, place) in self.wanted.iter().zip(&self.places.arrays) {
            let array = place.map(|place| values(batch.column(place), wanted, first_row).map_err(|e| named(e, place)));
            read.arrays.push(array.transpose()?);
        }
        if let Some(column) = self.places.label {
            read.labels = Some(labels(batch.column(column), first_row).map_err(|error| named(error, column))?);
        }
        if let Some(column) = self.places.id {
            let mut ids = no_ids(batch.column(column));
            append_ids(batch.column(column), first_row, &mut ids).map_err(|error| named(error, column))?;
            read.ids = Some(ids);
        }
        Ok(read)
    }
}

fn labels(column: &ArrayRef, first_row: u64) -> Result<Vec<i64>> {
    let (mut labels, mut bad) = (Vec::with_capacity(column.len()), None);
    numbers(column, first_row, 1, |value| match whole(value) {
        Some(label) => labels.push(label),
        None => bad = bad.or(Some(value)),
    })?;
    match bad {
        Some(value) => Err(not_a_label(&value.to_string(), first_row as usize + labels.len())),
        None => Ok(labels),
    }
}

/// The values of a column of numbers or of lists of numbers.
fn values(column: &ArrayRef, wanted: &WantedArray, first_row: u64) -> Result<ArrayRows> {
    if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
        return Err(null(first_row + row as u64));
    }
    let (flat, extent) = match lists_of(column) {
        Some((flat, lengths)) => {
            if let Some(row) = lengths.iter().position(|length| *length > MOST_VALUES) {
                let found = format!("a list of {} at row {}", lengths[row], first_row + row as u64);
                return Err(wanted.refuse(ErrorKind::Shape, found));
            }
            (flat, Extent::Lists(lengths))
        }
        None => (ArrayRef::clone(column), Extent::Lists(vec![1; column.len()])),
    };
    if let Some(place) = (0..flat.len()).find(|place| flat.null_count() > 0 && flat.is_null(*place)) {
        return Err(Error::new(
            ErrorKind::NotFinite,
            format!("null within the list at row {}", first_row + row_of(&extent, place)),
        )
        .expected("a number in every place"));
    }
    let values = if wanted.integers {
        ArrayValues::Integers(integers(&flat, first_row)?)
    } else {
        let mut values = Vec::with_capacity(flat.len());
        numbers(&flat, first_row, 1, |value| values.push(value as f32))?;
        ArrayValues::Floats(values)
    };
    Ok(ArrayRows { values, extent })
}

/// The row that the value at `place` belongs to.
fn row_of(extent: &Extent, place: usize) -> u64 {
    let Extent::Lists(lengths) = extent else { return 0 };
    let mut end = 0;
    let row = lengths.iter().position(|length| {
        end += length;
        place < end
    });
    row.unwrap_or(0) as u64
}

/// Whole numbers without nulls, exactly.
fn integers(column: &ArrayRef, first_row: u64) -> Result<Vec<i64>> {
    macro_rules! each {
        ($type:ty) => {
            Ok(column.as_primitive::<$type>().values().iter().map(|value| i64::from(*value)).collect())
        };
    }
    match column.data_type() {
        DataType::Int8 => each!(Int8Type),
        DataType::Int16 => each!(Int16Type),
        DataType::Int32 => each!(Int32Type),
        DataType::Int64 => each!(Int64Type),
        DataType::UInt8 => each!(UInt8Type),
        DataType::UInt16 => each!(UInt16Type),
        DataType::UInt32 => each!(UInt32Type),
        DataType::UInt64 => {
            let values = column.as_primitive::<UInt64Type>().values().iter();
            let whole = |value: &u64| {
                i64::try_from(*value).map_err(|_| {
                    Error::new(ErrorKind::Argument, format!("{value} after row {first_row}"))
                        .expected("numbers below 2^63")
                })
            };
            values.map(whole).collect()
        }
        other => Err(Error::new(ErrorKind::Unsupported, format!("a column of {other}")).expected("whole numbers")),
    }
}
