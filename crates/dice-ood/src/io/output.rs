//! The formats that are written: safetensors and scores.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::files::{AtomicFile, nameless};
use super::npy::header_for;
use crate::calibration::Decision;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, Id, Ids};
use crate::head::LinearHead;

/// The header of a safetensors file, whose tensors lie in the order in which they are declared.
#[derive(Default)]
pub(super) struct Header {
    tensors: BTreeMap<String, TensorInfo>,
    end: usize,
}

impl Header {
    pub(super) fn declare(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: usize) {
        let data_offsets = (self.end, self.end + bytes);
        self.tensors.insert(name.to_owned(), TensorInfo { dtype, shape: shape.to_vec(), data_offsets });
        self.end += bytes;
    }

    /// Length and JSON, padded so that the tensors are aligned; keys are sorted.
    pub(super) fn bytes(self, metadata: impl IntoIterator<Item = (String, String)>) -> Result<Vec<u8>> {
        let malformed = |error: serde_json::Error| Error::new(ErrorKind::Malformed, error.to_string());
        let mut entries = BTreeMap::new();
        let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
        entries.insert("__metadata__".to_owned(), serde_json::to_value(metadata).map_err(malformed)?);
        for (name, tensor) in self.tensors {
            entries.insert(name, serde_json::to_value(tensor).map_err(malformed)?);
        }
        let mut json = serde_json::to_vec(&entries).map_err(malformed)?;
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut json);
        Ok(bytes)
    }
}

/// Writes features as they come, as one safetensors file that `dice` reads back; memory does not grow with their number.
///
/// Tensors: `features` f32 `[N, D]`; `labels` i64 `[N]` and `ids` (u8: UTF-8, one name a line; or i64 or u64 `[N]`) where blocks
/// have them; and
/// the head as `weight` f32 `[C, D]` and `bias` f32 `[C]` where it is given. Atomic.
pub struct FeaturesWriter {
    file: AtomicFile,
    units: usize,
    rows: usize,
    features: Spill,
    labels: Spill,
    ids: Spill,
    /// The element type of the ids, once there are any.
    id_type: Option<Dtype>,
}

/// Bytes on their way into a file whose header cannot be written yet: kept in a nameless file beside it.
struct Spill {
    file: BufWriter<File>,
    bytes: usize,
    /// Rows whose values these are.
    rows: usize,
}

impl Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len();
        self.file.write_all(bytes)
    }

    fn copy_to(self, output: &mut impl Write) -> io::Result<()> {
        let mut written = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        written.rewind()?;
        io::copy(&mut written, output).map(drop)
    }
}

impl FeaturesWriter {
    /// Starts the file `destination` of features of `units` values.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn create(destination: &Path, units: usize) -> Result<Self> {
        let file = AtomicFile::create(destination)?;
        let directory = destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let spill = || -> Result<Spill> {
            let made = nameless(directory).map_err(|error| Error::io(destination, error))?;
            Ok(Spill { file: BufWriter::with_capacity(1 << 16, made), bytes: 0, rows: 0 })
        };
        Ok(Self { file, units, rows: 0, features: spill()?, labels: spill()?, ids: spill()?, id_type: None })
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends the rows of `block`. Control characters in ids are escaped.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another number of units, [`ErrorKind::NotFinite`] for values that no detector could use,
    /// [`ErrorKind::Io`].
    pub fn write(&mut self, block: &Block) -> Result<()> {
        if block.units != self.units {
            return Err(Error::new(ErrorKind::Shape, format!("[N, {}]", block.units))
                .tensor("features")
                .expected(format!("[N, {}]", self.units)));
        }
        if let Some(place) = block.features.iter().position(|value| !value.is_finite()) {
            let (row, column) = (place / block.units, place % block.units);
            return Err(Error::new(ErrorKind::NotFinite, format!("{} in column {column}", block.features[place]))
                .file(block.id(row))
                .tensor("features")
                .expected("finite values")
                .fix("is the preprocessing that of the network?"));
        }
        if let Some(ids) = &block.ids {
            let dtype = match ids {
                Ids::Text(_) => Dtype::U8,
                Ids::Integer(_) => Dtype::I64,
                Ids::Unsigned(_) => Dtype::U64,
            };
            if *self.id_type.get_or_insert(dtype) != dtype {
                return Err(Error::new(ErrorKind::Malformed, ids.kind()).tensor("ids").expected("ids of one type"));
            }
        }
        let mut write = || -> io::Result<()> {
            self.features.write(bytemuck::cast_slice(&block.features))?;
            if let Some(labels) = &block.labels {
                self.labels.write(bytemuck::cast_slice(labels))?;
                self.labels.rows += labels.len();
            }
            if let Some(ids) = &block.ids {
                self.ids.rows += ids.len();
                match ids {
                    Ids::Text(all) => all.iter().try_for_each(|id| self.ids.write(line(id).as_bytes()))?,
                    Ids::Integer(all) => self.ids.write(bytemuck::cast_slice(all))?,
                    Ids::Unsigned(all) => self.ids.write(bytemuck::cast_slice(all))?,
                }
            }
            Ok(())
        };
        write().map_err(|error| self.file.located(error))?;
        self.rows += block.rows();
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where some blocks had labels or ids and others none, [`ErrorKind::Io`].
    pub fn finish(self, head: Option<&LinearHead>, metadata: BTreeMap<String, String>) -> Result<()> {
        let Self { mut file, units, rows, features, labels, ids, id_type } = self;
        for (name, part) in [("labels", &labels), ("ids", &ids)] {
            if part.rows != rows && part.rows != 0 {
                return Err(Error::new(ErrorKind::Shape, format!("{} of {rows} rows", part.rows))
                    .tensor(name)
                    .expected("one for each row, or none"));
            }
        }
        let mut header = Header::default();
        // Types of the widest values first, so that each tensor is aligned.
        if labels.rows > 0 {
            header.declare("labels", Dtype::I64, &[rows], labels.bytes);
        }
        let numbers = id_type.filter(|dtype| *dtype != Dtype::U8);
        if let Some(dtype) = numbers {
            header.declare("ids", dtype, &[rows], ids.bytes);
        }
        header.declare("features", Dtype::F32, &[rows, units], features.bytes);
        if let Some(head) = head {
            let (classes, units) = (head.classes(), head.units());
            header.declare("weight", Dtype::F32, &[classes, units], classes * units * 4);
            header.declare("bias", Dtype::F32, &[classes], classes * 4);
        }
        if let Some(Dtype::U8) = id_type {
            header.declare("ids", Dtype::U8, &[ids.bytes], ids.bytes);
        }
        let header = header.bytes(metadata)?;
        let write = || -> io::Result<()> {
            file.write_all(&header)?;
            labels.copy_to(&mut file)?;
            let (first, last) = if numbers.is_some() { (Some(ids), None) } else { (None, Some(ids)) };
            first.map_or(Ok(()), |ids| ids.copy_to(&mut file))?;
            features.copy_to(&mut file)?;
            if let Some(head) = head {
                for value in head.weight().iter().chain(head.bias()) {
                    file.write_all(&value.to_le_bytes())?;
                }
            }
            last.map_or(Ok(()), |ids| ids.copy_to(&mut file))
        };
        write().map_err(|error| file.located(error))?;
        file.commit()
    }
}

/// An id as a line, with control characters escaped.
fn line(id: &str) -> String {
    let mut line = String::with_capacity(id.len() + 1);
    for letter in id.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line.push('\n');
    line
}

/// What is said of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Its name.
    pub id: Id,
    /// Its score.
    pub score: f64,
    /// Its conformal p-value, where the detector is calibrated.
    pub p_value: Option<f64>,
    /// Its decision, where the detector is calibrated.
    pub decision: Option<Decision>,
    /// The class that the network predicts, where it was asked for and the input could be scored.
    pub prediction: Option<u32>,
}

/// An id as JSON: a number stays one.
fn json_of(id: &Id) -> serde_json::Value {
    match id {
        Id::Text(text) => text.as_str().into(),
        Id::Integer(number) => (*number).into(),
        Id::Unsigned(number) => (*number).into(),
    }
}

/// Writes scores, a block at a time.
pub struct ScoreWriter(Sink);

enum Sink {
    Csv(Text),
    JsonLines(Text),
    Npy {
        file: AtomicFile,
        rows: u64,
    },
    #[cfg(feature = "columns")]
    Parquet(Box<super::columns::ScoreTable>),
}

/// Text goes to a file or to standard output.
enum Text {
    File(AtomicFile),
    Stdout(BufWriter<io::Stdout>),
}

impl Text {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes).map_err(|error| file.located(error)),
            Self::Stdout(out) => out.write_all(bytes).map_err(|error| Error::io("standard output", error)),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::File(file) => file.commit(),
            Self::Stdout(mut out) => out.flush().map_err(|error| Error::io("standard output", error)),
        }
    }
}

impl ScoreWriter {
    /// A writer to `destination`, in the format of its extension: `.csv`, `.jsonl`, `.npy` (scores alone, f64) or
    /// `.parquet`; or to standard output (`None`) as CSV.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another extension, [`ErrorKind::Io`] where the file cannot be made.
    pub fn create(destination: Option<&Path>) -> Result<Self> {
        let Some(path) = destination else { return Self::csv(Text::Stdout(BufWriter::new(io::stdout()))) };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Self::csv(Text::File(AtomicFile::create(path)?)),
            "jsonl" | "ndjson" => Ok(Self(Sink::JsonLines(Text::File(AtomicFile::create(path)?)))),
            "npy" => {
                let mut file = AtomicFile::create(path)?;
                file.write_all(&header_for("<f8", 0)).map_err(|error| file.located(error))?;
                Ok(Self(Sink::Npy { file, rows: 0 }))
            }
            #[cfg(feature = "columns")]
            "parquet" => {
                Ok(Self(Sink::Parquet(Box::new(super::columns::ScoreTable::create(AtomicFile::create(path)?)))))
            }
            _ => Err(Error::new(ErrorKind::Unsupported, format!("the extension `{extension}`"))
                .file(path.display())
                .expected(if cfg!(feature = "columns") {
                    ".csv, .jsonl, .npy or .parquet"
                } else {
                    ".csv, .jsonl or .npy"
                })),
        }
    }

    /// A writer of JSON lines to standard output.
    pub fn json_lines_to_stdout() -> Self {
        Self(Sink::JsonLines(Text::Stdout(BufWriter::new(io::stdout()))))
    }

    fn csv(mut out: Text) -> Result<Self> {
        out.write(b"id,score,p_value,decision,prediction\n")?;
        Ok(Self(Sink::Csv(out)))
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&mut self, rows: &[ScoreRow]) -> Result<()> {
        match &mut self.0 {
            Sink::Csv(out) => {
                let mut text = ::csv::Writer::from_writer(Vec::new());
                for row in rows {
                    let p_value = row.p_value.map(|p| p.to_string()).unwrap_or_default();
                    let decision = row.decision.map(|decision| decision.to_string()).unwrap_or_default();
                    let prediction = row.prediction.map(|class| class.to_string()).unwrap_or_default();
                    text.write_record([&row.id.to_string(), &row.score.to_string(), &p_value, &decision, &prediction])
                        .map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
                }
                let text = text.into_inner().map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
                out.write(&text)
            }
            Sink::JsonLines(out) => {
                let mut text = String::new();
                for row in rows {
                    // JSON has no infinity: an input that could not be scored has the score null.
                    let score = row.score.is_finite().then_some(row.score);
                    let decision = row.decision.map(|decision| decision.to_string());
                    let line = serde_json::json!({
                        "id": json_of(&row.id),
                        "score": score,
                        "p_value": row.p_value,
                        "decision": decision,
                        "prediction": row.prediction,
                    });
                    text.push_str(&line.to_string());
                    text.push('\n');
                }
                out.write(text.as_bytes())
            }
            Sink::Npy { file, rows: written } => {
                let bytes: Vec<u8> = rows.iter().flat_map(|row| row.score.to_le_bytes()).collect();
                *written += rows.len() as u64;
                file.write_all(&bytes).map_err(|error| file.located(error))
            }
            #[cfg(feature = "columns")]
            Sink::Parquet(table) => table.write(rows),
        }
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Sink::Csv(out) | Sink::JsonLines(out) => out.finish(),
            Sink::Npy { mut file, rows } => {
                let rewrite = |file: &mut AtomicFile| {
                    file.seek(SeekFrom::Start(0))?;
                    file.write_all(&header_for("<f8", rows))
                };
                rewrite(&mut file).map_err(|error| file.located(error))?;
                file.commit()
            }
            #[cfg(feature = "columns")]
            Sink::Parquet(table) => table.finish(),
        }
    }
}
