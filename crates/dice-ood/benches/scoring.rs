//! Scoring beside what a Rust user would write instead, on made-up heads of realistic shapes: `make bench`.
//!
//! The other side is one dense product with the masked weights (ndarray) and a logsumexp, on one thread as ndarray
//! has it; set `RAYON_NUM_THREADS=1` to compare alike. Each shape is checked against f64 before it is
//! timed. Both sides run in turn and the best time of each counts, as on a shared machine the others measure the
//! neighbours. Comparisons with Python libraries: `make peers`.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use dice_ood::graph::Graph;
use dice_ood::{Detector, LinearHead, Needs, Spec, Statistics};
use ndarray::{Array1, Array2, Axis};

const RUNS: usize = 5;

fn main() {
    println!("{} threads", rayon::current_num_threads());
    println!(
        "{:>6} {:>6} {:>20} {:>8} {:>10} {:>9} {:>9}  kernel",
        "D", "C", "detector", "inputs", "us/input", "vs dense", "one, us"
    );
    for (units, classes, inputs) in [(342, 10, 100_000), (342, 100, 50_000), (2048, 1000, 8192)] {
        for spec in ["energy", "dice(0.7) | energy", "dice(0.9) | energy"] {
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
    let mut statistics = Statistics::new(units, &Needs::default());
    statistics.update(features.view()).expect("finite features");
    let detector = spec.parse::<Spec>().and_then(|spec| spec.fit(&head, &statistics)).expect("a detector");
    check(&detector, &features);

    let mut masked = head.weight().to_owned();
    if let Some(mask) = detector.mask() {
        masked.zip_mut_with(&mask.kept(), |weight, kept| *weight = if *kept { *weight } else { 0.0 });
    }
    let dense_rows = features.slice(ndarray::s![..inputs.min(4096), ..]);
    let scores = detector.score(dense_rows).expect("scores");
    for (dense, score) in energy(&dense_rows.dot(&masked.t()), head.bias().to_owned()).iter().zip(&scores) {
        assert!((f64::from(*dense) - score).abs() < 1e-3, "{dense} for {score}");
    }
    let row = features.row(0).to_vec();
    assert_eq!(detector.score_one(&row).expect("a score"), scores[0]);

    let mut best = [f64::INFINITY; 3];
    for _ in 0..RUNS {
        let times = [
            time(|| drop(black_box(detector.score(features.view()).expect("scores")))) / inputs as f64,
            time(|| drop(black_box(energy(&dense_rows.dot(&masked.t()), head.bias().to_owned()))))
                / dense_rows.nrows() as f64,
            time(|| (0..100).for_each(|_| drop(black_box(detector.score_one(black_box(&row)))))) / 100.0,
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time);
        }
    }
    println!(
        "{units:>6} {classes:>6} {spec:>20} {inputs:>8} {:>10.3} {:>8.1}x {:>9.2}  {}",
        best[0] * 1e6,
        best[1] / best[0],
        best[2] * 1e6,
        detector.kernel()
    );
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn energy(logits: &Array2<f32>, bias: Array1<f32>) -> Vec<f32> {
    let rows = logits.axis_iter(Axis(0));
    rows.map(|row| {
        let logits = &row + &bias;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        max + logits.iter().map(|logit| (logit - max).exp()).sum::<f32>().ln()
    })
    .collect()
}

/// The first rows against the detector's expression in f64, within what f32 sums of this length allow.
fn check(detector: &Detector, features: &Array2<f32>) {
    let rows = features.slice(ndarray::s![..70, ..]);
    let scores = detector.score(rows).expect("scores");
    let mut graph = Graph::default();
    let wire = detector.express(&mut graph).expect("an expression");
    let values: Vec<f32> = rows.iter().copied().collect();
    let (head, units) = (detector.head(), detector.head().units());
    let weights = head.weight().iter().fold(0.0, |most: f32, weight| most.max(weight.abs()));
    for ((row, score), expected) in values.chunks(units).zip(scores).zip(graph.evaluate(&values, 70, wire)) {
        let size: f64 = row.iter().map(|value| f64::from(value.abs() * weights)).sum();
        let bound = (units + 100) as f64 * f64::from(f32::EPSILON) * size.max(1.0);
        assert!((score - expected).abs() <= bound, "{} for {}", score, expected);
    }
}
