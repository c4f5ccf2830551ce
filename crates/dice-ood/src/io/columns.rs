//! Parquet and Arrow IPC: a column of lists, a fixed-size list, or one column a unit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_buffer::Buffer;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_writer::ArrowWriter;

use super::budget::{BLOCK_IDS, MOST_UNITS, check_units, checked_id};
use super::files::AtomicFile;
use super::guard::guard;
use super::output::ScoreRow;
use super::parquet::{ParquetBatches, ParquetFile, Reading};
use super::table::{Column, Header, Kind, Request, Roles, pick};
use super::{Format, not_a_label};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Id, Ids, Layout};

/// Rows decoded at a time: small, because every column of a wide table holds a page of its own besides.
const BATCH_ROWS: usize = 1024;

pub(super) fn open(path: &Path, format: Format, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    let assign = |columns: &[Column]| Header { columns, named: true }.assign(request);
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
pub(super) fn read_column(path: &Path, format: Format, name: Option<&str>, defaults: &[&str]) -> Result<Vec<f64>> {
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

fn columns_of(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|field| (field.name().clone(), kind(field.data_type()))).collect()
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if item.data_type().is_numeric() =>
        {
            Kind::List
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(16) => Kind::Text,
        // Repeated text under a number each, as pandas writes categories. Repeated numbers are no features.
        DataType::Dictionary(_, values) if matches!(kind(values), Kind::Text | Kind::Integer) => Kind::Text,
        other if other.is_integer() => Kind::Integer,
        other if other.is_numeric() => Kind::Float,
        _ => Kind::Other,
    }
}

fn list_width(column: &ArrayRef) -> Option<usize> {
    match column.data_type() {
        DataType::FixedSizeList(_, width) => usize::try_from(*width).ok(),
        DataType::List(_) => (!column.is_empty()).then(|| column.as_list::<i32>().value_length(0) as usize),
        DataType::LargeList(_) => (!column.is_empty()).then(|| column.as_list::<i64>().value_length(0) as usize),
        _ => None,
    }
}

/// Record batches of a file, in order, none empty.
enum Batches {
    Parquet(ParquetWindows),
    Ipc(IpcMessages),
}

impl Batches {
    /// Opens `path`; `wanted` says which columns are needed, ascending, where the format allows to read only those.
    fn open(path: &Path, format: Format, wanted: impl FnOnce(&[Column]) -> Result<Vec<usize>>) -> Result<Self> {
        let file = super::open(path)?;
        if format == Format::ArrowIpc {
            return Ok(Self::Ipc(IpcMessages::open(file)?));
        }
        let file = ParquetFile::new(file)?;
        let columns = wanted(&columns_of(file.schema()))?;
        Ok(Self::Parquet(ParquetWindows::new(file, &columns)?))
    }

    fn rows(&self) -> Option<u64> {
        match self {
            Self::Parquet(windows) => Some(windows.rows as u64),
            Self::Ipc(_) => None,
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let batch = match self {
                Self::Parquet(windows) => windows.next()?,
                Self::Ipc(messages) => messages.next()?,
            };
            if batch.as_ref().is_none_or(|batch| batch.num_rows() > 0) {
                return Ok(batch);
            }
        }
    }
}

/// Parquet, a few columns at a time.
///
/// Each column that is being read holds a page and a dictionary of its own, a megabyte each as common writers make
/// them. A table with one column a unit is therefore read in windows of rows, within a window one group of columns
/// after the other; a table of few columns is one window.
struct ParquetWindows {
    file: ParquetFile,
    /// Leaves of the wanted columns, ascending, in groups.
    groups: Vec<Vec<usize>>,
    rows: usize,
    next: usize,
    window: usize,
    /// The most values of a list, once the first was seen.
    width: Option<usize>,
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
/// A list that may be met without a reason but an error: it is then named by its row.
const ODD_WIDTH: usize = 1 << 12;

impl ParquetWindows {
    fn new(file: ParquetFile, columns: &[usize]) -> Result<Self> {
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
        Ok(Self { file, groups, rows, next: 0, window, width: no_lists.then_some(0), reader: None })
    }

    fn read(&self, leaves: &[usize], rows: Range<usize>, batch: usize) -> Result<ParquetBatches> {
        // The first row is read alone: it says how many others fit a batch.
        let widest = self.width.map_or(MOST_UNITS, |width| width.max(ODD_WIDTH));
        self.file.read(&Reading { leaves: leaves.to_vec(), rows, batch, widest })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
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
            let width = batch.columns().iter().filter_map(list_width).max().unwrap_or(0);
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

fn guarded<T, E: std::fmt::Display>(decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    guard(decode).map_err(|found| {
        Error::new(ErrorKind::Malformed, found)
            .expected("a complete Arrow IPC file")
            .fix("the file is truncated or corrupt: write it again")
    })
}

/// The messages of an Arrow IPC stream; a file is the same stream behind a signature and before a footer.
///
/// Messages are framed here and not by the arrow crate, whose file reader allocates what the footer claims.
struct IpcMessages {
    input: BufReader<File>,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes of all dictionaries, which are kept to the end of the file.
    dictionary_bytes: u64,
    /// Files must end with the end marker; streams may simply end.
    is_file: bool,
    done: bool,
}

const SIGNATURE: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];
/// More than the buffers of a sane record batch take together, or all dictionaries; a claim beyond it is not tried.
const LARGEST_BATCH: u64 = 512 << 20;

impl IpcMessages {
    fn open(file: File) -> Result<Self> {
        let mut input = BufReader::with_capacity(1 << 18, file);
        let start = input.fill_buf().map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
        let start = start[..start.len().min(SIGNATURE.len() + 64)].to_vec();
        let is_file = start.starts_with(SIGNATURE);
        if is_file {
            ends_with_signature(input.get_ref())?;
            // Writers pad the signature with zeros to 8, or to 64, bytes.
            let padding = start[SIGNATURE.len()..].iter().take_while(|byte| **byte == 0).count();
            input.consume(SIGNATURE.len() + padding);
        } else if !start.starts_with(&CONTINUATION) {
            let error = broken("other bytes").expected("an Arrow IPC file or stream (Feather version 2)");
            return Err(if start.starts_with(b"FEA1") { error.fix("write Feather version 2") } else { error });
        }
        Ok(Self { input, schema: None, dictionaries: HashMap::new(), dictionary_bytes: 0, is_file, done: false })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.done {
            let Some((metadata, body)) = self.message()? else {
                self.done = true;
                break;
            };
            let message = arrow_ipc::root_as_message(&metadata).map_err(|error| broken(&error.to_string()))?;
            let body = Buffer::from_vec(body);
            let version = message.version();
            if let Some(schema) = message.header_as_schema() {
                if self.schema.is_some() {
                    return Err(broken("a second schema"));
                }
                self.schema = Some(Arc::new(guarded(|| Ok::<_, String>(fb_to_schema(schema)))?));
            } else if let (Some(batch), Some(schema)) = (message.header_as_dictionary_batch(), &self.schema) {
                let dictionaries = &mut self.dictionaries;
                guarded(|| read_dictionary(&body, batch, schema, dictionaries, &version))?;
            } else if let (Some(batch), Some(schema)) = (message.header_as_record_batch(), &self.schema) {
                let batch = guarded(|| {
                    read_record_batch(&body, batch, Arc::clone(schema), &self.dictionaries, None, &version)
                })?;
                return Ok(Some(batch));
            } else {
                return Err(broken("a message of another kind, or before the schema"));
            }
        }
        Ok(None)
    }

    /// The next message, as its metadata and its body.
    fn message(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let frame = self.bytes(8)?;
        if frame.is_empty() && !self.is_file {
            return Ok(None);
        }
        if frame.len() < 8 || frame[..4] != CONTINUATION {
            return Err(broken("the end of the data"));
        }
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        if length == 0 {
            return Ok(None);
        }
        let metadata = self.exactly(length.into())?;
        let message = arrow_ipc::root_as_message(&metadata).map_err(|error| broken(&error.to_string()))?;
        let body_length = u64::try_from(message.bodyLength()).map_err(|_| broken("a body of negative length"))?;
        let compressed: Vec<(i64, i64)> = message
            .header_as_record_batch()
            .or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()))
            .filter(|batch| batch.compression().is_some())
            .and_then(|batch| batch.buffers())
            .map(|buffers| buffers.iter().map(|buffer| (buffer.offset(), buffer.length())).collect())
            .unwrap_or_default();
        let body = self.exactly(body_length)?;
        let claimed = check_compressed(&body, &compressed)?;
        if message.header_as_dictionary_batch().is_some() {
            self.dictionary_bytes = self.dictionary_bytes.saturating_add(claimed).saturating_add(body_length);
            check_batch(self.dictionary_bytes)?;
        }
        Ok(Some((metadata, body)))
    }

    fn exactly(&mut self, count: u64) -> Result<Vec<u8>> {
        let bytes = self.bytes(count)?;
        if bytes.len() as u64 == count { Ok(bytes) } else { Err(broken("the end of the data")) }
    }

    /// Reads up to `count` bytes; memory grows with what is there.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(count).read_to_end(&mut bytes);
        read.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
        Ok(bytes)
    }
}

/// A file ends as it starts. The position of `file` is left as it was.
fn ends_with_signature(file: &File) -> Result<()> {
    let attempt = || -> std::io::Result<bool> {
        let mut file = file.try_clone()?;
        let position = file.stream_position()?;
        let mut end = [0; SIGNATURE.len()];
        file.seek(SeekFrom::End(-(SIGNATURE.len() as i64)))?;
        file.read_exact(&mut end)?;
        file.seek(SeekFrom::Start(position))?;
        Ok(&end == SIGNATURE)
    };
    match attempt() {
        Ok(true) => Ok(()),
        Ok(false) => Err(broken("the end of the data")),
        Err(error) => Err(Error::new(ErrorKind::Io, error.to_string())),
    }
}

/// The sum of what compressed buffers of a message claim to be once they are not: each starts with that number, which the
/// decoder allocates at once.
fn check_compressed(body: &[u8], buffers: &[(i64, i64)]) -> Result<u64> {
    let mut total = 0u64;
    for (offset, length) in buffers {
        if *length == 0 {
            continue;
        }
        let start = usize::try_from(*offset).ok().and_then(|start| body.get(start..));
        let Some(prefix) = start.and_then(|rest| rest.first_chunk::<8>()) else {
            return Err(broken("a buffer outside its message"));
        };
        // -1 marks a buffer that is not compressed after all.
        total = total.saturating_add(u64::try_from(i64::from_le_bytes(*prefix)).unwrap_or(0));
        check_batch(total)?;
    }
    Ok(total)
}

fn check_batch(bytes: u64) -> Result<()> {
    if bytes <= LARGEST_BATCH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{bytes} bytes or more of a record batch, or of dictionaries"))
        .expected(format!("at most {LARGEST_BATCH} bytes, uncompressed"))
        .fix("write smaller record batches"))
}

fn broken(found: &str) -> Error {
    // Decoders of flatbuffers append a trace of many lines.
    Error::new(ErrorKind::Malformed, found.lines().next().unwrap_or_default())
        .expected("a complete Arrow IPC file or stream")
        .fix("the file is truncated or corrupt: write it again")
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
            numbers(batch.column(column), first_row, 1, |value| match super::whole(value) {
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

/// Appends a column of lists of `units` numbers, or of plain numbers where `units` is 1.
fn append_lists(column: &ArrayRef, units: usize, first_row: u64, out: &mut Vec<f32>) -> Result<()> {
    let no_nulls = |column: &dyn Array| match (0..column.len()).find(|row| column.is_null(*row)) {
        Some(row) => Err(null(first_row + row as u64)),
        None => Ok(()),
    };
    let check = |row: usize, width: usize| {
        if width == units {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Shape, format!("a list of {width} at row {}", first_row + row as u64))
            .expected(format!("lists of {units} values, as in the first row")))
    };
    no_nulls(column)?;
    let before = out.len();
    let values = match column.data_type() {
        DataType::FixedSizeList(_, _) => {
            let lists = column.as_fixed_size_list();
            let width = lists.value_length() as usize;
            check(0, width)?;
            // Whether a slice keeps the values of other rows is the array's affair: take those of its rows.
            lists.values().slice(lists.offset() * width, lists.len() * width)
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            (0..lists.len()).try_for_each(|row| check(row, lists.value_length(row) as usize))?;
            let offsets = lists.value_offsets();
            lists.values().slice(offsets[0] as usize, (offsets[lists.len()] - offsets[0]) as usize)
        }
        DataType::LargeList(_) => {
            let lists = column.as_list::<i64>();
            (0..lists.len()).try_for_each(|row| check(row, lists.value_length(row) as usize))?;
            let offsets = lists.value_offsets();
            lists.values().slice(offsets[0] as usize, (offsets[lists.len()] - offsets[0]) as usize)
        }
        _ => Arc::clone(column),
    };
    numbers(&values, first_row, units, |value| out.push(value as f32))?;
    debug_assert_eq!(out.len() - before, column.len() * units);
    Ok(())
}

/// Hands out the numbers of a primitive column, `width` of them a row; a null is an error.
fn numbers(column: &ArrayRef, first_row: u64, width: usize, mut take: impl FnMut(f64)) -> Result<()> {
    let values = if column.null_count() > 0 { column.len() } else { 0 };
    if let Some(place) = (0..values).find(|place| column.is_null(*place)) {
        return Err(null(first_row + (place / width) as u64));
    }
    macro_rules! each {
        ($type:ty, $convert:expr) => {
            column.as_primitive::<$type>().values().iter().for_each(|value| take($convert(*value)))
        };
    }
    match column.data_type() {
        DataType::Float16 => each!(Float16Type, f64::from),
        DataType::Float32 => each!(Float32Type, f64::from),
        DataType::Float64 => each!(Float64Type, |value: f64| value),
        DataType::Int8 => each!(Int8Type, f64::from),
        DataType::Int16 => each!(Int16Type, f64::from),
        DataType::Int32 => each!(Int32Type, f64::from),
        DataType::Int64 => each!(Int64Type, |value: i64| value as f64),
        DataType::UInt8 => each!(UInt8Type, f64::from),
        DataType::UInt16 => each!(UInt16Type, f64::from),
        DataType::UInt32 => each!(UInt32Type, f64::from),
        DataType::UInt64 => each!(UInt64Type, |value: u64| value as f64),
        other => {
            return Err(Error::new(ErrorKind::Unsupported, format!("a column of {other}"))
                .expected("numbers, or lists of numbers"));
        }
    }
    Ok(())
}

/// No ids yet, of the type that those of `column` have.
fn no_ids(column: &ArrayRef) -> Ids {
    match column.data_type() {
        DataType::Dictionary(_, _) => no_ids(column.as_any_dictionary().values()),
        DataType::UInt64 => Ids::Unsigned(Vec::new()),
        other if other.is_numeric() => Ids::Integer(Vec::new()),
        _ => Ids::Text(Vec::new()),
    }
}

fn append_ids(column: &ArrayRef, first_row: u64, ids: &mut Ids) -> Result<()> {
    let rows = 0..column.len();
    if let Some(row) = rows.clone().find(|row| column.is_null(*row)) {
        return Err(null(first_row + row as u64));
    }
    if let DataType::Dictionary(_, _) = column.data_type() {
        let dictionary = column.as_any_dictionary();
        let mut values = no_ids(dictionary.values());
        append_ids(dictionary.values(), 0, &mut values)?;
        let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
        match (ids, &values) {
            (Ids::Text(all), Ids::Text(values)) => all.extend(keys.into_iter().map(|key| values[key].clone())),
            (Ids::Integer(all), Ids::Integer(values)) => all.extend(keys.into_iter().map(|key| values[key])),
            (Ids::Unsigned(all), Ids::Unsigned(values)) => all.extend(keys.into_iter().map(|key| values[key])),
            _ => {}
        }
        return Ok(());
    }
    match ids {
        Ids::Text(all) => rows.into_iter().try_for_each(|row| {
            let number = first_row + row as u64;
            let text = text(column, row).ok_or_else(|| unreadable_id(column, number))?;
            all.push(checked_id(text, number)?.into_owned());
            Ok(())
        }),
        Ids::Unsigned(all) => {
            all.extend(column.as_primitive::<UInt64Type>().values());
            Ok(())
        }
        Ids::Integer(all) => match column.data_type() {
            DataType::Int64 => {
                all.extend(column.as_primitive::<Int64Type>().values());
                Ok(())
            }
            _ => {
                let (mut row, mut odd) = (first_row, None);
                numbers(column, first_row, 1, |value| {
                    match super::whole(value) {
                        Some(number) => all.push(number),
                        None => odd = odd.or(Some(row)),
                    }
                    row += 1;
                })?;
                odd.map_or(Ok(()), |row| Err(unreadable_id(column, row)))
            }
        },
    }
}

/// The text at `row` of a column of text, or of the bytes that some writers keep text and UUIDs in.
fn text(column: &ArrayRef, row: usize) -> Option<Cow<'_, str>> {
    let bytes = match column.data_type() {
        DataType::Utf8 => return Some(column.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => return Some(column.as_string::<i64>().value(row).into()),
        DataType::Utf8View => return Some(column.as_string_view().value(row).into()),
        DataType::FixedSizeBinary(16) => return Some(uuid(column.as_fixed_size_binary().value(row)).into()),
        DataType::Binary => column.as_binary::<i32>().value(row),
        DataType::LargeBinary => column.as_binary::<i64>().value(row),
        DataType::BinaryView => column.as_binary_view().value(row),
        _ => return None,
    };
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

/// Sixteen bytes as UUIDs are written.
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unreadable_id(column: &ArrayRef, row: u64) -> Error {
    Error::new(ErrorKind::Unsupported, format!("a value of {} at row {row}", column.data_type()))
        .expected("ids that are text or whole numbers")
}

fn null(row: u64) -> Error {
    Error::new(ErrorKind::NotFinite, format!("null at row {row}")).expected("a value in every row")
}

/// Scores as Parquet: `id` text or a whole number, as the first one is, `score` f64, `p_value` f64, `decision` text, these two
/// null without calibration, and `prediction` u32.
pub(super) struct ScoreTable {
    /// The file, until the type of ids is known.
    file: Option<AtomicFile>,
    writer: Option<ArrowWriter<AtomicFile>>,
    schema: Arc<Schema>,
    destination: PathBuf,
}

impl ScoreTable {
    pub(super) fn create(file: AtomicFile) -> Self {
        let destination = file.destination().to_path_buf();
        Self { file: Some(file), writer: None, schema: Arc::new(Schema::empty()), destination }
    }

    /// The writer, of ids of the type of `id`.
    fn writer(&mut self, id: &DataType) -> Result<&mut ArrowWriter<AtomicFile>> {
        if let Some(file) = self.file.take() {
            self.schema = Arc::new(Schema::new(vec![
                Field::new("id", id.clone(), false),
                Field::new("score", DataType::Float64, false),
                Field::new("p_value", DataType::Float64, true),
                Field::new("decision", DataType::Utf8, true),
                Field::new("prediction", DataType::UInt32, true),
            ]));
            // Dictionaries would be tried for scores, which never repeat.
            let properties = parquet::file::properties::WriterProperties::builder()
                .set_compression(parquet::basic::Compression::SNAPPY)
                .set_column_dictionary_enabled("score".into(), false)
                .set_max_row_group_row_count(Some(1 << 17))
                .build();
            let writer = ArrowWriter::try_new(file, Arc::clone(&self.schema), Some(properties))
                .map_err(|error| failed(error).file(self.destination.display()))?;
            self.writer = Some(writer);
        }
        self.writer.as_mut().ok_or_else(|| failed("the file could not be started").file(self.destination.display()))
    }

    pub(super) fn write(&mut self, rows: &[ScoreRow]) -> Result<()> {
        let located = |table: &Self, error: Error| error.file(table.destination.display());
        if rows.is_empty() {
            return Ok(());
        }
        let ids = column_of_ids(rows).map_err(|error| located(self, error))?;
        self.writer(ids.data_type())?;
        let columns: Vec<ArrayRef> = vec![
            ids,
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.score))),
            Arc::new(rows.iter().map(|row| row.p_value).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.decision.map(|decision| decision.to_string())).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.prediction).collect::<UInt32Array>()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let batch = batch.map_err(|error| located(self, failed(error)))?;
        let written = self.writer(&DataType::Utf8)?.write(&batch);
        written.map_err(|error| located(self, failed(error)))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        // Without rows the type of ids is nobody's matter.
        self.writer(&DataType::Utf8)?;
        let Some(writer) = self.writer else { return Ok(()) };
        let file = writer.into_inner().map_err(|error| failed(error).file(self.destination.display()))?;
        file.commit()
    }
}

/// The ids of `rows`, all of the type of the first.
fn column_of_ids(rows: &[ScoreRow]) -> Result<ArrayRef> {
    let odd = || {
        Error::new(ErrorKind::Malformed, "ids that are text and ids that are numbers")
            .expected("ids of one type in a Parquet file")
    };
    let text = |row: &ScoreRow| if let Id::Text(id) = &row.id { Ok(id.clone()) } else { Err(odd()) };
    let integer = |row: &ScoreRow| if let Id::Integer(id) = row.id { Ok(id) } else { Err(odd()) };
    let unsigned = |row: &ScoreRow| if let Id::Unsigned(id) = row.id { Ok(id) } else { Err(odd()) };
    Ok(match rows.first().map(|row| &row.id) {
        Some(Id::Integer(_)) => Arc::new(Int64Array::from(rows.iter().map(integer).collect::<Result<Vec<_>>>()?)),
        Some(Id::Unsigned(_)) => Arc::new(UInt64Array::from(rows.iter().map(unsigned).collect::<Result<Vec<_>>>()?)),
        _ => Arc::new(StringArray::from(rows.iter().map(text).collect::<Result<Vec<_>>>()?)),
    })
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, error.to_string().trim_start_matches("External: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Float32Array;

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
