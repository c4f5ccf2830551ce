//! The one language for a detector: `react(0.9) | dice(0.9) | energy`.
//!
//! ```text
//! spec   := [ shaping "|" ] [ sparsity "|" ] score
//! step   := name [ "(" argument { "," argument } ")" ]
//! ```
//! A bare number is a fraction, a named argument is a value. What does not make sense together does not parse.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A detector before it is fitted: what is done to features, to the head, and how a score is made of the logits.
///
/// ```
/// let spec: dice_ood::Spec = "react(0.9) | dice(0.7) | energy".parse()?;
/// assert_eq!(spec.to_string(), "react(0.9) | dice(0.7) | energy");
/// let mistyped = "dcie(0.9) | energy".parse::<dice_ood::Spec>().unwrap_err();
/// assert!(mistyped.to_string().contains("did you mean `dice`"));
/// # Ok::<(), dice_ood::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// What is done to the features before the head.
    pub shaping: Shaping,
    /// Which weights of the head are kept.
    pub sparsity: Sparsity,
    /// How the logits become a score.
    pub score: Score,
}

/// What is done to the penultimate features before the head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shaping {
    /// Nothing.
    None,
    /// ReAct (Sun, Guo and Li, NeurIPS 2021): `min(h, c)`.
    React(Clip),
}

/// Where ReAct clips.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// At this quantile (0 to 1) of all training activations pooled: `react(0.9)`.
    Quantile(f64),
    /// At this activation: `react(c=1.0)`.
    Value(f64),
}

/// Which weights of the head `[C, D]` are kept. Every `p` is the fraction that is dropped, `0 <= p < 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// All of them.
    Dense,
    /// The largest contributions (DICE): `dice(0.9)`.
    Dice {
        /// Fraction dropped.
        p: f64,
        /// Whose arithmetic.
        preset: Preset,
        /// What is ranked.
        contribution: Contribution,
        /// Ranked over the whole head, or within each class.
        scope: Scope,
    },
    /// Weights at random: `weight-drop(0.9, seed=0)`.
    WeightDrop {
        /// Fraction dropped.
        p: f64,
        /// Seed of the choice.
        seed: u64,
    },
    /// Whole units at random: `unit-drop(0.9, seed=0)`.
    UnitDrop {
        /// Fraction dropped.
        p: f64,
        /// Seed of the choice.
        seed: u64,
    },
    /// The largest weights by magnitude: `weight-prune(0.9)`.
    WeightPrune {
        /// Fraction dropped.
        p: f64,
    },
    /// The units with the largest mean activation: `unit-prune(0.9)`.
    UnitPrune {
        /// Fraction dropped.
        p: f64,
    },
}

/// Whose convention decides which weights DICE keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The paper: exactly the top k contributions in f64, less those tied at the cut; p = 0 keeps all.
    Paper,
    /// The authors' code: contributions above the f64 percentile (linear interpolation, strict `>`).
    Official,
    /// OpenOOD v1.5: the same in f32, from numpy's f32 mean of the training features.
    OpenOod,
    /// pytorch-ood: contributions above torch's f32 quantile. Its own scores have the opposite sign: see
    /// [`Preset::to_peer_score`].
    PytorchOod,
}

impl Preset {
    /// A score of this crate (higher = more in-distribution) as the copied peer prints it.
    ///
    /// pytorch-ood prints outlier scores, the negative energy: its sign is flipped. The others agree with this crate.
    ///
    /// ```
    /// use dice_ood::Preset;
    /// assert_eq!(Preset::PytorchOod.to_peer_score(12.5), -12.5);
    /// assert_eq!(Preset::OpenOod.to_peer_score(12.5), 12.5);
    /// ```
    pub fn to_peer_score(self, score: f64) -> f64 {
        match self {
            Self::PytorchOod => -score,
            Self::Paper | Self::Official | Self::OpenOod => score,
        }
    }
}

/// What DICE ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contribution {
    /// `W * mean`, as in the paper.
    Signed,
    /// `|W * mean|`.
    Absolute,
    /// `W * |mean|`, for features that can be negative.
    AbsoluteMean,
}

/// Over what DICE ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole head, as in the paper.
    Global,
    /// Each class by itself: every class keeps the same number of weights.
    PerClass,
}

/// How logits `f` `[C]` become a score; higher = more in-distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Score {
    /// `T log sum exp(f / T)` (Liu et al., NeurIPS 2020): `energy`, `energy(temperature=2)`.
    Energy {
        /// T.
        temperature: f64,
    },
    /// The largest softmax probability of `f / T` (Hendrycks and Gimpel, ICLR 2017): `msp`.
    Msp {
        /// T.
        temperature: f64,
    },
    /// The largest logit (Hendrycks et al., ICML 2022): `max-logit`.
    MaxLogit,
}

impl Sparsity {
    /// Fraction of weights dropped.
    pub fn p(&self) -> f64 {
        match *self {
            Self::Dense => 0.0,
            Self::Dice { p, .. }
            | Self::WeightDrop { p, .. }
            | Self::UnitDrop { p, .. }
            | Self::WeightPrune { p }
            | Self::UnitPrune { p } => p,
        }
    }
}

impl Score {
    /// T; 1 where the score has none.
    pub fn temperature(&self) -> f64 {
        match *self {
            Self::Energy { temperature } | Self::Msp { temperature } => temperature,
            Self::MaxLogit => 1.0,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shaping {
            Shaping::None => {}
            Shaping::React(Clip::Quantile(quantile)) => write!(f, "react({quantile}) | ")?,
            Shaping::React(Clip::Value(value)) => write!(f, "react(c={value:?}) | ")?,
        }
        match self.sparsity {
            Sparsity::Dense => {}
            Sparsity::Dice { p, preset, contribution, scope } => {
                write!(f, "dice({p}")?;
                match preset {
                    Preset::Paper => {}
                    Preset::Official => f.write_str(", preset=official")?,
                    Preset::OpenOod => f.write_str(", preset=openood")?,
                    Preset::PytorchOod => f.write_str(", preset=pytorch-ood")?,
                }
                match contribution {
                    Contribution::Signed => {}
                    Contribution::Absolute => f.write_str(", contribution=absolute")?,
                    Contribution::AbsoluteMean => f.write_str(", contribution=absolute-mean")?,
                }
                if scope == Scope::PerClass {
                    f.write_str(", scope=per-class")?;
                }
                f.write_str(") | ")?;
            }
            Sparsity::WeightDrop { p, seed } => write!(f, "weight-drop({p}, seed={seed}) | ")?,
            Sparsity::UnitDrop { p, seed } => write!(f, "unit-drop({p}, seed={seed}) | ")?,
            Sparsity::WeightPrune { p } => write!(f, "weight-prune({p}) | ")?,
            Sparsity::UnitPrune { p } => write!(f, "unit-prune({p}) | ")?,
        }
        let (name, temperature) = match self.score {
            Score::Energy { temperature } => ("energy", temperature),
            Score::Msp { temperature } => ("msp", temperature),
            Score::MaxLogit => ("max-logit", 1.0),
        };
        f.write_str(name)?;
        if temperature == 1.0 { Ok(()) } else { write!(f, "(temperature={temperature})") }
    }
}

const NAMES: [&str; 9] =
    ["react", "dice", "weight-drop", "unit-drop", "weight-prune", "unit-prune", "energy", "msp", "max-logit"];

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let mut spec = Spec { shaping: Shaping::None, sparsity: Sparsity::Dense, score: Score::MaxLogit };
        // Where in the chain we are: 0 before shaping, 1 after it, 2 after the sparsity.
        let mut stage = 0;
        loop {
            let mut step = parser.step()?;
            if !NAMES.contains(&step.name) {
                let message = match nearest(step.name) {
                    Some(name) => format!("unknown step `{}`, did you mean `{name}`?", step.name),
                    None => format!("unknown step `{}`; there are {}", step.name, NAMES.join(", ")),
                };
                return Err(parser.error(step.at, step.name.len(), message));
            }
            let place = match step.name {
                "react" => 1,
                "energy" | "msp" | "max-logit" => 3,
                _ => 2,
            };
            if place <= stage {
                return Err(parser.error(
                    step.at,
                    step.name.len(),
                    match place {
                        1 => "shaping comes first, and once",
                        _ => "only one sparsity step, after any shaping",
                    },
                ));
            }
            stage = place;
            match step.name {
                "react" => spec.shaping = Shaping::React(step.clip(&parser)?),
                "dice" => spec.sparsity = step.dice(&parser)?,
                "weight-drop" => {
                    spec.sparsity = Sparsity::WeightDrop { p: step.p(&parser)?, seed: step.seed(&parser)? }
                }
                "unit-drop" => spec.sparsity = Sparsity::UnitDrop { p: step.p(&parser)?, seed: step.seed(&parser)? },
                "weight-prune" => spec.sparsity = Sparsity::WeightPrune { p: step.p(&parser)? },
                "unit-prune" => spec.sparsity = Sparsity::UnitPrune { p: step.p(&parser)? },
                "energy" => spec.score = Score::Energy { temperature: step.temperature(&parser)? },
                "msp" => spec.score = Score::Msp { temperature: step.temperature(&parser)? },
                _ => spec.score = Score::MaxLogit,
            }
            step.finish(&parser)?;
            if stage == 3 {
                return match parser.peek() {
                    None => Ok(spec),
                    Some(_) => Err(parser.error(parser.at, 1, "nothing comes after the score")),
                };
            }
            if parser.peek() != Some('|') {
                return Err(parser.error(
                    parser.at,
                    1,
                    "a spec ends with a score: add `| energy`, `| msp` or `| max-logit`",
                ));
            }
            parser.at += 1;
        }
    }
}

/// The known step that is at most two edits (with swaps) away.
fn nearest(name: &str) -> Option<&'static str> {
    let distance = |a: &str, b: &str| {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
        let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let mut best = (table[i - 1][j] + 1)
                        .min(table[i][j - 1] + 1)
                        .min(table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(table[i - 2][j - 2] + 1);
                    }
                    best
                };
            }
        }
        table[a.len()][b.len()]
    };
    NAMES
        .into_iter()
        .map(|known| (distance(&name.to_ascii_lowercase(), known), known))
        .min()
        .filter(|(edits, _)| *edits <= 2.min(name.chars().count() / 2))
        .map(|(_, known)| known)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

struct Argument<'a> {
    key: Option<&'a str>,
    value: &'a str,
    at: usize,
}

struct Step<'a> {
    name: &'a str,
    at: usize,
    arguments: Vec<Argument<'a>>,
}

impl<'a> Parser<'a> {
    /// The next character that is not white space, without taking it.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn word(&mut self) -> (&'a str, usize) {
        self.peek();
        let at = self.at;
        let rest = &self.text[at..];
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '_' | '.')))
            .unwrap_or(rest.len());
        self.at += length;
        (&rest[..length], at)
    }

    fn step(&mut self) -> Result<Step<'a>> {
        let (name, at) = self.word();
        if name.is_empty() {
            return Err(self.error(at, 1, format!("a step is missing here; there are {}", NAMES.join(", "))));
        }
        let mut step = Step { name, at, arguments: Vec::new() };
        if self.peek() != Some('(') {
            return Ok(step);
        }
        self.at += 1;
        loop {
            let (word, at) = self.word();
            let mut argument = Argument { key: None, value: word, at };
            if self.peek() == Some('=') {
                self.at += 1;
                argument.key = Some(word);
                (argument.value, argument.at) = self.word();
            }
            if argument.value.is_empty() {
                return Err(self.error(self.at, 1, "a value is missing here"));
            }
            step.arguments.push(argument);
            match self.peek() {
                Some(',') => self.at += 1,
                Some(')') => {
                    self.at += 1;
                    return Ok(step);
                }
                _ => return Err(self.error(self.at, 1, "expected `,` or `)`")),
            }
        }
    }

    /// An error that shows the spec and points at `length` bytes from `at`.
    fn error(&self, at: usize, length: usize, message: impl fmt::Display) -> Error {
        // The indent counts characters, so that the pointer stands right under any text.
        let indent = self.text[..at].chars().count();
        let shown: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Error::new(
            ErrorKind::Spec,
            format!("{message}\n  {shown}\n  {}{}", " ".repeat(indent), "^".repeat(length.max(1))),
        )
        .tensor("detector spec")
    }
}

impl<'a> Step<'a> {
    fn take(&mut self, key: Option<&str>) -> Option<Argument<'a>> {
        let index = self.arguments.iter().position(|argument| argument.key == key)?;
        Some(self.arguments.remove(index))
    }

    fn number(parser: &Parser<'_>, argument: &Argument<'_>) -> Result<f64> {
        match argument.value.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(parser.error(argument.at, argument.value.len(), "expected a number")),
        }
    }

    /// The bare fraction dropped, in [0, 1).
    fn p(&mut self, parser: &Parser<'_>) -> Result<f64> {
        let Some(argument) = self.take(None).or_else(|| self.take(Some("p"))) else {
            return Err(parser.error(
                self.at,
                self.name.len(),
                format!("`{0}` needs the fraction of weights to drop, as in {0}(0.9)", self.name),
            ));
        };
        let p = Self::number(parser, &argument)?;
        if !(0.0..1.0).contains(&p) {
            let hint = if (1.0..100.0).contains(&p) {
                format!(": for {p} percent write {}", p / 100.0)
            } else {
                String::new()
            };
            return Err(parser.error(
                argument.at,
                argument.value.len(),
                format!("the fraction dropped must be at least 0 and below 1{hint}"),
            ));
        }
        // `-0.0` is in range and must not be printed back.
        Ok(p.abs())
    }

    fn clip(&mut self, parser: &Parser<'_>) -> Result<Clip> {
        if let Some(argument) = self.take(Some("c")) {
            let clip = Self::number(parser, &argument)?;
            if clip <= 0.0 {
                let message = "the clip must be above 0: below, every input becomes the same";
                return Err(parser.error(argument.at, argument.value.len(), message));
            }
            return Ok(Clip::Value(clip));
        }
        let Some(argument) = self.take(None) else {
            return Err(parser.error(
                self.at,
                self.name.len(),
                "`react` needs a quantile of the training activations, react(0.9), or an activation, react(c=1.0)",
            ));
        };
        let quantile = Self::number(parser, &argument)?;
        if !(quantile > 0.0 && quantile <= 1.0) {
            return Err(parser.error(
                argument.at,
                argument.value.len(),
                "the quantile must be above 0 and at most 1; to clip at an activation write react(c=...)",
            ));
        }
        Ok(Clip::Quantile(quantile))
    }

    fn choice<T: Copy>(&mut self, parser: &Parser<'_>, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(argument) = self.take(Some(key)) else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == argument.value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                Err(parser.error(argument.at, argument.value.len(), format!("{key} is one of {}", names.join(", "))))
            }
        }
    }

    fn dice(&mut self, parser: &Parser<'_>) -> Result<Sparsity> {
        let p = self.p(parser)?;
        let preset = self.choice(
            parser,
            "preset",
            &[
                ("paper", Preset::Paper),
                ("official", Preset::Official),
                ("openood", Preset::OpenOod),
                ("pytorch-ood", Preset::PytorchOod),
            ],
        )?;
        let contribution = self.choice(
            parser,
            "contribution",
            &[
                ("signed", Contribution::Signed),
                ("absolute", Contribution::Absolute),
                ("absolute-mean", Contribution::AbsoluteMean),
            ],
        )?;
        let scope = self.choice(parser, "scope", &[("global", Scope::Global), ("per-class", Scope::PerClass)])?;
        let preset = preset.unwrap_or(Preset::Paper);
        if preset != Preset::Paper && (contribution.is_some() || scope.is_some()) {
            return Err(parser.error(
                self.at,
                self.name.len(),
                "a preset copies a peer, which ranks signed contributions globally: drop `contribution` and `scope`",
            ));
        }
        Ok(Sparsity::Dice {
            p,
            preset,
            contribution: contribution.unwrap_or(Contribution::Signed),
            scope: scope.unwrap_or(Scope::Global),
        })
    }

    fn seed(&mut self, parser: &Parser<'_>) -> Result<u64> {
        match self.take(Some("seed")) {
            None => Ok(0),
            Some(argument) => argument
                .value
                .parse()
                .map_err(|_| parser.error(argument.at, argument.value.len(), "the seed is a whole number from 0")),
        }
    }

    fn temperature(&mut self, parser: &Parser<'_>) -> Result<f64> {
        let argument = ["temperature", "T", "t"].iter().find_map(|key| self.take(Some(key)));
        let Some(argument) = argument else { return Ok(1.0) };
        let temperature = Self::number(parser, &argument)?;
        if !(1e-3..=1e3).contains(&temperature) {
            return Err(parser.error(argument.at, argument.value.len(), "the temperature is between 0.001 and 1000"));
        }
        Ok(temperature)
    }

    /// Every argument must have been understood.
    fn finish(&self, parser: &Parser<'_>) -> Result<()> {
        match self.arguments.first() {
            None => Ok(()),
            Some(argument) => Err(parser.error(
                argument.at,
                argument.value.len(),
                match argument.key {
                    Some(key) => format!("`{}` has no argument `{key}`, or it was given twice", self.name),
                    None => format!("`{}` takes no such bare number", self.name),
                },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_spec() -> impl Strategy<Value = Spec> {
        let p = 0.0f64..1.0;
        let shaping = prop_oneof![
            Just(Shaping::None),
            (0.001f64..=1.0).prop_map(|q| Shaping::React(Clip::Quantile(q))),
            (0.001f64..10.0).prop_map(|c| Shaping::React(Clip::Value(c))),
        ];
        let preset = prop_oneof![Just(Preset::Official), Just(Preset::OpenOod), Just(Preset::PytorchOod)];
        let contribution =
            prop_oneof![Just(Contribution::Signed), Just(Contribution::Absolute), Just(Contribution::AbsoluteMean)];
        let scope = prop_oneof![Just(Scope::Global), Just(Scope::PerClass)];
        let sparsity = prop_oneof![
            Just(Sparsity::Dense),
            (p.clone(), preset).prop_map(|(p, preset)| Sparsity::Dice {
                p,
                preset,
                contribution: Contribution::Signed,
                scope: Scope::Global
            }),
            (p.clone(), contribution, scope).prop_map(|(p, contribution, scope)| Sparsity::Dice {
                p,
                preset: Preset::Paper,
                contribution,
                scope
            }),
            (p.clone(), any::<u64>()).prop_map(|(p, seed)| Sparsity::WeightDrop { p, seed }),
            (p.clone(), any::<u64>()).prop_map(|(p, seed)| Sparsity::UnitDrop { p, seed }),
            p.clone().prop_map(|p| Sparsity::WeightPrune { p }),
            p.prop_map(|p| Sparsity::UnitPrune { p }),
        ];
        let score = prop_oneof![
            (0.01f64..100.0).prop_map(|temperature| Score::Energy { temperature }),
            (0.01f64..100.0).prop_map(|temperature| Score::Msp { temperature }),
            Just(Score::MaxLogit),
        ];
        (shaping, sparsity, score).prop_map(|(shaping, sparsity, score)| Spec { shaping, sparsity, score })
    }

    proptest! {
        #[test]
        fn prints_back_what_it_parsed(spec in any_spec()) {
            let printed = spec.to_string();
            prop_assert_eq!(printed.parse::<Spec>().unwrap(), spec);
            prop_assert_eq!(printed.parse::<Spec>().unwrap().to_string(), printed);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "[a-z0-9(),=|. é\n-]{0,40}") {
            if let Err(error) = text.parse::<Spec>() {
                prop_assert_eq!(error.kind(), ErrorKind::Spec);
            }
        }
    }

    fn message(text: &str) -> String {
        text.parse::<Spec>().unwrap_err().to_string()
    }

    #[test]
    fn errors_point_at_the_character() {
        assert_eq!(
            message("dice(0.9) | enrgy"),
            "detector spec: unknown step `enrgy`, did you mean `energy`?\n  dice(0.9) | enrgy\n              ^^^^^"
        );
        assert!(message("dice(90) | energy").contains("for 90 percent write 0.9"));
        assert!(message("dice(0.9)").contains("add `| energy`"));
        assert!(message("dice | energy").contains("needs the fraction"));
        assert!(message("energy | dice(0.9)").contains("nothing comes after the score"));
        assert!(message("dice(0.9) | react(0.9) | energy").contains("shaping comes first"));
        assert!(message("dice(0.9) | dice(0.8) | energy").contains("only one sparsity"));
        assert!(message("dice(0.9, preset=official, scope=per-class) | energy").contains("a preset copies a peer"));
        assert!(message("dice(0.9, preset=offical) | energy").contains("preset is one of paper, official"));
        assert!(message("energy(0.9)").contains("takes no such bare number"));
        assert!(message("energy(temperature=0)").contains("temperature is between"));
        assert!(message("").contains("a step is missing"));
        assert!(message("dice(0.9").contains("expected `,` or `)`"));
        assert!(message("dice(p=0.9, p=0.8) | msp").contains("given twice"));
    }

    #[test]
    fn defaults_are_not_printed() {
        let printed = |text: &str| text.parse::<Spec>().unwrap().to_string();
        assert_eq!(printed("dice( p=0.90,preset=paper )|energy(T=1)"), "dice(0.9) | energy");
        assert_eq!(printed("react(c=1)|max-logit"), "react(c=1.0) | max-logit");
        assert_eq!(printed("unit-drop(.5)|msp"), "unit-drop(0.5, seed=0) | msp");
    }
}
