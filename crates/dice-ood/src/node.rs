//! How the score of a detector is made of the scores of pipelines.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use crate::graph::{Graph, Wire};
use crate::methods::Combiner;
use crate::pipeline::Pipeline;

/// Rows that one thread combines at least.
const FOLDED: usize = 256;

/// How a score is made of the scores of pipelines.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Pipeline(Arc<Pipeline>),
    Combined { rule: Arc<dyn Combiner>, members: Vec<Node> },
}

impl Node {
    /// The pipelines below, in order.
    pub(crate) fn leaves<'a>(&'a self, into: &mut Vec<&'a Arc<Pipeline>>) {
        match self {
            Self::Pipeline(pipeline) => into.push(pipeline),
            Self::Combined { members, .. } => members.iter().for_each(|member| member.leaves(into)),
        }
    }

    /// How many members a combination has; 0 for a pipeline.
    pub(crate) fn members(&self) -> usize {
        match self {
            Self::Pipeline(_) => 0,
            Self::Combined { members, .. } => members.len(),
        }
    }

    /// Scores `[n]`, from those of each pipeline.
    pub(crate) fn fold<'a>(&self, of: &dyn Fn(&Arc<Pipeline>) -> &'a [f64]) -> Cow<'a, [f64]> {
        match self {
            Self::Pipeline(pipeline) => of(pipeline).into(),
            Self::Combined { rule, members } => {
                let scores: Vec<Cow<'_, [f64]>> = members.iter().map(|member| member.fold(of)).collect();
                let rows = scores.first().map_or(0, |scores| scores.len());
                let combined = |votes: &mut Vec<f64>, row: usize| {
                    votes.clear();
                    votes.extend(scores.iter().map(|scores| scores[row]));
                    combine(&**rule, votes)
                };
                (0..rows).into_par_iter().with_min_len(FOLDED).map_init(Vec::new, combined).collect::<Vec<f64>>().into()
            }
        }
    }

    /// The score of one input, from that of each pipeline.
    pub(crate) fn fold_one(&self, of: &dyn Fn(&Arc<Pipeline>) -> f64) -> f64 {
        match self {
            Self::Pipeline(pipeline) => of(pipeline),
            Self::Combined { rule, members } => {
                let scores: Vec<f64> = members.iter().map(|member| member.fold_one(of)).collect();
                combine(&**rule, &scores)
            }
        }
    }

    /// What each member says `[members][n]` of inputs that it scores so, `[members][n]`; none for a pipeline. An input that a member
    /// could not score has NaN.
    pub(crate) fn votes(&self, scores: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let Self::Combined { rule, members } = self else { return Vec::new() };
        let rows = scores.first().map_or(0, Vec::len);
        let mut votes = vec![vec![f64::NAN; rows]; members.len()];
        for row in 0..rows {
            let own: Vec<f64> = scores.iter().map(|scores| scores[row]).collect();
            if !own.contains(&f64::NEG_INFINITY) {
                votes.iter_mut().zip(rule.votes(&own)).for_each(|(votes, vote)| votes[row] = vote);
            }
        }
        votes
    }

    pub(crate) fn express(&self, graph: &mut Graph) -> Option<Wire> {
        match self {
            Self::Pipeline(pipeline) => pipeline.express(graph),
            Self::Combined { rule, members } => {
                let scores = members.iter().map(|member| member.express(graph)).collect::<Option<Vec<Wire>>>()?;
                rule.express(graph, &scores)
            }
        }
    }
}

/// An input that a member could not score is out-of-distribution, whatever the others say.
fn combine(rule: &dyn Combiner, scores: &[f64]) -> f64 {
    match scores.contains(&f64::NEG_INFINITY) {
        true => f64::NEG_INFINITY,
        false => rule.combine(scores),
    }
}
