//! Fisher's combination of conformal p-values.

use super::{Ballot, Combination, Method, Vote};
use crate::card::{Arguments, Card};
use crate::graph::{Graph, Unary, Wire};

/// `fisher(energy, knn(50))`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fisher;

impl Method for Fisher {
    const CARD: &'static Card = &Card {
        name: "fisher",
        about: "product of the members' conformal p-values",
        formula: "sum_m w_m log p_m, p_m = (1 + #{reference scores <= score}) / (n + 1)",
        paper: "Fisher; members are dependent, so its own threshold is conformal as well, on other inputs",
        year: 1932,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "fisher(energy, knn(50))",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Combination for Fisher {
    fn combine(&self, votes: &[Vote<'_>]) -> f64 {
        votes.iter().map(|vote| vote.weight * vote.reference.p_value(vote.score).ln()).sum()
    }

    fn express(&self, graph: &mut Graph, members: &[Ballot<'_>]) -> Option<Wire> {
        let votes: Vec<Wire> = members
            .iter()
            .map(|member| {
                let p_value = graph.p_value(member.score, member.reference.scores());
                let log = graph.unary(Unary::Log, p_value);
                graph.scale(log, member.weight)
            })
            .collect();
        votes.into_iter().reduce(|sum, vote| graph.add(sum, vote))
    }
}
