//! Logit scaling: the energy of logits that grow with the share of the largest activations.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `lts`, `lts(0.1)`. The ratio is of the features as the network makes them; the logits are those of any shaping and sparsity
/// before it.
///
/// As in the authors' code, and in pytorch-ood from 0.4: activations below zero count as zero in the ratio, and as many of the
/// largest are taken as are left when round((1 - p) D) are not. Earlier versions of pytorch-ood divide the logits by `r^2`, which
/// turns the scaling around.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lts {
    p: f64,
}

impl Method for Lts {
    const CARD: &'static Card = &Card {
        name: "lts",
        about: "energy of the logits times the square of how many times the largest activations go into all",
        formula: "log sum_c exp(r^2 f_c), r = sum_d a_d / sum of the max(1, D - round((1 - p) D)) largest a_d, a_d = max(h_d, 0); \
                  r = 0 where all are 0",
        paper: "Djurisic et al., arXiv 2409.01175",
        year: 2024,
        cost: "C + D an input; nothing is kept",
        exports: true,
        example: "lts",
        parameters: &[Parameter {
            name: "p",
            about: "fraction of the units whose largest activations are set against all",
            kind: Kind::Fraction,
            otherwise: Otherwise::Default(Value::Real(0.05)),
            bare: true,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p))])
    }
}

impl Lts {
    fn scaled(self, units: usize) -> Arc<dyn Scorer> {
        // Half to even, as Python rounds.
        let others = ((1.0 - self.p) * units as f64).round_ties_even() as usize;
        Arc::new(Scaled { largest: units.saturating_sub(others).max(1) })
    }
}

impl Score for Lts {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::LOGITS).and(Takes::FEATURES)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(self.scaled(on.head().units()))
    }

    fn load(&self, _: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(self.scaled(head.units()))
    }
}

#[derive(Debug)]
struct Scaled {
    /// Activations that all are set against.
    largest: usize,
}

impl Scaled {
    /// r.
    fn ratio(&self, features: &[f32], order: &mut Vec<f32>) -> f64 {
        order.clear();
        order.extend(features.iter().map(|value| value.max(0.0)));
        let sum = |of: &[f32]| of.iter().map(|value| f64::from(*value)).sum::<f64>();
        let all = sum(order);
        order.select_nth_unstable_by(self.largest - 1, |a, b| b.total_cmp(a));
        all / sum(&order[..self.largest]).max(f64::from(f32::MIN_POSITIVE))
    }
}

impl Scorer for Scaled {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let inputs = rows.features().zip(rows.logits()).zip(rows.summaries());
        for (score, ((features, logits), summary)) in out.iter_mut().zip(inputs) {
            let scale = self.ratio(features, &mut workspace.order).powi(2);
            let others = logits.iter().enumerate().filter(|(class, _)| *class != summary.class);
            let rest: f64 = others.map(|(_, logit)| (scale * (f64::from(*logit) - summary.max)).exp()).sum();
            *score = scale * summary.max + rest.ln_1p();
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let zero = graph.scalar(0.0);
        let activations = graph.binary(Binary::Max, of.features, zero);
        let cut = graph.reduce(Reduce::KthLargest(self.largest), activations);
        let above = graph.binary(Binary::Greater, activations, cut);
        let beyond = graph.mul(activations, above);
        let (beyond, count) = (graph.sum(beyond), graph.sum(above));
        // Of values equal to the cut, as many as are left of the largest.
        let all = graph.scalar(self.largest as f64);
        let left = graph.sub(all, count);
        let equal = graph.mul(left, cut);
        let largest = graph.add(beyond, equal);
        let least = graph.scalar(f64::from(f32::MIN_POSITIVE));
        let largest = graph.binary(Binary::Max, largest, least);
        let sum = graph.sum(activations);
        let ratio = graph.div(sum, largest);
        let scale = graph.mul(ratio, ratio);
        let scaled = graph.mul(of.logits, scale);
        Some(graph.reduce(Reduce::LogSumExp, scaled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::{Needs, Statistics};
    use ndarray::Array2;

    #[test]
    fn scores_are_the_definition_with_ties_signs_and_zeros() {
        let (units, largest) = (20usize, 3);
        let weight: Vec<f32> = (0..4 * units).map(|i| ((i * 7 % 13) as f32 - 6.0) / 10.0).collect();
        let head = Arc::new(LinearHead::from_rows(weight, vec![0.1, 0.0, -0.2, 0.3], units).unwrap());
        let mut features = Array2::from_shape_fn((6, units), |(row, unit)| ((row * 5 + unit * 3) % 7) as f32 / 3.0);
        features.row_mut(4).map_inplace(|value| *value -= 0.5);
        features.row_mut(5).fill(0.0);
        let detector =
            "lts(0.15)".parse::<Spec>().unwrap().fit(&head, &Statistics::new(units, &Needs::default())).unwrap();
        let found = detector.score(features.view()).unwrap();
        for (row, found) in features.rows().into_iter().zip(found) {
            let h: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
            let mut sorted: Vec<f64> = h.iter().map(|value| value.max(0.0)).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let top: f64 = sorted[..largest].iter().sum();
            let r = if top == 0.0 { 0.0 } else { sorted.iter().sum::<f64>() / top };
            let logit = |class: usize| {
                let dot: f64 = h.iter().zip(head.weight().row(class)).map(|(h, w)| h * f64::from(*w)).sum();
                dot + f64::from(head.bias()[class])
            };
            let expected = (0..4).map(|class| (r * r * logit(class)).exp()).sum::<f64>().ln();
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} for {expected}");
        }
    }
}
