//! ASH-B: each input's smallest activations go, and the rest become equal.

use std::sync::Arc;

use super::ash_s::{PRUNED, Pruning, sum};
use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Value};
use crate::error::Result;
use crate::graph::{Graph, Wire};
use crate::state::State;
use crate::training::Training;
use crate::views::Workspace;

/// `ash-b(0.65)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AshB {
    p: f64,
}

impl Method for AshB {
    const CARD: &'static Card = &Card {
        name: "ash-b",
        about: "zero each input's smallest activations, share its sum equally among the rest",
        formula: "s / n where h_d is above the round(p D)-th smallest, else 0; s the sum of h, n how many are above",
        paper: "Djurisic et al., ICLR",
        year: 2023,
        cost: "D an input; nothing is kept",
        exports: true,
        example: "ash-b(0.65) | energy",
        parameters: &[PRUNED],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p))])
    }
}

impl Shaping for AshB {
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Equal(Pruning::new(self.p, on.head().units()))))
    }

    fn load(&self, _: &mut State, units: usize) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Equal(Pruning::new(self.p, units))))
    }
}

#[derive(Debug, Clone, Copy)]
struct Equal(Pruning);

impl Shaper for Equal {
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace) {
        let cut = self.0.cut(row, workspace);
        let stays = |value: &f32| cut.is_none_or(|cut| *value > cut);
        let kept = row.iter().filter(|value| stays(value)).count();
        let share = (sum(row) / kept.max(1) as f64) as f32;
        row.iter_mut().for_each(|value| *value = if stays(value) { share } else { 0.0 });
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let all = graph.sum(features);
        let Some(kept) = self.0.kept(graph, features) else {
            let share = graph.scale(all, 1.0 / self.0.units as f64);
            // The features times 0 give the share its columns.
            let none = graph.scale(features, 0.0);
            return Some(graph.add(none, share));
        };
        let count = graph.sum(kept);
        let share = graph.ratio(all, count);
        Some(graph.mul(kept, share))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::assert_shapes;

    #[test]
    fn it_is_the_published_formula_where_no_values_tie() {
        let shaped = |h: &[f64], kept: usize| -> Vec<f64> {
            let mut sorted = h.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            // Rectified zeros tie, and are never kept here.
            let kept = kept.min(sorted.iter().filter(|value| **value > 0.0).count());
            let share = h.iter().sum::<f64>() / kept as f64;
            h.iter().map(|value| if *value >= sorted[kept - 1] { share } else { 0.0 }).collect()
        };
        assert_shapes("ash-b(0.75)", |_, h| shaped(h, 3));
        assert_shapes("ash-b(0)", |_, h| vec![h.iter().sum::<f64>() / h.len() as f64; h.len()]);
    }
}
