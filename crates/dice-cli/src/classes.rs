//! Names of classes: recorded by the fit, shown wherever a class is.

use dice_ood::{Artifact, Result};

use crate::names::shown;
use crate::records::{CLASSES, names_of, record_of};

/// The names of the classes of a detector, as many as it has classes; empty where they are not known.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Classes(Vec<String>);

impl Classes {
    /// The names that `artifact` records.
    pub(crate) fn of(artifact: &Artifact) -> Result<Self> {
        names_of(artifact, CLASSES, artifact.head().classes()).map(Self)
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
    record_of(CLASSES, names)
}
