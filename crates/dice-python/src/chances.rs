//! Small questions of the Python side.

use dice_ood::listing::listed;
use dice_ood::{Error, ErrorKind, Spec, discoveries};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::error::Raise;

/// Which p-values `[N]` the procedure of Benjamini and Hochberg rejects at a false discovery rate of `fdr`.
#[pyfunction]
pub(crate) fn benjamini_hochberg<'py>(
    py: Python<'py>,
    p_values: PyReadonlyArray1<'py, f64>,
    fdr: f64,
) -> PyResult<Bound<'py, PyArray1<bool>>> {
    let p_values = p_values.as_slice()?;
    let found = py.detach(|| discoveries(p_values, fdr)).raise()?;
    Ok(found.into_pyarray(py))
}

/// The spec as it prints itself, whether its scores depend on a head, and whether its fit takes labels.
#[pyfunction]
pub(crate) fn parse(spec: &str) -> PyResult<(String, bool, bool)> {
    let spec = spec.parse::<Spec>().raise()?;
    Ok((spec.to_string(), spec.takes_head(), spec.needs().takes_labels()))
}

/// All methods, and those that are known and not here, as JSON.
#[pyfunction]
pub(crate) fn methods() -> PyResult<String> {
    serde_json::to_string(&listed()).map_err(|error| Error::caused_by(ErrorKind::Malformed, error)).raise()
}
