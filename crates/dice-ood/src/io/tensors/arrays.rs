//! Arrays of a tensor file, row by row.

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Ids, Layout};
use crate::io::arrays::{ArrayFile, ArrayRows, ArrayValues, Arrays, Extent, MOST_VALUES, WantedArray};
use crate::io::request::Request;
use crate::io::tensors::beside::{Beside, RowTensor};
use crate::io::tensors::choose::{choose, listed};
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::{TensorFile, TensorRows};

struct TensorArrays {
    arrays: Vec<Option<Opened>>,
    rows: usize,
    /// Values that one input has of all arrays together.
    each: usize,
    beside: Beside,
    layout: Layout,
    next: usize,
}

struct Opened {
    rows: TensorRows,
    /// Of one input.
    shape: Vec<usize>,
    integers: bool,
    name: String,
}

pub(crate) fn open(
    file: Box<dyn TensorFile>,
    wanted: &[WantedArray],
    request: &Request<'_>,
) -> Result<Box<dyn ArrayFile>> {
    let found: Vec<Option<&TensorInfo>> = find(file.tensors(), wanted, request.name)?;
    let mut first: Option<&TensorInfo> = None;
    let mut arrays = Vec::with_capacity(wanted.len());
    for (wanted, tensor) in wanted.iter().zip(&found) {
        let Some(tensor) = tensor else {
            arrays.push(None);
            continue;
        };
        arrays.push(Some(Opened::new(&*file, tensor, wanted)?));
        let first = first.get_or_insert(tensor);
        if first.shape[0] != tensor.shape[0] {
            return Err(Error::new(ErrorKind::Shape, tensor.to_string())
                .tensor(shown(tensor, wanted))
                .expected(format!("{} inputs, as `{}` has", first.shape[0], first.name))
                .fix("give all arrays the same first axis"));
        }
    }
    let rows = first.map_or(0, |first| first.shape[0]);
    let mut layout = Layout::default();
    let of = RowTensor { tensor: first.map_or("", |first| &first.name), count: rows };
    let beside = Beside::find(&*file, of, request, &mut layout)?;
    let each = arrays.iter().flatten().map(|one| one.rows.units()).sum();
    Ok(Box::new(TensorArrays { arrays, rows, each, beside, layout, next: 0 }))
}

/// The tensor of each wanted array.
fn find<'a>(
    tensors: &'a [TensorInfo],
    wanted: &[WantedArray],
    name: Option<&str>,
) -> Result<Vec<Option<&'a TensorInfo>>> {
    if let [only] = wanted {
        let fits = |tensor: &TensorInfo| {
            let kind = !only.integers || !tensor.dtype.is_float();
            kind && tensor.dtype != DType::Other && tensor.shape.split_first().is_some_and(|(_, row)| only.fits(row))
        };
        let found = choose(tensors, name, &[only.name.as_str()], &only.name, fits);
        return found.map(|tensor| vec![Some(tensor)]).map_err(|error| {
            let expected = format!("an array of the model's input, {}", only.described());
            error.expected(expected)
        });
    }
    let of = |wanted: &WantedArray| match tensors.iter().find(|tensor| tensor.name == wanted.name) {
        None if wanted.optional => Ok(None),
        None => Err(wanted.missing(listed(tensors))),
        found => Ok(found),
    };
    wanted.iter().map(of).collect()
}

fn shown(tensor: &TensorInfo, wanted: &WantedArray) -> String {
    if tensor.name.is_empty() { wanted.name.clone() } else { tensor.name.clone() }
}

impl Opened {
    fn new(file: &dyn TensorFile, tensor: &TensorInfo, wanted: &WantedArray) -> Result<Self> {
        let name = shown(tensor, wanted);
        if tensor.dtype == DType::Other {
            return Err(wanted
                .refuse(ErrorKind::Unsupported, "elements of a type that is not read, such as Python objects")
                .fix("pad lists of different lengths to one, or give them as a column of lists in Parquet"));
        }
        let shape = tensor.shape.split_first().map(|(_, row)| row.to_vec()).filter(|shape| wanted.fits(shape));
        let shape = shape.ok_or_else(|| wanted.refuse(ErrorKind::Shape, tensor))?;
        if wanted.integers && tensor.dtype.is_float() {
            return Err(wanted.refuse(ErrorKind::Unsupported, tensor));
        }
        let named = |error: Error| error.tensor(&name);
        let rows = file.open_flat(tensor).map_err(named)?;
        if rows.units() > MOST_VALUES {
            return Err(named(wanted.refuse(ErrorKind::Shape, tensor))
                .expected(format!("at most {MOST_VALUES} values of an input")));
        }
        Ok(Self { rows, shape, integers: wanted.integers, name })
    }

    fn read(&mut self, count: usize) -> Result<ArrayRows> {
        let named = |error: Error| error.tensor(&self.name);
        let values = if self.integers {
            let mut values = Vec::new();
            self.rows.read::<i64>(count, &mut values).map_err(named)?;
            ArrayValues::Integers(values)
        } else {
            let mut values = Vec::new();
            self.rows.read::<f32>(count, &mut values).map_err(named)?;
            ArrayValues::Floats(values)
        };
        Ok(ArrayRows { values, extent: Extent::Shape(self.shape.clone()) })
    }
}

impl ArrayFile for TensorArrays {
    fn rows(&self) -> Option<u64> {
        Some(self.rows as u64)
    }

    fn has(&self) -> Vec<bool> {
        self.arrays.iter().map(Option::is_some).collect()
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, max_rows: usize, max_values: usize) -> Result<Arrays> {
        let count = max_rows.min(self.rows - self.next).min((max_values / self.each.max(1)).max(1));
        if count == 0 {
            return Ok(Arrays::default());
        }
        let ids = self.beside.ids(self.next, count)?;
        let count = ids.as_ref().map_or(count, Ids::len);
        let arrays = self.arrays.iter_mut().map(|one| one.as_mut().map(|one| one.read(count)).transpose());
        let arrays = arrays.collect::<Result<_>>()?;
        let (first_row, labels) = (self.next as u64, self.beside.labels(self.next, count));
        self.next += count;
        Ok(Arrays { rows: count, first_row, arrays, labels, ids, ..Arrays::default() })
    }
}
