//! SHE: how much a feature resembles the stored pattern of its class.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::sphere::{distance, norm, ratio};
use crate::state::{State, check_finite};
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `she`, `she(similarity=cosine)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct She {
    similarity: Similarity,
}

/// How a feature is compared with the pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Similarity {
    InnerProduct,
    Euclidean,
    Cosine,
}

const SIMILARITIES: [(&str, Similarity); 3] =
    [("inner-product", Similarity::InnerProduct), ("euclidean", Similarity::Euclidean), ("cosine", Similarity::Cosine)];

impl Method for She {
    const CARD: &'static Card = &Card {
        name: "she",
        about: "how much a feature resembles the mean of the correctly predicted training features of its class",
        formula: "h m_y, or -|h - m_y|, or h m_y / (|h| |m_y|); m_c the mean of training features of class c predicted as c",
        paper: "Zhang et al., ICLR",
        year: 2023,
        cost: "D an input; the means [C, D] are kept",
        exports: true,
        example: "she",
        parameters: &[Parameter {
            name: "similarity",
            about: "how a feature is compared with the mean",
            kind: Kind::Choice(&["inner-product", "euclidean", "cosine"]),
            otherwise: Otherwise::Default(Value::Choice("inner-product")),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let word = given.choice("similarity");
        let meant = SIMILARITIES.iter().find(|(known, _)| *known == word);
        Ok(Self { similarity: meant.map_or(Similarity::InnerProduct, |(_, meant)| *meant) })
    }

    fn arguments(&self) -> Arguments {
        let word = SIMILARITIES.iter().find(|(_, known)| *known == self.similarity).map_or("", |(word, _)| word);
        Arguments::new(Self::CARD, [Some(Value::Choice(word))])
    }
}

impl Score for She {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(By::Correct, Space::Features)])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let means = on.mean_of_each_class(By::Correct)?;
        let units = on.head().units();
        Ok(Arc::new(Patterns { similarity: self.similarity, units, means: means.iter().copied().collect() }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let means = state.take::<f64>("means", &[Some(head.classes()), Some(head.units())])?;
        check_finite("means", &means)?;
        Ok(Arc::new(Patterns { similarity: self.similarity, units: head.units(), means }))
    }
}

#[derive(Debug)]
struct Patterns {
    similarity: Similarity,
    units: usize,
    /// `[C, D]`.
    means: Arc<[f64]>,
}

impl Patterns {
    fn compare(&self, row: &[f32], mean: &[f64]) -> f64 {
        let product = || row.iter().zip(mean).map(|(value, mean)| f64::from(*value) * mean).sum::<f64>();
        match self.similarity {
            Similarity::InnerProduct => product(),
            Similarity::Euclidean => -distance(row, mean),
            Similarity::Cosine => {
                let length = mean.iter().map(|mean| mean * mean).sum::<f64>().sqrt();
                ratio(product(), length * norm(row))
            }
        }
    }
}

impl Scorer for Patterns {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        for ((score, row), summary) in out.iter_mut().zip(rows.features()).zip(rows.summaries()) {
            *score = self.compare(row, &self.means[summary.class * self.units..][..self.units]);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("means", &[self.means.len() / self.units, self.units], Arc::clone(&self.means));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let class = graph.reduce(Reduce::ArgMax, of.logits);
        let means: Vec<f32> = self.means.iter().map(|mean| *mean as f32).collect();
        let mean = graph.pick(class, [self.means.len() / self.units, self.units], means);
        let products = graph.mul(of.features, mean);
        let product = graph.sum(products);
        Some(match self.similarity {
            Similarity::InnerProduct => product,
            Similarity::Euclidean => {
                let difference = graph.sub(of.features, mean);
                let length = graph.norm(difference);
                graph.scale(length, -1.0)
            }
            Similarity::Cosine => {
                let (ours, theirs) = (graph.norm(of.features), graph.norm(mean));
                let lengths = graph.mul(ours, theirs);
                graph.ratio(product, lengths)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{assert_scores, dot, minus};
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::Statistics;

    #[test]
    fn it_is_the_published_formula() {
        for similarity in ["inner-product", "euclidean", "cosine"] {
            assert_scores(&format!("she(similarity={similarity})"), |given, h| {
                let y = given.class(h);
                let mean = given.mean(|row, label| label == y && given.class(row) == y);
                let apart = minus(h, &mean);
                match similarity {
                    "inner-product" => dot(h, &mean),
                    "euclidean" => -dot(&apart, &apart).sqrt(),
                    _ => dot(h, &mean) / (dot(h, h) * dot(&mean, &mean)).sqrt(),
                }
            });
        }
    }

    #[test]
    fn a_class_that_is_never_predicted_rightly_is_named() {
        let head = Arc::new(LinearHead::from_rows(vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 2], 2).unwrap());
        let spec: Spec = "she".parse().unwrap();
        let mut statistics = Statistics::of_head(&head, &spec.needs()).unwrap();
        let rows = ndarray::array![[1.0f32, 0.0], [2.0, 1.0]];
        statistics.update_labelled(rows.view(), &[0, 1]).unwrap();
        let error = spec.fit(&head, &statistics).unwrap_err().to_string();
        assert!(error.contains("predicted as class 1"), "{error}");
    }
}
