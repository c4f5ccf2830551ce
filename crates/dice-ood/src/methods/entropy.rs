//! Negative entropy of the softmax.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `entropy`, `entropy(temperature=2)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entropy {
    temperature: f64,
}

impl Method for Entropy {
    const CARD: &'static Card = &Card {
        name: "entropy",
        about: "how decided the softmax is: its negative entropy",
        formula: "sum_c P_c log P_c, P = softmax(f / T)",
        paper: "Hendrycks and Gimpel, ICLR, as a baseline",
        year: 2017,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "entropy",
        parameters: &[Parameter::TEMPERATURE],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { temperature: given.real("temperature") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.temperature))])
    }
}

impl Score for Entropy {
    fn takes(&self) -> Takes {
        Takes::LOGITS
    }

    fn fit(&self, _: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }

    fn load(&self, _: &mut State, _: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }
}

impl Scorer for Entropy {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for (score, logits) in out.iter_mut().zip(rows.logits()) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // With z = (f - max f) / T: sum P log P = sum z exp z / sum exp z - log sum exp z.
            let (mut sum, mut weighted) = (0.0, 0.0);
            for logit in logits {
                let z = (f64::from(*logit) - f64::from(most)) / self.temperature;
                let exp = z.exp();
                sum += exp;
                // `z exp z` tends to 0.
                weighted += if exp > 0.0 { z * exp } else { 0.0 };
            }
            *score = weighted / sum - sum.ln();
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let scaled = graph.scale(of.logits, 1.0 / self.temperature);
        let softmax = graph.push(Op::Softmax(scaled));
        let all = graph.reduce(Reduce::LogSumExp, scaled);
        let logs = graph.sub(scaled, all);
        let terms = graph.mul(softmax, logs);
        Some(graph.sum(terms))
    }
}
