//! Scores as Parquet.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::arrow_writer::ArrowWriter;

use crate::error::{Error, ErrorKind, Result};
use crate::features::Id;
use crate::io::files::AtomicFile;
use crate::io::write::row::{CLASS, ScoreRow};

/// Scores as Parquet: `id` text or a whole number, as the first one is, `score` f64, `p_value` f64, `decision` text, these two
/// null without calibration, `prediction` u32, `class` text where classes have names, and votes f64.
pub(super) struct ScoreTable {
    /// The file, until the type of ids is known.
    file: Option<AtomicFile>,
    writer: Option<ArrowWriter<AtomicFile>>,
    schema: Arc<Schema>,
    /// Names of the classes, for a column of their own.
    classes: Vec<String>,
    /// Names of the columns of votes.
    votes: Vec<String>,
    destination: PathBuf,
}

impl ScoreTable {
    pub(super) fn create(file: AtomicFile) -> Self {
        let destination = file.destination().to_path_buf();
        Self {
            file: Some(file),
            writer: None,
            schema: Arc::new(Schema::empty()),
            classes: Vec::new(),
            votes: Vec::new(),
            destination,
        }
    }

    /// Takes a column of these names of classes, where there are some, and columns of votes, of these names.
    pub(super) fn add_columns(&mut self, classes: &[String], votes: &[String]) {
        self.classes = classes.to_vec();
        self.votes = votes.to_vec();
    }

    /// The writer, of ids of the type of `id`.
    fn writer(&mut self, id: &DataType) -> Result<&mut ArrowWriter<AtomicFile>> {
        if let Some(file) = self.file.take() {
            let mut fields = vec![
                Field::new("id", id.clone(), false),
                Field::new("score", DataType::Float64, false),
                Field::new("p_value", DataType::Float64, true),
                Field::new("decision", DataType::Utf8, true),
                Field::new("prediction", DataType::UInt32, true),
            ];
            fields.extend((!self.classes.is_empty()).then(|| Field::new(CLASS, DataType::Utf8, true)));
            fields.extend(self.votes.iter().map(|name| Field::new(name, DataType::Float64, true)));
            self.schema = Arc::new(Schema::new(fields));
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
        self.writer
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Io, "a file that was not started").file(self.destination.display()))
    }

    pub(super) fn write(&mut self, rows: &[ScoreRow]) -> Result<()> {
        let located = |table: &Self, error: Error| error.file(table.destination.display());
        if rows.is_empty() {
            return Ok(());
        }
        let ids = column_of_ids(rows).map_err(|error| located(self, error))?;
        self.writer(ids.data_type())?;
        let mut columns: Vec<ArrayRef> = vec![
            ids,
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.score))),
            Arc::new(rows.iter().map(|row| row.p_value).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.decision.map(|decision| decision.to_string())).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.prediction).collect::<UInt32Array>()),
        ];
        if !self.classes.is_empty() {
            columns.push(Arc::new(rows.iter().map(|row| row.class(&self.classes)).collect::<StringArray>()));
        }
        for place in 0..self.votes.len() {
            let votes = rows.iter().map(|row| row.votes.get(place).copied().flatten());
            columns.push(Arc::new(votes.collect::<Float64Array>()));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        let batch = batch.map_err(|error| located(self, failed(error)))?;
        let written = self.writer(&DataType::Utf8)?.write(&batch);
        written.map_err(|error| located(self, failed(error)))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        // A file without rows has no ids whose type it could take.
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

/// The error of writing; the parquet crate puts a prefix before errors of the file.
fn failed(error: impl StdError + Send + Sync + 'static) -> Error {
    let text = error.to_string();
    Error::new(ErrorKind::Io, text.trim_start_matches("External: ")).because(error)
}
