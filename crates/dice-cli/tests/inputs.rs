//! Inputs that are not images through networks, with the real binary: fit, score, evaluate, explain, tune, export.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;
use std::path::Path;

use common::{Desk, failed, stderr, succeeded};

/// An array in a safetensors file: its type, its shape, its bytes.
type Array<'a> = (&'a str, &'a str, Vec<usize>, Vec<u8>);

fn safetensors(path: &Path, arrays: &[Array<'_>]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, kind, shape, bytes) in arrays {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).into(), serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
}

/// Numbers from 0 to below `below`, in an order that `seed` decides.
fn numbers(count: usize, below: u64, seed: u64) -> Vec<i64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..count).map(|_| next() as i64).collect()
}

/// Bytes of ids of tokens, `width` a text, as int32 or int64, and of a mask under which the last two tokens of every third text lie.
fn texts(rows: usize, width: usize, seed: u64, wide: bool) -> (Vec<u8>, Vec<u8>) {
    let ids = numbers(rows * width, 40, seed);
    let mask =
        (0..rows * width).map(|place| i64::from(!(place / width).is_multiple_of(3) || place % width < width - 2));
    let ids = ids
        .into_iter()
        .flat_map(|id| if wide { id.to_le_bytes().to_vec() } else { (id as i32).to_le_bytes().to_vec() });
    (ids.collect(), mask.flat_map(|value| value.to_le_bytes()).collect())
}

/// A file of texts with a mask.
fn write_texts(desk: &Desk, name: &str, rows: usize, seed: u64) {
    let (ids, mask) = texts(rows, 9, seed, true);
    let shape = || vec![rows, 9];
    safetensors(&desk.path(name), &[("input_ids", "I64", shape(), ids), ("attention_mask", "I64", shape(), mask)]);
}

/// A desk with the models that PyTorch exported, and texts.
fn desk() -> Desk {
    let desk = Desk::new();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dice-onnx/tests/inputs");
    for name in ["text-torchscript.onnx", "table-dynamo.onnx", "waves-dynamo.onnx"] {
        fs::copy(models.join(name), desk.path(name.split('-').next().unwrap()).with_extension("onnx")).unwrap();
    }
    fs::copy(models.join("text.parquet"), desk.path("lists.parquet")).unwrap();
    for (name, rows, seed) in
        [("train.tok", 200, 1), ("calibration.tok", 60, 2), ("test.tok", 50, 3), ("other.tok", 40, 4)]
    {
        write_texts(&desk, name, rows, seed);
    }
    desk
}

const FIT: &str =
    "fit --model text.onnx --inputs train.tok --calibration calibration.tok -d energy -d knn(5) -o d.safetensors";

#[test]
fn a_text_classifier_is_fitted_scored_evaluated_and_explained() {
    let desk = desk();
    let output = desk.line(FIT);
    succeeded(&output);
    let said = stderr(&output);
    assert!(said.contains("arrays input_ids int64 [N, sequence]; attention_mask int64 [N, sequence]"), "{said}");
    assert!(!said.contains("image") && !said.contains("no `attention_mask`"), "{said}");
    let about = succeeded(&desk.line("inspect d.safetensors"));
    assert!(about.contains("inputs: input_ids int64") && about.contains("arrays: train.tok"), "{about}");
    let scored = succeeded(&desk.line("score d.safetensors --model text.onnx test.tok"));
    assert_eq!(scored.lines().count(), 51, "{scored}");
    // Features that were kept give the same, and know where they came from.
    succeeded(&desk.line("features --model text.onnx --inputs test.tok -o f.safetensors"));
    assert_eq!(succeeded(&desk.line("score d.safetensors f.safetensors")), scored);
    // Features that were kept for the next command give the same too.
    for times in [0, 1] {
        let output = desk.line("score d.safetensors --model text.onnx test.tok --keep kept");
        assert_eq!(succeeded(&output), scored);
        assert_eq!(stderr(&output).matches("those that kept keeps").count(), times);
    }
    let report =
        succeeded(&desk.line(
            "eval d.safetensors --model text.onnx --id test.tok --ood other=other.tok --bootstrap 0 --format json",
        ));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["id_inputs"], &report["detectors"][0]["sets"][0]["ood_inputs"]),
        (&50.into(), &40.into()),
        "{report}"
    );
    let why = succeeded(&desk.line("explain d.safetensors --model text.onnx test.tok --row 7 --training train.tok"));
    assert!(why.contains("row 7") || why.contains("#7") || why.contains('7'), "{why}");
    succeeded(&desk.line("export d.safetensors --model text.onnx -o served.onnx"));
    let about = succeeded(&desk.line("inspect served.onnx"));
    assert!(about.contains("ood_score") && about.contains("inputs"), "{about}");
    assert!(!desk.listing().iter().any(|name| name.starts_with('.')), "{:?}", desk.listing());
}

#[test]
fn sweep_and_tune_take_arrays() {
    let desk = desk();
    succeeded(&desk.line(FIT));
    let swept = succeeded(&desk.line(
        "sweep d.safetensors --model text.onnx --id test.tok --ood other=other.tok -d energy(temperature=T) --grid T=1,2 --format csv",
    ));
    assert_eq!(swept.lines().count(), 3, "{swept}");
    let tuned = succeeded(&desk.line(
        "tune --model text.onnx --inputs train.tok --id test.tok --ood other=other.tok -d energy -d msp --bootstrap 20 --tpr 0.8 -o chosen.safetensors",
    ));
    assert!(tuned.contains("energy"), "{tuned}");
    succeeded(&desk.line("score chosen.safetensors --model text.onnx test.tok"));
}

#[test]
fn narrower_ids_lists_and_what_files_lack_are_taken_and_said() {
    let desk = desk();
    succeeded(&desk.line(FIT));
    let score = |file: &str| {
        let output = desk.line(&format!("score d.safetensors --model text.onnx {file}"));
        (succeeded(&output), stderr(&output))
    };
    let scores = |text: &str| text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>();
    let (ids, _) = texts(20, 9, 5, true);
    let ones: Vec<u8> = (0..20 * 9).flat_map(|_| 1i64.to_le_bytes()).collect();
    let shape = || vec![20, 9];
    safetensors(&desk.path("wide"), &[("input_ids", "I64", shape(), ids), ("attention_mask", "I64", shape(), ones)]);
    let (narrow, _) = texts(20, 9, 5, false);
    safetensors(&desk.path("narrow"), &[("input_ids", "I32", shape(), narrow)]);
    let ((wide, said), (narrow, told)) = (score("wide"), score("narrow"));
    assert_eq!(scores(&wide), scores(&narrow));
    assert!(
        !said.contains("attention_mask")
            && told.contains("no `attention_mask` in narrow: every value of `input_ids` counts"),
        "{said}{told}"
    );
    let (lists, said) = score("lists.parquet");
    assert!(lists.lines().count() == 25 && said.contains("no `attention_mask` in lists.parquet"), "{said}");
    // A text scores the same alone, whatever comes with it.
    let one = |row: usize| lists.lines().nth(row + 1).unwrap().to_owned();
    let explained =
        succeeded(&desk.line("explain d.safetensors --model text.onnx lists.parquet --row 3 --format json"));
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let alone: f64 = explained["score"].as_f64().unwrap();
    let among: f64 = one(3).split(',').nth(1).unwrap().parse().unwrap();
    assert!((alone - among).abs() <= 1e-6 * among.abs(), "{alone} {among}");
}

#[test]
fn a_table_is_known_by_its_columns_and_a_wave_by_its_array() {
    let desk = desk();
    let table = |name: &str, rows: usize, columns: &[usize], seed: u64| {
        let values = numbers(rows * 6, 1000, seed);
        let mut text = columns.iter().map(|column| format!("c{column}")).collect::<Vec<_>>().join(",") + ",user_id\n";
        for row in 0..rows {
            let of = |column: &usize| format!("{}", values[row * 6 + column] as f64 / 250.0 - 2.0);
            text += &(columns.iter().map(of).collect::<Vec<_>>().join(",") + &format!(",u{row}\n"));
        }
        fs::write(desk.path(name), text).unwrap();
    };
    table("train.csv", 200, &[0, 1, 2, 3, 4, 5], 1);
    table("test.csv", 30, &[0, 1, 2, 3, 4, 5], 2);
    table("turned.csv", 30, &[5, 3, 4, 0, 1, 2], 2);
    table("other.csv", 30, &[5, 3, 4, 0, 1], 2);
    succeeded(&desk.line("fit --model table.onnx --inputs train.csv -d energy -o t.safetensors"));
    let scored = succeeded(&desk.line("score t.safetensors --model table.onnx test.csv"));
    assert!(scored.contains("\nu29,"), "{scored}");
    assert_eq!(succeeded(&desk.line("score t.safetensors --model table.onnx turned.csv")), scored);
    let message = failed(&desk.line("score t.safetensors --model table.onnx other.csv"), 1);
    assert!(message.contains("other.csv") && message.contains("`c2`"), "{message}");
    let wave: Vec<u8> =
        numbers(60 * 2 * 40, 1000, 3).iter().flat_map(|v| (*v as f64 / 500.0 - 1.0).to_le_bytes()).collect();
    fs::write(desk.path("wave.npy"), npy::npy("<f8", false, "60, 2, 40", &wave)).unwrap();
    succeeded(
        &desk.line("fit --model waves.onnx --inputs wave.npy -d energy --calibration-fraction 0.4 -o w.safetensors"),
    );
    assert_eq!(succeeded(&desk.line("score w.safetensors --model waves.onnx wave.npy")).lines().count(), 61);
    let narrow: Vec<u8> = (0..60 * 3 * 40).flat_map(|v| (v as f32).to_le_bytes()).collect();
    fs::write(desk.path("three.npy"), npy::npy("<f4", false, "60, 3, 40", &narrow)).unwrap();
    let message = failed(&desk.line("score w.safetensors --model waves.onnx three.npy"), 1);
    assert!(message.contains("three.npy: wave: expected numbers [N, 2, ?], found f32 [60, 3, 40]"), "{message}");
}

/// Labels in one file and none in the other are those of the first, whether features are kept or not.
#[test]
fn files_of_which_some_have_labels() {
    let desk = desk();
    let (ids, mask) = texts(20, 9, 6, true);
    let shape = || vec![20, 9];
    let labels: Vec<u8> = (0..20i64).flat_map(|row| (row % 4).to_le_bytes()).collect();
    safetensors(
        &desk.path("labelled.tok"),
        &[
            ("input_ids", "I64", shape(), ids),
            ("attention_mask", "I64", shape(), mask),
            ("labels", "I64", vec![20], labels),
        ],
    );
    succeeded(&desk.line(FIT));
    for files in ["labelled.tok test.tok", "test.tok labelled.tok"] {
        let eval =
            format!("eval d.safetensors --model text.onnx --id {files} --ood o=other.tok --bootstrap 0 --format json");
        let plain = desk.line(&eval);
        for _ in 0..2 {
            let kept = desk.line(&format!("{eval} --keep kept"));
            assert_eq!((kept.status.code(), &kept.stdout), (plain.status.code(), &plain.stdout), "{}", stderr(&kept));
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let desk = desk();
    succeeded(&desk.line(FIT));
    let rows = || vec![20, 9];
    let (ids, _) = texts(20, 9, 5, true);
    let floats: Vec<u8> = (0..180).flat_map(|v| (v as f32).to_le_bytes()).collect();
    safetensors(&desk.path("floats"), &[("input_ids", "F32", rows(), floats)]);
    safetensors(&desk.path("named"), &[("ids", "I64", rows(), ids.clone())]);
    let short: Vec<u8> = (0..19 * 9).flat_map(|_| 1i64.to_le_bytes()).collect();
    safetensors(
        &desk.path("short"),
        &[("input_ids", "I64", rows(), ids.clone()), ("attention_mask", "I64", vec![19, 9], short)],
    );
    let less: Vec<u8> = (0..20 * 8).flat_map(|_| 1i64.to_le_bytes()).collect();
    safetensors(&desk.path("less"), &[("input_ids", "I64", rows(), ids), ("attention_mask", "I64", vec![20, 8], less)]);
    let large: Vec<u8> = (0..180).flat_map(|_| (1i64 << 40).to_le_bytes()).collect();
    let unknown: Vec<u8> = (0..180).flat_map(|_| 4000i64.to_le_bytes()).collect();
    let ones: Vec<u8> = (0..180).flat_map(|_| 1i64.to_le_bytes()).collect();
    safetensors(
        &desk.path("unknown"),
        &[("input_ids", "I64", rows(), unknown), ("attention_mask", "I64", rows(), ones)],
    );
    safetensors(&desk.path("large"), &[("input_ids", "I64", rows(), large)]);
    fs::copy(desk.path("lists.parquet"), desk.path("more.parquet")).unwrap();
    succeeded(&desk.line("score d.safetensors --model text.onnx lists.parquet more.parquet"));
    let message = failed(&desk.line("score d.safetensors --model text.onnx test.tok lists.parquet"), 1);
    for part in ["lists.parquet: attention_mask", "no such array", "as in test.tok"] {
        assert!(message.contains(part), "{message}");
    }
    for (file, parts) in [
        ("floats", &["input_ids", "whole numbers [N, ?]", "f32 [20, 9]", "astype('int64')"][..]),
        ("named", &["input_ids", "`ids` i64 [20, 9]", "numpy.savez"]),
        ("short", &["attention_mask", "20 inputs", "[19, 9]"]),
        ("less", &["attention_mask", "8 values", "expected 9", "sequence"]),
        ("large", &["1099511627776", "text.onnx"]),
        ("unknown", &["text.onnx", "4000", "rows 0 to 19 of unknown"]),
        ("train.csv", &["train.csv", "No such file"]),
    ] {
        let message = failed(&desk.line(&format!("score d.safetensors --model text.onnx {file}")), 1);
        assert!(parts.iter().all(|part| message.contains(part)), "{file}: {message}");
    }
    let message = failed(&desk.line("fit --model text.onnx --images . -o x.safetensors"), 1);
    assert!(message.contains("2 inputs") && message.contains("--inputs FILE.npz"), "{message}");
    let both = "fit --model text.onnx --inputs train.tok --images grey -o x.safetensors";
    assert!(failed(&desk.line(both), 2).contains("cannot be used"), "{}", stderr(&desk.line(both)));
    let distorted = desk.line("fit --model text.onnx --inputs train.tok --stand-ins 5 -o x.safetensors");
    assert!(failed(&distorted, 1).contains("--stand-ins"), "{}", stderr(&distorted));
    failed(&desk.line("fit --inputs train.tok --head text.onnx -o x.safetensors"), 2);
    failed(&desk.line("fit --model text.onnx --inputs train.tok --preprocess imagenet -o x.safetensors"), 2);
}

#[test]
fn an_account_of_a_model_says_what_to_give() {
    let desk = desk();
    let told = succeeded(&desk.line("inspect text.onnx"));
    for part in [
        "dice fit --model text.onnx --inputs train.npz -o detector.safetensors",
        "input_ids int64 [N, sequence]; attention_mask int64 [N, sequence]",
        r#"numpy.savez("train.npz", **{"input_ids": ..., "attention_mask": ...})"#,
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("mage"), "{told}");
}
