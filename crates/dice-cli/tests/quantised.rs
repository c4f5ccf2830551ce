//! Networks in 8 and 16 bits, with the real binary: what is said of their rounding, and what is measured of it.
//!
//! What takes two runtimes skips where `DICE_ONNXRUNTIME` names no ONNX Runtime.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Desk, colours, stderr, succeeded};

const SAID: &str = "The network is quantised.";
const DRIFT: &str = "rounds in other places than at the fit";

/// `onnxruntime=PATH`, where one is named.
fn onnxruntime() -> Option<String> {
    let path = std::env::var("DICE_ONNXRUNTIME").ok();
    if path.is_none() {
        println!("skipped: DICE_ONNXRUNTIME names no ONNX Runtime");
    }
    path
}

/// A desk with quantised models of waves and texts, and some of these.
fn desk() -> Desk {
    let desk = Desk::new();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dice-onnx/tests/inputs");
    for name in ["waves-qdq.onnx", "waves-operators.onnx", "waves-torchscript.onnx", "text-dynamic.onnx", "text.npz"] {
        fs::copy(models.join(name), desk.path(name)).unwrap();
    }
    for (name, rows, seed) in [("train.npy", 120, 1), ("held.npy", 60, 2)] {
        let mut state: u64 = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let bytes: Vec<u8> = (0..rows * 2 * 40).flat_map(|_| (2.0 * next()).to_le_bytes()).collect();
        fs::write(desk.path(name), npy::npy("<f4", false, &format!("{rows}, 2, 40"), &bytes)).unwrap();
    }
    desk
}

/// What is said where a detector of `model` is fitted, in `runtime`.
fn fitted(desk: &Desk, model: &str, runtime: &str) -> String {
    let inputs = "--inputs train.npy --calibration held.npy -d energy -o d.safetensors";
    let output = desk.line(&format!("fit --model {model} {inputs}{runtime}"));
    succeeded(&output);
    stderr(&output)
}

#[test]
fn fit_score_export_and_inspect_say_that_a_network_is_quantised() {
    let desk = desk();
    let said = fitted(&desk, "waves-qdq.onnx", "");
    assert!(said.contains(SAID) && !said.contains("Its scales"), "{said}");
    let about = succeeded(&desk.line("inspect d.safetensors"));
    assert!(about.contains("runtime: built-in") && about.contains("runtime_level: all"), "{about}");
    for line in
        ["score d.safetensors --model waves-qdq.onnx held.npy", "export d.safetensors --model waves-qdq.onnx -o o.onnx"]
    {
        let output = desk.line(line);
        succeeded(&output);
        assert!(stderr(&output).contains(SAID) && !stderr(&output).contains(DRIFT), "{}", stderr(&output));
        assert!(!stderr(&desk.line(&format!("{line} --quiet"))).contains(SAID));
    }
    let said = stderr(&desk.line("export d.safetensors --model waves-qdq.onnx -o o.onnx"));
    assert!(said.contains("fitted with the built-in runtime at level all"), "{said}");
    let about = succeeded(&desk.line("inspect text-dynamic.onnx"));
    assert!(about.contains(SAID) && about.contains("Its scales are those of all inputs of a run"), "{about}");
    for plain in ["inspect waves-torchscript.onnx", "inspect waves-operators.onnx"] {
        assert_eq!(succeeded(&desk.line(plain)).contains(SAID), plain.contains("operators"));
    }
    assert!(!fitted(&desk, "waves-torchscript.onnx", "").contains(SAID));
}

#[test]
fn another_runtime_or_level_is_a_warning_with_the_drift() {
    let Some(path) = onnxruntime() else { return };
    let desk = desk();
    let score = |model: &str, runtime: &str| {
        let output = desk.line(&format!("score d.safetensors --model {model} held.npy --quiet{runtime}"));
        assert_eq!(succeeded(&output).lines().count(), 61);
        stderr(&output)
    };
    let (all, none) = (format!(" --runtime onnxruntime={path}"), format!(" --runtime onnxruntime@none={path}"));
    let measured = |said: &str| -> f64 {
        assert_eq!(said.matches(DRIFT).count(), 1, "{said}");
        let drift = said.split("On the first 32 inputs features differ by up to ").nth(1).unwrap();
        assert!(drift.contains("scores of 'energy' by up to ") && drift.contains("decisions turn"), "{said}");
        drift.split(' ').next().unwrap().parse().unwrap()
    };
    fitted(&desk, "waves-qdq.onnx", "");
    assert_eq!(score("waves-qdq.onnx", ""), "");
    // What all optimisation does to this network is a tenth of the largest feature; without any it computes what the built-in runtime does.
    let drift = measured(&score("waves-qdq.onnx", &all));
    assert!(drift > 0.1 && drift < 50.0, "{drift}");
    assert!(measured(&score("waves-qdq.onnx", &none)) <= drift);
    fitted(&desk, "waves-qdq.onnx", &all);
    assert_eq!(score("waves-qdq.onnx", &all), "");
    assert!(measured(&score("waves-qdq.onnx", &none)) > 0.1);
    let said = score("waves-qdq.onnx", "");
    assert!(
        said.contains("onnxruntime runtime at level all ran it, now the built-in") && said.contains("is not measured"),
        "{said}"
    );
    // One in f32 rounds everywhere alike.
    fitted(&desk, "waves-torchscript.onnx", "");
    assert_eq!(score("waves-torchscript.onnx", &all), "");
}

/// ONNX Runtime keeps f32 between operators in f16 and rounds where a tensor is read, if it optimises: the detector is one more reader.
#[test]
fn an_export_of_halves_says_how_far_outputs_moved() {
    let model =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/onnx/winml_squeezenet_fp16.onnx"));
    if !model.exists() {
        return println!("skipped: no {}", model.display());
    }
    let Some(path) = onnxruntime() else { return };
    let desk = colours();
    let runtime = format!("--runtime onnxruntime={path}");
    let fit = "--images grey --calibration test --preprocess imagenet -d energy -o h.safetensors";
    succeeded(&desk.line(&format!("fit --model {} {fit} {runtime}", model.display())));
    let export = |runtime: &str| {
        let output = desk.line(&format!("export h.safetensors --model {} -o h.onnx {runtime}", model.display()));
        succeeded(&output);
        stderr(&output)
    };
    let said = export(&runtime);
    let moved = said.split("own outputs differ by up to ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let moved: f64 = moved.split(' ').next().unwrap().parse().unwrap();
    println!("{said}");
    assert!(moved > 0.0 && moved < 1e-2, "{said}");
    let exact = export(&format!("--runtime onnxruntime@none={path}"));
    assert!(exact.contains("own outputs are the same, bit for bit"), "{exact}");
    let absent = export("--runtime built-in");
    assert!(absent.contains("Could not be measured by the built-in runtime") && absent.contains("float16"), "{absent}");
}
