//! The side of this crate in `bench/peers/compare.py` and `bench/peers/nearest.py`, which time it against Python libraries
//! in one run, each side in turn.
//!
//! Standard input holds one request a line, standard output one answer:
//!
//! - `score FEATURES HEAD MEAN SPEC OUT`: fits and scores a file of features, writes the scores to OUT (npy, f64), prints
//!   the layout and the bytes that scoring gained at the peak
//! - `one FEATURES HEAD MEAN SPEC COUNT`: prepares COUNT calls with the first row alone
//! - `space TRAIN HEAD SPEC FEATURES OUT`: fits to a file of training features, whose rows take the classes in turn, then
//!   scores as `score` does
//! - `fit FEATURES OUT`: prepares the mean activation and writes it to OUT
//! - `metrics ID OOD`: prepares the metrics of two files of scores and prints AUROC, FPR@95TPR, AUPR in, AUPR out
//! - `read FEATURES` and `peak`: prepare a plain sum over the features, and a loop of multiplications
//! - `run`: does the prepared thing once and prints nanoseconds
//!
//! `RAYON_NUM_THREADS` sets the threads. A request that fails ends the program.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]
#![allow(unsafe_code, reason = "the peak of the instruction set is measured with its instructions")]

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use dice_ood::io::{Dataset, Location, ScoreRow, ScoreWriter, read_head, read_vector};
use dice_ood::metrics::Curve;
use dice_ood::{Detector, Id, Needs, Result, Spec, Statistics, for_each_block};
use ndarray::{Array1, Array2};
use rayon::prelude::*;

fn main() {
    if std::env::args().any(|argument| argument == "--bench") && std::env::args().len() == 2 {
        eprintln!("this benchmark is driven by bench/peers: make peers");
        return;
    }
    let mut prepared: Box<dyn FnMut()> = Box::new(|| ());
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a request");
        let words: Vec<&str> = line.split('\t').collect();
        let answer = if words[0] == "run" {
            let start = Instant::now();
            prepared();
            start.elapsed().as_nanos().to_string()
        } else {
            let (run, answer) = prepare(&words).expect("a request that can be prepared");
            prepared = run;
            answer
        };
        println!("{answer}");
        std::io::stdout().flush().expect("an answer");
    }
}

fn prepare(words: &[&str]) -> Result<(Box<dyn FnMut()>, String)> {
    Ok(match *words {
        ["score", features, head, mean, spec, out] => scoring(detector(head, mean, spec)?, load(features)?, out)?,
        ["space", train, head, spec, features, out] => {
            scoring(detector_of_space(train, head, spec)?, load(features)?, out)?
        }
        ["one", features, head, mean, spec, count] => {
            let (detector, features) = (detector(head, mean, spec)?, load(features)?);
            let row = features.row(0).to_vec();
            let count: usize = count.parse().expect("a number of calls");
            let run = move || {
                for _ in 0..count {
                    black_box(detector.score_one(black_box(&row)).expect("a score"));
                }
            };
            (Box::new(run), String::new())
        }
        ["fit", features, out] => {
            let features = load(features)?;
            let fit = move || {
                let mut statistics = Statistics::new(features.ncols(), &Needs::default());
                statistics.update(features.view()).expect("finite features");
                statistics.mean_activation()
            };
            write_npy(out, fit().as_slice().expect("one dimension"))?;
            (Box::new(move || drop(black_box(fit()))), String::new())
        }
        ["metrics", id, ood] => {
            let (id, ood) = (read_vector(Location::parse(id), &[])?, read_vector(Location::parse(ood), &[])?);
            let metrics = move || Curve::new(&id, &ood).expect("a curve").metrics(0.95);
            let m = metrics();
            let answer = format!("{} {} {} {}", m.auroc, m.fpr_at_tpr, m.aupr_in, m.aupr_out);
            (
                Box::new(move || {
                    black_box(metrics());
                }),
                answer,
            )
        }
        ["read", features] => {
            let features = load(features)?;
            (
                Box::new(move || {
                    black_box(sum(features.as_slice().expect("rows")));
                }),
                String::new(),
            )
        }
        ["peak"] => (
            Box::new(|| {
                black_box(peak());
            }),
            peak().to_string(),
        ),
        _ => panic!("no such request: {words:?}"),
    })
}

/// Scores once into the file `out`, and then whenever asked.
fn scoring(detector: Detector, features: Array2<f32>, out: &str) -> Result<(Box<dyn FnMut()>, String)> {
    let before = resident("VmRSS", true);
    let scores = detector.score(features.view())?;
    let gained = resident("VmHWM", false).saturating_sub(before);
    write_npy(out, &scores)?;
    let answer = format!("{}; {gained}", detector.kernel());
    Ok((Box::new(move || drop(black_box(detector.score(features.view()).expect("scores")))), answer))
}

fn detector_of_space(train: &str, head: &str, spec: &str) -> Result<Detector> {
    let (head, features) = (Arc::new(read_head(Location::parse(head), None)?), load(train)?);
    let spec: Spec = spec.parse()?;
    let labels: Vec<i64> = (0..features.nrows()).map(|row| (row % head.classes()) as i64).collect();
    let mut statistics = Statistics::of_head(&head, &spec.needs())?;
    statistics.update_labelled(features.view(), &labels)?;
    spec.fit(&head, &statistics)
}

fn detector(head: &str, mean: &str, spec: &str) -> Result<Detector> {
    let head = Arc::new(read_head(Location::parse(head), None)?);
    let mean = Array1::from(read_vector(Location::parse(mean), &[])?);
    spec.parse::<Spec>()?.fit(&head, &Statistics::from_mean_activation(mean)?)
}

fn load(path: &str) -> Result<Array2<f32>> {
    let data = Dataset::new(&[path.to_owned()])?.without_labels();
    let mut source = data.open()?;
    let mut values = Vec::with_capacity(source.units() * source.rows().unwrap_or(0) as usize);
    for_each_block(&mut *source, |block| {
        values.extend_from_slice(&block.features);
        Ok(())
    })?;
    let units = source.units();
    Ok(Array2::from_shape_vec((values.len() / units, units), values).expect("whole rows"))
}

fn write_npy(path: &str, values: &[f64]) -> Result<()> {
    let rows = values.iter().map(|score| ScoreRow {
        id: Id::Text(String::new()),
        score: *score,
        p_value: None,
        decision: None,
        prediction: None,
        votes: Vec::new(),
    });
    let mut file = ScoreWriter::create(path)?;
    file.write(&rows.collect::<Vec<_>>())?;
    file.finish()
}

/// A field of what the system says of this process, in bytes; `reset` sets the peak to the present. 0 where unknown.
fn resident(field: &str, reset: bool) -> usize {
    if reset {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next());
    line.and_then(|kilobytes| kilobytes.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// The fastest that features can be read: added up in 64 independent sums, at once with and without hints of what is
/// next (the caller takes the better of many runs).
fn sum(values: &[f32]) -> f32 {
    let share = values.len().div_ceil(rayon::current_num_threads()).max(1);
    values.par_chunks(share).map(sum_part).sum()
}

fn sum_part(values: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature is there.
        return unsafe { sum_avx2(values) };
    }
    lanes(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(values: &[f32]) -> f32 {
    lanes(values)
}

#[inline(always)]
fn lanes(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 64];
    for values in values.as_chunks::<64>().0 {
        #[cfg(target_arch = "x86_64")]
        for line in values.as_chunks::<16>().0 {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a hint; no address makes it fault.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_add(1024).cast()) };
        }
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    sums.iter().sum()
}

/// Multiplies and adds in registers for a while on every thread; returns the number of operations.
fn peak() -> f64 {
    const STEPS: usize = 4_000_000;
    let threads = rayon::current_num_threads();
    let operations: usize = (0..threads).into_par_iter().map(|_| peak_part(STEPS)).sum();
    operations as f64
}

fn peak_part(steps: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature is there.
            return unsafe { multiply_avx512(steps) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features are there.
            return unsafe { multiply_avx2(steps) };
        }
    }
    multiply::<64, false>(steps)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn multiply_avx512(steps: usize) -> usize {
    multiply::<256, true>(steps)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(steps: usize) -> usize {
    multiply::<96, true>(steps)
}

#[inline(always)]
fn multiply<const LANES: usize, const FMA: bool>(steps: usize) -> usize {
    let (mut sums, factor, term) = ([0.5f32; LANES], black_box(0.999f32), black_box(0.001f32));
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = if FMA { sum.mul_add(factor, term) } else { *sum * factor + term };
        }
    }
    black_box(sums);
    2 * LANES * steps
}
