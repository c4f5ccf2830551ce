//! Promises, and what is said where inputs contradict them: the real binary on the demo's data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/mod.rs"]
mod data;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;

use common::{Desk, failed, stderr, succeeded};
use dice_ood::for_each_block;
use dice_ood::io::Dataset;
use serde_json::Value;

/// Features [N, 256] of a file of the desk.
fn features(desk: &Desk, name: &str) -> (Vec<f32>, Vec<i64>) {
    let data = Dataset::new(&[desk.path(name).to_string_lossy().into_owned()]).unwrap();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for_each_block(&mut *data.open().unwrap(), |block| {
        values.extend_from_slice(&block.features);
        labels.extend(block.labels.iter().flatten());
        Ok(())
    })
    .unwrap();
    (values, labels)
}

fn write(desk: &Desk, name: &str, values: impl Iterator<Item = f32>) {
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    fs::write(desk.path(name), npy::npy("<f4", false, &format!("{}, 256", bytes.len() / 1024), &bytes)).unwrap();
}

fn summary(desk: &Desk) -> Value {
    serde_json::from_str(&fs::read_to_string(desk.path("summary.json")).unwrap()).unwrap()
}

/// A desk with inputs of every kind: like the calibration, out-of-distribution, and of another scale.
fn desk() -> Desk {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    let (test, _) = features(&desk, "test.safetensors");
    write(&desk, "x255.npy", test.iter().map(|value| 255.0 * value));
    write(&desk, "shrunk.npy", test.iter().map(|value| value / 10.0));
    desk
}

#[test]
fn every_command_says_where_inputs_contradict_the_promise() {
    let desk = desk();
    for (inputs, side) in [
        ("letters.safetensors", Some("lower")),
        ("photos.safetensors", Some("lower")),
        ("shrunk.npy", Some("lower")),
        ("x255.npy", Some("higher")),
        ("test.safetensors", None),
        ("calibration.safetensors", None),
    ] {
        for detector in ["energy", "dice(0.9) | energy"] {
            for command in [
                &["score", "d.safetensors", inputs, "-o", "out.csv", "--summary", "summary.json"][..],
                &["eval", "d.safetensors", "--id", inputs, "-o", "out.json"],
            ] {
                let chosen = [command, &["-d", detector, "--quiet"]].concat();
                let warned = desk.run(&chosen);
                succeeded(&warned);
                let checked = desk.run(&[&chosen[..], &["--check"]].concat());
                match side {
                    // Quiet silences notes, not warnings.
                    Some(side) => {
                        let (warning, error) = (stderr(&warned), failed(&checked, 1));
                        assert!(warning.starts_with("warning: "), "{chosen:?}: {warning}");
                        for text in [warning, error] {
                            assert!(text.contains(&format!("scores lie {side}")), "{chosen:?}: {text}");
                        }
                    }
                    None => {
                        assert_eq!((stderr(&warned), succeeded(&checked)), (String::new(), String::new()), "{chosen:?}")
                    }
                }
                // Outputs are complete either way.
                let rows = fs::read_to_string(desk.path(command[if command[0] == "score" { 4 } else { 5 }])).unwrap();
                assert!(rows.lines().count() > 20, "{chosen:?}");
            }
            let found = &summary(&desk)["check"];
            assert_eq!(found["verdict"] == "contradicted", side.is_some(), "{inputs} by {detector}: {found}");
        }
    }
}

#[test]
fn a_summary_is_for_programs() {
    let desk = desk();
    succeeded(&desk.line("score d.safetensors photos.safetensors --only ood --summary summary.json -o out.csv"));
    let found = summary(&desk);
    assert_eq!((&found["detector"], &found["rows"]), (&Value::from("energy"), &Value::from(300)));
    let [accepted, rejected] = ["accepted", "rejected"].map(|key| found[key].as_u64().unwrap());
    assert_eq!(accepted + rejected, 300);
    let written = fs::read_to_string(desk.path("out.csv")).unwrap().lines().count() as u64 - 1;
    assert_eq!(written, rejected);
    assert_eq!(found["promise"]["tpr"], 0.95);
    assert_eq!(found["promise"]["calibration_inputs"], 348);
    let check = &found["check"];
    assert!(check["statistic"].as_f64().unwrap() > 0.5 && check["p_value"].as_f64().unwrap() < 1e-9, "{check}");
    assert!(check["acceptance_p_value"].as_f64().unwrap() < 1e-9 && check["scores"] == "lower", "{check}");
    // No promise, no check, and no pretence of one.
    succeeded(
        &desk.line(
            "fit --features train.safetensors --calibration-fraction 0 --head head.safetensors -o bare.safetensors",
        ),
    );
    succeeded(&desk.line("score bare.safetensors photos.safetensors --summary summary.json -o out.csv"));
    let found = summary(&desk);
    assert!(found["check"].is_null() && found["accepted"].is_null() && found["promise"].is_null(), "{found}");
    for command in ["score bare.safetensors test.safetensors", "eval bare.safetensors --id test.safetensors"] {
        for option in ["--check", "--tpr 0.9"] {
            let message = failed(&desk.line(&format!("{command} {option}")), 1);
            assert!(message.contains(option.split(' ').next().unwrap()), "{message}");
        }
    }
    let message = failed(&desk.line("score d.safetensors test.safetensors -o s.csv --summary s.csv"), 1);
    assert!(message.contains("s.csv"), "{message}");
}

#[test]
fn another_rate_is_promised_from_the_same_calibration() {
    let desk = desk();
    let threshold = |options: &str| {
        succeeded(
            &desk.line(&format!("score d.safetensors test.safetensors -o out.csv --summary summary.json{options}")),
        );
        let found = summary(&desk);
        let reported =
            succeeded(&desk.line(&format!("eval d.safetensors --id test.safetensors --format json{options}")));
        let reported: Value = serde_json::from_str(&reported).unwrap();
        assert_eq!(reported["detectors"][0]["decision"]["threshold"], found["promise"]["threshold"]);
        found["promise"]["threshold"].as_f64().unwrap()
    };
    assert_eq!(threshold(""), threshold(" --tpr 0.95"));
    assert!(threshold(" --tpr 0.99") < threshold("") && threshold("") < threshold(" --tpr 0.8"));
    for command in ["score d.safetensors test.safetensors", "eval d.safetensors --id test.safetensors"] {
        let message = failed(&desk.line(&format!("{command} --tpr 0.999")), 1);
        assert!(message.contains("at least 999 for a TPR of 0.999") && message.contains("348"), "{message}");
    }
}

#[test]
fn the_prediction_is_the_networks_own_in_every_format() {
    let desk = Desk::fitted(&["dice(0.99) | energy", "energy"]);
    let (_, labels) = features(&desk, "test.safetensors");
    for detector in ["dice(0.99) | energy", "energy"] {
        let csv = succeeded(&desk.run(&["score", "d.safetensors", "test.safetensors", "-d", detector]));
        // The demo's network gets every test digit right; 1 % of its weights would not.
        let predictions: Vec<i64> =
            csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(predictions, labels, "{detector}");
    }
    for file in ["a.csv", "a.jsonl", "a.parquet"] {
        succeeded(&desk.line(&format!("score d.safetensors test.safetensors -o {file}")));
    }
    let read = |file: &str| {
        let eval = format!("eval --scores --id {file}#prediction --ood x={file}#prediction --format csv --bootstrap 0");
        succeeded(&desk.line(&eval))
    };
    assert_eq!(read("a.csv"), read("a.parquet"));
    let jsonl = fs::read_to_string(desk.path("a.jsonl")).unwrap();
    for (line, label) in jsonl.lines().zip(&labels) {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["prediction"], *label);
    }
    let without = succeeded(&desk.line("score d.safetensors test.safetensors --no-prediction"));
    assert!(without.lines().skip(1).all(|line| line.ends_with(',')), "{without}");
    // What cannot be scored has no class.
    write(&desk, "nan.npy", std::iter::repeat_n(f32::NAN, 256));
    let csv = succeeded(&desk.line("score d.safetensors nan.npy --non-finite ood"));
    assert!(csv.lines().nth(1).unwrap().ends_with(",ood,"), "{csv}");
}

#[test]
fn which_of_several_detectors_scores_is_told() {
    let desk = desk();
    let several = desk.line("score d.safetensors test.safetensors -o out.csv");
    let note = stderr(&several);
    for part in ["'energy'", "first of 2", "--detector"] {
        assert!(note.contains(part), "`{part}` is missing from: {note}");
    }
    let chosen = desk.run(&["score", "d.safetensors", "test.safetensors", "-o", "out.csv", "-d", "energy"]);
    assert!(!stderr(&chosen).contains("first of"), "{}", stderr(&chosen));
}

#[test]
fn an_in_distribution_set_alone_can_be_evaluated() {
    let desk = desk();
    let text = succeeded(&desk.line("eval d.safetensors --id test.safetensors"));
    for part in ["Scores of 349", "median", "ID accepted", "like calibration", "accuracy"] {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    let json = succeeded(&desk.line("eval d.safetensors --id test.safetensors --format json"));
    let report: Value = serde_json::from_str(&json).unwrap();
    let first = &report["detectors"][0];
    assert!(first["average"].is_null() && first["accuracy"] == 1.0 && first["sets"] == Value::Array(vec![]), "{first}");
    assert_eq!(first["decision"]["check"]["verdict"], "consistent");
    let [low, high] = ["q05", "q95"].map(|at| first["id_scores"][at].as_f64().unwrap());
    assert!(low < high);
    let csv = succeeded(&desk.line("eval d.safetensors --id test.safetensors --format csv"));
    assert_eq!(csv.lines().count(), 3, "{csv}");
    succeeded(&desk.line("score d.safetensors test.safetensors -o s.csv"));
    for format in ["table", "markdown", "latex"] {
        let text = succeeded(&desk.line(&format!("eval --scores --id s.csv --format {format}")));
        assert!(text.contains("349"), "{text}");
    }
}

/// Within an instruction-set level results are identical; across levels they agree to this share of the largest score.
const ACROSS_LEVELS: f64 = 2e-6;

#[test]
fn levels_of_instruction_sets_agree_within_the_stated_bound() {
    let detectors = ["energy", "dice(0.9) | energy", "dice(0.7) | energy", "react(0.99) | dice(0.5) | max-logit"];
    let desk = Desk::fitted(&detectors);
    let mut sets = vec![(
        "d.safetensors".to_owned(),
        ["test", "letters", "photos"].map(|set| format!("{set}.safetensors")).to_vec(),
    )];
    if let Some(folder) = data::data("cifar10-densenet101") {
        let file = |name: &str| folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned();
        let (train, head, test) = (file("id_train"), file("head"), file("id_test"));
        let mut fit =
            vec!["fit", "--features", &train, "--head", &head, "--calibration", &test, "-q", "-o", "c.safetensors"];
        detectors.iter().for_each(|detector| fit.extend(["-d", detector]));
        succeeded(&desk.run(&fit));
        sets.push(("c.safetensors".into(), vec![file("svhn"), file("textures")]));
    }
    for (artifact, inputs) in &sets {
        for detector in detectors {
            let score = |level: &str, threads: &str| {
                let mut command = desk.command();
                command.args(["score", artifact]).args(inputs).args(["-q", "--threads", threads, "-d", detector]);
                let output = command.env("DICE_SIMD", level).output().unwrap();
                // A level that this machine lacks is refused by name.
                match output.status.code() {
                    Some(0) => Some(succeeded(&output)),
                    _ => {
                        assert!(failed(&output, 1).contains("DICE_SIMD"));
                        None
                    }
                }
            };
            let scores = |csv: &str| -> Vec<f64> {
                csv.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect()
            };
            let expected = scores(&score("portable", "1").unwrap());
            let largest = expected.iter().fold(0.0f64, |most, score| most.max(score.abs()));
            for level in ["portable", "avx2", "avx512"] {
                let Some(found) = score(level, "1") else { continue };
                assert_eq!(Some(&found), score(level, "3").as_ref(), "{level} depends on threads");
                let differences = scores(&found).into_iter().zip(&expected).map(|(a, b)| (a - b).abs());
                let worst = differences.fold(0.0, f64::max) / largest;
                assert!(worst <= ACROSS_LEVELS, "{level}, {detector} of {artifact}: {worst}");
            }
        }
    }
    // The bound is the one that is written where identical results are promised.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let architecture = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md")).unwrap();
    let help = succeeded(&desk.line("--help"));
    for text in [readme, architecture, help] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("2e-6 of the largest"), "{text}");
    }
}
