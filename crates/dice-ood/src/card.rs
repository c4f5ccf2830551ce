//! What a method says of itself: its name, what it does, and the parameters it takes.
//!
//! Parser, printer, help, the list of methods and every front end read the [`Card`] and nothing else.

use std::fmt;

/// The description of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Its name in a spec.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its formula; `h` are penultimate features `[D]`, `f` logits `[C]`, `P` their softmax, `y` the predicted class.
    pub formula: &'static str,
    /// Who published it, and where.
    pub paper: &'static str,
    /// When.
    pub year: u16,
    /// What one input costs, and what is kept.
    pub cost: &'static str,
    /// Whether a fitted one says itself as operators, for export.
    pub exports: bool,
    /// A spec that uses it.
    pub example: &'static str,
    /// What it takes, in the order in which it is printed.
    pub parameters: &'static [Parameter],
}

/// A parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name in a spec.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// What stands for it where it is not given.
    pub otherwise: Otherwise,
    /// Whether it is written without its name: `dice(0.9)`.
    pub bare: bool,
}

/// Which values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A part of a whole: at least 0 and below 1.
    Fraction,
    /// The place in a distribution: above 0 and at most 1.
    Quantile,
    /// A number between two others, both included.
    Real {
        /// The smallest.
        least: f64,
        /// The largest.
        most: f64,
    },
    /// A whole number between two others, both included.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// One of some words.
    Choice(&'static [&'static str]),
}

/// What stands for a parameter that is not given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Otherwise {
    /// Nothing can: it must be given.
    Required,
    /// Nothing does: the method does without.
    Absent,
    /// This value, which is not printed back.
    Default(Value),
}

/// The value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Of a fraction, a quantile or a number.
    Real(f64),
    /// Of a whole number.
    Whole(u64),
    /// Of a choice.
    Choice(&'static str),
}

impl Card {
    /// Arguments that a method can be made of: defaults, and for the rest what its kind allows.
    pub(crate) fn example_arguments(&'static self) -> Arguments {
        let value = |parameter: &Parameter| match (parameter.otherwise, parameter.kind) {
            (Otherwise::Default(value), _) => Some(value),
            (_, Kind::Fraction | Kind::Quantile) => Some(Value::Real(0.9)),
            (Otherwise::Absent, _) => None,
            (Otherwise::Required, Kind::Real { least, .. }) => Some(Value::Real(least)),
            (Otherwise::Required, Kind::Whole { least, .. }) => Some(Value::Whole(least)),
            (Otherwise::Required, Kind::Choice(words)) => words.first().map(|word| Value::Choice(word)),
        };
        Arguments::new(self, self.parameters.iter().map(value))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(value) => write!(f, "{value}"),
            Self::Whole(value) => write!(f, "{value}"),
            Self::Choice(value) => f.write_str(value),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction => f.write_str("at least 0 and below 1"),
            Self::Quantile => f.write_str("above 0 and at most 1"),
            Self::Real { least, most } => write!(f, "between {least} and {most}"),
            Self::Whole { least, most: u64::MAX } => write!(f, "a whole number from {least}"),
            Self::Whole { least, most } => write!(f, "a whole number between {least} and {most}"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

impl Kind {
    /// The value that `text` says, or what it should be.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Fraction | Self::Quantile | Self::Real { .. } => self.read_real(text),
            Self::Whole { least, most } => match text.parse::<u64>() {
                Ok(value) if (least..=most).contains(&value) => Ok(Value::Whole(value)),
                _ => Err(self.to_string()),
            },
            Self::Choice(words) => {
                let word = words.iter().find(|word| **word == text);
                word.map(|word| Value::Choice(word)).ok_or_else(|| self.to_string())
            }
        }
    }

    fn read_real(self, text: &str) -> Result<Value, String> {
        let Some(value) = text.parse::<f64>().ok().filter(|value| value.is_finite()) else {
            return Err(format!("a number, {self}"));
        };
        if !self.takes(value) {
            let percent = matches!(self, Self::Fraction | Self::Quantile) && (1.0..100.0).contains(&value);
            let hint = if percent { format!(": for {value} percent write {}", value / 100.0) } else { String::new() };
            return Err(format!("{self}{hint}"));
        }
        // `-0.0` is in range and must not be printed back.
        Ok(Value::Real(value + 0.0))
    }

    fn takes(self, value: f64) -> bool {
        match self {
            Self::Fraction => (0.0..1.0).contains(&value),
            Self::Quantile => value > 0.0 && value <= 1.0,
            Self::Real { least, most } => (least..=most).contains(&value),
            Self::Whole { .. } | Self::Choice(_) => false,
        }
    }
}

/// Checked values for the parameters of a card, in its order; `None` for those that are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Arguments {
    card: &'static Card,
    values: Vec<Option<Value>>,
}

impl Arguments {
    /// The values of a method with `card`, one for each of its parameters, in their order.
    pub fn new(card: &'static Card, values: impl IntoIterator<Item = Option<Value>>) -> Self {
        let values: Vec<Option<Value>> = values.into_iter().collect();
        debug_assert_eq!(values.len(), card.parameters.len(), "{}", card.name);
        Self { card, values }
    }

    /// The value of the parameter `name`, where there is one.
    pub fn get(&self, name: &str) -> Option<Value> {
        let place = self.card.parameters.iter().position(|parameter| parameter.name == name)?;
        self.values.get(place).copied().flatten()
    }

    /// The number given for `name`, where there is one.
    pub fn optional_real(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Some(Value::Real(value)) => Some(value),
            _ => None,
        }
    }

    /// The number given for `name`.
    ///
    /// # Panics
    /// Where the card has no such parameter that is always there.
    pub fn real(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Value::Real(value)) => value,
            other => unreachable!("{}: `{name}` is {other:?}", self.card.name),
        }
    }

    /// The whole number given for `name`.
    ///
    /// # Panics
    /// As [`Arguments::real`].
    pub fn whole(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Whole(value)) => value,
            other => unreachable!("{}: `{name}` is {other:?}", self.card.name),
        }
    }

    /// The word given for `name`.
    ///
    /// # Panics
    /// As [`Arguments::real`].
    pub fn choice(&self, name: &str) -> &'static str {
        match self.get(name) {
            Some(Value::Choice(value)) => value,
            other => unreachable!("{}: `{name}` is {other:?}", self.card.name),
        }
    }

    /// Those that have to be printed: all but absent ones and defaults.
    pub(crate) fn printed(&self) -> impl Iterator<Item = (&'static Parameter, Value)> + '_ {
        self.card.parameters.iter().zip(&self.values).filter_map(|(parameter, value)| {
            value.filter(|value| parameter.otherwise != Otherwise::Default(*value)).map(|value| (parameter, value))
        })
    }
}

/// Parameters that many methods share.
impl Parameter {
    /// The fraction of weights that a sparsity drops.
    pub(crate) const DROPPED: Self = Self {
        name: "p",
        about: "fraction of weights dropped",
        kind: Kind::Fraction,
        otherwise: Otherwise::Required,
        bare: true,
    };
    /// Which mean activation a sparsity ranks by.
    pub(crate) const MEAN: Self = Self {
        name: "mean",
        about: "E[h] of the features as the network makes them, or of the shaped ones that the head will read: of the bank, \
                all training rows or a uniform sample of 50,000 whose mean errs by sd / 224 a unit",
        kind: Kind::Choice(&["raw", "shaped"]),
        otherwise: Otherwise::Default(Value::Choice("raw")),
        bare: false,
    };
    /// By what training rows are put into classes.
    pub(crate) const BY: Self = Self {
        name: "by",
        about: "the class of a training row: its label, or what the head predicts, which needs no labels",
        kind: Kind::Choice(&["label", "prediction"]),
        otherwise: Otherwise::Default(Value::Choice("label")),
        bare: false,
    };
    /// Whether a covariance is shrunk towards a multiple of the identity.
    pub(crate) const SHRINKAGE: Self = Self {
        name: "shrinkage",
        about: "of the covariance: oracle approximating (Chen et al. 2010), or none as in the paper",
        kind: Kind::Choice(&["oas", "none"]),
        otherwise: Otherwise::Default(Value::Choice("oas")),
        bare: false,
    };
    /// Distinct training rows that a method keeps.
    pub(crate) const BANK: Self = Self {
        name: "bank",
        about: "distinct training rows kept at most",
        kind: Kind::Whole { least: 1, most: 1 << 24 },
        otherwise: Otherwise::Default(Value::Whole(50_000)),
        bare: false,
    };
    /// The seed of a random choice.
    pub(crate) const SEED: Self = Self {
        name: "seed",
        about: "seed of the choice",
        kind: Kind::Whole { least: 0, most: u64::MAX },
        otherwise: Otherwise::Default(Value::Whole(0)),
        bare: false,
    };
    /// The temperature that logits are divided by.
    pub(crate) const TEMPERATURE: Self = Self {
        name: "temperature",
        about: "T, which logits are divided by",
        kind: Kind::Real { least: 1e-3, most: 1e3 },
        otherwise: Otherwise::Default(Value::Real(1.0)),
        bare: false,
    };
}
