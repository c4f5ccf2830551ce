//! Data of tensors in files beside the model.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};
use prost::bytes::Bytes;

use crate::model::proto::TensorProto;
use crate::text::quoted;

/// Where the data of a tensor is kept outside of the model file.
pub(crate) struct External {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) length: Option<u64>,
}

impl External {
    /// The place a tensor refers to, as a file that exists inside `folder`.
    pub(crate) fn of(tensor: &TensorProto, folder: &Path) -> Result<Self> {
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| {
            let parse = |text: &str| {
                text.parse::<u64>().map_err(|_| {
                    Error::new(ErrorKind::Malformed, format!("{key} {text:?}")).expected("a number of bytes")
                })
            };
            entry(key).map(parse).transpose()
        };
        let location = entry("location").filter(|location| !location.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Malformed, "external data without a location").expected("the name of a file")
        })?;
        let path = inside(location, folder)?;
        Ok(Self { path, offset: number("offset")?.unwrap_or(0), length: number("length")? })
    }
}

/// The file `location` in `folder`; a path or a link to another folder is refused.
fn inside(location: &str, folder: &Path) -> Result<PathBuf> {
    let outside = || {
        Error::new(ErrorKind::Unsupported, format!("external data at {}", quoted(location)))
            .expected("external data in the model's folder")
            .fix("move the data beside the model and save the model again; links that lead out are not followed")
    };
    let relative = Path::new(location);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let absent = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::new(ErrorKind::Missing, format!("no file {}", quoted(location)))
                .expected("the model's external data in the model's folder")
                .fix("fetch it too: the model file holds the graph, that file the weights")
        } else {
            Error::io(folder.join(relative), source)
        }
    };
    let folder = folder.canonicalize().map_err(absent)?;
    let path = folder.join(relative).canonicalize().map_err(absent)?;
    if !path.starts_with(&folder) {
        return Err(outside());
    }
    if !path.is_file() {
        return Err(
            Error::new(ErrorKind::Malformed, format!("external data at {}", quoted(location))).expected("a file")
        );
    }
    Ok(path)
}

pub(crate) fn read(tensor: &TensorProto, folder: &Path, bytes: usize) -> Result<Bytes> {
    let place = External::of(tensor, folder)?;
    let wanted = bytes as u64;
    if let Some(length) = place.length.filter(|length| *length != wanted) {
        return Err(Error::new(ErrorKind::Malformed, format!("{length} bytes of external data"))
            .expected(format!("{wanted} bytes for shape {:?}", tensor.dims)));
    }
    let fail = |source| Error::io(&place.path, source);
    let mut file = files::open(&place.path)?;
    let size = file.metadata().map_err(fail)?.len();
    if place.offset.checked_add(wanted).is_none_or(|end| end > size) {
        return Err(Error::new(ErrorKind::Malformed, format!("a file of {size} bytes"))
            .file(place.path.display())
            .expected(format!("{wanted} bytes at {}", place.offset))
            .fix("the external data is truncated or belongs to another model"));
    }
    file.seek(SeekFrom::Start(place.offset)).map_err(fail)?;
    let mut data = vec![0; bytes];
    file.read_exact(&mut data).map_err(fail)?;
    Ok(data.into())
}
