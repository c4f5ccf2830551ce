//! The laws that every method obeys. A method that is not in the table, or whose example does not use it, fails here.

use std::collections::BTreeSet;
use std::sync::Arc;

use ndarray::{Array2, Axis};
use proptest::prelude::*;

use super::{Entry, METHODS, Make};
use crate::detector::Detector;
use crate::error::ErrorKind;
use crate::graph::Graph;
use crate::head::LinearHead;
use crate::pipeline::Fitting;
use crate::random::SplitMix64;
use crate::spec::Spec;
use crate::statistics::{Needs, Statistics};

const UNITS: usize = 12;
const CLASSES: usize = 5;

pub(super) struct Problem {
    seed: u64,
    pub(super) head: Arc<LinearHead>,
    pub(super) features: Array2<f32>,
    labels: Vec<i64>,
}

/// Rectified features of five classes that the head tells apart, as those of a network are; a few labels are wrong.
pub(super) fn problem(seed: u64) -> Problem {
    let mut random = SplitMix64::new(seed);
    let mut uniform = move || (random.next() >> 40) as f32 / (1u64 << 24) as f32;
    // Units of a class of their own, so that the head is right on rows of every class.
    let own = |place: usize| f32::from(u8::from(place % UNITS % CLASSES == place / UNITS));
    let weight = (0..CLASSES * UNITS).map(|place| 0.5 * uniform() - 0.2 + 0.8 * own(place)).collect();
    let head = LinearHead::from_rows(weight, (0..CLASSES).map(|_| uniform() * 0.1).collect(), UNITS).unwrap();
    let labels: Vec<i64> = (0..160).map(|row| (row + i64::from(row % 16 == 9)) % CLASSES as i64).collect();
    let features = Array2::from_shape_fn((160, UNITS), |(row, unit)| {
        (head.weight()[(row % CLASSES, unit)] * 2.0 + uniform() - 0.3).max(0.0)
    });
    Problem { seed, head: Arc::new(head), features, labels }
}

impl Problem {
    pub(super) fn statistics(&self, needs: &Needs) -> Statistics {
        let mut statistics = Statistics::of_head(&self.head, needs).unwrap();
        statistics.update_labelled(self.features.view(), &self.labels).unwrap();
        statistics
    }

    fn fit(&self, spec: &Spec) -> Detector {
        let statistics = self.statistics(&spec.needs());
        let prepared = spec.prepare(&Fitting::new(&self.head, &statistics).unwrap()).unwrap();
        // Reference inputs are others: a p-value jumps where a score meets that of a reference input.
        let others = problem(!self.seed).features;
        let score = |one: &Detector| one.score(others.view()).unwrap();
        let reference: Vec<Vec<f64>> = prepared.pipelines().iter().map(score).collect();
        prepared.finish(&reference).unwrap()
    }
}

/// For each row whether a member of a combination scores it so near to a reference score that rounding decides its p-value.
fn jumps(detector: &Detector, features: &Array2<f32>) -> Vec<bool> {
    let mut jumps = vec![false; features.nrows()];
    for (pipeline, reference) in detector.fitted().iter().zip(detector.reference()) {
        let scores = Detector::of_pipeline(Arc::clone(pipeline)).score(features.view()).unwrap();
        for (jumps, score) in jumps.iter_mut().zip(scores) {
            *jumps |= reference.iter().any(|one| (one - score).abs() <= 1e-5 * score.abs().max(1.0));
        }
    }
    jumps
}

/// The problem in f64, for definitions as published: loops over rows, units and classes.
pub(super) struct Naive {
    /// Training features, which are also those that are scored.
    pub(super) rows: Vec<Vec<f64>>,
    pub(super) labels: Vec<usize>,
    /// W and b of the head.
    pub(super) weight: Vec<Vec<f64>>,
    pub(super) bias: Vec<f64>,
}

impl Naive {
    fn new(problem: &Problem) -> Self {
        let wide = |matrix: ndarray::ArrayView2<'_, f32>| -> Vec<Vec<f64>> {
            matrix.rows().into_iter().map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
        };
        Self {
            rows: wide(problem.features.view()),
            labels: problem.labels.iter().map(|label| *label as usize).collect(),
            weight: wide(problem.head.weight()),
            bias: problem.head.bias().iter().map(|value| f64::from(*value)).collect(),
        }
    }

    pub(super) fn logits(&self, h: &[f64]) -> Vec<f64> {
        self.weight.iter().zip(&self.bias).map(|(w, b)| dot(w, h) + b).collect()
    }

    pub(super) fn class(&self, h: &[f64]) -> usize {
        let f = self.logits(h);
        (0..f.len()).fold(0, |best, class| if f[class] > f[best] { class } else { best })
    }

    pub(super) fn energy(&self, h: &[f64]) -> f64 {
        self.logits(h).iter().map(|f| f.exp()).sum::<f64>().ln()
    }

    /// The mean of the rows that `wanted` takes, of a row and its label.
    pub(super) fn mean(&self, wanted: impl Fn(&[f64], usize) -> bool) -> Vec<f64> {
        let those: Vec<&Vec<f64>> = self
            .rows
            .iter()
            .zip(&self.labels)
            .filter(|(row, label)| wanted(row, **label))
            .map(|(row, _)| row)
            .collect();
        (0..UNITS).map(|unit| those.iter().map(|row| row[unit]).sum::<f64>() / those.len() as f64).collect()
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Asserts that the detector `text` scores each row as `naive` does.
pub(super) fn assert_scores(text: &str, naive: impl Fn(&Naive, &[f64]) -> f64) {
    for seed in 0..4 {
        let problem = problem(seed);
        let expected = Naive::new(&problem);
        let found = problem.fit(&text.parse().unwrap()).score(problem.features.view()).unwrap();
        for (found, row) in found.iter().zip(&expected.rows) {
            let expected = naive(&expected, row);
            // A dozen f32 products of values below 10.
            let bound = 13.0 * 0.5 * f64::from(f32::EPSILON) * 120.0;
            assert!((found - expected).abs() <= bound * expected.abs().max(1.0), "{text}: {found} for {expected}");
        }
    }
}

/// Asserts that the shaping `text` makes of each row what `naive` does, as the energy behind it tells.
pub(super) fn assert_shapes(text: &str, naive: impl Fn(&Naive, &[f64]) -> Vec<f64>) {
    assert_scores(&format!("{text} | energy"), |given, row| given.energy(&naive(given, row)));
}

/// A method's example, its parameters made small enough for the problem at hand.
fn example(entry: &Entry) -> Spec {
    let text = entry
        .card
        .example
        .replace("(50)", "(3)")
        .replace("(20)", "(3)")
        .replace("(256)", "(4)")
        .replace("(0.99)", "(0.9)");
    text.parse().unwrap()
}

#[test]
fn every_method_is_registered_once_under_its_own_name() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/methods")).unwrap();
    let files: BTreeSet<String> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().replace('_', "-"))
        .filter(|name| !["mod", "laws"].contains(&name.as_str()))
        .collect();
    let named: BTreeSet<String> = METHODS.iter().map(|entry| entry.card.name.to_owned()).collect();
    assert_eq!(named.len(), METHODS.len(), "a name that stands twice");
    assert_eq!(named, files, "one file a method");
}

#[test]
fn every_card_is_whole_and_its_defaults_build_and_print_back() {
    for entry in METHODS {
        let card = entry.card;
        for text in [card.name, card.about, card.formula, card.paper, card.cost, card.example] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{}: `{text}`", card.name);
        }
        assert!(card.parameters.iter().filter(|parameter| parameter.bare).count() <= 1, "{}", card.name);
        assert!(example(entry).to_string().contains(card.name), "{}", card.name);
        let given = card.example_arguments();
        let arguments = match &entry.make {
            Make::Shaping(make) => make(&given).map(|step| step.arguments()),
            Make::Sparsity(make) => make(&given).map(|step| step.arguments()),
            Make::Score(make) => make(&given).map(|step| step.arguments()),
            Make::Combination(make) => make(&given).map(|step| step.arguments()),
        };
        assert_eq!(arguments.unwrap(), given, "{}", card.name);
    }
}

/// The methods that this build can fit.
fn fittable() -> impl Iterator<Item = &'static Entry> {
    let problem = problem(0);
    METHODS.iter().filter(move |entry| {
        let spec = example(entry);
        let statistics = problem.statistics(&spec.needs());
        let fitted = spec.prepare(&Fitting::new(&problem.head, &statistics).unwrap());
        let missing = fitted.is_err_and(|error| error.kind() == ErrorKind::Unsupported);
        assert!(!(missing && cfg!(feature = "linalg")), "{} is not supported", entry.card.name);
        if missing {
            println!("skipped: {}, as this build is without the feature `linalg`", entry.card.name);
        }
        !missing
    })
}

#[test]
fn a_batch_scores_as_its_rows_whatever_the_threads() {
    let problem = problem(1);
    for entry in fittable() {
        let detector = problem.fit(&example(entry));
        let all = detector.score(problem.features.view()).unwrap();
        let rows: Vec<f64> = problem
            .features
            .axis_iter(Axis(0))
            .flat_map(|row| detector.score(row.insert_axis(Axis(0))).unwrap())
            .collect();
        assert_eq!(rows, all, "{}", entry.card.name);
        let one: Vec<f64> =
            problem.features.rows().into_iter().map(|row| detector.score_one(&row.to_vec()).unwrap()).collect();
        assert_eq!(one, all, "{}", entry.card.name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| detector.score(problem.features.view()).unwrap()), all, "{}", entry.card.name);
    }
}

#[test]
fn what_is_missing_is_asked_for_by_name() {
    let problem = problem(2);
    let nothing = problem.statistics(&Needs::default());
    for entry in fittable() {
        let spec = example(entry);
        let fitting = Fitting::new(&problem.head, &nothing).unwrap();
        match spec.prepare(&fitting) {
            Ok(_) => assert_eq!(spec.needs(), Needs::default(), "{}", entry.card.name),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Missing, "{}: {error}", entry.card.name);
                let asked = spec.needs().iter().any(|need| error.to_string().contains(&need.to_string()));
                assert!(asked, "{}: {error}", entry.card.name);
            }
        }
    }
}

#[test]
fn masks_that_keep_nothing_are_refused() {
    let head = Arc::new(LinearHead::from_rows(vec![1.0; 6], vec![0.0; 2], 3).unwrap());
    let statistics = Statistics::from_mean_activation(ndarray::Array1::zeros(3)).unwrap();
    let spec: Spec = "dice(0.5) | energy".parse().unwrap();
    assert_eq!(spec.fit(&head, &statistics).unwrap_err().kind(), ErrorKind::Argument);
    let other = Statistics::from_mean_activation(ndarray::Array1::zeros(4)).unwrap();
    assert_eq!(spec.fit(&head, &other).unwrap_err().kind(), ErrorKind::Shape);
}

fn kept(problem: &Problem, text: &str) -> Vec<bool> {
    let detector = problem.fit(&format!("{text} | energy").parse().unwrap());
    detector.mask().unwrap().kept().iter().copied().collect()
}

#[test]
fn presets_and_scopes_keep_what_they_say() {
    let problem = problem(3);
    let count = |text: &str| kept(&problem, text).iter().filter(|kept| **kept).count();
    assert_eq!(count("dice(0)"), CLASSES * UNITS);
    assert_eq!(count("dice(0, preset=official)"), CLASSES * UNITS - 1, "the smallest goes");
    let per_class = kept(&problem, "dice(0.75, scope=per-class)");
    assert!(per_class.chunks(UNITS).all(|class| class.iter().filter(|kept| **kept).count() == UNITS / 4));
}

/// A score that says that it does not depend on the weights of a head does not; those are few.
#[test]
fn scores_depend_on_a_head_where_they_say_so() {
    let (problem, other) = (problem(3), problem(4).head);
    // It predicts other classes.
    let reversed = other.weight().rows().into_iter().rev().flatten().copied().collect();
    let other = Arc::new(LinearHead::from_rows(reversed, other.bias().to_vec(), UNITS).unwrap());
    let specs = fittable().filter(|entry| entry.role() == "score").map(|entry| Spec::of_method(entry).unwrap());
    let free: Vec<Spec> = specs.filter(|spec| !spec.takes_head()).collect();
    assert!(free.iter().any(|spec| spec.to_string() == "knn") && free.len() < 9, "{free:?}");
    for spec in free {
        let mut statistics = Statistics::of_head(&other, &spec.needs()).unwrap();
        statistics.update_labelled(problem.features.view(), &problem.labels).unwrap();
        let score = |detector: Detector| detector.score(problem.features.view()).unwrap();
        assert_eq!(score(spec.fit(&other, &statistics).unwrap()), score(problem.fit(&spec)), "{spec}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The expression is the specification, in f64.
    #[test]
    fn every_score_is_its_expression(seed: u64) {
        let problem = problem(seed);
        let mut features = problem.features.clone();
        // Inputs of silent units are inputs, too.
        features.row_mut(7).fill(0.0);
        for entry in fittable() {
            let detector = problem.fit(&example(entry));
            let mut graph = Graph::default();
            let wire = detector.express(&mut graph);
            prop_assert_eq!(wire.is_some(), entry.card.exports, "{}", entry.card.name);
            let Some(wire) = wire else { continue };
            let expected = graph.evaluate(features.as_slice().unwrap(), features.nrows(), wire);
            let jumps = jumps(&detector, &features);
            prop_assert!(jumps.iter().filter(|jumps| **jumps).count() < features.nrows() / 2, "{}", entry.card.name);
            let scores = detector.score(features.view()).unwrap();
            for ((found, expected), _) in scores.iter().zip(expected).zip(jumps).filter(|(_, jumps)| !jumps) {
                // Sums of at most a hundred f32 products of values below 4: gamma_100 * 400, doubled for what follows.
                let bound = 2.0 * 100.0 * 0.5 * f64::from(f32::EPSILON) * 400.0;
                prop_assert!(
                    (found - expected).abs() <= bound * expected.abs().max(1.0),
                    "{}: {} for {}", entry.card.name, found, expected
                );
            }
        }
    }

    #[test]
    fn masks_nest_as_p_grows(seed: u64, low in 0.0f64..0.95, more in 0.0f64..0.5) {
        let problem = problem(seed);
        let high = (low + more).min(0.95);
        for entry in METHODS.iter().filter(|entry| matches!(entry.make, Make::Sparsity(_))) {
            let name = entry.card.name;
            let (wide, narrow) = (kept(&problem, &format!("{name}({low})")), kept(&problem, &format!("{name}({high})")));
            prop_assert!(narrow.iter().zip(&wide).all(|(narrow, wide)| !narrow || *wide), "{} {} {}", name, low, high);
        }
    }

    #[test]
    fn whole_counts_survive_without_ties_and_presets_agree_there(seed: u64, tenths in 1usize..10) {
        let problem = problem(seed);
        let p = tenths as f64 / 10.0;
        let paper = kept(&problem, &format!("dice({p})"));
        prop_assert_eq!(paper.iter().filter(|kept| **kept).count(), CLASSES * UNITS / 10 * (10 - tenths));
        prop_assert_eq!(&kept(&problem, &format!("dice({p}, preset=official)")), &paper);
    }
}
