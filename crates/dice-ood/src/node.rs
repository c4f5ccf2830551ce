//! How the score of a detector is made of the scores of pipelines.

use std::sync::Arc;

use crate::calibration::Calibration;
use crate::graph::{Graph, Wire};
use crate::methods::{Ballot, Combination, Vote};
use crate::pipeline::Pipeline;

/// How a score is made of the scores of pipelines.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Pipeline(Arc<Pipeline>),
    Combined { rule: Arc<dyn Combination>, members: Vec<Member> },
}

/// A member of a combination, and what it makes of the reference inputs.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) reference: Arc<Calibration>,
    pub(crate) weight: f64,
}

impl Member {
    fn vote(&self, score: f64) -> Vote<'_> {
        Vote { score, reference: &self.reference, weight: self.weight }
    }

    fn ballot(&self, score: Wire) -> Ballot<'_> {
        Ballot { score, reference: &self.reference, weight: self.weight }
    }
}

impl Node {
    /// The pipelines below, in order.
    pub(crate) fn leaves<'a>(&'a self, into: &mut Vec<&'a Arc<Pipeline>>) {
        match self {
            Self::Pipeline(pipeline) => into.push(pipeline),
            Self::Combined { members, .. } => members.iter().for_each(|member| member.node.leaves(into)),
        }
    }

    /// Scores `[n]`, from those of each pipeline.
    pub(crate) fn fold(&self, of: &dyn Fn(&Arc<Pipeline>) -> Vec<f64>) -> Vec<f64> {
        match self {
            Self::Pipeline(pipeline) => of(pipeline),
            Self::Combined { rule, members } => {
                let scores: Vec<Vec<f64>> = members.iter().map(|member| member.node.fold(of)).collect();
                let rows = scores.first().map_or(0, Vec::len);
                (0..rows).map(|row| combine(&**rule, members, |member| scores[member][row])).collect()
            }
        }
    }

    /// The score of one input, from that of each pipeline.
    pub(crate) fn fold_one(&self, of: &dyn Fn(&Arc<Pipeline>) -> f64) -> f64 {
        match self {
            Self::Pipeline(pipeline) => of(pipeline),
            Self::Combined { rule, members } => combine(&**rule, members, |member| members[member].node.fold_one(of)),
        }
    }

    pub(crate) fn express(&self, graph: &mut Graph) -> Option<Wire> {
        match self {
            Self::Pipeline(pipeline) => pipeline.express(graph),
            Self::Combined { rule, members } => {
                let scores = members.iter().map(|member| member.node.express(graph)).collect::<Option<Vec<Wire>>>()?;
                let ballots: Vec<Ballot<'_>> =
                    scores.into_iter().zip(members).map(|(score, member)| member.ballot(score)).collect();
                rule.express(graph, &ballots)
            }
        }
    }
}

/// An input that a member could not score is out-of-distribution, whatever the others say.
fn combine(rule: &dyn Combination, members: &[Member], score: impl Fn(usize) -> f64) -> f64 {
    let votes: Vec<Vote<'_>> = members.iter().enumerate().map(|(place, member)| member.vote(score(place))).collect();
    match votes.iter().any(|vote| vote.score == f64::NEG_INFINITY) {
        true => f64::NEG_INFINITY,
        false => rule.combine(&votes),
    }
}
