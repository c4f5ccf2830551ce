//! Models of what is not an image, exported by PyTorch both ways: features are ONNX Runtime's.
//!
//! `tests/inputs/make.py` makes the models, their inputs and what ONNX Runtime makes of these.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{floats, python};
use dice_onnx::{Exporter, HeadOptions, Model, Network, NetworkOptions, Runtime};
use dice_ood::io::{Columns, Dataset, Location};
use dice_ood::{Calibrated, Calibration, Decision, ErrorKind, FeatureSource, Needs, Spec, Statistics, for_each_block};
use ndarray::ArrayView2;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs")
}

fn data(name: &str) -> Dataset {
    Dataset::new([folder().join(name)]).unwrap()
}

fn open(model: &str, data: &Dataset, runtime: &Runtime) -> dice_ood::Result<Network> {
    let options = NetworkOptions { arrays: Some(data.clone()), runtime: runtime.clone(), ..NetworkOptions::default() };
    Network::open(folder().join(format!("{model}.onnx")), &options)
}

fn all(source: &mut dyn FeatureSource) -> Vec<f32> {
    let mut all = Vec::new();
    for_each_block(source, |block| {
        all.extend_from_slice(&block.features);
        Ok(())
    })
    .unwrap();
    all
}

/// What ONNX Runtime makes of the inputs of `model`.
fn expected(model: &str) -> Vec<f32> {
    let path = folder().join("expected.safetensors").display().to_string();
    let location = Location::parse(&format!("{path}#{model}"));
    all(&mut *Dataset::new([location]).unwrap().open().unwrap())
}

/// The largest difference, as a share of the largest value.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The built-in runtime, and the ONNX Runtime that `DICE_ONNXRUNTIME` names.
fn runtimes() -> Vec<Runtime> {
    let path = std::env::var_os("DICE_ONNXRUNTIME");
    if path.is_none() {
        println!("without ONNX Runtime: DICE_ONNXRUNTIME names none");
    }
    [Runtime::BuiltIn].into_iter().chain(path.map(Runtime::onnx_runtime)).collect()
}

#[test]
fn features_of_arrays_are_those_of_onnx_runtime() {
    for runtime in runtimes() {
        for (name, units) in [
            ("text", 16),
            ("pooled", 16),
            ("selected", 16),
            ("chosen", 16),
            ("averaged", 16),
            ("distilled", 32),
            ("normalised", 10),
            ("stacked", 17),
            ("table", 10),
            ("waves", 12),
        ] {
            for exporter in ["torchscript", "dynamo"] {
                let (model, data) = (format!("{name}-{exporter}"), data(&format!("{name}.npz")));
                let network = open(&model, &data, &runtime).unwrap();
                assert!(network.takes_arrays());
                assert_eq!((network.found().classes(), network.found().units()), (4, units), "{model}");
                let mut source = network.features_of_arrays(&data).unwrap();
                assert_eq!((source.rows(), source.notes()), (Some(24), &[][..]));
                let features = all(&mut source);
                let off = apart(&features, &expected(&model));
                println!("{model}: {off:e} of the largest feature");
                assert!(off <= 1e-6, "{model}: {off}");
                let rows = ArrayView2::from_shape((24, units), &features).unwrap();
                let head = &network.found().head;
                let logits: Vec<f32> = (rows.dot(&head.weight().t()) + head.bias()).iter().copied().collect();
                let off = apart(&logits, &expected(&format!("{model}-logits")));
                println!("{model}: {off:e} of the largest logit");
                assert!(off <= 1e-5, "{model}: {off}");
            }
        }
    }
}

#[test]
#[cfg(feature = "columns")]
fn lists_without_padding_are_the_padded_arrays() {
    for exporter in ["torchscript", "dynamo"] {
        let (model, data) = (format!("text-{exporter}"), data("text.parquet"));
        let network = open(&model, &data, &Runtime::BuiltIn).unwrap();
        let source = network.features_of_arrays(&data).unwrap();
        assert!(source.notes()[0].contains("no `attention_mask` in") && source.notes()[0].contains("`input_ids`"));
        let (mut found, mut labels) = (Vec::new(), Vec::new());
        for_each_block(&mut { source }, |block| {
            found.extend_from_slice(&block.features);
            labels.extend(block.labels.clone().unwrap());
            Ok(())
        })
        .unwrap();
        assert_eq!(labels, (0..24).map(|row| row % 4).collect::<Vec<i64>>());
        let apart = apart(&found, &expected(&model));
        assert!(apart <= 1e-6, "{model}: {apart}");
    }
}

#[test]
fn what_does_not_fit_the_inputs_is_refused_by_name() {
    let refused = |model: &str, file: &str| {
        let error = open(model, &data(file), &Runtime::BuiltIn).map(|_| ()).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, text) = refused("text-dynamo", "table.npz");
    assert!(kind == ErrorKind::Missing && text.contains("input_ids") && text.contains("`x` f32 [24, 6]"), "{text}");
    let (kind, text) = refused("table-dynamo", "waves.npz");
    assert!(kind == ErrorKind::Missing && text.contains("numbers [N, 6]"), "{text}");
    let named = Dataset::new([Location::parse(&format!("{}#input_ids", folder().join("text.npz").display()))]).unwrap();
    let error = open("text-dynamo", &named, &Runtime::BuiltIn).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument, "{error}");
    // Without arrays, the model is asked for images.
    let error = Network::open(folder().join("text-dynamo.onnx"), &NetworkOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.remedy() == Some(dice_ood::Remedy::Arrays) && error.to_string().contains("2 inputs"), "{error}");
}

#[test]
fn the_columns_of_a_table_are_known_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, order: &[usize]| {
        let mut text = order.iter().map(|column| format!("c{column}")).collect::<Vec<_>>().join(",") + "\n";
        for row in 0..5 {
            let values: Vec<String> = order.iter().map(|column| format!("{}.5", row * 7 % 5 + column)).collect();
            text += &(values.join(",") + "\n");
        }
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Dataset::new([path]).unwrap()
    };
    let training = write("training.csv", &[0, 1, 2, 3, 4, 5]);
    let network = open("table-torchscript", &training, &Runtime::BuiltIn).unwrap();
    let features = |data: &Dataset| network.features_of_arrays(data).map(|mut source| all(&mut source));
    let in_order = features(&training).unwrap();
    assert_eq!(features(&write("turned.csv", &[5, 4, 3, 2, 1, 0])).unwrap(), in_order);
    let error = features(&write("other.csv", &[0, 1, 2, 3, 4, 6])).unwrap_err();
    assert!(error.kind() == ErrorKind::Columns && error.to_string().contains("`c6`"), "{error}");
    let wide = write("wide.csv", &[0, 1, 2, 3, 4, 5, 6]);
    let error = open("table-torchscript", &wide, &Runtime::BuiltIn).map(|_| ()).unwrap_err();
    assert!(error.kind() == ErrorKind::Columns && error.to_string().contains("[N, 6]"), "{error}");
    let dropped = wide.with_columns(&Columns { drop: vec!["c6".into()], ..Columns::default() });
    assert_eq!(features(&dropped).unwrap(), in_order);
    // The origin brings the columns back.
    let notes = network.origin().to_notes().unwrap();
    let recorded = dice_onnx::Origin::of_notes(&notes).unwrap().unwrap();
    assert_eq!(&recorded, network.origin());
}

#[test]
fn the_accounts_of_these_models_give_no_advice_on_images() {
    let names =
        ["text", "pooled", "selected", "chosen", "averaged", "distilled", "normalised", "stacked", "table", "waves"];
    for name in names {
        let model = Model::open(folder().join(format!("{name}-dynamo.onnx"))).unwrap();
        let told = model.describe_with(&HeadOptions::default());
        assert!(told.contains("Head") && !told.contains("Images"), "{told}");
    }
}

/// Features, scores and decisions that a detector inside its model gives in ONNX Runtime are those of the detector itself.
#[test]
fn exported_models_serve_arrays() {
    let Some(python) = python() else { return };
    let scratch = tempfile::tempdir().unwrap();
    for (name, exporter) in [
        ("text", "torchscript"),
        ("pooled", "dynamo"),
        ("selected", "torchscript"),
        ("selected", "dynamo"),
        ("chosen", "torchscript"),
        ("chosen", "dynamo"),
        ("averaged", "dynamo"),
        ("distilled", "torchscript"),
        ("distilled", "dynamo"),
        ("normalised", "dynamo"),
        ("stacked", "torchscript"),
        ("stacked", "dynamo"),
        ("table", "dynamo"),
        ("waves", "torchscript"),
    ] {
        let (model, data) = (format!("{name}-{exporter}"), data(&format!("{name}.npz")));
        let network = open(&model, &data, &Runtime::BuiltIn).unwrap();
        let features = all(&mut network.features_of_arrays(&data).unwrap());
        let (calibrated, scores) = calibrated(&network, &features);
        let path = folder().join(format!("{model}.onnx"));
        let exported = scratch.path().join(format!("{model}.onnx"));
        let opened = Model::open(&path).unwrap();
        let exporter = Exporter::new(&calibrated).unwrap();
        exporter.in_model_with_features(&opened, network.found()).unwrap().write(&exported).unwrap();
        let results = scratch.path().join("results");
        let script = folder().join("serve.py");
        let run = Command::new(python)
            .args([&script, &path, &exported, &folder().join(format!("{name}.npz")), &results])
            .output()
            .unwrap();
        assert!(run.status.success(), "{model}: {}", String::from_utf8_lossy(&run.stderr));
        assert!(apart(&features, &floats(&results.with_extension("features"))) <= 1e-6, "{model}");
        let served = floats(&results.with_extension("score"));
        let decisions = std::fs::read(results.with_extension("ood")).unwrap();
        let threshold = calibrated.threshold().unwrap();
        for ((score, served), ood) in scores.iter().zip(&served).zip(decisions) {
            let rounding = 1e-5 * score.abs().max(1.0);
            assert!((f64::from(*served) - score).abs() <= rounding, "{model}: {served} for {score}");
            if (score - threshold.score()).abs() > rounding {
                assert_eq!(ood != 0, threshold.decide(*score) == Decision::OutOfDistribution, "{model}: {score}");
            }
        }
    }
}

/// Features that operators of ours make are named as the model names what they are made of.
#[test]
fn what_onnx_runtime_refuses_is_named_as_a_user_knows_it() {
    let Some(library) = std::env::var_os("DICE_ONNXRUNTIME") else { return };
    let scratch = tempfile::tempdir().unwrap();
    for name in ["chosen", "distilled"] {
        let mut bytes = std::fs::read(folder().join(format!("{name}-torchscript.onnx"))).unwrap();
        let unknown: Vec<usize> =
            bytes.windows(7).enumerate().filter(|(_, part)| *part == b"Softmax").map(|(place, _)| place).collect();
        unknown.into_iter().for_each(|place| bytes[place] = b'Z');
        let path = scratch.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let features = Model::open(&path).unwrap().find_head(&HeadOptions::default()).unwrap().features;
        let arrays = Some(data(&format!("{name}.npz")));
        let options = NetworkOptions { arrays, runtime: Runtime::onnx_runtime(&library), ..NetworkOptions::default() };
        let text = Network::open(&path, &options).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(&features) && text.contains("Zoftmax") && !text.contains("dice_ood/"), "{text}");
    }
}

/// A detector of these features, and what it scores them.
fn calibrated(network: &Network, features: &[f32]) -> (Calibrated, Vec<f64>) {
    let units = network.found().units();
    let rows = ArrayView2::from_shape((features.len() / units, units), features).unwrap();
    let mut statistics = Statistics::new(units, &Needs::marginals());
    statistics.update(rows).unwrap();
    let head = Arc::new(network.found().head.clone());
    let detector = "dice(0.5) | energy".parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
    let scores = detector.score(rows).unwrap();
    let calibration = Calibration::new(scores.clone()).unwrap();
    (Calibrated::new(detector, calibration, 0.7).unwrap(), scores)
}
