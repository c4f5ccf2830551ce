//! Whether labels and predictions have to do with each other.

use std::collections::HashMap;

use super::reading::HeadReading;
use super::rows::Witness;
use super::{Accuracy, FEWEST_ROWS, Finding};
use crate::random::shuffle;

/// Chance-corrected accuracy (Cohen's kappa) below which labels and predictions have nothing to do with each other. The weakest
/// network at hand, of 58 % accuracy in ten classes, has 0.54.
const NEAR_CHANCE: f64 = 0.1;

/// Predictions beside labels.
pub(super) struct Labelled<'a> {
    pairs: Vec<(i64, i64)>,
    reading: &'a HeadReading,
    classes: usize,
}

impl<'a> Labelled<'a> {
    /// The sampled rows that were read and have a label.
    pub(super) fn new(reading: &'a HeadReading, witness: &Witness, classes: usize) -> Self {
        let labels = witness.sampled().map(|(_, label)| label);
        let pairs = reading.predictions.iter().zip(labels).filter_map(|(class, label)| Some((*class as i64, label?)));
        Self { pairs: pairs.collect(), reading, classes }
    }

    /// How often the head is right; `None` without labels.
    pub(super) fn accuracy(&self) -> Option<Accuracy> {
        let rows = self.pairs.len();
        (rows > 0).then(|| Accuracy { share: self.agreement(0), rows })
    }

    /// Share of the rows whose label plus `add` is predicted.
    fn agreement(&self, add: i64) -> f64 {
        let right = self.pairs.iter().filter(|(class, label)| label.checked_add(add) == Some(*class)).count();
        right as f64 / self.pairs.len().max(1) as f64
    }

    /// Agreement of labels and predictions of these frequencies by chance.
    fn chance(&self) -> f64 {
        let mut labels: HashMap<i64, f64> = HashMap::new();
        self.pairs.iter().for_each(|(_, label)| *labels.entry(*label).or_default() += 1.0);
        let count = self.pairs.len() as f64;
        self.pairs.iter().map(|(class, _)| labels.get(class).copied().unwrap_or(0.0)).sum::<f64>() / (count * count)
    }

    /// Accuracy if every predicted class stood for its most frequent label, with labels in `order`.
    fn reordered(&self, order: impl Iterator<Item = usize>) -> f64 {
        let mut counts: HashMap<(i64, i64), usize> = HashMap::new();
        for ((class, _), place) in self.pairs.iter().zip(order) {
            *counts.entry((*class, self.pairs[place].1)).or_default() += 1;
        }
        let mut most: HashMap<i64, usize> = HashMap::new();
        for ((class, _), count) in counts {
            let most = most.entry(class).or_default();
            *most = (*most).max(count);
        }
        most.values().sum::<usize>() as f64 / self.pairs.len() as f64
    }

    /// What is wrong with labels that do not match the predictions.
    pub(super) fn finding(&self) -> Option<Finding> {
        let count = self.pairs.len();
        if count < FEWEST_ROWS || self.classes < 2 {
            return None;
        }
        let (accuracy, chance) = (self.agreement(0), self.chance());
        let shift = [-1, 1].map(|add| (add, self.agreement(add))).into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((add, shifted)) = shift.filter(|(_, shifted)| *shifted > (2.0 * accuracy).max(accuracy + 0.2)) {
            return Some(Finding::LabelsShifted { add, accuracy, shifted });
        }
        if chance >= 1.0 || (accuracy - chance) / (1.0 - chance) >= NEAR_CHANCE {
            return None;
        }
        let reordered = self.reordered(0..count);
        // Few rows a class have a most frequent label whatever the labels: what that comes to is taken off.
        let by_chance = self.reordered(shuffle(count, 0).into_iter());
        if reordered - by_chance > 0.3 * (1.0 - by_chance) {
            return Some(Finding::LabelsInAnotherOrder { accuracy, reordered });
        }
        Some(Finding::AccuracyNearChance { accuracy, chance, confidence: self.reading.confidence })
    }
}

/// Labels that name no class.
pub(super) fn out_of_range(witness: &Witness, classes: usize) -> Option<Finding> {
    let (lowest, highest) = witness.labels.range?;
    let rows = witness.labels.outside;
    (rows > 0).then_some(Finding::LabelsOutOfRange { rows, lowest, highest, classes })
}

/// Whether features are logits: as many units as classes, the largest being the label.
pub(super) fn are_features_logits(witness: &Witness, classes: usize) -> Option<Finding> {
    if witness.units() != classes || classes < 3 {
        return None;
    }
    let (mut labelled, mut agreeing) = (0usize, 0usize);
    for (row, label) in witness.sampled().filter_map(|(row, label)| Some((row, label?))) {
        let largest = (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        labelled += 1;
        agreeing += usize::from(largest.and_then(|unit| i64::try_from(unit).ok()) == Some(label));
    }
    let agreement = agreeing as f64 / labelled.max(1) as f64;
    (labelled >= FEWEST_ROWS && agreement > 0.5).then_some(Finding::Logits { agreement })
}
