//! Every method, exported behind features: what the operators give is what the library says.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

mod common;

use std::process::Command;
use std::sync::Arc;

use dice_onnx::{DECISION, Exporter, FEATURES, Model, P_VALUE, PREDICTION, SCORE};
use dice_ood::graph::Graph;
use dice_ood::methods::METHODS;
use dice_ood::{
    Calibrated, Calibration, Decision, Detector, ErrorKind, Fitting, LinearHead, NO_CLASS, NonFinite, Spec, Statistics,
};
use ndarray::{Array2, ArrayView2, s};
use rten_tensor::prelude::AsView;

const UNITS: usize = 12;
const CLASSES: usize = 5;
const TPR: f64 = 0.7;

/// A sum of k f32 terms errs by at most k 2^-24 of the sum of their magnitudes (Higham, 3.1). A score takes fewer than 30 terms one
/// after the other, whose magnitudes add up to at most 10 times the larger of 1 and the score. A narrow component of `gmm` multiplies
/// squares by up to a thousand, and what it adds takes nearly all of that back; `openmax` multiplies what its distances err by with the
/// slope of a narrow tail; distances of `mds`, `residual` and `rmds` are small differences of large squares; a perturbed
/// logit of `weiper` that rounding moves over the edge of a bin moves a share of 1 / (15 * 500).
fn bound(name: &str, score: f64) -> f64 {
    let amplified = ["gmm", "mds", "openmax", "residual", "rmds", "weiper"].iter().any(|start| name.starts_with(start));
    let magnitude = if amplified { score.abs() + 1000.0 } else { score.abs().max(1.0) };
    300.0 * 0.5 * f64::from(f32::EPSILON) * magnitude
}

/// Rectified features `[64, D]` of five classes that the head tells apart, as those of a network are.
fn features(head: &LinearHead, seed: u64) -> Array2<f32> {
    let mut random = common::uniform(seed);
    Array2::from_shape_fn((64, UNITS), |(row, unit)| {
        (head.weight()[(row % CLASSES, unit)] * 2.0 + random() - 0.3).max(0.0)
    })
}

fn head() -> Arc<LinearHead> {
    let mut random = common::uniform(1);
    // Units of a class of their own, so that the head is right on rows of every class.
    let own = |place: usize| f32::from(u8::from(place % UNITS % CLASSES == place / UNITS));
    let weight = (0..CLASSES * UNITS).map(|place| 0.5 * random() - 0.2 + 0.8 * own(place)).collect();
    Arc::new(LinearHead::from_rows(weight, (0..CLASSES).map(|_| random() * 0.1).collect(), UNITS).unwrap())
}

/// A fitted detector, and for each of some inputs whether rounding may move a p-value that its score is made of.
struct Fitted {
    name: String,
    calibrated: Calibrated,
    uncertain: Vec<bool>,
}

fn fit(spec: &Spec, head: &Arc<LinearHead>, inputs: ArrayView2<'_, f32>) -> Fitted {
    let training = features(head, 2);
    // A few are wrong, as those of any data set.
    let label = |row: i64| (row + i64::from(row % 16 == 9)) % CLASSES as i64;
    let labels: Vec<i64> = (0..training.nrows() as i64).map(label).collect();
    let mut statistics = Statistics::of_head(head, &spec.needs()).unwrap();
    statistics.update_labelled(training.view(), &labels).unwrap();
    let prepared = spec.prepare(&Fitting::new(head, &statistics).unwrap()).unwrap();
    let pipelines = prepared.pipelines();
    let score = |one: &Detector, of: ArrayView2<'_, f32>| one.score(of).unwrap();
    let (mut reference, mut uncertain) = (Vec::new(), vec![false; inputs.nrows()]);
    if prepared.takes_reference() {
        for pipeline in &pipelines {
            let scores = score(pipeline, features(head, 3).view());
            for (uncertain, score) in uncertain.iter_mut().zip(score(pipeline, inputs)) {
                *uncertain |= scores.iter().any(|other| (other - score).abs() <= bound("", score));
            }
            reference.push(scores);
        }
    }
    let detector = prepared.finish(&reference).unwrap();
    let calibration = Calibration::new(score(&detector, features(head, 4).view())).unwrap();
    Fitted { name: spec.to_string(), calibrated: Calibrated::new(detector, calibration, TPR).unwrap(), uncertain }
}

/// Every method's example, its parameters made small enough for the problem at hand, and a combination.
fn specs() -> Vec<Spec> {
    let small = |text: &str| {
        text.replace("(50)", "(3)").replace("(20)", "(8)").replace("(256)", "(4)").replace("(0.99)", "(0.9)")
    };
    let examples = METHODS.iter().map(|entry| small(entry.card.example).parse().unwrap());
    let more = [
        "evidence(lts, mds)",
        "fisher(energy, knn(3))",
        "react(0.9) | dice(0.7) | energy(temperature=2)",
        "msp(temperature=10)",
    ];
    examples.chain(more.iter().map(|text| text.parse().unwrap())).collect()
}

/// The outputs for some inputs.
#[derive(Debug, Default, PartialEq)]
struct Served {
    scores: Vec<f32>,
    p_values: Vec<f32>,
    ood: Vec<bool>,
    classes: Vec<i64>,
}

fn serve(model: &[u8], inputs: ArrayView2<'_, f32>, batch: usize) -> Served {
    let model = rten::ModelOptions::with_all_ops().load(model.to_vec()).unwrap();
    let outputs = [SCORE, P_VALUE, DECISION, PREDICTION].map(|name| model.node_id(name).unwrap());
    let mut served = Served::default();
    for start in (0..inputs.nrows()).step_by(batch) {
        let rows = inputs.slice(s![start..(start + batch).min(inputs.nrows()), ..]);
        let tensor =
            rten_tensor::Tensor::from_data(&[rows.nrows(), UNITS][..], rows.iter().copied().collect::<Vec<_>>());
        let values = model.run(vec![(model.node_id(FEATURES).unwrap(), tensor.view().into())], &outputs, None).unwrap();
        let [
            rten::Value::FloatTensor(scores),
            rten::Value::FloatTensor(p_values),
            rten::Value::Int32Tensor(ood),
            rten::Value::Int32Tensor(classes),
        ] = <[rten::Value; 4]>::try_from(values).unwrap()
        else {
            panic!("outputs of other types")
        };
        served.scores.extend(scores.iter());
        served.p_values.extend(p_values.iter());
        served.ood.extend(ood.iter().map(|ood| *ood != 0));
        served.classes.extend(classes.iter().map(|class| i64::from(*class)));
    }
    served
}

/// How many of `served` are far enough from the threshold, and from calibration scores, to say that they agree.
fn check(fitted: &Fitted, inputs: ArrayView2<'_, f32>, served: &Served) -> [usize; 2] {
    let (name, calibrated) = (&fitted.name, &fitted.calibrated);
    let expected = calibrated.detector().evaluate(inputs, NonFinite::OutOfDistribution).unwrap();
    let (threshold, calibration) = (calibrated.threshold().unwrap(), calibrated.calibration().unwrap());
    assert_eq!(served.scores.len(), inputs.nrows(), "{name}");
    let mut compared = [0; 2];
    for (row, expected) in expected.scores.into_iter().enumerate() {
        let score = f64::from(served.scores[row]);
        if expected == f64::NEG_INFINITY {
            let smallest = (1.0 / (calibration.scores().len() + 1) as f64) as f32;
            assert!(score.is_nan() && served.ood[row] && served.classes[row] == -1, "{name}, row {row}: {score}");
            assert_eq!(served.p_values[row], smallest, "{name}, row {row}");
            continue;
        }
        if fitted.uncertain[row] {
            continue;
        }
        assert!((score - expected).abs() <= bound(name, expected), "{name}, row {row}: {score} for {expected}");
        if (expected - threshold.score()).abs() > bound(name, expected) {
            let ood = threshold.decide(expected) == Decision::OutOfDistribution;
            assert_eq!(served.ood[row], ood, "{name}, row {row}: {score}, threshold {}", threshold.score());
            compared[usize::from(ood)] += 1;
        }
        if calibration.scores().iter().all(|other| (other - expected).abs() > bound(name, expected)) {
            let p_value = calibration.p_value(expected);
            assert!((f64::from(served.p_values[row]) - p_value).abs() <= 1e-6, "{name}, row {row}");
        }
    }
    for (row, class) in expected.classes.into_iter().enumerate().filter(|(_, class)| *class != NO_CLASS) {
        assert_eq!(served.classes[row], i64::from(class), "{name}, row {row}");
    }
    compared
}

fn scorable(head: &LinearHead) -> Array2<f32> {
    let mut inputs = ndarray::concatenate![ndarray::Axis(0), features(head, 5), features(head, 6)];
    inputs.row_mut(100).fill(0.0);
    inputs
}

/// Inputs as those of the training, one of zeros, and some that cannot be scored.
fn inputs(head: &LinearHead) -> Array2<f32> {
    let mut inputs = scorable(head);
    for unit in 0..UNITS {
        for (place, value) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
            inputs[(3 * unit + place, unit)] = value;
        }
    }
    inputs
}

#[test]
fn every_method_alone_in_every_runtime() {
    let head = head();
    let inputs = inputs(&head);
    let clean = scorable(&head);
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = inputs.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.path().join("features.f32"), bytes).unwrap();
    let mut exported = Vec::new();
    for (place, spec) in specs().into_iter().enumerate() {
        let fitted = fit(&spec, &head, clean.view());
        if fitted.calibrated.detector().express(&mut Graph::default()).is_none() {
            let error = Exporter::new(&fitted.calibrated).unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(&fitted.name), "{error}");
            continue;
        }
        let export = Exporter::new(&fitted.calibrated).unwrap().alone().unwrap();
        for batch in [1, 7, 64] {
            let served = serve(export.bytes(), inputs.view(), batch);
            let compared = check(&fitted, inputs.view(), &served);
            assert!(compared.iter().all(|count| *count >= 10), "{}: {compared:?}", fitted.name);
        }
        export.write(&folder.path().join(format!("{place}.onnx"))).unwrap();
        exported.push((place, fitted));
    }
    assert!(exported.len() >= METHODS.len() / 2, "few can be exported");
    let Some(python) = common::python() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/features.py");
    let output = Command::new(python).arg(script).arg(folder.path()).arg(UNITS.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (place, fitted) in exported {
        for batch in [1, 7, 64] {
            let read = |name: &str| folder.path().join(format!("{place}.onnx.{name}.{batch}"));
            let served = Served {
                scores: common::floats(&read(SCORE)),
                p_values: common::floats(&read(P_VALUE)),
                ood: std::fs::read(read(DECISION)).unwrap().into_iter().map(|byte| byte != 0).collect(),
                classes: common::integers(&read(PREDICTION)),
            };
            check(&fitted, inputs.view(), &served);
        }
    }
}

#[test]
fn an_exported_detector_says_what_it_is_and_one_without_calibration_decides_nothing() {
    let head = head();
    let fitted = fit(&"dice(0.7) | energy".parse().unwrap(), &head, features(&head, 5).view());
    let notes = [("model".to_owned(), "net.onnx".to_owned())].into();
    let export = Exporter::new(&fitted.calibrated).unwrap().notes(&notes).alone().unwrap();
    let model = Model::from_bytes(export.bytes().to_vec(), "head.onnx").unwrap();
    let notes: Vec<(&str, &str)> = model.metadata().collect();
    for (key, value) in [("detector", "dice(0.7) | energy"), ("tpr", "0.7"), ("model", "net.onnx")] {
        assert!(notes.contains(&(&*format!("dice_ood.{key}"), value)), "{notes:?}");
    }
    let names = |model: &Model| -> Vec<String> { model.outputs().into_iter().map(|output| output.name).collect() };
    assert_eq!(names(&model), [SCORE, P_VALUE, DECISION, PREDICTION]);
    let scores = Calibrated::scores_only(fitted.calibrated.detector().clone());
    let export = Exporter::new(&scores).unwrap().alone().unwrap();
    let model = Model::from_bytes(export.bytes().to_vec(), "head.onnx").unwrap();
    assert_eq!(names(&model), [SCORE, PREDICTION]);
}

#[test]
fn a_bank_is_counted() {
    let head = head();
    let bytes = |spec: &str| {
        let fitted = fit(&spec.parse().unwrap(), &head, features(&head, 5).view());
        Exporter::new(&fitted.calibrated).unwrap().constant_bytes()
    };
    let bank = 64 * UNITS * size_of::<f32>();
    assert!((bank..bank + 1024).contains(&bytes("knn(3)")), "{}", bytes("knn(3)"));
    assert!(bytes("energy") < 1024);
}
