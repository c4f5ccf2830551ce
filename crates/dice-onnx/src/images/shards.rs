//! Tar shards of samples, as WebDataset makes them.
//!
//! Members are framed here, with headers parsed by the tar crate: its own reader collects long names into memory
//! without a limit, and takes an archive that ends between two members for a whole one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use dice_ood::{Error, ErrorKind, Result};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use tar::{EntryType, Header};

use super::decode::MOST_MEMORY;
use super::{Encoded, Entry, named_as_image};
use crate::quoted;

const BLOCK: usize = 512;
/// Longest name, or list of attributes, of a member.
const LONGEST_NAME: u64 = 1 << 16;
/// Largest `.cls` or `.json` that is looked at for a label.
const LARGEST_LABEL: u64 = 1 << 20;

/// The samples of a shard that have an image, in order.
pub(super) struct Samples {
    shard: PathBuf,
    input: Box<dyn Read + Send>,
    compressed: bool,
    /// Read, and not yet of a sample that was handed out.
    ahead: Option<Member>,
    over: bool,
}

/// A file of a sample.
struct Member {
    /// Its path up to the first dot of its name.
    key: String,
    /// What follows that dot, in lower case.
    extension: String,
    content: Content,
}

enum Content {
    Image(Vec<u8>),
    Label(Option<i64>),
    Other,
}

/// The first sample with an image.
pub(super) fn first(shard: &Path) -> Result<Option<Entry>> {
    Samples::open(shard)?.next().transpose()
}

impl Samples {
    pub(super) fn open(shard: &Path) -> Result<Self> {
        let located = |error: io::Error| Error::io(shard, error);
        let mut file = BufReader::with_capacity(1 << 16, File::open(shard).map_err(located)?);
        let compressed = file.fill_buf().map_err(located)?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn Read + Send> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { shard: shard.to_path_buf(), input, compressed, ahead: None, over: false })
    }

    fn sample(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some(first) = self.ahead.take().map_or_else(|| self.member(), |ahead| Ok(Some(ahead)))? else {
                return Ok(None);
            };
            let mut sample = Sample { key: first.key.clone(), ..Sample::default() };
            let mut next = Some(first);
            while let Some(member) = next {
                if member.key != sample.key {
                    self.ahead = Some(member);
                    break;
                }
                sample.add(member);
                next = self.member()?;
            }
            if let Some(entry) = sample.entry(&self.shard)? {
                return Ok(Some(entry));
            }
        }
    }

    /// The next member that is a file with a name.
    fn member(&mut self) -> Result<Option<Member>> {
        let mut long_name: Option<String> = None;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let short = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
            let name = long_name.clone().unwrap_or_else(short);
            let size = header.entry_size().map_err(|error| self.broken(&name, error.to_string()))?;
            match header.entry_type() {
                EntryType::GNULongName => {
                    let bytes = self.content(&name, size, LONGEST_NAME)?;
                    long_name = Some(String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).into_owned());
                }
                EntryType::XHeader => {
                    let bytes = self.content(&name, size, LONGEST_NAME)?;
                    long_name = self.attributes(&name, &bytes)?.or(long_name);
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => self.skip(&name, size)?,
                EntryType::Regular | EntryType::Continuous => {
                    long_name = None;
                    if let Some(member) = self.file(&name, size)? {
                        return Ok(Some(member));
                    }
                }
                EntryType::GNUSparse => {
                    return Err(Error::new(ErrorKind::Unsupported, "a sparse file")
                        .file(self.shard.display())
                        .tensor(quoted(&name))
                        .fix("write the shard without --sparse"));
                }
                // Folders and links.
                _ => {
                    long_name = None;
                    self.skip(&name, size)?;
                }
            }
        }
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = Vec::with_capacity(BLOCK);
        self.read(BLOCK as u64, &mut block, "the header of a member")?;
        if block.iter().all(|byte| *byte == 0) {
            self.end()?;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = (0..BLOCK)
            .map(|place| if (148..156).contains(&place) { u32::from(b' ') } else { u32::from(block[place]) })
            .sum();
        match header.cksum() {
            Ok(written) if written == sum => Ok(Some(header)),
            _ => Err(self.broken("the header of a member", "another checksum".into())),
        }
    }

    /// Past the end marker the checksum of a compressed file is still to come.
    fn end(&mut self) -> Result<()> {
        const PADDING: u64 = 1 << 20;
        if self.compressed {
            let rest = io::copy(&mut (&mut self.input).take(PADDING), &mut io::sink());
            rest.map_err(|error| self.failed("the end of the archive", &error))?;
        }
        Ok(())
    }

    /// The name that extended attributes give.
    fn attributes(&self, name: &str, bytes: &[u8]) -> Result<Option<String>> {
        let mut path = None;
        let mut rest = bytes;
        // Each is "LENGTH KEY=VALUE\n", where the length is that of all of this.
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let record = length.and_then(|length| rest.get(space + 1..length.checked_sub(1)?));
            let (Some(length), Some(record)) = (length, record) else {
                return Err(self.broken(name, "attributes of another form".into()));
            };
            let text = String::from_utf8_lossy(record);
            match text.split_once('=') {
                Some(("path", value)) => path = Some(value.to_owned()),
                Some(("size", _)) => return Err(self.too_large(name, "8 GiB or more".into())),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(path)
    }

    fn file(&mut self, name: &str, size: u64) -> Result<Option<Member>> {
        let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
        let Some((stem, extension)) = file.split_once('.').filter(|(stem, _)| !stem.is_empty()) else {
            self.skip(name, size)?;
            return Ok(None);
        };
        let key = match folder.trim_start_matches("./") {
            "" | "." => stem.to_owned(),
            folder => format!("{folder}/{stem}"),
        };
        let extension = extension.to_ascii_lowercase();
        let content = if named_as_image(extension.rsplit('.').next().unwrap_or_default()) {
            Content::Image(self.content(name, size, MOST_MEMORY)?)
        } else if matches!(extension.as_str(), "cls" | "json") && size <= LARGEST_LABEL {
            let bytes = self.content(name, size, LARGEST_LABEL)?;
            Content::Label(if extension == "cls" { written_label(&bytes) } else { label_in_json(&bytes) })
        } else {
            self.skip(name, size)?;
            Content::Other
        };
        Ok(Some(Member { key, extension, content }))
    }

    /// `size` bytes and what pads them; memory grows with what is there.
    fn content(&mut self, name: &str, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(self.too_large(name, format!("{size} bytes")));
        }
        let mut bytes = Vec::new();
        self.read(size, &mut bytes, name)?;
        self.pass(name, padding(size))?;
        Ok(bytes)
    }

    fn read(&mut self, size: u64, bytes: &mut Vec<u8>, name: &str) -> Result<()> {
        let read = (&mut self.input).take(size).read_to_end(bytes);
        match read {
            Ok(read) if read as u64 == size => Ok(()),
            Ok(_) => Err(self.broken(name, "the end of the data".into())),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Passes over `size` bytes of content and what pads them.
    fn skip(&mut self, name: &str, size: u64) -> Result<()> {
        self.pass(name, size.saturating_add(padding(size)))
    }

    fn pass(&mut self, name: &str, count: u64) -> Result<()> {
        match io::copy(&mut (&mut self.input).take(count), &mut io::sink()) {
            Ok(passed) if passed == count => Ok(()),
            Ok(_) => Err(self.broken(name, "the end of the data".into())),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn failed(&self, name: &str, error: &io::Error) -> Error {
        // What is no error of the operating system is one of decompression.
        match error.raw_os_error() {
            Some(_) => Error::new(ErrorKind::Io, error.to_string()).file(self.shard.display()).tensor(quoted(name)),
            None => self.broken(name, error.to_string()),
        }
    }

    fn broken(&self, name: &str, found: String) -> Error {
        Error::new(ErrorKind::Malformed, found)
            .file(self.shard.display())
            .tensor(quoted(name))
            .expected("a complete tar archive")
            .fix("the shard is truncated or corrupt: fetch or write it again")
    }

    fn too_large(&self, name: &str, found: String) -> Error {
        Error::new(ErrorKind::Unsupported, found)
            .file(self.shard.display())
            .tensor(quoted(name))
            .expected("an image of at most 512 MiB, a name of at most 64 KiB")
    }
}

impl Iterator for Samples {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let sample = self.sample().transpose();
        self.over = !matches!(sample, Some(Ok(_)));
        sample
    }
}

/// What files of one key say together.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<(String, Vec<u8>)>,
    /// Another image that could as well be meant.
    rival: Option<String>,
    written: Option<i64>,
    in_json: Option<i64>,
}

impl Sample {
    fn add(&mut self, member: Member) {
        match member.content {
            Content::Image(bytes) => {
                // `key.jpg` is the image where `key.mask.png` is there too.
                let plain = |extension: &str| !extension.contains('.');
                let held = self.image.as_ref().map(|(extension, _)| plain(extension));
                if held.is_none_or(|held| !held && plain(&member.extension)) {
                    self.image = Some((member.extension, bytes));
                    self.rival = None;
                } else if held == Some(plain(&member.extension)) {
                    self.rival = Some(member.extension);
                }
            }
            Content::Label(label) if member.extension == "cls" => self.written = label,
            Content::Label(label) => self.in_json = label,
            Content::Other => {}
        }
    }

    fn entry(self, shard: &Path) -> Result<Option<Entry>> {
        let Some((extension, bytes)) = self.image else { return Ok(None) };
        if let Some(rival) = self.rival {
            return Err(Error::new(ErrorKind::Ambiguous, format!("{extension} and {rival}"))
                .file(shard.display())
                .tensor(quoted(&self.key))
                .expected("one image in each sample"));
        }
        let id = format!("{}/{}.{extension}", shard.display(), self.key);
        Ok(Some(Entry { id, label: self.written.or(self.in_json), image: Encoded::Bytes(bytes) }))
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn written_label(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

fn label_in_json(bytes: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Labels {
        label: Option<serde_json::Value>,
        cls: Option<serde_json::Value>,
    }
    let labels: Labels = serde_json::from_slice(bytes).ok()?;
    labels.label.as_ref().and_then(serde_json::Value::as_i64).or_else(|| labels.cls?.as_i64())
}
