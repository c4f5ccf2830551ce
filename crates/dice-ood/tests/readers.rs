//! Every reader: what it reads, and that it survives what it should not read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/npy.rs"]
mod npy;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[cfg(feature = "torch")]
use dice_ood::io::find_head;
use dice_ood::io::{Dataset, FeaturesWriter, Location, read_head, read_labels, read_metadata, read_vector};
use dice_ood::{Block, ErrorKind, Ids, LinearHead, Note, Result, for_each_block};
use half::{bf16, f16};

use npy::npy;

const ROWS: usize = 7;
const UNITS: usize = 3;

fn value(row: usize, unit: usize) -> f32 {
    row as f32 + unit as f32 / 4.0
}

fn values() -> Vec<f32> {
    (0..ROWS * UNITS).map(|place| value(place / UNITS, place % UNITS)).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn read(path: &Path) -> Result<Vec<f32>> {
    read_location(&path.to_string_lossy())
}

fn read_location(location: &str) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    let mut source = Dataset::new(&[location.to_owned()])?.open()?;
    assert!(source.units() > 0);
    for_each_block(&mut *source, |block| {
        all.extend(&block.features);
        Ok(())
    })?;
    Ok(all)
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn labels() -> Vec<u8> {
    (0..ROWS as i64).flat_map(|row| (row % 3).to_le_bytes()).collect()
}

/// A zip archive of npy files.
fn archive(entries: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in entries {
        let method = if deflated { rawzip::CompressionMethod::DEFLATE } else { rawzip::CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(*name).compression_method(method).start().unwrap();
        let descriptor = if deflated {
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            writer.write_all(bytes).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

fn npz(deflated: bool) -> Vec<u8> {
    let features = npy("<f4", false, "7, 3", &le(&values()));
    archive(&[("features.npy", features), ("labels.npy", npy("<i8", false, "7,", &labels()))], deflated)
}

fn safetensors(dtype: &str, data: &[u8]) -> Vec<u8> {
    let header = format!(
        r#"{{"features":{{"dtype":"{dtype}","shape":[7,3],"data_offsets":[0,{0}]}},"labels":{{"dtype":"I64","shape":[7],"data_offsets":[{0},{1}]}}}}"#,
        data.len(),
        data.len() + 56
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes.extend(labels());
    bytes
}

fn csv() -> Vec<u8> {
    let mut text = String::from("id,f0,f1,f2,label\n");
    for row in 0..ROWS {
        text += &format!("in-{row},{},{},{},{}\n", value(row, 0), value(row, 1), value(row, 2), row % 3);
    }
    text.into_bytes()
}

#[cfg(feature = "columns")]
mod columnar {
    use std::sync::Arc;

    use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, ListBuilder};
    use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};

    use super::{ROWS, UNITS, value};

    pub(super) fn batch(layout: &str) -> RecordBatch {
        let append =
            |values: &mut Float32Builder, row: usize| (0..UNITS).for_each(|unit| values.append_value(value(row, unit)));
        let mut columns: Vec<(String, ArrayRef)> = match layout {
            "list" => {
                let mut lists = ListBuilder::new(Float32Builder::new());
                for row in 0..ROWS {
                    append(lists.values(), row);
                    lists.append(true);
                }
                vec![("features".into(), Arc::new(lists.finish()))]
            }
            "fixed" => {
                let mut lists = FixedSizeListBuilder::new(Float32Builder::new(), UNITS as i32);
                for row in 0..ROWS {
                    append(lists.values(), row);
                    lists.append(true);
                }
                vec![("features".into(), Arc::new(lists.finish()))]
            }
            _ => (0..UNITS)
                .map(|unit| {
                    let column: Float32Array = (0..ROWS).map(|row| Some(value(row, unit))).collect();
                    (format!("f{unit}"), Arc::new(column) as ArrayRef)
                })
                .collect(),
        };
        columns.push(("label".into(), Arc::new((0..ROWS as i64).map(|row| Some(row % 3)).collect::<Int64Array>())));
        columns.push(("id".into(), Arc::new((0..ROWS).map(|row| Some(format!("in-{row}"))).collect::<StringArray>())));
        RecordBatch::try_from_iter(columns).unwrap()
    }

    pub(super) fn parquet(layout: &str) -> Vec<u8> {
        let batch = batch(layout);
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .build();
        let mut writer =
            parquet::arrow::arrow_writer::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    /// A column `label` of zeros, so many times as many rows.
    pub(super) fn zeros(times: usize, rows: usize) -> Vec<u8> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        let batch = RecordBatch::try_from_iter([("label", column)]).unwrap();
        let mut writer = parquet::arrow::arrow_writer::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        (0..times).for_each(|_| writer.write(&batch).unwrap());
        writer.into_inner().unwrap()
    }

    pub(super) fn arrow(layout: &str, stream: bool, compression: Option<arrow_ipc::CompressionType>) -> Vec<u8> {
        let batch = batch(layout);
        let options = arrow_ipc::writer::IpcWriteOptions::default().try_with_compression(compression).unwrap();
        if stream {
            let mut writer =
                arrow_ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        } else {
            let mut writer =
                arrow_ipc::writer::FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        }
    }
}

/// Every format in its variants, all holding the same features.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let values = values();
    let doubles: Vec<u8> = values.iter().flat_map(|value| f64::from(*value).to_be_bytes()).collect();
    let halves: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    let brains: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    let columns: Vec<f32> = (0..ROWS * UNITS).map(|place| value(place % ROWS, place / ROWS)).collect();
    #[allow(unused_mut, reason = "more formats follow where their features are on")]
    let mut corpus = vec![
        ("c.npy", npy("<f4", false, "7, 3", &le(&values))),
        ("fortran.npy", npy("<f4", true, "7, 3", &le(&columns))),
        ("half.npy", npy("<f2", false, "7, 3", &halves)),
        ("big-double.npy", npy(">f8", false, "7, 3", &doubles)),
        ("squeezed.npy", npy("<f4", false, "7, 3, 1, 1", &le(&values))),
        ("stored.npz", npz(false)),
        ("deflated.npz", npz(true)),
        ("f32.safetensors", safetensors("F32", &le(&values))),
        ("bf16.safetensors", safetensors("BF16", &brains)),
        ("f16.safetensors", safetensors("F16", &halves)),
        ("columns.csv", csv()),
    ];
    #[cfg(feature = "columns")]
    {
        use arrow_ipc::CompressionType;
        corpus.push(("list.parquet", columnar::parquet("list")));
        corpus.push(("fixed.parquet", columnar::parquet("fixed")));
        corpus.push(("wide.parquet", columnar::parquet("wide")));
        corpus.push(("list.arrow", columnar::arrow("list", false, None)));
        corpus.push(("fixed.feather", columnar::arrow("fixed", false, Some(CompressionType::LZ4_FRAME))));
        corpus.push(("wide.arrows", columnar::arrow("wide", true, Some(CompressionType::ZSTD))));
    }
    corpus
}

#[test]
fn every_format_holds_the_same_features() {
    let folder = Folder::new();
    for (name, bytes) in corpus() {
        let path = folder.write(name, &bytes);
        assert_eq!(read(&path).unwrap(), values(), "{name}");
        // The content decides where the name does not.
        let unnamed = folder.write("unnamed", &bytes);
        if !name.ends_with(".csv") {
            assert_eq!(read(&unnamed).unwrap(), values(), "{name} without its extension");
        }
    }
}

/// Extensions only break ties: whatever a file is called, it is read as what it is.
#[test]
fn the_content_decides_whatever_the_name_says() {
    const NAMES: [&str; 9] =
        ["x.npy", "x.npz", "x.safetensors", "x.csv", "x.parquet", "x.arrow", "x.pth", "x.pth.tar", "x.7z"];
    let folder = Folder::new();
    for (name, bytes) in corpus().into_iter().filter(|(name, _)| !name.ends_with(".csv")) {
        for other in NAMES {
            assert_eq!(read(&folder.write(other, &bytes)).unwrap(), values(), "{name} called {other}");
        }
    }
    // Text is the weakest evidence: what claims to be a binary format is told what is wrong with it.
    assert_eq!(read(&folder.write("x.txt", &csv())).unwrap(), values());
    assert!(read(&folder.write("x.npy", &csv())).unwrap_err().to_string().contains("npy signature"));
    let message = |bytes: &[u8]| read(&folder.write("x.npy", bytes)).unwrap_err().to_string();
    assert!(message(b"\x1f\x8b\x08\0rest").contains("decompress it first"));
    assert!(message(b"\x89HDF\r\n\x1a\nrest").contains("HDF5"));
    let neither = archive(&[("[Content_Types].xml", b"<Types/>".to_vec())], true);
    assert!(message(&neither).contains("zip archive without"), "{}", message(&neither));
}

/// Whatever is in the archive, whatever the file is called, and whichever of the two members the data are in.
#[test]
fn a_member_twice_in_an_archive_is_refused() {
    let folder = Folder::new();
    let features = || ("features.npy", npy("<f4", false, "7, 3", &le(&values())));
    let weights = ("m/data/weights/weight_0", le(&values()));
    let description = ("m/data/weights/model_weights_config.json", br#"{"config": {}}"#.to_vec());
    let checkpoint = [("t/data.pkl", b"\x80\x02}.".to_vec()), ("t/data/0", le(&values())), ("t/data/0", le(&values()))];
    for (entries, name) in [
        (vec![features(), features()], "features.npy"),
        (vec![features(), ("notes.txt", Vec::new()), ("notes.txt", Vec::new())], "notes.txt"),
        (vec![description.clone(), weights.clone(), weights.clone()], "m/data/weights/weight_0"),
        (vec![description.clone(), description, weights], "model_weights_config.json"),
        (checkpoint.to_vec(), "t/data/0"),
    ] {
        let names = ["twice.npz", "twice.pt2", "twice", "twice.pth"];
        for called in &names[..if cfg!(feature = "torch") { 4 } else { 3 }] {
            for deflated in [false, true] {
                let path = folder.write(called, &archive(&entries, deflated));
                let error = read(&path).unwrap_err();
                let message = error.to_string();
                assert!(error.kind() == ErrorKind::Malformed && message.contains("twice in the archive"), "{error}");
                assert!(message.contains(name) && message.contains(called), "{error}");
                let error = read_head(Location::parse(&path.to_string_lossy()), None).unwrap_err();
                assert!(error.to_string().contains("twice in the archive"), "{error}");
            }
        }
    }
}

#[test]
fn features_of_more_axes_are_squeezed_or_said_to_want_pooling() {
    let folder = Folder::new();
    let shaped =
        |shape: &str, count: usize| read(&folder.write("x.npy", &npy("<f4", false, shape, &le(&vec![1.5; count]))));
    for (shape, rows) in [("7, 3, 1, 1", 7), ("7, 1, 1, 3", 7), ("7, 1, 3", 7)] {
        assert_eq!(shaped(shape, rows * 3).unwrap().len(), rows * 3, "{shape}");
    }
    for (shape, axes) in [("2, 3, 4, 4", "axis=(2, 3)"), ("2, 4, 4, 3", "axis=(1, 2)")] {
        let message = shaped(shape, 96).unwrap_err().to_string();
        assert!(message.contains("average-pool") && message.contains(axes), "{message}");
    }
    assert!(shaped("2, 5, 3", 30).unwrap_err().to_string().contains("token"));
}

#[test]
fn labels_and_ids_come_along_in_any_block_size() {
    let folder = Folder::new();
    for (name, bytes) in corpus() {
        let path = folder.write(name, &bytes);
        let has_ids = !name.contains("npy") && !name.contains("npz") && !name.contains("safetensors");
        for size in [1, 2, 100] {
            let mut source = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap().open().unwrap();
            let mut block = Block::default();
            let (mut labels, mut ids, mut features) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                source.read(&mut block, size).unwrap();
                if block.rows() == 0 {
                    break;
                }
                features.extend_from_slice(&block.features);
                ids.extend((0..block.rows()).map(|row| block.id(row).to_string()));
                labels.extend(block.labels.clone().unwrap_or_default());
            }
            assert_eq!(features, values(), "{name}");
            let prefix = if has_ids { "in-" } else { "" };
            assert_eq!(ids, (0..ROWS).map(|row| format!("{prefix}{row}")).collect::<Vec<_>>(), "{name}");
            if !name.ends_with("npy") {
                assert_eq!(labels, (0..ROWS as i64).map(|row| row % 3).collect::<Vec<_>>(), "{name}");
            }
        }
    }
}

/// A truncated file is an error, at every length; the one exception is text that happens to end with a whole line, or
/// an Arrow stream (not file) that ends between messages.
#[test]
fn truncated_files_are_errors() {
    let folder = Folder::new();
    for (name, bytes) in corpus() {
        for length in 0..bytes.len() {
            let path = folder.write(name, &bytes[..length]);
            match read(&path) {
                Err(error) => assert!(error.to_string().contains(name), "{name} at {length}: {error}"),
                Ok(read) => assert!(
                    (name.ends_with(".csv") || name.ends_with(".arrows"))
                        && values().starts_with(&read[..read.len().min(1)])
                        || length == bytes.len() - 1 && name.ends_with(".csv"),
                    "{name} cut at {length} of {} was read",
                    bytes.len()
                ),
            }
        }
    }
}

/// A flipped bit is an error or other numbers, never a panic; what decoders of other crates do is caught in the reader.
#[test]
fn flipped_bits_never_panic() {
    std::panic::set_hook(Box::new(|_| {}));
    let folder = Folder::new();
    for (name, bytes) in corpus() {
        for place in 0..bytes.len() {
            for bit in [0, 3, 7] {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                let path = folder.write(name, &flipped);
                let _ = read(&path);
            }
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn flipped_bits_in_archives_are_noticed() {
    let folder = Folder::new();
    let bytes = npz(false);
    // The last value of the first array.
    let needle = 6.5f32.to_le_bytes();
    let place = bytes.windows(4).position(|window| window == needle).unwrap();
    let mut flipped = bytes;
    flipped[place] ^= 1;
    let error = read(&folder.write("flipped.npz", &flipped)).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn claims_are_not_believed() {
    let folder = Folder::new();
    let huge = 1u64 << 60;
    for shape in [format!("{huge}, 3"), format!("7, {huge}"), format!("{huge}, {huge}"), format!("{}, 2", u64::MAX)] {
        let path = folder.write("huge.npy", &npy("<f4", false, &shape, &le(&values())));
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::Malformed, "{shape}");
    }
    // Zero rows claim no bytes, whatever their width.
    let path = folder.write("none.npy", &npy("<f4", false, &format!("0, {huge}"), &[]));
    assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::Shape);
    let path = folder.write("none.npy", &npy("<f4", false, &format!("0, {}", 1 << 22), &[]));
    let mut source = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap().open().unwrap();
    let gathered = dice_ood::Statistics::gather(&mut *source, None, &dice_ood::Needs::marginals());
    assert_eq!(gathered.unwrap_err().kind(), ErrorKind::Empty);
    let mut header_claim = huge.to_le_bytes().to_vec();
    header_claim.extend(b"{}");
    assert_eq!(read(&folder.write("claim.safetensors", &header_claim)).unwrap_err().kind(), ErrorKind::Malformed);
    let claim = npy("<f4", false, &format!("7, {}", 1u64 << 40), &le(&values()));
    let zipped = archive(&[("features.npy", claim)], false);
    assert_eq!(read(&folder.write("claim.npz", &zipped)).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn data_longer_than_the_header_says_are_refused() {
    let folder = Folder::new();
    let mut longer = npy("<f4", false, "5, 3", &le(&values()));
    assert_eq!(read(&folder.write("longer.npy", &longer)).unwrap_err().kind(), ErrorKind::Malformed);
    let zipped = archive(&[("features.npy", longer.clone())], true);
    assert_eq!(read(&folder.write("longer.npz", &zipped)).unwrap_err().kind(), ErrorKind::Malformed);
    longer.truncate(longer.len() - 2 * 12);
    assert_eq!(read(&folder.write("right.npy", &longer)).unwrap().len(), 15);
    // A column-major claim that only a temporary copy can check.
    let claim = npy("<f4", true, &format!("1, {}", 1u64 << 40), &le(&values()));
    let zipped = archive(&[("features.npy", claim)], true);
    assert_eq!(read(&folder.write("claim.npz", &zipped)).unwrap_err().kind(), ErrorKind::Malformed);
}

#[cfg(feature = "columns")]
#[test]
fn a_second_schema_is_refused() {
    let stream = |layout: &str| {
        let batch = columnar::batch(layout);
        let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        // Without the end marker, eight bytes.
        let bytes = writer.into_inner().unwrap();
        bytes[..bytes.len() - 8].to_vec()
    };
    let folder = Folder::new();
    let path = folder.write("two.arrows", &[stream("wide"), stream("list")].concat());
    assert!(read(&path).unwrap_err().to_string().contains("a second schema"));
}

#[test]
fn the_first_line_of_a_csv_is_a_header_or_data_but_never_lost() {
    let folder = Folder::new();
    let rows = |text: &str| read(&folder.write("x.csv", text.as_bytes()));
    assert_eq!(rows("1,2\n3,4\n").unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(rows("a,b\n3,4\n").unwrap(), [3.0, 4.0]);
    assert_eq!(rows("0,1\n3.0,4\n").unwrap(), [3.0, 4.0], "pandas counts its columns");
    assert_eq!(rows(",0,1\n0,3,4\n").unwrap(), [3.0, 4.0], "and has an index without a name");
    assert_eq!(rows("0,1,label\n3,4,0\n").unwrap(), [3.0, 4.0]);
    assert_eq!(rows("0.0,1.0\n3,4\n").unwrap(), [0.0, 1.0, 3.0, 4.0]);
    assert_eq!(rows("0,2\n3,4\n").unwrap(), [0.0, 2.0, 3.0, 4.0]);
    for either in ["0,1\n3,4\n", "0,1,2\n", "0,1\n"] {
        let error = rows(either).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous, "{either}: {error}");
    }
    let column =
        |text: &str| read_vector(Location::parse(&folder.write("y.csv", text.as_bytes()).to_string_lossy()), &[]);
    assert_eq!(column("0\n3\n1\n").unwrap(), [0.0, 3.0, 1.0]);
    assert_eq!(column("score\n0\n1.5\n").unwrap(), [0.0, 1.5]);
    assert_eq!(column(",score\n0,0.5\n1,1.5\n").unwrap(), [0.5, 1.5], "beside the index of pandas");
    assert_eq!(column("0\n0.5\n1.5\n").unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(rows("id,0,1\nx,3,4\n").unwrap(), [3.0, 4.0]);
    assert_eq!(rows("a;b\n3;4\n").unwrap(), [3.0, 4.0]);
    assert_eq!(rows("\u{feff}a\tb\r\n3\t4\r\n").unwrap(), [3.0, 4.0]);
    for odd in ["n/a,2\n3,4\n", ",2\n3,4\n", "x1,1.5,2.5\nx2,3,4\n"] {
        let message = rows(odd).unwrap_err().to_string();
        assert!(message.contains("beside numbers at line 1"), "{message}");
    }
}

#[cfg(feature = "columns")]
#[test]
fn empty_record_batches_hide_nothing() {
    let folder = Folder::new();
    for layout in ["list", "fixed", "wide"] {
        let batch = columnar::batch(layout);
        let (start, none, end) = (batch.slice(0, 4), batch.slice(0, 0), batch.slice(4, 3));
        for order in [vec![&start, &none, &end], vec![&none, &start, &end], vec![&none, &start, &none, &end, &none]] {
            let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
            order.iter().for_each(|batch| writer.write(batch).unwrap());
            let path = folder.write("batches.arrows", &writer.into_inner().unwrap());
            assert_eq!(read(&path).unwrap(), values(), "{layout}");
        }
    }
}

#[test]
fn wrong_files_say_what_was_expected() {
    let folder = Folder::new();
    let message = |name: &str, bytes: &[u8]| read(&folder.write(name, bytes)).unwrap_err().to_string();
    assert!(message("vector.npy", &npy("<f4", false, "3, 3, 3", &le(&[0.0; 27]))).contains("expected [N, D]"));
    assert!(message("text.npy", &npy("<U8", false, "7, 3", &[0; 700])).contains("element type"));
    assert!(message("empty.csv", b"").contains("empty file"));
    assert!(message("ragged.csv", b"1,2\n3\n").contains("1 fields at line 2"));
    assert!(message("words.csv", b"a,b\n1,2\n3,x\n").contains("`x` at line 3"));
    assert!(message("noise", &[0xC3; 100]).contains("expected npy, npz, safetensors"));
    assert!(message("labels.safetensors", &safetensors("F32", &le(&values()[3..]))).contains("header"));
    let several = {
        let header = r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend([0u8; 16]);
        folder.write("several.safetensors", &bytes)
    };
    let error = read(&several).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ambiguous);
    assert!(error.to_string().contains("`a` f32 [1, 2], `b` f32 [1, 2]"), "{error}");
    assert_eq!(read_location(&format!("{}#b", several.display())).unwrap(), [0.0, 0.0]);
    assert_eq!(read_location(&format!("{}#c", several.display())).unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(read(Path::new("no-such-file.npy")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(
        read_location(&format!("{}/*.parquet", folder.0.path().display())).unwrap_err().kind(),
        ErrorKind::Missing
    );
}

#[test]
fn several_files_and_separate_labels() {
    let folder = Folder::new();
    folder.write("part-1.npy", &npy("<f4", false, "7, 3", &le(&values())));
    folder.write("part-2.npy", &npy("<f4", false, "7, 3", &le(&values())));
    let both = [values(), values()].concat();
    assert_eq!(read_location(&format!("{}/part-*.npy", folder.0.path().display())).unwrap(), both);
    assert_eq!(read(folder.0.path()).unwrap(), both);
    let labels: Vec<u8> = (0..14u8).collect();
    let file = folder.write("labels.npy", &npy("|u1", false, "14,", &labels));
    let parts = [format!("{}/part-*.npy", folder.0.path().display())];
    let labelled = |file: &Path| -> Result<Vec<i64>> {
        let mut all = Vec::new();
        let data = Dataset::new(&parts)?.with_labels(&file.to_string_lossy())?;
        for_each_block(&mut *data.open()?, |block| {
            all.extend(block.labels.as_deref().unwrap_or_default());
            Ok(())
        })?;
        Ok(all)
    };
    assert_eq!(labelled(&file).unwrap(), (0..14).collect::<Vec<i64>>());
    for count in [13u8, 15] {
        let labels: Vec<u8> = (0..count).collect();
        let file = folder.write("wrong.npy", &npy("|u1", false, &format!("{count},"), &labels));
        assert_eq!(labelled(&file).unwrap_err().kind(), ErrorKind::Shape);
    }
    let fractions = folder.write("fractions.npy", &npy("<f4", false, "2,", &le(&[1.0, 1.5])));
    assert_eq!(read_labels(Location::parse(&fractions.to_string_lossy())).unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(read_vector(Location::parse(&fractions.to_string_lossy()), &[]).unwrap(), [1.0, 1.5]);
    folder.write("part-3.npy", &npy("<f4", false, "1, 2", &le(&[0.0; 2])));
    assert_eq!(read_location(&parts[0]).unwrap_err().kind(), ErrorKind::Shape);
}

#[cfg(feature = "torch")]
#[test]
fn checkpoints_are_read_without_executing_them() {
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    for name in ["head_zip.pth", "head_legacy.pth", "head_strided.pt"] {
        let head = read_head(Location::parse(&golden(name).to_string_lossy()), None).unwrap();
        assert_eq!(
            head.weight().iter().copied().collect::<Vec<_>>(),
            (0..12).map(|i| i as f32).collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(head.bias().to_vec(), [0.5, 1.5, 2.5, 3.5], "{name}");
    }
    // Known by its content under any name.
    let folder = Folder::new();
    for name in ["head_zip.pth", "head_legacy.pth"] {
        let bytes = fs::read(golden(name)).unwrap();
        for other in ["checkpoint_100.pth.tar", "head.npz", "head.safetensors", "head", "head.csv"] {
            let path = folder.write(other, &bytes);
            let found = find_head(Location::parse(&path.to_string_lossy()), Some(3)).unwrap();
            assert_eq!(found.bias.as_ref().map(|bias| bias.shape.clone()), Some(vec![4]), "{name} called {other}");
        }
    }
    // As `torch.save(tensor, FILE)` writes it.
    let pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\
        K\x15tQK\0K\x07K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR.";
    let members = [("t/data.pkl", pickle.to_vec()), ("t/data/0", le(&values())), ("t/version", b"3\n".to_vec())];
    let message = read(&folder.write("features.pt", &archive(&members, false))).unwrap_err().to_string();
    assert!(message.contains("a tensor alone") && message.contains("numpy.save"), "{message}");
    // Its tensors may be read or refused, but its command must not run.
    let _ = read_head(Location::parse(&golden("malicious.pt").to_string_lossy()), None);
    assert!(!Path::new("dice-ood-was-fooled").exists());

    std::panic::set_hook(Box::new(|_| {}));
    for name in ["head_zip.pth", "head_legacy.pth"] {
        let bytes = fs::read(golden(name)).unwrap();
        for place in 0..bytes.len() {
            let cut = folder.write("cut.pth", &bytes[..place]);
            assert!(read_head(Location::parse(&cut.to_string_lossy()), None).is_err(), "{name} cut at {place}");
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x10;
            let path = folder.write("flipped.pth", &flipped);
            let _ = read_head(Location::parse(&path.to_string_lossy()), None);
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn heads_from_safetensors_and_npz() {
    let folder = Folder::new();
    let weight = npy("<f4", true, "2, 3", &le(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    let path =
        folder.write("head.npz", &archive(&[("W.npy", weight), ("b.npy", npy("<f8", false, "2,", &[0; 16]))], true));
    let head = read_head(Location::parse(&path.to_string_lossy()), None).unwrap();
    assert_eq!(head.weight().row(1).to_vec(), [3.0, 4.0, 5.0]);
    assert_eq!(head.bias().to_vec(), [0.0, 0.0]);
    let kernel = npy("<f4", false, "2, 3", &le(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let entries = [("kernel.npy", kernel), ("offset.npy", npy("<f4", false, "2,", &le(&[7.0, 8.0])))];
    let path = folder.write("odd.npz", &archive(&entries, false)).to_string_lossy().into_owned();
    assert_eq!(read_head(Location::parse(&path), None).unwrap_err().kind(), ErrorKind::Missing);
    let named = read_head(Location::parse(&format!("{path}#kernel,offset")), None).unwrap();
    assert_eq!(named.bias().to_vec(), [7.0, 8.0]);
}

#[test]
fn features_written_in_blocks_come_back_with_labels_names_head_and_notes() {
    let folder = Folder::new();
    let path = folder.0.path().join("features.safetensors");
    let head = LinearHead::from_rows(vec![1.0, -2.0, 0.5, 0.25, 0.0, 3.0], vec![0.5, -0.5], UNITS).unwrap();
    let mut writer = FeaturesWriter::create(&path, UNITS).unwrap();
    let block = |rows: std::ops::Range<usize>| Block {
        features: values()[rows.start * UNITS..rows.end * UNITS].to_vec(),
        units: UNITS,
        labels: Some(rows.clone().map(|row| row as i64 - 2).collect()),
        ids: Some(Ids::Text(rows.map(|row| format!("a folder/ñ,{row}\n.png")).collect())),
        ..Block::default()
    };
    writer.write(&block(0..3)).unwrap();
    writer.write(&block(3..ROWS)).unwrap();
    let wrong = Block { units: 2, ..Block::default() };
    assert_eq!(writer.write(&wrong).unwrap_err().kind(), ErrorKind::Shape);
    let mut infinite = block(0..1);
    infinite.features[1] = f32::INFINITY;
    let error = writer.write(&infinite).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFinite && error.to_string().contains("column 1"), "{error}");
    assert!(!path.exists());
    writer.finish(Some(&head), [("model".to_owned(), "m.onnx".to_owned())].into()).unwrap();

    let location = path.to_string_lossy().into_owned();
    let mut source = Dataset::new(std::slice::from_ref(&location)).unwrap().open().unwrap();
    let (mut features, mut block) = (Vec::new(), Block::default());
    let (mut labels, mut ids) = (Vec::new(), Vec::new());
    while {
        source.read(&mut block, 2).unwrap();
        block.rows() > 0
    } {
        features.extend_from_slice(&block.features);
        labels.extend(block.labels.clone().unwrap());
        ids.extend((0..block.rows()).map(|row| block.id(row).to_string()));
    }
    assert_eq!(features, values());
    assert_eq!(labels, (-2..ROWS as i64 - 2).collect::<Vec<_>>());
    assert_eq!(ids, (0..ROWS).map(|row| format!("a folder/ñ,{row}\\n.png")).collect::<Vec<_>>());
    assert_eq!(read_head(Location::parse(&location), Some(UNITS)).unwrap(), head);
    assert_eq!(read_metadata(Location::parse(&location)).unwrap()["model"], "m.onnx");
    assert_eq!(folder.0.path().read_dir().unwrap().count(), 1, "no temporary files are left");

    // Names that end early, or are no text, are an error and not another row's.
    let whole = fs::read(&path).unwrap();
    let last_line = whole.len() - 1;
    for damage in [b'x', 0xFF] {
        let mut damaged = whole.clone();
        damaged[last_line] = damage;
        let error = read(&folder.write("damaged.safetensors", &damaged)).unwrap_err();
        assert!(error.to_string().contains("ids"), "{error}");
    }
}

/// Numbers that name inputs stay numbers, in every tensor file that can hold them.
#[test]
fn ids_of_whole_numbers_come_back_as_they_were() {
    let folder = Folder::new();
    let whole: Vec<i64> = (0..ROWS as i64).map(|row| row - 3 + (1 << 40)).collect();
    let large: Vec<u64> = (0..ROWS as u64).map(|row| u64::MAX - row).collect();
    let bytes = |ids: &Ids| match ids {
        Ids::Integer(all) => all.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>(),
        Ids::Unsigned(all) => all.iter().flat_map(|id| id.to_le_bytes()).collect(),
        Ids::Text(_) => Vec::new(),
    };
    for (ids, dtype) in [(Ids::Integer(whole), "<i8"), (Ids::Unsigned(large), "<u8")] {
        let features = npy("<f4", false, "7, 3", &le(&values()));
        let beside = |name: &str, count: usize| {
            let names = npy(dtype, false, &format!("{count},"), &bytes(&ids)[..count * 8]);
            folder.write("x.npz", &archive(&[("features.npy", features.clone()), (name, names)], true))
        };
        let written = folder.0.path().join("x.safetensors");
        let mut writer = FeaturesWriter::create(&written, UNITS).unwrap();
        let block = Block { features: values(), units: UNITS, ids: Some(ids.clone()), ..Block::default() };
        writer.write(&block).unwrap();
        writer.finish(None, std::collections::BTreeMap::new()).unwrap();
        for path in [written, beside("ids.npy", ROWS), beside("user_id.npy", ROWS)] {
            let mut source = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap().open().unwrap();
            let mut block = Block::default();
            source.read(&mut block, 100).unwrap();
            assert_eq!((block.ids.as_ref(), block.rows()), (Some(&ids), ROWS));
        }
        assert_eq!(read(&beside("ids.npy", ROWS - 1)).unwrap_err().kind(), ErrorKind::Shape);
    }
    // Text in numpy's own encoding is not read, which is said.
    let features = npy("<f4", false, "7, 3", &le(&values()));
    let text = npy("<U2", false, "7,", &[0; 56]);
    let path = folder.write("x.npz", &archive(&[("features.npy", features), ("ids.npy", text)], true));
    let source = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap().open().unwrap();
    assert_eq!(source.layout().notes, [Note::UnreadIds("ids".into())]);
}

/// `[D]` is one input where D is known, and asked about where it is not.
#[test]
fn one_vector_is_one_row_where_its_length_is_expected() {
    let folder = Folder::new();
    let path = folder.write("one.npy", &npy("<f4", false, "3,", &le(&[1.0, 2.0, 3.0]))).to_string_lossy().into_owned();
    let data = || Dataset::new(std::slice::from_ref(&path)).unwrap();
    let mut block = Block::default();
    let mut source = data().with_units(3, &[]).open().unwrap();
    source.read(&mut block, 10).unwrap();
    assert_eq!((block.rows(), &block.features[..]), (1, &[1.0, 2.0, 3.0][..]));
    data().with_units(1, &[]).open().unwrap().read(&mut block, 10).unwrap();
    assert_eq!(block.rows(), 3);
    for asked in [data(), data().with_units(4, &[])] {
        let error = asked.open().map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Shape && error.to_string().contains("[1, D]"), "{error}");
    }
}

#[test]
fn labels_of_some_rows_only_are_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("features.safetensors");
    let mut writer = FeaturesWriter::create(&path, 1).unwrap();
    let block = |labels: Option<Vec<i64>>| Block { features: vec![1.0], units: 1, labels, ..Block::default() };
    writer.write(&block(Some(vec![3]))).unwrap();
    writer.write(&block(None)).unwrap();
    let error = writer.finish(None, std::collections::BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("labels") && !path.exists(), "{error}");
}

/// An npy file of zeros of one byte each, of which few bytes are many once deflated.
fn zeros(shape: &str, count: usize) -> Vec<u8> {
    npy("|u1", false, shape, &vec![0; count])
}

#[test]
fn rows_wider_than_any_head_are_refused_before_they_are_read() {
    let folder = Folder::new();
    let wide = (1 << 22) + 1;
    let header =
        |size: usize| format!(r#"{{"features":{{"dtype":"U8","shape":[1,{wide}],"data_offsets":[0,{size}]}}}}"#);
    let mut tensors = (header(wide).len() as u64).to_le_bytes().to_vec();
    tensors.extend(header(wide).bytes());
    tensors.resize(tensors.len() + wide, 0);
    let csv = [b"0.5,".repeat(wide), b"1\n".to_vec()].concat();
    for (name, bytes) in [
        ("wide.npy", zeros(&format!("1, {wide}"), wide)),
        ("wide.npz", archive(&[("features.npy", zeros(&format!("1, {wide}"), wide))], true)),
        ("wide.safetensors", tensors),
        ("wide.csv", csv),
    ] {
        let error = read(&folder.write(name, &bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape, "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("4194304"), "{error}");
    }
}

#[test]
fn what_is_held_in_memory_is_bounded_where_it_is_compressed() {
    let folder = Folder::new();
    let many = (1 << 26) + 1;
    let labels = archive(&[("labels.npy", zeros(&format!("{many},"), many))], true);
    assert!(labels.len() < 1 << 20);
    let path = folder.write("labels.npz", &labels);
    let error = read_labels(Location::parse(path.to_str().unwrap())).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("without compression"), "{error}");
    #[cfg(feature = "columns")]
    {
        let bytes = columnar::zeros(65, 1 << 20);
        assert!(bytes.len() < 1 << 20);
        let path = folder.write("labels.parquet", &bytes);
        let error = read_labels(Location::parse(path.to_str().unwrap())).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("68157440 rows"), "{error}");
    }
}

#[test]
fn ids_and_records_of_megabytes_are_refused() {
    let folder = Folder::new();
    let long = "a".repeat((1 << 16) + 1);
    let ids = format!("{long}\n").into_bytes();
    let shape = format!("{},", ids.len());
    let named =
        [("features.npy", npy("<f4", false, "1, 3", &le(&[1.0; 3]))), ("ids.npy", npy("|u1", false, &shape, &ids))];
    // A quoted field may hold line ends, so that lines of a sane length can be one record.
    let endless = [b"id,f0,f1\n\"".to_vec(), b"a line\n".repeat(6 << 20)].concat();
    for (name, bytes) in [
        ("id.csv", format!("id,f0,f1\n{long},1,2\n").into_bytes()),
        ("id.npz", archive(&named, true)),
        ("endless.csv", endless),
        ("line.csv", vec![b'1'; 40 << 20]),
    ] {
        let error = read(&folder.write(name, &bytes)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported), "{name}: {error}");
    }
    // Long ids end a block before its rows are full.
    let mut text = String::from("id,f0,f1\n");
    (0..600).for_each(|row| text += &format!("{row}{},1,2\n", "b".repeat(60_000)));
    let path = folder.write("many.csv", text.as_bytes());
    let mut source = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap().open().unwrap();
    let mut blocks = Vec::new();
    for_each_block(&mut *source, |block| {
        blocks.push(block.rows());
        Ok(())
    })
    .unwrap();
    assert_eq!((blocks.iter().sum::<usize>(), blocks.len()), (600, 3));
}
