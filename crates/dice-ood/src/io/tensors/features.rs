//! Features of a tensor file, with labels and ids beside them.

use std::io::{BufRead, BufReader, Read};

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Ids, Layout, Note};
use crate::io::budget;
use crate::io::names::{FEATURE_NAMES, ID_NAMES, IDS, LABEL_NAMES};
use crate::io::request::Request;
use crate::io::tensors::choose::choose;
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::{TensorFile, TensorRows};

/// Features of a tensor file, with the labels and the names of the inputs beside them where there are any.
pub(crate) struct TensorSource {
    rows: TensorRows,
    layout: Layout,
    labels: Option<Vec<i64>>,
    ids: Option<TensorIds>,
    next: usize,
}

/// Names of inputs in a tensor: text, one a line, or numbers.
enum TensorIds {
    Lines(IdLines),
    Numbers(Ids),
}

impl TensorIds {
    /// The names of `count` rows from `first` on, which are read in order; fewer where they are long.
    fn read(&mut self, first: usize, count: usize) -> Result<Ids> {
        let rows = first..first + count;
        match self {
            Self::Lines(lines) => lines.read(count).map(Ids::Text),
            Self::Numbers(Ids::Integer(all)) => Ok(Ids::Integer(all[rows].to_vec())),
            Self::Numbers(Ids::Unsigned(all)) => Ok(Ids::Unsigned(all[rows].to_vec())),
            Self::Numbers(Ids::Text(all)) => Ok(Ids::Text(all[rows].to_vec())),
        }
    }
}

/// Names of inputs, one a line.
struct IdLines(BufReader<Box<dyn Read + Send>>);

impl IdLines {
    /// The next `count` lines, or fewer where they are long.
    fn read(&mut self, count: usize) -> Result<Vec<String>> {
        const LONGEST: u64 = budget::LONGEST_ID as u64 + 1;
        let wrong = |found: &str| {
            Error::new(ErrorKind::Malformed, found).tensor(IDS).expected("a name of each row, one a line, in UTF-8")
        };
        let (mut lines, mut held) = (Vec::new(), 0);
        while lines.len() < count && held < budget::BLOCK_IDS {
            let mut line = String::new();
            self.0.by_ref().take(LONGEST).read_line(&mut line).map_err(|error| wrong(&error.to_string()))?;
            match line.strip_suffix('\n') {
                Some(name) => {
                    held += name.len();
                    lines.push(name.to_owned());
                }
                None => {
                    return Err(wrong(if line.is_empty() { "fewer lines than rows" } else { "a line without end" }));
                }
            }
        }
        Ok(lines)
    }
}

impl TensorSource {
    /// Features with nothing beside them.
    pub(crate) fn of_rows(rows: TensorRows, note: Option<Note>) -> Self {
        let layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
        Self { rows, layout, labels: None, ids: None, next: 0 }
    }

    pub(crate) fn open(file: Box<dyn TensorFile>, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
        let tensors = file.tensors();
        let features = choose(tensors, request.name, &FEATURE_NAMES, "features", |tensor| {
            tensor.dtype.is_float() && tensor.matrix().is_some() && !tensor.name.ends_with("weight")
        })?;
        let (rows, note) = file
            .open(features)
            .and_then(|rows| rows.of_features(request.width))
            .map_err(|error| error.tensor(&features.name))?;
        let mut layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
        // Labels found beside the features are used; another number of them than rows is refused.
        let labels = tensors
            .iter()
            .filter(|tensor| request.labels && tensor.dtype.is_integer() && tensor.shape.len() == 1)
            .find(|tensor| LABEL_NAMES.iter().any(|name| tensor.name == *name));
        let labels = match labels {
            None => None,
            Some(tensor) => {
                one_a_row(tensor, &rows, features)?;
                Some(file.open(tensor)?.all_i64().map_err(|error| error.tensor(&tensor.name))?)
            }
        };
        let ids = match ids_among(tensors).filter(|_| request.ids) {
            Some(tensor) if tensor.dtype == DType::Other => {
                layout.notes.push(Note::UnreadIds(tensor.name.clone()));
                None
            }
            Some(tensor) => {
                layout.ids = Some(tensor.name.clone());
                read_ids(&*file, tensor, &rows, features)?
            }
            None => None,
        };
        Ok(Box::new(Self { rows, layout, labels, ids, next: 0 }))
    }
}

/// The tensor that names the inputs: text as `ids`, or whole numbers under a name of ids.
fn ids_among(tensors: &[TensorInfo]) -> Option<&TensorInfo> {
    let fits = |tensor: &&TensorInfo| match tensor.dtype {
        DType::U8 => tensor.name == IDS && tensor.is_vector(),
        DType::Other => tensor.shape.len() == 1,
        dtype => dtype.is_integer() && tensor.shape.len() == 1,
    };
    let named = |name: &&str| tensors.iter().filter(fits).find(|tensor| tensor.name.eq_ignore_ascii_case(name));
    [IDS].iter().chain(&ID_NAMES).find_map(named)
}

fn read_ids(
    file: &dyn TensorFile,
    tensor: &TensorInfo,
    rows: &TensorRows,
    of: &TensorInfo,
) -> Result<Option<TensorIds>> {
    let mut opened = file.open(tensor)?;
    if tensor.dtype == DType::U8 {
        return Ok(opened.into_bytes().map(|bytes| TensorIds::Lines(IdLines(BufReader::new(bytes)))));
    }
    one_a_row(tensor, rows, of)?;
    let ids = match tensor.dtype {
        DType::U64 => opened.all_u64().map(Ids::Unsigned),
        _ => opened.all_i64().map(Ids::Integer),
    };
    ids.map(|ids| Some(TensorIds::Numbers(ids))).map_err(|error| error.tensor(&tensor.name))
}

/// Refuses a tensor beside the features that has not one value a row.
fn one_a_row(tensor: &TensorInfo, rows: &TensorRows, features: &TensorInfo) -> Result<()> {
    if tensor.shape[0] == rows.rows() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, tensor.to_string()).tensor(&tensor.name).expected(format!(
        "[{}], one for each row of `{}`",
        rows.rows(),
        features.name
    )))
}

impl FeatureSource for TensorSource {
    fn units(&self) -> usize {
        self.rows.units()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows.rows() as u64)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.rows.units(), self.next as u64);
        let wanted = max_rows.min(self.rows.rows() - self.next);
        block.ids = self.ids.as_mut().map(|ids| ids.read(self.next, wanted)).transpose()?;
        let wanted = block.ids.as_ref().map_or(wanted, Ids::len);
        let read = self.rows.read(wanted, &mut block.features)?;
        block.labels = self.labels.as_ref().map(|labels| labels[self.next..self.next + read].to_vec());
        self.next += read;
        Ok(())
    }
}
