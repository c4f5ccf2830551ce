//! What the head makes of sampled rows, and whether it is made for them.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::rows::Witness;
use super::{FEWEST_ROWS, Finding};
use crate::head::LinearHead;
use crate::random::shuffle;

/// Products of a weight and a feature that reading the sample may take: milliseconds.
const MOST_PRODUCTS: usize = 1 << 29;
/// Those of all shuffles together.
const MOST_SHUFFLED: usize = 1 << 27;
/// Logits likewise.
const MOST_LOGITS: usize = 1 << 19;
/// Rows that are read whatever the head costs.
const LEAST_ROWS: usize = 128;
/// Random orders of the units that the true order has to beat.
const SHUFFLES: u64 = 16;
/// By how much: networks reach 1.4 and more, other orders 1.05.
const BEATS: f64 = 1.15;
/// Natural networks lead by 1 to 15; features of 0 to 255 in place of 0 to 1 make it 180 and more.
const LARGEST_MARGIN: f64 = 100.0;
/// Information of the prediction about the input over its maximum, log C: networks have 0.39 and more, features scaled down
/// by 255, or probabilities, 0.004 and less.
const LEAST_INFORMATION: f64 = 0.01;

/// What a head makes of some rows.
pub(super) struct HeadReading {
    /// Predicted class of each row.
    pub(super) predictions: Vec<usize>,
    /// Energy of each row: log-sum-exp of its logits.
    pub(super) energies: Vec<f64>,
    /// Median difference of the two largest logits.
    margin: f64,
    /// Mean probability of the predicted class.
    pub(super) confidence: f64,
    /// Mutual information of input and predicted class over log C.
    information: f64,
    classes: usize,
}

/// How many rows `head` reads.
fn rows_to_read(head: &LinearHead) -> usize {
    (MOST_PRODUCTS / (head.classes() * head.units())).min(MOST_LOGITS / head.classes()).max(LEAST_ROWS)
}

/// One row as the head sees it.
struct Row {
    class: usize,
    margin: f64,
    energy: f64,
    entropy: f64,
    confidence: f64,
}

impl HeadReading {
    /// Reads sampled rows of `witness`.
    pub(super) fn new(head: &LinearHead, witness: &Witness) -> Self {
        let features = witness.sampled_features(rows_to_read(head));
        let parts: Vec<(Vec<Row>, Array1<f64>)> =
            features.par_chunks(64 * head.units()).map(|rows| read(head, rows)).collect();
        let mut mean = Array1::<f64>::zeros(head.classes());
        let mut rows = Vec::new();
        for (part, probabilities) in parts {
            rows.extend(part);
            mean += &probabilities;
        }
        let count = rows.len().max(1) as f64;
        let mut margins: Vec<f64> = rows.iter().map(|row| row.margin).collect();
        margins.sort_unstable_by(f64::total_cmp);
        let entropy_of_mean = -mean.iter().map(|sum| sum / count).filter(|p| *p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        let mean_entropy = rows.iter().map(|row| row.entropy).sum::<f64>() / count;
        Self {
            margin: margins.get(margins.len() / 2).copied().unwrap_or(0.0),
            confidence: rows.iter().map(|row| row.confidence).sum::<f64>() / count,
            information: (entropy_of_mean - mean_entropy) / (head.classes() as f64).ln(),
            energies: rows.iter().map(|row| row.energy).collect(),
            predictions: rows.iter().map(|row| row.class).collect(),
            classes: head.classes(),
        }
    }

    /// What is wrong with the logits' scale and with the predictions; one of these explains the others.
    pub(super) fn finding(&self) -> Option<Finding> {
        if self.predictions.len() < FEWEST_ROWS || self.classes < 2 {
            return None;
        }
        let chance = 1.0 / self.classes as f64;
        if self.margin > LARGEST_MARGIN {
            return Some(Finding::LargeMargins { margin: self.margin });
        }
        if self.information < LEAST_INFORMATION {
            return Some(Finding::FlatPredictions { margin: self.margin, confidence: self.confidence, chance });
        }
        let (predicted, most_frequent) = variety(&self.predictions, self.classes);
        // Inputs of few classes of many are a fit on a part of the data, which is nobody's mistake.
        let few = 0.02 * self.classes.min(self.predictions.len()) as f64;
        (most_frequent > 0.99 || predicted < few).then_some(Finding::FewClassesPredicted {
            predicted,
            classes: self.classes,
            most_frequent,
        })
    }
}

/// Logits of `features` `[n, D]`: each row in figures, and the sum of the rows' probabilities.
fn read(head: &LinearHead, features: &[f32]) -> (Vec<Row>, Array1<f64>) {
    let mut sum = Array1::<f64>::zeros(head.classes());
    let Some(features) = rows_of(features, head.units()) else { return (Vec::new(), sum) };
    let logits = features.dot(&head.weight().t()) + head.bias();
    let rows = logits.rows().into_iter().map(|logits| {
        let (mut class, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (index, logit) in logits.iter().enumerate() {
            if *logit > first {
                (class, first, second) = (index, *logit, first);
            } else if *logit > second {
                second = *logit;
            }
        }
        let first = f64::from(first);
        let exponentials = logits.mapv(|logit| (f64::from(logit) - first).exp());
        let total = exponentials.sum();
        if !total.is_finite() {
            // Logits that overflow.
            return Row { class, margin: f64::INFINITY, energy: f64::MAX, entropy: 0.0, confidence: 1.0 };
        }
        let probabilities = exponentials / total;
        let entropy = -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        sum += &probabilities;
        Row { class, margin: first - f64::from(second), energy: first + total.ln(), entropy, confidence: 1.0 / total }
    });
    let rows = rows.collect();
    (rows, sum)
}

fn rows_of(features: &[f32], units: usize) -> Option<ArrayView2<'_, f32>> {
    ArrayView2::from_shape((features.len() / units, units), features).ok()
}

/// Exponential of the entropy of the frequencies of `predictions`, and the largest of the frequencies.
fn variety(predictions: &[usize], classes: usize) -> (f64, f64) {
    let mut counts = vec![0u32; classes];
    predictions.iter().for_each(|class| counts[*class] += 1);
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / predictions.len() as f64);
    let entropy = -shares.clone().map(|share| share * share.ln()).sum::<f64>();
    (entropy.exp(), shares.fold(0.0, f64::max))
}

/// Whether the head reads features better than with its units in random orders.
///
/// A trained head weighs the directions in which its features vary: its logits vary more between inputs than those of the
/// same weights in another order of the units. Scale, bias and labels do not matter.
pub(super) fn head_fits(head: &LinearHead, witness: &Witness) -> Option<Finding> {
    const MOST_CLASSES: usize = 256;
    let classes = head.classes().min(MOST_CLASSES);
    let rows = (MOST_SHUFFLED / (SHUFFLES as usize * classes * head.units())).clamp(64, 512);
    let features = rows_of(witness.sampled_features(rows), head.units())?;
    // With few units a random order may be the true one.
    if features.nrows() < FEWEST_ROWS || head.units() < 8 || classes < 2 {
        return None;
    }
    let step = head.classes() / classes;
    let weight = head.weight().slice(ndarray::s![..classes * step;step, ..]).to_owned();
    let centred = &features - &features.mean_axis(Axis(0))?;
    let variation = variation(&centred, &weight);
    let shuffled = (0..SHUFFLES)
        .into_par_iter()
        .map(|seed| self::variation(&centred, &weight.select(Axis(1), &shuffle(head.units(), seed))))
        .reduce(|| 0.0, f64::max);
    let fits = variation > BEATS * shuffled || !variation.is_finite() || shuffled == 0.0;
    (!fits).then_some(Finding::HeadDoesNotFit { variation, shuffled })
}

/// Standard deviation of logits between inputs, over all classes, common shifts of all classes taken out.
fn variation(centred: &Array2<f32>, weight: &Array2<f32>) -> f64 {
    let logits = centred.dot(&weight.t());
    let squares: f64 = logits
        .rows()
        .into_iter()
        .map(|row| {
            let mean = row.iter().map(|logit| f64::from(*logit)).sum::<f64>() / row.len() as f64;
            row.iter().map(|logit| (f64::from(*logit) - mean).powi(2)).sum::<f64>()
        })
        .sum();
    (squares / logits.len() as f64).sqrt()
}

/// What the values alone give away, whatever the head.
pub(super) fn look(witness: &Witness) -> Option<Finding> {
    let rows = witness.sampled().len();
    let units = witness.units();
    if rows < FEWEST_ROWS || units < 2 {
        return None;
    }
    let share = |is: fn(&[f32]) -> bool| witness.sampled().filter(|(row, _)| is(row)).count() as f64 / rows as f64;
    let (sums, exponentials) = (share(sums_to_one), share(exponentials_sum_to_one));
    if sums > 0.99 {
        return Some(Finding::Probabilities { share: sums });
    }
    if exponentials > 0.99 {
        return Some(Finding::LogProbabilities { share: exponentials });
    }
    let values = witness.sampled_features(rows);
    let (low, high) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if low.abs().max(high.abs()) >= 2.0 && values.iter().all(|value| value.fract() == 0.0) {
        return Some(Finding::WholeNumbers { low: low.into(), high: high.into() });
    }
    let first = &values[..units];
    let mut constant: Vec<usize> = (0..units).collect();
    for row in values.chunks_exact(units) {
        constant.retain(|unit| row[*unit] == first[*unit]);
    }
    let constant = constant.len();
    (2 * constant > units).then_some(Finding::ConstantUnits { constant, units })
}

/// To the precision of f16 features.
const ONE: std::ops::RangeInclusive<f32> = 0.99..=1.01;

fn sums_to_one(row: &[f32]) -> bool {
    row.iter().all(|value| *value >= 0.0) && ONE.contains(&row.iter().sum())
}

fn exponentials_sum_to_one(row: &[f32]) -> bool {
    row.iter().all(|value| *value <= 0.0) && ONE.contains(&row.iter().map(|value| value.exp()).sum())
}
