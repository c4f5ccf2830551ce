//! Weights dropped at random: the paper's first ablation.

use super::{Method, Sparsity};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::mask::{Mask, largest, random_values};
use crate::training::Training;

/// `weight-drop(0.9, seed=1)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightDrop {
    p: f64,
    seed: u64,
}

impl Method for WeightDrop {
    const CARD: &'static Card = &Card {
        name: "weight-drop",
        about: "drop weights at random",
        formula: "M random, keeping (1 - p) C D weights",
        paper: "Sun and Li, ECCV, ablation",
        year: 2022,
        cost: "the kept weights an input",
        exports: true,
        example: "weight-drop(0.9) | energy",
        parameters: &[Parameter::DROPPED, Parameter::SEED],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p"), seed: given.whole("seed") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p)), Some(Value::Whole(self.seed))])
    }
}

impl Sparsity for WeightDrop {
    fn mask(&self, on: &Training<'_>) -> Result<Mask> {
        let (classes, units) = (on.head().classes(), on.head().units());
        Mask::of_weights(units, &largest(&random_values(classes * units, self.seed), self.p))
    }

    fn level(&self) -> Option<f64> {
        Some(self.p)
    }
}
