#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::model::proto::TensorProto;
use crate::testing::{Builder, external, int, ints};
use crate::{Backbone, HeadOptions, Runtime};
use dice_ood::{Calibration, Decision, Needs, Spec, Statistics};
use ndarray::ArrayView2;
use rten_tensor::prelude::{AsView, Layout as _};
use std::sync::Arc;

const ROWS: usize = 5;

fn fitted(found: &FoundHead, features: &[f32], spec: &str) -> Calibrated {
    let rows = ArrayView2::from_shape((ROWS, found.units()), features).unwrap();
    let mut statistics = Statistics::new(found.units(), &Needs::marginals());
    statistics.update(rows).unwrap();
    let detector = spec.parse::<Spec>().unwrap().fit(&Arc::new(found.head.clone()), &statistics).unwrap();
    let scores = detector.score(rows).unwrap();
    Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.5).unwrap()
}

/// What an exported model returns for five inputs is what the detector says of their features.
fn check(builder: &Builder, spec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, builder.encode()).unwrap();
    let model = Model::open(&path).unwrap();
    let found = model.find_head(&HeadOptions::default()).unwrap();
    let pixels: Vec<f32> = (0..ROWS * 48).map(|i| ((i * 29) % 31) as f32 * (i / 48 + 1) as f32 / 31.0).collect();
    let features = Backbone::new(&model, &found, &Runtime::BuiltIn).unwrap().run(pixels.clone(), ROWS, [4, 4]).unwrap();
    let calibrated = fitted(&found, &features, spec);
    let exported = folder.path().join("exported.onnx");
    Exporter::new(&calibrated).unwrap().in_model_with_features(&model, &found).unwrap().write(&exported).unwrap();

    let runtime = rten::ModelOptions::with_all_ops().load_file(&exported).unwrap();
    let input = rten_tensor::Tensor::from_data(&[ROWS, 3, 4, 4][..], pixels);
    let outputs = [SCORE, DECISION, "features"].map(|name| runtime.node_id(name).unwrap());
    let values = runtime.run(vec![(runtime.node_id("x").unwrap(), input.view().into())], &outputs, None).unwrap();
    let [rten::Value::FloatTensor(scores), rten::Value::Int32Tensor(ood), rten::Value::FloatTensor(rows)] =
        <[rten::Value; 3]>::try_from(values).unwrap()
    else {
        panic!("outputs of other types")
    };
    assert_eq!((scores.shape(), ood.shape()), (&[ROWS][..], &[ROWS][..]));
    assert_eq!(rows.shape(), &[ROWS, found.units()]);
    for (exported, ours) in rows.iter().zip(&features) {
        assert!((exported - ours).abs() <= 1e-6 * ours.abs(), "{:?}: {exported} for {ours}", found.layout);
    }
    let expected = calibrated.detector().score(ArrayView2::from_shape((ROWS, found.units()), &features).unwrap());
    let threshold = calibrated.threshold().copied().unwrap();
    let mut decisions = [0, 0];
    for ((expected, score), ood) in expected.unwrap().into_iter().zip(scores.iter()).zip(ood.iter()) {
        assert!((f64::from(*score) - expected).abs() <= 1e-5 * expected.abs(), "{spec}: {score} for {expected}");
        if (expected - threshold.score()).abs() > 1e-5 * expected.abs() {
            assert_eq!(*ood != 0, threshold.decide(expected) == Decision::OutOfDistribution);
            decisions[*ood as usize] += 1;
        }
    }
    assert!(decisions[0] > 0 && decisions[1] > 0, "{spec}: both decisions are seen: {decisions:?}");
}

fn pooled() -> Builder {
    Builder::new().features().counting("w", &[3, 4]).output("y", &[0, 4]).node("MatMul", &["h", "w"], &["y"], &[])
}

#[test]
fn every_layout_of_features() {
    let relu = || Builder::new().node("Relu", &["x"], &["r"], &[]).output("y", &[0, 2]);
    check(&pooled(), "dice(0.5) | energy");
    let map = relu()
        .counting("w", &[2, 3, 1, 1])
        .node("Conv", &["r", "w"], &["c"], &[])
        .node("GlobalAveragePool", &["c"], &["p"], &[])
        .node("Flatten", &["p"], &["y"], &[]);
    check(&map, "dice(0.5) | energy");
    let sequence = relu()
        .ints("shape", &[0, 3, 16])
        .counting("w", &[3, 2])
        .node("Reshape", &["r", "shape"], &["s"], &[])
        .node("Transpose", &["s"], &["t"], &[ints("perm", &[0, 2, 1])])
        .node("MatMul", &["t", "w"], &["m"], &[])
        .node("ReduceMean", &["m"], &["y"], &[ints("axes", &[1]), int("keepdims", 0)]);
    check(&sequence, "max-logit");
    let columns = Builder::new()
        .features()
        .counting("w", &[3, 2])
        .output("y", &[0, 2])
        .node("Transpose", &["h"], &["t"], &[ints("perm", &[1, 0])])
        .node("Gemm", &["t", "w"], &["y"], &[int("transA", 1)]);
    check(&columns, "react(0.9) | energy");
    let joined = Builder::new()
        .features()
        .counting("w", &[3, 2])
        .counting("v", &[4, 2])
        .output("y", &[0, 2])
        .node("ReduceMean", &["r"], &["k"], &[ints("axes", &[1, 2]), int("keepdims", 0)])
        .node("Gemm", &["h", "w"], &["l"], &[])
        .node("Gemm", &["k", "v"], &["m"], &[])
        .node("Mean", &["l", "m"], &["y"], &[]);
    check(&joined, "dice(0.5) | energy");
}

#[test]
fn every_operator_set_and_old_files() {
    for (opset, ir) in [(7, 3), (9, 3), (9, 4), (11, 6), (13, 7), (17, 8), (18, 8), (21, 10)] {
        let mut builder = pooled();
        builder.0.opset_import[0].version = opset;
        builder.0.ir_version = ir;
        if ir < 4 {
            builder.graph().input.push(crate::testing::value("w", &[3, 4]));
        }
        for spec in ["react(0.9) | dice(0.3) | energy(temperature=2)", "msp(temperature=50)"] {
            check(&builder, spec);
        }
    }
    let mut old = pooled();
    old.0.opset_import[0].version = 6;
    let (model, found) = (old.model().unwrap(), old.find().unwrap());
    let calibrated = fitted(&found, &[1.0; 15], "energy");
    let error = Exporter::new(&calibrated).unwrap().in_model(&model, &found).unwrap_err();
    assert!(error.to_string().contains("opset 6"), "{error}");
}

#[test]
fn other_heads_taken_names_and_unused_units() {
    let (model, found) = (pooled().model().unwrap(), pooled().find().unwrap());
    let calibrated = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "unit-prune(0.6) | energy");
    let other = pooled().floats("v", &[4], &[1.0; 4]);
    let mut other_head = found.clone();
    other_head.head = dice_ood::LinearHead::from_rows(vec![1.0; 12], vec![0.0; 4], 3).unwrap();
    let error = Exporter::new(&calibrated).unwrap().in_model(&model, &other_head).unwrap_err();
    assert!(error.to_string().contains("other values"), "{error}");
    let taken = other.node("Relu", &["y"], &["is_ood"], &[]).output("is_ood", &[0]);
    let error = Exporter::new(&calibrated).unwrap().in_model(&taken.model().unwrap(), &found).unwrap_err();
    assert!(error.to_string().contains("is_ood"), "{error}");
    let named = pooled().node("Relu", &["y"], &["features"], &[]);
    let export = Exporter::new(&calibrated).unwrap().in_model_with_features(&named.model().unwrap(), &found).unwrap();
    assert_eq!(export.features(), Some("ood_features"));
    let stored = |export: &Export| -> Vec<Vec<i64>> {
        let exported = Model::from_bytes(export.bytes().to_vec(), "test.onnx").unwrap();
        let ours = |tensor: &&TensorProto| {
            ["weight", "kept"].iter().any(|name| tensor.name.starts_with(&format!("{ADDED}{name}")))
        };
        exported.tensors().filter(ours).map(|tensor| tensor.dims.clone()).collect()
    };
    // The model's own weights serve, with a byte for each that says whether it is kept, or without.
    assert_eq!(stored(&export), [[3, 4]]);
    let dense = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "energy");
    assert!(stored(&Exporter::new(&dense).unwrap().in_model(&model, &found).unwrap()).is_empty());
    // A scale folded into the head: its weights are nowhere in the model. Only the unit that is left keeps some.
    let scaled = Builder::new()
        .features()
        .counting("w", &[3, 4])
        .floats("two", &[], &[2.0])
        .output("y", &[0, 4])
        .node("MatMul", &["h", "w"], &["m"], &[])
        .node("Mul", &["m", "two"], &["y"], &[]);
    let (model, found) = (scaled.model().unwrap(), scaled.find().unwrap());
    let calibrated = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "unit-prune(0.6) | energy");
    assert_eq!(stored(&Exporter::new(&calibrated).unwrap().in_model(&model, &found).unwrap()), [[4, 1]]);
    check(&scaled, "unit-prune(0.6) | energy");
}

#[test]
fn external_data_go_along() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let values: Vec<u8> = (1..=12u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    std::fs::write(folder.path().join("data/w.bin"), &values).unwrap();
    let mut builder = pooled();
    builder.graph().initializer[0] = external("w", &[3, 4], "data/w.bin", 0);
    std::fs::write(folder.path().join("model.onnx"), builder.encode()).unwrap();
    let model = Model::open(folder.path().join("model.onnx")).unwrap();
    let found = model.find_head(&HeadOptions::default()).unwrap();
    let calibrated = fitted(&found, &[1.0, 2.0, 3.0].repeat(ROWS), "energy");
    let export = Exporter::new(&calibrated).unwrap().in_model(&model, &found).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    for place in [folder.path().join("ood.onnx"), elsewhere.join("ood.onnx")] {
        export.write(&place).unwrap();
        // Once more, where all is there already.
        export.write(&place).unwrap();
        let found = Model::open(&place).unwrap().find_head(&HeadOptions::default()).unwrap();
        assert_eq!(found.head, **calibrated.detector().head());
    }
    builder.graph().initializer[0] = external("w", &[3, 4], "w.onnx", 0);
    std::fs::write(folder.path().join("w.onnx"), &values).unwrap();
    std::fs::write(folder.path().join("flat.onnx"), builder.encode()).unwrap();
    let flat = Model::open(folder.path().join("flat.onnx")).unwrap();
    let flat =
        Exporter::new(&calibrated).unwrap().in_model(&flat, &flat.find_head(&HeadOptions::default()).unwrap()).unwrap();
    for place in [folder.path().join("w.onnx"), elsewhere.join("data/../w.onnx")] {
        let error = flat.write(&place).unwrap_err();
        assert!(error.to_string().contains("external data"), "{error}");
    }
    assert_eq!(std::fs::read(folder.path().join("w.onnx")).unwrap(), values);
    assert!(!elsewhere.join("w.onnx").exists());
    std::fs::write(elsewhere.join("data/w.bin"), b"something else").unwrap();
    let error = export.write(&elsewhere.join("again.onnx")).unwrap_err();
    assert!(error.to_string().contains("w.bin"), "{error}");
    assert_eq!(std::fs::read(elsewhere.join("data/w.bin")).unwrap(), b"something else");
}
