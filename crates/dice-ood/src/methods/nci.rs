//! NCI: how near a feature is to the weight vector of its class, as seen from the mean, and how large it is.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::sphere::{absolute_sum, distance, ratio};
use crate::state::{State, check_finite};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `nci`, `nci(alpha=0.001)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nci {
    alpha: f64,
}

impl Method for Nci {
    const CARD: &'static Card = &Card {
        name: "nci",
        about: "how near a feature is to the weights of its class, as seen from the mean, and how large it is",
        formula: "w_y (h - mu) / |h - mu| + alpha sum |h|, mu the mean activation; the first term 0 at h = mu",
        paper: "Liu and Qin, CVPR",
        year: 2025,
        cost: "D an input; the mean activation is kept",
        exports: true,
        example: "nci",
        parameters: &[Parameter {
            name: "alpha",
            about: "weight of the sum of magnitudes",
            kind: Kind::Real { least: 0.0, most: 1e3 },
            otherwise: Otherwise::Default(Value::Real(1e-4)),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { alpha: given.real("alpha") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.alpha))])
    }
}

impl Score for Nci {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let mean = on.statistics().mean_activation().to_vec();
        Ok(Arc::new(Nearness { alpha: self.alpha, mean: mean.into(), head: LinearHead::clone(on.head()) }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let mean = state.take::<f64>("mean", &[Some(head.units())])?;
        check_finite("mean", &mean)?;
        Ok(Arc::new(Nearness { alpha: self.alpha, mean, head: head.clone() }))
    }
}

#[derive(Debug)]
struct Nearness {
    alpha: f64,
    /// `[D]`.
    mean: Arc<[f64]>,
    head: LinearHead,
}

impl Scorer for Nearness {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for ((score, row), summary) in out.iter_mut().zip(rows.features()).zip(rows.summaries()) {
            let weight = self.head.weight();
            let parts = row.iter().zip(&*self.mean).zip(weight.row(summary.class));
            let along: f64 = parts.map(|((value, mean), weight)| f64::from(*weight) * (f64::from(*value) - mean)).sum();
            *score = ratio(along, distance(row, &self.mean)) + self.alpha * absolute_sum(row);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("mean", &[self.mean.len()], Arc::clone(&self.mean));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let class = graph.reduce(Reduce::ArgMax, of.logits);
        let weights: Vec<f32> = self.head.weight().iter().copied().collect();
        let weight = graph.pick(class, [self.head.classes(), self.head.units()], weights);
        let mean = graph.row(self.mean.iter().map(|mean| *mean as f32));
        let centred = graph.sub(of.features, mean);
        let products = graph.mul(weight, centred);
        let (along, length) = (graph.sum(products), graph.norm(centred));
        let near = graph.ratio(along, length);
        let sum = graph.absolute_sum(of.features);
        let large = graph.scale(sum, self.alpha);
        Some(graph.add(near, large))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{assert_scores, dot, minus};

    #[test]
    fn it_is_the_published_formula() {
        for (text, alpha) in [("nci", 1e-4), ("nci(alpha=0.1)", 0.1)] {
            assert_scores(text, |given, h| {
                let z = minus(h, &given.mean(|_, _| true));
                let near = dot(&given.weight[given.class(h)], &z) / dot(&z, &z).sqrt();
                near + alpha * h.iter().map(|value| value.abs()).sum::<f64>()
            });
        }
    }
}
