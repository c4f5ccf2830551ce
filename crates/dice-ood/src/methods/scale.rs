//! SCALE: each input grows by how much of its sum is in its largest activations.

use std::sync::Arc;

use super::ash_s::{Pruning, sum};
use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Unary, Wire};
use crate::state::State;
use crate::training::Training;
use crate::views::Workspace;

/// `scale`, `scale(0.9)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    p: f64,
}

impl Method for Scale {
    const CARD: &'static Card = &Card {
        name: "scale",
        about: "scale each input by exp(its sum / the sum of its largest activations)",
        formula: "h exp(s1 / s2), s1 the sum of h, s2 that of its D - round(p D) largest values; h where s2 = 0",
        paper: "Xu et al., ICLR, equation 5",
        year: 2024,
        cost: "D an input; nothing is kept",
        exports: true,
        example: "scale(0.85) | energy",
        parameters: &[Parameter {
            name: "p",
            about: "fraction of each input's units that the second sum leaves out",
            kind: Kind::Fraction,
            otherwise: Otherwise::Default(Value::Real(0.85)),
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

impl Shaping for Scale {
    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Grown(Pruning::new(self.p, on.head().units()))))
    }

    fn load(&self, _: &mut State, units: usize) -> Result<Arc<dyn Shaper>> {
        Ok(Arc::new(Grown(Pruning::new(self.p, units))))
    }
}

#[derive(Debug, Clone, Copy)]
struct Grown(Pruning);

impl Grown {
    /// How many of the largest values the second sum is of.
    fn largest(self) -> usize {
        self.0.units - self.0.dropped
    }
}

impl Shaper for Grown {
    fn shape(&self, row: &mut [f32], workspace: &mut Workspace) {
        let order = &mut workspace.order;
        order.clear();
        order.extend_from_slice(row);
        // The smallest of those that are summed; how ties fall does not change the sum.
        let least = f64::from(*order.select_nth_unstable_by(self.0.dropped, f32::total_cmp).1);
        let above: f64 = row.iter().map(|value| (f64::from(*value) - least).max(0.0)).sum();
        let largest = above + least * self.largest() as f64;
        if largest == 0.0 {
            return;
        }
        let scale = (sum(row) / largest).exp();
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let least = graph.reduce(Reduce::KthLargest(self.largest()), features);
        let (differences, none) = (graph.sub(features, least), graph.scalar(0.0));
        let above = graph.binary(Binary::Max, differences, none);
        let (above, at_least) = (graph.sum(above), graph.scale(least, self.largest() as f64));
        let largest = graph.add(above, at_least);
        // Where that is 0: `exp(0 / 1)`.
        let magnitude = graph.unary(Unary::Abs, largest);
        let there = graph.binary(Binary::Greater, magnitude, none);
        let one = graph.scalar(1.0);
        let gone = graph.sub(one, there);
        let (divisor, all) = (graph.add(largest, gone), graph.sum(features));
        let dividend = graph.mul(all, there);
        let exponent = graph.div(dividend, divisor);
        let scale = graph.unary(Unary::Exp, exponent);
        Some(graph.mul(features, scale))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::assert_shapes;

    #[test]
    fn it_is_the_published_formula() {
        for (text, kept) in [("scale", 2), ("scale(0.5)", 6), ("scale(0)", 12)] {
            assert_shapes(text, |_, h| {
                let mut sorted = h.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let scale = (h.iter().sum::<f64>() / sorted[..kept].iter().sum::<f64>()).exp();
                h.iter().map(|value| value * scale).collect()
            });
        }
    }
}
