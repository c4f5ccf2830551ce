//! The largest logit.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `max-logit`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxLogit;

impl Method for MaxLogit {
    const CARD: &'static Card = &Card {
        name: "max-logit",
        about: "largest logit",
        formula: "max_c f_c",
        paper: "Hendrycks et al., ICML",
        year: 2022,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "max-logit",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Score for MaxLogit {
    fn takes(&self) -> Takes {
        Takes::summary(1.0)
    }

    fn fit(&self, _: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }

    fn load(&self, _: &mut State, _: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(*self))
    }
}

impl Scorer for MaxLogit {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for (score, summary) in out.iter_mut().zip(rows.summaries()) {
            *score = summary.max;
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        Some(graph.reduce(Reduce::Max, of.logits))
    }
}
