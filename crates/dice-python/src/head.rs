//! The linear head.

use std::sync::Arc;

use dice_onnx::{HeadOptions, Model};
use dice_ood::LinearHead;
use dice_ood::io::{Location, find_head};
use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, ToPyArray};
use pyo3::prelude::*;

use crate::error::Raise;

/// The linear head of a classifier: weight `[C, D]` and bias `[C]`.
#[pyclass(frozen, module = "dice_ood._native")]
#[derive(Clone)]
pub(crate) struct Head(pub(crate) Arc<LinearHead>);

#[pymethods]
impl Head {
    #[new]
    fn new(weight: PyReadonlyArray2<'_, f32>, bias: PyReadonlyArray1<'_, f32>) -> PyResult<Self> {
        let head = LinearHead::new(weight.as_array().to_owned(), bias.as_array().to_owned());
        Ok(Self(Arc::new(head.raise()?)))
    }

    /// The head of a file, and the names of its classes where the file's folder has them; `units` rules out matrices of another width.
    #[staticmethod]
    #[pyo3(signature = (file, units=None))]
    fn load(py: Python<'_>, file: String, units: Option<usize>) -> PyResult<(Self, Vec<String>)> {
        py.detach(|| {
            let location = Location::parse(&file);
            if location.path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("onnx")) {
                return find_head(&location, units).map(|found| (found.head, found.classes));
            }
            let options = HeadOptions { head: location.name, features: None };
            Ok((Model::open(&location.path)?.find_head(&options)?.head, Vec::new()))
        })
        .map(|(head, classes)| (Self(Arc::new(head)), classes))
        .raise()
    }

    #[getter]
    fn weight<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f32>> {
        self.0.weight().to_pyarray(py)
    }

    #[getter]
    fn bias<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.0.bias().to_pyarray(py)
    }

    #[getter]
    fn n_classes(&self) -> usize {
        self.0.classes()
    }

    #[getter]
    fn n_units(&self) -> usize {
        self.0.units()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.0 == other.get().0)
    }
}
