//! Arrays that a network takes as its inputs: named as these, of any number of axes, the first of which are the inputs.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{Block, FeatureSource, Ids, Layout};
use crate::io::dataset::Dataset;
use crate::io::format::Format;
use crate::io::request::Request;
use crate::io::tables;
use crate::io::tally::Tally;
use crate::io::tensors::{self, open_tensors};

/// The most values that one input may have of an array: 64 MiB of f32.
pub(crate) const MOST_VALUES: usize = 1 << 24;

/// Values that are read at a time of all arrays together: 16 MiB of f32.
const VALUES_AT_ONCE: usize = 1 << 22;

/// An input of a network, which files have an array of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedArray {
    /// The name of the input.
    pub name: String,
    /// The extents of an array of one input after the other, `[N, ...]` without N, `None` for those that are free; `None` where
    /// nothing is known of the shape.
    pub shape: Option<Vec<Option<usize>>>,
    /// Whether whole numbers are wanted, rather than f32.
    pub integers: bool,
    /// Whether a file may lack it.
    pub optional: bool,
}

/// Some consecutive inputs of a network.
#[derive(Debug, Clone, Default)]
pub struct Arrays {
    /// n.
    pub rows: usize,
    /// Index of the first of them within `origin`.
    pub first_row: u64,
    /// For each [`WantedArray`] the values, where the file has them.
    pub arrays: Vec<Option<ArrayRows>>,
    /// Class labels `[n]`, where the file has them.
    pub labels: Option<Vec<i64>>,
    /// Names of the inputs `[n]`, where the file has them.
    pub ids: Option<Ids>,
    /// The file, for messages.
    pub origin: Arc<str>,
}

/// What some inputs have of one array, one after the other.
#[derive(Debug, Clone)]
pub struct ArrayRows {
    /// The values of all, row-major.
    pub values: ArrayValues,
    /// How they are shared out among the inputs.
    pub extent: Extent,
}

/// Values of an array.
#[derive(Debug, Clone)]
pub enum ArrayValues {
    /// Numbers, rounded to f32 as features are.
    Floats(Vec<f32>),
    /// Whole numbers.
    Integers(Vec<i64>),
}

/// How the values of an array are shared out among the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Each input has an array of this shape.
    Shape(Vec<usize>),
    /// Each input has a list of so many values.
    Lists(Vec<usize>),
}

/// Reads arrays, a few inputs at a time.
pub struct ArrayReader {
    data: Dataset,
    wanted: Vec<WantedArray>,
    current: Option<(Box<dyn ArrayFile>, Arc<str>)>,
    layout: Layout,
    /// Which wanted arrays the first file has.
    has: Vec<bool>,
    next: usize,
    tally: Tally,
}

/// The arrays of one file.
pub(crate) trait ArrayFile: Send {
    /// How many inputs there are, where that is known beforehand.
    fn rows(&self) -> Option<u64>;
    /// Which wanted arrays the file has.
    fn has(&self) -> Vec<bool>;
    fn layout(&self) -> Layout;
    /// The next inputs, at most `max_rows`, with no more values than `max_values` unless one input has; none at the end.
    fn read(&mut self, max_rows: usize, max_values: usize) -> Result<Arrays>;
}

impl WantedArray {
    /// Whether `shape`, that of one input, is what is wanted.
    pub(super) fn fits(&self, shape: &[usize]) -> bool {
        self.shape.as_ref().is_none_or(|wanted| {
            let fits = |(wanted, found): (&Option<usize>, &usize)| wanted.is_none_or(|wanted| wanted == *found);
            wanted.len() == shape.len() && wanted.iter().zip(shape).all(fits)
        })
    }

    /// `int64 [N, T]`-like words for messages: the shape with its free extents as `?`.
    pub fn described(&self) -> String {
        let kind = if self.integers { "whole numbers" } else { "numbers" };
        let Some(shape) = &self.shape else { return format!("{kind} [N, ...]") };
        let extents = shape.iter().map(|extent| extent.map_or("?".into(), |extent| extent.to_string()));
        let extents: Vec<String> = std::iter::once("N".to_owned()).chain(extents).collect();
        format!("{kind} [{}]", extents.join(", "))
    }

    /// The error for an array of another shape or type.
    pub(super) fn refuse(&self, kind: ErrorKind, found: impl std::fmt::Display) -> Error {
        let error = Error::new(kind, found.to_string()).tensor(&self.name).expected(self.described());
        match kind {
            ErrorKind::Shape => error.fix("give the array as the model takes it, the first axis being the inputs"),
            _ if self.integers => error.fix("convert it, for instance by numpy's astype('int64')"),
            _ => error.fix("convert it, for instance by numpy's astype('float32')"),
        }
    }

    /// The error for a file without it.
    pub(super) fn missing(&self, found: String) -> Error {
        Error::lacking(Missing::Tensor, found)
            .tensor(&self.name)
            .expected(format!("an array of that name: {}", self.described()))
            .fix("name arrays as the model names its inputs, as in numpy.savez(FILE, NAME=array)")
    }
}

impl Dataset {
    /// Opens the data set, arrays that a network takes, at its first input.
    ///
    /// Arrays are found by name; the only array of an npy file, or of a file that has just one that fits, is taken for the only
    /// input of a network. Whole numbers of any type are read as i64, and values of any type as f32 where these are wanted; floats
    /// are no whole numbers.
    ///
    /// # Errors
    /// Those of the first file: [`ErrorKind::Missing`] for an array that it lacks, [`ErrorKind::Shape`] and
    /// [`ErrorKind::Unsupported`] for one of another shape or type.
    pub fn open_arrays(&self, wanted: &[WantedArray]) -> Result<ArrayReader> {
        let mut reader = ArrayReader {
            data: self.clone(),
            wanted: wanted.to_vec(),
            current: None,
            layout: Layout::default(),
            has: Vec::new(),
            next: 0,
            tally: Tally::new("input"),
        };
        reader.advance()?;
        Ok(reader)
    }
}

impl ArrayReader {
    /// How many inputs there are, where that is known beforehand.
    pub fn rows(&self) -> Option<u64> {
        match (&self.current, self.data.files().len()) {
            (Some((file, _)), 1) => file.rows(),
            _ => None,
        }
    }

    /// Which of the wanted arrays the files have: those that the first has.
    pub fn has(&self) -> &[bool] {
        &self.has
    }

    /// How ids are read, and what the user should know.
    pub fn layout(&self) -> Layout {
        self.layout.clone()
    }

    /// The next inputs, at most `max_rows`; none at the end.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(&mut self, max_rows: usize) -> Result<Arrays> {
        while let Some((file, shown)) = &mut self.current {
            let located = |error: Error| error.renamed(&**shown);
            let mut read = file.read(max_rows, VALUES_AT_ONCE).map_err(located)?;
            if read.rows == 0 {
                self.advance()?;
                continue;
            }
            read.origin = Arc::clone(shown);
            if let Some(labels) = self.tally.count(&self.data, read.rows, read.ids.as_ref(), shown)? {
                read.labels = Some(labels);
            }
            return Ok(read);
        }
        self.tally.check_end(&self.data)?;
        Ok(Arrays::default())
    }

    /// Opens the next file, if there is one.
    fn advance(&mut self) -> Result<()> {
        self.current = None;
        let Some((file, shown)) = self.data.files.get(self.next).zip(self.data.shown.get(self.next)) else {
            return Ok(());
        };
        let request = Request {
            columns: &self.data.columns,
            name: file.name.as_deref(),
            units: if self.next == 0 { &self.data.units } else { &self.layout.units },
            width: None,
            labels: self.data.wants_labels,
            ids: self.data.wants_ids,
        };
        let located = |error: Error| error.renamed(&**shown);
        let opened = open(&file.path, &self.wanted, &request).map_err(located)?;
        if self.next == 0 {
            (self.layout, self.has) = (opened.layout(), opened.has());
        } else if let Some(place) = opened.has().iter().zip(&self.has).position(|(its, first)| its != first) {
            let found = if self.has[place] { "no such array" } else { "an array" };
            return Err(located(Error::lacking(Missing::Tensor, found))
                .tensor(&self.wanted[place].name)
                .expected(format!("it in all files or in none, as in {}", self.data.shown[0]))
                .fix("give such files on their own"));
        } else if self.layout.ids.is_some() != opened.layout().ids.is_some() && self.data.wants_ids {
            let found = if self.layout.ids.is_some() { "no ids" } else { "ids" };
            return Err(located(Error::lacking(Missing::Ids, found))
                .tensor("ids")
                .expected(format!("ids in all files or in none, as in {}", self.data.shown[0])));
        }
        self.current = Some((opened, Arc::clone(shown)));
        self.next += 1;
        Ok(())
    }
}

fn open(path: &std::path::Path, wanted: &[WantedArray], request: &Request<'_>) -> Result<Box<dyn ArrayFile>> {
    if let (Some(name), true) = (request.name, wanted.len() > 1) {
        return Err(Error::new(ErrorKind::Argument, format!("#{name}"))
            .expected(format!("a file with an array for each of {} inputs", wanted.len()))
            .fix("leave the name out"));
    }
    let row = match wanted {
        [only] if !only.integers && only.shape.as_ref().is_some_and(|shape| shape.len() == 1) => Some(only),
        _ => None,
    };
    match (Format::of_file(path)?, row) {
        #[cfg(feature = "columns")]
        (format @ (Format::Parquet | Format::ArrowIpc), Some(row)) if request.name.is_none() => {
            match tables::columns::has(path, format, &row.name)? {
                true => tables::arrays::open(path, format, wanted, request),
                false => TableRows::open(tables::columns::open(path, format, request)?, row),
            }
        }
        #[cfg(feature = "columns")]
        (format @ (Format::Parquet | Format::ArrowIpc), _) => tables::arrays::open(path, format, wanted, request),
        (Format::Csv, Some(row)) => TableRows::open(tables::csv::open(path, request)?, row),
        (Format::Csv, None) => Err(Error::new(ErrorKind::Unsupported, "a CSV file")
            .expected("npz, safetensors, npy or Parquet, with an array for each input of the model")
            .fix("save it as one of these")),
        (format, _) => tensors::arrays::open(open_tensors(path, format)?, wanted, request),
    }
}

/// The rows of a table with a column for each value of the only input, as features are read.
struct TableRows {
    source: Box<dyn FeatureSource>,
    block: Block,
}

impl TableRows {
    fn open(source: Box<dyn FeatureSource>, wanted: &WantedArray) -> Result<Box<dyn ArrayFile>> {
        let units = source.units();
        if !wanted.fits(&[units]) {
            let found = source.layout().stray.map_or_else(String::new, |stray| format!(", among them {stray}"));
            return Err(Error::new(ErrorKind::Columns, format!("{units} columns of numbers{found}"))
                .tensor(&wanted.name)
                .expected(wanted.described())
                .fix("drop the columns that the model does not take"));
        }
        Ok(Box::new(Self { source, block: Block::default() }))
    }
}

impl ArrayFile for TableRows {
    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn has(&self) -> Vec<bool> {
        vec![true]
    }

    fn layout(&self) -> Layout {
        self.source.layout()
    }

    fn read(&mut self, max_rows: usize, max_values: usize) -> Result<Arrays> {
        let most = max_rows.min((max_values / self.source.units().max(1)).max(1));
        self.source.read(&mut self.block, most)?;
        let block = &mut self.block;
        let rows = block.rows();
        let values = ArrayValues::Floats(std::mem::take(&mut block.features));
        Ok(Arrays {
            rows,
            first_row: block.first_row,
            arrays: vec![Some(ArrayRows { values, extent: Extent::Shape(vec![block.units]) })],
            labels: block.labels.take(),
            ids: block.ids.take(),
            origin: Arc::default(),
        })
    }
}
