//! Maximum softmax probability.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `msp`, `msp(temperature=2)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Msp {
    temperature: f64,
}

impl Method for Msp {
    const CARD: &'static Card = &Card {
        name: "msp",
        about: "largest softmax probability",
        formula: "max_c P_c, P = softmax(f / T)",
        paper: "Hendrycks and Gimpel, ICLR",
        year: 2017,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "msp",
        parameters: &[Parameter::TEMPERATURE],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { temperature: given.real("temperature") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.temperature))])
    }
}

impl Score for Msp {
    fn takes(&self) -> Takes {
        Takes::summary(self.temperature)
    }

    fn fit(&self, _: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }

    fn load(&self, _: &mut State, _: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }
}

impl Scorer for Msp {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for (score, summary) in out.iter_mut().zip(rows.summaries()) {
            *score = 1.0 / (1.0 + summary.rest);
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let scaled = graph.scale(of.logits, 1.0 / self.temperature);
        let softmax = graph.push(Op::Softmax(scaled));
        Some(graph.reduce(Reduce::Max, softmax))
    }
}
