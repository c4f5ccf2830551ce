//! Weak units pruned: an ablation of the paper.

use super::dice::Mean;
use super::{Method, Sparsity};
use crate::card::{Arguments, Card, Parameter, Value};
use crate::error::Result;
use crate::mask::{Mask, largest};
use crate::statistics::Needs;
use crate::training::Training;

/// `unit-prune(0.9)`, `ras | unit-prune(0.9, mean=shaped)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitPrune {
    p: f64,
    mean: Mean,
}

impl Method for UnitPrune {
    const CARD: &'static Card = &Card {
        name: "unit-prune",
        about: "keep the units with the largest mean activation",
        formula: "M keeps the largest E[h]",
        paper: "Sun and Li, ECCV, ablation",
        year: 2022,
        cost: "the kept weights an input",
        exports: true,
        example: "unit-prune(0.9) | energy",
        parameters: &[Parameter::DROPPED, Parameter::MEAN],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { p: given.real("p"), mean: Mean::of_word(given.choice("mean")) })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.p)), Some(Value::Choice(self.mean.word()))])
    }
}

impl Sparsity for UnitPrune {
    fn needs(&self) -> Needs {
        self.mean.needs()
    }

    fn takes_shaped_mean(&self) -> bool {
        self.mean == Mean::Shaped
    }

    fn mask(&self, on: &Training<'_>) -> Result<Mask> {
        let mean = self.mean.of(on)?.to_vec();
        Mask::of_units(on.head().classes(), &largest(&mean, self.p))
    }

    fn level(&self) -> Option<f64> {
        Some(self.p)
    }
}
