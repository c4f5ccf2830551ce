//! The dense product and the second moment on one thread, in GFLOP/s: `cargo bench -p dice-ood --bench product`.
//!
//! Each shape is checked against f64 before it is timed, and the best of several runs counts. Beside the product stands
//! that of ndarray, which is matrixmultiply's.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::hint::black_box;
use std::time::Instant;

use dice_ood::{Product, Scratch, second_moment};
use ndarray::ArrayView2;

/// Short ones, as on a shared machine long ones are interrupted.
const RUNS: usize = 30;

fn main() {
    println!("{:>8} {:>8} {:>8} {:>12} {:>12}", "rows", "outputs", "units", "GFLOP/s", "ndarray");
    for (count, outputs, units) in [
        (1, 10_000, 2048),
        (8, 10_000, 2048),
        (64, 1000, 2048),
        (1024, 512, 512),
        (256, 1000, 342),
        (256, 4000, 2048),
        (256, 20_000, 2048),
    ] {
        product(count, outputs, units);
    }
    println!("{:>8} {:>8} {:>12}", "rows", "units", "GFLOP/s");
    for units in [64, 342, 2048] {
        moment(256, units);
    }
}

fn product(count: usize, outputs: usize, units: usize) {
    let (rows, matrix) = (uniform(count * units, 1), uniform(outputs * units, 2));
    let product = Product::new(&matrix, [outputs, units], None).expect("a product");
    let mut scratch = Scratch::default();
    let mut out = vec![0.0; count * outputs];
    assert!(product.multiply(&rows, &mut scratch, &mut out));
    for row in [0, count / 2, count - 1] {
        for output in [0, outputs / 3, outputs - 1] {
            let (exact, size) = exact(&rows[row * units..][..units], &matrix[output * units..][..units]);
            let bound = (units + 1) as f64 * f64::from(f32::EPSILON) / 2.0 * size * 1.001;
            assert!((f64::from(out[row * outputs + output]) - exact).abs() <= bound, "[{row}, {output}]");
        }
    }
    let seconds = best(|| {
        let mut largest = f32::NEG_INFINITY;
        let finite = product.for_each_slab(&rows, &mut scratch, |slab| largest = largest.max(slab.values[0]));
        assert!(black_box((finite, largest)).0);
    });
    let (a, b) = (ArrayView2::from_shape((count, units), &rows), ArrayView2::from_shape((outputs, units), &matrix));
    let (a, b) = (a.expect("rows"), b.expect("a matrix"));
    let peer = best(|| drop(black_box(a.dot(&b.t()))));
    let work = 2e-9 * (count * outputs * units) as f64;
    println!("{count:>8} {outputs:>8} {units:>8} {:>12.1} {:>12.1}", work / seconds, work / peer);
}

fn moment(count: usize, units: usize) {
    let rows = uniform(count * units, 3);
    let mut sums = vec![0.0; units * units];
    // One thread, as for the product.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let add = |sums: &mut [f64]| pool.install(|| second_moment(sums, &rows, units).expect("a level"));
    add(&mut sums);
    let naive: f64 = rows.chunks(units).map(|row| f64::from(row[0]) * f64::from(row[units - 1])).sum();
    assert_eq!(sums[units - 1], naive);
    let seconds = best(|| add(black_box(&mut sums)));
    println!("{count:>8} {units:>8} {:>12.1}", 1e-9 * (count * units * (units + 1)) as f64 / seconds);
}

/// The product in f64, and the sum of its terms' sizes.
fn exact(a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = || a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    (terms().sum(), terms().map(f64::abs).sum())
}

fn best(mut work: impl FnMut()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn uniform(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
