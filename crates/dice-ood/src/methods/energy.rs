//! Energy: the log-sum-exp of the logits.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `energy`, `energy(temperature=2)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Energy {
    temperature: f64,
}

impl Method for Energy {
    const CARD: &'static Card = &Card {
        name: "energy",
        about: "log-sum-exp of the logits",
        formula: "T log sum_c exp(f_c / T)",
        paper: "Liu et al., NeurIPS",
        year: 2020,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "dice(0.9) | energy",
        parameters: &[Parameter::TEMPERATURE],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { temperature: given.real("temperature") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.temperature))])
    }
}

impl Score for Energy {
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

impl Scorer for Energy {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        rows.energies(self.temperature, out);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        Some(energy_of(graph, of.logits, self.temperature))
    }
}

/// `T log sum_c exp(f_c / T)` as operators.
pub(super) fn energy_of(graph: &mut Graph, logits: Wire, temperature: f64) -> Wire {
    let scaled = graph.scale(logits, 1.0 / temperature);
    let energy = graph.reduce(Reduce::LogSumExp, scaled);
    graph.scale(energy, temperature)
}
