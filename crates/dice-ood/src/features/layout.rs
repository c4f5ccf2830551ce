//! How a source was read.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Which columns or tensors a source reads as features and ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The names of the units `[D]`, where each is a column with a name; empty where units have no names but places.
    pub units: Vec<String>,
    /// The column or tensor that names the inputs.
    pub ids: Option<String>,
    /// What the user should know of how the source is read.
    pub notes: Vec<Note>,
    /// The column that is least like the other features, in words: a hint where there is one too many.
    pub stray: Option<String>,
}

impl Layout {
    /// The error for `found` units where `expected` are wanted, if that is one too many and a column is unlike the others.
    pub fn one_too_many(&self, found: usize, expected: usize) -> Option<Error> {
        let stray = self.stray.as_ref().filter(|_| found == expected + 1)?;
        Some(
            Error::new(ErrorKind::Columns, format!("[N, {found}]"))
                .tensor("features")
                .expected(format!("[N, {expected}]"))
                .fix(format!("is {stray}, one of the features? If not, drop it, or say what it is")),
        )
    }
}

/// What the user should know of how a file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// No column names the inputs of a table: rows are numbered.
    NoIds,
    /// Columns of numbers that are no features for their names.
    LeftOut(Vec<String>),
    /// Names of units are known on one side only: columns are taken in the order of the table.
    TakenByPlace,
    /// A tensor that names the inputs, of a type that is not read: rows are numbered.
    UnreadIds(String),
    /// A tensor of this shape was read as `[N, D]`.
    Squeezed(Vec<usize>),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIds => f.write_str("no column of ids (id, path, user_id, uuid, ...): rows are named by their number, from 0"),
            Self::LeftOut(columns) => {
                let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
                write!(f, "not taken as features, for their names: {}", columns.join(", "))
            }
            Self::TakenByPlace => f.write_str(
                "feature columns are taken in the order of the table: names are known either of the fit's features or of these, \
                 not of both",
            ),
            Self::UnreadIds(tensor) => {
                write!(f, "`{tensor}` is of a type that is not read as ids: rows are named by their number, from 0")
            }
            Self::Squeezed(shape) => {
                let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
                write!(f, "features of shape [{}] are read as [N, D]", shape.join(", "))
            }
        }
    }
}
