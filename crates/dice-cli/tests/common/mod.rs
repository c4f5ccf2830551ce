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

/// An image of 8 x 8 pixels of one colour, with a little noise, as an uncompressed BMP.
fn bmp(colour: [u8; 3], seed: u8) -> Vec<u8> {
    let (header, size) = (54u32, 8 * 8 * 3u32);
    let mut file = b"BM".to_vec();
    for value in [header + size, 0, header, 40, 8, 8, 1 | 24 << 16, 0, size, 2835, 2835, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    for pixel in 0..64u8 {
        let noise = pixel.wrapping_mul(37).wrapping_add(seed.wrapping_mul(101)) % 16;
        file.extend(colour.iter().rev().map(|level| level.saturating_add(noise)));
    }
    file
}

/// A desk with a network that tells colours apart (`tests/data`, once with its weights in another file), pictures of three colours in class folders, and grey ones.
pub fn colours() -> Desk {
    let desk = Desk::new();
    for name in ["colours.onnx", "apart.onnx", "apart.data"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name), desk.path(name)).unwrap();
    }
    // Inputs that were trained on are refused for calibration: those of the test set are a little darker.
    for (set, count, shade) in [("train", 40, 0), ("test", 20, 3)] {
        for (class, colour) in [("a-red", [200, 20, 30]), ("b-green", [20, 190, 20]), ("c-blue", [10, 40, 210])] {
            let folder = desk.path(set).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                fs::write(folder.join(format!("{index:02}.bmp")), bmp(colour.map(|level| level - shade), index))
                    .unwrap();
            }
        }
    }
    fs::create_dir(desk.path("grey")).unwrap();
    for index in 0..20 {
        fs::write(desk.path("grey").join(format!("{index:02}.bmp")), bmp([60, 60, 60], index)).unwrap();
    }
    let settings = r#"{"do_resize": false, "do_normalize": false}"#;
    fs::write(desk.path("plain.json"), settings).unwrap();
    desk
}
