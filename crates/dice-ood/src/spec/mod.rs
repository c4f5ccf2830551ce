//! The one language for a detector: `react(0.99) | dice(0.9) | energy`.
//!
//! ```text
//! spec     := pipeline | combined
//! combined := rule [ options ] "(" member { "," member } ")"
//! member   := spec [ "*" weight ]
//! pipeline := [ shaping "|" ] [ sparsity "|" ] score
//! step     := name [ "(" argument { "," argument } ")" ]
//! ```
//! Which steps there are, and what they take, is in [`METHODS`](crate::methods::METHODS). What does not make sense
//! together does not parse.

mod all;
mod parse;

use std::fmt;
use std::sync::Arc;

use crate::methods::{Combination, Score, Shaping, Sparsity, Step};
use crate::statistics::{Need, Needs};

/// A detector before it is fitted. Two specs are equal where they print alike.
///
/// ```
/// let spec: dice_ood::Spec = "react(0.99) | dice(0.7) | energy".parse()?;
/// assert_eq!(spec.to_string(), "react(0.99) | dice(0.7) | energy");
/// let mistyped = "dcie(0.9) | energy".parse::<dice_ood::Spec>().unwrap_err();
/// assert!(mistyped.to_string().contains("did you mean `dice`"));
/// # Ok::<(), dice_ood::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Spec {
    /// Features through a head to one score.
    Pipeline(PipelineSpec),
    /// One score of several.
    Combined {
        /// How they are combined.
        rule: Arc<dyn Combination>,
        /// What is combined.
        members: Vec<MemberSpec>,
    },
}

/// `[shaping |] [sparsity |] score`.
#[derive(Debug, Clone)]
pub struct PipelineSpec {
    /// What is done to the features that the head reads, and which of its weights are kept.
    pub stem: StemSpec,
    /// What one number is made of.
    pub score: Arc<dyn Score>,
}

/// `[shaping |] [sparsity]`: everything before the score. Pipelines with one stem share its logits.
#[derive(Debug, Clone, Default)]
pub struct StemSpec {
    /// What is done to the features before the head.
    pub shaping: Option<Arc<dyn Shaping>>,
    /// Which weights of the head are kept; all where there is none.
    pub sparsity: Option<Arc<dyn Sparsity>>,
}

/// A member of a combination.
#[derive(Debug, Clone)]
pub struct MemberSpec {
    /// What scores.
    pub spec: Spec,
    /// What its vote is multiplied by.
    pub weight: f64,
}

impl Spec {
    /// What a fit of this spec rests on.
    pub fn needs(&self) -> Needs {
        self.pipelines().into_iter().fold(Needs::default(), |needs, pipeline| needs.and(pipeline.needs()))
    }

    /// Whether scores depend on the weights of a head; where not, any head of as many classes gives the same scores.
    pub fn takes_head(&self) -> bool {
        self.pipelines().into_iter().any(PipelineSpec::takes_head)
    }

    /// The pipelines that it consists of, in order, each once.
    pub fn pipelines(&self) -> Vec<&PipelineSpec> {
        let mut found = Vec::new();
        self.gather(&mut found);
        found
    }

    /// The only pipeline, where this is one.
    pub fn as_pipeline(&self) -> Option<&PipelineSpec> {
        match self {
            Self::Pipeline(pipeline) => Some(pipeline),
            Self::Combined { .. } => None,
        }
    }

    fn gather<'a>(&'a self, found: &mut Vec<&'a PipelineSpec>) {
        match self {
            Self::Pipeline(pipeline) if found.contains(&pipeline) => {}
            Self::Pipeline(pipeline) => found.push(pipeline),
            Self::Combined { members, .. } => members.iter().for_each(|member| member.spec.gather(found)),
        }
    }
}

impl PipelineSpec {
    /// What a fit rests on.
    pub fn needs(&self) -> Needs {
        let shaping = self.stem.shaping.as_ref().map(|shaping| shaping.needs());
        let sparsity = self.stem.sparsity.as_ref().map(|sparsity| sparsity.needs());
        shaping.into_iter().chain(sparsity).fold(self.score.needs(), Needs::and)
    }

    fn takes_head(&self) -> bool {
        !self.stem.is_dense() || self.score.takes_head() || self.needs().iter().any(Need::takes_head)
    }
}

impl StemSpec {
    /// Whether the head reads features as they are, with all its weights.
    pub fn is_dense(&self) -> bool {
        self.shaping.is_none() && self.sparsity.is_none()
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipeline(pipeline) => pipeline.fmt(f),
            Self::Combined { rule, members } => {
                let members = members.iter().map(ToString::to_string).collect();
                print(f, &**rule, members)
            }
        }
    }
}

impl fmt::Display for MemberSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)?;
        if self.weight == 1.0 { Ok(()) } else { write!(f, "*{}", self.weight) }
    }
}

impl fmt::Display for PipelineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.stem.is_dense() {
            write!(f, "{} | ", self.stem)?;
        }
        print(f, &*self.score, Vec::new())
    }
}

impl fmt::Display for StemSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(shaping) = &self.shaping {
            print(f, &**shaping, Vec::new())?;
        }
        if self.shaping.is_some() && self.sparsity.is_some() {
            f.write_str(" | ")?;
        }
        match &self.sparsity {
            Some(sparsity) => print(f, &**sparsity, Vec::new()),
            None => Ok(()),
        }
    }
}

/// Prints a step: its name, and in parentheses `members` and the parameters that are not their defaults.
fn print(f: &mut fmt::Formatter<'_>, step: &(impl Step + ?Sized), members: Vec<String>) -> fmt::Result {
    let mut said = members;
    said.extend(step.arguments().printed().map(|(parameter, value)| match parameter.bare {
        true => value.to_string(),
        false => format!("{}={value}", parameter.name),
    }));
    f.write_str(step.card().name)?;
    if said.is_empty() { Ok(()) } else { write!(f, "({})", said.join(", ")) }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl PartialEq for PipelineSpec {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl PartialEq for StemSpec {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod tests;
