//! What tests of the real binary share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with the demo's data, in which `dice` runs.
pub struct Desk {
    pub folder: TempDir,
}

impl Desk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        for entry in fs::read_dir(demo).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        Self { folder }
    }

    pub fn fitted(detectors: &[&str]) -> Self {
        let desk = Self::new();
        let mut arguments = "fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -o d.safetensors"
            .split(' ')
            .collect::<Vec<_>>();
        detectors.iter().for_each(|detector| arguments.extend(["-d", detector]));
        succeeded(&desk.run(&arguments));
        desk
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dice"));
        command.current_dir(self.folder.path()).env_remove("DICE_SIMD");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    pub fn line(&self, arguments: &str) -> Output {
        self.run(&arguments.split(' ').collect::<Vec<_>>())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files there are, hidden ones included.
    pub fn listing(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

/// Exit code, one message, no bug, no colour in a pipe.
pub fn failed(output: &Output, code: i32) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.matches("error").count().min(1), 1, "{message}");
    assert!(!message.contains("a bug in dice") && !message.contains('\x1b'), "{message}");
    message
}
