//! What a fit can rest on beyond the mean activation.

use std::collections::BTreeSet;
use std::fmt;

/// A statistic that a method can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// The f32 mean that `numpy.mean(axis=0)` makes of f32 features.
    SequentialMean,
    /// The distribution of all activations, pooled over units.
    Activations,
    /// The number of rows and the mean activation of each class.
    Classes(By),
    /// The sum of `x x^T` over rows `[D, D]`.
    SecondMoment(Space),
    /// The mean softmax `[C, C]` of the dense head over the rows that it predicts as each class.
    Templates,
    /// A uniform sample of rows.
    Bank,
}

/// By what rows are put into classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// Their label.
    Label,
    /// What the dense head predicts.
    Prediction,
    /// Their label, where the dense head predicts it; other rows do not count.
    Correct,
}

/// Which vectors a second moment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Features `h`.
    Features,
    /// Features on the unit sphere, `h / |h|`.
    Sphere,
}

impl Need {
    /// Every statistic there is.
    pub const ALL: [Self; 9] = [
        Self::SequentialMean,
        Self::Activations,
        Self::Classes(By::Label),
        Self::Classes(By::Prediction),
        Self::Classes(By::Correct),
        Self::SecondMoment(Space::Features),
        Self::SecondMoment(Space::Sphere),
        Self::Templates,
        Self::Bank,
    ];

    /// What it is called in files.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::SequentialMean => "sequential_mean",
            Self::Activations => "activations",
            Self::Classes(By::Label) => "classes_by_label",
            Self::Classes(By::Prediction) => "classes_by_prediction",
            Self::Classes(By::Correct) => "classes_correct",
            Self::SecondMoment(Space::Features) => "second_moment",
            Self::SecondMoment(Space::Sphere) => "second_moment_on_sphere",
            Self::Templates => "templates",
            Self::Bank => "bank",
        }
    }

    /// Whether it takes the class of each row.
    pub fn takes_labels(self) -> bool {
        matches!(self, Self::Classes(By::Label | By::Correct))
    }

    /// Whether it takes what the dense head makes of each row.
    pub fn takes_head(self) -> bool {
        matches!(self, Self::Classes(By::Prediction | By::Correct) | Self::Templates)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequentialMean => "the f32 mean activation",
            Self::Activations => "the distribution of training activations",
            Self::Classes(By::Label) => "the mean activation of each class",
            Self::Classes(By::Prediction) => "the mean activation of each predicted class",
            Self::Classes(By::Correct) => "the mean activation of the correctly predicted rows of each class",
            Self::SecondMoment(Space::Features) => "the second moment of training features",
            Self::SecondMoment(Space::Sphere) => "the second moment of normalised training features",
            Self::Templates => "the mean softmax of each predicted class",
            Self::Bank => "a bank of training rows",
        })
    }
}

/// A set of [`Need`]s, so that specs share one pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    what: BTreeSet<Need>,
    /// Distinct rows of the bank, at most.
    bank: usize,
}

impl Needs {
    /// These, without a bank.
    pub fn of(what: impl IntoIterator<Item = Need>) -> Self {
        Self { what: what.into_iter().filter(|need| *need != Need::Bank).collect(), bank: 0 }
    }

    /// A bank of at most `rows` distinct rows.
    pub fn bank(rows: usize) -> Self {
        Self { what: [Need::Bank].into(), bank: rows }
    }

    /// What any step asks for that ranks weights or clips activations: it costs little, and other detectors of that kind
    /// can then be fitted without the features.
    pub fn marginals() -> Self {
        Self::of([Need::SequentialMean, Need::Activations])
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.what.extend(other.what);
        self.bank = self.bank.max(other.bank);
        self
    }

    /// What is needed.
    pub fn iter(&self) -> impl Iterator<Item = Need> + '_ {
        self.what.iter().copied()
    }

    /// Distinct rows of the bank, at most; 0 where none is needed.
    pub fn bank_rows(&self) -> usize {
        self.bank
    }
}
