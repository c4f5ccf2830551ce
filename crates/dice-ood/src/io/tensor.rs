//! Named arrays in files: element types, and rows read in order with memory bounded by what is asked for.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Error, ErrorKind, Result};
use crate::features::Note;

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
    fn extent(&self) -> Result<(usize, usize)> {
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

/// A file of named tensors.
pub(crate) trait TensorFile: Send {
    /// What it holds.
    fn tensors(&self) -> &[TensorInfo];
    /// Opens one of [`TensorFile::tensors`] at its first row.
    fn open(&self, tensor: &TensorInfo) -> Result<Rows>;
    /// The place of `tensor` among [`TensorFile::tensors`].
    fn place(&self, tensor: &TensorInfo) -> usize {
        self.tensors().iter().position(|other| other.name == tensor.name).unwrap_or(0)
    }
}

/// The rows of a tensor `[N, D]` (or vector `[N]`, with D = 1), read in order.
pub(crate) struct Rows {
    rows: usize,
    units: usize,
    next: usize,
    dtype: DType,
    big_endian: bool,
    bytes: Bytes,
    buffer: Vec<u8>,
    /// Whether the file may be much smaller than the tensor.
    compressed: bool,
    /// The shape in the file.
    shape: Vec<usize>,
}

/// Values that a tensor of a compressed file may have where all of it is held in memory: a head, labels, a statistic.
const MOST_INFLATED: usize = 1 << 26;

pub(crate) enum Bytes {
    /// Row by row.
    RowMajor(Box<dyn Read + Send>),
    /// Column by column from this offset of a file.
    ColumnMajor(File, u64),
}

/// Values read at a time: as many bytes as buffered readers hold, so that they read straight into ours.
const PIECE: usize = BUFFER / 4;
/// Bytes of a reader's buffer.
pub(super) const BUFFER: usize = 1 << 18;

impl Rows {
    pub(crate) fn new(tensor: &TensorInfo, bytes: Bytes, big_endian: bool) -> Result<Self> {
        if tensor.dtype == DType::Other {
            return Err(Error::new(ErrorKind::Unsupported, "an element type this crate does not read")
                .tensor(&tensor.name)
                .expected("f16, bf16, f32, f64 or integers")
                .fix("convert it, for instance with numpy's astype('float32')"));
        }
        let (rows, units) = tensor.extent()?;
        Ok(Self {
            rows,
            units,
            next: 0,
            dtype: tensor.dtype,
            big_endian,
            bytes,
            buffer: Vec::new(),
            compressed: false,
            shape: tensor.shape.clone(),
        })
    }

    /// The rows of a compressed tensor, of which few bytes can become many.
    pub(super) fn compressed(self) -> Self {
        Self { compressed: true, ..self }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn units(&self) -> usize {
        self.units
    }

    /// The rows as features, of which `width` units are expected where that is known: a vector `[D]` is then one row of them.
    pub(crate) fn of_features(mut self, width: Option<usize>) -> Result<(Self, Option<Note>)> {
        match (&self.shape[..], width) {
            (_, Some(1)) => Ok((self, None)),
            ([length], Some(width)) if *length == width => {
                (self.rows, self.units) = (1, width);
                let shape = self.shape.clone();
                Ok((self, Some(Note::Squeezed(shape))))
            }
            ([length], _) => Err(Error::new(ErrorKind::Shape, format!("[{length}]"))
                .expected("features [N, D]")
                .fix("one input of D units has the shape [1, D], N inputs of one unit [N, 1]")),
            ([_, _], _) => Ok((self, None)),
            (shape, _) => {
                let note = Note::Squeezed(shape.to_vec());
                Ok((self, Some(note)))
            }
        }
    }

    /// The bytes of a tensor of bytes from here on; `None` for one in the order of columns.
    pub(crate) fn into_bytes(self) -> Option<Box<dyn Read + Send>> {
        let left = ((self.rows - self.next) * self.units * self.dtype.size()) as u64;
        match self.bytes {
            Bytes::RowMajor(input) => Some(Box::new(input.take(left))),
            Bytes::ColumnMajor(..) => None,
        }
    }

    /// Appends up to `max_rows` rows to `out` and says how many; 0 at the end.
    pub(crate) fn read<T: Element>(&mut self, max_rows: usize, out: &mut Vec<T>) -> Result<usize> {
        let count = max_rows.min(self.rows - self.next);
        if count == 0 {
            return Ok(0);
        }
        let size = self.dtype.size();
        match &mut self.bytes {
            Bytes::RowMajor(input) => {
                // In pieces, so that memory grows with the bytes that are there and not with what the header claims.
                let mut left = count * self.units;
                while left > 0 {
                    let piece = left.min(PIECE);
                    out.try_reserve(piece).map_err(|_| no_memory(out.len() + piece))?;
                    let cut_short = |error| truncated(error, self.rows, self.units, self.dtype);
                    if let Some(room) = T::room(out, piece, self.dtype, self.big_endian) {
                        input.read_exact(room).map_err(cut_short)?;
                    } else {
                        self.buffer.resize(piece * size, 0);
                        input.read_exact(&mut self.buffer).map_err(cut_short)?;
                        T::extend(out, self.dtype, self.big_endian, &self.buffer)?;
                    }
                    left -= piece;
                }
            }
            Bytes::ColumnMajor(file, start) => {
                let base = out.len();
                for unit in 0..self.units {
                    let offset = *start + ((unit * self.rows + self.next) * size) as u64;
                    self.buffer.try_reserve(count * size).map_err(|_| no_memory(count))?;
                    self.buffer.resize(count * size, 0);
                    file.seek(SeekFrom::Start(offset))
                        .and_then(|_| file.read_exact(&mut self.buffer))
                        .map_err(|error| truncated(error, self.rows, self.units, self.dtype))?;
                    if unit == 0 {
                        out.try_reserve(count * self.units).map_err(|_| no_memory(count * self.units))?;
                        out.resize(base + count * self.units, T::default());
                    }
                    let mut row = 0;
                    let units = self.units;
                    convert(self.dtype, self.big_endian, &self.buffer, |value| {
                        out[base + row * units + unit] = value;
                        row += 1;
                    })?;
                }
            }
        }
        self.next += count;
        Ok(count)
    }

    fn all<T: Element>(&mut self) -> Result<Vec<T>> {
        if self.compressed && self.rows * self.units > MOST_INFLATED {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} compressed values", self.rows * self.units))
                .expected(format!("at most {MOST_INFLATED} of a compressed tensor that is held in memory"))
                .fix("save it without compression, for instance by numpy's savez"));
        }
        let mut values = Vec::new();
        while self.read(1 << 12, &mut values)? > 0 {}
        Ok(values)
    }

    /// All values in row-major order.
    pub(crate) fn all_f32(&mut self) -> Result<Vec<f32>> {
        self.all()
    }

    /// All values in row-major order.
    pub(crate) fn all_f64(&mut self) -> Result<Vec<f64>> {
        self.all()
    }

    /// All values in row-major order; they must be whole and not negative.
    pub(crate) fn all_u64(&mut self) -> Result<Vec<u64>> {
        self.all()
    }

    /// All values in row-major order; they must be whole.
    pub(crate) fn all_i64(&mut self) -> Result<Vec<i64>> {
        self.all()
    }
}

fn no_memory(values: usize) -> Error {
    Error::new(ErrorKind::Io, format!("no memory for {values} values"))
        .expected("a tensor that fits the memory there is")
}

/// What a decompressor says of its bytes; `None` for what the operating system says.
pub(super) fn corrupt(error: &io::Error) -> Option<Error> {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        .then(|| Error::new(ErrorKind::Malformed, format!("corrupt compressed data ({error})")))
}

fn truncated(error: io::Error, rows: usize, units: usize, dtype: DType) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorKind::Malformed, "the end of the data")
            .expected(format!("{rows} rows of {units} {dtype} values, as the header says"))
            .fix("the file is truncated: write it again");
    }
    corrupt(&error).unwrap_or_else(|| Error::new(ErrorKind::Io, error.to_string()))
}

/// What elements are read as.
pub(crate) trait Element: Copy + Default {
    fn from_f64(value: f64) -> Option<Self>;
    fn from_f32(value: f32) -> Option<Self> {
        Self::from_f64(f64::from(value))
    }
    fn from_i64(value: i64) -> Option<Self>;
    fn from_u64(value: u64) -> Option<Self> {
        i64::try_from(value).ok().and_then(Self::from_i64)
    }
    /// Where elements of this type are stored as they are in memory: room for `count` more at the end of `out`, to be
    /// read into.
    fn room(_out: &mut Vec<Self>, _count: usize, _dtype: DType, _big_endian: bool) -> Option<&mut [u8]> {
        None
    }
    /// Appends the elements in `bytes`, a whole number of them.
    fn extend(out: &mut Vec<Self>, dtype: DType, big_endian: bool, bytes: &[u8]) -> Result<()> {
        convert(dtype, big_endian, bytes, |value| out.push(value))
    }
}

impl Element for f32 {
    fn from_f64(value: f64) -> Option<Self> {
        Some(value as f32)
    }
    fn from_f32(value: f32) -> Option<Self> {
        Some(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f32)
    }
    fn room(out: &mut Vec<f32>, count: usize, dtype: DType, big_endian: bool) -> Option<&mut [u8]> {
        (dtype == DType::F32 && big_endian == cfg!(target_endian = "big")).then(|| {
            let end = out.len();
            out.resize(end + count, 0.0);
            bytemuck::cast_slice_mut(&mut out[end..])
        })
    }
    fn extend(out: &mut Vec<f32>, dtype: DType, big_endian: bool, bytes: &[u8]) -> Result<()> {
        if dtype == DType::F16 && !big_endian {
            // What cached features come in: a loop that vectorises.
            out.extend(bytes.as_chunks().0.iter().map(|half| f32_of_f16(u16::from_le_bytes(*half))));
            return Ok(());
        }
        convert(dtype, big_endian, bytes, |value| out.push(value))
    }
}

impl Element for f64 {
    fn from_f64(value: f64) -> Option<Self> {
        Some(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f64)
    }
}

impl Element for i64 {
    fn from_f64(value: f64) -> Option<Self> {
        super::whole(value)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl Element for u64 {
    fn from_f64(value: f64) -> Option<Self> {
        super::whole(value).and_then(Self::from_i64)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Self::try_from(value).ok()
    }
    fn from_u64(value: u64) -> Option<Self> {
        Some(value)
    }
}

/// Converts raw elements one by one; `bytes` holds a whole number of them.
fn convert<T: Element>(dtype: DType, big_endian: bool, bytes: &[u8], mut take: impl FnMut(T)) -> Result<()> {
    let unfit = |value: String| Error::new(ErrorKind::Malformed, value).expected("whole numbers");
    macro_rules! each {
        ($type:ty, $width:literal, $convert:expr) => {
            for element in bytes.as_chunks::<$width>().0 {
                let value =
                    if big_endian { <$type>::from_be_bytes(*element) } else { <$type>::from_le_bytes(*element) };
                let convert: fn($type) -> Option<T> = $convert;
                take(convert(value).ok_or_else(|| unfit(value.to_string()))?);
            }
        };
    }
    match dtype {
        DType::F16 => each!(u16, 2, |v| T::from_f32(f32_of_f16(v))),
        DType::BF16 => each!(u16, 2, |v| T::from_f32(f32::from_bits(u32::from(v) << 16))),
        DType::F32 => each!(f32, 4, T::from_f32),
        DType::F64 => each!(f64, 8, T::from_f64),
        DType::I8 => each!(i8, 1, |v| T::from_i64(v.into())),
        DType::I16 => each!(i16, 2, |v| T::from_i64(v.into())),
        DType::I32 => each!(i32, 4, |v| T::from_i64(v.into())),
        DType::I64 => each!(i64, 8, T::from_i64),
        DType::U8 | DType::Bool => each!(u8, 1, |v| T::from_i64(v.into())),
        DType::U16 => each!(u16, 2, |v| T::from_i64(v.into())),
        DType::U32 => each!(u32, 4, |v| T::from_i64(v.into())),
        DType::U64 => each!(u64, 8, T::from_u64),
        DType::Other => {}
    }
    Ok(())
}

/// The value of an IEEE half. Twelve lines, where the crate for it takes four seconds to build.
pub fn f32_of_f16(half: u16) -> f32 {
    /// 2^112: the difference of the exponents' biases.
    const REBIAS: f32 = (1u128 << 112) as f32;
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    if half & 0x7c00 == 0x7c00 {
        // Infinity and NaN keep their mantissa under the wider exponent.
        return f32::from_bits(sign | 0x7f80_0000 | magnitude);
    }
    // The multiplication is exact and normalises subnormals.
    f32::from_bits(sign | (f32::from_bits(magnitude) * REBIAS).to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_what_the_half_crate_makes_of_it() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (f32_of_f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }
}
