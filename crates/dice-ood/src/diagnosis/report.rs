//! Everything that a diagnosis finds, as plain data.

use serde::Serialize;

use super::collapse::Collapse;
use super::estimate::Estimate;
use super::forecast::Forecast;
use super::reading::Profile;
use super::simulate::Simulation;
use super::variance::Outputs;
use crate::evaluation::Distance;

/// What a set of inputs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// In-distribution inputs.
    InDistribution,
    /// Out-of-distribution inputs.
    OutOfDistribution,
    /// In-distribution inputs that were distorted, to stand for out-of-distribution ones.
    StandIn,
}

/// Everything that was found. Shares are fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The detector that it is about.
    pub detector: String,
    /// What to expect of it.
    pub forecast: Forecast,
    /// Classes of the head.
    pub classes: usize,
    /// Units of the head.
    pub units: usize,
    /// What the training features are like.
    pub training: Profile,
    /// What the mask keeps.
    pub mask: MaskAccount,
    /// How near the network is to neural collapse.
    pub collapse: Collapse,
    /// Every set, the in-distribution inputs first.
    pub sets: Vec<SetAccount>,
    /// The same at other sparsities, ascending in p; the first is the dense head.
    pub sensitivity: Vec<Level>,
    /// The lemma on independent normal units of the same means and variances; only where it was asked for.
    pub simulation: Option<Simulation>,
}

/// What a mask keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaskAccount {
    /// Weights of the head.
    pub weights: usize,
    /// Those that are kept.
    pub kept: usize,
    /// Share of the sum of positive contributions that the kept weights carry.
    pub contribution_kept: f64,
    /// Share of the dropped weights whose contribution is negative.
    pub dropped_negative: f64,
    /// The sum of the magnitudes of dropped contributions over that of all: 0 where dropped units contribute nothing on average.
    pub dropped_magnitude: f64,
    /// Units that keep no weight.
    pub unused_units: usize,
    /// Units whose mean activation is below 1 % of the largest. An unused unit need not be silent, nor a silent one unused.
    pub silent_units: usize,
    /// Units that are silent and keep no weight.
    pub silent_and_unused: usize,
    /// Weights that each class keeps.
    pub kept_by_class: Vec<usize>,
}

/// What the detector does to a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetAccount {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether it is near or far, where that was said.
    pub distance: Option<Distance>,
    /// What its features are like.
    pub features: Profile,
    /// Pruning with the features as they are.
    pub outputs: Outputs,
    /// Pruning with the shaped features, where the detector shapes them.
    pub outputs_shaped: Option<Outputs>,
    /// The log of mean over deviation of the predicted class's logit without bias, by the detector less by the dense head.
    pub signal: Estimate,
    /// Mean and standard deviation of the energy by the dense head.
    pub energy_before: (f64, f64),
    /// The same by the detector.
    pub energy_after: (f64, f64),
    /// Share of the inputs whose class the detector's head changes.
    pub class_changed: f64,
    /// Accuracy by the dense head and by the detector's, where there are labels.
    pub accuracy: Option<(f64, f64)>,
    /// How well the set is told from the in-distribution inputs.
    pub separation: Option<Separation>,
}

/// How well energies tell a set from the in-distribution inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Separation {
    /// AUROC by the dense head.
    pub auroc_before: f64,
    /// AUROC by the detector.
    pub auroc_after: f64,
    /// The latter less the former, with its interval for these pairs of scores.
    pub gain: Estimate,
    /// Share accepted where 95 % of the in-distribution inputs are, by the dense head.
    pub fpr_before: f64,
    /// The same by the detector.
    pub fpr_after: f64,
}

/// A sparsity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// Share of the weights dropped.
    pub p: f64,
    /// Weights kept.
    pub kept: usize,
    /// Share of the sum of positive contributions that these carry.
    pub contribution_kept: f64,
    /// Units that keep no weight.
    pub unused_units: usize,
    /// As in [`SetAccount::signal`], of the in-distribution inputs.
    pub signal: Estimate,
    /// Sum over classes of the output's variance on the in-distribution inputs, over that by the dense head.
    pub variance_kept: f64,
    /// Share of the in-distribution inputs whose class changes.
    pub class_changed: f64,
    /// Accuracy, where there are labels.
    pub accuracy: Option<f64>,
    /// AUROC less that by the dense head, for each of the other sets.
    pub gains: Vec<f64>,
    /// AUROC, for each of the other sets.
    pub auroc: Vec<f64>,
    /// Share accepted where 95 % of the in-distribution inputs are, for each of the other sets.
    pub fpr: Vec<f64>,
}
