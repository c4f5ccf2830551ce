//! Whether features, head, labels and calibration inputs belong together.
//!
//! Nothing in a file of features says which layer of which network they came from. What gives a mistake away is how
//! the head reads them, so while a fit streams, a [`Witness`] keeps a uniform sample of the rows, one block at most, and
//! a hash of every row. What looks wrong is returned as data, a list of [`Finding`]s; the fit itself is not changed.
//!
//! The limits below were set on eleven trained networks (convolutional and transformer, 10 and 1000 classes, signed
//! features too): none of them raises a finding with its own head, labels and calibration inputs.

mod calibration;
mod labels;
mod reading;
mod rows;
mod sentences;

use std::fmt;

use serde::Serialize;

use crate::error::Result;
use crate::head::LinearHead;
use labels::Labelled;
use reading::HeadReading;
pub(crate) use rows::{FEWEST, MOST_SHARED, Witness, refuse_few};

/// Fewer rows than this are too few to judge by.
const FEWEST_ROWS: usize = 50;

/// Something that a fit met and that is probably a mistake, with the figures that say so.
///
/// [`Display`](fmt::Display) is a plain sentence that ends in what to check; serialised it is an object with a `kind` and the figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// The head reads the features no better than with its units in another order: features of another layer or network,
    /// or a tensor that is not the head.
    HeadDoesNotFit {
        /// How much logits vary between inputs: their standard deviation, common shifts of all classes taken out.
        variation: f64,
        /// The largest of that under random orders of the units.
        shuffled: f64,
    },
    /// The largest logit leads by more than in any trained network: features on a larger scale than in training.
    LargeMargins {
        /// Median difference of the two largest logits.
        margin: f64,
    },
    /// The predictions hardly depend on the input: features on a smaller scale than in training, or of another kind.
    FlatPredictions {
        /// Median difference of the two largest logits.
        margin: f64,
        /// Mean softmax probability of the predicted class.
        confidence: f64,
        /// One over the number of classes.
        chance: f64,
    },
    /// Predictions collapse to few classes.
    FewClassesPredicted {
        /// Exponential of the entropy of the predicted classes: how many equally frequent ones it comes to.
        predicted: f64,
        /// How many classes the head has.
        classes: usize,
        /// Share of the inputs that are predicted as the most frequent class.
        most_frequent: f64,
    },
    /// Rows of the features sum to one, and nothing is negative: probabilities.
    Probabilities {
        /// Share of the rows.
        share: f64,
    },
    /// Exponentials of rows sum to one: log-probabilities.
    LogProbabilities {
        /// Share of the rows.
        share: f64,
    },
    /// As many units as classes, and the largest unit is the label: outputs of the head, not its inputs.
    Logits {
        /// Share of the labelled inputs whose largest unit is their label.
        agreement: f64,
    },
    /// Every feature is a whole number: quantised values, counts or pixels.
    WholeNumbers {
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Most units have one value for all inputs.
    ConstantUnits {
        /// How many.
        constant: usize,
        /// How many units there are.
        units: usize,
    },
    /// Labels that name no class of the head.
    LabelsOutOfRange {
        /// How many rows have one.
        rows: u64,
        /// The smallest label.
        lowest: i64,
        /// The largest label.
        highest: i64,
        /// How many classes the head has.
        classes: usize,
    },
    /// Labels agree with the predictions once a constant is added to them.
    LabelsShifted {
        /// What to add.
        add: i64,
        /// Accuracy of the head with the labels as they are.
        accuracy: f64,
        /// Accuracy with that added.
        shifted: f64,
    },
    /// Labels follow the predictions, but with other numbers: the classes are in another order.
    LabelsInAnotherOrder {
        /// Accuracy of the head with the labels as they are.
        accuracy: f64,
        /// Accuracy if every predicted class stood for its most frequent label.
        reordered: f64,
    },
    /// Labels and predictions have little or nothing to do with each other.
    AccuracyNearChance {
        /// Accuracy of the head.
        accuracy: f64,
        /// What predictions and labels of these frequencies agree in by chance.
        chance: f64,
        /// Mean softmax probability of the predicted class.
        confidence: f64,
    },
    /// Calibration inputs that the detector was fitted to.
    CalibrationOverlapsTraining {
        /// Share of the calibration rows that are training rows.
        share: f64,
        /// How many calibration rows there are.
        rows: u64,
    },
    /// Calibration rows that are copies of each other.
    CalibrationRepeats {
        /// How many different rows there are.
        distinct: u64,
        /// How many rows there are.
        rows: u64,
    },
    /// Calibration inputs that are not what the detector was fitted to.
    CalibrationUnlikeTraining {
        /// Distance between the means of calibration and training features, in units of the training features'
        /// standard deviation (root of the summed squares over all units, both).
        distance: f64,
        /// Total variance of the calibration features over that of the training features.
        spread: f64,
        /// Probability that a training row has a higher energy than a calibration row: 0.5 where they are alike.
        separation: f64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HeadDoesNotFit { variation, shuffled } => sentences::head_does_not_fit(f, variation, shuffled),
            Self::LargeMargins { margin } => sentences::large_margins(f, margin),
            Self::FlatPredictions { margin, confidence, chance } => {
                sentences::flat_predictions(f, margin, confidence, chance)
            }
            Self::FewClassesPredicted { predicted, classes, most_frequent } => {
                sentences::few_classes_predicted(f, predicted, classes, most_frequent)
            }
            Self::Probabilities { share } => sentences::probabilities(f, share),
            Self::LogProbabilities { share } => sentences::log_probabilities(f, share),
            Self::Logits { agreement } => sentences::logits(f, agreement),
            Self::WholeNumbers { low, high } => sentences::whole_numbers(f, low, high),
            Self::ConstantUnits { constant, units } => sentences::constant_units(f, constant, units),
            Self::LabelsOutOfRange { rows, lowest, highest, classes } => {
                sentences::labels_out_of_range(f, rows, lowest, highest, classes)
            }
            Self::LabelsShifted { add, accuracy, shifted } => sentences::labels_shifted(f, add, accuracy, shifted),
            Self::LabelsInAnotherOrder { accuracy, reordered } => {
                sentences::labels_in_another_order(f, accuracy, reordered)
            }
            Self::AccuracyNearChance { accuracy, chance, confidence } => {
                sentences::accuracy_near_chance(f, accuracy, chance, confidence)
            }
            Self::CalibrationOverlapsTraining { share, rows } => {
                sentences::calibration_overlaps_training(f, share, rows)
            }
            Self::CalibrationRepeats { distinct, rows } => sentences::calibration_repeats(f, distinct, rows),
            Self::CalibrationUnlikeTraining { distance, spread, separation } => {
                sentences::calibration_unlike_training(f, distance, spread, separation)
            }
        }
    }
}

/// How often the head is right on training features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Share of right predictions.
    pub share: f64,
    /// Of how many rows, drawn from all.
    pub rows: usize,
}

/// The training rows as far as they are kept, and what they say of the head and the labels.
pub(crate) struct Judged {
    pub(crate) accuracy: Option<Accuracy>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) witness: Witness,
    reading: HeadReading,
}

impl Judged {
    /// Judges the training rows that `witness` has seen by how `head` reads them.
    pub(crate) fn judge(head: &LinearHead, mut witness: Witness) -> Self {
        witness.settle();
        let classes = head.classes();
        let reading = HeadReading::new(head, &witness);
        let labelled = Labelled::new(&reading, &witness, classes);
        let mut findings = Vec::new();
        findings.extend(reading::look(&witness));
        findings.extend(reading::head_fits(head, &witness));
        findings.extend(reading.finding());
        findings.extend(labels::are_features_logits(&witness, classes));
        findings.extend(labels::out_of_range(&witness, classes));
        findings.extend(labelled.finding());
        Self { accuracy: labelled.accuracy(), findings, reading, witness }
    }

    /// Judges the calibration rows that `witness` has seen against the training rows.
    ///
    /// # Errors
    /// [`ErrorKind::Calibration`](crate::ErrorKind::Calibration) for what can never be meant: rows that are all equal, or
    /// most of which are training rows.
    pub(crate) fn judge_calibration(&mut self, head: &LinearHead, witness: &mut Witness, held_out: bool) -> Result<()> {
        witness.settle();
        calibration::refuse_equal_rows(witness)?;
        self.findings.extend(calibration::copies(&self.witness, witness, held_out)?);
        self.findings.extend(calibration::repetitions(witness));
        let reading = HeadReading::new(head, witness);
        self.findings.extend(calibration::unlike((&self.witness, &self.reading), (witness, &reading)));
        Ok(())
    }
}

/// Judges calibration rows alone, where the detector was fitted to statistics.
///
/// # Errors
/// As [`Judged::judge_calibration`].
pub(crate) fn judge_calibration_alone(witness: &mut Witness) -> Result<Option<Finding>> {
    witness.settle();
    calibration::refuse_equal_rows(witness)?;
    Ok(calibration::repetitions(witness))
}
