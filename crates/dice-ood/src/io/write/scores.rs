//! Scores as CSV, JSON lines, npy or Parquet.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::features::Id;
use crate::io::files::AtomicFile;
use crate::io::tensors::npy::header_for;
#[cfg(feature = "columns")]
use crate::io::write::parquet::ScoreTable;
use crate::io::write::row::{CLASS, ScoreRow};

/// An id as JSON: a number stays one.
fn json_of(id: &Id) -> serde_json::Value {
    match id {
        Id::Text(text) => text.as_str().into(),
        Id::Integer(number) => (*number).into(),
        Id::Unsigned(number) => (*number).into(),
    }
}

/// Writes scores, a block at a time.
pub struct ScoreWriter {
    sink: Sink,
    /// Names of the columns of votes.
    votes: Vec<String>,
    /// Names of the classes, for a column of their own.
    classes: Vec<String>,
    /// Whether the names of columns are written.
    begun: bool,
}

/// The columns before those of votes.
const COLUMNS: [&str; 5] = ["id", "score", "p_value", "decision", "prediction"];

enum Sink {
    Csv(Text),
    JsonLines(Text),
    Npy {
        file: AtomicFile,
        rows: u64,
    },
    #[cfg(feature = "columns")]
    Parquet(Box<ScoreTable>),
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
    /// A writer to the file `path`, in the format of its extension: `.csv`, `.jsonl`, `.npy` (scores alone, f64) or `.parquet`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another extension, [`ErrorKind::Io`] where the file cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Self::to(Sink::Csv(Text::File(AtomicFile::create(path)?)))),
            "jsonl" | "ndjson" => Ok(Self::to(Sink::JsonLines(Text::File(AtomicFile::create(path)?)))),
            "npy" => {
                let mut file = AtomicFile::create(path)?;
                file.write_all(&header_for("<f8", 0)).map_err(|error| file.located(error))?;
                Ok(Self::to(Sink::Npy { file, rows: 0 }))
            }
            #[cfg(feature = "columns")]
            "parquet" => Ok(Self::to(Sink::Parquet(Box::new(ScoreTable::create(AtomicFile::create(path)?))))),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("the extension `{extension}`"))
                .file(path.display())
                .expected(if cfg!(feature = "columns") {
                    ".csv, .jsonl, .npy or .parquet"
                } else {
                    ".csv, .jsonl or .npy"
                })),
        }
    }

    fn to(sink: Sink) -> Self {
        Self { sink, votes: Vec::new(), classes: Vec::new(), begun: false }
    }

    /// A writer of CSV to standard output.
    pub fn csv_to_stdout() -> Self {
        Self::to(Sink::Csv(Text::Stdout(BufWriter::new(io::stdout()))))
    }

    /// A writer of JSON lines to standard output.
    pub fn json_lines_to_stdout() -> Self {
        Self::to(Sink::JsonLines(Text::Stdout(BufWriter::new(io::stdout()))))
    }

    /// Also writes what each member of a combination says, in columns of these names. A file of scores alone has no such columns.
    #[must_use]
    pub fn with_votes(mut self, names: Vec<String>) -> Self {
        self.votes = names;
        self
    }

    /// Also writes the name of the predicted class, of these names `[C]`, in a column `class` after the prediction; no names, no column. A
    /// file of scores alone has no such column.
    #[must_use]
    pub fn with_classes(mut self, names: Vec<String>) -> Self {
        self.classes = names;
        self
    }

    /// Writes the names of the columns, where they come before the rows.
    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        match &mut self.sink {
            Sink::Csv(out) => {
                let class = (!self.classes.is_empty()).then_some(CLASS);
                let names = COLUMNS.into_iter().chain(class).chain(self.votes.iter().map(String::as_str));
                out.write(&csv_lines([names])?)
            }
            #[cfg(feature = "columns")]
            Sink::Parquet(table) => {
                table.add_columns(&self.classes, &self.votes);
                Ok(())
            }
            Sink::JsonLines(_) | Sink::Npy { .. } => Ok(()),
        }
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&mut self, rows: &[ScoreRow]) -> Result<()> {
        self.begin()?;
        match &mut self.sink {
            Sink::Csv(out) => out.write(&csv_lines(rows.iter().map(|row| csv_fields(row, &self.classes)))?),
            Sink::JsonLines(out) => {
                let lines: String =
                    rows.iter().map(|row| json_of_row(row, &self.classes, &self.votes).to_string() + "\n").collect();
                out.write(lines.as_bytes())
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
    pub fn finish(mut self) -> Result<()> {
        self.begin()?;
        match self.sink {
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

/// Records as lines of CSV.
fn csv_lines<R>(records: impl IntoIterator<Item = R>) -> Result<Vec<u8>>
where
    R: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut text = ::csv::Writer::from_writer(Vec::new());
    for record in records {
        text.write_record(record).map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
    }
    text.into_inner().map_err(|error| Error::caused_by(ErrorKind::Io, error.into_error()))
}

fn csv_fields(row: &ScoreRow, classes: &[String]) -> Vec<String> {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let own = [row.id.to_string(), row.score.to_string(), text(row.p_value), text(row.decision), text(row.prediction)];
    let class = (!classes.is_empty()).then(|| text(row.class(classes)));
    own.into_iter().chain(class).chain(row.votes.iter().map(|vote| text(*vote))).collect()
}

/// A row as JSON, which has no infinity: an input that could not be scored has the score null.
fn json_of_row(row: &ScoreRow, classes: &[String], votes: &[String]) -> serde_json::Value {
    let mut object = serde_json::json!({
        "id": json_of(&row.id),
        "score": row.score.is_finite().then_some(row.score),
        "p_value": row.p_value,
        "decision": row.decision.map(|decision| decision.to_string()),
        "prediction": row.prediction,
    });
    if !classes.is_empty() {
        object[CLASS] = row.class(classes).into();
    }
    for (name, vote) in votes.iter().zip(&row.votes) {
        object[name] = (*vote).into();
    }
    object
}
