//! Mahalanobis distance on the unit sphere.

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

/// `mds++`, `mds++(by=prediction)`, `mds++(shrinkage=none)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MdsOnSphere(Mahalanobis);

impl Method for MdsOnSphere {
    const CARD: &'static Card = &Card {
        name: "mds++",
        about: "as mds, of features on the unit sphere",
        formula: "max_c -(x - mu_c)' Sigma^-1 (x - mu_c), x = h / |h|, mu_c and Sigma those of x",
        paper: "Mueller and Hein, ICML, Mahalanobis++",
        year: 2025,
        cost: "D (D + C) an input; the fit takes D^3; a [D, D] whitening and C means are kept",
        exports: true,
        example: "mds++",
        parameters: Mahalanobis::PARAMETERS,
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self(Mahalanobis::from_arguments(given, Space::Sphere, false)))
    }

    fn arguments(&self) -> Arguments {
        self.0.arguments(Self::CARD)
    }
}

impl Score for MdsOnSphere {
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
