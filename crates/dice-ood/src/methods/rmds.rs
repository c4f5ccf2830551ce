//! Relative Mahalanobis distance.

use std::sync::Arc;

use super::mds::Mahalanobis;
use super::{Method, Score, Scorer};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::head::LinearHead;
use crate::state::State;
use crate::statistics::{Needs, Space};
use crate::training::Training;
use crate::views::Takes;

/// `rmds`, `rmds(by=prediction)`, `rmds(shrinkage=none)`. OpenOOD's is `shrinkage=none`; pytorch-ood 0.4 does not divide the
/// two covariances by N.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rmds(Mahalanobis);

impl Method for Rmds {
    const CARD: &'static Card = &Card {
        name: "rmds",
        about: "Mahalanobis distance to the nearest class mean, less that to the mean of all rows",
        formula: "max_c -(h - mu_c)' Sigma^-1 (h - mu_c) + (h - mu)' Sigma_0^-1 (h - mu), Sigma as in mds, Sigma_0 = E[h h'] - mu mu'",
        paper: "Ren et al., ICML workshop on uncertainty",
        year: 2021,
        cost: "D (2 D + C) an input; the fit takes D^3; two [D, D] whitenings and C means are kept",
        exports: true,
        example: "rmds",
        parameters: Mahalanobis::PARAMETERS,
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self(Mahalanobis::from_arguments(given, Space::Features, true)))
    }

    fn arguments(&self) -> Arguments {
        self.0.arguments(Self::CARD)
    }
}

impl Score for Rmds {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn takes_head(&self) -> bool {
        false
    }

    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        self.0.fit(on)
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        self.0.load(state, head)
    }
}
