//! Tar shards of samples, as WebDataset makes them.
//!
//! Members are framed here, with headers parsed by the tar crate: its own reader collects long names into memory
//! without a limit, and takes an archive that ends between two members for a whole one.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use tar::{EntryType, Header};

use crate::images::decode::MOST_MEMORY;
use crate::images::entry::{Encoded, Entry};
use crate::images::places::named_as_image;
use crate::text::quoted;

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
    /// Whether the end marker was read.
    ended: bool,
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
        let mut file = BufReader::with_capacity(1 << 16, files::open(shard)?);
        let compressed = file.fill_buf().map_err(located)?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn Read + Send> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { shard: shard.to_path_buf(), input, compressed, ahead: None, ended: false, over: false })
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
                        .fix("write the shard without sparse files"));
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
        if self.ended {
            return Ok(None);
        }
        let mut block = Vec::with_capacity(BLOCK);
        self.read(BLOCK as u64, &mut block, "the header of a member")?;
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
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
        // Each record is "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.
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

    /// `size` bytes and their padding; memory grows with the bytes that are read, not with `size`.
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
        // An error without a code of the operating system is one of decompression.
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
            .expected("an image of at most 320 MiB, a name of at most 64 KiB")
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
                // Of `key.jpg` and `key.mask.png` the image is `key.jpg`.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;

    use super::*;
    use crate::images::set::ImageSet;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// A tar of files, without its end marker.
    fn members(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in files {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 2 * BLOCK);
        bytes
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        [members(files), vec![0; 2 * BLOCK]].concat()
    }

    /// A folder with the shard `x.tar`.
    fn shard(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    /// Name, label and bytes.
    type Found = (String, Option<i64>, Vec<u8>);

    fn samples(bytes: &[u8]) -> Result<Vec<Found>> {
        let (folder, path) = shard(bytes);
        let prefix = format!("{}/x.tar/", folder.path().display());
        Samples::open(&path)?
            .map(|entry| {
                let entry = entry?;
                let Encoded::Bytes(bytes) = entry.image else { panic!("bytes") };
                Ok((entry.id.strip_prefix(&prefix).unwrap().to_owned(), entry.label, bytes))
            })
            .collect()
    }

    #[test]
    fn files_of_one_name_are_a_sample() {
        let long = format!("{}/d.e.JPG", "long".repeat(60));
        let archive = archive(&[
            ("./a.png", b"A"),
            ("a.cls", b" 3\n"),
            ("a.txt", b"ignored"),
            ("README", b"no key"),
            (".hidden.png", b"no key either"),
            ("notes.md", b"no image"),
            ("sub.folder/b.json", br#"{"label": 4, "more": [1, {}]}"#),
            ("sub.folder/b.mask.png", b"mask"),
            ("sub.folder/b.jpeg", b"B"),
            ("c.webp", b"C"),
            ("c.json", br#"{"cls": -1}"#),
            ("c.cls", b"cat"),
            (&long, b"D"),
        ]);
        let found = samples(&archive).unwrap();
        let expected = [
            ("a.png".to_owned(), Some(3), b"A".to_vec()),
            ("sub.folder/b.jpeg".to_owned(), Some(4), b"B".to_vec()),
            ("c.webp".to_owned(), Some(-1), b"C".to_vec()),
            (long.replace(".JPG", ".jpg"), None, b"D".to_vec()),
        ];
        assert_eq!(found, expected);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&archive).unwrap();
        assert_eq!(samples(&packed.finish().unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_sample_of_two_images_is_ambiguous() {
        let error = samples(&archive(&[("a.png", b"A"), ("a.jpg", b"B")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous);
        assert!(
            error.to_string().contains("x.tar: `a`: expected one image in each sample, found png and jpg"),
            "{error}"
        );
    }

    #[test]
    fn shards_come_one_after_the_other_with_all_labels_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let first = archive(&[("a.png", b"A"), ("a.cls", b"0"), ("b.png", b"B"), ("b.cls", b"1")]);
        std::fs::write(folder.path().join("0.tar"), &first).unwrap();
        std::fs::write(folder.path().join("1.tar"), archive(&[("c.png", b"C"), ("c.cls", b"1")])).unwrap();
        let pattern = format!("{}/*.tar", folder.path().display());
        for input in [&pattern, &folder.path().display().to_string()] {
            let set = ImageSet::find(std::slice::from_ref(input)).unwrap();
            assert_eq!((set.labelled(), set.len_hint(), set.files().count()), (true, None, 2));
            let labels: Vec<_> = set.entries().map(|entry| entry.unwrap().label).collect();
            assert_eq!(labels, [Some(0), Some(1), Some(1)]);
        }
        std::fs::write(folder.path().join("1.tar"), archive(&[("c.png", b"C"), ("c.cls", b"1"), ("d.png", b"D")]))
            .unwrap();
        let set = ImageSet::find(std::slice::from_ref(&pattern)).unwrap();
        let error = set.entries().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("1.tar/d.png") && error.to_string().contains("no label"), "{error}");
        assert_eq!(set.unlabelled().entries().filter(Result::is_ok).count(), 4);
        std::fs::write(folder.path().join("1.tar"), archive(&[("c.png", b"C")])).unwrap();
        assert!(!ImageSet::find(&[pattern]).unwrap().labelled());
        std::fs::write(folder.path().join("2.tar"), archive(&[("c.txt", b"C")])).unwrap();
        let empty = ImageSet::find(&[folder.path().join("2.tar").display().to_string()]).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::Empty);
    }

    #[test]
    fn a_truncated_shard_is_an_error_wherever_it_ends() {
        let files: [(&str, &[u8]); 3] = [("a.png", &[7; 700]), ("a.cls", b"1"), ("b.png", &[8; 300])];
        let bytes = members(&files);
        for length in (0..=bytes.len()).step_by(100).chain([BLOCK, 3 * BLOCK, bytes.len()]) {
            let error = samples(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{length} bytes");
            assert!(error.to_string().contains("x.tar") && error.to_string().contains("truncated"), "{error}");
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&archive(&files)).unwrap();
        let packed = packed.finish().unwrap();
        for length in 1..packed.len() {
            assert_eq!(samples(&packed[..length]).unwrap_err().kind(), ErrorKind::Malformed, "{length} bytes, packed");
        }
    }

    #[test]
    fn claims_of_size_are_not_believed() {
        for (kind, name, size) in [
            // 8 GiB where there are none.
            (EntryType::Regular, "a.png", 8 << 30),
            (EntryType::Regular, "a.txt", 8 << 30),
            (EntryType::Regular, "a.png", u64::MAX),
            (EntryType::Regular, "a.bin", u64::MAX),
            (EntryType::Regular, "a.png", 400 << 20),
            (EntryType::GNULongName, "././@LongLink", 8 << 30),
            (EntryType::XHeader, "a", 1 << 30),
            (EntryType::XHeader, "a", 1 << 10),
            (EntryType::GNUSparse, "a.png", 1 << 10),
        ] {
            let mut header = Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            let error = samples(&[header.as_bytes(), &[b'x'; 600][..]].concat()).unwrap_err();
            let told = matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported);
            assert!(told && error.to_string().contains("x.tar"), "{size} bytes: {error}");
        }
    }

    #[test]
    fn no_flipped_bit_panics() {
        let whole = archive(&[("a.png", b"A"), (&format!("{}b.png", "long/".repeat(30)), b"B"), ("c.json", b"{}")]);
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            let _ = samples(&bytes);
        }
        for attributes in ["7 a=b", "99999999999999999999 path=x\n", "1 \n", "12 path=x.png\n", " x", "13 path=x.png\n"]
        {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(attributes.len() as u64);
            header.set_cksum();
            let mut block = attributes.as_bytes().to_vec();
            block.resize(BLOCK, 0);
            let _ = samples(&[header.as_bytes(), &block[..], &archive(&[("a.png", b"A")])].concat());
        }
    }
}
