//! What methods say of themselves, as plain data: what front ends list and print as JSON.

use serde::Serialize;

use crate::absent::{ABSENT, Absent};
use crate::card::{Kind, Otherwise, Parameter};
use crate::methods::{Entry, METHODS};

/// A method, or one that is known and not here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Listed {
    /// A method that detectors are made of.
    Here(ListedMethod),
    /// A known method that is not here.
    Absent(ListedAbsent),
}

/// A method that detectors are made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedMethod {
    /// Its name in a spec.
    pub name: &'static str,
    /// `shaping`, `sparsity`, `score` or `combination`.
    pub role: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its formula.
    pub formula: &'static str,
    /// Who published it, and where.
    pub paper: &'static str,
    /// When.
    pub year: u16,
    /// What it takes.
    pub parameters: Vec<ListedParameter>,
    /// What its fit rests on, in words.
    pub needs: Vec<String>,
    /// What one input costs, and what is kept.
    pub cost: &'static str,
    /// Whether a fitted one says itself as operators, for export.
    pub exportable: bool,
    /// A spec that uses it.
    pub example: &'static str,
}

/// A parameter of a method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedParameter {
    /// Its name in a spec.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether it is written without its name.
    pub bare: bool,
    /// Whether it must be given.
    pub required: bool,
    /// What stands for it where it is not given.
    pub default: Option<String>,
    /// Which values it takes, in words.
    pub range: String,
    /// The words that it takes, where it takes words.
    pub choices: Option<Vec<&'static str>>,
}

/// A known method that is not here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedAbsent {
    /// The name that it would have in a spec.
    pub name: &'static str,
    /// `absent`.
    pub role: &'static str,
    /// Who published it, and where.
    pub paper: &'static str,
    /// When.
    pub year: u16,
    /// Why it is not here, and what is nearest to it.
    pub reason: &'static str,
}

/// All methods, and those that are known and not here.
pub fn listed() -> Vec<Listed> {
    let here = METHODS.iter().map(|entry| Listed::Here(entry.into()));
    here.chain(ABSENT.iter().map(|absent| Listed::Absent(absent.into()))).collect()
}

impl From<&Entry> for ListedMethod {
    fn from(entry: &Entry) -> Self {
        Self {
            name: entry.card.name,
            role: entry.role(),
            about: entry.card.about,
            formula: entry.card.formula,
            paper: entry.card.paper,
            year: entry.card.year,
            parameters: entry.card.parameters.iter().map(Into::into).collect(),
            needs: needs(entry),
            cost: entry.card.cost,
            exportable: entry.card.exports,
            example: entry.card.example,
        }
    }
}

impl From<&Parameter> for ListedParameter {
    fn from(parameter: &Parameter) -> Self {
        Self {
            name: parameter.name,
            about: parameter.about,
            bare: parameter.bare,
            required: parameter.otherwise == Otherwise::Required,
            default: match parameter.otherwise {
                Otherwise::Default(value) => Some(value.to_string()),
                Otherwise::Required | Otherwise::Absent => None,
            },
            range: parameter.kind.to_string(),
            choices: match parameter.kind {
                Kind::Choice(words) => Some(words.to_vec()),
                _ => None,
            },
        }
    }
}

impl From<&Absent> for ListedAbsent {
    fn from(absent: &Absent) -> Self {
        let Absent { name, paper, year, reason } = *absent;
        Self { name, role: "absent", paper, year, reason }
    }
}

/// What a fit rests on, in words.
pub fn needs(entry: &Entry) -> Vec<String> {
    let needs = entry.needs();
    let mut said: Vec<String> = needs.iter().map(|need| need.to_string()).collect();
    if needs.takes_labels() {
        said.push("labels".into());
    }
    if said.is_empty() {
        said.push(match entry.role() {
            "sparsity" => "the head and the mean activation".into(),
            "combination" => "what its members need; calibration inputs".into(),
            _ => "the head".into(),
        });
    }
    said
}
