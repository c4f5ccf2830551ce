//! fDBD: how far the decision boundaries are, relative to how far the feature is from the mean.

use std::sync::Arc;

use super::{Method, Score, Scorer, Views};
use crate::boundaries::Boundaries;
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::graph::{Graph, Reduce, Unary, Wire};
use crate::head::LinearHead;
use crate::sphere::{distance, ratio};
use crate::state::{State, check_finite};
use crate::training::Training;
use crate::views::{Rows, Takes, Workspace};

/// `fdbd`, `fdbd(normalizer=length)`.
///
/// As OpenOOD has it, the sum over classes; the paper divides it by C - 1, which ranks the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fdbd {
    normalizer: Normalizer,
}

/// What distances to boundaries are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Normalizer {
    /// `|h - mu|`: `distance_as_normalizer` of OpenOOD.
    Distance,
    /// `|h|`.
    Length,
}

const NORMALIZERS: [(&str, Normalizer); 2] = [("distance", Normalizer::Distance), ("length", Normalizer::Length)];

impl Method for Fdbd {
    const CARD: &'static Card = &Card {
        name: "fdbd",
        about: "distance to the decision boundaries, relative to the distance from the mean",
        formula: "sum_c |f_c - f_y| / |w_c - w_y| / |h - mu| over classes with w_c other than w_y, mu the mean activation; \
                  0 at h = mu",
        paper: "Liu and Qin, ICML, equation 7",
        year: 2024,
        cost: "C an input; a row [C] for each class that is predicted is kept",
        exports: true,
        example: "fdbd",
        parameters: &[Parameter {
            name: "normalizer",
            about: "what distances to boundaries are divided by: the distance from the mean, or the length of the feature",
            kind: Kind::Choice(&["distance", "length"]),
            otherwise: Otherwise::Default(Value::Choice("distance")),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let word = given.choice("normalizer");
        let meant = NORMALIZERS.iter().find(|(known, _)| *known == word);
        Ok(Self { normalizer: meant.map_or(Normalizer::Distance, |(_, meant)| *meant) })
    }

    fn arguments(&self) -> Arguments {
        let word = NORMALIZERS.iter().find(|(_, known)| *known == self.normalizer).map_or("", |(word, _)| word);
        Arguments::new(Self::CARD, [Some(Value::Choice(word))])
    }
}

impl Score for Fdbd {
    fn takes(&self) -> Takes {
        Takes::LOGITS.and(Takes::FEATURES)
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let boundaries = Boundaries::new(on.head())?;
        let centre = match self.normalizer {
            Normalizer::Distance => on.statistics().mean_activation().to_vec(),
            Normalizer::Length => vec![0.0; on.head().units()],
        };
        Ok(Arc::new(Distances { boundaries, centre: centre.into() }))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let centre = state.take::<f64>("centre", &[Some(head.units())])?;
        check_finite("centre", &centre)?;
        Ok(Arc::new(Distances { boundaries: Boundaries::new(head)?, centre }))
    }
}

#[derive(Debug)]
struct Distances {
    boundaries: Boundaries,
    /// What lengths are measured from `[D]`: the mean activation, or the origin.
    centre: Arc<[f64]>,
}

impl Scorer for Distances {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        let inputs = rows.features().zip(rows.logits()).zip(rows.summaries());
        for (score, ((row, logits), summary)) in out.iter_mut().zip(inputs) {
            let own = f64::from(logits[summary.class]);
            let parts = logits.iter().zip(self.boundaries.of(summary.class));
            let to_boundaries: f64 =
                parts.map(|(logit, between)| ratio((f64::from(*logit) - own).abs(), *between)).sum();
            *score = ratio(to_boundaries, distance(row, &self.centre));
        }
    }

    fn save(&self, to: &mut State) {
        to.put("centre", &[self.centre.len()], Arc::clone(&self.centre));
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let classes = self.boundaries.classes();
        let class = graph.reduce(Reduce::ArgMax, of.logits);
        let inverse = graph.pick(class, [classes, classes], self.boundaries.table(f64::recip));
        let own = graph.reduce(Reduce::Max, of.logits);
        let differences = graph.sub(of.logits, own);
        let gaps = graph.unary(Unary::Abs, differences);
        let distances = graph.mul(gaps, inverse);
        let sum = graph.sum(distances);
        let centre = graph.row(self.centre.iter().map(|value| *value as f32));
        let centred = graph.sub(of.features, centre);
        let length = graph.norm(centred);
        Some(graph.ratio(sum, length))
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
        for (text, centred) in [("fdbd", true), ("fdbd(normalizer=length)", false)] {
            assert_scores(text, |given, h| {
                let (f, y) = (given.logits(h), given.class(h));
                let z = if centred { minus(h, &given.mean(|_, _| true)) } else { h.to_vec() };
                let boundary = |c: usize| {
                    let d = minus(&given.weight[c], &given.weight[y]);
                    (f[c] - f[y]).abs() / dot(&d, &d).sqrt()
                };
                (0..f.len()).filter(|c| *c != y).map(boundary).sum::<f64>() / dot(&z, &z).sqrt()
            });
        }
    }

    #[test]
    fn classes_without_a_boundary_are_left_out_or_refused() {
        let statistics = Statistics::from_mean_activation(ndarray::Array1::zeros(2)).unwrap();
        let fit = |weight: Vec<f32>, bias: Vec<f32>| {
            let head = Arc::new(LinearHead::from_rows(weight, bias, 2).unwrap());
            "fdbd".parse::<Spec>().unwrap().fit(&head, &statistics)
        };
        let twice = fit(vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0], vec![0.0; 3]).unwrap();
        let once = fit(vec![1.0, 0.0, 0.0, 1.0], vec![0.0; 2]).unwrap();
        let row = [3.0, 1.0];
        assert_eq!(twice.score_one(&row).unwrap(), once.score_one(&row).unwrap());
        assert_eq!(once.score_one(&[0.0, 0.0]).unwrap(), 0.0, "the mean itself");
        for equal in [fit(vec![1.0; 4], vec![0.0, 1.0]), fit(vec![1.0; 2], vec![0.0])] {
            assert!(equal.unwrap_err().to_string().contains("at least two classes"));
        }
    }
}
