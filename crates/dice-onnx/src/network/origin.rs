//! Where features came from: which network, which of its tensors, and what became its inputs.

use std::collections::BTreeMap;
use std::fmt;

use dice_ood::io::{Location, read_metadata};
use dice_ood::{Error, ErrorKind, Remedy, Result};
use serde::de::DeserializeOwned;

use crate::images::preprocess::Preprocess;
use crate::model::Model;
use crate::model::head::{FoundHead, HeadOptions};
use crate::run::backbone::Backbone;
use crate::text::quoted;

const MODEL: &str = "model";
const FINGERPRINT: &str = "model_sha256";
const HEAD: &str = "head_node";
const FEATURES: &str = "features_tensor";
const PREPROCESS: &str = "preprocess";
const INPUTS: &str = "inputs";
const COLUMNS: &str = "input_columns";
const RUNTIME: &str = "runtime";
const LEVEL: &str = "runtime_level";

/// What the inputs of a network are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// Images, in this way.
    Images(Preprocess),
    /// Arrays named as the inputs.
    Arrays {
        /// The inputs: names, types and shapes, for people.
        inputs: String,
        /// The columns of a table that has one for each value of the only input; else empty.
        columns: Vec<String>,
    },
}

impl Prepared {
    /// Whether inputs that were prepared in both ways belong together. Which arrays a model takes, its fingerprint says.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Arrays { columns, .. }, Self::Arrays { columns: others, .. }) => {
                columns == others || columns.is_empty() || others.is_empty()
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Images(preprocess) => preprocess.fmt(f),
            Self::Arrays { inputs, columns } => match &columns[..] {
                [first, .., last] => write!(f, "{inputs}, of the columns `{first}` to `{last}`"),
                _ => f.write_str(inputs),
            },
        }
    }
}

/// The origin of features, as it is recorded beside them, in detectors and in exported models, so that scoring cannot use
/// another network, another layer or other inputs than fitting did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Origin {
    /// The model's path when the features were computed; for people only.
    pub model: String,
    /// [`Model::fingerprint`](crate::Model::fingerprint).
    pub fingerprint: String,
    /// [`FoundHead::node`].
    pub head: String,
    /// [`FoundHead::features`].
    pub features: String,
    /// What became inputs.
    pub prepared: Prepared,
    /// [`Runtime::name`](crate::Runtime::name) of what ran the network.
    pub runtime: String,
    /// [`Level::name`](crate::Level::name) of its optimisation, where that is recorded.
    pub level: Option<String>,
}

impl Origin {
    /// The origin of what `backbone` makes of inputs that are prepared so.
    pub fn new(backbone: &Backbone, found: &FoundHead, prepared: Prepared) -> Self {
        Self {
            model: backbone.path().display().to_string(),
            fingerprint: backbone.fingerprint().to_owned(),
            head: found.node.clone(),
            features: found.features.clone(),
            prepared,
            runtime: backbone.runtime().to_owned(),
            level: Some(backbone.level().name().to_owned()),
        }
    }

    /// What ran the network, for people: its name and, where it is recorded, the level of its optimisation.
    pub fn ran_by(&self) -> String {
        let level = self.level.as_ref().map(|level| format!(" at level {level}"));
        format!("the {} runtime{}", self.runtime, level.unwrap_or_default())
    }

    /// As the notes of a file: `model`, `model_sha256`, `head_node`, `features_tensor`, `runtime`, `runtime_level`, and `preprocess` in JSON; or of
    /// arrays `inputs`, and `input_columns` in JSON where these were the columns of a table.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where the preprocessing holds a number that JSON does not know.
    pub fn to_notes(&self) -> Result<BTreeMap<String, String>> {
        let refused = |error: serde_json::Error| Error::new(ErrorKind::Argument, error.to_string()).tensor(PREPROCESS);
        let prepared = match &self.prepared {
            Prepared::Images(preprocess) => vec![(PREPROCESS, serde_json::to_string(preprocess).map_err(refused)?)],
            Prepared::Arrays { inputs, columns } => {
                let columns = (!columns.is_empty()).then(|| serde_json::to_string(columns).map_err(refused));
                let columns = columns.transpose()?.map(|columns| (COLUMNS, columns));
                [(INPUTS, inputs.clone())].into_iter().chain(columns).collect()
            }
        };
        let notes = [
            (MODEL, self.model.clone()),
            (FINGERPRINT, self.fingerprint.clone()),
            (HEAD, self.head.clone()),
            (FEATURES, self.features.clone()),
            (RUNTIME, self.runtime.clone()),
        ];
        let level = self.level.clone().map(|level| (LEVEL, level));
        Ok(notes.into_iter().chain(level).chain(prepared).map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Reads what [`Origin::to_notes`] wrote; `None` where the notes hold no origin.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for an origin with a part missing or damaged.
    pub fn of_notes(notes: &BTreeMap<String, String>) -> Result<Option<Self>> {
        if !notes.contains_key(FINGERPRINT) {
            return Ok(None);
        }
        let note = |key: &str| {
            notes.get(key).cloned().ok_or_else(|| {
                Error::new(ErrorKind::Malformed, "no such note").tensor(key).expected(
                    "the complete origin of features: model, fingerprint, head, tensor, preprocessing and runtime",
                )
            })
        };
        let prepared = match notes.get(INPUTS) {
            Some(inputs) => Prepared::Arrays {
                inputs: inputs.clone(),
                columns: notes.get(COLUMNS).map_or(Ok(Vec::new()), |columns| parsed(COLUMNS, columns))?,
            },
            None => {
                let preprocess: Preprocess = parsed(PREPROCESS, &note(PREPROCESS)?)?;
                preprocess
                    .check()
                    .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).tensor(PREPROCESS))?;
                Prepared::Images(preprocess)
            }
        };
        Ok(Some(Self {
            model: note(MODEL)?,
            fingerprint: note(FINGERPRINT)?,
            head: note(HEAD)?,
            features: note(FEATURES)?,
            prepared,
            runtime: note(RUNTIME)?,
            level: notes.get(LEVEL).cloned(),
        }))
    }

    /// The origin that files of features record, where any does.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where the files differ in their origins: see [`Origin::check_same`]; those of reading them.
    pub fn of_files(files: &[Location]) -> Result<Option<Self>> {
        let mut first: Option<Self> = None;
        for file in files {
            let located = |error: Error| error.file(file);
            let Some(origin) = Self::of_notes(&read_metadata(file)?).map_err(located)? else { continue };
            match &first {
                None => first = Some(origin),
                Some(first) => first.check_same(&origin).map_err(located)?,
            }
        }
        Ok(first)
    }

    /// Refuses a model that is not the recorded one.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`]; those of [`Model::fingerprint`].
    pub fn check_model(&self, model: &Model) -> Result<()> {
        let fingerprint = model.fingerprint()?;
        if fingerprint == self.fingerprint {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Argument, format!("another model (sha256 {fingerprint:.12}...)"))
            .file(model.path().display())
            .expected(format!("the recorded one, {} (sha256 {:.12}...)", self.model, self.fingerprint))
            .fix("give that very file, or fit a detector to this one")
            .with_remedy(Remedy::FitToModel))
    }

    /// The same head and features in `model` again. Where a head is `named` once more, by whatever it can be found by, it must be that one.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for another head; those of [`Model::find_head`].
    pub fn find_head(&self, model: &Model, named: Option<&str>) -> Result<FoundHead> {
        let options = |head: &str, features| HeadOptions { head: Some(head.to_owned()), features };
        let found = model.find_head(&options(&self.head, Some(self.features.clone())))?;
        let Some(named) = named else { return Ok(found) };
        let other = model.find_head(&options(named, None))?;
        if other.node == found.node {
            return Ok(found);
        }
        Err(Error::new(ErrorKind::Argument, quoted(named))
            .file(model.path().display())
            .tensor("head")
            .expected(format!("{}, the head that the detector was fitted to", quoted(&found.node)))
            .fix("leave the name out, or fit a detector to that head")
            .with_remedy(Remedy::FitToModel))
    }

    /// Refuses features of another origin than this one; where the models lie and what ran them does not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] that names what differs.
    pub fn check_same(&self, other: &Self) -> Result<()> {
        let differ = |what: &str, found: String, expected: String| {
            Err(Error::new(ErrorKind::Argument, found).tensor(what).expected(expected))
        };
        if self.fingerprint != other.fingerprint {
            return differ(
                "model",
                format!("{} (sha256 {:.12})", other.model, other.fingerprint),
                format!("the model of the detector, {} (sha256 {:.12})", self.model, self.fingerprint),
            );
        }
        if self.features != other.features {
            return differ(FEATURES, other.features.clone(), self.features.clone());
        }
        if !self.prepared.fits(&other.prepared) {
            return differ("preprocessing", other.prepared.to_string(), self.prepared.to_string());
        }
        Ok(())
    }
}

fn parsed<T: DeserializeOwned>(key: &str, note: &str) -> Result<T> {
    serde_json::from_str(note).map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).tensor(key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn notes_come_back_and_differences_are_named() {
        let origin = Origin {
            model: "m.onnx".into(),
            fingerprint: "0123456789abcdef".into(),
            head: "fc".into(),
            features: "h".into(),
            prepared: Prepared::Images(Preprocess::preset("imagenet").unwrap()),
            runtime: "built-in".into(),
            level: Some("all".into()),
        };
        let notes = origin.to_notes().unwrap();
        assert_eq!(Origin::of_notes(&notes).unwrap(), Some(origin.clone()));
        assert_eq!(Origin::of_notes(&BTreeMap::new()).unwrap(), None);
        // Files that were written before levels were recorded.
        let mut older = notes.clone();
        older.remove(LEVEL);
        assert_eq!(Origin::of_notes(&older).unwrap(), Some(Origin { level: None, ..origin.clone() }));
        for key in notes.keys().filter(|key| ![FINGERPRINT, LEVEL].contains(&key.as_str())) {
            let mut damaged = notes.clone();
            damaged.remove(key);
            assert!(Origin::of_notes(&damaged).unwrap_err().to_string().contains(key.as_str()));
        }
        let moved = Origin { model: "elsewhere.onnx".into(), ..origin.clone() };
        assert!(origin.check_same(&moved).is_ok());
        let others = [
            (Origin { fingerprint: "f".into(), ..origin.clone() }, "sha256"),
            (Origin { features: "g".into(), ..origin.clone() }, "features_tensor"),
            (
                Origin { prepared: Prepared::Images(Preprocess::preset("cifar10").unwrap()), ..origin.clone() },
                "preprocessing",
            ),
        ];
        let arrays = |columns: &[&str]| Origin {
            prepared: Prepared::Arrays {
                inputs: "x float32 [N, 2]".into(),
                columns: columns.iter().map(ToString::to_string).collect(),
            },
            ..origin.clone()
        };
        let table = arrays(&["a", "b"]);
        assert_eq!(Origin::of_notes(&table.to_notes().unwrap()).unwrap(), Some(table.clone()));
        assert!(table.check_same(&arrays(&[])).is_ok() && arrays(&[]).check_same(&table).is_ok());
        assert!(table.check_same(&arrays(&["b", "a"])).is_err() && table.check_same(&origin).is_err());
        for (other, named) in others {
            let error = origin.check_same(&other).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
