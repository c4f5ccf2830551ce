//! Why one input got its score: its units, its classes, what pruning removed, what members of a combination say, and the
//! nearest training inputs. Plain data, whoever shows it.
//!
//! ```
//! use std::sync::Arc;
//! use dice_ood::explanation::Explanation;
//! use dice_ood::{Calibrated, LinearHead, Needs, Spec, Statistics};
//! use ndarray::array;
//!
//! let head = Arc::new(LinearHead::from_rows(vec![2.0, -1.0], vec![0.0], 2)?);
//! let mut statistics = Statistics::new(2, &Needs::default());
//! statistics.update(array![[1.0, 0.0], [3.0, 0.0]].view())?;
//! let energy = Calibrated::scores_only("energy".parse::<Spec>()?.fit(&head, &statistics)?);
//! let why = Explanation::of(&energy, &statistics, &[0.5, 4.0])?;
//! // The energy of one class is its logit, 2 * 0.5 - 4: at their means, 2 and 0, the units would have made it 1 and 0.
//! assert_eq!((why.score, why.units[0].share, why.units[1].share), (-3.0, -3.0, -4.0));
//! # Ok::<(), dice_ood::Error>(())
//! ```

mod logits;
mod lookout;
mod members;
mod neighbours;
mod select;
mod units;

use serde::Serialize;

use crate::artifact::Calibrated;
use crate::calibration::{Calibration, Decision, Threshold};
use crate::error::Result;
use crate::statistics::Statistics;

pub use logits::{ClassShare, Pruning, Removed};
pub use lookout::{Lookout, Notable, Reason};
pub use members::MemberVote;
pub use neighbours::{Neighbour, nearest};
pub use select::{Selected, Wanted, select};
pub use units::UnitShare;

/// How many nearest rows of a bank, and how many removed contributions, an explanation holds.
const MOST: usize = 5;

/// Why one input got its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The spec of the detector.
    pub detector: String,
    /// The score, higher = more in-distribution.
    pub score: f64,
    /// What the threshold says, where the detector is calibrated.
    pub decided: Option<Decided>,
    /// The class that the whole head predicts for the features as the network makes them.
    pub prediction: usize,
    /// The pipeline whose logits `classes` and `pruning` are about: the first that shapes features or drops weights, else the
    /// first.
    pub pipeline: String,
    /// Every unit `[D]`, in order.
    pub units: Vec<UnitShare>,
    /// Every class `[C]`, in order.
    pub classes: Vec<ClassShare>,
    /// What the weights that `pipeline` drops would have added, where it drops some.
    pub pruning: Option<Pruning>,
    /// The members of a combination, in the order of its spec; none for a pipeline.
    pub members: Vec<MemberVote>,
    /// The nearest rows of the statistics' bank of training inputs, the nearest first; none where no bank was gathered.
    pub nearest: Vec<Neighbour>,
}

/// A decision, and where the score lies among those of the calibration inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Decided {
    /// Whether the input is accepted as in-distribution.
    pub accepted: bool,
    /// Scores of at least this are accepted.
    pub threshold: f64,
    /// The rate at which in-distribution inputs are accepted, as promised.
    pub promised_tpr: f64,
    /// The conformal p-value, `(1 + calibration_at_most) / (calibration_inputs + 1)`.
    pub p_value: f64,
    /// How many calibration scores there are.
    pub calibration_inputs: usize,
    /// How many of them are at most this score.
    pub calibration_at_most: usize,
    /// The same as a share: 0 for a score below all of them.
    pub percentile: f64,
}

impl Explanation {
    /// Explains what `calibrated` makes of an input of `features` `[D]`, with the `statistics` that it was fitted to.
    ///
    /// Units are occluded one by one, which takes D scores: for any score and any combination, whatever it reads.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for another D, [`ErrorKind::NotFinite`](crate::ErrorKind::NotFinite) for
    /// features that cannot be scored.
    pub fn of(calibrated: &Calibrated, statistics: &Statistics, features: &[f32]) -> Result<Self> {
        let detector = calibrated.detector();
        detector.head().check_features(features.len())?;
        let score = detector.score_one(features)?;
        let reading = logits::Reading::of(detector, features);
        Ok(Self {
            detector: detector.spec().to_string(),
            score,
            decided: calibrated.calibration().zip(calibrated.threshold()).map(|(all, by)| Decided::of(score, all, by)),
            prediction: reading.prediction,
            units: units::shares(detector, features, statistics, score, &reading)?,
            pipeline: reading.pipeline.spec.to_string(),
            pruning: reading.pruning(),
            classes: reading.classes(),
            members: members::votes(detector, features)?,
            nearest: statistics.bank().map(|bank| neighbours::of_bank(bank, features)).unwrap_or_default(),
        })
    }
}

impl Decided {
    fn of(score: f64, calibration: &Calibration, threshold: &Threshold) -> Self {
        let (inputs, at_most) = (calibration.scores().len(), calibration.rank(score));
        Self {
            accepted: threshold.decide(score) == Decision::InDistribution,
            threshold: threshold.score(),
            promised_tpr: threshold.tpr(),
            p_value: calibration.p_value(score),
            calibration_inputs: inputs,
            calibration_at_most: at_most,
            percentile: at_most as f64 / inputs as f64,
        }
    }
}

#[cfg(test)]
mod tests;
