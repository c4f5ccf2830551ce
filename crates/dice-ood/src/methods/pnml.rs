//! Predictive normalised maximum likelihood: how little a learner of the head could regret on a feature.

use std::sync::Arc;

use ndarray::Array1;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::gaussian::{Whitening, square};
use crate::graph::{Binary, Graph, Op, Reduce, Unary, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::sphere::to_sphere;
use crate::state::State;
use crate::statistics::{Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `pnml`, `pnml(ridge=0)`. As pytorch-ood has it, normalised features go through the head too. That has no ridge but a
/// pseudo-inverse, and divides by log C.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pnml {
    ridge: f64,
}

impl Method for Pnml {
    const CARD: &'static Card = &Card {
        name: "pnml",
        about: "how little a learner of the head could regret on a feature of the unit sphere",
        formula: "-log sum_c P_c / (P_c + P_c^g (1 - P_c)), P = softmax(W x + b), x = h / |h|, g = xi / (1 + xi), \
                  xi = x' (G + ridge tr(G) / D I)^-1 x, G = sum x x' over training rows",
        paper: "Bibas, Feder and Hassner, NeurIPS",
        year: 2021,
        cost: "D (D + C) an input; the fit takes D^3; a [D, D] whitening is kept",
        exports: true,
        example: "pnml",
        parameters: &[Parameter {
            name: "ridge",
            about: "what is added to every eigenvalue of G, as a share of their mean",
            kind: Kind::Real { least: 0.0, most: 1.0 },
            otherwise: Otherwise::Default(Value::Real(1e-3)),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { ridge: given.real("ridge") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.ridge))])
    }
}

impl Score for Pnml {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::SecondMoment(Space::Sphere)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let mut moment = on.statistics().second_moment(Space::Sphere)?;
        let units = moment.nrows();
        let ridge = self.ridge * moment.diag().sum() / units as f64;
        moment.diag_mut().iter_mut().for_each(|entry| *entry += ridge);
        let whitening = Whitening::of(&moment, &Array1::zeros(units)).map_err(|error| error.fix("add a ridge"))?;
        Ok(Arc::new(Regret::new(whitening, Arc::clone(on.head()))?))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Regret::new(Whitening::load(state, head.units())?, Arc::new(head.clone()))?))
    }
}

#[derive(Debug)]
struct Regret {
    /// Gives `z` with `|z|^2 = xi`.
    whitening: Whitening,
    head: Arc<LinearHead>,
    product: Product,
}

impl Regret {
    fn new(whitening: Whitening, head: Arc<LinearHead>) -> Result<Self> {
        let (weight, bias) = (head.weight(), head.bias());
        let shape = [head.classes(), head.units()];
        let product = Product::new(weight.as_slice().unwrap_or_default(), shape, bias.as_slice())?;
        Ok(Self { whitening, head, product })
    }
}

/// `-log sum_c P_c / (P_c + P_c^g (1 - P_c))` of logits, where `g = xi / (1 + xi)`.
fn regret(logits: &[f32], xi: f64) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let all = most + logits.iter().map(|logit| (f64::from(*logit) - most).exp()).sum::<f64>().ln();
    // g - 1, without rounding where xi is large.
    let less = -1.0 / (1.0 + xi);
    let term = |logit: &f32| {
        let log = f64::from(*logit) - all;
        // The fraction divided by P: P itself may be 0. Not `1 - exp log`, which a sure class rounds to 0.
        1.0 / (1.0 - (less * log).exp() * log.exp_m1())
    };
    -logits.iter().map(term).sum::<f64>().ln()
}

impl Scorer for Regret {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, rows: sphere, products, .. } = workspace;
        sphere.clear();
        sphere.extend_from_slice(rows.all_features());
        sphere.chunks_exact_mut(rows.units).for_each(to_sphere);
        self.whitening.apply(sphere, scratch, products, out);
        products.clear();
        products.resize(out.len() * rows.classes, 0.0);
        let _ = self.product.multiply(sphere, scratch, products);
        for (out, logits) in out.iter_mut().zip(products.chunks_exact(rows.classes)) {
            *out = regret(logits, *out);
        }
    }

    fn save(&self, to: &mut State) {
        self.whitening.save(to);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let sphere = graph.to_sphere(of.features);
        let whitened = self.whitening.express(graph, sphere);
        let xi = square(graph, whitened);
        let (one, minus_one) = (graph.scalar(1.0), graph.scalar(-1.0));
        let more = graph.add(xi, one);
        let less = graph.div(minus_one, more);
        let logits = graph.push(Op::Logits(sphere, Arc::clone(&self.head), None));
        let all = graph.reduce(Reduce::LogSumExp, logits);
        let log = graph.sub(logits, all);
        let powers = graph.mul(less, log);
        let powers = graph.unary(Unary::Exp, powers);
        let p = graph.unary(Unary::Exp, log);
        let rest = graph.binary(Binary::Sub, one, p);
        let products = graph.mul(powers, rest);
        let below = graph.add(products, one);
        let terms = graph.div(one, below);
        let sum = graph.sum(terms);
        let log = graph.unary(Unary::Log, sum);
        Some(graph.scale(log, -1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regret_is_the_published_fraction() {
        let (logits, xi) = ([1.0f32, -0.5, 0.25], 0.3f64);
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let g = xi / (1.0 + xi);
        let term = |logit: &f32| {
            let p = f64::from(*logit).exp() / sum;
            p / (p + p.powf(g) * (1.0 - p))
        };
        let expected = -logits.iter().map(term).sum::<f64>().ln();
        assert!((regret(&logits, xi) - expected).abs() < 1e-14);
        assert!(regret(&[900.0, -900.0], xi).abs() < 1e-12, "a class that is sure, and one that has no share");
    }
}
