//! Whole numbers among floats, as labels have to be.

use crate::error::{Error, ErrorKind};

pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

pub(super) fn not_a_label(found: &str, row: usize) -> Error {
    Error::new(ErrorKind::Malformed, format!("`{found}` at row {row}"))
        .tensor("labels")
        .expected("class indices: whole numbers from 0")
}
