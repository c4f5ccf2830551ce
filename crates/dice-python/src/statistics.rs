//! Statistics of training features, which merge.

use std::path::PathBuf;
use std::sync::Arc;

use dice_ood::artifact::read_statistics;
use dice_ood::{Needs, Spec, Statistics as Gathered};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::data::{Features, Labels};
use crate::error::Raise;
use crate::head::Head;
use crate::running::interruptible;

/// What one pass over training features gathers.
#[pyclass(frozen, module = "dice_ood._native")]
#[derive(Clone)]
pub(crate) struct Statistics(Arc<Gathered>);

impl Statistics {
    pub(crate) fn new(gathered: Gathered) -> Self {
        Self(Arc::new(gathered))
    }

    pub(crate) fn gathered(&self) -> &Gathered {
        &self.0
    }
}

#[pymethods]
impl Statistics {
    /// Statistics that fits of `specs` to `head` rest on.
    #[staticmethod]
    #[pyo3(signature = (features, labels, labels_file, head, specs))]
    fn gather<'py>(
        py: Python<'py>,
        features: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyArray1<i64>>>,
        labels_file: Option<&str>,
        head: Option<&Head>,
        specs: Vec<String>,
    ) -> PyResult<Self> {
        let features = Features::of(features)?.with_labels_of(labels_file)?;
        let labels = Labels::of(labels);
        let (view, labels, head) = (features.view(), labels.slice()?, head.map(|head| &*head.0));
        let gathered = interruptible(py, |stop| {
            let mut needs = Needs::marginals();
            for spec in &specs {
                needs = needs.and(spec.parse::<Spec>()?.needs());
            }
            Gathered::gather(&mut *view.open(labels, stop)?, head, &needs)
        })?;
        Ok(Self::new(gathered))
    }

    /// Statistics of the rows of all of these.
    fn merge(&self, py: Python<'_>, others: Vec<PyRef<'_, Self>>) -> PyResult<Self> {
        let others: Vec<Self> = others.iter().map(|other| (**other).clone()).collect();
        py.detach(|| {
            let mut merged = (*self.0).clone();
            others.iter().try_for_each(|other| merged.merge(&other.0))?;
            Ok(Self::new(merged))
        })
        .raise()
    }

    /// The bytes of their file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &py.detach(|| self.0.to_bytes()).raise()?))
    }

    /// The statistics of the bytes of a file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        py.detach(|| Gathered::from_bytes(bytes)).map(Self::new).raise()
    }

    /// Writes their file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(path)).raise()
    }

    /// The statistics of a file: of these, of a detector, or of a published mean activation.
    #[staticmethod]
    fn load(py: Python<'_>, path: String) -> PyResult<Self> {
        py.detach(|| read_statistics(path)).map(Self::new).raise()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let from_bytes = py.get_type::<Self>().getattr("from_bytes")?;
        Ok((from_bytes, (self.to_bytes(py)?,)))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.0 == other.get().0)
    }

    #[getter]
    fn n_rows(&self) -> u64 {
        self.0.rows()
    }

    #[getter]
    fn n_units(&self) -> usize {
        self.0.units()
    }

    #[getter]
    fn mean_activation<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.0.mean_activation().into_pyarray(py)
    }
}
