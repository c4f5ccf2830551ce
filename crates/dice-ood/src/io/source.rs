//! Features of one file or stream, whatever its format.

use std::io::{BufReader, Cursor, Read};

use crate::error::Result;
use crate::features::{Block, FeatureSource, Layout};
use crate::io::files::Temporary;
use crate::io::format::{self, Format};
use crate::io::location::Location;
use crate::io::request::Request;
use crate::io::spool::{peek, spool};
#[cfg(feature = "columns")]
use crate::io::tables::columns;
use crate::io::tables::csv;
use crate::io::tensors::features::TensorSource;
use crate::io::tensors::{npy, open_tensors, rows};

pub(super) fn open_features(file: &Location, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    if file.is_stream() {
        return open_stream(file, request);
    }
    match Format::of_file(&file.path)? {
        Format::Csv => csv::open(&file.path, request),
        #[cfg(feature = "columns")]
        format @ (Format::Parquet | Format::ArrowIpc) => columns::open(&file.path, format, request),
        format => TensorSource::open(open_tensors(&file.path, format)?, request),
    }
}

/// npy and CSV are read as they come; other formats need their end first and are copied to a temporary file.
fn open_stream(file: &Location, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    let mut input = file.open_stream()?;
    let start = peek(&mut input, format::START)?;
    let format = Format::of_stream(&start)?;
    let mut input: Box<dyn Read + Send> = Box::new(Cursor::new(start).chain(input));
    match format {
        Some(Format::Csv) => csv::from_reader(input, request),
        Some(_) => {
            let input = BufReader::with_capacity(rows::BUFFER, input);
            let (rows, note) = npy::stream(input)?.of_features(request.width)?;
            Ok(Box::new(TensorSource::of_rows(rows, note)))
        }
        None => {
            let (_, spooled) = spool(&mut input)?;
            let location = Location { path: spooled.path().to_path_buf(), name: file.name.clone() };
            let source = open_features(&location, request).map_err(|error| error.renamed(file))?;
            Ok(Box::new(Spooled { source, _file: spooled }))
        }
    }
}

/// Keeps the temporary copy alive while it is read.
struct Spooled {
    source: Box<dyn FeatureSource>,
    _file: Temporary,
}

impl FeatureSource for Spooled {
    fn units(&self) -> usize {
        self.source.units()
    }
    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }
    fn layout(&self) -> Layout {
        self.source.layout()
    }
    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)
    }
}
