//! A [`State`] as a safetensors file: its values are written without conversion, and read tensor by tensor into shared memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use crate::error::{Error, ErrorKind, Result};
use crate::io::files::{self, AtomicFile};
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::TensorFile;
use crate::io::tensors::safetensors::SafetensorsHeader;
use crate::io::write;
use crate::state::{Element, State, Tensor, Values};

/// Writes `state` and `metadata` as one safetensors file, atomically; equal content gives equal bytes.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(crate) fn write_state(path: &Path, state: &State, metadata: &BTreeMap<String, String>) -> Result<()> {
    // Types of the widest values first, so that each tensor is aligned.
    let mut tensors: Vec<(&str, &Tensor)> = state.tensors().collect();
    tensors.sort_by_key(|(name, tensor)| (std::cmp::Reverse(width(&tensor.values)), *name));
    let mut header = write::header::HeaderWriter::default();
    for (name, tensor) in &tensors {
        header.declare(name, dtype(&tensor.values), &tensor.shape, tensor.values.bytes().len());
    }
    let header = header.bytes(metadata.clone()).map_err(|error| error.file(path.display()))?;
    let mut file = AtomicFile::create(path)?;
    let mut write = || {
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| file.write_all(tensor.values.bytes()))
    };
    write().map_err(|error| Error::io(path, error))?;
    file.commit()
}

fn dtype(values: &Values) -> Dtype {
    match values {
        Values::F32(_) => Dtype::F32,
        Values::F64(_) => Dtype::F64,
        Values::I64(_) => Dtype::I64,
        Values::U8(_) => Dtype::U8,
        Values::U32(_) => Dtype::U32,
        Values::U64(_) => Dtype::U64,
    }
}

fn width(values: &Values) -> usize {
    values.bytes().len() / values.len().max(1)
}

impl SafetensorsHeader {
    /// All tensors of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for element types that a [`State`] does not hold; [`ErrorKind::Io`].
    pub(crate) fn state(&self) -> Result<State> {
        let mut file = files::open(self.path())?;
        let mut state = State::default();
        for (info, start) in self.tensors().iter().zip(self.starts()) {
            file.seek(SeekFrom::Start(*start)).map_err(|error| Error::io(self.path(), error))?;
            let values = read_values(&mut file, info).map_err(|error| error.tensor(&info.name))?;
            state.insert(&info.name, Tensor { shape: info.shape.clone(), values });
        }
        Ok(state)
    }
}

/// The header has been checked against the length of the file, so the bytes that a tensor claims are there.
fn read_values(file: &mut File, info: &TensorInfo) -> Result<Values> {
    match info.dtype {
        DType::F32 => read_as::<f32>(file, info),
        DType::F64 => read_as::<f64>(file, info),
        DType::I64 => read_as::<i64>(file, info),
        DType::U8 => read_as::<u8>(file, info),
        DType::U32 => read_as::<u32>(file, info),
        DType::U64 => read_as::<u64>(file, info),
        _ => Err(Error::new(ErrorKind::Malformed, info.to_string()).expected("f32, f64, i64, u8, u32 or u64 values")),
    }
}

fn read_as<T: Element + bytemuck::Pod>(file: &mut File, info: &TensorInfo) -> Result<Values> {
    let count = info.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
    let Some(count) = count else { return Err(Error::new(ErrorKind::Malformed, info.to_string())) };
    let mut values: Arc<[T]> = std::iter::repeat_n(T::zeroed(), count).collect();
    if let Some(values) = Arc::get_mut(&mut values) {
        file.read_exact(bytemuck::cast_slice_mut(values)).map_err(|error| Error::io(&info.name, error))?;
    }
    Ok(T::into_values(values))
}
