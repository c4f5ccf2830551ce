//! Features and labels as Python hands them over: arrays that the Python side has checked, or files.

use dice_ood::io::Dataset;
use dice_ood::{ArraySource, Block, Error, ErrorKind, FeatureSource, Result};
use numpy::ndarray::{ArrayView2, s};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::Raise;
use crate::running::Stop;

/// Features `[N, D]`.
pub(crate) enum Features<'py> {
    F32(PyReadonlyArray2<'py, f32>),
    F64(PyReadonlyArray2<'py, f64>),
    Files(Box<Dataset>),
}

impl<'py> Features<'py> {
    /// An array of f32 or f64, or a list of files, whose labels may be in a file of their own.
    pub(crate) fn of(given: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = given.cast::<PyArray2<f32>>() {
            return Ok(Self::F32(array.readonly()));
        }
        if let Ok(array) = given.cast::<PyArray2<f64>>() {
            return Ok(Self::F64(array.readonly()));
        }
        match given.extract::<Vec<String>>() {
            Ok(files) => Ok(Self::Files(Box::new(Dataset::new(files).raise()?.without_ids()))),
            Err(_) => {
                Err(PyTypeError::new_err("features are neither an array [N, D] of f32 or f64 nor a list of files"))
            }
        }
    }

    /// The same with the labels of a file, where there is one.
    pub(crate) fn with_labels_of(self, file: Option<&str>) -> PyResult<Self> {
        match (self, file) {
            (Self::Files(data), Some(file)) => Ok(Self::Files(Box::new(data.with_labels(file).raise()?))),
            (same, _) => Ok(same),
        }
    }

    /// Files of tables are read as columns of these names, where there are any.
    pub(crate) fn with_units(self, units: usize, names: &[String]) -> Self {
        match self {
            Self::Files(data) => Self::Files(Box::new(data.with_units(units, names))),
            arrays => arrays,
        }
    }

    pub(crate) fn without_labels(self) -> Self {
        match self {
            Self::Files(data) => Self::Files(Box::new(data.without_labels())),
            arrays => arrays,
        }
    }

    /// What other threads can read.
    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::F32(array) => View::F32(array.as_array()),
            Self::F64(array) => View::F64(array.as_array()),
            Self::Files(data) => View::Files(data),
        }
    }
}

/// Labels `[N]` that Python gave.
pub(crate) struct Labels<'py>(Option<PyReadonlyArray1<'py, i64>>);

impl<'py> Labels<'py> {
    pub(crate) fn of(given: Option<&Bound<'py, PyArray1<i64>>>) -> Self {
        Self(given.map(|array| array.readonly()))
    }

    pub(crate) fn slice(&self) -> PyResult<Option<&[i64]>> {
        self.0.as_ref().map(|array| array.as_slice().map_err(Into::into)).transpose()
    }
}

/// Features `[N, D]`, readable without the interpreter.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    F32(ArrayView2<'a, f32>),
    F64(ArrayView2<'a, f64>),
    Files(&'a Dataset),
}

impl<'a> View<'a> {
    /// Opens the features, with labels where there are some.
    pub(crate) fn open(self, labels: Option<&'a [i64]>, stop: &Stop) -> Result<Box<dyn FeatureSource + 'a>> {
        Ok(match (self, labels) {
            (Self::F32(features), Some(labels)) => stop.watch(ArraySource::with_labels(features, labels)?),
            (Self::F32(features), None) => stop.watch(ArraySource::new(features)),
            (Self::F64(features), labels) => stop.watch(Narrowed::new(features, labels)?),
            (Self::Files(data), _) => stop.watch(data.open()?),
        })
    }

    /// What they are, for the record of a fit.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::F32(features) => format!("array f32 [{}, {}]", features.nrows(), features.ncols()),
            Self::F64(features) => format!("array f64 [{}, {}]", features.nrows(), features.ncols()),
            Self::Files(data) => data.names().join(" "),
        }
    }

    /// How many values there are, where that is known.
    pub(crate) fn values(self) -> Option<usize> {
        match self {
            Self::F32(features) => Some(features.len()),
            Self::F64(features) => Some(features.len()),
            Self::Files(_) => None,
        }
    }
}

/// Features of f64, each read as the f32 nearest to it.
struct Narrowed<'a> {
    features: ArrayView2<'a, f64>,
    labels: Option<&'a [i64]>,
    next: usize,
}

impl<'a> Narrowed<'a> {
    fn new(features: ArrayView2<'a, f64>, labels: Option<&'a [i64]>) -> Result<Self> {
        match labels.filter(|labels| labels.len() != features.nrows()) {
            None => Ok(Self { features, labels, next: 0 }),
            Some(labels) => Err(Error::new(ErrorKind::Shape, format!("[{}]", labels.len()))
                .tensor("labels")
                .expected(format!("[{}], one for each row of features", features.nrows()))),
        }
    }
}

impl FeatureSource for Narrowed<'_> {
    fn units(&self) -> usize {
        self.features.ncols()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.features.nrows() as u64)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        let end = self.features.nrows().min(self.next.saturating_add(max_rows));
        block.restart(self.features.ncols(), self.next as u64);
        for row in self.features.slice(s![self.next..end, ..]).rows() {
            block.features.extend(row.iter().map(|value| *value as f32));
        }
        block.labels = self.labels.map(|labels| labels[self.next..end].to_vec());
        self.next = end;
        Ok(())
    }
}
