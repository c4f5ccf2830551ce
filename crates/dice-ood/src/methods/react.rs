//! ReAct: activations are clipped from above.

use std::sync::Arc;

use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Wire};
use crate::state::State;
use crate::statistics::{Need, Needs};
use crate::training::Training;
use crate::views::Workspace;

/// `react(0.99)`: at that quantile of all training activations pooled; `react(c=1)`: at that activation.
#[derive(Debug, Clone, Copy)]
pub(super) enum React {
    Quantile(f64),
    Activation(f64),
}

impl Method for React {
    const CARD: &'static Card = &Card {
        name: "react",
        about: "clip activations from above",
        formula: "min(h, c), c a quantile of all training activations pooled",
        paper: "Sun, Guo and Li, NeurIPS, equation 1",
        year: 2021,
        cost: "nothing: the product clips while it reads",
        exports: true,
        example: "react(0.99) | energy",
        parameters: &[
            Parameter {
                name: "quantile",
                about: "quantile of the training activations to clip at",
                kind: Kind::Quantile,
                otherwise: Otherwise::Absent,
                bare: true,
            },
            Parameter {
                name: "c",
                about: "activation to clip at, above 0: below, every input becomes the same",
                kind: Kind::Real { least: 1e-9, most: 1e12 },
                otherwise: Otherwise::Absent,
                bare: false,
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        match (given.optional_real("quantile"), given.optional_real("c")) {
            (Some(quantile), None) => Ok(Self::Quantile(quantile)),
            (None, Some(c)) => Ok(Self::Activation(c)),
            _ => Err(
                "`react` takes one of the two: a quantile of the training activations, react(0.99), or an activation, \
                      react(c=1)"
                    .into(),
            ),
        }
    }

    fn arguments(&self) -> Arguments {
        let values = match *self {
            Self::Quantile(quantile) => [Some(Value::Real(quantile)), None],
            Self::Activation(c) => [None, Some(Value::Real(c))],
        };
        Arguments::new(Self::CARD, values)
    }
}

impl Shaping for React {
    fn needs(&self) -> Needs {
        match self {
            Self::Quantile(_) => Needs::of([Need::Activations]),
            Self::Activation(_) => Needs::default(),
        }
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        let clip = match *self {
            Self::Activation(c) => c,
            Self::Quantile(quantile) => on.statistics().activation_quantile(quantile)?,
        };
        if clip as f32 > 0.0 {
            return Ok(Arc::new(Clip(clip)));
        }
        Err(Error::new(ErrorKind::Argument, clip.to_string())
            .argument("clip of `react`")
            .expected("an activation above 0: below, every input becomes the same")
            .fix("so many training activations are not positive: raise the quantile"))
    }

    fn load(&self, state: &mut State, _: usize) -> Result<Arc<dyn Shaper>> {
        let clip = state.take::<f64>("clip", &[Some(1)])?[0];
        if (clip as f32).is_finite() && clip as f32 > 0.0 {
            return Ok(Arc::new(Clip(clip)));
        }
        Err(Error::new(ErrorKind::Malformed, clip.to_string()).tensor("clip").expected("an activation above 0"))
    }
}

#[derive(Debug, Clone, Copy)]
struct Clip(f64);

impl Shaper for Clip {
    fn shape(&self, row: &mut [f32], _: &mut Workspace) {
        row.iter_mut().for_each(|value| *value = value.min(self.0 as f32));
    }

    fn clip(&self) -> Option<f32> {
        Some(self.0 as f32)
    }

    fn save(&self, to: &mut State) {
        to.put("clip", &[1], vec![self.0]);
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let clip = graph.scalar(self.0);
        Some(graph.binary(Binary::Min, features, clip))
    }
}
