//! Parquet and Arrow IPC: a column of lists, a fixed-size list, or one column a unit.

use std::path::Path;

use arrow_array::RecordBatch;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Layout};
use crate::io::budget::{BLOCK_IDS, check_units};
use crate::io::format::Format;
use crate::io::request::Request;
use crate::io::tables::batches::{Batches, columns_of};
use crate::io::tables::roles::{Column, Roles, TableHeader, pick};
use crate::io::tables::values::{append_ids, append_lists, list_width, no_ids, numbers};
use crate::io::whole::{not_a_label, whole};

pub(crate) fn open(path: &Path, format: Format, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    let assign = |columns: &[Column]| TableHeader { columns, named: true }.assign(request);
    let mut assigned = None;
    let mut batches = Batches::open(path, format, |columns| {
        let (roles, layout) = assign(columns)?;
        let wanted = roles.columns();
        assigned = Some((roles.within(&wanted), layout));
        Ok(wanted)
    })?;
    let Some(first) = batches.next()? else {
        return Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row"));
    };
    // Arrow IPC hands out all columns, and its schema with the first batch.
    let (roles, mut layout) = match assigned {
        Some(assigned) => assigned,
        None => assign(&columns_of(&first.schema()))?,
    };
    let units = match roles.features[..] {
        [only] => list_width(first.column(only)).unwrap_or(1),
        _ => roles.features.len(),
    };
    if units == 0 {
        return Err(Error::new(ErrorKind::Shape, "empty lists").tensor("features").expected("lists of D values"));
    }
    check_units(units)?;
    layout.stray = layout.stray.or_else(|| counting(&first, &roles.features));
    let rows = batches.rows();
    Ok(Box::new(ColumnSource { batches, rows, roles, layout, units, pending: Some(first), offset: 0, next: 0 }))
}

/// Whether a file has a column of this name.
pub(crate) fn has(path: &Path, format: Format, name: &str) -> Result<bool> {
    let mut found = None;
    let mut batches = Batches::open(path, format, |columns| {
        found = Some(columns.iter().any(|(column, _)| column == name));
        Ok(Vec::new())
    })?;
    match found {
        Some(found) => Ok(found),
        None => Ok(batches.next()?.is_some_and(|batch| batch.schema().column_with_name(name).is_some())),
    }
}

/// A feature column that numbers the rows of the first batch, in words.
fn counting(batch: &RecordBatch, features: &[usize]) -> Option<String> {
    let counts = |column: &&usize| {
        let mut expected = None;
        let mut all = true;
        let read = numbers(batch.column(**column), 0, 1, |value| {
            let wanted = expected.unwrap_or(value);
            all &= value == wanted && value.fract() == 0.0;
            expected = Some(wanted + 1.0);
        });
        all && read.is_ok()
    };
    let column = features.iter().filter(|_| features.len() > 1 && batch.num_rows() > 2).find(counts)?;
    Some(format!("`{}`, which numbers the rows", batch.schema().field(*column).name()))
}

/// Reads one column of numbers.
pub(crate) fn read_column(path: &Path, format: Format, name: Option<&str>, defaults: &[&str]) -> Result<Vec<f64>> {
    let mut batches = Batches::open(path, format, |columns| Ok(vec![pick(columns, name, defaults)?]))?;
    check_held(batches.rows().unwrap_or(0))?;
    let mut values = Vec::new();
    while let Some(batch) = batches.next()? {
        check_held((values.len() + batch.num_rows()) as u64)?;
        let column = pick(&columns_of(&batch.schema()), name, defaults)?;
        let field = batch.schema().field(column).name().clone();
        let first_row = values.len() as u64;
        numbers(batch.column(column), first_row, 1, |value| values.push(value)).map_err(|error| error.tensor(field))?;
    }
    Ok(values)
}

/// Refuses columns of more rows than are held in memory, of which a compressed file may have any number.
fn check_held(rows: u64) -> Result<()> {
    const MOST: u64 = 1 << 26;
    if rows <= MOST {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{rows} rows or more"))
        .expected(format!("at most {MOST} of a column that is held in memory")))
}

struct ColumnSource {
    batches: Batches,
    rows: Option<u64>,
    roles: Roles,
    layout: Layout,
    units: usize,
    /// The batch being handed out, and how many of its rows were.
    pending: Option<RecordBatch>,
    offset: usize,
    next: u64,
}

impl FeatureSource for ColumnSource {
    fn units(&self) -> usize {
        self.units
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.units, self.next);
        block.labels = self.roles.label.map(|_| Vec::new());
        block.ids = self.roles.id.zip(self.pending.as_ref()).map(|(column, batch)| no_ids(batch.column(column)));
        let (mut rows, mut held) = (0, 0);
        while rows < max_rows && held < BLOCK_IDS {
            let Some(batch) = &self.pending else { break };
            let count = (max_rows - rows).min(batch.num_rows() - self.offset);
            let part = batch.slice(self.offset, count);
            self.append(&part, block, self.next + rows as u64)?;
            held += block.ids.as_ref().map_or(0, |ids| ids.bytes_from(rows));
            rows += count;
            self.offset += count;
            if self.pending.as_ref().is_some_and(|batch| self.offset == batch.num_rows()) {
                self.pending = self.batches.next()?;
                self.offset = 0;
            }
        }
        self.next += rows as u64;
        Ok(())
    }
}

impl ColumnSource {
    fn append(&self, batch: &RecordBatch, block: &mut Block, first_row: u64) -> Result<()> {
        let schema = batch.schema();
        let named = |error: Error, column: usize| error.tensor(schema.field(column).name());
        match self.roles.features[..] {
            [only] => append_lists(batch.column(only), self.units, first_row, &mut block.features)
                .map_err(|error| named(error, only))?,
            _ => {
                let base = block.features.len();
                block.features.resize(base + batch.num_rows() * self.units, 0.0);
                for (unit, column) in self.roles.features.iter().enumerate() {
                    let mut place = base + unit;
                    numbers(batch.column(*column), first_row, 1, |value| {
                        block.features[place] = value as f32;
                        place += self.units;
                    })
                    .map_err(|error| named(error, *column))?;
                }
            }
        }
        if let (Some(column), Some(labels)) = (self.roles.label, &mut block.labels) {
            let mut bad = None;
            numbers(batch.column(column), first_row, 1, |value| match whole(value) {
                Some(label) => labels.push(label),
                None => bad = bad.or(Some(value)),
            })
            .map_err(|error| named(error, column))?;
            if let Some(value) = bad {
                return Err(not_a_label(&value.to_string(), first_row as usize + labels.len()));
            }
        }
        if let (Some(column), Some(ids)) = (self.roles.id, &mut block.ids) {
            append_ids(batch.column(column), first_row, ids).map_err(|error| named(error, column))?;
        }
        Ok(())
    }
}
