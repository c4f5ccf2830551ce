//! A [`State`] as a safetensors file: its values are written tensor by tensor, and read into shared memory. Large f32 tensors
//! whose values are all halves, such as a bank of features that came as f16, are written as f16, which loses nothing.

use std::collections::BTreeMap;
use std::io::{SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use crate::error::{Error, ErrorKind, Result};
use crate::io::files::AtomicFile;
use crate::io::tensors::element::{f16_of_f32, f32_of_f16};
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::TensorFile;
use crate::io::tensors::safetensors::{SafetensorsHeader, Seekable};
use crate::io::write;
use crate::state::{Element, State, Tensor, Values};

/// Writes `state` and `metadata` as one safetensors file, atomically; equal content gives equal bytes.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(crate) fn write_state(path: &Path, state: &State, metadata: &BTreeMap<String, String>) -> Result<()> {
    let layout = Ordered::of(state);
    let header = layout.header(metadata).map_err(|error| error.file(path.display()))?;
    let mut file = AtomicFile::create(path)?;
    layout.write(&header, &mut file).map_err(|error| Error::io(path, error))?;
    file.commit()
}

/// The bytes that [`write_state`] writes.
///
/// # Errors
/// [`ErrorKind::Malformed`] for metadata that is no JSON.
pub(crate) fn state_bytes(state: &State, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let layout = Ordered::of(state);
    let mut bytes = Vec::new();
    let header = layout.header(metadata)?;
    layout.write(&header, &mut bytes).map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
    Ok(bytes)
}

/// Tensors in the order of their file: types of the widest values first, so that each tensor is aligned.
struct Ordered<'a>(Vec<(&'a str, &'a [usize], Stored<'a>)>);

impl<'a> Ordered<'a> {
    fn of(state: &'a State) -> Self {
        let tensors = state.tensors().map(|(name, tensor)| (name, &tensor.shape[..], Stored::of(&tensor.values)));
        let mut tensors: Vec<_> = tensors.collect();
        tensors.sort_by_key(|(name, _, stored)| (std::cmp::Reverse(stored.width()), *name));
        Self(tensors)
    }

    fn header(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let mut header = write::header::HeaderWriter::default();
        for (name, shape, stored) in &self.0 {
            header.declare(name, stored.dtype(), shape, stored.len());
        }
        header.bytes(metadata.clone())
    }

    fn write(&self, header: &[u8], out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(header)?;
        self.0.iter().try_for_each(|(_, _, stored)| stored.write(out))
    }
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

/// How values are written.
enum Stored<'a> {
    Plain(&'a Values),
    Halves(&'a [f32]),
}

impl<'a> Stored<'a> {
    /// Smaller tensors are written as the type that they have.
    const LARGE: usize = 1 << 16;

    fn of(values: &'a Values) -> Self {
        let is_half = |value: &f32| f32_of_f16(f16_of_f32(*value)).to_bits() == value.to_bits();
        match values {
            Values::F32(floats) if floats.len() >= Self::LARGE && floats.iter().all(is_half) => Self::Halves(floats),
            _ => Self::Plain(values),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::Plain(values) => dtype(values),
            Self::Halves(_) => Dtype::F16,
        }
    }

    /// Bytes.
    fn len(&self) -> usize {
        match self {
            Self::Plain(values) => values.bytes().len(),
            Self::Halves(values) => size_of::<u16>() * values.len(),
        }
    }

    /// Bytes of a value.
    fn width(&self) -> usize {
        match self {
            Self::Plain(values) => values.bytes().len() / values.len().max(1),
            Self::Halves(_) => size_of::<u16>(),
        }
    }

    fn write(&self, file: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Plain(values) => file.write_all(values.bytes()),
            Self::Halves(values) => values.chunks(Self::LARGE).try_for_each(|values| {
                let halves: Vec<u8> = values.iter().flat_map(|value| f16_of_f32(*value).to_le_bytes()).collect();
                file.write_all(&halves)
            }),
        }
    }
}

impl SafetensorsHeader {
    /// All tensors of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for element types that a [`State`] does not hold; [`ErrorKind::Io`].
    pub(crate) fn state(&self) -> Result<State> {
        let mut file = self.bytes_from(0)?;
        let mut state = State::default();
        for (info, start) in self.tensors().iter().zip(self.starts()) {
            file.seek(SeekFrom::Start(*start)).map_err(|error| Error::io(&info.name, error))?;
            let values = read_values(&mut *file, info).map_err(|error| error.tensor(&info.name))?;
            state.insert(&info.name, Tensor { shape: info.shape.clone(), values });
        }
        Ok(state)
    }
}

/// The header has been checked against the length of the file, so the bytes that a tensor claims are there.
fn read_values(file: &mut dyn Seekable, info: &TensorInfo) -> Result<Values> {
    match info.dtype {
        DType::F16 => read_halves(file, info),
        DType::F32 => read_as::<f32>(file, info),
        DType::F64 => read_as::<f64>(file, info),
        DType::I64 => read_as::<i64>(file, info),
        DType::U8 => read_as::<u8>(file, info),
        DType::U32 => read_as::<u32>(file, info),
        DType::U64 => read_as::<u64>(file, info),
        _ => {
            Err(Error::new(ErrorKind::Malformed, info.to_string())
                .expected("f16, f32, f64, i64, u8, u32 or u64 values"))
        }
    }
}

/// Halves, as the f32 values that they are.
fn read_halves(file: &mut dyn Seekable, info: &TensorInfo) -> Result<Values> {
    const PART: usize = 1 << 16;
    let count = count_of(info)?;
    let mut values: Arc<[f32]> = std::iter::repeat_n(0.0, count).collect();
    let mut halves = vec![0; size_of::<u16>() * count.min(PART)];
    for values in Arc::get_mut(&mut values).into_iter().flat_map(|values| values.chunks_mut(PART)) {
        let halves = &mut halves[..size_of::<u16>() * values.len()];
        file.read_exact(halves).map_err(|error| Error::io(&info.name, error))?;
        for (value, half) in values.iter_mut().zip(halves.as_chunks().0) {
            *value = f32_of_f16(u16::from_le_bytes(*half));
        }
    }
    Ok(Values::F32(values))
}

fn count_of(info: &TensorInfo) -> Result<usize> {
    let count = info.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
    count.ok_or_else(|| Error::new(ErrorKind::Malformed, info.to_string()))
}

fn read_as<T: Element + bytemuck::Pod>(file: &mut dyn Seekable, info: &TensorInfo) -> Result<Values> {
    let mut values: Arc<[T]> = std::iter::repeat_n(T::zeroed(), count_of(info)?).collect();
    if let Some(values) = Arc::get_mut(&mut values) {
        file.read_exact(bytemuck::cast_slice_mut(values)).map_err(|error| Error::io(&info.name, error))?;
    }
    Ok(T::into_values(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tensors_of_halves_are_written_as_such_and_read_back_to_the_bit() {
        let path = std::env::temp_dir().join(format!("dice-halves-{}.safetensors", std::process::id()));
        let halves: Vec<f32> = (0..=u16::MAX).map(f32_of_f16).filter(|value| value.is_finite()).collect();
        let halves: Vec<f32> = halves.iter().chain(&halves).copied().collect();
        let mut others = halves.clone();
        others[77_777] = 0.1;
        for (values, bytes) in [(&halves, 2), (&others, 4), (&halves[..100].to_vec(), 4)] {
            let mut state = State::default();
            state.put("values", &[values.len()], values.clone());
            state.put("odd", &[3], vec![1u8, 2, 3]);
            write_state(&path, &state, &BTreeMap::new()).unwrap();
            let length = std::fs::metadata(&path).unwrap().len() as usize;
            assert!((0..1000).contains(&(length - bytes * values.len())), "{length}");
            let read = SafetensorsHeader::read(&path).unwrap().state().unwrap();
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            let found = read.clone().take::<f32>("values", &[None]).unwrap();
            assert!(found.iter().zip(values).all(same) && found.len() == values.len());
            assert_eq!(read.clone().take::<u8>("odd", &[None]).unwrap()[..], [1, 2, 3]);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
