//! `.safetensors`: the header through the safetensors crate, the data streamed from their offset.

use std::collections::HashMap;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{Error, ErrorKind, Result};
use crate::io::files;
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::{BUFFER, Bytes, TensorFile, TensorRows};

/// Where the bytes of a safetensors file are.
enum Place {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// Bytes that tensors are read from.
pub(crate) trait Seekable: Read + Seek + Send {}

impl<T: Read + Seek + Send> Seekable for T {}

impl Place {
    /// The bytes, and how many there are.
    fn open(&self) -> Result<(Box<dyn Seekable>, u64)> {
        match self {
            Self::File(path) => {
                let file = files::open(path)?;
                let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
                Ok((Box::new(file), length))
            }
            Self::Memory(bytes) => Ok((Box::new(Cursor::new(Arc::clone(bytes))), bytes.len() as u64)),
        }
    }

    /// An error of reading them.
    fn located(&self, error: std::io::Error) -> Error {
        match self {
            Self::File(path) => Error::io(path, error),
            Self::Memory(_) => Error::caused_by(ErrorKind::Malformed, error),
        }
    }
}

/// The header of a safetensors file: tensors, their offsets, and metadata.
pub(crate) struct SafetensorsHeader {
    place: Place,
    tensors: Vec<TensorInfo>,
    /// Offset of each tensor in the file.
    starts: Vec<u64>,
    metadata: HashMap<String, String>,
}

/// The format's own limit on headers.
pub(crate) const LARGEST_HEADER: u64 = 100_000_000;

pub(super) fn open(path: &Path) -> Result<Box<dyn TensorFile>> {
    Ok(Box::new(SafetensorsHeader::read(path)?))
}

impl SafetensorsHeader {
    /// Reads and checks the header: offsets are contiguous, sizes fit types and shapes, and the file ends where they say.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::read_unnamed(Place::File(path.to_path_buf())).map_err(|error| error.file(path.display()))
    }

    /// The same of a file that is in memory.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read_unnamed(Place::Memory(bytes.into()))
    }

    fn read_unnamed(place: Place) -> Result<Self> {
        let (mut file, length) = place.open()?;
        let malformed = |found: String, expected: &str| {
            Error::new(ErrorKind::Malformed, found)
                .expected(expected)
                .fix("the file is truncated or corrupt: write it again")
        };
        let mut header_length = [0u8; 8];
        file.read_exact(&mut header_length)
            .map_err(|_| malformed(format!("{length} bytes"), "a safetensors file (at least 8 bytes)"))?;
        let header_length = u64::from_le_bytes(header_length);
        if header_length > LARGEST_HEADER || header_length > length.saturating_sub(8) {
            return Err(malformed(
                format!("a claim of {header_length} header bytes in a file of {length}"),
                "a safetensors header that fits the file",
            ));
        }
        let mut text = Vec::new();
        file.take(header_length).read_to_end(&mut text).map_err(|error| place.located(error))?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|error| {
            malformed(error.to_string(), "a JSON header of tensors with contiguous offsets").because(error)
        })?;
        let data_start = 8 + header_length;
        let found = length - data_start;
        if header.data_len() as u64 != found {
            return Err(malformed(
                format!("{found} bytes of data"),
                &format!("{} bytes of data, as the header says", header.data_len()),
            ));
        }
        let mut loaded = Self {
            place,
            tensors: Vec::new(),
            starts: Vec::new(),
            metadata: header.metadata().clone().unwrap_or_default(),
        };
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            loaded.starts.push(data_start + info.data_offsets.0 as u64);
            loaded.tensors.push(TensorInfo { dtype: dtype_of(info.dtype), shape: info.shape.clone(), name });
        }
        Ok(loaded)
    }

    /// The `__metadata__` of the file.
    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The bytes of the file from offset `start` on.
    pub(crate) fn bytes_from(&self, start: u64) -> Result<Box<dyn Seekable>> {
        let (mut file, _) = self.place.open()?;
        file.seek(SeekFrom::Start(start)).map_err(|error| self.place.located(error))?;
        Ok(file)
    }

    /// Offset of each tensor in the file.
    pub(crate) fn starts(&self) -> &[u64] {
        &self.starts
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }
}

impl TensorFile for SafetensorsHeader {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        let place = self.place(tensor);
        let file = self.bytes_from(self.starts[place])?;
        TensorRows::new(tensor, Bytes::RowMajor(Box::new(BufReader::with_capacity(BUFFER, file))), false)
    }
}

fn dtype_of(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U8 => DType::U8,
        Dtype::U16 => DType::U16,
        Dtype::U32 => DType::U32,
        Dtype::U64 => DType::U64,
        Dtype::BOOL => DType::Bool,
        _ => DType::Other,
    }
}
