//! Small weights pruned: an ablation of the paper.

use super::{Method, Sparsity};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::mask::{Mask, largest};
use crate::training::Training;

/// `weight-prune(0.9)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightPrune {
    p: f64,
}

impl Method for WeightPrune {
    const CARD: &'static Card = &Card {
        name: "weight-prune",
        about: "keep the largest weights by magnitude",
        formula: "M keeps the largest |W|",
        paper: "Sun and Li, ECCV, ablation",
        year: 2022,
        cost: "the kept weights an input",
        exports: true,
        example: "weight-prune(0.9) | energy",
        parameters: &[Parameter::DROPPED],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p))])
    }
}

impl Sparsity for WeightPrune {
    fn mask(&self, on: &Training<'_>) -> Result<Mask> {
        let magnitudes: Vec<f64> = on.head().weight().iter().map(|weight| f64::from(weight.abs())).collect();
        Mask::of_weights(on.head().units(), &largest(&magnitudes, self.p))
    }

    fn level(&self) -> Option<f64> {
        Some(self.p)
    }
}
