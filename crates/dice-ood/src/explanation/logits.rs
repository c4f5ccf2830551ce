//! The logits behind a score, in f64, and what dropped weights would have added to them.

use serde::Serialize;

use crate::detector::Detector;
use crate::explanation::MOST;
use crate::head::LinearHead;
use crate::mask::Mask;
use crate::pipeline::Pipeline;

/// What one class has in the logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassShare {
    /// Its number.
    pub class: usize,
    /// The logit of the whole head, of the features as the network makes them.
    pub dense_logit: f64,
    /// The softmax probability of that logit: its share in the sum of exponentials whose log is the dense energy.
    pub dense_share: f64,
    /// The logit of the kept weights, of the shaped features; the dense one where nothing is shaped or dropped.
    pub logit: f64,
    /// The softmax probability of that logit: its share in the energy that the pipeline reads.
    pub share: f64,
}

/// What the weights that a pipeline drops would have added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pruning {
    /// Weights of the head, C * D.
    pub weights: usize,
    /// How many are kept.
    pub weights_kept: usize,
    /// How many of the predicted class are kept.
    pub class_weights_kept: usize,
    /// `logsumexp` of the logits of the whole head, of the features as the network makes them.
    pub dense_energy: f64,
    /// The same of the shaped features; equal to the dense energy where nothing is shaped.
    pub shaped_energy: f64,
    /// The same of the shaped features and the kept weights.
    pub energy: f64,
    /// What dropping weights takes from the energy: `shaped_energy - energy`.
    pub removed: f64,
    /// The sum of the dropped contributions `w h` to the logit of the predicted class that are positive.
    pub removed_positive: f64,
    /// The sum of those that are negative.
    pub removed_negative: f64,
    /// The largest of them by magnitude, the largest first; at most five.
    pub largest: Vec<Removed>,
}

/// A contribution to the logit of the predicted class that is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Removed {
    /// The unit.
    pub unit: usize,
    /// Weight times shaped activation.
    pub contribution: f64,
}

/// The logits of one input.
pub(super) struct Reading<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// What the whole head predicts.
    pub(super) prediction: usize,
    shaped: Vec<f32>,
    dense: Vec<f64>,
    own: Vec<f64>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(detector: &'a Detector, features: &[f32]) -> Self {
        let pipelines = detector.fitted();
        let changes = |pipeline: &&std::sync::Arc<Pipeline>| {
            let stem = &pipeline.spec.stem;
            stem.shaping.is_some() || stem.sparsity.is_some()
        };
        let pipeline = pipelines.iter().find(changes).unwrap_or(&pipelines[0]);
        let shaped = pipeline.stem.shaped_row(features);
        let dense = logits(detector.head(), None, features);
        let own = logits(detector.head(), pipeline.stem.mask(), &shaped);
        Self { pipeline, prediction: largest(&dense), shaped, dense, own }
    }

    /// Whether the weight of `unit` for the predicted class is kept, where weights are dropped.
    pub(super) fn kept(&self, unit: usize) -> Option<bool> {
        self.pipeline.stem.mask().map(|mask| mask.kept()[(self.prediction, unit)])
    }

    pub(super) fn classes(&self) -> Vec<ClassShare> {
        let shares = |logits: &[f64]| {
            let energy = energy(logits);
            logits.iter().map(|logit| (logit - energy).exp()).collect::<Vec<f64>>()
        };
        let (dense, own) = (shares(&self.dense), shares(&self.own));
        let class = |class: usize| ClassShare {
            class,
            dense_logit: self.dense[class],
            dense_share: dense[class],
            logit: self.own[class],
            share: own[class],
        };
        (0..self.own.len()).map(class).collect()
    }

    pub(super) fn pruning(&self) -> Option<Pruning> {
        let mask = self.pipeline.stem.mask()?;
        let head = &self.pipeline.stem.head;
        let mut dropped = self.dropped(head, mask);
        let sum = |sign: fn(&f64) -> bool| dropped.iter().map(|one| one.contribution).filter(sign).sum();
        let (removed_positive, removed_negative) = (sum(|value| *value > 0.0), sum(|value| *value < 0.0));
        dropped.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        dropped.truncate(MOST);
        let shaped_energy = energy(&logits(head, None, &self.shaped));
        let own = energy(&self.own);
        Some(Pruning {
            weights: mask.kept().len(),
            weights_kept: mask.count(),
            class_weights_kept: mask.kept().row(self.prediction).iter().filter(|kept| **kept).count(),
            dense_energy: energy(&self.dense),
            shaped_energy,
            energy: own,
            removed: shaped_energy - own,
            removed_positive,
            removed_negative,
            largest: dropped,
        })
    }

    /// Contributions to the logit of the predicted class that are dropped and not zero.
    fn dropped(&self, head: &LinearHead, mask: &Mask) -> Vec<Removed> {
        let (weight, kept) = (head.weight(), mask.kept());
        let parts =
            weight.row(self.prediction).into_iter().zip(kept.row(self.prediction)).zip(&self.shaped).enumerate();
        let removed = parts
            .filter(|(_, ((_, kept), _))| !**kept)
            .map(|(unit, ((weight, _), value))| Removed { unit, contribution: f64::from(*weight) * f64::from(*value) });
        removed.filter(|one| one.contribution != 0.0).collect()
    }
}

/// `(M * W) h + b` `[C]` in f64.
fn logits(head: &LinearHead, mask: Option<&Mask>, features: &[f32]) -> Vec<f64> {
    let weight = head.weight();
    let rows = weight.rows().into_iter().zip(head.bias());
    let logit = |(class, (row, bias)): (usize, (ndarray::ArrayView1<'_, f32>, &f32))| {
        let kept = |unit: &usize| mask.is_none_or(|mask| mask.kept()[(class, *unit)]);
        let products = row.iter().zip(features).enumerate().filter(|(unit, _)| kept(unit));
        products.fold(f64::from(*bias), |sum, (_, (weight, value))| sum + f64::from(*weight) * f64::from(*value))
    };
    rows.enumerate().map(logit).collect()
}

/// The log of the sum of the exponentials.
fn energy(logits: &[f64]) -> f64 {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln()
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    let larger = |best: usize, place: usize| if values[place] > values[best] { place } else { best };
    (0..values.len()).fold(0, larger)
}
