//! Twenty values of p in one pass, beside one dense pass and beside twenty passes, on made-up heads of realistic shapes.
//!
//! Scores of the one pass are checked against those of the twenty before anything is timed. All run in turn and the best time of each
//! counts, as on a shared machine the others measure the neighbours. `-- 342x10` measures that head alone.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use dice_ood::grid::{Candidate, expand, fit};
use dice_ood::{Detector, LinearHead, Needs, NonFinite, Plan, Statistics};
use ndarray::Array2;

const RUNS: usize = 5;

fn main() {
    println!("{} threads", rayon::current_num_threads());
    println!(
        "{:>6} {:>6} {:>8} {:>12} {:>14} {:>14} {:>9} {:>9}",
        "D", "C", "inputs", "dense, us", "one pass, us", "20 passes, us", "vs dense", "vs 20"
    );
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| argument.contains('x')).collect();
    for (units, classes, inputs) in [(342, 10, 50_000), (342, 100, 20_000), (2048, 10, 10_000), (2048, 1000, 2048)] {
        if only.is_empty() || only.contains(&format!("{units}x{classes}")) {
            measure(units, classes, inputs);
        }
    }
}

fn measure(units: usize, classes: usize, inputs: usize) {
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
    let candidates = |template: &str, grid: Option<&str>| -> Vec<Candidate> {
        let grids: Vec<_> = grid.iter().map(|grid| grid.parse().expect("a grid")).collect();
        expand(&[template.parse().expect("a template")], &grids).expect("candidates")
    };
    let fitted = |candidates: &[Candidate]| fit(candidates, &head, &statistics, None).expect("detectors");
    let detectors = fitted(&candidates("dice(P) | energy", Some("P=0:0.99:20")));
    let dense = Plan::new(&fitted(&candidates("energy", None)));
    let (one, each) = (Plan::nesting(&detectors).expect("a plan"), Plan::new(&detectors));
    check(&one, &each, &detectors, &features);
    let mut best = [f64::INFINITY; 3];
    for _ in 0..RUNS {
        for (best, plan) in best.iter_mut().zip([&dense, &one, &each]) {
            let start = Instant::now();
            drop(black_box(plan.score(features.view(), NonFinite::Reject).expect("scores")));
            *best = best.min(start.elapsed().as_secs_f64() / inputs as f64 * 1e6);
        }
    }
    let [dense, one, each] = best;
    println!(
        "{units:>6} {classes:>6} {inputs:>8} {dense:>12.3} {one:>14.3} {each:>14.3} {:>8.2}x {:>8.2}x",
        one / dense,
        one / each
    );
}

/// Both sum the same products in f32, in other orders: each is within `(D + 100) eps sum |w h|` of the exact sum.
fn check(one: &Plan, each: &Plan, detectors: &[Detector], features: &Array2<f32>) {
    let rows = features.slice(ndarray::s![..70, ..]);
    let score = |plan: &Plan| plan.score(rows, NonFinite::Reject).expect("scores");
    let units = features.ncols();
    let most = detectors[0].head().weight().iter().fold(0.0, |most: f32, weight| most.max(weight.abs()));
    for (one, each) in score(one).iter().zip(score(each)) {
        for ((row, one), each) in rows.rows().into_iter().zip(&one.scores).zip(each.scores) {
            let size: f64 = row.iter().map(|value| f64::from(value.abs() * most)).sum();
            let bound = 2.0 * (units + 100) as f64 * f64::from(f32::EPSILON) * size.max(1.0);
            assert!((one - each).abs() <= bound, "{one} for {each}");
        }
    }
}
