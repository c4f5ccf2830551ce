//! Files of named tensors: npy, npz, safetensors, PyTorch checkpoints.

pub(crate) mod arrays;
mod beside;
pub(crate) mod choose;
pub(crate) mod element;
pub(crate) mod exported;
pub(crate) mod features;
pub(crate) mod info;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod rows;
pub(crate) mod safetensors;
pub(crate) mod sharded;
#[cfg(feature = "torch")]
mod torch;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::io::format::Format;
use crate::io::location::Location;
use rows::TensorFile;
use safetensors::SafetensorsHeader;

pub(crate) fn open_tensors(path: &Path, format: Format) -> Result<Box<dyn TensorFile>> {
    let opened = match format {
        Format::Npy => npy::open(path),
        Format::Npz => npz::open(path),
        Format::Safetensors => safetensors::open(path),
        Format::Exported => exported::open(path),
        #[cfg(feature = "torch")]
        Format::Torch => torch::open(path),
        other => Err(not_here(other)),
    };
    opened.map_err(|error| error.file(path.display()))
}

fn not_here(format: Format) -> Error {
    let feature = match format {
        Format::Parquet | Format::ArrowIpc if cfg!(not(feature = "columns")) => Some("columns"),
        Format::Torch if cfg!(not(feature = "torch")) => Some("torch"),
        _ => None,
    };
    let error = Error::new(ErrorKind::Unsupported, format!("a {format} file"));
    match feature {
        Some(feature) => error.fix(format!("build dice-ood with the feature `{feature}`")),
        None => error.expected("a file of named tensors: npy, npz, safetensors or a PyTorch checkpoint"),
    }
}

/// The notes (`__metadata__`) of a safetensors file, such as those of [`FeaturesWriter`](crate::io::FeaturesWriter); none for a file of another format.
///
/// # Errors
/// Those of opening the file.
pub fn read_metadata(file: impl Into<Location>) -> Result<BTreeMap<String, String>> {
    let file = file.into();
    if file.is_stream() || !is_safetensors(&file.path)? {
        return Ok(BTreeMap::new());
    }
    Ok(SafetensorsHeader::read(&file.path)?.metadata().clone().into_iter().collect())
}

/// Whether the file `path` is of that format, by its content.
pub(crate) fn is_safetensors(path: &Path) -> Result<bool> {
    Format::of_file(path).map(|format| format == Format::Safetensors)
}
