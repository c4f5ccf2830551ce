//! Stages of a choice that are done, in a file, so that a choice that was interrupted goes on where it stopped.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::io::{AtomicFile, files};

/// What the candidates came to in a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stage {
    /// For each that could be fitted, by set, the loss and the AUROC.
    pub(super) losses: BTreeMap<String, Vec<[f64; 2]>>,
    /// Those that could not, and why.
    pub(super) left_out: BTreeMap<String, String>,
}

/// The stages done so far, and the file that holds them.
#[derive(Debug)]
pub struct Memo {
    path: Option<PathBuf>,
    held: Held,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    /// What the stages rest on: options, candidates and inputs.
    key: String,
    stages: BTreeMap<String, Stage>,
}

impl Default for Memo {
    fn default() -> Self {
        Self::nowhere()
    }
}

impl Memo {
    /// Nothing is kept.
    pub fn nowhere() -> Self {
        Self { path: None, held: Held::default() }
    }

    /// The stages that `path` holds; none where there is no such file. Each further stage is written to it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Malformed`] for a file that no choice has written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if !path.exists() {
            return Ok(Self { path: Some(path), held: Held::default() });
        }
        let held = serde_json::from_str(&files::read_to_string(&path)?).map_err(|error| {
            Error::new(ErrorKind::Malformed, error.to_string())
                .file(path.display())
                .expected("what an earlier run has kept of its stages")
                .fix("name a file that does not exist, or that of an earlier run")
        })?;
        Ok(Self { path: Some(path), held })
    }

    /// Refuses stages that rest on anything else.
    pub(super) fn begin(&mut self, key: String) -> Result<()> {
        if self.held.stages.is_empty() || self.held.key == key {
            self.held.key = key;
            return Ok(());
        }
        let path = self.path.as_deref().unwrap_or_else(|| Path::new(""));
        Err(Error::new(ErrorKind::Argument, "stages of other inputs, candidates or options")
            .file(path.display())
            .expected("those of this very run")
            .fix("name another file, or delete this one"))
    }

    /// The stage called `name`: as it is kept, or as `work` makes it.
    pub(super) fn stage(&mut self, name: &str, work: impl FnOnce() -> Result<Stage>) -> Result<Stage> {
        if let Some(done) = self.held.stages.get(name) {
            return Ok(done.clone());
        }
        let stage = work()?;
        self.held.stages.insert(name.to_owned(), stage.clone());
        if let Some(path) = &self.path {
            let json =
                serde_json::to_string(&self.held).map_err(|error| Error::caused_by(ErrorKind::Malformed, error))?;
            let mut file = AtomicFile::create(path)?;
            file.write_all(json.as_bytes()).map_err(|error| Error::io(path, error))?;
            file.commit()?;
        }
        Ok(stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_kept_for_the_same_inputs_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stages.json");
        let losses = [("energy".to_owned(), vec![[0.1, 0.9]])].into();
        let stage = Stage { losses, left_out: [("mds".to_owned(), "no labels".to_owned())].into() };
        let mut memo = Memo::open(&path).unwrap();
        memo.begin("a".into()).unwrap();
        assert_eq!(memo.stage("1", || Ok(stage.clone())).unwrap(), stage);
        let mut again = Memo::open(&path).unwrap();
        again.begin("a".into()).unwrap();
        let unused = || -> Result<Stage> { panic!("the stage is kept") };
        assert_eq!(again.stage("1", unused).unwrap(), stage);
        let other = Memo::open(&path).unwrap().begin("b".into()).unwrap_err();
        assert!(other.to_string().contains("stages.json"), "{other}");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Memo::open(&path).unwrap_err().kind(), ErrorKind::Malformed);
    }
}
