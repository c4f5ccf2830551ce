//! A file as its user names it, and the files that make one data set.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::io::files::{check_input, open};
use crate::io::format::Format;

/// A file, and which of its tensors or columns is meant: `path` or `path#name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// The tensor or column, where one was named.
    pub name: Option<String>,
}

impl Location {
    /// Parses `path` or `path#name`; a `#` that belongs to an existing file's name stays in the path.
    pub fn parse(text: &str) -> Self {
        match text.rsplit_once('#') {
            Some((path, name)) if !path.is_empty() && !name.is_empty() && !Path::new(text).exists() => {
                Self { path: path.into(), name: Some(name.into()) }
            }
            _ => Self { path: text.into(), name: None },
        }
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Whether this can be read only once, from front to end: standard input, a pipe, a device.
    pub(super) fn is_stream(&self) -> bool {
        self.is_stdin() || std::fs::metadata(&self.path).is_ok_and(|file| !file.is_file() && !file.is_dir())
    }

    pub(super) fn open_stream(&self) -> Result<Box<dyn Read + Send>> {
        check_input(&self.path)?;
        Ok(if self.is_stdin() { Box::new(io::stdin()) } else { Box::new(open(&self.path)?) })
    }
}

/// As [`Location::parse`].
impl From<&str> for Location {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

/// As [`Location::parse`].
impl From<&String> for Location {
    fn from(text: &String) -> Self {
        Self::parse(text)
    }
}

/// As [`Location::parse`].
impl From<String> for Location {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

/// The file at this path, whatever characters are in it.
impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        path.to_path_buf().into()
    }
}

/// The file at this path, whatever characters are in it.
impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        path.clone().into()
    }
}

/// The file at this path, whatever characters are in it.
impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self { path, name: None }
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Self {
        location.clone()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stdin() { f.write_str("standard input") } else { self.path.display().fmt(f) }
    }
}

/// The files that make one data set: paths, globs and directories, expanded; each with an optional `#name`.
///
/// A directory stands for all files in it that have a known extension, sorted by name.
///
/// # Errors
/// [`ErrorKind::Missing`] where a glob or directory holds nothing to read.
pub fn expand(inputs: &[String]) -> Result<Vec<Location>> {
    let mut files = Vec::new();
    for input in inputs {
        let location = Location::parse(input);
        let before = files.len();
        let pattern = location.path.to_string_lossy().into_owned();
        if location.path.is_dir() {
            let entries = std::fs::read_dir(&location.path).map_err(|error| Error::io(&location.path, error))?;
            for entry in entries {
                let path = entry.map_err(|error| Error::io(&location.path, error))?.path();
                if path.is_file() && Format::of_extension(&path).is_some() {
                    files.push(Location { path, name: location.name.clone() });
                }
            }
            files[before..].sort_by(|a, b| a.path.cmp(&b.path));
        } else if pattern.contains(['*', '?', '[']) && !location.path.exists() {
            let paths = glob::glob(&pattern).map_err(|error| {
                Error::new(ErrorKind::Argument, error.to_string()).file(&pattern).expected("a file or a glob pattern")
            })?;
            for path in paths {
                let path = path.map_err(|error| Error::io(input, error.into()))?;
                if path.is_file() {
                    files.push(Location { path, name: location.name.clone() });
                }
            }
        } else {
            files.push(location);
            continue;
        }
        if files.len() == before {
            return Err(Error::new(ErrorKind::Missing, "no such file")
                .file(input)
                .expected("files ending in .npy, .npz, .safetensors, .csv, .parquet or .arrow"));
        }
    }
    Ok(files)
}
