//! The promise of the chosen detector over many splits of in-distribution inputs, weights fitted anew in each.

use std::path::PathBuf;

use ndarray::{Array2, Axis, concatenate, s};
use rayon::prelude::*;

use super::*;
use crate::Decision;
use crate::features::{ArraySource, Block, Picked, for_each_block};
use crate::io::{Dataset, Location, read_head};
use crate::random::shuffle;

const SPLITS: u64 = 200;
const TPR: f64 = 0.95;

/// A network, inputs that it was not trained on, and sets to fit weights to.
struct Case {
    head: Arc<LinearHead>,
    statistics: Statistics,
    /// In-distribution inputs, to be split.
    pool: Array2<f32>,
    validation: [Array2<f32>; 2],
    /// How many of the pool calibrate.
    calibrating: usize,
}

/// What the splits came to.
struct Realised {
    inside: u64,
    mean: f64,
    /// In how many of them weights were better than equal ones, and taken.
    weighted: u64,
}

impl Case {
    /// The network of `dice demo`.
    fn demo() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dice-cli/demo");
        let pool = concatenate![Axis(0), rows(&folder, "calibration"), rows(&folder, "test")];
        // The choice rejects all letters and photographs: halfway to digits something is left for weights to do.
        let digits = rows(&folder, "train");
        let halfway = |name| {
            let set = rows(&folder, name);
            (&set + &digits.slice(s![..set.nrows(), ..])) / 2.0
        };
        Self::of(&folder, "train", pool, [halfway("letters"), halfway("photos")], 440)
    }

    /// The paper's network, where its features are at hand.
    fn cifar10() -> Option<Self> {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
        let data = std::env::var_os("DICE_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
        let folder = data.join("cifar10-densenet101");
        if !folder.is_dir() {
            println!("skipped: no {}", folder.display());
            return None;
        }
        let validation = [rows(&folder, "svhn"), rows(&folder, "textures")];
        Some(Self::of(&folder, "id_train", rows(&folder, "id_test"), validation, 2000))
    }

    fn of(folder: &std::path::Path, train: &str, pool: Array2<f32>, ood: [Array2<f32>; 2], calibrating: usize) -> Self {
        let head = read_head(Location::parse(&file(folder, "head")), None).unwrap();
        let needs = Panel::new().unwrap().needs();
        // Ten thousand are enough for statistics, and the promise does not rest on them.
        let training = Dataset::new(&[file(folder, train)]).unwrap().open().unwrap();
        let mut training = Picked::new(training, |row, _| row < 10_000);
        let statistics = Statistics::gather(&mut training, Some(&head), &needs).unwrap();
        // A hundred or so, evenly spaced: the sets are in the order of their classes.
        let some = |set: Array2<f32>| set.slice(s![..;(set.nrows() / 100).max(1), ..]).to_owned();
        Self { head: Arc::new(head), statistics, pool, validation: ood.map(some), calibrating }
    }

    /// Splits the pool into calibration inputs and fresh ones, goes on as a fit does, and counts what is accepted of the fresh ones.
    fn realised(&self, by_weights: bool) -> Realised {
        let fitting = Fitting::new(&self.head, &self.statistics).unwrap();
        let choice = Panel::new().unwrap().choose(&fitting).unwrap();
        let members = choice.spec().prepare(&fitting).unwrap();
        let wanted = vec![(Wanted { spec: choice.spec(), required: true }, members)];
        let all = CalibrationScores::of(&wanted, &mut ArraySource::new(self.pool.view()), TPR).unwrap();
        let split = |seed: u64| {
            let order = shuffle(self.pool.nrows(), seed);
            let (calibration, fresh) = order.split_at(self.calibrating);
            let scores = all.of_rows(calibration);
            let validation = self.validation.iter().enumerate().filter(|_| by_weights);
            let opened = |set: &'_ Array2<f32>| -> Opening<'_> {
                let set = set.clone();
                Box::new(move || Ok(Box::new(Kept(set, 0)) as Box<dyn FeatureSource>))
            };
            let validation = validation.map(|(place, set)| (place.to_string(), opened(set))).collect();
            let validation = ValidationSets { sets: validation, id: Vec::new() };
            let made = choice.clone().settle(&fitting, &|prepared| scores.half(prepared, true), validation).unwrap();
            let calibrated = scores.calibrate(made.spec().prepare(&fitting).unwrap(), TPR).unwrap();
            let threshold = calibrated.threshold().unwrap();
            let prepared = made.spec().prepare(&fitting).unwrap();
            let fresh_scores = calibrated.detector().combine(&all.of_rows(fresh).whole(&prepared)).unwrap();
            let accepted = fresh_scores.iter().filter(|score| threshold.decide(**score) == Decision::InDistribution);
            let share = accepted.count() as f64 / fresh.len() as f64;
            let (low, high) = threshold.interval_among(fresh.len(), 0.95);
            let weighted = made.weighed().is_some_and(|weighed| weighed.taken);
            (u64::from(low <= share && share <= high), share, u64::from(weighted))
        };
        let found: Vec<(u64, f64, u64)> = (0..SPLITS).into_par_iter().map(split).collect();
        Realised {
            inside: found.iter().map(|one| one.0).sum(),
            mean: found.iter().map(|one| one.1).sum::<f64>() / SPLITS as f64,
            weighted: found.iter().map(|one| one.2).sum(),
        }
    }

    /// A random split makes the fresh inputs exchangeable with those of the threshold, given the reference half and the weights that
    /// rest on it, so that the number accepted is beta-binomial and splits are independent draws of it (but for ties, which
    /// accept more).
    fn assert_as_promised(&self, by_weights: bool) {
        let Realised { inside, mean, weighted } = self.realised(by_weights);
        println!("weights {by_weights}: {inside} of {SPLITS} inside, mean {mean:.4}, weights taken in {weighted}");
        // Binomial(200, >= 0.95): fewer than 180 inside has a probability below 0.2 %, and the seeds are fixed.
        assert!(inside >= 180, "{inside} of {SPLITS} inside their intervals");
        let (threshold, fresh) = (self.calibrating as f64 / 2.0, (self.pool.nrows() - self.calibrating) as f64);
        let deviation = (TPR * (1.0 - TPR) * (1.0 / threshold + 1.0 / fresh)).sqrt();
        // The mean lies between the promise and one input of the threshold more; four standard errors around that.
        let reach = 4.0 * deviation / (SPLITS as f64).sqrt();
        assert!(mean > TPR - reach && mean < TPR + 1.0 / threshold + reach, "{mean}");
        assert!(!by_weights || weighted > SPLITS / 10, "weights were taken in {weighted} splits");
    }
}

/// Rows of a validation set, which is opened in every split.
struct Kept(Array2<f32>, u64);

impl FeatureSource for Kept {
    fn units(&self) -> usize {
        self.0.ncols()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.0.nrows() as u64)
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.units(), self.1);
        let rows = self.0.slice(s![self.1 as usize.., ..]);
        rows.rows().into_iter().take(max_rows).for_each(|row| block.features.extend(row));
        self.1 += block.rows() as u64;
        Ok(())
    }
}

fn file(folder: &std::path::Path, name: &str) -> String {
    folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned()
}

fn rows(folder: &std::path::Path, name: &str) -> Array2<f32> {
    let mut source = Dataset::new(&[file(folder, name)]).unwrap().open().unwrap();
    let units = source.units();
    let mut values = Vec::new();
    for_each_block(&mut *source, |block| {
        values.extend_from_slice(&block.features);
        Ok(())
    })
    .unwrap();
    Array2::from_shape_vec((values.len() / units, units), values).unwrap()
}

#[test]
fn the_choice_accepts_as_promised_over_200_splits() {
    Case::demo().assert_as_promised(false);
}

#[test]
fn weights_that_are_fitted_in_each_split_keep_the_promise() {
    Case::demo().assert_as_promised(true);
}

#[test]
fn the_choice_keeps_its_promise_on_the_papers_network_too() {
    let Some(case) = Case::cifar10() else { return };
    case.assert_as_promised(false);
    case.assert_as_promised(true);
}
