//! Relative Mahalanobis distance on the unit sphere.

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

/// `rmds++`, `rmds++(by=prediction)`, `rmds++(shrinkage=none)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RmdsOnSphere(Mahalanobis);

impl Method for RmdsOnSphere {
    const CARD: &'static Card = &Card {
        name: "rmds++",
        about: "as rmds, of features on the unit sphere",
        formula: "max_c -(x - mu_c)' Sigma^-1 (x - mu_c) + (x - mu)' Sigma_0^-1 (x - mu), x = h / |h|, all moments those of x",
        paper: "Mueller and Hein, ICML, Mahalanobis++",
        year: 2025,
        cost: "D (2 D + C) an input; the fit takes D^3; two [D, D] whitenings and C means are kept",
        exports: true,
        example: "rmds++",
        parameters: Mahalanobis::PARAMETERS,
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self(Mahalanobis::from_arguments(given, Space::Sphere, true)))
    }

    fn arguments(&self) -> Arguments {
        self.0.arguments(Self::CARD)
    }
}

impl Score for RmdsOnSphere {
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
