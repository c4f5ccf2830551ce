//! What members of a combination say of an input, by the rank of its score among the reference scores.

use std::sync::Arc;

use crate::calibration::Calibration;
use crate::graph::{Graph, Matrix, Op, Wire};
use crate::methods::{Combiner, Member};

/// The vote of a member, by how many reference scores an input's score reaches.
#[derive(Debug, Clone)]
pub(crate) struct RankTable {
    reference: Arc<Calibration>,
    /// Of an input that reaches 0 to n reference scores `[n + 1]`.
    votes: Vec<f64>,
}

impl RankTable {
    /// `vote` of an input that reaches so many reference scores, for each number of them.
    pub(crate) fn new(reference: &Arc<Calibration>, vote: impl Fn(usize) -> f64) -> Self {
        Self { reference: Arc::clone(reference), votes: (0..=reference.scores().len()).map(vote).collect() }
    }

    /// The vote on an input of this score.
    pub(crate) fn vote(&self, score: f64) -> f64 {
        self.votes[self.reference.rank(score)]
    }

    /// The vote on inputs of scores `[N, 1]`.
    pub(crate) fn express(&self, graph: &mut Graph, score: Wire) -> Wire {
        let rank = graph.push(Op::CountAtMost(score, self.reference.scores().into()));
        let votes = self.votes.iter().map(|vote| *vote as f32).collect();
        graph.push(Op::Pick(rank, Matrix { shape: [self.votes.len(), 1], values: votes }))
    }
}

/// A combination that adds votes.
#[derive(Debug, Clone)]
pub(crate) struct VoteSum(Vec<RankTable>);

impl VoteSum {
    /// The sum over `members` of `weight(w)` times the `vote` of an input that reaches r of n reference scores, `vote(r, n)`.
    pub(crate) fn new(members: &[Member<'_>], weight: impl Fn(f64) -> f64, vote: impl Fn(f64, f64) -> f64) -> Self {
        let table = |member: &Member<'_>| {
            let (weight, inputs) = (weight(member.weight), member.reference.scores().len() as f64);
            RankTable::new(member.reference, |rank| weight * vote(rank as f64, inputs))
        };
        Self(members.iter().map(table).collect())
    }
}

impl Combiner for VoteSum {
    fn combine(&self, scores: &[f64]) -> f64 {
        self.0.iter().zip(scores).map(|(table, score)| table.vote(*score)).sum()
    }

    fn votes(&self, scores: &[f64]) -> Vec<f64> {
        self.0.iter().zip(scores).map(|(table, score)| table.vote(*score)).collect()
    }

    fn express(&self, graph: &mut Graph, scores: &[Wire]) -> Option<Wire> {
        let votes: Vec<Wire> = self.0.iter().zip(scores).map(|(table, score)| table.express(graph, *score)).collect();
        votes.into_iter().reduce(|sum, vote| graph.add(sum, vote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use crate::spec::Spec;
    use statrs::distribution::{ContinuousCDF, Normal};
    use std::f64::consts::PI;

    const WEIGHTS: [f64; 3] = [1.0, 0.25, 3.0];

    fn fit(rule: &str, references: &[Arc<Calibration>]) -> Arc<dyn Combiner> {
        let Spec::Combined { rule, .. } = format!("{rule}(energy)").parse().unwrap() else { unreachable!("{rule}") };
        let members = references.iter().zip(WEIGHTS);
        let members: Vec<Member<'_>> =
            members.map(|(reference, weight)| Member { name: "energy", reference, weight }).collect();
        rule.fit(&members).unwrap()
    }

    /// Of members that agree often, so that p-values tie.
    fn definition(rule: &str, ranks: &[f64], n: f64) -> f64 {
        let pairs = || ranks.iter().zip(WEIGHTS);
        let total: f64 = WEIGHTS.iter().sum();
        let p = |rank: f64| (1.0 + rank) / (n + 1.0);
        let inner = |rank: f64| (1.0 + rank) / (n + 2.0);
        match rule {
            "fisher" => pairs().map(|(rank, w)| w * p(*rank).ln()).sum(),
            "stouffer" => {
                let length = WEIGHTS.iter().map(|w| w * w).sum::<f64>().sqrt();
                let normal = Normal::standard();
                let sum: f64 = pairs().map(|(rank, w)| w * normal.inverse_cdf(inner(*rank))).sum();
                sum / length
            }
            "cauchy" => -pairs().map(|(rank, w)| w * (PI * (0.5 - inner(*rank))).tan()).sum::<f64>() / total,
            "simes" => {
                let reached = |rank: f64| pairs().filter(|(other, _)| **other <= rank).map(|(_, w)| w).sum::<f64>();
                ranks.iter().map(|rank| p(*rank) * total / reached(*rank)).fold(f64::INFINITY, f64::min)
            }
            other => unreachable!("{other}"),
        }
    }

    #[test]
    fn combinations_are_their_definitions_with_weights_and_ties() {
        let mut random = SplitMix64::new(4);
        let mut scores = |count: usize| -> Vec<f64> { (0..count).map(|_| random.below(30) as f64 / 4.0).collect() };
        let lists: Vec<Vec<f64>> = WEIGHTS.iter().map(|_| scores(50)).collect();
        let references: Vec<Arc<Calibration>> =
            lists.iter().map(|list| Arc::new(Calibration::new(list.clone()).unwrap())).collect();
        for rule in ["fisher", "stouffer", "cauchy", "simes"] {
            let combiner = fit(rule, &references);
            let mut inputs: Vec<Vec<f64>> = (0..200).map(|_| scores(3)).collect();
            inputs.extend([vec![-1.0; 3], vec![100.0; 3]]);
            for input in inputs {
                let rank = |(list, score): (&Vec<f64>, &f64)| list.iter().filter(|c| *c <= score).count() as f64;
                let ranks: Vec<f64> = lists.iter().zip(&input).map(rank).collect();
                let (found, expected) = (combiner.combine(&input), definition(rule, &ranks, 50.0));
                assert!((found - expected).abs() <= 1e-11 * expected.abs().max(1.0), "{rule}: {found} for {expected}");
                let votes = combiner.votes(&input);
                let told = match rule {
                    "simes" => votes.iter().copied().fold(f64::INFINITY, f64::min),
                    _ => votes.iter().sum(),
                };
                assert_eq!((votes.len(), told), (3, found), "{rule}");
            }
        }
    }
}
