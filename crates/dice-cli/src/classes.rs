//! Names of classes: recorded by the fit, shown wherever a class is.

use dice_ood::{Artifact, Error, ErrorKind, Result};

use crate::names::shown;

/// Where a detector file records the names of its classes.
pub(crate) const RECORD: &str = "classes";

/// The names of the classes of a detector, as many as it has classes; empty where they are not known.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Classes(Vec<String>);

impl Classes {
    /// The names that `artifact` records.
    pub(crate) fn of(artifact: &Artifact) -> Result<Self> {
        let Some(text) = artifact.provenance().get(RECORD) else { return Ok(Self::default()) };
        let wrong = |found: String| {
            Error::new(ErrorKind::Malformed, found)
                .tensor(RECORD)
                .expected(format!("the names of {} classes as JSON", artifact.head().classes()))
        };
        let names: Vec<String> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match names.len() == artifact.head().classes() {
            true => Ok(Self(names)),
            false => Err(wrong(format!("{} names", names.len()))),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names themselves.
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    /// A class for people: its number, and its name where there is one.
    pub(crate) fn show(&self, class: usize) -> String {
        match self.0.get(class) {
            Some(name) => format!("{class} ({})", shown(name)),
            None => class.to_string(),
        }
    }
}

impl From<Vec<String>> for Classes {
    fn from(names: Vec<String>) -> Self {
        Self(names)
    }
}

/// What a detector file records of the names of its classes.
pub(crate) fn record(names: &[String]) -> Option<(String, String)> {
    (!names.is_empty()).then(|| (RECORD.to_owned(), serde_json::Value::from(names.to_vec()).to_string()))
}
