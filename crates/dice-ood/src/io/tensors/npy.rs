//! numpy `.npy` (format versions 1 to 3), streamed.
//!
//! The header is a Python dictionary literal of three known keys, so a strict parser of just that is used: the crates
//! that read npy parse arbitrary Python literals with a grammar, at ten times the dependencies.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::io::files;
use crate::io::spool::spool;
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::rows::{BUFFER, Bytes, TensorFile, TensorRows};

/// What an npy header says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NpyHeader {
    pub(super) tensor: TensorInfo,
    big_endian: bool,
    fortran: bool,
}

/// An npy file as a tensor file of one unnamed tensor.
struct NpyFile {
    path: PathBuf,
    tensors: [TensorInfo; 1],
}

pub(super) fn open(path: &Path) -> Result<Box<dyn TensorFile>> {
    let mut file = files::open(path)?;
    let header = NpyHeader::read(&mut file)?;
    let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
    let start = file.stream_position().map_err(|error| Error::io(path, error))?;
    header.check_length(length.saturating_sub(start))?;
    Ok(Box::new(NpyFile { path: path.to_path_buf(), tensors: [header.tensor] }))
}

impl TensorFile for NpyFile {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, _tensor: &TensorInfo) -> Result<TensorRows> {
        let mut file = files::open(&self.path)?;
        let header = NpyHeader::read(&mut file)?;
        header.rows_of_file(file)
    }
}

/// TensorRows from a stream that cannot be rewound.
pub(crate) fn stream(mut input: impl Read + Send + 'static) -> Result<TensorRows> {
    let header = NpyHeader::read(&mut input)?;
    header.tensor.extent()?;
    header.rows_of_stream(Box::new(input))
}

impl NpyHeader {
    /// TensorRows from a file positioned behind the header.
    pub(super) fn rows_of_file(&self, mut file: File) -> Result<TensorRows> {
        let start = file.stream_position().map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
        let bytes = if self.column_major() {
            Bytes::ColumnMajor(file, start)
        } else {
            Bytes::RowMajor(Box::new(std::io::BufReader::with_capacity(BUFFER, file)))
        };
        TensorRows::new(&self.tensor, bytes, self.big_endian)
    }

    /// TensorRows from a stream positioned behind the header; column-major data are copied to a temporary file first.
    pub(super) fn rows_of_stream(&self, mut input: Box<dyn Read + Send>) -> Result<TensorRows> {
        if self.column_major() {
            let (copy, _) = spool(&mut input)?;
            let length = copy.metadata().map_err(|error| Error::caused_by(ErrorKind::Io, error))?.len();
            self.check_length(length)?;
            return TensorRows::new(&self.tensor, Bytes::ColumnMajor(copy, 0), self.big_endian);
        }
        TensorRows::new(&self.tensor, Bytes::RowMajor(input), self.big_endian)
    }

    /// Vectors and single rows or columns are stored alike in either order.
    fn column_major(&self) -> bool {
        self.fortran && self.tensor.shape.len() > 1
    }

    /// Whether the data are as long as the header claims: no shorter, and no longer.
    pub(super) fn check_length(&self, found: u64) -> Result<()> {
        let claimed = self.tensor.byte_len().and_then(|bytes| u64::try_from(bytes).ok());
        if self.tensor.dtype == DType::Other || claimed == Some(found) {
            return Ok(());
        }
        let claimed = claimed.map_or("more than fits memory".into(), |claimed| format!("{claimed} bytes"));
        Err(Error::new(ErrorKind::Malformed, format!("{found} bytes"))
            .tensor("array")
            .expected(format!("{} ({claimed})", self.tensor))
            .fix("the file is truncated, or holds more than one array, or its header is corrupt: write it again"))
    }

    /// Reads a header and leaves `input` at the first element.
    pub(super) fn read(input: &mut dyn Read) -> Result<Self> {
        let mut start = [0u8; 8];
        read(input, &mut start)?;
        if &start[..6] != b"\x93NUMPY" {
            return Err(malformed("other bytes", "the npy signature `\\x93NUMPY` at the start"));
        }
        let length = match start[6] {
            1 => {
                let mut length = [0u8; 2];
                read(input, &mut length)?;
                u32::from(u16::from_le_bytes(length))
            }
            2 | 3 => {
                let mut length = [0u8; 4];
                read(input, &mut length)?;
                u32::from_le_bytes(length)
            }
            version => return Err(malformed(&format!("version {version}"), "npy format version 1, 2 or 3")),
        };
        if length > 1 << 16 {
            return Err(malformed(&format!("{length} bytes of header"), "a header of at most 64 KiB"));
        }
        let mut text = vec![0u8; length as usize];
        read(input, &mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| malformed("other bytes", "a header of text"))?;
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.trim().chars().take(120).collect();
            malformed(
                &format!("`{}`", shown.escape_debug()),
                "a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (50000, 342), }",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let body = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let value_of = |key: &str| {
            let after = body.split_once(&format!("'{key}'"))?.1.trim_start();
            Some(after.strip_prefix(':')?.trim_start())
        };
        // Structured arrays have a list here; they are named, and not read.
        let descr = match value_of("descr")? {
            list if list.starts_with('[') => "",
            text => text.strip_prefix('\'')?.split_once('\'')?.0,
        };
        let fortran = match value_of("fortran_order")? {
            order if order.starts_with("True") => true,
            order if order.starts_with("False") => false,
            _ => return None,
        };
        let (shape, _) = value_of("shape")?.strip_prefix('(')?.split_once(')')?;
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|extent| !extent.is_empty())
            .map(|extent| extent.parse().ok())
            .collect::<Option<Vec<usize>>>()?;
        let dtype = match descr.get(1..).unwrap_or_default() {
            "f2" => DType::F16,
            "f4" => DType::F32,
            "f8" => DType::F64,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u1" => DType::U8,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "b1" => DType::Bool,
            _ => DType::Other,
        };
        Some(Self {
            tensor: TensorInfo { name: String::new(), dtype, shape },
            big_endian: descr.starts_with('>'),
            fortran,
        })
    }
}

fn read(input: &mut dyn Read, buffer: &mut [u8]) -> Result<()> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => malformed("the end of the file", "an npy header").because(error),
        _ => Error::caused_by(ErrorKind::Io, error),
    })
}

fn malformed(found: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Malformed, found).expected(expected).fix("is this a complete npy file?")
}

/// The header of a little-endian row-major array of `dtype`, padded to a multiple of 64 bytes with room for any number
/// of rows, so that it can be written before their number is known and again when it is.
pub(crate) fn header_for(descr: &str, rows: u64) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows},), }}");
    // Signature, version and length take 10 bytes.
    while text.len() + 11 < 128 {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<NpyHeader> {
        NpyHeader::parse(text)
    }

    #[test]
    fn headers_as_numpy_writes_them() {
        let header = parse("{'descr': '<f4', 'fortran_order': False, 'shape': (50000, 342), }          \n").unwrap();
        assert_eq!(header.tensor.shape, [50_000, 342]);
        assert_eq!(header.tensor.dtype, DType::F32);
        assert!(!header.fortran && !header.big_endian);
        let header = parse("{'shape': (3,), 'fortran_order': True, 'descr': '>f8'}").unwrap();
        assert!(header.fortran && header.big_endian);
        assert_eq!(parse("{'descr': '|O', 'fortran_order': False, 'shape': ()}").unwrap().tensor.dtype, DType::Other);
        for broken in [
            "",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': Fa, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        ] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_written_header_reads_back() {
        for rows in [0, 7, u64::from(u32::MAX)] {
            let bytes = header_for("<f8", rows);
            assert_eq!(bytes.len(), 128);
            let header = NpyHeader::read(&mut &bytes[..]).unwrap();
            assert_eq!(header.tensor.shape, [rows as usize]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
            }
            let _ = NpyHeader::read(&mut &bytes[..]);
        }
    }
}
