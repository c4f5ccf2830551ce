//! Features that a network made, kept for the next command, with the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use common::{Desk, colours, stderr, succeeded};

const FIT: &str = "fit --model colours.onnx --images train --preprocess plain.json --calibration test -d energy -d msp";
const COMPUTED: &str = "the network runs";
const KEPT: &str = "those that kept keeps";

/// Standard output, and how many sets of features were computed and taken from what was kept.
fn ran(output: &Output) -> (String, usize, usize) {
    let said = stderr(output);
    (succeeded(output), said.matches(COMPUTED).count(), said.matches(KEPT).count())
}

fn files(desk: &Desk) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(desk.path("kept")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_network_runs_once_for_the_same_images() {
    let desk = colours();
    let plain = ran(&desk.line(&format!("{FIT} -o plain.safetensors")));
    assert_eq!((plain.1, plain.2), (0, 0));
    let first = ran(&desk.line(&format!("{FIT} --keep kept -o first.safetensors")));
    assert_eq!((first.1, first.2, files(&desk).len()), (2, 0, 2));
    let again = ran(&desk.line(&format!("{FIT} --keep kept -o again.safetensors")));
    assert_eq!((again.1, again.2), (0, 2));
    let bytes = |name: &str| fs::read(desk.path(name)).unwrap();
    assert!(bytes("plain.safetensors") == bytes("first.safetensors"));
    assert!(bytes("first.safetensors") == bytes("again.safetensors"));
    // The calibration inputs had no labels; as test inputs they have. Other images are computed.
    let eval = "eval plain.safetensors --model colours.onnx --id test --ood grey=grey --format json --bootstrap 0";
    let (report, ..) = ran(&desk.line(eval));
    assert!(report.contains("\"dense_accuracy\": 1.0"), "{report}");
    assert_eq!(ran(&desk.line(&format!("{eval} --keep kept"))), (report.clone(), 1, 1));
    assert_eq!(ran(&desk.line(&format!("{eval} --keep kept"))), (report, 0, 2));
    let score = "score plain.safetensors --model colours.onnx grey";
    let (scores, ..) = ran(&desk.line(score));
    assert_eq!(ran(&desk.line(&format!("{score} --keep kept"))), (scores, 0, 1));
    assert_eq!(files(&desk).len(), 3);
}

#[test]
fn nothing_is_reused_that_differs() {
    let desk = colours();
    let features = "features --model colours.onnx --images test --preprocess plain.json --keep kept -o f.safetensors";
    let computed = |line: &str| {
        let (_, computed, kept) = ran(&desk.line(line));
        assert_eq!(computed + kept, 1, "{line}");
        computed == 1
    };
    assert!(computed(features) && !computed(features));
    // The same model under another name, and only that.
    fs::copy(desk.path("colours.onnx"), desk.path("same.onnx")).unwrap();
    assert!(!computed(&features.replace("colours.onnx", "same.onnx")));
    assert!(computed(&features.replace("plain.json", "plain.json,mean=0.1")));
    assert!(computed(&features.replace("colours.onnx", "apart.onnx")));
    assert!(computed(&features.replace("test ", "test/a-red ")));
    let path = desk.path("test/a-red/00.bmp");
    let bytes = fs::read(&path).unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&path, &other).unwrap();
    assert!(computed(features));
    fs::write(&path, &bytes).unwrap();
    assert!(!computed(features));
    fs::rename(&path, desk.path("test/a-red/zz.bmp")).unwrap();
    assert!(computed(features));
    // A kept file that is damaged, or something else, is made again.
    let wanted = fs::read(desk.path("f.safetensors")).unwrap();
    for damage in [&b"no file of features"[..], b""] {
        files(&desk).iter().for_each(|file| fs::write(file, damage).unwrap());
        assert!(computed(features));
        assert!(fs::read(desk.path("f.safetensors")).unwrap() == wanted);
    }
    // Images that are left out are told of each time.
    fs::write(desk.path("test/a-red/yy.bmp"), "no image").unwrap();
    for _ in 0..2 {
        let output = desk.line(&format!("{features} --broken skip"));
        let said = stderr(&output);
        assert!(said.contains("Left out 1 image") && said.contains(COMPUTED), "{said}");
    }
    assert!(!files(&desk).iter().any(|file| file.file_name().unwrap().to_string_lossy().starts_with('.')));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_and_features_need_none() {
    let desk = colours();
    fs::write(desk.path("file"), "").unwrap();
    let output = desk.line(&format!("{FIT} --keep file/kept -o d.safetensors"));
    assert!(common::failed(&output, 1).contains("file/kept"), "{}", stderr(&output));
    let output = desk.line("score d.safetensors test.safetensors --keep kept");
    assert!(common::failed(&output, 2).contains("--model"), "{}", stderr(&output));
}
