//! CARef: how far a feature is from the mean of its predicted class, relative to its size.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::sphere::absolute_sum;
use crate::state::{State, check_finite};
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `caref`. Its published code divides by zero at h = 0; here the size counts as at least [`LEAST`], which makes that input the
/// most out-of-distribution of all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caref;

/// The least size of a feature, so small that only an input of zeros has it, and so large that what is divided by it is finite in f32.
pub(super) const LEAST: f64 = 1e-12;

impl Method for Caref {
    const CARD: &'static Card = &Card {
        name: "caref",
        about: "distance from the mean feature of the predicted class, relative to the size of the feature",
        formula: "-sum |h - m_y| / sum |h|, m_c the mean of training features predicted as c",
        paper: "Ling et al., CVPR, section 3",
        year: 2025,
        cost: "D an input; the means [C, D] are kept",
        exports: true,
        example: "caref",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Score for Caref {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(By::Prediction, Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let means = on.mean_of_each_class(By::Prediction)?;
        Ok(Arc::new(Errors { units: on.head().units(), means: means.iter().copied().collect() }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let means = state.take::<f64>("means", &[Some(head.classes()), Some(head.units())])?;
        check_finite("means", &means)?;
        Ok(Arc::new(Errors { units: head.units(), means }))
    }
}

#[derive(Debug)]
struct Errors {
    units: usize,
    /// `[C, D]`.
    means: Arc<[f64]>,
}

impl Scorer for Errors {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for ((score, row), summary) in out.iter_mut().zip(rows.features()).zip(rows.summaries()) {
            let mean = &self.means[summary.class * self.units..][..self.units];
            let error: f64 = row.iter().zip(mean).map(|(value, mean)| (f64::from(*value) - mean).abs()).sum();
            *score = -error / size(row);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("means", &[self.means.len() / self.units, self.units], Arc::clone(&self.means));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let from_mean = from_mean_of(graph, of, &self.means, self.units);
        let (error, size) = (graph.absolute_sum(from_mean), size_of(graph, of.features));
        let relative = graph.div(error, size);
        Some(graph.scale(relative, -1.0))
    }
}

/// `sum |h|`, which is divided by.
pub(super) fn size(row: &[f32]) -> f64 {
    absolute_sum(row).max(LEAST)
}

/// The same as an operator.
pub(super) fn size_of(graph: &mut Graph, features: Wire) -> Wire {
    let (sum, least) = (graph.absolute_sum(features), graph.scalar(LEAST));
    graph.binary(Binary::Max, sum, least)
}

/// `h - m_y` as operators, of means `[C, D]`.
pub(super) fn from_mean_of(graph: &mut Graph, of: &Views, means: &[f64], units: usize) -> Wire {
    let class = graph.reduce(Reduce::ArgMax, of.logits);
    let values: Vec<f32> = means.iter().map(|mean| *mean as f32).collect();
    let mean = graph.pick(class, [means.len() / units, units], values);
    graph.sub(of.features, mean)
}

#[cfg(test)]
mod tests {
    use super::super::laws::{assert_scores, minus};

    #[test]
    fn it_is_the_published_formula() {
        let sum = |values: &[f64]| values.iter().map(|value| value.abs()).sum::<f64>();
        assert_scores("caref", |given, h| {
            let y = given.class(h);
            -sum(&minus(h, &given.mean(|row, _| given.class(row) == y))) / sum(h)
        });
    }
}
