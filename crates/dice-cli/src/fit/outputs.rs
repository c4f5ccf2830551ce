//! Where a fit writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dice_ood::auto::Choice;
use dice_ood::{Artifact, Error, ErrorKind, Fitted, Result, Spec};

use super::Fit;
use crate::said::Context;
use crate::wanted::Wanted;

/// The file of the detector that a fit chooses, in a directory: what it is called must be known before the fit.
const CHOSEN: &str = "auto.safetensors";

impl Fit {
    /// The detector files that may be written.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        // What cannot be parsed is told by the fit.
        let wanted = self.wanted().unwrap_or_default();
        self.files(wanted.iter().flat_map(|wanted| match wanted {
            Wanted::All => Spec::all().iter().map(file_name).collect(),
            Wanted::Auto => vec![CHOSEN.to_owned()],
            Wanted::Spec(spec) => vec![file_name(spec)],
        }))
    }

    /// The files that `fitted` is written to.
    pub(super) fn outputs_of(&self, fitted: &Fitted) -> Vec<PathBuf> {
        let chosen = fitted.choice.as_ref().map(Choice::spec);
        self.files(fitted.artifact.detectors().iter().map(|one| match one.detector().spec() {
            spec if Some(spec) == chosen.as_ref() => CHOSEN.to_owned(),
            spec => file_name(spec),
        }))
    }

    /// One file, or in a directory one of each of `names`.
    fn files(&self, names: impl Iterator<Item = String>) -> Vec<PathBuf> {
        match self.output.is_dir() {
            true => {
                let mut seen = BTreeSet::new();
                names.map(|name| self.output.join(name)).filter(|file| seen.insert(file.clone())).collect()
            }
            false => vec![self.output.clone()],
        }
    }

    /// Writes the statistics alone where asked to, and each detector to its own of `outputs`, or all to the only one.
    pub(super) fn write(&self, artifact: &Artifact, outputs: &[PathBuf], context: &Context) -> Result<()> {
        if let Some(path) = &self.save_statistics {
            artifact.save_statistics(path)?;
            context.note(format_args!("Wrote {}", path.display()));
        }
        for (place, output) in outputs.iter().enumerate() {
            match outputs.len() {
                1 => artifact.save(output)?,
                _ => artifact.part(place)?.save(output)?,
            }
            context.note(format_args!("Wrote {}", output.display()));
        }
        Ok(())
    }
}

/// Fails before the work rather than after it.
pub(super) fn check_destination(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => Err(Error::new(ErrorKind::Io, "no such directory")
            .file(path.display())
            .fix(format!("create {} first", parent.display()))),
        _ => Ok(()),
    }
}

/// `dice(0.9) | energy` as `dice-0.9-energy.safetensors`.
fn file_name(spec: &Spec) -> String {
    let words: Vec<String> = spec
        .to_string()
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+')))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.join("-") + ".safetensors"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_what_they_hold_and_no_two_alike() {
        let spec: Spec = "react(c=1) | dice(0.9, preset=official) | energy".parse().unwrap();
        assert_eq!(file_name(&spec), "react-c-1-dice-0.9-preset-official-energy.safetensors");
        let all = Spec::all();
        let names: std::collections::BTreeSet<String> = all.iter().map(file_name).collect();
        assert_eq!(names.len(), all.len());
    }
}
