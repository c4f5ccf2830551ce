//! ASH-S: each input's smallest activations go, and the rest grows by how much that took.

use std::sync::Arc;

use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Unary, Wire};
use crate::state::State;
use crate::training::Training;
use crate::views::Workspace;

/// `ash-s(0.9)`: 90 % of the units of each input are set to zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct AshS {
    p: f64,
}

impl Method for AshS {
    const CARD: &'static Card = &Card {
        name: "ash-s",
        about: "zero each input's smallest activations, scale the rest by exp(sum before / sum after)",
        formula: "h_d exp(s1 / s2) where h_d is above the round(p D)-th smallest, else 0; s1, s2 the sums before and after",
        paper: "Djurisic et al., ICLR",
        year: 2023,
        cost: "D an input; nothing is kept",
        exports: true,
        example: "ash-s(0.9) | energy",
        parameters: &[PRUNED],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p))])
    }
}

impl Shaping for AshS {
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Scaled(Pruning::new(self.p, on.head().units()))))
    }

    fn load(&self, _: &mut State, units: usize) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Scaled(Pruning::new(self.p, units))))
    }
}

/// What ASH sets to zero.
pub(super) const PRUNED: Parameter = Parameter {
    name: "p",
    about: "fraction of each input's units set to zero",
    kind: Kind::Fraction,
    otherwise: Otherwise::Required,
    bare: true,
};

/// How many units of each input go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pruning {
    pub(super) dropped: usize,
    pub(super) units: usize,
}

impl Pruning {
    /// `round(p D)`, but not all of them.
    pub(super) fn new(p: f64, units: usize) -> Self {
        // Half to even, as Python rounds.
        let dropped = (p * units as f64).round_ties_even() as usize;
        Self { dropped: dropped.min(units.saturating_sub(1)), units }
    }

    /// The largest value that goes: all that are tied with it go too. `None` where none does.
    pub(super) fn cut(self, row: &[f32], workspace: &mut Workspace) -> Option<f32> {
        let last = self.dropped.checked_sub(1)?;
        let order = &mut workspace.order;
        order.clear();
        order.extend_from_slice(row);
        Some(*order.select_nth_unstable_by(last, f32::total_cmp).1)
    }

    /// 1 for values that stay, 0 for others `[N, D]`. `None` where all stay.
    pub(super) fn kept(self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        if self.dropped == 0 {
            return None;
        }
        let cut = graph.reduce(Reduce::KthLargest(self.units - self.dropped + 1), features);
        Some(graph.binary(Binary::Greater, features, cut))
    }
}

/// The sum of a row, in f64.
pub(super) fn sum(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value)).sum()
}

#[derive(Debug, Clone, Copy)]
struct Scaled(Pruning);

impl Shaper for Scaled {
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace) {
        let Some(cut) = self.0.cut(row, workspace) else {
            // `exp(s1 / s2)` of equal sums.
            row.iter_mut().for_each(|value| *value *= 1f64.exp() as f32);
            return;
        };
        let before = sum(row);
        row.iter_mut().filter(|value| **value <= cut).for_each(|value| *value = 0.0);
        let after = sum(row);
        if after == 0.0 {
            return;
        }
        let scale = (before / after).exp();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let Some(kept) = self.0.kept(graph, features) else {
            return Some(graph.scale(features, 1f64.exp()));
        };
        let pruned = graph.mul(features, kept);
        let (before, after) = (graph.sum(features), graph.sum(pruned));
        // Where nothing is left the scale is 1.
        let (zero, one) = (graph.scalar(0.0), graph.scalar(1.0));
        let size = graph.unary(Unary::Abs, after);
        let some = graph.binary(Binary::Greater, size, zero);
        let none = graph.sub(one, some);
        let divisor = graph.add(after, none);
        let ratio = graph.div(before, divisor);
        let ratio = graph.mul(ratio, some);
        let scale = graph.unary(Unary::Exp, ratio);
        Some(graph.mul(pruned, scale))
    }
}
