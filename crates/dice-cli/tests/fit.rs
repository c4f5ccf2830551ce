//! What `dice fit` says of inputs that do not belong together: to people, to `--quiet` runs and to machines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;

use common::{Desk, failed, stderr, succeeded};
use serde_json::{Value, json};

/// The bytes of a tensor of a safetensors file.
fn tensor(file: &[u8], name: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let offset = |end: usize| 8 + length + header[name]["data_offsets"][end].as_u64().unwrap() as usize;
    file[offset(0)..offset(1)].to_vec()
}

/// A safetensors file of f32 tensors.
fn safetensors(tensors: &[(&str, &[usize], &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (json!({}), Vec::new());
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// A desk with, beside the demo's files, `layers.safetensors`: a state dict in which another matrix of the head's shape comes before
/// the head, and labels of the training data that are shifted, `shifted.npy`.
fn desk() -> Desk {
    let desk = Desk::new();
    let head = fs::read(desk.path("head.safetensors")).unwrap();
    let layer = tensor_name(&head);
    let (weight, bias) = (tensor(&head, &format!("{layer}weight")), tensor(&head, &format!("{layer}bias")));
    // The units in another order, as those of another layer are.
    let other: Vec<u8> =
        weight.chunks_exact(4 * 256).flat_map(|row| row.chunks_exact(4).rev().flatten()).copied().collect();
    let layers: [(&str, &[usize], &[u8]); 4] = [
        ("fc.weight", &[10, 256], &other),
        ("fc.bias", &[10], &bias),
        ("classifier.weight", &[10, 256], &weight),
        ("classifier.bias", &[10], &bias),
    ];
    fs::write(desk.path("layers.safetensors"), safetensors(&layers)).unwrap();
    let labels = tensor(&fs::read(desk.path("train.safetensors")).unwrap(), "labels");
    let shifted =
        labels.chunks_exact(8).flat_map(|label| (i64::from_le_bytes(label.try_into().unwrap()) + 1).to_le_bytes());
    fs::write(desk.path("shifted.npy"), npy::npy("<i8", false, "1100,", &shifted.collect::<Vec<u8>>())).unwrap();
    let outputs: Vec<u8> = (0..11_000).flat_map(|value| (value as f32 / 7.0).sin().to_le_bytes()).collect();
    fs::write(desk.path("logits.npy"), npy::npy("<f4", false, "1100, 10", &outputs)).unwrap();
    desk
}

/// What stands before `weight` in the name of the head's weight.
fn tensor_name(file: &[u8]) -> String {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let name = header.as_object().unwrap().keys().find_map(|name| name.strip_suffix("weight"));
    name.unwrap().to_owned()
}

const FIT: &str = "fit --features train.safetensors -o d.safetensors";

#[test]
fn what_belongs_together_raises_no_warning() {
    let desk = desk();
    for head in ["head.safetensors", "layers.safetensors#classifier"] {
        let output = desk.line(&format!("{FIT} --head {head} --calibration calibration.safetensors --format json -q"));
        let told: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        assert_eq!((told["warnings"].clone(), stderr(&output).as_str()), (json!([]), ""));
        assert_eq!(told["accuracy"]["share"], 1.0);
        // Half of them are for the p-values of the members of the choice.
        let inputs = |place: usize| told["detectors"][place]["calibration_inputs"].as_u64();
        assert_eq!([0, 1, 2].map(inputs), [Some(174), Some(348), Some(348)]);
    }
    let message = failed(&desk.line(&format!("{FIT} --head layers.safetensors")), 1);
    assert!(message.contains("`fc.weight`") && message.contains("`classifier.weight`"), "{message}");
    let said = stderr(&desk.line(&format!("{FIT} --head layers.safetensors#classifier")));
    assert!(said.contains("Head of layers.safetensors: `classifier.weight` f32 [10, 256]"), "{said}");
    let said = stderr(&desk.line(&format!("{FIT} --head head.safetensors")));
    assert!(said.contains("from head.safetensors"), "{said}");
    assert!(said.contains("Accuracy of the head on the training features: 100.00 % (of 988 labelled rows)"), "{said}");
}

/// Quiet runs print warnings, and machines get their figures.
#[test]
fn what_does_not_belong_together_is_said_also_to_quiet_runs_and_machines() {
    let desk = desk();
    for (arguments, kind, words) in [
        ("--head layers.safetensors#fc", "head-does-not-fit", "no better than with its units shuffled"),
        ("--head head.safetensors --labels shifted.npy", "labels-shifted", "with -1 added to each"),
        ("--head head.safetensors --labels shifted.npy", "labels-out-of-range", "labels run from 1 to 10"),
        ("--head head.safetensors --calibration photos.safetensors", "calibration-unlike-training", "in-distribution"),
        (
            "--head head.safetensors --calibration calibration.safetensors calibration.safetensors",
            "calibration-repeats",
            "Only 348 of the 696",
        ),
    ] {
        let output = desk.line(&format!("{FIT} {arguments} --format json --quiet"));
        let told: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        let warnings = told["warnings"].as_array().unwrap();
        let warning = warnings.iter().find(|warning| warning["kind"] == kind);
        let message = warning.unwrap_or_else(|| panic!("{arguments}: {told}"))["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        let said = stderr(&output);
        assert_eq!(said.matches("warning: ").count(), warnings.len(), "{said}");
        assert!(said.contains(words) && !said.contains("Fitted to"), "{said}");
    }
}

#[test]
fn what_can_never_be_meant_is_refused() {
    let desk = desk();
    let before = desk.listing();
    for (arguments, parts) in [
        (
            format!("{FIT} --head head.safetensors --calibration train.safetensors"),
            &["train.safetensors", "100.0 % of which the detector was fitted to"][..],
        ),
        (
            "fit --features logits.npy --head head.safetensors -o d.safetensors".into(),
            &["logits.npy", "as many columns as the head has classes", "[N, 256]"],
        ),
    ] {
        let message = failed(&desk.line(&arguments), 1);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(desk.listing(), before);
    }
}

/// No command decides from the share of near-silent units whether DICE helps: measuring does.
#[test]
fn facts_about_units_and_no_verdict() {
    let desk = Desk::fitted(&["dice(0.9) | energy"]);
    let fitted = stderr(&desk.line(&format!("{FIT} --head head.safetensors")));
    for text in [fitted, succeeded(&desk.line("inspect d.safetensors")), succeeded(&desk.line("demo"))] {
        assert!(text.contains("near-silent on training data (mean activation below 1 % of the largest)"), "{text}");
        for verdict in ["noise to prune", "carry signal", "usually helps", "often does worse"] {
            assert!(!text.contains(verdict), "{text}");
        }
    }
}
