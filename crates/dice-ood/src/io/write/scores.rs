//! Scores as CSV, JSON lines, npy or Parquet.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::features::Id;
use crate::io::files::AtomicFile;
use crate::io::tensors::npy::header_for;
#[cfg(feature = "columns")]
use crate::io::write::parquet::ScoreTable;
use crate::io::write::row::ScoreRow;

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
            "csv" => Self::csv(Text::File(AtomicFile::create(path)?)),
            "jsonl" | "ndjson" => Ok(Self(Sink::JsonLines(Text::File(AtomicFile::create(path)?)))),
            "npy" => {
                let mut file = AtomicFile::create(path)?;
                file.write_all(&header_for("<f8", 0)).map_err(|error| file.located(error))?;
                Ok(Self(Sink::Npy { file, rows: 0 }))
            }
            #[cfg(feature = "columns")]
            "parquet" => Ok(Self(Sink::Parquet(Box::new(ScoreTable::create(AtomicFile::create(path)?))))),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("the extension `{extension}`"))
                .file(path.display())
                .expected(if cfg!(feature = "columns") {
                    ".csv, .jsonl, .npy or .parquet"
                } else {
                    ".csv, .jsonl or .npy"
                })),
        }
    }

    /// A writer of CSV to standard output.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn csv_to_stdout() -> Result<Self> {
        Self::csv(Text::Stdout(BufWriter::new(io::stdout())))
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
                        .map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
                }
                let text = text.into_inner().map_err(|error| Error::caused_by(ErrorKind::Io, error.into_error()))?;
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
