//! CSV and TSV: one row an input, one column a unit, and optionally a label and an id.
//!
//! The first line is a header of names unless all its fields are numbers. pandas heads a bare array with `0,1,2,...`: where
//! such a line stands above fractions it is a header, and above whole numbers, which it could be a row of, an error.

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::path::Path;

use ::csv::{ByteRecord, Reader, ReaderBuilder};

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Ids, Layout};
use crate::io::budget::{BLOCK_IDS, check_units, checked_id};
use crate::io::files;
use crate::io::request::Request;
use crate::io::spool::peek;
use crate::io::tables::roles::{Column, ColumnKind, Roles, TableHeader, has_another_meaning, pick};
use crate::io::whole::not_a_label;

type Input = Box<dyn Read + Send>;

pub(crate) fn open(path: &Path, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    let mut source = CsvSource::open(Box::new(files::open(path)?), request)?;
    if let Some(column) = source.roles.id.filter(|_| source.ids != IdType::Text) {
        let (ids, rows) = type_of_ids(CsvTable::open(Box::new(files::open(path)?))?, column)?;
        (source.ids, source.rows) = (ids, Some(rows));
    }
    Ok(Box::new(source))
}

pub(crate) fn from_reader(input: Input, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    Ok(Box::new(CsvSource::open(input, request)?))
}

/// Reads one column of numbers.
pub(crate) fn read_column(path: &Path, name: Option<&str>, defaults: &[&str]) -> Result<Vec<f64>> {
    let mut table = CsvTable::open(Box::new(files::open(path)?))?;
    let column = pick(&table.columns, name, defaults)?;
    let mut values = Vec::new();
    while table.advance()? {
        values.push(table.number(column)?);
    }
    Ok(values)
}

/// What all ids of a table are. CSV has no types: whole numbers are ids of that type only where all of them are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdType {
    Text,
    Integer,
    Unsigned,
}

/// Looks through all ids, and counts the rows.
fn type_of_ids(mut table: CsvTable, column: usize) -> Result<(IdType, u64)> {
    let (mut signed, mut unsigned, mut rows) = (true, true, 0);
    while table.advance()? {
        let field = &table.record[column];
        signed &= whole::<i64>(field).is_some();
        unsigned &= whole::<u64>(field).is_some();
        rows += 1;
    }
    let found = match (signed, unsigned) {
        (true, _) => IdType::Integer,
        (_, true) => IdType::Unsigned,
        _ => IdType::Text,
    };
    Ok((found, rows))
}

/// A whole number as it is usually written: without sign, zeros and spaces before it, which text could mean.
fn whole<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let padded = digits.starts_with('0') && (digits.len() > 1 || digits.len() < text.len());
    if padded || !digits.starts_with(|c: char| c.is_ascii_digit()) { None } else { text.parse().ok() }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim().to_owned()
}

fn is_number(field: &[u8]) -> bool {
    std::str::from_utf8(field).is_ok_and(|text| text.trim().parse::<f64>().is_ok())
}

/// The separator that the first line uses: tab, comma or semicolon.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    [b'\t', b',', b';'].into_iter().find(|delimiter| line.contains(delimiter)).unwrap_or(b',')
}

/// Text whose lines are of a sane length, and none of which ends inside quotes: a record is held in memory, what has no
/// line ends is no CSV, and a quote that is not closed would swallow the rows after it.
struct CheckedLines {
    input: Input,
    delimiter: u8,
    since_end: usize,
    /// Complete lines so far.
    lines: u64,
    place: Place,
}

/// Where in a field the text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Bare,
    Quoted,
    /// Behind a quote in quotes: the second of a pair, or the end.
    Closing,
}

const LONGEST_LINE: usize = 1 << 25;

impl CheckedLines {
    /// Follows quotes through `bytes`; an error where a line ends inside them.
    fn follow(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for byte in bytes {
            self.place = match (self.place, *byte) {
                (Place::Quoted, b'\n' | b'\r') => return Err(self.open_quote()),
                (Place::Quoted, b'"') => Place::Closing,
                (Place::Quoted, _) | (Place::Start | Place::Closing, b'"') => Place::Quoted,
                (_, b'\n') => {
                    self.lines += 1;
                    Place::Start
                }
                (_, byte) if byte == self.delimiter || byte == b'\r' => Place::Start,
                _ => Place::Bare,
            };
        }
        Ok(())
    }

    fn open_quote(&self) -> std::io::Error {
        invalid(format!("a quote (\") in line {} that is not closed in that line", self.lines + 1))
    }
}

fn invalid(message: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, message)
}

impl Read for CheckedLines {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        let bytes = &buffer[..read];
        if bytes.is_empty() && !buffer.is_empty() && self.place == Place::Quoted {
            return Err(self.open_quote());
        }
        if self.place == Place::Quoted || bytes.contains(&b'"') {
            self.follow(bytes)?;
        } else if let Some(last) = bytes.last() {
            self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let ends = *last == b'\n' || *last == b'\r' || *last == self.delimiter;
            self.place = if ends { Place::Start } else { Place::Bare };
        }
        self.since_end = match bytes.iter().rposition(|byte| matches!(*byte, b'\n' | b'\r')) {
            Some(end) => read - end,
            None => self.since_end + read,
        };
        if self.since_end > LONGEST_LINE {
            return Err(invalid(format!("no line end in {LONGEST_LINE} bytes: is this CSV?")));
        }
        Ok(read)
    }
}

/// Records of numbers and text under named columns; a first record of numbers only is data, and columns are numbered.
struct CsvTable {
    reader: Reader<Input>,
    columns: Vec<Column>,
    /// Whether the first line names the columns.
    named: bool,
    record: ByteRecord,
    /// Records that were read to see what the columns hold.
    ahead: VecDeque<ByteRecord>,
}

/// Records that are looked at to see what the columns hold.
const LOOK_AHEAD: usize = 16;
/// Bytes of them after which no more are looked at.
const MOST_AHEAD: usize = 1 << 22;

impl CsvTable {
    fn open(mut input: Input) -> Result<Self> {
        let start = peek(&mut input, 1 << 12)?;
        let delimiter = delimiter(&start);
        let input = Box::new(Cursor::new(start).chain(input));
        let lines = CheckedLines { input, delimiter, since_end: 0, lines: 0, place: Place::Start };
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(Box::new(lines) as Input);
        let record = ByteRecord::new();
        let mut table = Self { reader, columns: Vec::new(), named: false, record, ahead: VecDeque::new() };
        let mut held = 0;
        while table.ahead.len() <= LOOK_AHEAD && held < MOST_AHEAD {
            let mut record = ByteRecord::new();
            if !table.read(&mut record)? {
                break;
            }
            check_units(record.len())?;
            held += record.as_slice().len();
            table.ahead.push_back(record);
        }
        let Some(first) = table.ahead.pop_front() else {
            return Err(Error::new(ErrorKind::Empty, "an empty file").expected("a header and rows of numbers"));
        };
        table.named = is_header(&first, table.ahead.make_contiguous())?;
        if !table.named {
            table.ahead.push_front(first.clone());
        }
        let columns = first.iter().enumerate().map(|(column, name)| {
            let name = if table.named { text(name) } else { column.to_string() };
            (name, kind(table.ahead.iter().filter_map(|record| record.get(column))))
        });
        table.columns = columns.collect();
        Ok(table)
    }

    fn read(&mut self, record: &mut ByteRecord) -> Result<bool> {
        self.reader.read_byte_record(record).map_err(|error| match error.into_kind() {
            ::csv::ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Error::caused_by(ErrorKind::Malformed, error).expected("CSV of one line a row")
            }
            ::csv::ErrorKind::Io(error) => Error::caused_by(ErrorKind::Io, error),
            other => Error::new(ErrorKind::Malformed, format!("{other:?}")).expected("comma-separated values"),
        })
    }

    /// Moves to the next record; it must have as many fields as there are columns.
    fn advance(&mut self) -> Result<bool> {
        if let Some(record) = self.ahead.pop_front() {
            self.record = record;
        } else {
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

    fn number(&self, column: usize) -> Result<f64> {
        let field = std::str::from_utf8(&self.record[column]).unwrap_or("?").trim();
        field.parse().map_err(|_| self.unfit(column, "a number"))
    }

    fn unfit(&self, column: usize, expected: &str) -> Error {
        let shown: String = text(&self.record[column]).chars().take(40).collect();
        Error::new(ErrorKind::Malformed, format!("`{}` at {}", shown.escape_debug(), self.line()))
            .tensor(&self.columns[column].0)
            .expected(expected)
    }
}

/// Whether the `first` record of a file names its columns, or is data as the `rest` is.
fn is_header(first: &ByteRecord, rest: &[ByteRecord]) -> Result<bool> {
    let (numbers, names): (Vec<usize>, Vec<usize>) = (0..first.len()).partition(|column| is_number(&first[*column]));
    if numbers.is_empty() {
        return Ok(true);
    }
    let counts = numbers.iter().zip(0u64..).all(|(column, place)| whole(&first[*column]) == Some(place));
    let several = counts && numbers.len() > 1;
    if let Some(odd) = names.first().filter(|_| !several) {
        let odd = text(&first[*odd]);
        return Err(Error::new(ErrorKind::Malformed, format!("`{}` beside numbers at line 1", odd.escape_debug()))
            .expected("a header of names, or a row of numbers")
            .fix("give the file a header, or mend that field"));
    }
    // An id or an index beside columns that count: no row of data looks like this.
    if !names.is_empty() && names.iter().all(|column| has_another_meaning(&text(&first[*column]))) {
        return Ok(true);
    }
    if !counts {
        return Ok(false);
    }
    let fields = || rest.iter().flat_map(|record| numbers.iter().filter_map(|column| record.get(*column)));
    let fractions = fields().any(|field| is_number(field) && whole::<i64>(field).is_none());
    match (numbers.len(), fractions) {
        (1, false) => Ok(false),
        (2.., true) => Ok(true),
        _ => Err(Error::new(ErrorKind::Ambiguous, format!("`{}` at line 1", shown(first)))
            .expected("a header of names, or a row of numbers that does not look like one")
            .fix("name the columns (f0, f1, ...) if this is data, or its names in words if it is a header")),
    }
}

/// The start of a record, for a message.
fn shown(record: &ByteRecord) -> String {
    let fields: Vec<String> = record.iter().take(4).map(text).collect();
    format!("{}{}", fields.join(","), if record.len() > 4 { ",..." } else { "" })
}

/// What a column holds, by some of its fields. Empty ones say nothing.
fn kind<'a>(fields: impl Iterator<Item = &'a [u8]>) -> ColumnKind {
    let (mut integers, mut others, mut padded, mut words) = (0, 0, 0, 0);
    for field in fields.filter(|field| !field.trim_ascii().is_empty()) {
        let digits = field.iter().all(u8::is_ascii_digit);
        *match (is_number(field), whole::<i64>(field).is_some() || whole::<u64>(field).is_some()) {
            (false, _) => &mut words,
            (true, true) => &mut integers,
            (true, false) if digits => &mut padded,
            (true, false) => &mut others,
        } += 1;
    }
    match (words, integers + others + padded) {
        (0, 0) => ColumnKind::Float,
        (_, 0) => ColumnKind::Text,
        (0, _) if others > 0 => ColumnKind::Float,
        (0, _) if padded == 0 => ColumnKind::Integer,
        _ => ColumnKind::Mixed,
    }
}

struct CsvSource {
    table: CsvTable,
    roles: Roles,
    layout: Layout,
    ids: IdType,
    /// Rows, where they were counted.
    rows: Option<u64>,
    next: u64,
}

impl CsvSource {
    fn open(input: Input, request: &Request<'_>) -> Result<Self> {
        let table = CsvTable::open(input)?;
        let header = TableHeader { columns: &table.columns, named: table.named };
        let (roles, mut layout) = header.assign(request)?;
        layout.stray = layout.stray.or_else(|| table.counting(&roles.features));
        let ids = match roles.id.map(|column| table.columns[column].1) {
            Some(ColumnKind::Integer) => IdType::Integer,
            _ => IdType::Text,
        };
        Ok(Self { table, roles, layout, ids, rows: None, next: 0 })
    }

    fn push_id(&self, column: usize, row: u64, ids: &mut Ids) -> Result<()> {
        let field = &self.table.record[column];
        // Only of a stream, whose ids cannot be looked through first.
        let unfit = || {
            let error = self.table.unfit(column, "a whole number, as the ids before it");
            error.fix("give the table as a file, whose ids are looked through before the first row is scored")
        };
        match ids {
            Ids::Text(all) => {
                let text = std::str::from_utf8(field).map_err(|_| self.table.unfit(column, "UTF-8"))?;
                all.push(checked_id(text, row)?.to_owned());
            }
            Ids::Integer(all) => all.push(whole(field).ok_or_else(unfit)?),
            Ids::Unsigned(all) => all.push(whole(field).ok_or_else(unfit)?),
        }
        Ok(())
    }
}

impl CsvTable {
    /// A feature column that numbers the rows, in words.
    fn counting(&self, features: &[usize]) -> Option<String> {
        let counts = |column: &&usize| {
            let mut fields = self.ahead.iter().map(|record| record.get(**column).and_then(whole::<u64>));
            let first = fields.next().flatten();
            self.ahead.len() > 2
                && first.is_some_and(|first| fields.zip(first + 1..).all(|(field, n)| field == Some(n)))
        };
        let column = features.iter().find(counts)?;
        Some(format!("`{}`, which numbers the rows", self.columns[*column].0))
    }
}

impl FeatureSource for CsvSource {
    fn units(&self) -> usize {
        self.roles.features.len()
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.units(), self.next);
        let mut labels = Vec::new();
        let mut ids = match self.ids {
            IdType::Text => Ids::Text(Vec::new()),
            IdType::Integer => Ids::Integer(Vec::new()),
            IdType::Unsigned => Ids::Unsigned(Vec::new()),
        };
        let (mut rows, mut held) = (0, 0);
        while rows < max_rows && held < BLOCK_IDS && self.table.advance()? {
            for column in &self.roles.features {
                block.features.push(self.table.number(*column)? as f32);
            }
            if let Some(column) = self.roles.label {
                let value = self.table.number(column)?;
                let label = crate::io::whole::whole(value);
                labels.push(label.ok_or_else(|| not_a_label(&value.to_string(), self.next as usize + rows))?);
            }
            if let Some(column) = self.roles.id {
                self.push_id(column, self.next + rows as u64, &mut ids)?;
                held += self.table.record[column].len();
            }
            rows += 1;
        }
        block.labels = self.roles.label.map(|_| labels);
        block.ids = self.roles.id.map(|_| ids);
        self.next += rows as u64;
        Ok(())
    }
}
