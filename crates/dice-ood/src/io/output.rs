//! Writing: files that appear whole or not at all, and the formats of scores.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use super::npy::header_for;
use crate::calibration::Decision;
use crate::error::{Error, ErrorKind, Result};
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

/// A tensor to be written.
pub(crate) struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn new(dtype: Dtype, shape: &[usize], bytes: impl IntoIterator<Item = u8>) -> Self {
        Self { dtype, shape: shape.to_vec(), bytes: bytes.into_iter().collect() }
    }
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes named tensors and metadata as one safetensors file, atomically.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(crate) fn write_tensors(
    destination: &Path,
    tensors: Vec<(String, Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).file(destination.display()))?;
    let mut file = AtomicFile::create(destination)?;
    file.write_all(&bytes).map_err(|error| file.located(error))?;
    file.commit()
}

/// Writes features `[N, D]`, row-major, as one safetensors file that `dice` reads back: `features`, and where they are given
/// `labels` `[N]` and the head as `weight` `[C, D]` and `bias` `[C]`. Atomic.
///
/// # Errors
/// [`ErrorKind::Shape`] where the values are no whole rows, or there is not one label a row; [`ErrorKind::Io`].
pub fn write_features(
    destination: &Path,
    features: &[f32],
    units: usize,
    labels: Option<&[i64]>,
    head: Option<&LinearHead>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let rows = features.len().checked_div(units).unwrap_or(0);
    if rows * units != features.len() || labels.is_some_and(|labels| labels.len() != rows) {
        return Err(Error::new(
            ErrorKind::Shape,
            format!("{} values, {:?} labels", features.len(), labels.map(<[i64]>::len)),
        )
        .tensor("features")
        .expected(format!("rows of {units} values, and a label for each or none")));
    }
    let floats = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let features = floats(&mut features.iter().copied());
    let mut tensors = vec![("features".to_owned(), Tensor::new(Dtype::F32, &[rows, units], features))];
    if let Some(labels) = labels {
        let labels = labels.iter().flat_map(|label| label.to_le_bytes());
        tensors.push(("labels".into(), Tensor::new(Dtype::I64, &[rows], labels)));
    }
    if let Some(head) = head {
        let (weight, bias) = (floats(&mut head.weight().iter().copied()), floats(&mut head.bias().iter().copied()));
        tensors.push(("weight".into(), Tensor::new(Dtype::F32, &[head.classes(), head.units()], weight)));
        tensors.push(("bias".into(), Tensor::new(Dtype::F32, &[head.classes()], bias)));
    }
    write_tensors(destination, tensors, metadata)
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
        out.write(b"id,score,p_value,decision\n")?;
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
                    text.write_record([row.id.as_str(), &row.score.to_string(), &p_value, &decision])
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
                    let line = serde_json::json!({ "id": row.id, "score": score, "p_value": row.p_value, "decision": decision });
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
