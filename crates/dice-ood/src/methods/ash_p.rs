//! ASH-P: each input's smallest activations go.

use std::sync::Arc;

use super::ash_s::{PRUNED, Pruning};
use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Value};
use crate::error::Result;
use crate::graph::{Graph, Wire};
use crate::state::State;
use crate::training::Training;
use crate::views::Workspace;

/// `ash-p(0.6)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AshP {
    p: f64,
}

impl Method for AshP {
    const CARD: &'static Card = &Card {
        name: "ash-p",
        about: "zero each input's smallest activations",
        formula: "h_d where it is above the round(p D)-th smallest, else 0",
        paper: "Djurisic et al., ICLR",
        year: 2023,
        cost: "D an input; nothing is kept",
        exports: true,
        example: "ash-p(0.6) | energy",
        parameters: &[PRUNED],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p))])
    }
}

impl Shaping for AshP {
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Pruned(Pruning::new(self.p, on.head().units()))))
    }

    fn load(&self, _: &mut State, units: usize) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Pruned(Pruning::new(self.p, units))))
    }
}

#[derive(Debug, Clone, Copy)]
struct Pruned(Pruning);

impl Shaper for Pruned {
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace) {
        if let Some(cut) = self.0.cut(row, workspace) {
            row.iter_mut().filter(|value| **value <= cut).for_each(|value| *value = 0.0);
        }
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        Some(match self.0.kept(graph, features) {
            Some(kept) => graph.mul(features, kept),
            None => features,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::assert_shapes;

    #[test]
    fn it_is_the_published_formula() {
        assert_shapes("ash-p(0.5)", |_, h| {
            let mut sorted = h.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            h.iter().map(|value| if *value >= sorted[5] { *value } else { 0.0 }).collect()
        });
        assert_shapes("ash-p(0)", |_, h| h.to_vec());
    }
}
