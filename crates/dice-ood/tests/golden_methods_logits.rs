//! Scores of logits against pytorch-ood, torch and scipy: `golden/logit_scores.py` wrote what they compute.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;

use dice_ood::io::{Dataset, Location, read_head, read_vector};
use dice_ood::{NonFinite, Spec, Statistics, for_each_block};

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).to_string_lossy().into_owned()
}

fn golden(name: &str) -> Vec<f64> {
    read_vector(&Location { path: file("logit_scores.safetensors").into(), name: Some(name.into()) }, &[]).unwrap()
}

fn scores(text: &str) -> Vec<f64> {
    let training = file("logit_scores.safetensors");
    let head = Arc::new(read_head(Location::parse(&training), None).unwrap());
    let spec: Spec = text.parse().unwrap();
    let mut training = Dataset::new(&[training]).unwrap().open().unwrap();
    let statistics = Statistics::gather(&mut *training, Some(&head), &spec.needs()).unwrap();
    let detector = spec.fit(&head, &statistics).unwrap();
    let mut scores = Vec::new();
    for_each_block(&mut *Dataset::new(&[file("logit_scores_test.safetensors")]).unwrap().open().unwrap(), |block| {
        scores.extend(detector.score_block(block, NonFinite::Reject)?.scores);
        Ok(())
    })
    .unwrap();
    scores
}

/// The largest difference, relative to numbers above 1. Logits here are f32: sums of 24 products of up to 10, off by
/// 24 * 6e-8 * 10 at most.
#[track_caller]
fn assert_close(name: &str, found: &[f64], tolerance: f64) {
    let expected = golden(name);
    assert_eq!(found.len(), expected.len());
    let off = |(found, expected): (&f64, &f64)| (found - expected).abs() / expected.abs().max(1.0);
    let worst = found.iter().zip(&expected).map(off).fold(0.0, f64::max);
    println!("{name}: {worst:.1e}");
    assert!(worst <= tolerance, "{name}: off by {worst}");
}

#[test]
fn scores_are_the_peers() {
    for (name, spec) in [
        ("gen", "gen"),
        ("doctor", "doctor"),
        ("gradnorm", "gradnorm"),
        ("lts", "lts(0.1)"),
        ("kl-matching", "kl-matching"),
        ("temp-scale", "temp-scale"),
    ] {
        assert_close(name, &scores(spec), 2e-5);
    }
}

/// Its tails are scipy's fit.
#[test]
fn the_probability_of_the_unknown_class_is_the_peers() {
    let unknown: Vec<f64> = scores("openmax").iter().map(|odds| 1.0 / (1.0 + odds.exp())).collect();
    assert_close("openmax", &unknown, 2e-5);
}
