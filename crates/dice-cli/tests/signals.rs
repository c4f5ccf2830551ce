//! Signals in the middle of a run, sent to the real binary: what it exits with, and what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Desk, colours, failed, stderr, succeeded};

/// Commands that go on until they are stopped: they wait for the end of standard input, or have very many images to read. The second
/// column says where a temporary file or folder shows that they are in the middle of it.
const RUNS: [(&str, &str); 6] = [
    ("score d.safetensors - -o out.csv", "."),
    ("score d.safetensors - -o out.parquet", "."),
    ("score network.safetensors --model colours.onnx many.txt -o out.npy", "."),
    ("fit --features - --head head.safetensors -o out.safetensors", "temporary"),
    ("fit --model colours.onnx --images many.txt --preprocess plain.json -o out.safetensors", "temporary"),
    ("features --model colours.onnx --images many.txt --preprocess plain.json -o out.safetensors", "."),
];

fn desk() -> Desk {
    let desk = colours();
    fs::create_dir(desk.path("temporary")).unwrap();
    fs::write(desk.path("many.txt"), "grey/00.bmp\n".repeat(1_000_000)).unwrap();
    succeeded(&desk.line("fit --features train.safetensors --head head.safetensors -d energy -o d.safetensors"));
    succeeded(&desk.line("fit --model colours.onnx --images train --preprocess plain.json -d energy --calibration-fraction 0.25 -o network.safetensors"));
    desk
}

/// Starts `command` and waits until its temporary file or folder is in `place`.
fn started(desk: &Desk, mut command: Command, place: &str) -> Child {
    command.current_dir(desk.folder.path()).env("TMPDIR", desk.path("temporary"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let rows = format!("{}\n", vec!["0.5"; 256].join(",")).repeat(40);
    // Fits in a pipe, as commands that read images do not read this.
    let _ = child.stdin.as_mut().unwrap().write_all(rows.as_bytes());
    let deadline = Instant::now() + Duration::from_secs(60);
    while temporaries(&desk.path(place)).is_empty() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "{command:?} ended by itself: {}",
            stderr(&child.wait_with_output().unwrap())
        );
        assert!(Instant::now() < deadline, "{command:?} makes no temporary file");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn temporaries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

fn send(signal: &str, child: &Child) {
    let kill = format!("kill -s {signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Whether this test itself was started with the signal ignored, which its children inherit.
fn is_ignored(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (number - 1) & 1 == 1
}

#[test]
fn signals_remove_what_is_unfinished() {
    let desk = desk();
    let before = desk.listing();
    for (line, place) in RUNS {
        for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
            if is_ignored(number) || signal == "HUP" && !Path::new("/proc/self/status").exists() {
                println!("skipped: signal {signal} is ignored here");
                continue;
            }
            let mut command = desk.command();
            command.args(line.split(' '));
            let mut child = started(&desk, command, place);
            // Waiting would close it, which ends the run as well as the signal does.
            let _held = child.stdin.take();
            send(signal, &child);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(128 + number as i32), "{line}: {:?}", output.status);
            assert_eq!(desk.listing(), before, "{line}");
            assert!(temporaries(&desk.path("temporary")).is_empty(), "{line}");
        }
    }
}

#[test]
fn what_nohup_and_shells_ignore_stays_ignored() {
    if !Path::new("/proc/self/status").exists() {
        return println!("skipped: the system does not say which signals are ignored");
    }
    let desk = desk();
    for signal in ["INT", "TERM", "HUP"] {
        let mut shell = Command::new("sh");
        let script = format!("trap '' {signal}; exec \"$DICE\" score d.safetensors - -o out.csv");
        shell.args(["-c", &script]).env("DICE", env!("CARGO_BIN_EXE_dice"));
        let mut child = started(&desk, shell, ".");
        send(signal, &child);
        drop(child.stdin.take());
        succeeded(&child.wait_with_output().unwrap());
        assert_eq!(fs::read_to_string(desk.path("out.csv")).unwrap().lines().count(), 41, "{signal}");
    }
}

/// What SECURITY.md says of a killed run is all that it leaves.
#[test]
fn killed_runs_leave_what_the_security_page_names() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../SECURITY.md")).unwrap();
    assert!(page.contains("`.dice-*.partial`"));
    let desk = desk();
    let before = desk.listing();
    for (line, place) in RUNS {
        let mut command = desk.command();
        command.args(line.split(' '));
        let mut child = started(&desk, command, place);
        let _held = child.stdin.take();
        send("KILL", &child);
        child.wait_with_output().unwrap();
        for folder in [desk.path("."), desk.path("temporary")] {
            for name in temporaries(&folder) {
                assert!(name.starts_with(".dice-") && name.ends_with(".partial"), "{line}: {name}");
                let left = folder.join(name);
                if left.is_dir() { fs::remove_dir_all(left).unwrap() } else { fs::remove_file(left).unwrap() }
            }
        }
        assert_eq!(desk.listing(), before, "{line}");
    }
}

#[test]
fn a_file_too_large_is_an_error() {
    let desk = desk();
    fs::write(desk.path("few.txt"), "grey/00.bmp\ngrey/01.bmp\n").unwrap();
    let before = desk.listing();
    for line in [
        "score d.safetensors test.safetensors -o out.csv",
        "score d.safetensors test.safetensors -o out.jsonl",
        "score d.safetensors test.safetensors -o out.npy",
        "score d.safetensors test.safetensors -o out.parquet",
        "eval d.safetensors --id test.safetensors --ood x=letters.safetensors -o out.md",
        "fit --features train.safetensors --head head.safetensors -o out.safetensors",
        "fit --features train.safetensors --head head.safetensors -o out.safetensors --save-statistics s.safetensors",
        "fit --features - --head head.safetensors -o out.safetensors",
        "fit --model colours.onnx --images train --preprocess plain.json -o out.safetensors",
        "features --model colours.onnx --images few.txt --preprocess plain.json -o out.safetensors",
        "export network.safetensors --model colours.onnx -o out.onnx",
        "demo --extract new",
    ] {
        let script = format!("ulimit -f 0; exec \"$DICE\" {line} < test.safetensors");
        let mut shell = Command::new("sh");
        let shell = shell.current_dir(desk.folder.path()).env("DICE", env!("CARGO_BIN_EXE_dice"));
        let output = shell.env("TMPDIR", desk.path("temporary")).args(["-c", &script]).output().unwrap();
        let message = failed(&output, 1);
        assert!(message.contains("File too large"), "{line}: {message}");
        assert_eq!(desk.listing(), before, "{line}");
        assert!(temporaries(&desk.path("temporary")).is_empty(), "{line}");
    }
}
