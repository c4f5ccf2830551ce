//! Which format a file is of: known by its content, and by its extension only where the content leaves a choice.

use std::fmt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::io::files::open;
use crate::io::spool::peek;
use crate::io::tensors::exported::DESCRIPTION;
use crate::io::tensors::npz;
use crate::io::tensors::safetensors::LARGEST_HEADER;

/// A file format this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// numpy `.npy`.
    Npy,
    /// numpy `.npz`.
    Npz,
    /// `.safetensors`.
    Safetensors,
    /// `.csv` and `.tsv`.
    Csv,
    /// `.parquet` (feature `columns`).
    Parquet,
    /// Arrow IPC: `.arrow`, `.feather`, `.arrows` (feature `columns`).
    ArrowIpc,
    /// PyTorch `.pt`, `.pth`, `.pth.tar`, `.bin` (feature `torch`).
    Torch,
    /// PyTorch's exported programs, `.pt2`: their weights.
    Exported,
    /// The index of several files of weights, `model.safetensors.index.json`.
    Index,
    /// A folder of a network, as transformers and timm save it.
    Folder,
}

/// First bytes that are enough to tell formats apart: the signature of a tar archive ends here.
pub(super) const START: u64 = 262;

impl Format {
    /// The format that a file of this name usually has.
    pub(super) fn of_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            "safetensors" => Self::Safetensors,
            "csv" | "tsv" => Self::Csv,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "feather" | "arrows" | "ipc" => Self::ArrowIpc,
            "pt" | "pth" | "bin" | "ckpt" => Self::Torch,
            "pt2" => Self::Exported,
            _ => return None,
        })
    }

    /// The format of the file `path`.
    ///
    /// A signature decides. A zip archive is npz or PyTorch by the names of its members. Text is CSV, unless the extension
    /// claims a binary format, whose reader then says what is wrong with the file; so does that of unknown bytes.
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Err(Error::new(ErrorKind::Unsupported, "standard input")
                .expected("a file; only features are read from standard input"));
        }
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if metadata.is_dir() {
            return Err(Error::new(ErrorKind::Unsupported, "a directory").file(path.display()).expected("a file"));
        }
        let located = |error: Error| error.file(path.display());
        let start = peek(&mut open(path)?, START).map_err(located)?;
        let by_extension = Self::of_extension(path);
        match sign(&start) {
            Sign::Format(format) => Ok(format),
            Sign::Zip => of_archive(path, by_extension).map_err(located),
            Sign::Text => Ok(by_extension.unwrap_or(Self::Csv)),
            Sign::Foreign(what) => Err(located(foreign(what))),
            Sign::Unknown => by_extension.ok_or_else(|| located(unknown())),
        }
    }

    /// The format of a stream with this start, where it can be read from front to end.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for bytes of no known format.
    pub(super) fn of_stream(start: &[u8]) -> Result<Option<Self>> {
        match sign(start) {
            Sign::Format(format @ Self::Npy) => Ok(Some(format)),
            Sign::Text => Ok(Some(Self::Csv)),
            Sign::Format(_) | Sign::Zip => Ok(None),
            Sign::Foreign(what) => Err(foreign(what)),
            Sign::Unknown => Err(unknown()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Safetensors => "safetensors",
            Self::Csv => "CSV",
            Self::Parquet => "Parquet",
            Self::ArrowIpc => "Arrow IPC",
            Self::Torch => "PyTorch",
            Self::Exported => "exported PyTorch (pt2)",
            Self::Folder => "folder of a network",
            Self::Index => "index of weights",
        })
    }
}

/// What the first bytes of a file say.
enum Sign {
    Format(Format),
    /// A zip archive, of npy files or of a PyTorch checkpoint.
    Zip,
    Text,
    /// A format that is known, and not read.
    Foreign(&'static str),
    Unknown,
}

fn sign(start: &[u8]) -> Sign {
    let starts = |with: &[u8]| start.starts_with(with);
    if starts(b"\x93NUMPY") {
        Sign::Format(Format::Npy)
    } else if starts(b"PAR1") {
        Sign::Format(Format::Parquet)
    } else if starts(b"ARROW1") || starts(b"FEA1") || starts(&[0xff; 4]) {
        Sign::Format(Format::ArrowIpc)
    } else if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        Sign::Zip
    } else if is_safetensors(start) {
        Sign::Format(Format::Safetensors)
    } else if is_pickle(start) || start.get(257..262) == Some(b"ustar") {
        Sign::Format(Format::Torch)
    } else if starts(b"\x1f\x8b") {
        Sign::Foreign("a gzip file")
    } else if starts(b"\x89HDF\r\n") {
        Sign::Foreign("an HDF5 file")
    } else if is_text(start) {
        Sign::Text
    } else {
        Sign::Unknown
    }
}

/// The length of a header, within the format's own limit, and the brace that opens it.
fn is_safetensors(start: &[u8]) -> bool {
    let length = start.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| length <= LARGEST_HEADER) && start.get(8) == Some(&b'{')
}

/// A pickle of protocol 2 to 5: what `torch.save` wrote before it wrote zip archives.
fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// Text: UTF-8 up to a character that the end may have cut, without control characters.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or(""),
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// What a zip archive holds; one whose directory cannot be read is left to the reader that its name suggests.
fn of_archive(path: &Path, by_extension: Option<Format>) -> Result<Format> {
    let Ok(members) = npz::members(path) else {
        return Ok(by_extension.filter(|format| *format == Format::Torch).unwrap_or(Format::Npz));
    };
    let any = |end: &str| members.iter().any(|member| member.ends_with(end));
    if members.iter().any(|member| member.rsplit('/').next() == Some("data.pkl")) {
        return Ok(Format::Torch);
    }
    if any(DESCRIPTION) {
        return Ok(Format::Exported);
    }
    if any("serialized_state_dict.pt") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a program that an older PyTorch exported, with a checkpoint inside",
        )
        .expected("weights of their own in the archive, as PyTorch 2.9 and later write them")
        .fix("unzip `serialized_state_dict.pt` out of it and give that file"));
    }
    if any(".npy") {
        return Ok(Format::Npz);
    }
    Err(Error::new(ErrorKind::Unsupported, "a zip archive without `.npy` members and without `data.pkl`")
        .expected("npz, or a checkpoint that torch.save wrote"))
}

fn unknown() -> Error {
    Error::new(ErrorKind::Unsupported, "bytes of another kind")
        .expected("npy, npz, safetensors, CSV, Parquet, Arrow IPC or a PyTorch checkpoint")
        .fix("save the data in one of these formats")
}

fn foreign(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, what)
        .expected("npy, npz, safetensors, CSV, Parquet, Arrow IPC or a PyTorch checkpoint")
        .fix(if what.contains("gzip") { "decompress it first" } else { "convert it to one of these formats" })
}
