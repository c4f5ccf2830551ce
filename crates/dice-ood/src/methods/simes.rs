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
        self.votes(scores).into_iter().fold(f64::INFINITY, f64::min)
    }

    fn votes(&self, scores: &[f64]) -> Vec<f64> {
        let parts = self.references.iter().zip(scores).map(|(reference, score)| reference.p_value(*score));
        let p_values: Vec<f64> = parts.collect();
        let mut order: Vec<usize> = (0..p_values.len()).collect();
        order.sort_unstable_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
        let (mut votes, mut reached) = (vec![0.0; p_values.len()], 0.0);
        // Members of one p-value reach the same share: that of the last of them.
        for equal in order.chunk_by(|a, b| p_values[*a] == p_values[*b]) {
            reached += equal.iter().map(|place| self.weights[*place]).sum::<f64>();
            equal.iter().for_each(|place| votes[*place] = p_values[*place] * self.total / reached);
        }
        votes
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
