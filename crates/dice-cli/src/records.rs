//! Lists of names that detector files record: of the columns that units were, of the classes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dice_ood::{Artifact, Error, ErrorKind, Result};

use crate::names;

/// The names of the columns that the units were.
pub(crate) const COLUMNS: &str = "columns";
/// The names of the classes.
pub(crate) const CLASSES: &str = "classes";

/// The names that `artifact` records as `key`, of as many as there are; none where it records none.
pub(crate) fn names_of(artifact: &Artifact, key: &str, many: usize) -> Result<Vec<String>> {
    let names = names_in(artifact.provenance(), key)?;
    if names.is_empty() || names.len() == many {
        return Ok(names);
    }
    Err(Error::new(ErrorKind::Malformed, format!("{} names", names.len()))
        .tensor(key)
        .expected(format!("the names of {many} {key}")))
}

/// The names that notes record as `key`; none where they record none.
pub(crate) fn names_in(provenance: &BTreeMap<String, String>, key: &str) -> Result<Vec<String>> {
    let Some(text) = provenance.get(key) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Malformed, error.to_string()).tensor(key).expected(format!("names of {key} as JSON"))
    })
}

/// What a detector file records as `key`, if there are such names.
pub(crate) fn record_of(key: &str, names: &[String]) -> Option<(String, String)> {
    (!names.is_empty()).then(|| (key.to_owned(), serde_json::Value::from(names.to_vec()).to_string()))
}

/// A line of an account of a detector file, with names of columns and classes in short.
pub(crate) fn in_short<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(names) if ![COLUMNS, CLASSES].contains(&key) || names.is_empty() => value.into(),
        Ok(names) => {
            let shown: Vec<String> = names.iter().map(|name| names::shown(name)).collect();
            match &shown[..] {
                [first, second, .., last] if shown.len() > 4 => {
                    format!("{first}, {second}, ... {last} ({})", shown.len()).into()
                }
                all => all.join(", ").into(),
            }
        }
        Err(_) => value.into(),
    }
}
