//! CSV and TSV: one row an input, one column a unit, and optionally a label and an id.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::csv::{ByteRecord, Reader, ReaderBuilder};

use super::budget::{BLOCK_IDS, check_units, checked_id};
use super::table::{Kind, Roles, pick};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource};

type Input = Box<dyn Read + Send>;

pub(super) fn open(path: &Path, name: Option<&str>, labels: bool) -> Result<Box<dyn FeatureSource>> {
    from_reader(Box::new(super::open(path)?), name, labels)
}

pub(super) fn from_reader(input: Input, name: Option<&str>, labels: bool) -> Result<Box<dyn FeatureSource>> {
    let table = Table::open(input)?;
    let roles = Roles::assign(&table.columns, name, labels)?;
    Ok(Box::new(CsvSource { table, roles, next: 0 }))
}

/// Reads one column of numbers.
pub(super) fn read_column(path: &Path, name: Option<&str>, defaults: &[&str]) -> Result<Vec<f64>> {
    let mut table = Table::open(Box::new(super::open(path)?))?;
    let column = pick(&table.columns, name, defaults)?;
    let mut values = Vec::new();
    while table.advance()? {
        values.push(table.number(column)?);
    }
    Ok(values)
}

/// The separator that the first line uses: tab, comma or semicolon.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    [b'\t', b',', b';'].into_iter().find(|delimiter| line.contains(delimiter)).unwrap_or(b',')
}

/// Text whose records are of a sane length: one is held in memory, and what has no end of records is no CSV.
struct Records {
    input: Input,
    /// Bytes read since the last record came to its end, counted from outside: a quoted field may hold line ends.
    since_end: Arc<AtomicUsize>,
}

const LONGEST_RECORD: usize = 1 << 25;

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        if self.since_end.fetch_add(read, Ordering::Relaxed) + read > LONGEST_RECORD {
            let message =
                format!("no end of a record in {LONGEST_RECORD} bytes: is this CSV, and are its quotes closed?");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        Ok(read)
    }
}

/// Records of numbers and text under named columns; a first record of numbers only is data, and columns are numbered.
struct Table {
    reader: Reader<Input>,
    /// Of [`Records`].
    since_end: Arc<AtomicUsize>,
    columns: Vec<(String, Kind)>,
    record: ByteRecord,
    /// The first record, where it turned out to be data.
    pending: bool,
}

impl Table {
    fn open(mut input: Input) -> Result<Self> {
        let start = super::peek(&mut input, 1 << 12)?;
        let delimiter = delimiter(&start);
        let since_end = Arc::default();
        let input: Input =
            Box::new(Records { input: Box::new(Cursor::new(start).chain(input)), since_end: Arc::clone(&since_end) });
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(input);
        let mut table = Self { reader, since_end, columns: Vec::new(), record: ByteRecord::new(), pending: false };
        let mut first = ByteRecord::new();
        if !table.read(&mut first)? {
            return Err(Error::new(ErrorKind::Empty, "an empty file").expected("a header and rows of numbers"));
        }
        check_units(first.len())?;
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim().to_owned();
        let numbers: Vec<f64> = first.iter().filter_map(|field| text(field).parse().ok()).collect();
        // pandas names the columns of a bare array 0, 1, 2, ...
        let counts = numbers.len() > 1 && numbers.iter().zip(0u32..).all(|(number, place)| *number == f64::from(place));
        if numbers.len() == first.len() && !counts {
            table.columns = (0..first.len()).map(|column| (column.to_string(), Kind::Number)).collect();
            table.record = first;
            table.pending = true;
            return Ok(table);
        }
        if !numbers.is_empty() && !counts {
            let odd = first.iter().map(text).find(|field| field.parse::<f64>().is_err()).unwrap_or_default();
            return Err(Error::new(ErrorKind::Malformed, format!("`{}` beside numbers at line 1", odd.escape_debug()))
                .expected("a header of names, or a row of numbers")
                .fix("give the file a header, or mend that field"));
        }
        // Whether a column holds numbers shows in the first row of data.
        let mut second = ByteRecord::new();
        table.pending = table.read(&mut second)?;
        table.columns = first
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let is_text = second.get(column).is_some_and(|field| text(field).parse::<f64>().is_err());
                (text(name), if is_text { Kind::Text } else { Kind::Number })
            })
            .collect();
        table.record = second;
        Ok(table)
    }

    fn read(&mut self, record: &mut ByteRecord) -> Result<bool> {
        self.since_end.store(0, Ordering::Relaxed);
        self.reader.read_byte_record(record).map_err(|error| match error.into_kind() {
            ::csv::ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Error::new(ErrorKind::Malformed, error.to_string())
            }
            ::csv::ErrorKind::Io(error) => Error::new(ErrorKind::Io, error.to_string()),
            other => Error::new(ErrorKind::Malformed, format!("{other:?}")).expected("comma-separated values"),
        })
    }

    /// Moves to the next record; it must have as many fields as there are columns.
    fn advance(&mut self) -> Result<bool> {
        if !std::mem::take(&mut self.pending) {
            let mut record = std::mem::take(&mut self.record);
            let more = self.read(&mut record)?;
            self.record = record;
            if !more {
                return Ok(false);
            }
        }
        if self.record.len() != self.columns.len() {
            return Err(Error::new(ErrorKind::Malformed, format!("{} fields at {}", self.record.len(), self.line()))
                .expected(format!("{} fields, one for each column", self.columns.len()))
                .fix("is the file truncated?"));
        }
        Ok(true)
    }

    fn line(&self) -> String {
        self.record.position().map_or("the end".into(), |position| format!("line {}", position.line()))
    }

    fn text(&self, column: usize) -> String {
        String::from_utf8_lossy(&self.record[column]).trim().to_owned()
    }

    fn number(&self, column: usize) -> Result<f64> {
        let field = std::str::from_utf8(&self.record[column]).unwrap_or("?").trim();
        field.parse().map_err(|_| {
            let shown: String = field.chars().take(40).collect();
            Error::new(ErrorKind::Malformed, format!("`{}` at {}", shown.escape_debug(), self.line()))
                .tensor(&self.columns[column].0)
                .expected("a number")
        })
    }
}

struct CsvSource {
    table: Table,
    roles: Roles,
    next: u64,
}

impl FeatureSource for CsvSource {
    fn units(&self) -> usize {
        self.roles.features.len()
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.units(), self.next);
        let (mut labels, mut ids) = (Vec::new(), Vec::new());
        let (mut rows, mut held) = (0, 0);
        while rows < max_rows && held < BLOCK_IDS && self.table.advance()? {
            for column in &self.roles.features {
                block.features.push(self.table.number(*column)? as f32);
            }
            if let Some(column) = self.roles.label {
                let value = self.table.number(column)?;
                let label = super::whole(value);
                labels.push(label.ok_or_else(|| super::not_a_label(&value.to_string(), self.next as usize + rows))?);
            }
            if let Some(column) = self.roles.id {
                let id = checked_id(self.table.text(column), self.next + rows as u64)?;
                held += id.len();
                ids.push(id);
            }
            rows += 1;
        }
        block.labels = self.roles.label.map(|_| labels);
        block.ids = self.roles.id.map(|_| ids);
        self.next += rows as u64;
        Ok(())
    }
}
