//! What a choice came to, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::artifact::Calibrated;
use crate::head::LinearHead;
use crate::metrics::{Interval, Loss};
use crate::statistics::Statistics;

/// A detector that was chosen.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// How, and what is to be said of it.
    pub outcome: Outcome,
    pub(super) head: Arc<LinearHead>,
    pub(super) statistics: Statistics,
    /// The detector; its threshold rests on inputs that neither chose nor reported.
    pub calibrated: Calibrated,
}

/// An account of a choice. Losses are fractions, averaged over sets; less is better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What stood for out-of-distribution inputs.
    pub validation: String,
    /// How well that ranks detectors, in a sentence.
    pub worth: String,
    /// What was minimised.
    pub loss: Loss,
    /// The TPR at which FPR was taken.
    pub at_tpr: f64,
    /// The level of all intervals.
    pub level: f64,
    /// Seed of the split and of the bootstrap.
    pub seed: u64,
    /// The chosen detector.
    pub chosen: String,
    /// The chosen detector, the next best one and the baseline, on rows that did not choose.
    pub finalists: Vec<Finalist>,
    /// The loss of the chosen detector less that of the other finalists, on the same rows.
    pub differences: Vec<Difference>,
    /// How many rows did what.
    pub parts: Parts,
    /// All candidates by their loss on rows that chose: those compared on all of them first.
    pub ranking: Vec<Ranked>,
    /// Stand-ins that no candidate tells from in-distribution inputs; they did not count.
    pub dropped: Vec<String>,
    /// Candidates that could not be fitted, and why.
    pub left_out: BTreeMap<String, String>,
}

/// How many rows did what; no row did two things.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Parts {
    /// In-distribution inputs that chose.
    pub id_choosing: usize,
    /// In-distribution inputs that the report rests on.
    pub id_reporting: usize,
    /// In-distribution inputs that the threshold rests on.
    pub id_calibration: usize,
    /// In-distribution inputs that p-values of members rest on.
    pub id_reference: usize,
    /// Of each set: its name, how many of its rows chose, and how many the report rests on.
    pub sets: Vec<(String, usize, usize)>,
}

/// A candidate and what it lost on rows that chose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// Its spec.
    pub detector: String,
    /// Its loss.
    pub loss: f64,
    /// On which part of the choosing rows it was compared last.
    pub compared_on: String,
}

/// What a detector loses on rows that did not choose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finalist {
    /// Its spec.
    pub detector: String,
    /// Its loss.
    pub loss: f64,
    /// Where its loss on all such inputs lies.
    pub interval: Interval,
}

/// What the chosen detector loses less what another does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The other.
    pub to: String,
    /// The difference; negative where the chosen one is better.
    pub estimate: f64,
    /// Where the difference on all such inputs lies.
    pub interval: Interval,
    /// Whether the interval leaves out zero.
    pub shown: bool,
}

impl Difference {
    pub(super) fn new(to: String, estimate: f64, interval: Interval) -> Self {
        Self { to, estimate, interval, shown: interval.low > 0.0 || interval.high < 0.0 }
    }
}
