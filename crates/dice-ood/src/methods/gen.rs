//! Generalised entropy of the largest softmax probabilities.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Binary, Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `gen`, `gen(gamma=0.5)`.
///
/// pytorch-ood divides the sum by the number of classes, and clamps probabilities to between 1e-7 and 1 - 1e-7: of very certain
/// inputs it no longer tells which is more so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gen {
    gamma: f64,
    top: u64,
}

impl Method for Gen {
    const CARD: &'static Card = &Card {
        name: "gen",
        about: "how decided the largest softmax probabilities are: their negative generalised entropy",
        formula: "-sum of (P_c (1 - P_c))^gamma over the `top` largest P_c, P = softmax(f)",
        paper: "Liu et al., CVPR",
        year: 2023,
        cost: "C an input; nothing is kept",
        exports: true,
        example: "gen",
        parameters: &[
            Parameter {
                name: "gamma",
                about: "exponent: the smaller, the more small probabilities count",
                kind: Kind::Real { least: 1e-3, most: 10.0 },
                otherwise: Otherwise::Default(Value::Real(0.1)),
                bare: false,
            },
            Parameter {
                name: "top",
                about: "largest probabilities that count; all where there are fewer classes",
                kind: Kind::Whole { least: 1, most: 1 << 24 },
                otherwise: Otherwise::Default(Value::Whole(100)),
                bare: false,
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { gamma: given.real("gamma"), top: given.whole("top") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.gamma)), Some(Value::Whole(self.top))])
    }
}

impl Gen {
    fn fitted(self, head: &LinearHead) -> Arc<dyn Scorer> {
        let top = usize::try_from(self.top).unwrap_or(usize::MAX);
        Arc::new(Generalised { gamma: self.gamma, top: Some(top).filter(|top| *top < head.classes()) })
    }
}

impl Score for Gen {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::LOGITS)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(self.fitted(on.head()))
    }

    fn load(&self, _: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(self.fitted(head))
    }
}

#[derive(Debug)]
struct Generalised {
    gamma: f64,
    /// How many classes count; `None` for all.
    top: Option<usize>,
}

impl Generalised {
    /// The logit of the last class that counts, and how many logits of just that size do; none where all count.
    fn cut(&self, logits: &[f32], order: &mut Vec<f32>) -> Option<(f32, usize)> {
        let top = self.top?;
        order.clear();
        order.extend_from_slice(logits);
        let (_, cut, _) = order.select_nth_unstable_by(top - 1, |a, b| b.total_cmp(a));
        Some((*cut, top - logits.iter().filter(|logit| **logit > *cut).count()))
    }
}

impl Scorer for Generalised {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        for ((score, logits), summary) in out.iter_mut().zip(rows.logits()).zip(rows.summaries()) {
            let mut cut = self.cut(logits, &mut workspace.order);
            let mut counts = |logit: f32| match &mut cut {
                None => true,
                Some((cut, left)) if logit == *cut && *left > 0 => {
                    *left -= 1;
                    true
                }
                Some((cut, _)) => logit > *cut,
            };
            let terms = summary.softmax(logits, 1.0).zip(logits).filter(|(_, logit)| counts(**logit));
            *score = -terms.map(|((p, rest), _)| (p * rest).powf(self.gamma)).sum::<f64>();
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (p, rest) = graph.probabilities(of.logits);
        let (product, gamma) = (graph.mul(p, rest), graph.scalar(self.gamma));
        let terms = graph.binary(Binary::Pow, product, gamma);
        let sum = match self.top {
            None => graph.sum(terms),
            Some(top) => largest(graph, of.logits, terms, top),
        };
        Some(graph.scale(sum, -1.0))
    }
}

/// The sum of the `terms` `[N, C]` of the `top` largest logits; terms of equal logits are equal.
fn largest(graph: &mut Graph, logits: Wire, terms: Wire, top: usize) -> Wire {
    let one = graph.scalar(1.0);
    let cut = graph.reduce(Reduce::KthLargest(top), logits);
    let (above, below) = (graph.binary(Binary::Greater, logits, cut), graph.binary(Binary::Greater, cut, logits));
    let (not_above, not_below) = (graph.sub(one, above), graph.sub(one, below));
    let equal = graph.mul(not_above, not_below);
    let (of_above, of_equal) = (graph.mul(terms, above), graph.mul(terms, equal));
    let (sum_above, sum_equal) = (graph.sum(of_above), graph.sum(of_equal));
    let (count_above, count_equal) = (graph.sum(above), graph.sum(equal));
    let top = graph.scalar(top as f64);
    let left = graph.sub(top, count_above);
    let share = graph.div(left, count_equal);
    let counted = graph.mul(sum_equal, share);
    graph.add(sum_above, counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;
    use crate::spec::Spec;
    use crate::statistics::{Needs, Statistics};
    use ndarray::Array2;

    /// Logits that are the features.
    fn scores(spec: &str, logits: &Array2<f32>) -> (Vec<f64>, Vec<f64>) {
        let classes = logits.ncols();
        let identity = Array2::<f32>::eye(classes).into_raw_vec_and_offset().0;
        let head = Arc::new(LinearHead::from_rows(identity, vec![0.0; classes], classes).unwrap());
        let detector = spec.parse::<Spec>().unwrap().fit(&head, &Statistics::new(classes, &Needs::default())).unwrap();
        let mut graph = Graph::default();
        let wire = detector.express(&mut graph).unwrap();
        assert!(!graph.nodes().iter().any(|op| matches!(op, Op::Softmax(_))));
        let expressed = graph.evaluate(logits.as_slice().unwrap(), logits.nrows(), wire);
        (detector.score(logits.view()).unwrap(), expressed)
    }

    fn definition(logits: &[f32], gamma: f64, top: usize) -> f64 {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f64> = logits.iter().map(|logit| f64::from(*logit - most).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let others =
            |class: usize| -> f64 { exps.iter().enumerate().filter(|(c, _)| *c != class).map(|(_, e)| e).sum() };
        let mut terms: Vec<(f64, f64)> = (0..exps.len())
            .map(|class| (exps[class], (exps[class] * others(class) / (sum * sum)).powf(gamma)))
            .collect();
        terms.sort_by(|a, b| b.0.total_cmp(&a.0));
        -terms[..top.min(terms.len())].iter().map(|(_, term)| term).sum::<f64>()
    }

    #[test]
    fn scores_are_the_definition_also_of_very_certain_inputs_and_ties() {
        let mut logits = Array2::from_shape_fn((40, 7), |(row, class)| ((row * 31 + class * 17) % 23) as f32 * 0.5);
        // A gap of 60: 1 - P is 1e-26, which f64 loses where it is taken as a difference.
        logits.row_mut(0).assign(&ndarray::array![60.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        logits.row_mut(1).fill(2.0);
        for (spec, gamma, top) in [("gen", 0.1, 100), ("gen(gamma=0.5, top=3)", 0.5, 3), ("gen(top=1)", 0.1, 1)] {
            let (found, expressed) = scores(spec, &logits);
            for ((row, found), expressed) in logits.rows().into_iter().zip(found).zip(expressed) {
                let expected = definition(row.as_slice().unwrap(), gamma, top);
                assert!((found - expected).abs() < 1e-6 * expected.abs(), "{spec}: {found} for {expected}");
                assert!((expressed - expected).abs() < 1e-6 * expected.abs(), "{spec}: {expressed} for {expected}");
            }
        }
    }
}
