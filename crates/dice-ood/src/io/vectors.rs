//! Vectors `[N]` of any file: scores, labels, statistics.

use crate::error::{Error, ErrorKind, Result};
use crate::io::format::Format;
use crate::io::location::Location;
use crate::io::names::LABEL_NAMES;
#[cfg(feature = "columns")]
use crate::io::tables::columns;
use crate::io::tables::csv;
use crate::io::tensors::choose::choose;
use crate::io::tensors::open_tensors;
use crate::io::whole::{not_a_label, whole};

/// Reads a vector `[N]` of numbers: scores, or a statistic. `defaults` name it where the location does not.
///
/// # Errors
/// Those of reading; [`ErrorKind::Shape`] for what is not a vector.
pub fn read_vector(file: impl Into<Location>, defaults: &[&str]) -> Result<Vec<f64>> {
    let file = file.into();
    let read = || -> Result<Vec<f64>> {
        match Format::of_file(&file.path)? {
            Format::Csv => csv::read_column(&file.path, file.name.as_deref(), defaults),
            #[cfg(feature = "columns")]
            format @ (Format::Parquet | Format::ArrowIpc) => {
                columns::read_column(&file.path, format, file.name.as_deref(), defaults)
            }
            format => {
                let opened = open_tensors(&file.path, format)?;
                let tensor = choose(opened.tensors(), file.name.as_deref(), defaults, "vector", |tensor| {
                    tensor.dtype.is_float() && tensor.is_vector()
                })?;
                if !tensor.is_vector() {
                    return Err(Error::new(ErrorKind::Shape, tensor.to_string())
                        .tensor(&tensor.name)
                        .expected("a vector [N]"));
                }
                opened.open(tensor)?.all_f64().map_err(|error| error.tensor(&tensor.name))
            }
        }
    };
    read().map_err(|error| error.file(&file))
}

/// Reads class labels `[N]`.
///
/// # Errors
/// Those of reading; [`ErrorKind::Malformed`] for labels that are not whole numbers.
pub fn read_labels(file: impl Into<Location>) -> Result<Vec<i64>> {
    let file = file.into();
    let values = read_vector(&file, &LABEL_NAMES)?;
    values
        .into_iter()
        .enumerate()
        .map(|(row, value)| whole(value).ok_or_else(|| not_a_label(&value.to_string(), row).file(&file)))
        .collect()
}
