//! The mean softmax of each predicted class.

use crate::error::Result;
use crate::state::{State, check_finite};

/// By predicted class the number of rows and the sum of their softmax `[C]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Templates {
    rows: Vec<u64>,
    /// `[C, C]`.
    sums: Vec<f64>,
}

impl Templates {
    pub(super) fn new(classes: usize) -> Self {
        Self { rows: vec![0; classes], sums: vec![0.0; classes * classes] }
    }

    /// Adds rows of `logits` `[n, C]`, in order.
    pub(super) fn add(&mut self, logits: &[f32]) {
        let classes = self.rows.len();
        let mut softmax = vec![0.0; classes];
        for row in logits.chunks_exact(classes) {
            let predicted = softmax_of(row, &mut softmax);
            self.rows[predicted] += 1;
            for (sum, p) in self.sums[predicted * classes..].iter_mut().zip(&softmax) {
                *sum += p;
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            *mine = mine.saturating_add(*theirs);
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            *mine += theirs;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.rows.iter().fold(0, |total, rows| total.saturating_add(*rows))
    }

    /// The mean softmax `[C, C]`; for a class that was never predicted, certainty of it.
    pub(super) fn means(&self) -> Vec<f64> {
        let classes = self.rows.len();
        let mut means = self.sums.clone();
        for (class, (mean, rows)) in means.chunks_exact_mut(classes.max(1)).zip(&self.rows).enumerate() {
            match rows {
                0 => mean[class] = 1.0,
                rows => mean.iter_mut().for_each(|p| *p /= *rows as f64),
            }
        }
        means
    }

    pub(super) fn save(&self, to: &mut State) {
        let classes = self.rows.len();
        to.put("rows", &[classes], self.rows.clone());
        to.put("sums", &[classes, classes], self.sums.clone());
    }

    pub(super) fn load(state: &mut State) -> Result<Self> {
        let rows = state.take::<u64>("rows", &[None])?;
        let sums = state.take::<f64>("sums", &[Some(rows.len()), Some(rows.len())])?;
        check_finite("sums", &sums)?;
        Ok(Self { rows: rows.to_vec(), sums: sums.to_vec() })
    }
}

/// The softmax of `logits` in f64, into `out`; the predicted class.
fn softmax_of(logits: &[f32], out: &mut [f64]) -> usize {
    let (predicted, most) = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (class, logit)| if *logit > best.1 { (class, *logit) } else { best });
    for (p, logit) in out.iter_mut().zip(logits) {
        *p = (f64::from(*logit) - f64::from(most)).exp();
    }
    let sum: f64 = out.iter().sum();
    out.iter_mut().for_each(|p| *p /= sum);
    predicted
}
