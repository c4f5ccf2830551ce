//! Constants of a graph as values, read from the file or beside it.
//!
//! Nothing is allocated for more values than bytes are there: every shape is checked against its data first.

use std::path::Path;

use dice_ood::io::f32_of_f16;
use dice_ood::{Error, ErrorKind, Result};

use crate::model::proto::TensorProto;
use crate::model::{element, external};
use crate::text::quoted;

/// More dimensions than any model has; work a value is bounded by it.
pub(crate) const MAX_RANK: usize = 64;

/// A constant tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
    /// The ONNX code of the type it has in the model.
    pub(crate) element: i32,
}

/// Floats of any width as f32, integers and booleans as i64.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int(values) => values.len(),
        }
    }
}

impl Constant {
    pub(crate) fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { shape, values: Values::Float(values), element: element::FLOAT }
    }

    pub(crate) fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, values: Values::Int(values), element: element::INT64 }
    }

    /// The values as f32, rounded where they were integers.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self.values {
            Values::Float(values) => values,
            Values::Int(values) => values.into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The integers, where these are integers.
    pub(crate) fn as_ints(&self) -> Result<&[i64]> {
        match &self.values {
            Values::Int(values) => Ok(values),
            Values::Float(_) => {
                Err(Error::new(ErrorKind::Unsupported, element::name(self.element)).expected("integers"))
            }
        }
    }

    /// Whether every value is the lowest of a quantised type, so that as a zero point it leaves nothing below zero.
    pub(crate) fn is_lowest(&self) -> bool {
        match (&self.values, element::range(self.element)) {
            (Values::Int(values), Some((lowest, _))) => values.iter().all(|value| *value == lowest),
            _ => false,
        }
    }

    /// Reads a tensor of the file, or of a file in `folder` that it refers to.
    pub(crate) fn read(tensor: &TensorProto, folder: &Path) -> Result<Self> {
        let read = || {
            let shape = shape_of(tensor)?;
            let count = count_of(&shape)?;
            let size = element::size(tensor.data_type).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, element::name(tensor.data_type))
                    .expected("floats of 16, 32 or 64 bits or integers of 8 to 64 bits")
            })?;
            let bytes = count.checked_mul(size).ok_or_else(|| too_large(&shape))?;
            let values = if tensor.is_external() {
                decode(&external::read(tensor, folder, bytes)?, tensor.data_type)?
            } else if let Some(raw) = &tensor.raw_data {
                if raw.len() != bytes {
                    return Err(mismatch(&shape, bytes, raw.len(), "bytes"));
                }
                decode(raw, tensor.data_type)?
            } else {
                let values = typed_values(tensor)?;
                if values.len() != count {
                    return Err(mismatch(&shape, count, values.len(), "values"));
                }
                values
            };
            Ok(Self { shape, values, element: tensor.data_type })
        };
        read().map_err(|error| error.tensor(quoted(&tensor.name)))
    }
}

/// The dimensions a tensor claims.
pub(crate) fn shape_of(tensor: &TensorProto) -> Result<Vec<usize>> {
    if tensor.dims.len() > MAX_RANK {
        return Err(Error::new(ErrorKind::Malformed, format!("{} dimensions", tensor.dims.len()))
            .expected(format!("at most {MAX_RANK}")));
    }
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|extent| usize::try_from(*extent).ok()).collect();
    shape.ok_or_else(|| {
        Error::new(ErrorKind::Malformed, format!("shape {:?}", tensor.dims)).expected("dimensions of zero or more")
    })
}

/// The number of values of a shape, where that is a number.
pub(crate) fn count_of(shape: &[usize]) -> Result<usize> {
    // Strides are products of some of these extents: where the product fits with zeros taken for ones, all strides fit.
    let product = |least: usize| shape.iter().try_fold(1usize, |count, extent| count.checked_mul(least.max(*extent)));
    product(1).and_then(|_| product(0)).ok_or_else(|| too_large(shape))
}

pub(crate) fn too_large(shape: &[usize]) -> Error {
    Error::new(ErrorKind::Malformed, format!("shape {shape:?}")).expected("a tensor that fits a memory")
}

fn mismatch(shape: &[usize], expected: usize, found: usize, of: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("{found}"))
        .expected(format!("{expected} {of} for shape {shape:?}"))
        .fix("the file is damaged: fetch or export it again")
}

fn decode(bytes: &[u8], code: i32) -> Result<Values> {
    fn floats<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f32) -> Values {
        Values::Float(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    fn ints<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i64) -> Values {
        Values::Int(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    Ok(match code {
        element::FLOAT => floats(bytes, f32::from_le_bytes),
        element::DOUBLE => floats(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        element::FLOAT16 => floats(bytes, |chunk| f32_of_f16(u16::from_le_bytes(chunk))),
        element::BFLOAT16 => floats(bytes, |chunk| bf16_to_f32(u16::from_le_bytes(chunk))),
        element::UINT8 | element::BOOL => ints(bytes, |[byte]: [u8; 1]| i64::from(byte)),
        element::INT8 => ints(bytes, |chunk| i64::from(i8::from_le_bytes(chunk))),
        element::UINT16 => ints(bytes, |chunk| i64::from(u16::from_le_bytes(chunk))),
        element::INT16 => ints(bytes, |chunk| i64::from(i16::from_le_bytes(chunk))),
        element::INT32 => ints(bytes, |chunk| i64::from(i32::from_le_bytes(chunk))),
        element::UINT32 => ints(bytes, |chunk| i64::from(u32::from_le_bytes(chunk))),
        // u64 is read as i64: such tensors hold shapes and axes, far below 2^63.
        element::INT64 | element::UINT64 => ints(bytes, i64::from_le_bytes),
        _ => return Err(Error::new(ErrorKind::Unsupported, element::name(code))),
    })
}

/// Values in the field of their type, which is int32 for everything narrower.
fn typed_values(tensor: &TensorProto) -> Result<Values> {
    let from_int32 = |read: fn(i32) -> i64| Values::Int(tensor.int32_data.iter().map(|value| read(*value)).collect());
    let from_bits = |read: fn(u16) -> f32| {
        Values::Float(tensor.int32_data.iter().map(|value| read((*value & 0xFFFF) as u16)).collect())
    };
    Ok(match tensor.data_type {
        element::FLOAT => Values::Float(tensor.float_data.clone()),
        element::DOUBLE => Values::Float(tensor.double_data.iter().map(|value| *value as f32).collect()),
        element::FLOAT16 => from_bits(f32_of_f16),
        element::BFLOAT16 => from_bits(bf16_to_f32),
        element::UINT8 => from_int32(|value| i64::from(value as u8)),
        element::INT8 => from_int32(|value| i64::from(value as i8)),
        element::UINT16 => from_int32(|value| i64::from(value as u16)),
        element::INT16 => from_int32(|value| i64::from(value as i16)),
        element::INT32 | element::BOOL => from_int32(i64::from),
        element::INT64 => Values::Int(tensor.int64_data.clone()),
        element::UINT32 | element::UINT64 => {
            Values::Int(tensor.uint64_data.iter().map(|value| i64::try_from(*value).unwrap_or(i64::MAX)).collect())
        }
        code => return Err(Error::new(ErrorKind::Unsupported, element::name(code))),
    })
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says enough")]

    use super::*;
    use prost::bytes::Bytes;

    #[test]
    fn every_half_float_is_read_exactly() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f32_of_f16(bits);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#06x}");
            let expected = half::bf16::from_bits(bits).to_f32();
            let found = bf16_to_f32(bits);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#06x}");
        }
    }

    #[test]
    fn claims_are_checked_against_the_bytes() {
        let tensor = TensorProto {
            dims: vec![1 << 40, 1 << 40],
            data_type: element::FLOAT,
            raw_data: Some(Bytes::from_static(&[0; 8])),
            ..TensorProto::default()
        };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![1 << 29], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![-2], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Malformed);
        let tensor = TensorProto { dims: vec![2], ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap().into_f32(), [0.0, 0.0]);
        let tensor = TensorProto { data_type: 8, ..tensor };
        assert_eq!(Constant::read(&tensor, Path::new("")).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
