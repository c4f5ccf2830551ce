//! Against numpy, torch and scikit-learn: `golden/make.py` wrote what they compute.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;

use dice_ood::io::{Dataset, Location, read_head, read_vector};
use dice_ood::metrics::Curve;
use dice_ood::{Needs, Spec, Statistics};

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).to_string_lossy().into_owned()
}

fn matrix(name: &str) -> Vec<bool> {
    let mut source = Dataset::new(&[golden(&format!("presets.safetensors#{name}"))]).unwrap().open().unwrap();
    let mut block = dice_ood::Block::default();
    source.read(&mut block, 100).unwrap();
    block.features.iter().map(|value| *value != 0.0).collect()
}

#[test]
fn presets_keep_the_weights_that_the_peers_keep() {
    let file = golden("presets.safetensors");
    let head = Arc::new(read_head(Location::parse(&file), None).unwrap());
    let mut source = Dataset::new(std::slice::from_ref(&file)).unwrap().open().unwrap();
    let statistics = Statistics::gather(&mut *source, None, &Needs::marginals()).unwrap();
    for preset in ["official", "openood", "pytorch-ood"] {
        for percent in [0, 1, 10, 25, 50, 70, 90, 99] {
            let spec: Spec = format!("dice({}, preset={preset}) | energy", f64::from(percent) / 100.0).parse().unwrap();
            let detector = spec.fit(&head, &statistics).unwrap();
            let kept: Vec<bool> = detector.mask().unwrap().kept().iter().copied().collect();
            assert_eq!(kept, matrix(&format!("{preset}.{percent}")), "{preset} {percent}");
        }
    }
    for percent in [0, 25, 50, 90, 99, 100] {
        let name = format!("activation_percentile.{percent}");
        let expected = read_vector(&Location { path: file.clone().into(), name: Some(name) }, &[]).unwrap()[0];
        let found = statistics.activation_quantile(f64::from(percent) / 100.0).unwrap();
        assert!((found - expected).abs() <= expected / f64::from(1 << 12), "{percent}: {found} for {expected}");
    }
}

#[test]
fn metrics_are_those_of_scikit_learn() {
    let cases: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden("metrics.json")).unwrap()).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let scores =
            |side: &str| -> Vec<f64> { case[side].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
        let found = Curve::new(&scores("id"), &scores("ood")).unwrap().metrics(0.95);
        for (metric, found) in [
            ("auroc", found.auroc),
            ("fpr_at_tpr", found.fpr_at_tpr),
            ("fpr_at_tpr_ood_positive", found.fpr_at_tpr_ood_positive),
            ("aupr_in", found.aupr_in),
            ("aupr_out", found.aupr_out),
            ("aupr_in_trapezoid", found.aupr_in_trapezoid),
            ("aupr_out_trapezoid", found.aupr_out_trapezoid),
        ] {
            let expected = case[metric].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-12, "{name} {metric}: {found} for {expected}");
        }
    }
}
