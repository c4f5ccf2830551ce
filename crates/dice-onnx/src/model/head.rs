//! The head of a model as it is found, and what overrides the search for it.

use std::fmt;

use dice_ood::LinearHead;

use crate::model::linear::Quantization;
use crate::model::rounding::Rounding;
use crate::model::sign::Nonnegative;
use crate::text::quoted;

/// What overrides the search for a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadOptions {
    /// The head's operator, by its name or the name of its output.
    pub head: Option<String>,
    /// The tensor to take as features: one that the head reads, or that becomes it by reshaping or pooling alone.
    pub features: Option<String>,
}

/// How the features tensor becomes `[N, D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureLayout {
    /// `[N, D]` once all axes but the first are flattened, as `[N, D, 1, 1]` or `[N, D]` itself.
    Rows,
    /// `[D, N]`: to be transposed.
    Columns,
    /// `[N, D, ...]`: to be averaged over all positions behind the second axis.
    ///
    /// `exact` where the head of the averaged features is the model's own averaged logits: nothing but averages stands between.
    Channels {
        /// Whether averaging and the head commute in this model.
        exact: bool,
    },
    /// `[N, ..., D]`: to be averaged over all positions before the last axis; `exact` as above.
    Positions {
        /// Whether averaging and the head commute in this model.
        exact: bool,
    },
    /// `[N, T, D]`: one of the T positions, which the model selects behind its head.
    Selected {
        /// Which one, from 0; -1 is the last.
        position: i64,
    },
    /// `[N, T, D]`: one of the T positions of each input, which the model computes, as the last that is no padding.
    SelectedByInput,
    /// `[N, D1]`, `[N, D2]`, ... of several tensors, whose rows stand one behind the other: D is the sum.
    Joined,
}

impl fmt::Display for FeatureLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Selected { position } => {
                return write!(f, "a sequence [N, T, D], of which position {position} is taken");
            }
            Self::SelectedByInput => "a sequence [N, T, D], of which the position is taken that the model computes",
            Self::Joined => "vectors [N, D1], [N, D2], ..., one behind the other",
            Self::Rows => "[N, D], after flattening axes of one",
            Self::Columns => "[D, N], to be transposed",
            Self::Channels { .. } => "a map [N, D, H, W], to be averaged over its positions",
            Self::Positions { .. } => "a sequence [N, ..., D], to be averaged over its positions",
        })
    }
}

/// The position of a sequence that a model selects from the logits of all; the same selects the features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Of every input this one, from 0, or from -1 backwards.
    Fixed(i64),
    /// Of each input another one.
    Computed(Positions),
}

/// A tensor of positions that a model computes, one for each input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Its name.
    pub(crate) tensor: String,
    /// Whether they count through the positions of all inputs; else each is an input and a position of it.
    pub(crate) flat: bool,
}

/// How features are made of tensors of a model that has no tensor of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Made {
    /// Of a sequence, the position of each input that is computed.
    Selected(Positions),
    /// Of vectors of these tensors and units, one behind the other.
    Joined(Vec<(String, usize)>),
}

/// An operator between the logits and an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// Its type, such as `Softmax`.
    pub operator: String,
    /// Its name, or that of its output where it has none.
    pub node: String,
}

/// The head of a model, what feeds it and what follows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FoundHead {
    /// Weight `[C, D]` and bias `[C]`, dequantised, with scales and shifts that directly follow folded in.
    pub head: LinearHead,
    /// The operator that multiplies, or that adds up several which do, by its name or that of its output.
    pub node: String,
    /// All operators the head is made of, such as `MatMul, Add`.
    pub operator: String,
    /// The tensor that feeds it; where the layout is [`FeatureLayout::Joined`] all that do, with `, ` between their names.
    pub features: String,
    /// How that tensor becomes `[N, D]`.
    pub layout: FeatureLayout,
    /// What makes the features, where the layout is [`FeatureLayout::SelectedByInput`] or [`FeatureLayout::Joined`].
    pub(crate) made: Option<Made>,
    /// How that tensor stores features, where it is one of integers.
    pub quantization: Option<Quantization>,
    /// How the network rounds on the way to that tensor, where it is quantised.
    pub rounding: Option<Rounding>,
    /// The tensor that holds `W h + b`, up to the rounding that the notes name.
    pub logits: String,
    /// What stands between the logits and the output, in order.
    pub followed_by: Vec<Following>,
    /// The output the search started from.
    pub output: String,
    /// Whether features can be negative.
    pub nonnegative: Nonnegative,
    /// What a user should know: rounding, what pooling means, doubts.
    pub notes: Vec<String>,
}

impl FoundHead {
    /// The number of classes, C.
    pub fn classes(&self) -> usize {
        self.head.classes()
    }

    /// The number of features, D.
    pub fn units(&self) -> usize {
        self.head.units()
    }
}

impl fmt::Display for FoundHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Head      {} at {}: {} classes, {} features",
            self.operator,
            quoted(&self.node),
            self.classes(),
            self.units()
        )?;
        match &self.made {
            Some(Made::Joined(parts)) => {
                let names: Vec<String> = parts.iter().map(|(tensor, _)| quoted(tensor)).collect();
                let widths: Vec<String> = parts.iter().map(|(_, units)| units.to_string()).collect();
                writeln!(f, "Features  {}, one behind the other: [N, {}]", names.join(", "), widths.join(" + "))?;
            }
            _ => writeln!(f, "Features  {}, {}", quoted(&self.features), self.layout)?,
        }
        if let Some(stored) = self.quantization {
            writeln!(f, "          stored as integers: (value - {}) * {}", stored.zero_point, stored.scale)?;
        }
        writeln!(f, "          {}", self.nonnegative)?;
        writeln!(
            f,
            "          {}",
            match self.nonnegative {
                Nonnegative::Yes(_) => "As DICE expects: its contributions weigh each unit by its mean activation.",
                _ =>
                    "DICE weighs each unit by its mean activation, which says little where signs cancel: compare with `energy`.",
            }
        )?;
        write!(f, "Logits    {}", quoted(&self.logits))?;
        match self.followed_by.as_slice() {
            [] if self.logits == self.output => writeln!(f, ", which is what the model returns")?,
            [] => writeln!(f, ", then to output {}", quoted(&self.output))?,
            following => {
                let operators: Vec<&str> = following.iter().map(|following| &*following.operator).collect();
                writeln!(f, ", then {} to output {}", operators.join(", "), quoted(&self.output))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "Note      {note}"))
    }
}
