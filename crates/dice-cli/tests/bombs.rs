//! Files of a few bytes that stand for gigabytes, given to the real binary where memory is limited: an error, or a result, and
//! never an abort. The files are made here.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, DictionaryArray, Float32Array, Int32Array, RecordBatch, StringArray};
use flate2::write::{DeflateEncoder, ZlibEncoder};
use flate2::{Compression, Crc};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::data_type::FloatType;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use common::{Desk, failed, stderr, succeeded};

/// Address space of a run, in KiB: 2 GiB.
const LIMIT: u32 = 2 << 20;

/// `dice` on four threads in a shell that limits its memory.
fn limited(desk: &Desk, arguments: &str) -> Output {
    let script = format!("ulimit -v {LIMIT}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.current_dir(desk.folder.path()).args(["-c", &script, env!("CARGO_BIN_EXE_dice"), "--threads", "4"]);
    command.args(arguments.split(' ')).output().unwrap()
}

/// Exit code 1 and a message that holds `said`.
fn refused(desk: &Desk, arguments: &str, said: &str) {
    let output = limited(desk, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments}: {:?}: {}", output.status, stderr(&output));
    let message = failed(&output, 1);
    assert!(message.contains(said), "{arguments}: {message}");
}

/// A result or an error of another kind, in the same memory.
fn ended(desk: &Desk, arguments: &str) {
    let output = limited(desk, arguments);
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{arguments}: {:?}: {}", output.status, stderr(&output));
    if code == Some(1) {
        failed(&output, 1);
    }
}

fn zstd() -> WriterProperties {
    let codec = Codec::ZSTD(ZstdLevel::try_new(3).unwrap());
    WriterProperties::builder().set_compression(codec).set_dictionary_page_size_limit(1 << 30).build()
}

fn write_table(path: &Path, columns: Vec<(String, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(zstd())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// One value that all of `rows` rows have.
fn repeated(value: ArrayRef, rows: usize) -> ArrayRef {
    Arc::new(DictionaryArray::new(Int32Array::from(vec![0; rows]), value))
}

/// Features as the demo's head takes them, and `others` beside.
fn features(rows: usize, units: usize, others: Vec<(String, ArrayRef)>) -> Vec<(String, ArrayRef)> {
    let column = |unit| (format!("f{unit}"), Arc::new(Float32Array::from(vec![1.0; rows])) as ArrayRef);
    (0..units).map(column).chain(others).collect()
}

/// A list of `values` values, as a run of levels and a run of places in a dictionary.
fn one_wide_list(path: &Path, values: usize) {
    let schema = "message m { required group features (LIST) { repeated group list { required float element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(zstd())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let mut levels = vec![1; values];
    levels[0] = 0;
    column.typed::<FloatType>().write_batch(&vec![1.0; values], Some(&vec![1; values]), Some(&levels)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

fn npy_header(kind: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// An archive of one deflated array `features` of zeros.
fn deflated_zeros(path: &Path, shape: &str, count: u64) {
    let mut archive = rawzip::ZipArchiveWriter::new(File::create(path).unwrap());
    let entry = archive.new_file("features.npy").compression_method(rawzip::CompressionMethod::DEFLATE);
    let (mut entry, config) = entry.start().unwrap();
    let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
    writer.write_all(&npy_header("|u1", shape)).unwrap();
    io::copy(&mut io::repeat(0).take(count), &mut writer).unwrap();
    let (encoder, descriptor) = writer.finish().unwrap();
    encoder.finish().unwrap();
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap();
}

/// A file that starts with `bytes`, and `zeros` behind them, which take no place on most disks.
fn sparse(path: &Path, bytes: &[u8], zeros: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64 + zeros).unwrap();
}

/// A black image of three bytes a pixel, of which only some rows are there.
fn png(width: u32, height: u32, rows: u32) -> Vec<u8> {
    fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        [&(data.len() as u32).to_be_bytes(), kind, data, &crc.sum().to_be_bytes()].concat()
    }
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::fast());
    io::copy(&mut io::repeat(0).take(u64::from(rows) * (1 + 3 * u64::from(width))), &mut pixels).unwrap();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &header), chunk(b"IDAT", &pixels.finish().unwrap()), chunk(b"IEND", b"")];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat()
}

#[test]
fn features_that_stand_for_gigabytes_are_errors_to_every_command() {
    let desk = Desk::fitted(&["energy"]);
    let units = 256;
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(20 << 20)]));
    write_table(&desk.path("id.parquet"), features(2000, units, vec![("id".into(), repeated(long, 2000))]));
    let page: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(270 << 20)]));
    write_table(&desk.path("page.parquet"), features(1, units, vec![("id".into(), page)]));
    one_wide_list(&desk.path("list.parquet"), 1 << 24);
    deflated_zeros(&desk.path("row.npz"), &format!("1, {}", 1 << 28), 1 << 28);
    sparse(&desk.path("row.npy"), &npy_header("<f4", &format!("1, {}", 1u64 << 32)), 4 << 32);
    let end = 4u64 << 32;
    let header = format!(r#"{{"features":{{"dtype":"F32","shape":[1,{}],"data_offsets":[0,{end}]}}}}"#, 1u64 << 32);
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    sparse(&desk.path("row.safetensors"), &start, end);
    fs::write(desk.path("quote.csv"), [b"id,f0,f1\n\"".to_vec(), b"a line\n".repeat(6 << 20)].concat()).unwrap();
    for (name, said) in [
        ("id.parquet", "an id of 20971520 bytes"),
        ("page.parquet", "pages of at most"),
        ("list.parquet", "a list of more than"),
        ("row.npz", "at most 4194304"),
        ("row.npy", "at most 4194304"),
        ("row.safetensors", "at most 4194304"),
        ("quote.csv", "line 2 that is not closed"),
    ] {
        // A file of tensors is listed, whatever its tensors could be read as.
        let tensors = name.starts_with("row.");
        if tensors {
            succeeded(&limited(&desk, &format!("inspect {name}")));
        } else {
            refused(&desk, &format!("inspect {name}"), said);
        }
        refused(&desk, &format!("score d.safetensors {name}"), said);
        let fit = format!("fit --features {name} --head head.safetensors --calibration-fraction 0.5 -o x.safetensors");
        let eval = format!("eval d.safetensors --id test.safetensors --ood x={name}");
        for command in [&fit, &eval] {
            // What names inputs is not read where inputs need no names.
            match name {
                "id.parquet" | "page.parquet" => ended(&desk, command),
                _ => refused(&desk, command, said),
            }
        }
    }
}

#[test]
fn images_share_one_budget_and_larger_ones_are_refused() {
    let desk = Desk::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/colours.onnx");
    fs::copy(model, desk.path("colours.onnx")).unwrap();
    let command = |images: &str, preprocess: &str| {
        format!("features --model colours.onnx --images {images} --preprocess {preprocess} -o f.safetensors")
    };
    // Four threads, each with an image of 320 MB.
    let large = png(10_000, 10_600, 10_600);
    assert!(large.len() < 4 << 20);
    fs::create_dir(desk.path("large")).unwrap();
    (0..4).for_each(|index| fs::write(desk.path("large").join(format!("{index}.png")), &large).unwrap());
    succeeded(&limited(&desk, &command("large", "resize=8x8")));

    fs::write(desk.path("larger.png"), png(20_000, 20_000, 1)).unwrap();
    let rows = 100;
    let bytes = vec![0u8; 100 << 20];
    let image: ArrayRef = Arc::new(BinaryArray::from(vec![&bytes[..]]));
    write_table(&desk.path("images.parquet"), vec![("image".into(), repeated(image, rows))]);
    for (images, said) in [("larger.png", "320 MiB"), ("images.parquet", "an image that can be decoded")] {
        refused(&desk, &command(images, "resize=8x8"), said);
        let fit = format!("fit --model colours.onnx --images {images} --preprocess resize=8x8 -o x.safetensors");
        refused(&desk, &format!("{fit} --calibration-fraction 0.5"), said);
    }
    fs::write(desk.path("huge.json"), r#"{"size": {"height": 1000000000, "width": 8}}"#).unwrap();
    for preprocess in ["resize=1000000000", "resize=16384x16384", "crop=8x1000000000", "huge.json"] {
        refused(&desk, &command("large", preprocess), "16,777,216 pixels");
    }
}

/// A field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    [&field, bytes].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect::<Vec<_>>();
    field(1, &[inputs, field(2, output.as_bytes()), field(4, operator.as_bytes())].concat())
}

/// A tensor of zeros in two dimensions.
fn tensor(name: &str, dimensions: [u8; 2]) -> Vec<u8> {
    let values = vec![0; 4 * usize::from(dimensions[0]) * usize::from(dimensions[1])];
    let [rows, columns] = dimensions;
    field(5, &[vec![8, rows, 8, columns, 16, 1], field(8, name.as_bytes()), field(9, &values)].concat())
}

/// A classifier of 8 x 8 images, behind a chain of operators.
fn chain(operators: usize) -> Vec<u8> {
    let shape: Vec<u8> = [1u8, 3, 8, 8].iter().flat_map(|extent| field(1, &[8, *extent])).collect();
    let kind = field(1, &[vec![8, 1], field(2, &shape)].concat());
    let value = |name: &str, kind: &[u8]| [field(1, name.as_bytes()), field(2, kind)].concat();
    let mut graph = field(11, &value("c0", &kind));
    for place in 0..operators {
        graph.extend(node("Relu", &[&format!("c{place}")], &format!("c{}", place + 1)));
    }
    graph.extend(node("GlobalAveragePool", &[&format!("c{operators}")], "pooled"));
    graph.extend(node("Flatten", &["pooled"], "features"));
    graph.extend(node("MatMul", &["features", "weight"], "logits"));
    graph.extend(tensor("weight", [3, 2]));
    graph.extend(field(12, &field(1, b"logits")));
    [vec![8, 8], field(7, &graph), field(8, &[16, 17])].concat()
}

#[test]
fn chains_of_operators_do_not_overflow_a_stack() {
    let desk = Desk::new();
    fs::write(desk.path("image.png"), png(8, 8, 8)).unwrap();
    fs::write(desk.path("deep.onnx"), chain(5000)).unwrap();
    fs::write(desk.path("deeper.onnx"), chain(50_000)).unwrap();
    let features =
        |model: &str| format!("features --model {model} --images image.png --preprocess scale=1 -o f.safetensors");
    for model in ["deep.onnx", "deeper.onnx"] {
        succeeded(&limited(&desk, &format!("inspect {model}")));
    }
    succeeded(&limited(&desk, &features("deep.onnx")));
    refused(&desk, &features("deeper.onnx"), "a chain of 500");
}
