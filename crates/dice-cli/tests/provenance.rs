//! What pages rest on, by the real binary beside `sha256sum`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::process::Command;

use common::{Desk, colours, succeeded};
use serde_json::{Value, json};

/// What a shell says in the folder of a desk, up to the first space.
fn shell(desk: &Desk, script: &str) -> String {
    let ran = Command::new("sh").args(["-c", script]).current_dir(desk.folder.path()).output().unwrap();
    let told = succeeded(&ran);
    let hash = told.split(' ').next().unwrap();
    assert_eq!(hash.len(), 64, "{told}");
    hash.to_owned()
}

/// The provenance in `t/report.json`, and the page.
fn reported(desk: &Desk, arguments: &str) -> (Value, String) {
    succeeded(&desk.line(&format!("report {arguments} --bootstrap 0 --quiet -o r.html --tables t")));
    let numbers: Value = serde_json::from_slice(&fs::read(desk.path("t/report.json")).unwrap()).unwrap();
    (numbers["provenance"].clone(), fs::read_to_string(desk.path("r.html")).unwrap())
}

/// Of each source: its role, how many files it has, its hash.
fn sources(provenance: &Value) -> Vec<(&str, u64, &str)> {
    let all = provenance["sources"].as_array().unwrap();
    let of = |one| -> Option<_> {
        let one: &Value = one;
        Some((one["role"].as_str()?, one["files"].as_u64()?, one["sha256"].as_str().unwrap_or("none")))
    };
    all.iter().map(|one| of(one).unwrap()).collect()
}

#[test]
fn files_have_the_hashes_of_sha256sum() {
    let desk = Desk::fitted(&["energy"]);
    fs::create_dir_all(desk.path("parts/a")).unwrap();
    fs::copy(desk.path("letters.safetensors"), desk.path("parts/a/one.safetensors")).unwrap();
    fs::copy(desk.path("letters.safetensors"), desk.path("parts/two.safetensors")).unwrap();
    let line = "d.safetensors --id parts/two.safetensors parts/a/one.safetensors --ood x=letters.safetensors";
    let (provenance, page) = reported(&desk, line);
    let file = |name: &str| shell(&desk, &format!("sha256sum {name}"));
    let list = "cd parts && find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";
    let hashes = [file("d.safetensors"), shell(&desk, list), file("letters.safetensors")];
    let expected = [("detectors", 1), ("in-distribution", 2), ("out-of-distribution", 1)];
    let expected: Vec<_> = expected.iter().zip(&hashes).map(|((role, files), hash)| (*role, *files, &**hash)).collect();
    assert_eq!(sources(&provenance), expected);
    assert_eq!(provenance["sources"][2]["set"], "x");
    assert!(hashes.iter().all(|hash| page.contains(hash.as_str())));
    let commands = provenance["commands"].as_array().unwrap();
    assert!(commands.len() == 1 && commands[0].as_str().unwrap().starts_with("dice report d.safetensors --id parts/"));
    // Another byte is another hash, of the set and of nothing else.
    fs::copy(desk.path("photos.safetensors"), desk.path("parts/two.safetensors")).unwrap();
    let (again, _) = reported(&desk, line);
    assert_eq!(sources(&again)[0], sources(&provenance)[0]);
    assert_ne!(sources(&again)[1].2, sources(&provenance)[1].2);
}

#[test]
fn a_folder_of_images_and_its_network_have_hashes() {
    let desk = colours();
    succeeded(&desk.line(
        "fit --model colours.onnx --images train --preprocess plain.json --calibration-fraction 0.25 -d energy -o n.safetensors --quiet",
    ));
    let (provenance, page) = reported(&desk, "n.safetensors --model colours.onnx --id test --ood grey=grey");
    let list = |folder: &str| {
        let listed = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";
        shell(&desk, &format!("cd {folder} && {listed}"))
    };
    let file = |name: &str| shell(&desk, &format!("sha256sum {name}"));
    assert_eq!(
        sources(&provenance),
        [
            ("detectors", 1, &*file("n.safetensors")),
            ("network", 1, &*file("colours.onnx")),
            ("in-distribution", 60, &*list("test")),
            ("out-of-distribution", 20, &*list("grey"))
        ]
    );
    assert!(page.contains("60 files, whose list by sha256sum has SHA-256"));
}

#[test]
fn streams_labels_and_scores_are_told() {
    let desk = Desk::fitted(&["energy"]);
    succeeded(&desk.line("score d.safetensors test.safetensors -o id.csv --quiet"));
    let (provenance, _) = reported(&desk, "--scores --id id.csv#score --ood x=id.csv#score");
    let hash = shell(&desk, "sha256sum id.csv");
    assert_eq!(sources(&provenance), [("in-distribution", 1, &*hash), ("out-of-distribution", 1, &*hash)]);
    assert_eq!(provenance["sources"][0]["given"], json!(["id.csv#score"]));
    let script = format!(
        "cat test.safetensors | '{}' report d.safetensors --id - --bootstrap 0 --quiet -o r.html --tables t",
        env!("CARGO_BIN_EXE_dice")
    );
    let ran = Command::new("sh").args(["-c", &script]).current_dir(desk.folder.path()).output().unwrap();
    succeeded(&ran);
    assert!(fs::read_to_string(desk.path("r.html")).unwrap().contains("a stream, without a hash"));
}
