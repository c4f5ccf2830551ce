//! The part of a feature outside the principal subspace: the virtual logit of `vim` alone.

use std::sync::Arc;

use super::vim::{Dimensions, Outside};
use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Graph, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::statistics::{Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `residual`, `residual(256)`. OpenOOD fits the subspace to validation features, with 512 dimensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residual {
    dim: Dimensions,
}

impl Method for Residual {
    const CARD: &'static Card = &Card {
        name: "residual",
        about: "the part of a feature outside the principal subspace",
        formula: "-|R (h - u)|, u = -pinv(W) b, R the axes after the first dim",
        paper: "Wang et al., CVPR, beside ViM",
        year: 2022,
        cost: "D (D - dim) an input; the fit takes D^3; R is kept",
        exports: true,
        example: "residual(256)",
        parameters: &[Dimensions::PARAMETER],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { dim: Dimensions::from_arguments(given) })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [self.dim.value()])
    }
}

impl Score for Residual {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::SecondMoment(Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Outside::fit(self.dim, on)?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Outside::load(self.dim, state, head.units())?))
    }
}

impl Scorer for Outside {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        self.lengths(rows.all_features(), &mut workspace.scratch, &mut workspace.products, out);
        out.iter_mut().for_each(|length| *length = -*length);
    }

    fn save(&self, to: &mut State) {
        Outside::save(self, to);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let length = Outside::express(self, graph, of.features);
        Some(graph.scale(length, -1.0))
    }
}
