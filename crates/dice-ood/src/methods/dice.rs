//! DICE: the weights that contribute most on in-distribution data.

use ndarray::{Array1, Array2};

use super::{Method, Sparsity};
use crate::card::{Arguments, Card, Kind, Otherwise, Parameter, Value};
use crate::error::Result;
use crate::head::LinearHead;
use crate::mask::{Mask, contribution, largest, numpy_quantile_f32, numpy_quantile_f64, torch_quantile};
use crate::statistics::{Need, Needs, Statistics};
use crate::training::{SHAPED_ROWS, Training};

/// `dice(0.9)`, `dice(0.9, preset=openood)`, `dice(0.9, contribution=absolute, scope=per-class)`,
/// `ras | dice(0.9, mean=shaped)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice {
    p: f64,
    preset: Preset,
    ranked: Ranked,
    scope: Scope,
    mean: Mean,
}

/// Whose convention decides which weights are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Preset {
    /// The paper: exactly the top k contributions in f64, less those tied at the cut; p = 0 keeps all.
    Paper,
    /// The authors' code: contributions above the f64 percentile (linear interpolation, strict `>`).
    Official,
    /// OpenOOD v1.5: the same in f32, from numpy's f32 mean of the training features.
    OpenOod,
    /// pytorch-ood: contributions above torch's f32 quantile. Its own scores have the opposite sign.
    PytorchOod,
}

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ranked {
    /// `W * mean`, as in the paper.
    Signed,
    /// `|W * mean|`.
    Absolute,
    /// `W * |mean|`, for features that can be negative.
    AbsoluteMean,
}

/// Which mean activation weights or units are ranked by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mean {
    /// That of the features as the network makes them, as in the authors' code, which clips after it has taken the mean.
    Raw,
    /// That of the shaped features.
    Shaped,
}

impl Mean {
    pub(super) fn of_word(word: &str) -> Self {
        if word == Self::Shaped.word() { Self::Shaped } else { Self::Raw }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Shaped => "shaped",
        }
    }

    pub(super) fn needs(self) -> Needs {
        match self {
            Self::Raw => Needs::default(),
            Self::Shaped => Needs::bank(SHAPED_ROWS),
        }
    }

    /// The mean `[D]`.
    pub(super) fn of(self, on: &Training<'_>) -> Result<Array1<f64>> {
        match self {
            Self::Raw => Ok(on.statistics().mean_activation()),
            Self::Shaped => on.shaped_mean_activation().map(|mean| mean.iter().copied().collect()),
        }
    }
}

/// Over what weights are ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scope {
    /// The whole head, as in the paper.
    Global,
    /// Each class by itself: every class keeps the same number of weights.
    PerClass,
}

const PRESETS: [(&str, Preset); 4] = [
    ("paper", Preset::Paper),
    ("official", Preset::Official),
    ("openood", Preset::OpenOod),
    ("pytorch-ood", Preset::PytorchOod),
];
const RANKED: [(&str, Ranked); 3] =
    [("signed", Ranked::Signed), ("absolute", Ranked::Absolute), ("absolute-mean", Ranked::AbsoluteMean)];
const SCOPES: [(&str, Scope); 2] = [("global", Scope::Global), ("per-class", Scope::PerClass)];

impl Method for Dice {
    const CARD: &'static Card = &Card {
        name: "dice",
        about: "keep the weights that contribute most on in-distribution data",
        formula: "f = (M * W) h + b, M keeps the largest W * E[h]",
        paper: "Sun and Li, ECCV, equations 4 to 6",
        year: 2022,
        cost: "the kept weights an input",
        exports: true,
        example: "dice(0.9) | energy",
        parameters: &[
            Parameter::DROPPED,
            Parameter {
                name: "preset",
                about: "whose convention: the paper's exact top (1 - p) C D, or a peer's percentile and arithmetic",
                kind: Kind::Choice(&["paper", "official", "openood", "pytorch-ood"]),
                otherwise: Otherwise::Default(Value::Choice("paper")),
                bare: false,
            },
            Parameter {
                name: "contribution",
                about: "what is ranked: W E[h], its magnitude, or W |E[h]|",
                kind: Kind::Choice(&["signed", "absolute", "absolute-mean"]),
                otherwise: Otherwise::Default(Value::Choice("signed")),
                bare: false,
            },
            Parameter {
                name: "scope",
                about: "ranked over the whole head, or within each class",
                kind: Kind::Choice(&["global", "per-class"]),
                otherwise: Otherwise::Default(Value::Choice("global")),
                bare: false,
            },
            Parameter::MEAN,
        ],
    };

    fn from_arguments(given: &Arguments) -> std::result::Result<Self, String> {
        let dice = Self {
            p: given.real("p"),
            preset: meant(&PRESETS, given.choice("preset"), Preset::Paper),
            ranked: meant(&RANKED, given.choice("contribution"), Ranked::Signed),
            scope: meant(&SCOPES, given.choice("scope"), Scope::Global),
            mean: Mean::of_word(given.choice("mean")),
        };
        let of_peers = (Ranked::Signed, Scope::Global, Mean::Raw);
        if dice.preset != Preset::Paper && (dice.ranked, dice.scope, dice.mean) != of_peers {
            return Err("a preset copies a peer, which ranks signed contributions of the raw mean globally: drop \
                        `contribution`, `scope` and `mean`"
                .into());
        }
        Ok(dice)
    }

    fn arguments(&self) -> Arguments {
        let words =
            [word(&PRESETS, self.preset), word(&RANKED, self.ranked), word(&SCOPES, self.scope), self.mean.word()];
        Arguments::new(
            Self::CARD,
            std::iter::once(Some(Value::Real(self.p))).chain(words.map(|word| Some(Value::Choice(word)))),
        )
    }
}

/// What a word stands for.
fn meant<T: Copy>(words: &[(&str, T)], word: &str, otherwise: T) -> T {
    words.iter().find(|(known, _)| *known == word).map_or(otherwise, |(_, meant)| *meant)
}

/// The word for it.
fn word<T: PartialEq>(words: &[(&'static str, T)], meant: T) -> &'static str {
    words.iter().find(|(_, known)| *known == meant).map_or("", |(word, _)| word)
}

impl Sparsity for Dice {
    fn needs(&self) -> Needs {
        match self.preset {
            Preset::OpenOod => Needs::of([Need::SequentialMean]),
            Preset::Paper | Preset::Official | Preset::PytorchOod => self.mean.needs(),
        }
    }

    fn takes_shaped_mean(&self) -> bool {
        self.mean == Mean::Shaped
    }

    fn mask(&self, on: &Training<'_>) -> Result<Mask> {
        let (head, statistics) = (on.head(), on.statistics());
        Mask::of_method(match self.preset {
            Preset::Paper => self.of_paper(head, &self.mean.of(on)?),
            Preset::Official => {
                let values = contribution(head, statistics.mean_activation().view());
                let threshold = numpy_quantile_f64(values.as_slice().unwrap_or_default(), self.p);
                values.mapv(|value| value > threshold)
            }
            Preset::OpenOod => {
                let values = &head.weight() * &sequential_mean(statistics)?;
                let threshold = numpy_quantile_f32(values.as_slice().unwrap_or_default(), self.p);
                values.mapv(|value| value > threshold)
            }
            Preset::PytorchOod => {
                let values = &head.weight() * &statistics.mean_activation().mapv(|mean| mean as f32);
                let threshold = torch_quantile(values.as_slice().unwrap_or_default(), self.p);
                values.mapv(|value| value > threshold)
            }
        })
    }

    fn level(&self) -> Option<f64> {
        Some(self.p)
    }
}

impl Dice {
    fn of_paper(&self, head: &LinearHead, mean: &Array1<f64>) -> Array2<bool> {
        let values = match self.ranked {
            Ranked::Signed => contribution(head, mean.view()),
            Ranked::Absolute => contribution(head, mean.view()).mapv(f64::abs),
            Ranked::AbsoluteMean => contribution(head, mean.mapv(f64::abs).view()),
        };
        let values_of = values.as_slice().unwrap_or_default();
        let kept: Vec<bool> = match self.scope {
            Scope::Global => largest(values_of, self.p),
            Scope::PerClass => values_of.chunks(head.units()).flat_map(|class| largest(class, self.p)).collect(),
        };
        Array2::from_shape_fn(values.dim(), |(class, unit)| kept[class * head.units() + unit])
    }
}

/// numpy's f32 mean; of a published mean, which is all that OpenOOD would be given, its f32 values.
fn sequential_mean(statistics: &Statistics) -> Result<Array1<f32>> {
    match statistics.sequential_mean_activation() {
        Err(_) if statistics.is_published() => Ok(statistics.mean_activation().mapv(|mean| mean as f32)),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Naive, assert_scores};

    /// The energy of `shaped`, one of `rows` shaped, through the weights that contribute most to the mean of all of these.
    fn energy(given: &Naive, rows: &[Vec<f64>], shaped: &[f64], p: f64) -> f64 {
        let mean = |unit: usize| rows.iter().map(|row| row[unit]).sum::<f64>() / rows.len() as f64;
        let of_class = |w: &Vec<f64>| -> Vec<f64> { w.iter().enumerate().map(|(unit, w)| w * mean(unit)).collect() };
        let contributions: Vec<Vec<f64>> = given.weight.iter().map(of_class).collect();
        let mut sorted = contributions.concat();
        sorted.sort_by(f64::total_cmp);
        let cut = sorted[(p * sorted.len() as f64).round() as usize - 1];
        let term = |class: usize, unit: usize| match contributions[class][unit] > cut {
            true => given.weight[class][unit] * shaped[unit],
            false => 0.0,
        };
        let logit = |class: usize| given.bias[class] + (0..shaped.len()).map(|unit| term(class, unit)).sum::<f64>();
        (0..given.bias.len()).map(|class| logit(class).exp()).sum::<f64>().ln()
    }

    #[test]
    fn a_mask_rests_on_the_mean_of_shaped_rows_where_it_is_said() {
        let clipped = |row: &Vec<f64>| -> Vec<f64> { row.iter().map(|value| value.min(0.5)).collect() };
        assert_scores("react(c=0.5) | dice(0.75, mean=shaped) | energy", |given, h| {
            let rows: Vec<Vec<f64>> = given.rows.iter().map(clipped).collect();
            energy(given, &rows, &clipped(&h.to_vec()), 0.75)
        });
        let sorted = |row: &[f64]| {
            let mut sorted = row.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        assert_scores("ras | dice(0.75, mean=shaped) | energy", |given, h| {
            let all: Vec<Vec<f64>> = given.rows.iter().map(|row| sorted(row)).collect();
            let profile: Vec<f64> =
                (0..h.len()).map(|place| all.iter().map(|row| row[place]).sum::<f64>() / all.len() as f64).collect();
            let shape = |row: &[f64]| -> Vec<f64> {
                let before =
                    |unit: usize| (0..row.len()).filter(|other| (row[*other], *other) < (row[unit], unit)).count();
                (0..row.len()).map(|unit| profile[before(unit)]).collect()
            };
            let rows: Vec<Vec<f64>> = given.rows.iter().map(|row| shape(row)).collect();
            energy(given, &rows, &shape(h), 0.75)
        });
    }
}
