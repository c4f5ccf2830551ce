//! `dice sweep` and `dice tune` by the real binary, on the demo's data and on real features where these are at hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Desk, failed, stderr, succeeded};
use serde_json::Value;

const SETS: &str = "--id test.safetensors --ood letters=letters.safetensors --ood far:photos=photos.safetensors";
const FIT: &str = "--features train.safetensors --head head.safetensors";

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

/// `dice COMMAND` with detectors, which have spaces, behind the words of a line.
fn run(desk: &Desk, line: &str, detectors: &[&str]) -> std::process::Output {
    let mut arguments = words(line);
    detectors.iter().for_each(|detector| arguments.extend(["-d", detector]));
    desk.run(&arguments)
}

#[test]
fn a_sweep_gives_what_eval_gives_for_each_value_within_rounding() {
    let desk = Desk::fitted(&["energy"]);
    let line = format!("sweep d.safetensors --grid P=0:0.9:4 --format json {SETS}");
    let swept: Value =
        serde_json::from_str(&succeeded(&run(&desk, &line, &["react(0.99) | dice(P) | energy"]))).unwrap();
    let points = swept["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    for point in points {
        let line = format!("eval d.safetensors --bootstrap 0 --format json {SETS}");
        let report: Value =
            serde_json::from_str(&succeeded(&run(&desk, &line, &[point["detector"].as_str().unwrap()]))).unwrap();
        let of_eval = &report["detectors"][0];
        for (one, other) in point["sets"].as_array().unwrap().iter().zip(of_eval["sets"].as_array().unwrap()) {
            // Rounding can turn neighbouring scores round: a handful of 250,000 pairs.
            let difference = one["auroc"].as_f64().unwrap() - other["auroc"].as_f64().unwrap();
            assert!(difference.abs() < 1e-4, "{difference}");
        }
        assert!(point["accuracy"].as_f64().unwrap() > 0.5);
        assert_eq!(point["far"]["auroc"], point["sets"][1]["auroc"]);
    }
    let kept = |place: usize| points[place]["contribution_kept"].as_f64().unwrap();
    assert!(kept(0) == 1.0 && kept(1) >= kept(2) && kept(2) > kept(3));
}

#[test]
fn a_sweep_is_a_table_with_curves_and_sorts() {
    let desk = Desk::fitted(&["energy"]);
    let line = format!("sweep d.safetensors --grid S=paper,openood --grid P=0.3,0.6,0.9 --sort auroc {SETS}");
    let output = run(&desk, &line, &["dice(P, preset=S) | energy"]);
    let text = succeeded(&output);
    assert!(text.contains("S=openood, P=0.3..0.9: average FPR"), "{text}");
    assert!(stderr(&output).contains("dice tune"));
    let aurocs = |text: &str| -> Vec<f64> {
        let csv: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        let column = csv[0].iter().position(|name| *name == "average_auroc").unwrap();
        // Specs with a comma are quoted, and take one more place.
        csv[1..].iter().map(|row| row[column + row.len() - csv[0].len()].parse().unwrap()).collect()
    };
    let line = format!("{line} --format csv");
    let sorted = aurocs(&succeeded(&run(&desk, &line, &["dice(P, preset=S) | energy"])));
    assert!(sorted.len() == 6 && sorted.windows(2).all(|pair| pair[0] >= pair[1]), "{sorted:?}");
    let line = format!("sweep {FIT} --grid K=5,50 -o sweep.md {SETS}");
    succeeded(&run(&desk, &line, &["knn(K)", "fisher(energy, knn(K))"]));
    let text = fs::read_to_string(desk.path("sweep.md")).unwrap();
    assert!(text.contains("| knn |") && text.contains("fisher(energy, knn(5))"), "{text}");
}

#[test]
fn a_sweep_refuses_by_name() {
    let desk = Desk::fitted(&["energy"]);
    let message = |line: &str, detector: &str, code| {
        failed(&run(&desk, &format!("sweep d.safetensors {SETS} {line}"), &[detector]), code)
    };
    assert!(message("", "dice(P) | energy", 1).contains("P without a grid"));
    assert!(message("--grid P=0.1", "energy", 1).contains("stands in no detector"));
    assert!(message("--grid P=", "dice(P) | energy", 2).contains("P="));
    assert!(message("--grid P=0.1,1.5", "dice(P) | energy", 2).contains("below 1"));
    assert!(message("--grid K=1,2", "fisher(energy, knn(K))", 1).contains("bank"));
}

/// The same file as both sides says nothing about detectors, and is told of also where notes are not.
#[test]
fn sets_that_are_in_distribution_are_told_of() {
    let desk = Desk::fitted(&["energy"]);
    let sets = "--id test.safetensors --ood same=test.safetensors --ood photos=photos.safetensors --quiet";
    let said = |output: &std::process::Output| {
        succeeded(output);
        let said = stderr(output);
        assert!(said.contains("same: 100.00 % of its rows are in-distribution inputs too"), "{said}");
        assert!(!said.contains("photos"), "{said}");
    };
    said(&desk.line(&format!("eval d.safetensors --bootstrap 0 {sets}")));
    said(&run(&desk, &format!("sweep d.safetensors --grid P=0.5 {sets}"), &["dice(P) | energy"]));
    let report = succeeded(&desk.line(&format!("eval d.safetensors --bootstrap 0 --format json {sets}")));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["overlaps"], serde_json::json!([{"ood": "same", "share": 1.0}]));
}

#[test]
fn tune_chooses_writes_and_says_how_sure_it_is() {
    let desk = Desk::new();
    let line = format!(
        "tune {FIT} --id test.safetensors --ood letters=letters.safetensors --ood photos=photos.safetensors --bootstrap 200 -o c.safetensors"
    );
    let text = succeeded(&desk.run(&words(&line)));
    for part in
        ["Chosen: ", "real out-of-distribution inputs: letters, photos", "Difference to ", "neither chose nor reported"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let inspected = succeeded(&desk.line("inspect c.safetensors"));
    let chosen = text.lines().next().unwrap().trim_start_matches("Chosen: ");
    assert!(inspected.contains(chosen), "{inspected}");
    succeeded(&desk.line("score c.safetensors photos.safetensors -o scores.csv"));
    // The same again, in bytes.
    let first = fs::read(desk.path("c.safetensors")).unwrap();
    succeeded(&desk.run(&words(&line)));
    assert!(first == fs::read(desk.path("c.safetensors")).unwrap());
}

#[test]
fn tune_says_what_it_chose_by() {
    let desk = Desk::new();
    let chosen_by = |line: &str, detectors: &[&str]| -> Value {
        let line = format!("tune {FIT} --bootstrap 50 --format json {line}");
        serde_json::from_str(&succeeded(&run(&desk, &line, detectors))).unwrap()
    };
    let classes = chosen_by("--id test.safetensors", &["msp"]);
    assert_eq!(classes["validation"], "held-out classes");
    let noise = chosen_by("--validation noise", &["msp"]);
    assert!(noise["worth"].as_str().unwrap().contains("badly"));
    let stand_ins =
        chosen_by("--id test.safetensors --standin letters=letters.safetensors", &["msp", "dice(0.9) | energy"]);
    assert_eq!(stand_ins["validation"], "distorted in-distribution images");
    let parts = &stand_ins["parts"];
    let rows: u64 = ["id_choosing", "id_reporting", "id_calibration", "id_reference"]
        .iter()
        .map(|part| parts[part].as_u64().unwrap())
        .sum();
    let of_test = succeeded(&desk.line("eval --help"));
    assert!(rows > 300 && !of_test.is_empty(), "{rows}");
}

#[test]
fn tune_goes_on_from_stages_that_are_kept() {
    let desk = Desk::new();
    let line = format!(
        "tune {FIT} --id test.safetensors --ood photos=photos.safetensors --bootstrap 50 --resume stages.json --format json"
    );
    let first = succeeded(&run(&desk, &line, &["msp", "dice(0.9) | energy"]));
    assert!(desk.path("stages.json").exists());
    assert_eq!(succeeded(&run(&desk, &line, &["msp", "dice(0.9) | energy"])), first);
    assert!(failed(&run(&desk, &line, &["msp"]), 1).contains("stages.json"));
    let other = line.replace("stages.json", "train.safetensors");
    failed(&run(&desk, &other, &["msp"]), 1);
}

#[test]
fn tune_refuses_by_name() {
    let desk = Desk::fitted(&["energy"]);
    let message = |line: &str, code| failed(&run(&desk, &format!("tune {line}"), &["msp"]), code);
    let id = "--id test.safetensors";
    assert!(message(&format!("{FIT} {id} --ood same=test.safetensors"), 1).contains("'same'"));
    assert!(message(&format!("{FIT} {id} --validation standins"), 1).contains("--standin"));
    assert!(message(&format!("d.safetensors {id} --validation classes"), 1).contains("held-out classes"));
    assert!(message("d.safetensors", 2).contains("--id"));
    assert!(message(&format!("{FIT} {id} --grid P=0.5"), 1).contains("stands in no detector"));
}

/// The folder of real features, if it is there.
fn real() -> Option<PathBuf> {
    let folder = std::env::var_os("DICE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = folder.join("cifar10-densenet101");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no real features at {}", folder.display());
    None
}

/// The published figures of p = 0.9 and p = 0 on the paper's own network, from the sweep: 27.87 and 38.81 on SVHN.
#[test]
fn a_sweep_of_the_papers_network_has_its_published_ends() {
    let Some(folder) = real() else { return };
    let file = |name: &str| folder.join(name).display().to_string();
    let desk = Desk::new();
    let (mean, head, id) = (file("mean_activation.safetensors"), file("head.safetensors"), file("id_test.safetensors"));
    let svhn = format!("svhn={}", file("svhn.safetensors"));
    let output = desk.run(&[
        "sweep",
        "--statistics",
        &mean,
        "--head",
        &head,
        "--id",
        &id,
        "--ood",
        &svhn,
        "-d",
        "dice(P, preset=official) | energy",
        "--grid",
        "P=0.7,0.9,0.99",
        "--format",
        "json",
    ]);
    let swept: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let at = &swept["points"][1]["sets"][0];
    assert!((at["fpr_at_tpr"].as_f64().unwrap() - 0.2787).abs() < 2e-3, "{at}");
    assert!((at["auroc"].as_f64().unwrap() - 0.94979).abs() < 2e-4, "{at}");
}
