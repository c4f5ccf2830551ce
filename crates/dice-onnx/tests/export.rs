//! Models that others trained, with a detector inside: served by ONNX Runtime and by the built-in runtime.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{floats, python};
use dice_onnx::{Backbone, DECISION, Exporter, FeatureLayout, HeadOptions, InputShape, Model, P_VALUE, Runtime, SCORE};
use dice_ood::{Calibrated, Calibration, Decision, LinearHead, Needs, Spec, Statistics};
use ndarray::ArrayView2;
use rten_tensor::prelude::{AsView, Layout as _};

const ROWS: usize = 12;

/// The ONNX Runtime of that Python, opened by this process.
fn onnx_runtime() -> Option<Runtime> {
    let folder = ["-c", "import onnxruntime, os; print(os.path.dirname(onnxruntime.__file__))"];
    let folder = Command::new(python()?).args(folder).output().unwrap();
    Some(Runtime::onnx_runtime(String::from_utf8(folder.stdout).unwrap().trim()))
}

/// Scores of `features` by `calibrated` against `scores` and `ood` of the exported model.
fn compare(what: &str, calibrated: &Calibrated, features: &[f32], scores: &[f32], ood: Option<&[bool]>) {
    let units = calibrated.detector().head().units();
    let expected = calibrated.detector().score(ArrayView2::from_shape((ROWS, units), features).unwrap()).unwrap();
    let threshold = calibrated.threshold().copied().unwrap();
    assert_eq!(scores.len(), ROWS, "{what}");
    for (row, (expected, score)) in expected.into_iter().zip(scores).enumerate() {
        let difference = (f64::from(*score) - expected).abs();
        assert!(difference <= 1e-4 * expected.abs().max(1e-3), "{what}: {score} for {expected}");
        // Within rounding of the threshold either decision is right.
        if let Some(ood) = ood.filter(|_| (expected - threshold.score()).abs() > 1e-4 * expected.abs()) {
            assert_eq!(ood[row], threshold.decide(expected) == Decision::OutOfDistribution, "{what}: {expected}");
        }
    }
}

fn check(name: &str, specs: &[&str]) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return;
    }
    let model = Model::open(&path).unwrap();
    let found = model.find_head(&HeadOptions::default()).unwrap();
    let (runtime, is_built_in) = match Backbone::new(&model, &found, &Runtime::BuiltIn) {
        Ok(_) => (Runtime::BuiltIn, true),
        // Sixteen bits are not for the built-in runtime.
        Err(error) => {
            assert!(error.to_string().contains("float16"), "{error}");
            let Some(runtime) = onnx_runtime() else { return };
            (runtime, false)
        }
    };
    let backbone = Backbone::new(&model, &found, &runtime).unwrap();
    let input = backbone.input().unwrap();
    let size @ [height, width] = [input.size[0].unwrap_or(1), input.size[1].unwrap_or(1)];
    let each = input.flat.unwrap_or(input.channels.unwrap_or(3) * height * width);
    // Inputs of different contrast, so that their scores differ.
    let pixels: Vec<f32> = (0..ROWS * each)
        .map(|i| ((i * 7919 + i / each * 31) % 255) as f32 / 255.0 * (i / each + 1) as f32 / 6.0 - 0.5)
        .collect();
    let features = backbone.run(pixels.clone(), ROWS, size).unwrap();
    let mut statistics = Statistics::new(found.units(), &Needs::marginals());
    let rows = ArrayView2::from_shape((ROWS, found.units()), &features).unwrap();
    statistics.update(rows).unwrap();
    let head = Arc::new(found.head.clone());
    let folder = tempfile::tempdir().unwrap();
    for (place, spec) in specs.iter().enumerate() {
        let what = format!("{name}, {spec}");
        let detector = spec.parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
        let scores = detector.score(rows).unwrap();
        let calibrated = Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.7).unwrap();
        let notes = BTreeMap::from([("preprocess".to_owned(), "{}".to_owned())]);
        let export = Exporter::new(&calibrated).unwrap().notes(&notes).in_model_with_features(&model, &found).unwrap();
        // Which weights are kept takes a byte each; the model's own are shared, but for one that has them as integers alone.
        let shares = !name.contains("diablo");
        let weights = head.classes() * head.units() * if shares { 1 } else { 4 };
        let most = weights + 4 * head.classes() + 4096;
        assert!(export.added() < most, "{what}: {} bytes, {weights} of weights", export.added());
        let exported = folder.path().join(format!("exported-{place}.onnx"));
        export.write(&exported).unwrap();

        // The same head is found in it, and what was noted.
        let again = Model::open(&exported).unwrap();
        assert_eq!(again.find_head(&HeadOptions::default()).unwrap().head, found.head, "{what}");
        let fitted = calibrated.detector().spec().to_string();
        assert!(again.metadata().any(|(key, value)| key == "dice_ood.detector" && value == fitted), "{what}");
        let twice = Exporter::new(&calibrated).unwrap().in_model(&again, &found).unwrap_err();
        assert!(twice.to_string().contains("carries no detector yet"), "{twice}");

        if is_built_in {
            raw(&path, &exported, &pixels, input, &calibrated);
        }
        let mut scores = found.clone();
        scores.features = SCORE.into();
        (scores.layout, scores.quantization) = (FeatureLayout::Rows, None);
        scores.head = LinearHead::from_rows(vec![1.0], vec![0.0], 1).unwrap();
        let scores = Backbone::new(&again, &scores, &runtime).unwrap().run(pixels.clone(), ROWS, size).unwrap();
        compare(&format!("{what}, {}", runtime.name()), &calibrated, &features, &scores, None);

        let Some(python) = python() else { continue };
        let inputs = folder.path().join("inputs.f32");
        std::fs::write(&inputs, pixels.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
        let results = folder.path().join("results");
        let run = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve.py"))
            .args([&path, &exported, &inputs])
            .arg(ROWS.to_string())
            .arg(&results)
            .output()
            .unwrap();
        assert!(run.status.success(), "{what}: {}", String::from_utf8_lossy(&run.stderr));
        let ood: Vec<bool> =
            std::fs::read(results.with_extension("ood")).unwrap().into_iter().map(|byte| byte != 0).collect();
        let theirs = floats(&results.with_extension("features"));
        compare(&what, &calibrated, &theirs, &floats(&results.with_extension("score")), Some(&ood));
    }
}

/// The exported model as it is in the runtime that is built in: the outputs of the original must be what they were, and each
/// decision what its score says.
fn raw(original: &Path, exported: &Path, pixels: &[f32], input: InputShape, calibrated: &Calibrated) {
    let [before, after] = [original, exported].map(|path| rten::ModelOptions::with_all_ops().load_file(path).unwrap());
    let each = pixels.len() / ROWS;
    let threshold = calibrated.threshold().copied().unwrap();
    for part in pixels.chunks(input.batch.unwrap_or(ROWS) * each) {
        let rows = part.len() / each;
        let fixed = |axis: usize| input.size[axis].unwrap_or(1);
        let shape = match (input.flat, input.layout) {
            (Some(length), _) => vec![rows, length],
            (None, dice_onnx::PixelLayout::Nchw) => vec![rows, each / (fixed(0) * fixed(1)), fixed(0), fixed(1)],
            (None, dice_onnx::PixelLayout::Nhwc) => vec![rows, fixed(0), fixed(1), each / (fixed(0) * fixed(1))],
        };
        let values = rten_tensor::Tensor::from_data(shape.as_slice(), part.to_vec());
        let run = |model: &rten::Model, names: &[&str]| {
            let outputs: Vec<_> = names.iter().map(|name| model.node_id(name).unwrap()).collect();
            model.run(vec![(model.input_ids()[0], rten::ValueOrView::from(values.view()))], &outputs, None).unwrap()
        };
        let names: Vec<String> =
            before.output_ids().iter().map(|id| before.node_info(*id).unwrap().name().unwrap().to_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut outputs = run(&after, &[&names[..], &[SCORE, P_VALUE, DECISION]].concat());
        let [decision, p_value, score] = [(); 3].map(|()| outputs.pop().unwrap());
        for (old, new) in run(&before, &names).iter().zip(&outputs) {
            assert_eq!(bits(old), bits(new), "{}", original.display());
        }
        let rten::Value::FloatTensor(score) = score else { panic!("scores of another type") };
        let rten::Value::FloatTensor(p_value) = p_value else { panic!("p-values of another type") };
        let rten::Value::Int32Tensor(decision) = decision else { panic!("decisions of another type") };
        assert_eq!((score.shape(), decision.shape()), (&[rows][..], &[rows][..]));
        for (score, decision) in score.iter().zip(decision.iter()) {
            let ood = threshold.decide(f64::from(*score)) == Decision::OutOfDistribution;
            let close = (f64::from(*score) - threshold.score()).abs() <= 1e-6 * threshold.score().abs();
            assert!((*decision != 0) == ood || close, "{score}");
        }
        let calibration = calibrated.calibration().unwrap();
        for (score, p_value) in score.iter().zip(p_value.iter()) {
            let at = |score: f32| calibration.p_value(f64::from(score)) as f32;
            // A division may be a product with the inverse.
            let rounded = 1e-6;
            let range = at(score.next_down()) - rounded..=at(score.next_up()) + rounded;
            assert!(range.contains(p_value), "{score}: {p_value}");
        }
    }
}

fn bits(value: &rten::Value) -> Vec<u32> {
    match value {
        rten::Value::FloatTensor(tensor) => tensor.iter().map(|value| value.to_bits()).collect(),
        rten::Value::Int32Tensor(tensor) => tensor.iter().map(|value| *value as u32).collect(),
        _ => panic!("an output of another type"),
    }
}

#[test]
fn small_models_with_every_kind_of_detector() {
    let specs = [
        "dice(0.9) | energy",
        "react(0.9) | dice(0.5) | energy(temperature=2.0)",
        "msp",
        "react(0.8) | msp(temperature=10.0)",
        "max-logit",
        "unit-drop(0.5, seed=1) | energy",
    ];
    check("cifar10-densenet101.onnx", &specs);
    check("onnc_resnet20.onnx", &specs);
    check("onnxzoo_mnist-8.onnx", &specs);
    check("onnx2c_mnist_pytorch.onnx", &specs[..3]);
    check("tribuo_pytorch_cnn_mnist.onnx", &specs[..3]);
    check("vit_cifar10_pgd_2_3_16.onnx", &specs[..1]);
    check("edge/rten_mnist_external/mnist.onnx", &specs[..1]);
}

#[test]
fn heads_as_convolutions_and_quantised_heads() {
    for name in [
        "conv_st_mobilenet_v1_0.25_224.onnx",
        "winml_squeezenet_fp16.onnx",
        "onnxzoo_mobilenetv2-12-qdq.onnx",
        "diablo_mobilenetv2_quant.onnx",
    ] {
        check(name, &["dice(0.7) | energy"]);
    }
}
