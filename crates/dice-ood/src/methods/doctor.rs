//! DOCTOR: the odds that two draws from the softmax agree.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `doctor`, `doctor(temperature=2)`: the paper's D-alpha. Its D-beta, `(1 - max P) / max P`, ranks as `msp` does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doctor {
    temperature: f64,
}

impl Method for Doctor {
    const CARD: &'static Card = &Card {
        name: "doctor",
        about: "odds that two classes drawn from the softmax are the same",
        formula: "-(1 - g) / g, g = sum_c P_c^2, P = softmax(f / T)",
        paper: "Granese et al., NeurIPS, D-alpha without perturbation of the input",
        year: 2021,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "doctor",
        parameters: &[Parameter::TEMPERATURE],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { temperature: given.real("temperature") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.temperature))])
    }
}

impl Score for Doctor {
    fn takes(&self) -> Takes {
        Takes::summary(self.temperature).and(Takes::LOGITS)
    }

    fn fit(&self, _: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }

    fn load(&self, _: &mut State, _: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }
}

impl Scorer for Doctor {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for ((score, logits), summary) in out.iter_mut().zip(rows.logits()).zip(rows.summaries()) {
            // `1 - sum P^2 = sum P (1 - P)`, without the loss of digits.
            let add = |(unlike, alike), (p, rest)| (unlike + p * rest, alike + p * p);
            let (unlike, alike) = summary.softmax(logits, self.temperature).fold((0.0, 0.0), add);
            *score = -unlike / alike;
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let scaled = graph.scale(of.logits, 1.0 / self.temperature);
        let (p, rest) = graph.probabilities(scaled);
        let (unlike, alike) = (graph.mul(p, rest), graph.mul(p, p));
        let (unlike, alike) = (graph.sum(unlike), graph.sum(alike));
        let odds = graph.div(unlike, alike);
        Some(graph.scale(odds, -1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::{Needs, Statistics};
    use ndarray::array;

    #[test]
    fn scores_are_the_definition() {
        let head = Arc::new(LinearHead::from_rows(vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.0], 2).unwrap());
        let spec: Spec = "doctor(temperature=2)".parse().unwrap();
        let detector = spec.fit(&head, &Statistics::new(2, &Needs::default())).unwrap();
        let found = detector.score(array![[3.0, 1.0], [0.0, 0.0], [120.0, 0.0]].view()).unwrap();
        let first = 1.0 / (1.0 + (-1.0f64).exp());
        let g = first * first + (1.0 - first) * (1.0 - first);
        // Of a gap of 60: 2 exp(-60), which is lost where it is taken as a difference from 1.
        for (found, expected) in found.iter().zip([-(1.0 - g) / g, -1.0, -2.0 * (-60.0f64).exp()]) {
            assert!((found - expected).abs() < 1e-6 * expected.abs(), "{found} for {expected}");
        }
    }
}
