//! Errors of the library as exceptions.

use dice_ood::{Error, Parts};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Results whose errors become exceptions.
pub(crate) trait Raise<T> {
    /// The value, or the exception of `dice_ood` that says the same as the error, part by part.
    fn raise(self) -> PyResult<T>;
}

impl<T> Raise<T> for dice_ood::Result<T> {
    fn raise(self) -> PyResult<T> {
        self.map_err(|error| Python::attach(|py| exception(py, &error).unwrap_or_else(|failure| failure)))
    }
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let Parts { file, tensor, argument, expected, found, fix, .. } = error.parts();
    let parts = PyDict::new(py);
    parts.set_item("file", file)?;
    parts.set_item("tensor", tensor)?;
    parts.set_item("argument", argument)?;
    parts.set_item("expected", expected)?;
    parts.set_item("found", found)?;
    parts.set_item("fix", fix)?;
    let debug = |name: Option<String>| name.unwrap_or_default();
    let kind = format!("{:?}", error.kind());
    let missing = debug(error.missing().map(|missing| format!("{missing:?}")));
    let remedy = debug(error.remedy().map(|remedy| format!("{remedy:?}")));
    let made = py.import("dice_ood._errors")?.call_method("of_parts", (kind, missing, remedy), Some(&parts))?;
    Ok(PyErr::from_value(made))
}
