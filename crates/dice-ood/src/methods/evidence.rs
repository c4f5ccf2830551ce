//! Evidence: Fisher's sum, with an exponential tail below the reference scores, so that it does not saturate.

use std::sync::Arc;

use super::{Combination, Combiner, Member, Method};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Wire};
use crate::votes::RankTable;

/// `evidence(energy, knn(50)*2)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    tail: f64,
}

/// Reference scores that the tail rests on, at least.
const LEAST: usize = 5;

impl Method for Evidence {
    const CARD: &'static Card = &Card {
        name: "evidence",
        about: "product of the members' p-values, with an exponential tail where inputs score below nearly all reference inputs",
        formula: "-sum_m w_m e_m, e_m = -log((1 + #{reference scores <= score}) / (n + 1)) from u on, \
                  -log(j / n) + (u - score) / mean_{i<j}(u - c_i) below; c the ascending reference scores, \
                  j = max(5, floor(tail n)), u = c_j",
        paper: "Fisher; the tail is of the peaks-over-threshold kind (Pickands, 1975); members are dependent, so its own \
                threshold is conformal as well, on other inputs",
        year: 2026,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "evidence(energy, knn(50)*2)",
        parameters: &[Parameter {
            name: "tail",
            about: "part of the reference scores that the tail is fitted to; never fewer than 5 of them",
            kind: Kind::Fraction,
            otherwise: Otherwise::Default(Value::Real(0.05)),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self { tail: given.real("tail") })
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [Some(Value::Real(self.tail))])
    }
}

impl Combination for Evidence {
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>> {
        let tailed = members.iter().map(|member| Tailed::fit(member, self.tail)).collect::<Result<_>>()?;
        Ok(Arc::new(TailedSum(tailed)))
    }
}

/// A member's vote.
#[derive(Debug)]
struct Tailed {
    /// `w log(p)`, and below u that at u.
    body: RankTable,
    /// u.
    start: f64,
    /// `w / mean(u - c)`: what is lost for each unit of score below u.
    slope: f64,
}

impl Tailed {
    fn fit(of: &Member<'_>, tail: f64) -> Result<Self> {
        let (scores, weight) = (of.reference.scores(), of.weight);
        let inputs = scores.len();
        // Rounding must not cost a score: 0.29 of 100 is 28.999999999999996.
        let within = ((tail * inputs as f64 * (1.0 + f64::EPSILON)).floor() as usize).max(LEAST);
        if inputs < within {
            return Err(Error::new(ErrorKind::Calibration, format!("{inputs} reference inputs"))
                .tensor(format!("reference scores of '{}'", of.name))
                .expected(format!("at least {LEAST}, to fit a tail to")));
        }
        let start = scores[within - 1];
        let below = &scores[..within - 1];
        let mean = below.iter().map(|score| start - score).sum::<f64>() / below.len() as f64;
        let slope = weight / mean;
        if !slope.is_finite() {
            return Err(Error::new(ErrorKind::Calibration, format!("{start} for the {within} lowest"))
                .tensor(format!("reference scores of '{}'", of.name))
                .expected("different scores, to fit a tail to")
                .fix("leave this member out, or combine by `fisher`, which has no tail"));
        }
        let body = RankTable::new(of.reference, |rank| {
            let share =
                if rank >= within { (1 + rank) as f64 / (inputs + 1) as f64 } else { within as f64 / inputs as f64 };
            weight * share.ln()
        });
        Ok(Self { body, start, slope })
    }

    fn vote(&self, score: f64) -> f64 {
        self.body.vote(score) + self.slope * (score - self.start).min(0.0)
    }

    fn express(&self, graph: &mut Graph, score: Wire) -> Wire {
        let body = self.body.express(graph, score);
        let (start, zero) = (graph.scalar(self.start), graph.scalar(0.0));
        let above = graph.sub(score, start);
        let below = graph.binary(Binary::Min, above, zero);
        let lost = graph.scale(below, self.slope);
        graph.add(body, lost)
    }
}

#[derive(Debug)]
struct TailedSum(Vec<Tailed>);

impl Combiner for TailedSum {
    fn combine(&self, scores: &[f64]) -> f64 {
        self.0.iter().zip(scores).map(|(member, score)| member.vote(*score)).sum()
    }

    fn votes(&self, scores: &[f64]) -> Vec<f64> {
        self.0.iter().zip(scores).map(|(member, score)| member.vote(*score)).collect()
    }

    fn express(&self, graph: &mut Graph, scores: &[Wire]) -> Option<Wire> {
        let votes: Vec<Wire> = self.0.iter().zip(scores).map(|(member, score)| member.express(graph, *score)).collect();
        votes.into_iter().reduce(|sum, vote| graph.add(sum, vote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;

    fn fit(scores: Vec<f64>, tail: f64, weight: f64) -> Result<Tailed> {
        let reference = Arc::new(Calibration::new(scores).unwrap());
        Tailed::fit(&Member { name: "energy", reference: &reference, weight }, tail)
    }

    #[test]
    fn votes_are_the_definition() {
        // Ascending, with ties; n = 200, so that j = 10.
        let scores: Vec<f64> = (0..200).map(|i| f64::from(i / 2).powi(2) / 50.0 - 3.0).collect();
        let member = fit(scores.iter().rev().copied().collect(), 0.05, 0.7).unwrap();
        let (j, n) = (10, 200.0);
        let u = scores[j - 1];
        let beta = scores[..j - 1].iter().map(|c| u - c).sum::<f64>() / 9.0;
        for score in [-1e6, -20.0, -3.0, u - 1e-9, u, u + 1e-9, 0.0, 10.0, 400.0] {
            let reached = scores.iter().filter(|c| **c <= score).count() as f64;
            let e = if score >= u {
                -((1.0 + reached) / (n + 1.0)).ln()
            } else {
                -(j as f64 / n).ln() + (u - score) / beta
            };
            let found = member.vote(score);
            assert!((found + 0.7 * e).abs() <= 1e-12 * e.abs().max(1.0), "{score}: {found} for {}", -0.7 * e);
        }
    }

    #[test]
    fn votes_rise_with_the_score() {
        let member = fit((0..60).map(|i| f64::from(i * i)).collect(), 0.05, 1.0).unwrap();
        let votes: Vec<f64> = (-300..4000).map(|score| member.vote(f64::from(score))).collect();
        assert!(votes.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(votes[0] < votes[1], "no saturation below");
    }

    #[test]
    fn reference_scores_without_a_tail_are_refused_by_name() {
        let few = fit(vec![1.0, 2.0, 3.0, 4.0], 0.05, 1.0).unwrap_err().to_string();
        assert!(few.contains("'energy'") && few.contains("4 reference inputs"), "{few}");
        let mut equal = vec![0.5; 40];
        equal.extend([0.6; 40]);
        let equal = fit(equal, 0.05, 1.0).unwrap_err().to_string();
        assert!(equal.contains("'energy'") && equal.contains("different scores"), "{equal}");
    }
}
