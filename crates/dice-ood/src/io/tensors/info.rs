//! Tensors in files, unread: names, element types, shapes.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the types")]
pub enum DType {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// Anything else: listed, but not read.
    Other,
}

impl DType {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Other => 0,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    pub(crate) fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool | Self::Other)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Bool => "bool",
            Self::Other => "unreadable",
        })
    }
}

/// A tensor in a file, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name; empty in an npy file.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// The shape as `(N, D)`; trailing dimensions of one, as of a 1x1 convolution, do not count.
    pub(crate) fn matrix(&self) -> Option<(usize, usize)> {
        match self.shape[..] {
            [rows, units, ref ones @ ..] if ones.iter().all(|one| *one == 1) => Some((rows, units)),
            _ => None,
        }
    }

    /// Whether the shape is `[N]`, `[N, 1]` or `[1, N]`.
    pub(crate) fn is_vector(&self) -> bool {
        matches!(self.shape[..], [_] | [_, 1] | [1, _])
    }

    /// `(rows, values in a row)` for reading: a vector is a matrix of one column, and of further axes only one may have
    /// more than one value, as in `[N, 1, 1, D]`.
    pub(super) fn extent(&self) -> Result<(usize, usize)> {
        let wrong = || {
            let error = Error::new(ErrorKind::Shape, self.to_string()).tensor(&self.name).expected("[N, D]");
            match self.pooling() {
                Some(advice) => error.fix(advice),
                None => error,
            }
        };
        let (rows, units) = match self.shape[..] {
            [rows] => (rows, 1),
            [rows, ref rest @ ..] if rest.iter().filter(|extent| **extent != 1).count() <= 1 => {
                (rows, rest.iter().copied().find(|extent| *extent != 1).unwrap_or(1))
            }
            _ => return Err(wrong()),
        };
        rows.checked_mul(units).and_then(|count| count.checked_mul(8)).ok_or_else(wrong)?;
        if units == 0 {
            return Err(wrong());
        }
        Ok((rows, units))
    }

    /// `(rows, values in a row)` of a tensor of any number of axes, the first of which are the rows.
    pub(super) fn flat_extent(&self) -> Result<(usize, usize)> {
        let wrong =
            || Error::new(ErrorKind::Shape, self.to_string()).tensor(&self.name).expected("[N, ...], none empty");
        let [rows, rest @ ..] = &self.shape[..] else { return Err(wrong()) };
        let values = rest.iter().try_fold(1usize, |values, extent| values.checked_mul(*extent));
        let values = values.filter(|values| *values > 0).ok_or_else(wrong)?;
        rows.checked_mul(values).and_then(|count| count.checked_mul(8)).ok_or_else(wrong)?;
        Ok((*rows, values))
    }

    /// How features of more axes become `[N, D]`, where the shape tells which axes are places of an image.
    fn pooling(&self) -> Option<String> {
        let (axes, places) = match self.shape[..] {
            [_, _, height, width] if height == width => ("2, 3", "last two axes"),
            [_, height, width, _] if height == width => ("1, 2", "second and third axes"),
            [_, _, _, _] => ("2, 3", "last two axes"),
            [_, _, _] => {
                return Some("take the features of one token (the class token), or the mean over tokens, first".into());
            }
            _ => return None,
        };
        Some(format!("average-pool over the {places} first, as the network does: features.mean(axis=({axes}))"))
    }

    /// Bytes of the whole tensor, where that is a number.
    pub(crate) fn byte_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, extent| bytes.checked_mul(*extent))
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{} [{}]", self.dtype, shape.join(", "))
    }
}
