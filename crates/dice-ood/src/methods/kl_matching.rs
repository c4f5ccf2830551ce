//! KL-matching: how far the softmax is from the typical softmax of the nearest class.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::state::{State, check_finite};
use crate::statistics::{Need, Needs};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `kl-matching`.
///
/// The paper takes templates of validation data. Here they are of training rows, of which the network is surer, and of the dense
/// head also where features are shaped or weights dropped before the score. The divergence is the least over classes, as in the
/// paper, OpenOOD and pytorch-ood from 0.4; earlier versions of that take the template of the predicted class alone. A class that is
/// never predicted is certain of itself, as in OpenOOD; pytorch-ood leaves it out.
#[derive(Debug, Clone, Copy)]
pub(super) struct KlMatching;

/// Logarithms of templates are at least this: a class that a template holds impossible costs much, and no infinity.
const LEAST: f64 = -700.0;

impl Method for KlMatching {
    const CARD: &'static Card = &Card {
        name: "kl-matching",
        about: "divergence of the softmax from the mean softmax of the class that it is nearest to",
        formula: "-min_k sum_c P_c (log P_c - max(log d_kc, -700)), P = softmax(f), d_k the mean softmax of the training rows that \
                  the dense head predicts as k",
        paper: "Hendrycks et al., ICML; there d is of validation data",
        year: 2022,
        cost: "C^2 an input; C^2 numbers are kept",
        exports: true,
        example: "kl-matching",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Score for KlMatching {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::LOGITS)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Templates])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let templates = on.statistics().templates()?;
        Matched::scorer(templates.iter().map(|p| p.ln().max(LEAST) as f32).collect(), on.head().classes())
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let logs = state.take::<f32>("log_templates", &[Some(head.classes()), Some(head.classes())])?;
        check_finite("log_templates", &logs)?;
        Matched::scorer(logs, head.classes())
    }
}

#[derive(Debug)]
struct Matched {
    /// `log d` `[C, C]`.
    logs: Arc<[f32]>,
    classes: usize,
    product: Product,
}

impl Matched {
    fn scorer(logs: Arc<[f32]>, classes: usize) -> Result<Arc<dyn Scorer>> {
        let product = Product::new(&logs, [classes, classes], None)?;
        Ok(Arc::new(Self { logs, classes, product }))
    }
}

impl Scorer for Matched {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let Workspace { scratch, products, rows: softmax, .. } = workspace;
        softmax.clear();
        for ((score, logits), summary) in out.iter_mut().zip(rows.logits()).zip(rows.summaries()) {
            // `sum P log P`, with what is left beside the largest class to its full precision.
            let sum = 1.0 + summary.rest;
            let log = |logit: f32| f64::from(logit) - summary.max - sum.ln();
            let parts = summary.softmax(logits, 1.0).zip(logits);
            *score = parts.map(|((p, _), logit)| if p > 0.0 { p * log(*logit) } else { 0.0 }).sum();
            softmax.extend(summary.softmax(logits, 1.0).map(|(p, _)| p as f32));
        }
        products.clear();
        products.resize(out.len() * self.classes, 0.0);
        let _ = self.product.multiply(softmax, scratch, products);
        for (score, products) in out.iter_mut().zip(products.chunks_exact(self.classes)) {
            let nearest = products.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            *score = f64::from(nearest) - *score;
        }
    }

    fn save(&self, to: &mut State) {
        to.put("log_templates", &[self.classes, self.classes], Arc::clone(&self.logs));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (p, _) = graph.probabilities(of.logits);
        let all = graph.reduce(Reduce::LogSumExp, of.logits);
        let logs = graph.sub(of.logits, all);
        let terms = graph.mul(p, logs);
        let entropy = graph.sum(terms);
        let products = graph.times(p, [self.classes, self.classes], Arc::clone(&self.logs));
        let nearest = graph.reduce(Reduce::Max, products);
        Some(graph.sub(nearest, entropy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::Statistics;
    use ndarray::Array2;

    #[test]
    fn scores_are_the_definition_also_with_a_class_that_is_never_predicted() {
        let mut weight = Array2::<f32>::eye(4);
        weight.row_mut(3).fill(-1.0);
        let head = LinearHead::new(weight, ndarray::Array1::zeros(4)).unwrap();
        let head = Arc::new(head);
        let training = Array2::from_shape_fn((90, 4), |(row, unit)| ((row * 7 + unit * 11) % 13) as f32 / 3.0);
        let spec: Spec = "kl-matching".parse().unwrap();
        let mut statistics = Statistics::of_head(&head, &spec.needs()).unwrap();
        statistics.update(training.view()).unwrap();
        let detector = spec.fit(&head, &statistics).unwrap();
        let softmax = |row: ndarray::ArrayView1<'_, f32>| -> Vec<f64> {
            let logit =
                |class: usize| row.iter().zip(head.weight().row(class)).map(|(h, w)| f64::from(h * w)).sum::<f64>();
            let exps: Vec<f64> = (0..4).map(|class| logit(class).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.iter().map(|e| e / sum).collect()
        };
        let mut templates: Vec<Vec<Vec<f64>>> = vec![Vec::new(); 4];
        for row in training.rows() {
            let p = softmax(row);
            let predicted = (0..4).max_by(|a, b| p[*a].total_cmp(&p[*b]).then(b.cmp(a))).unwrap();
            templates[predicted].push(p);
        }
        assert!(templates[3].is_empty() && templates[..3].iter().all(|rows| !rows.is_empty()));
        let mean = |class: usize| -> Vec<f64> {
            let rows = &templates[class];
            let one = |c: usize| rows.iter().map(|p| p[c]).sum::<f64>() / rows.len() as f64;
            if rows.is_empty() {
                (0..4).map(|c| f64::from(u8::from(c == class))).collect()
            } else {
                (0..4).map(one).collect()
            }
        };
        let means: Vec<Vec<f64>> = (0..4).map(mean).collect();
        for (row, found) in training.rows().into_iter().zip(detector.score(training.view()).unwrap()) {
            let p = softmax(row);
            let divergence = |d: &Vec<f64>| p.iter().zip(d).map(|(p, d)| p * (p / d).ln()).sum::<f64>();
            let expected = -means.iter().map(divergence).fold(f64::INFINITY, f64::min);
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found} for {expected}");
        }
    }
}
