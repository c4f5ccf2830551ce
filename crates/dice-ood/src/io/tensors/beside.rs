//! Labels and ids beside the features, or the inputs of a network, in a tensor file.

use std::io::{BufRead, BufReader, Read};

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Ids, Layout, Note};
use crate::io::budget;
use crate::io::names::{ID_NAMES, IDS, LABEL_NAMES};
use crate::io::request::Request;
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::TensorFile;

/// The rows that something is beside: the tensor they are in, and how many.
#[derive(Clone, Copy)]
pub(super) struct RowTensor<'a> {
    pub(super) tensor: &'a str,
    pub(super) count: usize,
}

/// The labels and the names of the inputs, where there are any.
#[derive(Default)]
pub(super) struct Beside {
    labels: Option<Vec<i64>>,
    ids: Option<TensorIds>,
}

impl Beside {
    /// Finds what `request` asks for beside the tensor `of`, whose rows have a value each, and tells `layout` of ids.
    pub(super) fn find(
        file: &dyn TensorFile,
        of: RowTensor<'_>,
        request: &Request<'_>,
        layout: &mut Layout,
    ) -> Result<Self> {
        let tensors = file.tensors();
        // Labels found beside the features are used; another number of them than rows is refused.
        let labels = tensors
            .iter()
            .filter(|tensor| request.labels && tensor.dtype.is_integer() && tensor.shape.len() == 1)
            .find(|tensor| LABEL_NAMES.iter().any(|name| tensor.name == *name));
        let labels = match labels {
            None => None,
            Some(tensor) => {
                one_a_row(tensor, &of)?;
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
                read_ids(file, tensor, &of)?
            }
            None => None,
        };
        Ok(Self { labels, ids })
    }

    /// The names of `count` rows from `first` on, which are read in order; fewer where they are long.
    pub(super) fn ids(&mut self, first: usize, count: usize) -> Result<Option<Ids>> {
        self.ids.as_mut().map(|ids| ids.read(first, count)).transpose()
    }

    /// The labels of `count` rows from `first` on.
    pub(super) fn labels(&self, first: usize, count: usize) -> Option<Vec<i64>> {
        self.labels.as_ref().map(|labels| labels[first..first + count].to_vec())
    }
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

fn read_ids(file: &dyn TensorFile, tensor: &TensorInfo, of: &RowTensor<'_>) -> Result<Option<TensorIds>> {
    let mut opened = file.open(tensor)?;
    if tensor.dtype == DType::U8 {
        return Ok(opened.into_bytes().map(|bytes| TensorIds::Lines(IdLines(BufReader::new(bytes)))));
    }
    one_a_row(tensor, of)?;
    let ids = match tensor.dtype {
        DType::U64 => opened.all_u64().map(Ids::Unsigned),
        _ => opened.all_i64().map(Ids::Integer),
    };
    ids.map(|ids| Some(TensorIds::Numbers(ids))).map_err(|error| error.tensor(&tensor.name))
}

/// Refuses a tensor beside `of` that has not one value a row.
fn one_a_row(tensor: &TensorInfo, of: &RowTensor<'_>) -> Result<()> {
    if tensor.shape[0] == of.count {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, tensor.to_string())
        .tensor(&tensor.name)
        .expected(format!("[{}], one for each row of `{}`", of.count, of.tensor)))
}
