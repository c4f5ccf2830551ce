//! MaxCosine: the cosine between a feature and the nearest weight vector of a class.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Reduce, Wire};
use crate::head::LinearHead;
use crate::kernel::Product;
use crate::sphere::{norm, ratio, to_sphere};
use crate::state::State;
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `max-cosine`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxCosine;

impl Method for MaxCosine {
    const CARD: &'static Card = &Card {
        name: "max-cosine",
        about: "cosine between a feature and the nearest weight vector of a class",
        formula: "max_c w_c h / (|w_c| |h|); 0 at h = 0, which has no direction",
        paper: "Zhang and Xiang, CVPR, section 3",
        year: 2023,
        cost: "C x D an input; the normalised weights are kept",
        exports: true,
        example: "max-cosine",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Score for MaxCosine {
    fn takes(&self) -> Takes {
        Takes::FEATURES
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Directions::new(on.head())?))
    }

    fn load(&self, _: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Directions::new(head)?))
    }
}

#[derive(Debug)]
struct Directions {
    head: LinearHead,
    product: Product,
}

impl Directions {
    fn new(head: &LinearHead) -> Result<Self> {
        let directions = directions(head);
        let zero = |row: &[f32]| row.iter().all(|value| *value == 0.0);
        if let Some(class) = directions.chunks_exact(head.units()).position(zero) {
            return Err(Error::new(ErrorKind::Argument, format!("zeros for class {class}"))
                .tensor("head weight")
                .expected("weights that have a direction, of every class"));
        }
        Ok(Self { head: head.clone(), product: Product::new(&directions, [head.classes(), head.units()], None)? })
    }
}

/// `w_c / |w_c|` `[C, D]`.
fn directions(head: &LinearHead) -> Vec<f32> {
    let mut rows: Vec<f32> = head.weight().iter().copied().collect();
    rows.chunks_exact_mut(head.units()).for_each(to_sphere);
    rows
}

impl Scorer for Directions {
    fn score(&self, rows: &Rows<'_>, workspace: &mut Workspace, out: &mut [f64]) {
        let classes = self.head.classes();
        let Workspace { scratch, products, .. } = workspace;
        products.clear();
        products.resize(out.len() * classes, 0.0);
        let _ = self.product.multiply(rows.all_features(), scratch, products);
        for ((score, products), row) in out.iter_mut().zip(products.chunks_exact(classes)).zip(rows.features()) {
            let most = products.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            *score = ratio(f64::from(most), norm(row));
        }
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let shape = [self.head.classes(), self.head.units()];
        let products = graph.times(of.features, shape, directions(&self.head));
        let (most, length) = (graph.reduce(Reduce::Max, products), graph.norm(of.features));
        Some(graph.ratio(most, length))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{assert_scores, dot};
    use super::*;
    use crate::spec::Spec;
    use crate::statistics::Statistics;

    #[test]
    fn it_is_the_published_formula() {
        assert_scores("max-cosine", |given, h| {
            let cosine = |w: &Vec<f64>| dot(w, h) / (dot(w, w) * dot(h, h)).sqrt();
            given.weight.iter().map(cosine).fold(f64::NEG_INFINITY, f64::max)
        });
    }

    #[test]
    fn weights_without_a_direction_are_refused_and_features_without_one_score_0() {
        let statistics = Statistics::from_mean_activation(ndarray::Array1::zeros(2)).unwrap();
        let fit = |weight: Vec<f32>| {
            let head = Arc::new(LinearHead::from_rows(weight, vec![0.0; 2], 2).unwrap());
            "max-cosine".parse::<Spec>().unwrap().fit(&head, &statistics)
        };
        assert!(fit(vec![1.0, 0.0, 0.0, 0.0]).unwrap_err().to_string().contains("class 1"));
        assert_eq!(fit(vec![1.0, 0.0, 0.0, 2.0]).unwrap().score_one(&[0.0, 0.0]).unwrap(), 0.0);
    }
}
