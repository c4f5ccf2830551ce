//! VRA: activations are clipped from above, and low ones removed.

use std::sync::Arc;

use super::{Method, Shaper, Shaping};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Binary, Graph, Wire};
use crate::state::State;
use crate::statistics::{Need, Needs};
use crate::training::Training;
use crate::views::Workspace;

/// `vra`, `vra(low=0.5, high=0.99)`; as OpenOOD has it, `vra(low=0.1, high=0.9, below=clip)`.
///
/// Quantiles are of all training activations pooled, as in OpenOOD; the authors' code takes them for each unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vra {
    below: Below,
    low: f64,
    high: f64,
}

/// What becomes of activations below the low quantile.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Below {
    /// 0, as in the paper (VRA-P).
    Zero,
    /// The low quantile, as in OpenOOD.
    Clip,
}

const BELOW: [(&str, Below); 2] = [("zero", Below::Zero), ("clip", Below::Clip)];

impl Method for Vra {
    const CARD: &'static Card = &Card {
        name: "vra",
        about: "clip activations from above, and remove (or clip) low ones",
        formula: "0 (or a) where h < a, b where h > b, else h; a, b quantiles of all training activations pooled",
        paper: "Xu et al., NeurIPS, equation 9",
        year: 2023,
        cost: "D an input; two numbers are kept",
        exports: true,
        example: "vra | energy",
        parameters: &[
            Parameter {
                name: "low",
                about: "quantile of the training activations below which they are low",
                kind: Kind::Fraction,
                otherwise: Otherwise::Default(Value::Real(0.6)),
                bare: false,
            },
            Parameter {
                name: "high",
                about: "quantile of the training activations to clip at",
                kind: Kind::Quantile,
                otherwise: Otherwise::Default(Value::Real(0.95)),
                bare: false,
            },
            Parameter {
                name: "below",
                about: "what becomes of low ones: 0 as in the paper, or the low quantile as in OpenOOD with low=0.1, high=0.9",
                kind: Kind::Choice(&["zero", "clip"]),
                otherwise: Otherwise::Default(Value::Choice("zero")),
                bare: false,
            },
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let word = given.choice("below");
        let below = BELOW.iter().find(|(known, _)| *known == word).map_or(Below::Zero, |(_, below)| *below);
        let (low, high) = (given.real("low"), given.real("high"));
        if low < high {
            return Ok(Self { below, low, high });
        }
        Err(format!("`low` is below `high`, where {low} and {high} are given"))
    }

    fn arguments(&self) -> Arguments {
        let word = BELOW.iter().find(|(_, known)| *known == self.below).map_or("", |(word, _)| word);
        Arguments::new(Self::CARD, [Value::Real(self.low), Value::Real(self.high), Value::Choice(word)].map(Some))
    }
}

impl Shaping for Vra {
    fn needs(&self) -> Needs {
        Needs::of([Need::Activations])
    }

    fn fit(&self, on: &Training<'_>) -> Result<Arc<dyn Shaper>> {
        let quantile = |quantile| on.statistics().activation_quantile(quantile);
        let (a, b) = (quantile(self.low)?, quantile(self.high)?);
        let window = Window { below: self.below, low: a as f32, high: b as f32 };
        if window.tells() {
            return Ok(Arc::new(window));
        }
        Err(Error::new(ErrorKind::Argument, format!("{a} and {b}"))
            .argument("quantiles of `vra`")
            .expected("a high activation above the low one, and above 0: otherwise every input becomes the same")
            .fix("so many training activations are equal: raise the high quantile"))
    }

    fn load(&self, state: &mut State, _: usize) -> Result<Arc<dyn Shaper>> {
        let window = state.take::<f32>("window", &[Some(2)])?;
        let window = Window { below: self.below, low: window[0], high: window[1] };
        if window.low.is_finite() && window.high.is_finite() && window.tells() {
            return Ok(Arc::new(window));
        }
        Err(Error::new(ErrorKind::Malformed, format!("{} and {}", window.low, window.high))
            .tensor("window")
            .expected("a low activation and a higher one above 0"))
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    below: Below,
    low: f32,
    high: f32,
}

impl Window {
    /// Whether inputs can differ behind it.
    fn tells(&self) -> bool {
        self.low < self.high && (self.below == Below::Clip || self.high > 0.0)
    }
}

impl Shaper for Window {
    fn shape(&self, row: &mut [f32], _: &mut Workspace) {
        let lowest = match self.below {
            Below::Zero => 0.0,
            Below::Clip => self.low,
        };
        let shaped = |value: f32| if value < self.low { lowest } else { value.min(self.high) };
        row.iter_mut().for_each(|value| *value = shaped(*value));
    }

    fn save(&self, to: &mut State) {
        to.put("window", &[2], vec![self.low, self.high]);
    }

    fn express(&self, graph: &mut Graph, features: Wire) -> Option<Wire> {
        let (low, high) = (graph.scalar(f64::from(self.low)), graph.scalar(f64::from(self.high)));
        let clipped = graph.binary(Binary::Min, features, high);
        Some(match self.below {
            Below::Clip => graph.binary(Binary::Max, clipped, low),
            Below::Zero => {
                let gone = graph.binary(Binary::Greater, low, features);
                let one = graph.scalar(1.0);
                let kept = graph.sub(one, gone);
                graph.mul(clipped, kept)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::problem;
    use super::*;
    use crate::statistics::Statistics;

    #[test]
    fn both_forms_are_the_published_ones() {
        for (below, expected) in [(Below::Zero, [0.0, 0.5, 1.0, 1.5]), (Below::Clip, [0.5, 0.5, 1.0, 1.5])] {
            let mut row = [0.25, 0.5, 1.0, 2.0];
            Window { below, low: 0.5, high: 1.5 }.shape(&mut row, &mut Workspace::default());
            assert_eq!(row, expected);
        }
    }

    #[test]
    fn the_window_is_between_quantiles_of_all_activations() {
        let problem = problem(0);
        let statistics = problem.statistics(&Needs::of([Need::Activations]));
        let training = Training::new(&problem.head, &statistics).unwrap();
        let mut sorted: Vec<f32> = problem.features.iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        for (low, high) in [(0.6, 0.95), (0.1, 0.9)] {
            let vra = Vra { below: Below::Clip, low, high };
            let mut state = State::default();
            vra.fit(&training).unwrap().save(&mut state);
            let window = state.take::<f32>("window", &[Some(2)]).unwrap();
            for (found, quantile) in window.iter().zip([low, high]) {
                let place = quantile * (sorted.len() - 1) as f64;
                let (least, most) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
                let slack = most / 4096.0;
                assert!((least - slack..=most + slack).contains(found), "{quantile}: {found} for {least} to {most}");
            }
        }
    }

    #[test]
    fn features_that_leave_nothing_between_are_refused() {
        let zeros = ndarray::Array2::zeros((4, 12));
        let mut statistics = Statistics::new(12, &Needs::of([Need::Activations]));
        statistics.update(zeros.view()).unwrap();
        let problem = problem(0);
        let vra = Vra { below: Below::Zero, low: 0.6, high: 0.95 };
        let error = vra.fit(&Training::new(&problem.head, &statistics).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument, "{error}");
    }
}
