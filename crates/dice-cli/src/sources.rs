//! Which bytes a page rests on: SHA-256 of its inputs, as `sha256sum` prints it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Bytes that are in memory of each file that is read.
const BUFFER: usize = 1 << 16;

/// Files that were read for one purpose, and what they held.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    /// What they are.
    pub(crate) role: &'static str,
    /// The name of a set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) set: Option<String>,
    /// As they were named.
    pub(crate) given: Vec<String>,
    /// How many files there are.
    pub(crate) files: usize,
    /// Of one file its SHA-256; of several that of a list of them. `None` for streams, which can be read only once.
    pub(crate) sha256: Option<String>,
}

impl Source {
    /// Reads `files`, those that `given` stands for.
    ///
    /// The list of several files is what `sha256sum` prints of them, in the order of their names: the hash of each, two spaces, its path
    /// below the innermost folder that holds them all, a line feed.
    pub(crate) fn of(role: &'static str, given: &[String], files: &[PathBuf]) -> Result<Self> {
        let sha256 = match files {
            _ if !files.iter().all(|file| file.is_file()) => None,
            [file] => Some(hash(file)?),
            files => Some(hash_of_list(files)?),
        };
        Ok(Self { role, set: None, given: given.to_vec(), files: files.len(), sha256 })
    }

    /// The same of one file.
    pub(crate) fn of_file(role: &'static str, file: &Path) -> Result<Self> {
        Self::of(role, &[file.display().to_string()], &[file.to_path_buf()])
    }

    /// Under the name of a set.
    pub(crate) fn called(self, set: &str) -> Self {
        Self { set: Some(set.to_owned()), ..self }
    }
}

fn hash_of_list(files: &[PathBuf]) -> Result<String> {
    let folder = common_folder(files);
    let mut lines: Vec<(String, String)> = files
        .par_iter()
        .map(|file| {
            let below = file.strip_prefix(folder).unwrap_or(file);
            let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            Ok((parts.join("/"), hash(file)?))
        })
        .collect::<Result<_>>()?;
    lines.sort();
    let mut all = Sha256::new();
    lines.iter().for_each(|(name, hash)| all.update(format!("{hash}  {name}\n")));
    Ok(hexadecimal(&all.finalize()))
}

/// The innermost folder that holds all files.
fn common_folder(files: &[PathBuf]) -> &Path {
    let first = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
    first.ancestors().find(|folder| files.iter().all(|file| file.starts_with(folder))).unwrap_or(Path::new(""))
}

fn hash(path: &Path) -> Result<String> {
    let mut file = files::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer).map_err(|error| Error::io(path, error))? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_below_the_folder_that_holds_them() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (names, folder) in [
            (&["a/b/x", "a/b/y"][..], "a/b"),
            (&["a/b/x", "a/c/y"], "a"),
            (&["a/b/x", "a/bc/y"], "a"),
            (&["/a/x", "/b/y"], "/"),
            (&["a/x", "b/y"], ""),
        ] {
            assert_eq!(common_folder(&paths(names)), Path::new(folder), "{names:?}");
        }
    }
}
