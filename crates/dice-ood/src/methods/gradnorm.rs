//! GradNorm: the size of the gradient that a uniform target gives the head, in closed form.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Unary, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `gradnorm`, `gradnorm(temperature=2)`. The length is of the features as the network makes them; the logits are those of any
/// shaping and sparsity before it.
///
/// What pytorch-ood calls GradNorm is another paper's (Lee and AlRegib, ICIP 2020); this one it calls GradNormKL.
#[derive(Debug, Clone, Copy)]
pub(super) struct GradNorm {
    temperature: f64,
}

impl Method for GradNorm {
    const CARD: &'static Card = &Card {
        name: "gradnorm",
        about: "size of the gradient of a uniform target in the weights of the head",
        formula: "|h|_1 sum_c |C P_c - 1| / T, P = softmax(f / T): the 1-norm of the gradient of sum_c -log P_c in W",
        paper: "Huang, Geng and Li, NeurIPS",
        year: 2021,
        cost: "C + D an input; nothing is kept",
        exports: true,
        example: "gradnorm",
        parameters: &[Parameter::TEMPERATURE],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { temperature: given.real("temperature") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.temperature))])
    }
}

impl Score for GradNorm {
    fn takes(&self) -> Takes {
        Takes::summary(self.temperature).and(Takes::LOGITS).and(Takes::FEATURES)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Gradient { temperature: self.temperature, classes: on.head().classes() }))
    }

    fn load(&self, _: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Gradient { temperature: self.temperature, classes: head.classes() }))
    }
}

#[derive(Debug)]
struct Gradient {
    temperature: f64,
    classes: usize,
}

impl Scorer for Gradient {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        let classes = self.classes as f64;
        let inputs = rows.features().zip(rows.logits()).zip(rows.summaries());
        for (score, ((features, logits), summary)) in out.iter_mut().zip(inputs) {
            let length: f64 = features.iter().map(|value| f64::from(value.abs())).sum();
            let parts = summary.softmax(logits, self.temperature).map(|(p, _)| (classes * p - 1.0).abs());
            *score = length * parts.sum::<f64>() / self.temperature;
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let scaled = graph.scale(of.logits, 1.0 / self.temperature);
        let (p, _) = graph.probabilities(scaled);
        let (times, one) = (graph.scale(p, self.classes as f64), graph.scalar(1.0));
        let parts = graph.sub(times, one);
        let (parts, sizes) = (graph.unary(Unary::Abs, parts), graph.unary(Unary::Abs, of.features));
        let (parts, length) = (graph.sum(parts), graph.sum(sizes));
        let size = graph.mul(length, parts);
        Some(graph.scale(size, 1.0 / self.temperature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::{Needs, Statistics};
    use ndarray::Array2;

    /// `sum_c -log softmax(W h / T + b / T)_c`.
    fn loss(weight: &Array2<f64>, bias: &[f64], h: &[f64], temperature: f64) -> f64 {
        let logits = weight
            .rows()
            .into_iter()
            .zip(bias)
            .map(|(w, b)| (w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>() + b) / temperature);
        let logits: Vec<f64> = logits.collect();
        let all = logits.iter().map(|f| f.exp()).sum::<f64>().ln();
        logits.iter().map(|f| all - f).sum()
    }

    #[test]
    fn scores_are_the_norm_of_the_gradient() {
        let weight = Array2::from_shape_fn((3, 4), |(class, unit)| ((class * 4 + unit) * 5 % 7) as f64 / 8.0 - 0.25);
        let bias = [0.125, -0.25, 0.0];
        let rows: Vec<f32> = weight.iter().map(|w| *w as f32).collect();
        let head = Arc::new(LinearHead::from_rows(rows, bias.iter().map(|b| *b as f32).collect(), 4).unwrap());
        let spec: Spec = "gradnorm(temperature=2)".parse().unwrap();
        let detector = spec.fit(&head, &Statistics::new(4, &Needs::default())).unwrap();
        let features = Array2::from_shape_fn((5, 4), |(row, unit)| (row * 3 + unit * 2) as f32 / 4.0 - 1.0);
        for (row, found) in features.rows().into_iter().zip(detector.score(features.view()).unwrap()) {
            let h: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
            let step = 1e-6;
            let slope = |(place, _): ((usize, usize), &f64)| {
                let at = |by: f64| {
                    let mut moved = weight.clone();
                    moved[place] += by;
                    loss(&moved, &bias, &h, 2.0)
                };
                ((at(step) - at(-step)) / (2.0 * step)).abs()
            };
            let expected: f64 = weight.indexed_iter().map(slope).sum();
            assert!((found - expected).abs() < 1e-5 * expected.max(1.0), "{found} for {expected}");
        }
    }
}
