//! Scoring throughput on made-up heads of realistic shapes: `make bench`.
//!
//! Each shape is scored against the f64 reference before it is timed. Times are the best of several runs, as on a
//! shared machine the others measure the neighbours.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::sync::Arc;
use std::time::Instant;

use dice_ood::{Detector, Gather, LinearHead, Spec, Statistics, reference};
use ndarray::{Array2, Axis};

const RUNS: usize = 7;

fn main() {
    println!("{:>6} {:>6} {:>28} {:>8} {:>12} {:>14}", "D", "C", "detector", "inputs", "us/input", "weights kept/ns");
    for (units, classes, inputs) in [(342, 10, 100_000), (342, 100, 50_000), (2048, 1000, 8192)] {
        for spec in ["energy", "dice(0.7) | energy", "dice(0.9) | energy", "dice(0.9) | max-logit"] {
            measure(units, classes, inputs, spec);
        }
    }
}

fn measure(units: usize, classes: usize, inputs: usize, spec: &str) {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let weight: Vec<f32> = (0..classes * units).map(|_| (uniform() - 0.5) * 0.2).collect();
    let head = Arc::new(LinearHead::from_rows(weight, vec![0.0; classes], units).expect("a head"));
    let features = Array2::from_shape_fn((inputs, units), |_| (uniform() - 0.6).max(0.0));
    let mut statistics = Statistics::new(units, Gather::default());
    statistics.update(features.view()).expect("finite features");
    let detector = spec.parse::<Spec>().and_then(|spec| spec.fit(&head, &statistics)).expect("a detector");
    check(&detector, &features);

    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        let scores = detector.score(features.view()).expect("scores");
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(scores.len(), inputs);
    }
    let kept = detector.mask().map_or(units * classes, |mask| mask.count());
    println!(
        "{units:>6} {classes:>6} {spec:>28} {inputs:>8} {:>12.3} {:>14.1}",
        best * 1e6 / inputs as f64,
        kept as f64 * inputs as f64 / best / 1e9
    );
}

/// The first rows against the reference, within what f32 sums of this length allow.
fn check(detector: &Detector, features: &Array2<f32>) {
    let rows = features.slice(ndarray::s![..70, ..]);
    let scores = detector.score(rows).expect("scores");
    for (row, score) in rows.axis_iter(Axis(0)).zip(scores) {
        let row = row.to_vec();
        let logits = reference::logits(detector.head(), detector.mask(), None, &row);
        let expected = reference::score(detector.spec().score, &logits);
        let size = reference::logit_magnitude(detector.head(), detector.mask(), None, &row);
        let bound = (row.len() + 100) as f64 * f64::from(f32::EPSILON) * size.max(1.0);
        assert!((score - expected).abs() <= bound, "{} for {}", score, expected);
    }
}
