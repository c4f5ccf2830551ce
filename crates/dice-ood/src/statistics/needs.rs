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
    /// The mean of rows sorted ascending.
    SortedMean,
    /// The number of rows and the mean of each class.
    Classes(By, Space),
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

impl By {
    /// Whether a method rests on labels or on predictions, by the words of its parameter `by`.
    pub(crate) fn of_word(word: &str) -> Self {
        if word == Self::Prediction.word() { Self::Prediction } else { Self::Label }
    }

    /// What it is called in a spec.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Prediction => "prediction",
            Self::Correct => "correct",
        }
    }
}

/// Which vectors a mean or second moment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Features `h`.
    Features,
    /// Features on the unit sphere, `h / |h|`.
    Sphere,
}

impl Need {
    /// Every statistic there is.
    pub const ALL: [Self; 13] = [
        Self::SequentialMean,
        Self::Activations,
        Self::SortedMean,
        Self::Classes(By::Label, Space::Features),
        Self::Classes(By::Prediction, Space::Features),
        Self::Classes(By::Correct, Space::Features),
        Self::Classes(By::Label, Space::Sphere),
        Self::Classes(By::Prediction, Space::Sphere),
        Self::Classes(By::Correct, Space::Sphere),
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
            Self::SortedMean => "sorted_mean",
            Self::Classes(By::Label, Space::Features) => "classes_by_label",
            Self::Classes(By::Prediction, Space::Features) => "classes_by_prediction",
            Self::Classes(By::Correct, Space::Features) => "classes_correct",
            Self::Classes(By::Label, Space::Sphere) => "classes_by_label_on_sphere",
            Self::Classes(By::Prediction, Space::Sphere) => "classes_by_prediction_on_sphere",
            Self::Classes(By::Correct, Space::Sphere) => "classes_correct_on_sphere",
            Self::SecondMoment(Space::Features) => "second_moment",
            Self::SecondMoment(Space::Sphere) => "second_moment_on_sphere",
            Self::Templates => "templates",
            Self::Bank => "bank",
        }
    }

    /// Which vectors it is of.
    pub fn space(self) -> Space {
        match self {
            Self::Classes(_, space) | Self::SecondMoment(space) => space,
            Self::SequentialMean | Self::Activations | Self::SortedMean | Self::Templates | Self::Bank => {
                Space::Features
            }
        }
    }

    /// Whether it takes the class of each row.
    pub fn takes_labels(self) -> bool {
        matches!(self, Self::Classes(By::Label | By::Correct, _))
    }

    /// Whether it takes what the dense head makes of each row.
    pub fn takes_head(self) -> bool {
        matches!(self, Self::Classes(By::Prediction | By::Correct, _) | Self::Templates)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequentialMean => "the f32 mean activation",
            Self::Activations => "the distribution of training activations",
            Self::SortedMean => "the mean of sorted training features",
            Self::Classes(By::Label, Space::Features) => "the mean activation of each class",
            Self::Classes(By::Prediction, Space::Features) => "the mean activation of each predicted class",
            Self::Classes(By::Correct, Space::Features) => {
                "the mean activation of the correctly predicted rows of each class"
            }
            Self::Classes(By::Label, Space::Sphere) => "the mean normalised feature of each class",
            Self::Classes(By::Prediction, Space::Sphere) => "the mean normalised feature of each predicted class",
            Self::Classes(By::Correct, Space::Sphere) => {
                "the mean normalised feature of the correctly predicted rows of each class"
            }
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
    /// Whether the rows of the bank must have labels.
    labels: bool,
}

impl Needs {
    /// These, without a bank.
    pub fn of(what: impl IntoIterator<Item = Need>) -> Self {
        Self { what: what.into_iter().filter(|need| *need != Need::Bank).collect(), ..Self::default() }
    }

    /// A bank of at most `rows` distinct rows.
    pub fn bank(rows: usize) -> Self {
        Self { what: [Need::Bank].into(), bank: rows, labels: false }
    }

    /// A bank of at most `rows` distinct rows, each with its class.
    pub fn labelled_bank(rows: usize) -> Self {
        Self { labels: true, ..Self::bank(rows) }
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
        self.labels |= other.labels;
        self
    }

    /// What is needed.
    pub fn iter(&self) -> impl Iterator<Item = Need> + '_ {
        self.what.iter().copied()
    }

    /// Whether the rows of the bank must have labels.
    pub(super) fn bank_takes_labels(&self) -> bool {
        self.labels
    }

    /// Whether any of it takes the class of each row.
    pub fn takes_labels(&self) -> bool {
        self.labels || self.iter().any(Need::takes_labels)
    }

    /// Distinct rows of the bank, at most; 0 where none is needed.
    pub fn bank_rows(&self) -> usize {
        self.bank
    }
}
