//! Where a fit writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dice_ood::{Artifact, Error, ErrorKind, Result, Spec};

use super::Fit;
use crate::Context;
use crate::wanted::Wanted;

impl Fit {
    /// The detector files that may be written.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        let all = Spec::all();
        let specs = self.detectors.iter().flat_map(|wanted| match wanted {
            Wanted::All => all.iter().collect(),
            // It has no name before the fit: `Fit::run` refuses a directory for it.
            Wanted::Auto => Vec::new(),
            Wanted::Spec(spec) => vec![&**spec],
        });
        self.outputs_of(specs)
    }

    /// One file, or in a directory one for each of `specs`.
    pub(super) fn outputs_of<'a>(&self, specs: impl Iterator<Item = &'a Spec>) -> Vec<PathBuf> {
        match self.output.is_dir() {
            true => {
                let mut seen = BTreeSet::new();
                specs.map(|spec| self.output.join(file_name(spec))).filter(|file| seen.insert(file.clone())).collect()
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
