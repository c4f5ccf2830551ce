//! CADRef: the errors of CARef, those that raise the predicted logit weighed by how certain the logits are.

use std::sync::Arc;

use super::caref::{from_mean_of, size, size_of};
use super::energy::energy_of;
use super::{Method, Score, Scorer, Views};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Op, Reduce, Wire};
use crate::head::LinearHead;
use crate::state::{State, check_finite};
use crate::statistics::{By, Need, Needs, Space};
use crate::training::Training;
use crate::views::{LogitSummary, Rows, Takes, Workspace};

/// `cadref`, `cadref(base=max-logit)`.
///
/// The published code divides by S as it is, so that an input of negative energy seems the more in-distribution the larger its
/// error. Here S counts as at least a thousandth of its mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cadref {
    base: Base,
}

/// The score of logits, S.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Base {
    Energy,
    MaxLogit,
    Msp,
}

const BASES: [(&str, Base); 3] = [("energy", Base::Energy), ("max-logit", Base::MaxLogit), ("msp", Base::Msp)];
/// Training rows that the mean of S rests on, at most.
const ROWS: usize = 50_000;
/// The least S, as a part of its mean.
const FLOOR: f64 = 1e-3;

impl Method for Cadref {
    const CARD: &'static Card = &Card {
        name: "cadref",
        about: "relative distance from the class mean, the part that raises the logit weighed by how certain the logits are",
        formula: "-(E_p / S + E_n / E[S]); E_p, E_n = sum max(0, +-(h - m_y) sign w_y) / sum |h|, m_c the mean of training \
                  features predicted as c; S = logsumexp f (or max f, max P), at least E[S] / 1000",
        paper: "Ling et al., CVPR, section 3",
        year: 2025,
        cost: "D an input; the means [C, D] are kept",
        exports: true,
        example: "cadref",
        parameters: &[Parameter {
            name: "base",
            about: "the score of logits that errors are divided by",
            kind: Kind::Choice(&["energy", "max-logit", "msp"]),
            otherwise: Otherwise::Default(Value::Choice("energy")),
            bare: false,
        }],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let word = given.choice("base");
        Ok(Self { base: BASES.iter().find(|(known, _)| *known == word).map_or(Base::Energy, |(_, base)| *base) })
    }

    fn arguments(&self) -> Arguments {
        let word = BASES.iter().find(|(_, known)| *known == self.base).map_or("", |(word, _)| word);
        Arguments::new(Self::CARD, [Some(Value::Choice(word))])
    }
}

impl Score for Cadref {
    fn takes(&self) -> Takes {
        Takes::summary(1.0).and(Takes::FEATURES)
    }

    fn needs(&self) -> Needs {
        Needs::of([Need::Classes(By::Prediction, Space::Features)]).and(Needs::bank(ROWS))
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Scorer>> {
        let means = on.mean_of_each_class(By::Prediction)?;
        let usual = self.base.mean(on)?;
        Ok(Arc::new(Errors::new(self.base, means.iter().copied().collect(), usual, on.head())))
    }

    fn load(&self, state: &mut State, head: &LinearHead) -> Result<Arc<dyn Scorer>> {
        let means = state.take::<f64>("means", &[Some(head.classes()), Some(head.units())])?;
        let usual = state.take::<f64>("usual", &[Some(1)])?[0];
        check_finite("means", &means)?;
        if usual.is_finite() && usual > 0.0 {
            return Ok(Arc::new(Errors::new(self.base, means, usual, head)));
        }
        Err(Error::new(ErrorKind::Malformed, usual.to_string()).tensor("usual").expected("a mean score above 0"))
    }
}

impl Base {
    fn of(self, summary: &LogitSummary) -> f64 {
        match self {
            Self::Energy => summary.energy(1.0),
            Self::MaxLogit => summary.max,
            Self::Msp => 1.0 / (1.0 + summary.rest),
        }
    }

    /// Its mean over training rows, which must be above 0.
    fn mean(self, on: &Training<'_>) -> Result<f64> {
        let bank = on.statistics().bank()?.first(ROWS);
        let (mut sum, mut rows) = (0.0, 0.0);
        on.visit_bank(&bank, |_, counts, logits| {
            for (logits, count) in logits.chunks_exact(on.head().classes()).zip(counts) {
                sum += *count as f64 * self.of(&summary(logits));
                rows += *count as f64;
            }
        })?;
        let mean = sum / rows;
        if mean.is_finite() && mean > 0.0 {
            return Ok(mean);
        }
        Err(Error::new(ErrorKind::Argument, format!("{mean} on the training features"))
            .argument("mean score of the logits")
            .expected("a number above 0, to divide by")
            .fix("take `cadref(base=msp)`, which is above 0 for any logits"))
    }

    fn express(self, graph: &mut Graph, logits: Wire) -> Wire {
        match self {
            Self::Energy => energy_of(graph, logits, 1.0),
            Self::MaxLogit => graph.reduce(Reduce::Max, logits),
            Self::Msp => {
                let softmax = graph.push(Op::Softmax(logits));
                graph.reduce(Reduce::Max, softmax)
            }
        }
    }
}

/// The summary of logits at temperature 1.
fn summary(logits: &[f32]) -> LogitSummary {
    let (class, max) = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (class, logit)| if *logit > best.1 { (class, *logit) } else { best });
    let exp = |logit: &f32| (f64::from(*logit) - f64::from(max)).exp();
    let rest = logits.iter().enumerate().filter(|(place, _)| *place != class).map(|(_, logit)| exp(logit)).sum();
    LogitSummary { max: f64::from(max), class, rest }
}

#[derive(Debug)]
struct Errors {
    base: Base,
    /// `[C, D]`.
    means: Arc<[f64]>,
    /// The mean of S over training rows.
    usual: f64,
    head: LinearHead,
}

impl Errors {
    fn new(base: Base, means: Arc<[f64]>, usual: f64, head: &LinearHead) -> Self {
        Self { base, means, usual, head: head.clone() }
    }
}

/// -1, 0 or 1.
fn sign(weight: f32) -> f32 {
    if weight == 0.0 { 0.0 } else { weight.signum() }
}

impl Scorer for Errors {
    fn score(&self, rows: &Rows<'_>, _: &mut Workspace, out: &mut [f64]) {
        let (weight, units) = (self.head.weight(), self.head.units());
        for ((score, row), summary) in out.iter_mut().zip(rows.features()).zip(rows.summaries()) {
            let mean = &self.means[summary.class * units..][..units];
            let (mut raising, mut lowering) = (0.0, 0.0);
            for ((value, mean), weight) in row.iter().zip(mean).zip(weight.row(summary.class)) {
                let error = (f64::from(*value) - mean) * f64::from(sign(*weight));
                raising += error.max(0.0);
                lowering += (-error).max(0.0);
            }
            let certain = self.base.of(&summary).max(FLOOR * self.usual);
            *score = -(raising / certain + lowering / self.usual) / size(row);
        }
    }

    fn save(&self, to: &mut State) {
        to.put("means", &[self.head.classes(), self.head.units()], Arc::clone(&self.means));
        to.put("usual", &[1], vec![self.usual]);
    }

    fn express(&self, graph: &mut Graph, of: &Views) -> Option<Wire> {
        let (classes, units) = (self.head.classes(), self.head.units());
        let from_mean = from_mean_of(graph, of, &self.means, units);
        let class = graph.reduce(Reduce::ArgMax, of.logits);
        let signs: Vec<f32> = self.head.weight().iter().map(|weight| sign(*weight)).collect();
        let sign = graph.pick(class, [classes, units], signs);
        let errors = graph.mul(from_mean, sign);
        let none = graph.scalar(0.0);
        let (up, down) = (graph.binary(Binary::Max, errors, none), graph.binary(Binary::Min, errors, none));
        let (raising, lowering) = (graph.sum(up), graph.sum(down));
        let (score, floor) = (self.base.express(graph, of.logits), graph.scalar(FLOOR * self.usual));
        let certain = graph.binary(Binary::Max, score, floor);
        let first = graph.div(raising, certain);
        let second = graph.scale(lowering, 1.0 / self.usual);
        let (both, size) = (graph.sub(second, first), size_of(graph, of.features));
        Some(graph.div(both, size))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Naive, assert_scores, minus};

    fn score(given: &Naive, h: &[f64], base: &dyn Fn(&[f64]) -> f64) -> f64 {
        let y = given.class(h);
        let from_mean = minus(h, &given.mean(|row, _| given.class(row) == y));
        let size: f64 = h.iter().map(|value| value.abs()).sum();
        let part = |sign: f64| {
            let errors = from_mean.iter().zip(&given.weight[y]).map(|(error, w)| (sign * error * w.signum()).max(0.0));
            errors.sum::<f64>() / size
        };
        let usual = given.rows.iter().map(|row| base(row)).sum::<f64>() / given.rows.len() as f64;
        -(part(1.0) / base(h) + part(-1.0) / usual)
    }

    #[test]
    fn it_is_the_published_formula() {
        assert_scores("cadref", |given, h| score(given, h, &|row| given.energy(row)));
        let most = |f: Vec<f64>| f.into_iter().fold(f64::NEG_INFINITY, f64::max);
        assert_scores("cadref(base=max-logit)", |given, h| score(given, h, &|row| most(given.logits(row))));
        assert_scores("cadref(base=msp)", |given, h| {
            score(given, h, &|row| (most(given.logits(row)) - given.energy(row)).exp())
        });
    }
}
