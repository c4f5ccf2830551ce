//! Temperature scaling: the largest softmax probability at the temperature that labels fit best.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::statistics::Needs;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `temp-scale`.
///
/// The paper fits T to inputs that the network was not trained on. Here they are training rows, as for every fit: the network is surer
/// of those than of others, and T is smaller. Where it is right on all of them there is no such T, and the fit is refused.
/// pytorch-ood takes 50 steps of length 0.01, which mostly end before the least loss is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct TempScale;

/// Training rows that the temperature rests on, at most.
const ROWS: usize = 50_000;
/// Rows whose terms are added by one thread: sums do not depend on the number of threads.
const TOGETHER: usize = 1024;

impl Method for TempScale {
    const CARD: &'static Card = &Card {
        name: "temp-scale",
        about: "largest softmax probability at the temperature that fits the labels of training rows best",
        formula: "max_c P_c, P = softmax(f / T), T = argmin of the mean -log softmax(f / T)_label over training rows",
        paper: "Guo et al., ICML; there T rests on inputs that the network was not trained on",
        year: 2017,
        cost: "C an input; the fit holds the logits of up to 50,000 rows; T is kept",
        exports: true,
        example: "temp-scale",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Score for TempScale {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::LOGITS)
    }

    fn needs(&self) -> Needs {
        Needs::labelled_bank(ROWS)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let bank = on.statistics().bank()?.first(ROWS);
        let classes = bank.labels_of("temp-scale", on.head().classes())?;
        let logits = on.logits(&bank.features)?;
        let problem = Likelihood { logits: &logits, labels: &classes, counts: &bank.counts };
        Ok(Arc::new(Scaled { temperature: problem.temperature()? }))
    }

    fn load(&self, state: &mut State, _: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let temperature = state.take::<f64>("temperature", &[Some(1)])?[0];
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::new(ErrorKind::Malformed, temperature.to_string())
                .tensor("temperature")
                .expected("a number above 0"));
        }
        Ok(Arc::new(Scaled { temperature }))
    }
}

/// What T is fitted to: logits `[n, C]`, the label of each row, how often it was seen.
struct Likelihood<'a> {
    logits: &'a [f32],
    labels: &'a [usize],
    counts: &'a [u64],
}

impl Likelihood<'_> {
    /// First and second derivative of the sum of `-log softmax(b f)_label` in b = 1 / T. The sum is convex: the first is
    /// `E_P[f] - f_label`, the second the variance of f under P, added over rows.
    fn derivatives(&self, inverse: f64) -> (f64, f64) {
        let classes = self.logits.len() / self.labels.len().max(1);
        let parts = self.logits.par_chunks(TOGETHER * classes.max(1)).zip(self.labels.par_chunks(TOGETHER));
        let parts: Vec<(f64, f64)> = parts
            .zip(self.counts.par_chunks(TOGETHER))
            .map(|((logits, labels), counts)| {
                let rows = logits.chunks_exact(classes.max(1)).zip(labels).zip(counts);
                let rows = rows.map(|((logits, label), count)| {
                    let (slope, curvature) = derivatives_of(logits, *label, inverse);
                    (*count as f64 * slope, *count as f64 * curvature)
                });
                rows.fold((0.0, 0.0), add)
            })
            .collect();
        parts.into_iter().fold((0.0, 0.0), add)
    }

    /// T where the slope is zero: Newton's steps on 1 / T, kept within the bracket that the signs of slopes give.
    fn temperature(&self) -> Result<f64> {
        /// T is looked for between 1e-3 and 1e3.
        const FURTHEST: f64 = 1e3;
        let (mut low, mut high) = (1.0 / FURTHEST, FURTHEST);
        if self.derivatives(low).0 >= 0.0 {
            return Err(unfit("labels that the logits do not follow").fix("are labels and features of the same rows?"));
        }
        if self.derivatives(high).0 <= 0.0 {
            return Err(unfit("the head is right on every row, and the likelihood only rises as T falls to 0")
                .fix("take `msp`, which is at T = 1"));
        }
        let mut inverse = 1.0f64;
        for _ in 0..100 {
            let (slope, curvature) = self.derivatives(inverse);
            if slope < 0.0 {
                low = inverse
            } else {
                high = inverse
            }
            let newton = inverse - slope / curvature;
            let next = if newton > low && newton < high { newton } else { (low * high).sqrt() };
            if (next - inverse).abs() <= 1e-12 * inverse {
                break;
            }
            inverse = next;
        }
        Ok(1.0 / inverse)
    }
}

fn add(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0 + b.0, a.1 + b.1)
}

/// The two derivatives for one row.
fn derivatives_of(logits: &[f32], label: usize, inverse: f64) -> (f64, f64) {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
    for logit in logits {
        let gap = f64::from(*logit) - most;
        let weight = (inverse * gap).exp();
        sum += weight;
        first += weight * gap;
        second += weight * gap * gap;
    }
    let mean = first / sum;
    (mean - (f64::from(logits[label]) - most), second / sum - mean * mean)
}

fn unfit(found: &str) -> Error {
    Error::new(ErrorKind::Argument, found)
        .argument("temperature of `temp-scale`")
        .expected("training rows that it can be fitted to: most classified as their labels say, not all")
}

#[derive(Debug)]
struct Scaled {
    temperature: f64,
}

impl Scorer for Scaled {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for ((score, logits), summary) in out.iter_mut().zip(rows.logits()).zip(rows.summaries()) {
            let others = logits.iter().enumerate().filter(|(class, _)| *class != summary.class);
            let rest: f64 = others.map(|(_, logit)| ((f64::from(*logit) - summary.max) / self.temperature).exp()).sum();
            *score = 1.0 / (1.0 + rest);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("temperature", &[1], vec![self.temperature]);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let scaled = graph.scale(of.logits, 1.0 / self.temperature);
        let softmax = graph.push(Op::Softmax(scaled));
        Some(graph.reduce(Reduce::Max, softmax))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `log softmax(f / T)_label`, straight.
    fn loss(problem: &Likelihood<'_>, temperature: f64) -> f64 {
        let rows = problem.logits.chunks_exact(3).zip(problem.labels).zip(problem.counts);
        let of_row = |((logits, label), count): ((&[f32], &usize), &u64)| {
            let all: f64 = logits.iter().map(|logit| (f64::from(*logit) / temperature).exp()).sum();
            *count as f64 * (all.ln() - f64::from(logits[*label]) / temperature)
        };
        rows.map(of_row).sum()
    }

    #[test]
    fn the_temperature_is_where_the_loss_is_least() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * i * 7 + i * 5) % 31) as f32 / 4.0).collect();
        let largest = |row: &[f32]| (0..3).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        // One row in six is wrong.
        let labels: Vec<usize> =
            logits.chunks(3).enumerate().map(|(row, f)| (largest(f) + usize::from(row % 6 == 0)) % 3).collect();
        let counts: Vec<u64> = (0..100).map(|row| 1 + row % 3).collect();
        let problem = Likelihood { logits: &logits, labels: &labels, counts: &counts };
        let found = problem.temperature().unwrap();
        let least = loss(&problem, found);
        for other in [0.2, 0.7, 0.99, 0.9999, 1.0001, 1.01, 1.5, 5.0] {
            assert!(loss(&problem, found * other) > least, "{other}: {found}");
        }
        let always_right: Vec<usize> = logits.chunks(3).map(largest).collect();
        let never: Vec<usize> = always_right.iter().map(|label| (label + 1) % 3).collect();
        for (labels, part) in [(&always_right, "right on every row"), (&never, "do not follow")] {
            let problem = Likelihood { logits: &logits, labels, counts: &counts };
            let message = problem.temperature().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
