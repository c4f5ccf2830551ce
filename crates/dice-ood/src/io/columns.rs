//! Parquet and Arrow IPC: a column of lists, a fixed-size list, or one column a unit.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriter;

use super::output::{AtomicFile, ScoreRow};
use super::table::{Kind, Roles, pick};
use super::{Format, not_a_label};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource};

/// Rows decoded at a time: small, because every column of a wide table holds a page of its own besides.
const BATCH_ROWS: usize = 1024;

pub(super) fn open(path: &Path, format: Format, name: Option<&str>) -> Result<Box<dyn FeatureSource>> {
    let mut batches = Batches::open(path, format, |columns| {
        let roles = Roles::assign(columns, name)?;
        Ok(roles.features.into_iter().chain(roles.label).chain(roles.id).collect())
    })?;
    let Some(first) = batches.next()? else {
        return Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row"));
    };
    let roles = Roles::assign(&columns_of(&first.schema()), name)?;
    let units = match roles.features[..] {
        [only] => list_width(first.column(only)).unwrap_or(1),
        _ => roles.features.len(),
    };
    if units == 0 {
        return Err(Error::new(ErrorKind::Shape, "empty lists").tensor("features").expected("lists of D values"));
    }
    let rows = batches.rows();
    Ok(Box::new(ColumnSource { batches, rows, roles, units, pending: Some(first), offset: 0, next: 0 }))
}

/// Reads one column of numbers.
pub(super) fn read_column(path: &Path, format: Format, name: Option<&str>, defaults: &[&str]) -> Result<Vec<f64>> {
    let mut batches = Batches::open(path, format, |columns| Ok(vec![pick(columns, name, defaults)?]))?;
    let mut values = Vec::new();
    while let Some(batch) = batches.next()? {
        let column = pick(&columns_of(&batch.schema()), name, defaults)?;
        let field = batch.schema().field(column).name().clone();
        numbers(batch.column(column), |value| values.push(value)).map_err(|error| error.tensor(field))?;
    }
    Ok(values)
}

fn columns_of(schema: &Schema) -> Vec<(String, Kind)> {
    let kind = |field: &Field| match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if item.data_type().is_numeric() =>
        {
            Kind::List
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Other,
    };
    schema.fields().iter().map(|field| (field.name().clone(), kind(field))).collect()
}

fn list_width(column: &ArrayRef) -> Option<usize> {
    match column.data_type() {
        DataType::FixedSizeList(_, width) => usize::try_from(*width).ok(),
        DataType::List(_) => (!column.is_empty()).then(|| column.as_list::<i32>().value_length(0) as usize),
        DataType::LargeList(_) => (!column.is_empty()).then(|| column.as_list::<i64>().value_length(0) as usize),
        _ => None,
    }
}

/// Record batches of a file, in order.
enum Batches {
    Parquet { reader: ParquetRecordBatchReader, rows: u64 },
    Ipc(IpcMessages),
}

impl Batches {
    /// Opens `path`; `wanted` says which columns are needed, where the format allows to read only those.
    fn open(path: &Path, format: Format, wanted: impl Fn(&[(String, Kind)]) -> Result<Vec<usize>>) -> Result<Self> {
        let file = super::open(path)?;
        if format == Format::ArrowIpc {
            return Ok(Self::Ipc(IpcMessages::open(file)?));
        }
        let builder = guarded("Parquet", || ParquetRecordBatchReaderBuilder::try_new(file))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let columns = wanted(&columns_of(builder.schema()))?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let reader = guarded("Parquet", || builder.with_projection(mask).with_batch_size(BATCH_ROWS).build())?;
        Ok(Self::Parquet { reader, rows })
    }

    fn rows(&self) -> Option<u64> {
        match self {
            Self::Parquet { rows, .. } => Some(*rows),
            Self::Ipc(_) => None,
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Parquet { reader, .. } => guarded("Parquet", || reader.next().transpose()),
            Self::Ipc(messages) => messages.next(),
        }
    }
}

/// Runs a foreign decoder; should it panic on bytes its authors did not foresee, that is an error like any other.
fn guarded<T, E: std::fmt::Display>(format: &str, decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    let malformed = |found: String| {
        Error::new(ErrorKind::Malformed, found)
            .expected(format!("a complete {format} file"))
            .fix("the file is truncated or corrupt: write it again")
    };
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| malformed(error.to_string())),
        Err(_) => Err(malformed("bytes that its decoder gave up on".into())),
    }
}

/// The messages of an Arrow IPC stream; a file is the same stream behind a signature and before a footer.
///
/// Messages are framed here and not by the arrow crate, whose file reader allocates what the footer claims.
struct IpcMessages {
    input: BufReader<File>,
    decoder: StreamDecoder,
    /// Files must end with the end marker; streams may simply end.
    is_file: bool,
    done: bool,
}

const SIGNATURE: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];
/// More than any buffer of a sane record batch; a claim beyond it is not tried.
const LARGEST_BUFFER: i64 = 1 << 31;

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
            return Err(broken("other bytes").expected("an Arrow IPC file or stream (Feather version 2)"));
        }
        Ok(Self { input, decoder: StreamDecoder::new(), is_file, done: false })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.done {
            let Some((metadata, body)) = self.message()? else {
                self.done = true;
                break;
            };
            for part in [metadata, body] {
                let mut part = Buffer::from_vec(part);
                while !part.is_empty() {
                    let decoded = guarded("Arrow IPC", || self.decoder.decode(&mut part))?;
                    if decoded.is_some() {
                        return Ok(decoded);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The next message, as its framed metadata and its body.
    fn message(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut frame = Vec::new();
        self.append(8, &mut frame)?;
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
        self.append(u64::from(length), &mut frame)?;
        if frame.len() as u64 != 8 + u64::from(length) {
            return Err(broken("the end of the data"));
        }
        let message = arrow_ipc::root_as_message(&frame[8..]).map_err(|error| broken(&error.to_string()))?;
        let body_length = u64::try_from(message.bodyLength()).map_err(|_| broken("a body of negative length"))?;
        let compressed: Vec<(i64, i64)> = message
            .header_as_record_batch()
            .filter(|batch| batch.compression().is_some())
            .and_then(|batch| batch.buffers())
            .map(|buffers| buffers.iter().map(|buffer| (buffer.offset(), buffer.length())).collect())
            .unwrap_or_default();
        let mut body = Vec::new();
        self.append(body_length, &mut body)?;
        if body.len() as u64 != body_length {
            return Err(broken("the end of the data"));
        }
        for (offset, length) in compressed {
            check_compressed(&body, offset, length)?;
        }
        Ok(Some((frame, body)))
    }

    /// Reads up to `count` bytes; memory grows with what is there.
    fn append(&mut self, count: u64, out: &mut Vec<u8>) -> Result<()> {
        (&mut self.input).take(count).read_to_end(out).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
        Ok(())
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

/// A compressed buffer starts with its uncompressed length, which the decoder allocates at once.
fn check_compressed(body: &[u8], offset: i64, length: i64) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let prefix =
        usize::try_from(offset).ok().and_then(|start| body.get(start..)).and_then(|rest| rest.first_chunk::<8>());
    match prefix.map(|prefix| i64::from_le_bytes(*prefix)) {
        Some(claimed) if claimed <= LARGEST_BUFFER => Ok(()),
        Some(claimed) => Err(broken(&format!("a claim of {claimed} uncompressed bytes"))),
        None => Err(broken("a buffer outside its message")),
    }
}

fn broken(found: &str) -> Error {
    Error::new(ErrorKind::Malformed, found)
        .expected("a complete Arrow IPC file or stream")
        .fix("the file is truncated or corrupt: write it again")
}

struct ColumnSource {
    batches: Batches,
    rows: Option<u64>,
    roles: Roles,
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

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.features.clear();
        block.units = self.units;
        block.labels = self.roles.label.map(|_| Vec::new());
        block.ids = self.roles.id.map(|_| Vec::new());
        block.first_row = self.next;
        let mut rows = 0;
        while rows < max_rows {
            let Some(batch) = &self.pending else { break };
            let count = (max_rows - rows).min(batch.num_rows() - self.offset);
            let part = batch.slice(self.offset, count);
            self.append(&part, block, self.next + rows as u64)?;
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
                    numbers(batch.column(*column), |value| {
                        block.features[place] = value as f32;
                        place += self.units;
                    })
                    .map_err(|error| named(error, *column))?;
                }
            }
        }
        if let (Some(column), Some(labels)) = (self.roles.label, &mut block.labels) {
            let mut bad = None;
            numbers(batch.column(column), |value| match super::whole(value) {
                Some(label) => labels.push(label),
                None => bad = bad.or(Some(value)),
            })
            .map_err(|error| named(error, column))?;
            if let Some(value) = bad {
                return Err(not_a_label(&value.to_string(), first_row as usize + labels.len()));
            }
        }
        if let (Some(column), Some(ids)) = (self.roles.id, &mut block.ids) {
            append_ids(batch.column(column), ids).map_err(|error| named(error, column))?;
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
    numbers(&values, |value| out.push(value as f32))?;
    debug_assert_eq!(out.len() - before, column.len() * units);
    Ok(())
}

/// Hands out the numbers of a primitive column; a null is an error.
fn numbers(column: &ArrayRef, mut take: impl FnMut(f64)) -> Result<()> {
    if let Some(row) = (0..if column.null_count() > 0 { column.len() } else { 0 }).find(|row| column.is_null(*row)) {
        return Err(null(row as u64));
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

fn append_ids(column: &ArrayRef, ids: &mut Vec<String>) -> Result<()> {
    let rows = 0..column.len();
    match column.data_type() {
        DataType::Utf8 => ids.extend(rows.map(|row| column.as_string::<i32>().value(row).to_owned())),
        DataType::LargeUtf8 => ids.extend(rows.map(|row| column.as_string::<i64>().value(row).to_owned())),
        DataType::Utf8View => ids.extend(rows.map(|row| column.as_string_view().value(row).to_owned())),
        _ => numbers(column, |value| ids.push(value.to_string()))?,
    }
    Ok(())
}

fn null(row: u64) -> Error {
    Error::new(ErrorKind::NotFinite, format!("null at row {row}")).expected("a value in every row")
}

/// Scores as Parquet: `id` text, `score` f64, `p_value` f64, `decision` text, the last two null without calibration.
pub(super) struct ScoreTable {
    writer: ArrowWriter<AtomicFile>,
    schema: Arc<Schema>,
}

impl ScoreTable {
    pub(super) fn create(file: AtomicFile) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("score", DataType::Float64, false),
            Field::new("p_value", DataType::Float64, true),
            Field::new("decision", DataType::Utf8, true),
        ]));
        // Dictionaries would be tried for scores, which never repeat.
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .set_column_dictionary_enabled("score".into(), false)
            .set_max_row_group_row_count(Some(1 << 17))
            .build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(failed)?;
        Ok(Self { writer, schema })
    }

    pub(super) fn write(&mut self, rows: &[ScoreRow]) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.id))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.score))),
            Arc::new(rows.iter().map(|row| row.p_value).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.decision.map(|decision| decision.to_string())).collect::<StringArray>()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)?;
        self.writer.write(&batch).map_err(failed)
    }

    pub(super) fn finish(self) -> Result<()> {
        let mut file = self.writer.into_inner().map_err(failed)?;
        file.flush().map_err(failed)?;
        file.commit()
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}
