//! Simes' combination: the smallest of the ordered p-values, each against its share of the members.

use std::sync::Arc;

use super::{Combination, Combiner, Member, Method};
use crate::calibration::Calibration;
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::graph::{Binary, Graph, Wire};

/// `simes(energy, knn(50))`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Simes;

impl Method for Simes {
    const CARD: &'static Card = &Card {
        name: "simes",
        about: "smallest p-value, over the share of members whose p-value is no larger",
        formula: "min_m p_m sum_k w_k / sum_{k: p_k <= p_m} w_k, p_m = (1 + #{reference scores <= score}) / (n + 1)",
        paper: "Simes, Biometrika; weights as in Benjamini and Hochberg (1997); its own threshold is conformal as well, on \
                other inputs",
        year: 1986,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "simes(energy, knn(50))",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Combination for Simes {
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>> {
        Ok(Arc::new(Smallest {
            references: members.iter().map(|member| Arc::clone(member.reference)).collect(),
            weights: members.iter().map(|member| member.weight).collect(),
            total: members.iter().map(|member| member.weight).sum(),
        }))
    }
}

#[derive(Debug)]
struct Smallest {
    references: Vec<Arc<Calibration>>,
    weights: Vec<f64>,
    total: f64,
}

impl Combiner for Smallest {
    fn combine(&self, scores: &[f64]) -> f64 {
        let mut p_values: Vec<(f64, f64)> = self
            .references
            .iter()
            .zip(scores)
            .map(|(reference, score)| reference.p_value(*score))
            .zip(self.weights.iter().copied())
            .collect();
        p_values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut reached = 0.0;
        // Of equal p-values the last reaches most, and is the smallest quotient.
        let quotients = p_values.iter().map(|(p_value, weight)| {
            reached += weight;
            p_value * self.total / reached
        });
        quotients.fold(f64::INFINITY, f64::min)
    }

    fn express(&self, graph: &mut Graph, scores: &[Wire]) -> Option<Wire> {
        let parts = self.references.iter().zip(scores);
        let p_values: Vec<Wire> = parts.map(|(reference, score)| graph.p_value(*score, reference.scores())).collect();
        let columns = p_values.len();
        let one_column = |graph: &mut Graph, (place, p_value): (usize, &Wire)| {
            let unit: Vec<f32> = (0..columns).map(|column| f32::from(u8::from(column == place))).collect();
            graph.times(*p_value, [columns, 1], unit)
        };
        let apart: Vec<Wire> = p_values.iter().enumerate().map(|one| one_column(graph, one)).collect();
        let together = apart.into_iter().reduce(|sum, column| graph.add(sum, column))?;
        let weights: Vec<f32> = self.weights.iter().map(|weight| *weight as f32).collect();
        let total = graph.scalar(self.total);
        let quotients: Vec<Wire> = p_values
            .iter()
            .map(|p_value| {
                let beyond = graph.binary(Binary::Greater, together, *p_value);
                let beyond = graph.times(beyond, [1, columns], weights.clone());
                let (reached, scaled) = (graph.sub(total, beyond), graph.scale(*p_value, self.total));
                graph.div(scaled, reached)
            })
            .collect();
        quotients.into_iter().reduce(|least, quotient| graph.binary(Binary::Min, least, quotient))
    }
}
