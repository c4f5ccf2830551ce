//! `.pt2`: what `torch.export.save` writes, a zip archive of raw weights beside a description in JSON.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::npz::{Member, members_of};
use crate::io::tensors::rows::{Bytes, TensorFile, TensorRows};

/// Where the description of the weights lies in the archive, whose outermost folder has any name.
pub(crate) const DESCRIPTION: &str = "/data/weights/model_weights_config.json";

/// Bytes that a description may have.
const LARGEST_DESCRIPTION: u64 = 100_000_000;

#[derive(Deserialize)]
struct Description {
    config: BTreeMap<String, Weight>,
}

#[derive(Deserialize)]
struct Weight {
    path_name: String,
    #[serde(default)]
    use_pickle: bool,
    tensor_meta: Meta,
}

/// Numbers are of PyTorch's serialised schema.
#[derive(Deserialize)]
struct Meta {
    dtype: u8,
    sizes: Vec<Extent>,
    strides: Vec<Extent>,
    storage_offset: Extent,
}

#[derive(Deserialize)]
struct Extent {
    as_int: i64,
}

impl Extent {
    fn get(&self) -> Option<usize> {
        usize::try_from(self.as_int).ok()
    }
}

struct Exported {
    path: PathBuf,
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    big_endian: bool,
}

struct Place {
    member: Option<Member>,
    /// Where the tensor starts in its member, in bytes; none where its values are not one after the other.
    start: Option<u64>,
}

pub(super) fn open(path: &Path) -> Result<Box<dyn TensorFile>> {
    let members = members_of(path)?;
    let Some(folder) = members.keys().find_map(|name| name.strip_suffix(DESCRIPTION)) else {
        return Err(malformed("no description of weights"));
    };
    let text = |name: &str| -> Result<Option<String>> {
        let Some(member) = members.get(&format!("{folder}{name}")) else { return Ok(None) };
        let mut text = String::new();
        let mut bytes = member.open(path)?.take(LARGEST_DESCRIPTION);
        bytes.read_to_string(&mut text).map_err(|error| Error::io(path, error))?;
        Ok(Some(text))
    };
    let described = text(DESCRIPTION)?.unwrap_or_default();
    let description: Description =
        serde_json::from_str(&described).map_err(|error| malformed(&error.to_string()).because(error))?;
    let big_endian = text("/byteorder")?.is_some_and(|order| order.trim() == "big");
    let mut file = Exported { path: path.to_path_buf(), tensors: Vec::new(), places: Vec::new(), big_endian };
    for (name, weight) in description.config {
        let shape = weight.tensor_meta.sizes.iter().map(Extent::get).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| malformed("a negative extent").tensor(&name))?;
        let dtype = if weight.use_pickle { DType::Other } else { dtype_of(weight.tensor_meta.dtype) };
        let start = weight.tensor_meta.start(&shape, dtype);
        let member = members.get(&format!("{folder}/data/weights/{}", weight.path_name)).copied();
        file.tensors.push(TensorInfo { name, dtype, shape });
        file.places.push(Place { member, start });
    }
    Ok(Box::new(file))
}

impl Meta {
    /// The first byte of the tensor in its storage, where its values lie row by row without gaps.
    fn start(&self, shape: &[usize], dtype: DType) -> Option<u64> {
        let mut expected = 1usize;
        for (stride, extent) in self.strides.iter().zip(shape).rev() {
            if *extent > 1 && stride.get() != Some(expected) {
                return None;
            }
            expected = expected.checked_mul(*extent)?;
        }
        (self.strides.len() == shape.len()).then_some(())?;
        self.storage_offset.get()?.checked_mul(dtype.size())?.try_into().ok()
    }
}

impl TensorFile for Exported {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        let Place { member, start } = &self.places[self.place(tensor)];
        let member = member.ok_or_else(|| malformed("no bytes of this weight").tensor(&tensor.name))?;
        let start = start.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "values that do not lie one after the other")
                .tensor(&tensor.name)
                .expected("a contiguous tensor")
                .fix("call .contiguous() on it before the export")
        })?;
        let mut bytes = member.open(&self.path)?;
        let skipped = std::io::copy(&mut bytes.by_ref().take(start), &mut std::io::sink());
        skipped.map_err(|error| Error::io(&self.path, error))?;
        let rows = TensorRows::new(tensor, Bytes::RowMajor(Box::new(bytes)), self.big_endian)?;
        Ok(if member.is_deflated() { rows.compressed() } else { rows })
    }
}

fn malformed(found: &str) -> Error {
    Error::new(ErrorKind::Malformed, found)
        .expected("a program that torch.export.save wrote, weights and their description")
        .fix("write the file again, or save model.state_dict() with torch.save")
}

/// The element types by their numbers in PyTorch's serialised schema.
fn dtype_of(number: u8) -> DType {
    match number {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::BF16,
        28 => DType::U16,
        _ => DType::Other,
    }
}
