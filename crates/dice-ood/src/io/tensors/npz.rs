//! numpy `.npz`: a zip of npy files, stored or deflated, streamed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipFileHeaderRecord};

use crate::error::{Error, ErrorKind, Result};
use crate::io::files;
use crate::io::tensors::info::TensorInfo;
use crate::io::tensors::npy::NpyHeader;
use crate::io::tensors::rows::{BUFFER, TensorFile, TensorRows};

struct NpzFile {
    path: PathBuf,
    tensors: Vec<TensorInfo>,
    entries: Vec<Member>,
}

/// A file in a zip archive.
#[derive(Clone, Copy)]
pub(super) struct Member {
    start: u64,
    compressed: u64,
    size: u64,
    crc: u32,
    deflated: bool,
}

fn malformed(error: rawzip::Error) -> Error {
    Error::caused_by(ErrorKind::Malformed, error)
        .expected("a zip archive, as npz files and PyTorch checkpoints are")
        .fix("is the file complete?")
}

/// The names of what the zip archive `path` holds.
pub(crate) fn members(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    walk(path, |name, _| {
        names.push(name);
        Ok(())
    })?;
    Ok(names)
}

/// The files of the zip archive `path` by their names.
pub(super) fn members_of(path: &Path) -> Result<BTreeMap<String, Member>> {
    let mut members = BTreeMap::new();
    walk(path, |name, member| {
        members.insert(name, member()?);
        Ok(())
    })?;
    Ok(members)
}

pub(super) fn open(path: &Path) -> Result<Box<dyn TensorFile>> {
    let mut file = NpzFile { path: path.to_path_buf(), tensors: Vec::new(), entries: Vec::new() };
    walk(path, |member, entry| {
        let Some(name) = member.strip_suffix(".npy") else { return Ok(()) };
        entry().and_then(|entry| file.add(name, entry)).map_err(|error| error.tensor(name))
    })?;
    Ok(Box::new(file))
}

/// Visits the name of every file in the zip archive `path`, and what finds the file itself.
///
/// # Errors
/// [`ErrorKind::Malformed`] for two files of one name, as readers disagree on which of them counts, and for another number of files than
/// the archive says; those of `visit`.
fn walk(path: &Path, mut visit: impl FnMut(String, &dyn Fn() -> Result<Member>) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(files::open(path)?, &mut buffer).map_err(malformed)?;
    let mut entries = archive.entries(&mut buffer);
    let (mut seen, mut found) = (BTreeSet::new(), 0);
    while let Some(zipped) = entries.next_entry().map_err(malformed)? {
        found += 1;
        let name = String::from_utf8_lossy(zipped.file_path().as_bytes()).into_owned();
        if !seen.insert(name.clone()) {
            return Err(Error::new(ErrorKind::Malformed, "twice in the archive")
                .tensor(name)
                .expected("each member once")
                .fix("write the file again"));
        }
        visit(name, &|| {
            let range = archive.get_entry(zipped.wayfinder()).map_err(malformed)?.compressed_data_range();
            Member::new(&zipped, range)
        })?;
    }
    match archive.entries_hint() {
        claimed if claimed == found => Ok(()),
        claimed => Err(Error::new(ErrorKind::Malformed, format!("{found} entries"))
            .expected(format!("{claimed} entries, as the archive says"))
            .fix("is the file complete?")),
    }
}

impl NpzFile {
    /// Takes in the member `name`.
    fn add(&mut self, name: &str, entry: Member) -> Result<()> {
        let mut input = entry.open(&self.path)?;
        let header = NpyHeader::read(&mut input)?;
        header.check_length(input.left)?;
        self.tensors.push(TensorInfo { name: name.to_owned(), ..header.tensor });
        self.entries.push(entry);
        Ok(())
    }
}

impl TensorFile for NpzFile {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        let place = self.place(tensor);
        let mut input = self.entries[place].open(&self.path)?;
        let header = NpyHeader::read(&mut input)?;
        let rows = header.rows_of_stream(Box::new(input)).map_err(|error| error.tensor(&tensor.name))?;
        Ok(if self.entries[place].deflated { rows.compressed() } else { rows })
    }
}

impl Member {
    fn new(zipped: &ZipFileHeaderRecord<'_>, (start, end): (u64, u64)) -> Result<Self> {
        let deflated = match zipped.compression_method() {
            CompressionMethod::STORE => false,
            CompressionMethod::DEFLATE => true,
            other => {
                return Err(Error::new(ErrorKind::Unsupported, format!("compression method {}", other.as_u16()))
                    .expected("stored or deflated entries, as numpy.savez and savez_compressed write"));
            }
        };
        if zipped.flags().is_encrypted() {
            return Err(Error::new(ErrorKind::Unsupported, "an encrypted entry"));
        }
        Ok(Self {
            start,
            compressed: end.saturating_sub(start),
            size: zipped.uncompressed_size_hint(),
            crc: zipped.crc32(),
            deflated,
        })
    }

    pub(super) fn is_deflated(&self) -> bool {
        self.deflated
    }

    pub(super) fn open(&self, path: &Path) -> Result<Checked> {
        let mut file = files::open(path)?;
        file.seek(SeekFrom::Start(self.start)).map_err(|error| Error::io(path, error))?;
        let raw = BufReader::with_capacity(BUFFER, file.take(self.compressed));
        let inner: Box<dyn Read + Send> =
            if self.deflated { Box::new(DeflateDecoder::new(raw)) } else { Box::new(raw) };
        Ok(Checked { inner, left: self.size, expected: self.crc, crc: flate2::Crc::new() })
    }
}

/// Verifies length and checksum once the last byte is read.
pub(super) struct Checked {
    inner: Box<dyn Read + Send>,
    left: u64,
    expected: u32,
    crc: flate2::Crc,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..wanted])?;
        self.crc.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 && read > 0 && self.crc.sum() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum does not match"));
        }
        Ok(read)
    }
}
