//! Parquet, a batch of rows at a time, in memory that no file makes larger than is said here.
//!
//! A file of a few hundred bytes can stand for gigabytes: pages compress, a long value of a dictionary can be that of every
//! row, and a list of any length is a run of two bytes. So the headers of all pages to be read are looked at first, text and
//! bytes are views of their pages, and the lengths of lists are counted before their values are decoded.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowGroups, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::error::{Error, ErrorKind, Result};
use crate::io::guard::decode;
use crate::io::tables::lists::ListWidths;
use crate::io::tables::pages::{PageHeader, broken};

/// The most bytes of a page once it is decompressed; of each column a page and a dictionary are in memory.
const LARGEST_PAGE: u64 = 256 << 20;
/// Bytes of pages that the views of a batch may keep in memory.
const HELD_BY_VIEWS: u64 = 256 << 20;

/// An open Parquet file. Columns have the types of the file itself, whatever its writer had in memory; text and bytes are views.
#[derive(Debug, Clone)]
pub struct ParquetFile {
    file: Arc<File>,
    length: u64,
    metadata: Arc<ParquetMetaData>,
    schema: Arc<Schema>,
}

/// What the pages of some columns take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageSizes {
    /// Bytes of the largest page.
    largest: u64,
    /// Bytes of the largest dictionary.
    dictionary: u64,
    /// Bytes of all pages.
    total: u64,
}

/// Which rows of which columns are read, and how.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The columns of the file's leaves, ascending.
    pub leaves: Vec<usize>,
    /// The rows.
    pub rows: Range<usize>,
    /// The most rows in a batch.
    pub batch: usize,
    /// The most values of a list.
    pub widest: usize,
}

impl ParquetFile {
    /// Reads the description at the end of `file`.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for what is no complete Parquet file.
    pub fn new(file: File) -> Result<Self> {
        let length = file.metadata().map_err(|error| Error::caused_by(ErrorKind::Io, error))?.len();
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = decoded(|| ArrowReaderMetadata::load(&file, options))?;
        let schema = Arc::new(Schema::new(as_views(metadata.schema().fields())));
        let metadata = Arc::clone(metadata.metadata());
        let rows = metadata.row_groups().iter().try_fold(0i64, |sum, group| {
            let rows = Some(group.num_rows()).filter(|rows| *rows >= 0)?;
            sum.checked_add(rows)
        });
        let claimed = metadata.file_metadata().num_rows();
        if rows != Some(claimed) {
            return Err(broken(&format!("{claimed} rows in the file, and others in its groups")));
        }
        Ok(Self { file: Arc::new(file), length, metadata, schema })
    }

    /// The columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many rows the file says it has.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(0)
    }

    /// What the file notes under `key`.
    pub fn note(&self, key: &str) -> Option<&str> {
        let notes = self.metadata.file_metadata().key_value_metadata()?;
        notes.iter().find(|note| note.key == key)?.value.as_deref()
    }

    /// The leaves for which `wanted` says so, given the place of their column and the path within it.
    pub fn leaves(&self, wanted: impl Fn(usize, &[String]) -> bool) -> Vec<usize> {
        let schema = self.metadata.file_metadata().schema_descr();
        let path = |leaf: usize| schema.column(leaf).path().parts().get(1..).unwrap_or_default().to_vec();
        (0..schema.num_columns()).filter(|leaf| wanted(schema.get_column_root_idx(*leaf), &path(*leaf))).collect()
    }

    /// What the pages of `leaves` take, from their headers.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for headers that are none, [`ErrorKind::Unsupported`] for a page of more than 256 MiB.
    pub fn sizes(&self, leaves: &[usize]) -> Result<PageSizes> {
        let mut sizes = PageSizes::default();
        for group in self.metadata.row_groups() {
            for leaf in leaves {
                let chunk = group.columns().get(*leaf).ok_or_else(|| broken("a group of rows without that column"))?;
                self.add_sizes(chunk, &mut sizes)?;
            }
        }
        Ok(sizes)
    }

    fn add_sizes(&self, chunk: &ColumnChunkMetaData, sizes: &mut PageSizes) -> Result<()> {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let place = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
        let (start, mut left) = place
            .filter(|(start, length)| start.checked_add(*length).is_some_and(|end| end <= self.length))
            .ok_or_else(|| broken("a column outside of the file"))?;
        let failed = |error: std::io::Error| broken(&error.to_string()).because(error);
        let mut input = self.file.try_clone().map_err(failed)?;
        input.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut input = BufReader::with_capacity(256, input);
        while left > 0 {
            let header = PageHeader::read(&mut input, left)?;
            left = left.checked_sub(header.length + header.compressed).ok_or_else(|| broken("a page cut short"))?;
            sizes.add(&header)?;
            input.seek_relative(header.compressed as i64).map_err(failed)?;
        }
        Ok(())
    }

    /// Opens some columns.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn read(&self, reading: &Reading) -> Result<ParquetBatches> {
        let rows = self.rows();
        let selection = (reading.rows != (0..rows)).then(|| {
            let skipped = RowSelector::skip(reading.rows.start);
            RowSelection::from(vec![skipped, RowSelector::select(reading.rows.len())])
        });
        let chunks =
            Chunks { file: Arc::clone(&self.file), metadata: Arc::clone(&self.metadata), widest: reading.widest };
        let reader = decoded(|| {
            let schema = self.metadata.file_metadata().schema_descr();
            let mask = ProjectionMask::leaves(schema, reading.leaves.iter().copied());
            let levels = parquet_to_arrow_field_levels(schema, mask, Some(self.schema.fields()))?;
            ParquetRecordBatchReader::try_new_with_row_groups(&levels, &chunks, reading.batch, selection)
        })?;
        Ok(ParquetBatches(reader))
    }
}

impl PageSizes {
    fn add(&mut self, page: &PageHeader) -> Result<()> {
        if page.bytes > LARGEST_PAGE {
            return Err(Error::new(ErrorKind::Unsupported, format!("a page of {} bytes", page.bytes))
                .expected(format!("pages of at most {LARGEST_PAGE} bytes"))
                .fix("write it with fewer rows in a group, or in a page"));
        }
        let largest = if page.is_dictionary { &mut self.dictionary } else { &mut self.largest };
        *largest = page.bytes.max(*largest);
        self.total = self.total.saturating_add(page.bytes);
        Ok(())
    }

    /// Bytes that are in memory while such columns are read.
    pub fn held(&self) -> u64 {
        self.largest + self.dictionary
    }

    /// The most rows in a batch, up to `most`, so that views do not keep too many pages in memory.
    pub fn rows_of_views(&self, most: usize) -> usize {
        if self.total <= HELD_BY_VIEWS {
            return most;
        }
        let pages = HELD_BY_VIEWS / self.held().max(1);
        usize::try_from(pages).unwrap_or(most).clamp(1, most.max(1))
    }
}

/// Batches of rows, in order.
pub struct ParquetBatches(ParquetRecordBatchReader);

impl ParquetBatches {
    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would have to end at the first error")]
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        decoded(|| self.0.next().transpose())
    }
}

/// What the parquet crate returns, or makes of broken bytes.
fn decoded<T, E: StdError + Send + Sync + 'static>(work: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    decode(work, |found| {
        if found.contains("Disabled feature at compile time") {
            return Error::new(ErrorKind::Unsupported, found).fix("write it with snappy, zstd, lz4 or gzip");
        }
        broken(found)
    })
}

fn as_views(fields: &Fields) -> Fields {
    let view = |field: &Arc<Field>| {
        let kind = match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
            DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
            DataType::Struct(parts) => DataType::Struct(as_views(parts)),
            _ => return Arc::clone(field),
        };
        Arc::new(field.as_ref().clone().with_data_type(kind))
    };
    fields.iter().map(view).collect()
}

/// The chunks of a file's columns, their pages checked.
struct Chunks {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    widest: usize,
}

impl RowGroups for Chunks {
    fn num_rows(&self) -> usize {
        usize::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, leaf: usize) -> parquet::errors::Result<Box<dyn PageIterator>> {
        let (file, metadata, widest) = (Arc::clone(&self.file), Arc::clone(&self.metadata), self.widest);
        Ok(Box::new(ChunkPages { file, metadata, leaf, widest, group: 0 }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.metadata.row_groups().iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The pages of a column, group after group.
struct ChunkPages {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    leaf: usize,
    widest: usize,
    group: usize,
}

impl Iterator for ChunkPages {
    type Item = parquet::errors::Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.metadata.row_groups().get(self.group)?;
        self.group += 1;
        let chunk = group.columns().get(self.leaf)?;
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let is_list = chunk.column_descr().max_rep_level() > 0;
        let lists = is_list.then_some(ListWidths { widest: self.widest, width: 0 });
        let pages = SerializedPageReader::new(Arc::clone(&self.file), chunk, rows, None);
        Some(pages.map(|pages| Box::new(CheckedPages { pages, lists }) as Box<dyn PageReader>))
    }
}

impl PageIterator for ChunkPages {}

/// Pages whose lists are of a sane length.
struct CheckedPages {
    pages: SerializedPageReader<File>,
    lists: Option<ListWidths>,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let (Some(lists), Some(page)) = (&mut self.lists, &page) {
            lists.count_page(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> parquet::errors::Result<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = parquet::errors::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
