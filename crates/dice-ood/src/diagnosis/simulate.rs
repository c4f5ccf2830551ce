//! The lemma of the paper under its own assumptions: independent normal units, drawn from a seed.

use std::f64::consts::TAU;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::mask::{Mask, contribution, largest};
use crate::random::SplitMix64;

use super::variance::mean_and_variance;

/// What pruning does to the output variance of independent normal units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Inputs drawn.
    pub rows: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Sum over classes of the variance of the output before pruning, as drawn.
    pub variance_before: f64,
    /// The same after pruning, as drawn.
    pub variance_after: f64,
    /// By how much it fell, as drawn.
    pub reduction: f64,
    /// By how much the lemma says that it falls: the sum of the variances of dropped contributions.
    pub reduction_by_lemma: f64,
    /// Classes whose output has a smaller variance after pruning.
    pub classes_lower: usize,
    /// Classes of the head.
    pub classes: usize,
}

/// Units for a simulation: a head, which of its weights are kept, and the mean and the variance of each unit `[D]`.
pub(super) struct Units<'a> {
    pub(super) head: &'a LinearHead,
    pub(super) mask: &'a Mask,
    pub(super) means: &'a [f64],
    pub(super) variances: &'a [f64],
}

impl Simulation {
    /// Draws `rows` inputs of independent normal units, for a head that is drawn too: 10 classes, 342 units whose means fall
    /// from 1 to 0 and whose deviations are a half, and the `p` that contribute least dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for fewer than two rows and for a p outside 0 to 1.
    pub fn of_normal_units(rows: usize, seed: u64, p: f64) -> Result<Self> {
        const CLASSES: usize = 10;
        const UNITS: usize = 342;
        if !(0.0..1.0).contains(&p) {
            return Err(Error::new(ErrorKind::Argument, p.to_string())
                .argument("p")
                .expected("at least 0 and below 1"));
        }
        let mut normal = Normal::new(seed, u64::MAX);
        let weight: Vec<f32> = (0..CLASSES * UNITS).map(|_| normal.draw() as f32).collect();
        let head = LinearHead::from_rows(weight, vec![0.0; CLASSES], UNITS)?;
        let means: Vec<f64> = (0..UNITS).map(|unit| 1.0 - unit as f64 / UNITS as f64).collect();
        let values = contribution(&head, ndarray::ArrayView1::from(&means));
        let mask = Mask::of_weights(UNITS, &largest(values.as_slice().unwrap_or_default(), p))?;
        Self::run(&Units { head: &head, mask: &mask, means: &means, variances: &[0.25; UNITS] }, rows, seed)
    }

    /// Draws `rows` inputs of these units.
    pub(super) fn run(units: &Units<'_>, rows: usize, seed: u64) -> Result<Self> {
        if rows < 2 {
            return Err(Error::new(ErrorKind::Argument, rows.to_string()).argument("rows").expected("at least 2"));
        }
        let classes = units.head.classes();
        let drawn: Vec<Vec<[f64; 2]>> = (0..rows).into_par_iter().map(|row| units.outputs(seed, row as u64)).collect();
        let moments = |class: usize, side: usize| {
            // Moved by the first row, so that large means do not swallow variances.
            let first = drawn[0][class][side];
            let values = drawn.iter().map(|row| row[class][side] - first);
            let (sum, square) = values.fold((0.0, 0.0), |(sum, square), value| (sum + value, square + value * value));
            mean_and_variance(sum, square, rows as f64).1
        };
        let both: Vec<[f64; 2]> = (0..classes).map(|class| [moments(class, 0), moments(class, 1)]).collect();
        let (variance_before, variance_after) = both.iter().fold((0.0, 0.0), |(a, b), [x, y]| (a + x, b + y));
        Ok(Self {
            rows,
            seed,
            variance_before,
            variance_after,
            reduction: variance_before - variance_after,
            reduction_by_lemma: units.dropped(),
            classes_lower: both.iter().filter(|[before, after]| after < before).count(),
            classes,
        })
    }
}

impl Units<'_> {
    /// The outputs of each class with all weights and with the kept ones, for one drawn input.
    fn outputs(&self, seed: u64, row: u64) -> Vec<[f64; 2]> {
        let mut normal = Normal::new(seed, row);
        let unit = |(mean, variance): (&f64, &f64)| mean + variance.sqrt() * normal.draw();
        let input: Vec<f64> = self.means.iter().zip(self.variances).map(unit).collect();
        let of_class = |(weights, kept): (ndarray::ArrayView1<'_, f32>, ndarray::ArrayView1<'_, bool>)| {
            let mut outputs = [0.0; 2];
            for ((weight, kept), value) in weights.iter().zip(kept).zip(&input) {
                let part = f64::from(*weight) * value;
                outputs[0] += part;
                outputs[1] += if *kept { part } else { 0.0 };
            }
            outputs
        };
        self.head.weight().rows().into_iter().zip(self.mask.kept().rows()).map(of_class).collect()
    }

    /// The sum of the variances of dropped contributions.
    fn dropped(&self) -> f64 {
        let weights = self.head.weight();
        let kept = self.mask.kept();
        let parts = weights.indexed_iter().filter(|(place, _)| !kept[*place]);
        parts.map(|((_, unit), weight)| f64::from(*weight).powi(2) * self.variances[unit]).sum()
    }
}

/// Standard normal numbers, by Box and Muller.
struct Normal {
    random: SplitMix64,
    other: Option<f64>,
}

impl Normal {
    fn new(seed: u64, stream: u64) -> Self {
        Self { random: SplitMix64::new(SplitMix64::mix(seed) ^ SplitMix64::mix(stream.wrapping_add(1))), other: None }
    }

    fn draw(&mut self) -> f64 {
        if let Some(other) = self.other.take() {
            return other;
        }
        let mut uniform = || ((self.random.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (length, angle) = ((-2.0 * uniform().ln()).sqrt(), TAU * uniform());
        self.other = Some(length * angle.sin());
        length * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lemma_holds_under_its_assumptions() {
        let found = Simulation::of_normal_units(4096, 3, 0.9).unwrap();
        // A variance of 4,096 normal rows is known to sqrt(2 / 4096) = 2.2 %.
        assert!((found.reduction / found.reduction_by_lemma - 1.0).abs() < 0.1, "{found:?}");
        assert_eq!((found.classes_lower, found.classes), (10, 10));
        assert_eq!(found, Simulation::of_normal_units(4096, 3, 0.9).unwrap());
        assert_ne!(found, Simulation::of_normal_units(4096, 4, 0.9).unwrap());
        assert!(Simulation::of_normal_units(1, 0, 0.9).is_err() && Simulation::of_normal_units(9, 0, 1.0).is_err());
    }

    #[test]
    fn draws_are_standard_normal() {
        let mut normal = Normal::new(5, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| normal.draw()).collect();
        let moment = |power: i32| draws.iter().map(|draw| draw.powi(power)).sum::<f64>() / 1e5;
        // Five deviations of each moment: sqrt(1), sqrt(2), sqrt(15), sqrt(96) over sqrt(100,000).
        let expected = [(1, 0.0, 0.016), (2, 1.0, 0.023), (3, 0.0, 0.062), (4, 3.0, 0.155)];
        assert!(expected.iter().all(|(power, mean, bound)| (moment(*power) - mean).abs() < *bound));
    }
}
