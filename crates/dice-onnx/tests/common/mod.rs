//! What tests of exported models share.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A Python with onnx and onnxruntime: the one that DICE_PYTHON names, else an environment of its own, installed here.
pub(crate) fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let works = |python: &Path| {
        let import = Command::new(python).args(["-c", "import onnx, onnxruntime, numpy"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let install = || -> Result<PathBuf, String> {
        if let Some(named) = std::env::var_os("DICE_PYTHON") {
            let named = PathBuf::from(named);
            return works(&named).then_some(named).ok_or_else(|| "DICE_PYTHON lacks onnx or onnxruntime".into());
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnxruntime");
        let python = folder.join("bin/python");
        if works(&python) {
            return Ok(python);
        }
        let run = |command: &mut Command| match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "onnx", "onnxruntime", "numpy"]))?;
        works(&python).then_some(python).ok_or_else(|| "what was installed cannot be imported".into())
    };
    PYTHON.get_or_init(|| install().map_err(|why| println!("skipped ONNX Runtime: {why}")).ok()).as_deref()
}

pub(crate) fn floats(path: &Path) -> Vec<f32> {
    std::fs::read(path).unwrap().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn integers(path: &Path) -> Vec<i64> {
    std::fs::read(path).unwrap().chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Numbers from 0 to 1, in an order that `seed` decides.
pub(crate) fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    }
}
