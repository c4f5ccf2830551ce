//! Record batches of a file of either format.

use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};

use crate::error::Result;
use crate::io::files;
use crate::io::format::Format;
use crate::io::tables::ipc::IpcMessages;
use crate::io::tables::parquet::ParquetFile;
use crate::io::tables::roles::{Column, ColumnKind};
use crate::io::tables::windows::ParquetWindows;

pub(super) fn columns_of(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|field| (field.name().clone(), kind(field.data_type()))).collect()
}

fn kind(data_type: &DataType) -> ColumnKind {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if item.data_type().is_numeric() =>
        {
            ColumnKind::List
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(16) => {
            ColumnKind::Text
        }
        // Repeated text under a number each, as pandas writes categories. Repeated numbers are no features.
        DataType::Dictionary(_, values) if matches!(kind(values), ColumnKind::Text | ColumnKind::Integer) => {
            ColumnKind::Text
        }
        other if other.is_integer() => ColumnKind::Integer,
        other if other.is_numeric() => ColumnKind::Float,
        _ => ColumnKind::Other,
    }
}

/// Record batches of a file, in order, none empty.
pub(super) enum Batches {
    Parquet(ParquetWindows),
    Ipc(IpcMessages),
}

impl Batches {
    /// Opens `path`; `wanted` says which columns are needed, ascending, where the format lets some columns be read alone.
    pub(super) fn open(
        path: &Path,
        format: Format,
        wanted: impl FnOnce(&[Column]) -> Result<Vec<usize>>,
    ) -> Result<Self> {
        Self::open_with(path, format, wanted, ParquetWindows::new)
    }

    /// The same of a file whose lists are not of one length.
    pub(super) fn open_ragged(
        path: &Path,
        format: Format,
        wanted: impl FnOnce(&[Column]) -> Result<Vec<usize>>,
    ) -> Result<Self> {
        Self::open_with(path, format, wanted, ParquetWindows::ragged)
    }

    fn open_with(
        path: &Path,
        format: Format,
        wanted: impl FnOnce(&[Column]) -> Result<Vec<usize>>,
        windows: fn(ParquetFile, &[usize]) -> Result<ParquetWindows>,
    ) -> Result<Self> {
        let file = files::open(path)?;
        if format == Format::ArrowIpc {
            return Ok(Self::Ipc(IpcMessages::open(file)?));
        }
        let file = ParquetFile::new(file)?;
        let columns = wanted(&columns_of(file.schema()))?;
        Ok(Self::Parquet(windows(file, &columns)?))
    }

    pub(super) fn rows(&self) -> Option<u64> {
        match self {
            Self::Parquet(windows) => Some(windows.rows as u64),
            Self::Ipc(_) => None,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
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
