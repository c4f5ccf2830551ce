//! The rows of a tensor, read in order with memory bounded by what is asked for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Error, ErrorKind, Result};
use crate::features::Note;
use crate::io::tensors::element::{FromElement, convert};
use crate::io::tensors::info::{DType, TensorInfo};

/// A file of named tensors.
pub(crate) trait TensorFile: Send {
    /// What it holds.
    fn tensors(&self) -> &[TensorInfo];
    /// Opens one of [`TensorFile::tensors`], whatever its shape, at its first row.
    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows>;
    /// Opens one of [`TensorFile::tensors`] that is `[N, D]` or a vector at its first row.
    fn open(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        tensor.extent()?;
        self.open_flat(tensor)
    }
    /// The place of `tensor` among [`TensorFile::tensors`].
    fn place(&self, tensor: &TensorInfo) -> usize {
        self.tensors().iter().position(|other| other.name == tensor.name).unwrap_or(0)
    }
}

/// The rows of a tensor `[N, D]` (or vector `[N]`, with D = 1), read in order; of further axes D is the product.
pub(crate) struct TensorRows {
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

/// Values read at a time: as many bytes as buffered readers hold, so that buffered readers pass reads through to the values.
const PIECE: usize = BUFFER / 4;

/// Bytes of a reader's buffer.
pub(crate) const BUFFER: usize = 1 << 18;

impl TensorRows {
    pub(crate) fn new(tensor: &TensorInfo, bytes: Bytes, big_endian: bool) -> Result<Self> {
        if tensor.dtype == DType::Other {
            return Err(Error::new(ErrorKind::Unsupported, "an element type this crate does not read")
                .tensor(&tensor.name)
                .expected("f16, bf16, f32, f64 or integers")
                .fix("convert it, for instance with numpy's astype('float32')"));
        }
        let (rows, units) = tensor.flat_extent()?;
        if matches!(bytes, Bytes::ColumnMajor(..)) && tensor.extent().is_err() {
            return Err(Error::new(ErrorKind::Unsupported, format!("{tensor} in the order of columns"))
                .expected("rows one after the other")
                .fix("write it as numpy.ascontiguousarray makes it"));
        }
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
    pub(crate) fn read<T: FromElement>(&mut self, max_rows: usize, out: &mut Vec<T>) -> Result<usize> {
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

    fn all<T: FromElement>(&mut self) -> Result<Vec<T>> {
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

/// The error of reading bytes that may be compressed: that of the decompressor, or else that of the operating system as
/// `failed` words it.
pub(crate) fn corrupt_or(error: io::Error, failed: impl FnOnce(&io::Error) -> Error) -> Error {
    let of_decompressor = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    let found = match of_decompressor {
        true => Error::new(ErrorKind::Malformed, format!("corrupt compressed data ({error})")),
        false => failed(&error),
    };
    found.because(error)
}

fn truncated(error: io::Error, rows: usize, units: usize, dtype: DType) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorKind::Malformed, "the end of the data")
            .expected(format!("{rows} rows of {units} {dtype} values, as the header says"))
            .fix("the file is truncated: write it again")
            .because(error);
    }
    corrupt_or(error, |error| Error::new(ErrorKind::Io, error.to_string()))
}
