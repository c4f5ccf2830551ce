//! Writing: files that appear whole or not at all, and the formats of scores.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::npy::header_for;
use crate::calibration::Decision;
use crate::error::{Error, ErrorKind, Result};
use crate::features::Block;
use crate::head::LinearHead;

/// A file that is written beside its destination and renamed onto it when complete; dropped before that, it vanishes.
///
/// A symbolic link is followed. What is no regular file (a device, a pipe) is written to as it is.
pub struct AtomicFile {
    destination: PathBuf,
    file: BufWriter<File>,
    /// The temporary name; `None` where the destination is written to directly.
    temporary: Option<tempfile::TempPath>,
}

impl AtomicFile {
    /// Starts a file that will be `destination`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where its directory cannot be written to, or `destination` is a directory.
    pub fn create(destination: &Path) -> Result<Self> {
        let located = |error: io::Error| Error::io(destination, error);
        let existing = std::fs::metadata(destination).ok();
        if existing.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(Error::new(ErrorKind::Io, "a directory")
                .file(destination.display())
                .expected("a file to write"));
        }
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            let file = File::options().write(true).open(destination).map_err(located)?;
            return Ok(Self { destination: destination.to_path_buf(), file: BufWriter::new(file), temporary: None });
        }
        let target = match existing {
            Some(_) => destination.canonicalize().map_err(located)?,
            None => destination.to_path_buf(),
        };
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            return Err(Error::new(ErrorKind::Io, "no such directory")
                .file(destination.display())
                .fix(format!("create {} first", directory.display())));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dice-").suffix(".partial");
        // The rights that any new file gets, not the private ones of temporary files.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Only the kind of an error is kept: its text would name the temporary file.
        let created = builder.tempfile_in(directory).map_err(|error| located(error.kind().into()))?;
        let (file, temporary) = created.into_parts();
        Ok(Self { destination: target, file: BufWriter::with_capacity(1 << 16, file), temporary: Some(temporary) })
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], for instance for a full disk; nothing is left behind then.
    pub fn commit(self) -> Result<()> {
        let Self { destination, file, temporary } = self;
        let located = |error: io::Error| Error::io(&destination, error);
        let file = file.into_inner().map_err(|error| located(error.into_error()))?;
        let Some(temporary) = temporary else { return Ok(()) };
        file.sync_all().map_err(located)?;
        temporary.persist(&destination).map_err(|error| located(error.error))
    }

    fn located(&self, error: io::Error) -> Error {
        Error::io(&self.destination, error)
    }

    /// Where the file will be.
    #[cfg(feature = "columns")]
    pub(super) fn destination(&self) -> &Path {
        &self.destination
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes features as they come, as one safetensors file that `dice` reads back; memory does not grow with their number.
///
/// Tensors: `features` f32 `[N, D]`; `labels` i64 `[N]` and `ids` u8 (UTF-8, one name a line) where blocks have them; and
/// the head as `weight` f32 `[C, D]` and `bias` f32 `[C]` where it is given. Atomic.
pub struct FeaturesWriter {
    file: AtomicFile,
    units: usize,
    rows: usize,
    features: Spill,
    labels: Spill,
    ids: Spill,
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
            let made = tempfile::tempfile_in(directory).map_err(|error| Error::io(destination, error))?;
            Ok(Spill { file: BufWriter::with_capacity(1 << 16, made), bytes: 0, rows: 0 })
        };
        Ok(Self { file, units, rows: 0, features: spill()?, labels: spill()?, ids: spill()? })
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
        let mut write = || -> io::Result<()> {
            self.features.write(bytemuck::cast_slice(&block.features))?;
            if let Some(labels) = &block.labels {
                self.labels.write(bytemuck::cast_slice(labels))?;
                self.labels.rows += labels.len();
            }
            for id in block.ids.iter().flatten() {
                let mut line = String::with_capacity(id.len() + 1);
                for letter in id.chars() {
                    match letter.is_control() {
                        true => line.extend(letter.escape_default()),
                        false => line.push(letter),
                    }
                }
                line.push('\n');
                self.ids.write(line.as_bytes())?;
                self.ids.rows += 1;
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
        let Self { mut file, units, rows, features, labels, ids } = self;
        for (name, part) in [("labels", &labels), ("ids", &ids)] {
            if part.rows != rows && part.rows != 0 {
                return Err(Error::new(ErrorKind::Shape, format!("{} of {rows} rows", part.rows))
                    .tensor(name)
                    .expected("one for each row, or none"));
            }
        }
        let mut tensors = Vec::new();
        let mut end = 0;
        let mut declare = |name: &str, dtype, shape: Vec<usize>, bytes: usize| {
            tensors.push((name.to_owned(), TensorInfo { dtype, shape, data_offsets: (end, end + bytes) }));
            end += bytes;
        };
        // Types of the widest values first, so that each tensor is aligned.
        if labels.rows > 0 {
            declare("labels", Dtype::I64, vec![rows], labels.bytes);
        }
        declare("features", Dtype::F32, vec![rows, units], features.bytes);
        if let Some(head) = head {
            let (classes, units) = (head.classes(), head.units());
            declare("weight", Dtype::F32, vec![classes, units], classes * units * 4);
            declare("bias", Dtype::F32, vec![classes], classes * 4);
        }
        if ids.rows > 0 {
            declare("ids", Dtype::U8, vec![ids.bytes], ids.bytes);
        }
        let malformed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Malformed, error.to_string());
        let header = Metadata::new(Some(metadata.into_iter().collect()), tensors).map_err(|error| malformed(&error))?;
        let mut header = serde_json::to_vec(&header).map_err(|error| malformed(&error))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let write = || -> io::Result<()> {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            labels.copy_to(&mut file)?;
            features.copy_to(&mut file)?;
            if let Some(head) = head {
                for value in head.weight().iter().chain(head.bias()) {
                    file.write_all(&value.to_le_bytes())?;
                }
            }
            ids.copy_to(&mut file)
        };
        write().map_err(|error| file.located(error))?;
        file.commit()
    }
}

/// What is said of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Its name.
    pub id: String,
    /// Its score.
    pub score: f64,
    /// Its conformal p-value, where the detector is calibrated.
    pub p_value: Option<f64>,
    /// Its decision, where the detector is calibrated.
    pub decision: Option<Decision>,
    /// The class that the network predicts, where it was asked for and the input could be scored.
    pub prediction: Option<u32>,
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
                Ok(Self(Sink::Parquet(Box::new(super::columns::ScoreTable::create(AtomicFile::create(path)?)?))))
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
                    text.write_record([row.id.as_str(), &row.score.to_string(), &p_value, &decision, &prediction])
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
                        "id": row.id,
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
                    file.file.seek(SeekFrom::Start(0))?;
                    file.file.write_all(&header_for("<f8", rows))
                };
                rewrite(&mut file).map_err(|error| file.located(error))?;
                file.commit()
            }
            #[cfg(feature = "columns")]
            Sink::Parquet(table) => table.finish(),
        }
    }
}
