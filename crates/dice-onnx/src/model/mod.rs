//! The model file: opening it, and what identifies it.

pub(crate) mod describe;
pub(crate) mod element;
pub(crate) mod external;
mod find;
pub(crate) mod graph;
pub(crate) mod head;
pub(crate) mod linear;
pub(crate) mod node;
mod operations;
pub(crate) mod proto;
pub(crate) mod rounding;
pub(crate) mod sign;
mod softmax;
mod sum;
mod tail;
pub(crate) mod tensor;
mod trace;
mod weights;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};
use prost::Message;
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::model::external::External;
use crate::model::graph::Graph;
use crate::model::proto::{ModelProto, TensorProto, check_growth};
use crate::text::quoted;

/// An ONNX model file, read and checked: every tensor has one source and nothing depends on itself.
///
/// Weights stay views of the file's bytes until a head is read; those kept in other files stay there.
#[derive(Debug, Clone)]
pub struct Model {
    path: PathBuf,
    bytes: Bytes,
    proto: ModelProto,
    /// Operators, those of subgraphs and functions included.
    operators: usize,
    /// Once it was asked for: it takes all bytes of the model.
    fingerprint: OnceLock<String>,
}

impl Model {
    /// Opens a model.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be read, [`ErrorKind::Malformed`] where it is no ONNX model (another format, a
    /// Git-LFS pointer, a web page, truncated) or its graph is invalid, [`ErrorKind::Missing`] for a tensor that nothing makes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if kind.is_dir() {
            return Err(Error::io(path, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if !kind.is_file() {
            return Err(Error::new(ErrorKind::Unsupported, "a pipe or device")
                .file(path.display())
                .expected("a file")
                .fix("save the model first: its weights may lie in files beside it"));
        }
        let model = Self::from_bytes(files::read(path)?, path)?;
        // A runtime opens external data by itself. Names of files that do not exist are errors only for heads that need them.
        let places = model.tensors().filter_map(|tensor| External::of(tensor, model.folder()).ok());
        places.map(|place| place.path).try_for_each(|path| files::check_input(&path))?;
        Ok(model)
    }

    /// The model that `bytes` encode, as if they had been read from `path`: external data is looked for beside it.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(bytes.into(), path).map_err(|error| error.file(path.display()))
    }

    fn parse(bytes: Bytes, path: &Path) -> Result<Self> {
        refuse_other_formats(&bytes)?;
        let explained = |error: Error| {
            error
                .expected("an ONNX model")
                .fix("the file is truncated, damaged or of another format: fetch or export it again")
        };
        let damaged = |found: String| explained(Error::new(ErrorKind::Malformed, found));
        let operators = check_growth(&bytes).map_err(explained)?;
        let proto = ModelProto::decode(bytes.clone()).map_err(|error| damaged(error.to_string()))?;
        let model = Self { path: path.to_owned(), bytes, proto, operators, fingerprint: OnceLock::new() };
        let graph = model.proto.graph.as_ref().ok_or_else(|| damaged("no graph".into()))?;
        if graph.node.is_empty() || graph.output.is_empty() {
            return Err(damaged(format!(
                "a graph of {} operators and {} outputs",
                graph.node.len(),
                graph.output.len()
            )));
        }
        if model.proto.opset_import.is_empty() && model.proto.ir_version >= 3 {
            return Err(damaged("no operator set".into()));
        }
        model.graph()?;
        Ok(model)
    }

    pub(crate) fn graph(&self) -> Result<Graph<'_>> {
        let graph = self.proto.graph.as_ref().ok_or_else(|| Error::new(ErrorKind::Malformed, "no graph"))?;
        Graph::new(graph, self.folder())
    }

    /// A bound on the operators that one after the other depend on each other: the longest chain, and all in subgraphs.
    pub(crate) fn depth(&self) -> Result<usize> {
        let graph = self.graph()?;
        Ok(graph.depth() + self.operators.saturating_sub(graph.nodes.len()))
    }

    /// How many rows the table has that the input `name` looks up, where the graph says so.
    pub(crate) fn rows_looked_up(&self, name: &str) -> Option<i64> {
        let graph = self.graph().ok()?;
        let table = |place: &usize| {
            let node = &graph.nodes[*place];
            let looks_up = node.op_type == "Gather" && node.input.get(1).is_some_and(|indices| indices == name);
            graph.constant_shape(node.input.first().filter(|_| looks_up)?).ok()?.first().copied()
        };
        graph.consumers(name).iter().find_map(table).and_then(|rows| i64::try_from(rows).ok()).filter(|rows| *rows > 0)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Where the model was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The model's own notes (`metadata_props`), such as class names or preprocessing, as pairs of key and value.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.proto.metadata_props.iter().map(|entry| (&*entry.key, &*entry.value))
    }

    /// The SHA-256 of the model, in hexadecimal: of the file, followed by what it uses of other files.
    ///
    /// For a model in one file this is the file's own SHA-256.
    ///
    /// # Errors
    /// Those of reading external data, as in [`Model::find_head`].
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let hash = || {
            let mut hash = Sha256::new();
            hash.update(&self.bytes);
            for (path, ranges) in self.external_ranges()? {
                for (start, end) in ranges {
                    update_from_file(&mut hash, &path, start, end)?;
                }
            }
            Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
        };
        let fingerprint = hash().map_err(|error: Error| error.file(self.path.display()))?;
        Ok(self.fingerprint.get_or_init(|| fingerprint).clone())
    }

    /// What is used of each other file, as ranges that do not overlap: no byte is read twice, whatever tensors claim.
    fn external_ranges(&self) -> Result<BTreeMap<PathBuf, Vec<(u64, u64)>>> {
        let mut files: BTreeMap<PathBuf, Vec<(u64, u64)>> = BTreeMap::new();
        for tensor in self.tensors().filter(|tensor| tensor.is_external()) {
            let named = |error: Error| error.tensor(quoted(&tensor.name));
            let place = External::of(tensor, self.folder()).map_err(named)?;
            let end =
                place.length.map_or(Some(u64::MAX), |length| place.offset.checked_add(length)).unwrap_or(u64::MAX);
            files.entry(place.path).or_default().push((place.offset, end));
        }
        for ranges in files.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
            for (start, end) in ranges.drain(..) {
                match merged.last_mut() {
                    Some((_, last)) if start <= *last => *last = end.max(*last),
                    _ => merged.push((start, end)),
                }
            }
            *ranges = merged;
        }
        Ok(files)
    }

    /// All stored tensors: initializers and constants of nodes.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorProto> {
        let graph = self.proto.graph.iter();
        graph.flat_map(|graph| {
            let constants = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|one| one.t.as_deref());
            graph.initializer.iter().chain(constants)
        })
    }
}

fn update_from_file(hash: &mut Sha256, path: &Path, start: u64, end: u64) -> Result<()> {
    let mut file = files::open(path)?;
    let mut read = || {
        file.seek(SeekFrom::Start(start))?;
        let mut rest = (&file).take(end - start);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match rest.read(&mut buffer)? {
                0 => return Ok(()),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    read().map_err(|error| Error::io(path, error))
}

/// Says what a file is that is often found under the name of a model.
fn refuse_other_formats(bytes: &[u8]) -> Result<()> {
    let text = bytes.trim_ascii_start();
    let starts = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let (found, fix) = if bytes.is_empty() {
        ("an empty file", "the download or export failed: repeat it")
    } else if bytes.starts_with(b"version https://git-lfs") {
        ("a Git-LFS pointer", "the model itself was not fetched: run `git lfs pull`, or download the file")
    } else if starts(b"<!doctype") || starts(b"<html") || starts(b"<?xml") {
        ("a web page", "the page about the file was saved: download the file itself (on GitHub, the raw file)")
    } else if bytes.starts_with(b"PK\x03\x04") {
        ("a zip archive (a PyTorch checkpoint or a Keras model?)", "export the model to ONNX")
    } else if bytes.starts_with(b"\x89HDF") {
        ("an HDF5 file (a Keras model?)", "convert the model to ONNX, for instance by tf2onnx")
    } else if bytes.get(4..8) == Some(b"TFL3") {
        ("a TensorFlow Lite model", "convert the model to ONNX, for instance by tf2onnx")
    } else if bytes.starts_with(b"\x1f\x8b") {
        ("a gzip archive", "unpack it")
    } else if starts(b"{") || starts(b"[") {
        ("text", "give the model file")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Malformed, found).expected("an ONNX model").fix(fix))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says enough")]

    use super::*;
    use crate::model::head::HeadOptions;
    use crate::testing::{Builder, external, int};

    fn small() -> Builder {
        let builder = Builder::new().features().counting("w", &[2, 3]).counting("b", &[2]).output("y", &[0, 2]);
        builder.node("Gemm", &["h", "w", "b"], &["y"], &[int("transB", 1)])
    }

    /// All that a user may ask of a model.
    fn use_all(bytes: Vec<u8>) {
        if let Ok(model) = Model::from_bytes(bytes, Path::new("test.onnx")) {
            let _ = model.describe();
            let _ = model.fingerprint();
            let options = HeadOptions { head: Some("node_y".into()), features: Some("g".into()) };
            let _ = model.find_head(&options);
        }
    }

    #[test]
    fn no_truncation_panics() {
        let bytes = small().encode();
        for end in 0..bytes.len() {
            use_all(bytes[..end].to_vec());
        }
    }

    #[test]
    fn no_flipped_bit_panics() {
        let bytes = small().encode();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[place] ^= 1 << bit;
                use_all(bytes);
            }
        }
    }

    #[test]
    fn other_files_are_named() {
        let says = |bytes: &[u8], text: &str| {
            let error = Model::from_bytes(bytes.to_vec(), Path::new("test.onnx")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
            assert!(error.to_string().contains(text) && error.to_string().starts_with("test.onnx: "), "{error}");
        };
        says(b"", "empty file");
        says(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git-LFS pointer");
        says(b"\n<!DOCTYPE html><html></html>", "web page");
        says(b"PK\x03\x04rest", "zip archive");
        says(&[0x08, 0x08], "no graph");
        // A length of two gigabytes.
        says(&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x00], "expected an ONNX model");
        says(&[0xFF; 64], "expected an ONNX model");
    }

    #[test]
    fn empty_messages_do_not_fill_the_memory() {
        // A graph of half a million initializers of no bytes at all: a megabyte that would become hundreds.
        let mut bytes = vec![0x3A];
        prost::encoding::encode_varint(1 << 20, &mut bytes);
        bytes.extend([0x2A, 0x00].repeat(1 << 19));
        let error = Model::from_bytes(bytes, Path::new("test.onnx")).unwrap_err();
        assert!(error.kind() == ErrorKind::Malformed && error.to_string().contains("empty messages"), "{error}");
    }

    #[test]
    fn bodies_within_bodies_come_to_an_end() {
        // A subgraph in an attribute of a node of a subgraph in an attribute ...
        let mut graph: Vec<u8> = Vec::new();
        for _ in 0..20_000 {
            for tag in [6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2] {
                let mut whole = vec![tag];
                prost::encoding::encode_varint(graph.len() as u64, &mut whole);
                whole.append(&mut graph);
                graph = whole;
            }
        }
        let mut bytes = vec![7 << 3 | 2];
        prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
        bytes.append(&mut graph);
        let error = Model::from_bytes(bytes, Path::new("test.onnx")).unwrap_err();
        assert!(error.kind() == ErrorKind::Malformed && error.to_string().contains("deep"), "{error}");
    }

    #[test]
    fn invalid_graphs_are_refused() {
        let says = |builder: Builder, kind: ErrorKind, text: &str| {
            let error = builder.model().unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(text), "{error}");
        };
        let cycle =
            Builder::new().output("b", &[0]).node("Relu", &["b"], &["a"], &[]).node("Relu", &["a"], &["b"], &[]);
        says(cycle, ErrorKind::Malformed, "cycle");
        says(small().node("Relu", &["x"], &["y"], &[]), ErrorKind::Malformed, "two tensors");
        says(small().counting("w", &[1]), ErrorKind::Malformed, "two tensors");
        says(small().node("Relu", &["absent"], &["z"], &[]), ErrorKind::Missing, "`absent`");
        says(small().output("absent", &[]), ErrorKind::Missing, "`absent`");
        says(Builder::new(), ErrorKind::Malformed, "0 operators");
    }

    #[test]
    fn a_long_chain_is_no_deep_recursion() {
        let mut builder = small().node("Identity", &["w"], &["i0"], &[]);
        for place in 0..20_000 {
            builder = builder.node("Identity", &[&format!("i{place}")], &[&format!("i{}", place + 1)], &[]);
        }
        let builder = builder.node("MatMul", &["h", "i20000"], &["z"], &[]);
        let options = HeadOptions { head: Some("node_z".into()), features: None };
        let error = builder.model().unwrap().find_head(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let mut long = small().output("o20000", &[0, 2]).node("Identity", &["y"], &["o0"], &[]);
        for place in 0..20_000 {
            long = long.node("Identity", &[&format!("o{place}")], &[&format!("o{}", place + 1)], &[]);
        }
        assert_eq!(long.find().unwrap().output, "y");
    }

    #[test]
    fn external_data_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        let bytes: Vec<u8> = (0..8u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        std::fs::write(inner.join("weights.bin"), &bytes).unwrap();
        std::fs::write(folder.path().join("outside.bin"), &bytes).unwrap();
        let at = |location: &str, offset: u64| {
            let mut builder = Builder::new().features().output("y", &[0, 2]);
            builder.graph().initializer.push(external("w", &[2, 3], location, offset));
            builder = builder.node("Gemm", &["h", "w"], &["y"], &[int("transB", 1)]);
            let path = inner.join("model.onnx");
            std::fs::write(&path, builder.encode()).unwrap();
            Model::open(&path).unwrap()
        };
        let find = |location: &str, offset: u64| at(location, offset).find_head(&HeadOptions::default());
        let found = find("weights.bin", 8).unwrap();
        assert_eq!(found.head.weight().as_slice().unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let kind = |location: &str, offset| find(location, offset).unwrap_err().kind();
        assert_eq!(kind("weights.bin", 12), ErrorKind::Malformed);
        assert_eq!(kind("weights.bin", u64::MAX), ErrorKind::Malformed);
        assert_eq!(kind("absent.bin", 0), ErrorKind::Missing);
        assert_eq!(kind("../outside.bin", 0), ErrorKind::Unsupported);
        assert_eq!(kind(&folder.path().join("outside.bin").display().to_string(), 0), ErrorKind::Unsupported);
        assert_eq!(kind("", 0), ErrorKind::Malformed);
        assert_eq!(kind(".", 0), ErrorKind::Malformed);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../outside.bin", inner.join("link.bin")).unwrap();
            assert_eq!(kind("link.bin", 0), ErrorKind::Unsupported);
            std::os::unix::fs::symlink("weights.bin", inner.join("fine.bin")).unwrap();
            assert!(find("fine.bin", 0).is_ok());
        }
        // The fingerprint covers what is used of the weights.
        let before = at("weights.bin", 8).fingerprint().unwrap();
        std::fs::write(inner.join("weights.bin"), [&bytes[..28], &[0; 4]].concat()).unwrap();
        assert_ne!(at("weights.bin", 8).fingerprint().unwrap(), before);
    }

    #[test]
    fn one_file_has_the_fingerprint_of_sha256sum() {
        let expected: String = Sha256::digest(small().encode()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(small().model().unwrap().fingerprint().unwrap(), expected);
    }

    #[test]
    fn descriptions_say_what_matters() {
        let mut builder = small();
        builder
            .0
            .metadata_props
            .push(crate::model::proto::StringStringEntryProto { key: "names".into(), value: "cat\u{1b}[2J".into() });
        let text = builder.model().unwrap().describe();
        for part in [
            "producer `test",
            "opset 17",
            "NCHW (channels first), 4 x 4",
            "2 classes, 3 features",
            "never negative",
            "`names`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
