//! `dice diagnose`, with the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Desk, failed, stderr, succeeded};
use serde_json::Value;

const TRAIN: &str = "diagnose train.safetensors --head head.safetensors";

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

#[test]
fn a_diagnosis_says_near_and_far_apart() {
    let desk = Desk::new();
    let text = succeeded(&desk.line(TRAIN));
    let verdict = text.lines().find(|line| line.starts_with("Expect: ")).unwrap();
    assert!(verdict.contains("far OOD ") && verdict.contains("near OOD "), "{verdict}");
    for part in
        ["kept ", "unused", "near-silent", "collapse", "variance kept", "own-logit signal", "At other sparsities"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("\x1b"), "no colour in a pipe");
}

#[test]
fn everything_is_there_for_programs() {
    let desk = Desk::new();
    let sets =
        "--id test.safetensors --ood near:letters=letters.safetensors --ood far:photos=photos.safetensors --simulate";
    let found = json(&succeeded(&desk.line(&format!("{TRAIN} {sets} --format json"))));
    assert_eq!(found["sets"].as_array().unwrap().len(), 3);
    assert_eq!((&found["sets"][0]["kind"], &found["sets"][2]["distance"]), (&"in_distribution".into(), &"far".into()));
    for (distance, set) in [("near", 1), ("far", 2)] {
        let expected = &found["forecast"][distance];
        assert_eq!(expected["rule"], "measured");
        let gain = found["sets"][set]["separation"]["gain"]["value"].as_f64().unwrap();
        assert!((expected["gain"].as_f64().unwrap() - gain).abs() < 1e-12);
    }
    let simulated = &found["simulation"];
    let number = |name: &str| simulated[name].as_f64().unwrap();
    assert!((number("reduction") / number("reduction_by_lemma") - 1.0).abs() < 0.15, "{simulated}");
    assert!(found["sets"][0]["accuracy"][0].as_f64().unwrap() > 0.5);

    // What it gains is what `dice eval` measures.
    succeeded(
        &desk
            .line("fit --features train.safetensors --head head.safetensors --calibration-fraction 0 -o d.safetensors"),
    );
    let eval = "eval d.safetensors --id test.safetensors --ood letters=letters.safetensors -d energy --bootstrap 0 --format json";
    let report = json(&succeeded(
        &desk.run(&[&eval.split(' ').collect::<Vec<_>>()[..], &["-d", "dice(0.9) | energy"]].concat()),
    ));
    let auroc = |detector: usize| report["detectors"][detector]["sets"][0]["auroc"].as_f64().unwrap();
    let gain = found["sets"][1]["separation"]["gain"]["value"].as_f64().unwrap();
    assert!((gain - (auroc(1) - auroc(0))).abs() < 1e-4, "{gain}");

    // The same bytes in a file, and at any number of threads.
    let written = format!("{TRAIN} {sets} -o found.json");
    succeeded(&desk.line(&written));
    assert_eq!(json(&fs::read_to_string(desk.path("found.json")).unwrap()), found);
    assert_eq!(json(&succeeded(&desk.line(&format!("{TRAIN} {sets} --format json --threads 1")))), found);
}

#[test]
fn the_head_of_a_detector_and_standard_input_serve() {
    let desk = Desk::fitted(&[]);
    let piped = |file: &str| {
        let mut command = desk.command();
        command.args(["diagnose", "-", "--head", "d.safetensors", "--format", "json"]);
        succeeded(&command.stdin(fs::File::open(desk.path(file)).unwrap()).output().unwrap())
    };
    let plain = json(&succeeded(&desk.line(&format!("{TRAIN} --format json"))));
    assert_eq!(json(&piped("train.safetensors"))["sets"][0]["signal"], plain["sets"][0]["signal"]);
    let swapped = failed(&desk.line("diagnose d.safetensors --head head.safetensors"), 1);
    assert!(swapped.contains("expected features [N, D], found a detector"), "{swapped}");
}

#[test]
fn the_lemma_is_drawn_without_features() {
    let desk = Desk::new();
    let text = succeeded(&desk.line("diagnose --simulate --seed 3"));
    assert!(text.contains("lower for 10 of them"), "{text}");
    assert_eq!(text, succeeded(&desk.line("diagnose --simulate --seed 3")));
    assert_ne!(text, succeeded(&desk.line("diagnose --simulate --seed 4")));
}

#[test]
fn wrong_input_is_named() {
    let desk = Desk::new();
    let told = |line: &str, code: i32, parts: &[&str]| {
        let message = failed(&desk.line(line), code);
        parts.iter().for_each(|part| assert!(message.contains(part), "{line}: {message}"));
    };
    told("diagnose", 2, &["<FEATURES>"]);
    told("diagnose train.safetensors", 2, &["--head"]);
    told("diagnose absent.npy --head head.safetensors", 1, &["absent.npy"]);
    told(&format!("{TRAIN} --ood letters.safetensors"), 2, &["near:NAME=FILE"]);
    told(&format!("{TRAIN} --ood near:=letters.safetensors"), 2, &["near:NAME=FILE"]);
    told(&format!("{TRAIN} --ood far:x=absent.npy"), 1, &["absent.npy"]);
    told(&format!("{TRAIN} --ood x=letters.safetensors --standin x=photos.safetensors"), 1, &["'x' twice"]);
    told(&format!("{TRAIN} -d energy"), 1, &["'energy'", "SPARSITY | energy"]);
    told(&format!("{TRAIN} -d dcie(0.9)|energy"), 2, &["did you mean `dice`"]);
    told(&format!("{TRAIN} --seed 3"), 2, &["--simulate"]);
    fs::write(desk.path("short.csv"), "label\n0\n1\n").unwrap();
    told(&format!("{TRAIN} --labels short.csv"), 1, &["short.csv", "found 2 labels"]);
    fs::write(desk.path("wide.csv"), "label\n".to_owned() + &"99\n".repeat(1100)).unwrap();
    told(&format!("{TRAIN} --labels wide.csv"), 1, &["label 99", "0 to 9"]);
    fs::write(desk.path("bad.csv"), "f0,f1\n1,2\n").unwrap();
    told("diagnose bad.csv --head head.safetensors", 1, &["bad.csv"]);
    let same = desk.line(&format!("{TRAIN} -o train.safetensors"));
    assert_eq!(same.status.code(), Some(1), "{}", stderr(&same));
    assert!(desk.listing().iter().all(|name| !name.starts_with(".dice")), "{:?}", desk.listing());
}

fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

/// The paper's network: what its masks keep was published, and what it gains the authors' code gave.
#[test]
fn on_the_papers_network() {
    let Some(folder) = shared("cifar10-densenet101") else { return };
    let file = |name: &str| folder.join(name).display().to_string();
    let found = Desk::new().run(&[
        "diagnose",
        &file("id_train.safetensors"),
        "--head",
        &file("head.safetensors"),
        "--id",
        &file("id_test.safetensors"),
        "--ood",
        &format!("far:svhn={}", file("svhn.safetensors")),
        "--format",
        "json",
    ]);
    let found = json(&succeeded(&found));
    assert_eq!((&found["mask"]["kept"], &found["mask"]["unused_units"]), (&342.into(), &254.into()));
    let separation = &found["sets"][1]["separation"];
    let percent = |name: &str| 100.0 * separation[name].as_f64().unwrap();
    // official_metrics.json: 94.222 and 94.979.
    assert!((percent("auroc_before") - 94.222).abs() < 0.01 && (percent("auroc_after") - 94.979).abs() < 0.01);
    assert_eq!(found["forecast"]["far"]["rule"], "measured");
    let accuracy = |place: usize| found["sets"][0]["accuracy"][place].as_f64().unwrap();
    assert!((accuracy(0) - 0.9454).abs() < 1e-9 && (accuracy(1) - 0.9438).abs() < 1e-9);
}
