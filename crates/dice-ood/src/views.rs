//! What scores read of inputs, and the memory that they work in.

use crate::kernel::{Scratch, Summary, energies, ln_1p};

/// What a score reads of each input.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Takes {
    pub(crate) temperature: Option<f64>,
    pub(crate) logits: bool,
    features: bool,
}

impl Takes {
    /// The features `[D]` as the network makes them, before any shaping.
    pub const FEATURES: Self = Self { temperature: None, logits: false, features: true };
    /// The logits `[C]`.
    pub const LOGITS: Self = Self { temperature: None, logits: true, features: false };

    /// The largest logit and the sum of the other exponentials at this temperature.
    pub const fn summary(temperature: f64) -> Self {
        Self { temperature: Some(temperature), logits: false, features: false }
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            temperature: match self.temperature {
                Some(temperature) => Some(temperature),
                None => other.temperature,
            },
            logits: self.logits || other.logits,
            features: self.features || other.features,
        }
    }

    /// Whether it sees what is done to features and weights before the logits.
    pub fn reads_logits(self) -> bool {
        self.logits || self.temperature.is_some()
    }
}

/// What the logits of one input come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitSummary {
    /// The largest logit.
    pub max: f64,
    /// Its class, the first of several.
    pub class: usize,
    /// The sum over the other classes of `exp((logit - max) / T)`, to its full relative precision.
    pub rest: f64,
}

impl LogitSummary {
    /// That of `logits` `[C]` at temperature 1.
    pub(crate) fn of(logits: &[f32]) -> Self {
        let first = (0, f32::NEG_INFINITY);
        let larger =
            |best: (usize, f32), (class, logit): (usize, &f32)| if *logit > best.1 { (class, *logit) } else { best };
        let (class, most) = logits.iter().enumerate().fold(first, larger);
        let max = f64::from(most);
        let others = logits.iter().enumerate().filter(|(other, _)| *other != class);
        Self { max, class, rest: others.map(|(_, logit)| (f64::from(*logit) - max).exp()).sum() }
    }

    /// `T log sum exp(f / T)`, where the summary is at temperature T.
    pub fn energy(&self, temperature: f64) -> f64 {
        self.max + temperature * ln_1p(self.rest)
    }

    /// `P` and `1 - P` of each of `logits` `[C]`, `P = softmax(f / T)`, both to their full relative precision: what is left
    /// beside a class that is all but certain is not lost. The summary is of these logits at temperature T.
    pub fn softmax<'a>(&self, logits: &'a [f32], temperature: f64) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        let Self { max, class, rest } = *self;
        let sum = 1.0 + rest;
        logits.iter().enumerate().map(move |(place, logit)| {
            let p = ((f64::from(*logit) - max) / temperature).exp() / sum;
            (p, if place == class { rest / sum } else { 1.0 - p })
        })
    }
}

/// Some inputs, in the views that a score asked for.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// D.
    pub units: usize,
    /// C.
    pub classes: usize,
    pub(crate) features: &'a [f32],
    pub(crate) logits: &'a [f32],
    pub(crate) summaries: &'a [Summary],
}

impl<'a> Rows<'a> {
    /// How many there are, n.
    pub fn len(&self) -> usize {
        self.summaries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.summaries.is_empty()
    }

    /// The features of each input `[D]`, before any shaping.
    pub fn features(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        self.features.chunks_exact(self.units)
    }

    /// The features of all `[n, D]`.
    pub fn all_features(&self) -> &'a [f32] {
        self.features
    }

    /// The logits of each input `[C]`; none unless the score takes them.
    pub fn logits(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        self.logits.chunks_exact(self.classes)
    }

    /// The energy of each input, into `out` `[n]`, where the score takes summaries at this temperature.
    pub fn energies(&self, temperature: f64, out: &mut [f64]) {
        energies(self.summaries, temperature, out);
    }

    /// The summary of each input's logits, at the temperature that the score takes, or 1.
    pub fn summaries(&self) -> impl Iterator<Item = LogitSummary> + use<'a> {
        self.summaries.iter().map(|summary| LogitSummary {
            max: f64::from(summary.max),
            class: summary.argmax as usize,
            // An overflowed logit must not pass for certainty.
            rest: if summary.max.is_finite() { summary.rest } else { f64::NAN },
        })
    }
}

/// Working memory of one thread; grows on first use.
#[derive(Debug, Default)]
pub struct Workspace {
    /// That of matrix products.
    pub scratch: Scratch,
    /// Products `[n, M]`, for a score that makes some.
    pub products: Vec<f32>,
    /// A copy of rows that a score may change.
    pub rows: Vec<f32>,
    /// A row that is sorted.
    pub order: Vec<f32>,
    /// Values of a row with their places, sorted together.
    pub places: Vec<(f32, u32)>,
}
