//! A file as its user names it, and the files that make one data set.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::io::files::{check_input, open};
use crate::io::format::Format;

/// A file, and which of its tensors or columns is meant: `path` or `path#name`.
///
/// Functions that read take anything that is one: text is parsed ([`Location::parse`]), a path stands for the file of that
/// name. `-` is standard input.
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

/// Text is parsed as by [`Location::parse`].
macro_rules! from_text {
    ($($text:ty),*) => {$(
        impl From<$text> for Location {
            fn from(text: $text) -> Self {
                Self::parse(&text)
            }
        }
    )*};
}

/// A path stands for the file of that name, whatever characters are in it.
macro_rules! from_path {
    ($($path:ty),*) => {$(
        impl From<$path> for Location {
            fn from(path: $path) -> Self {
                Self { path: path.into(), name: None }
            }
        }
    )*};
}

from_text!(&str, String, &String, &Cow<'_, str>);
from_path!(PathBuf, &PathBuf, &Path);

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
pub fn expand<I>(inputs: I) -> Result<Vec<Location>>
where
    I: IntoIterator<Item: Into<Location>>,
{
    let mut files = Vec::new();
    for input in inputs {
        let input = input.into();
        let Some(found) = members(&input)? else {
            files.push(input);
            continue;
        };
        if found.is_empty() {
            return Err(Error::lacking(Missing::Files, "no such file")
                .file(input.path.display())
                .expected("files ending in .npy, .npz, .safetensors, .csv, .parquet or .arrow"));
        }
        files.extend(found.into_iter().map(|path| Location { path, name: input.name.clone() }));
    }
    Ok(files)
}

/// The files of a directory or a pattern; `None` for anything else.
fn members(input: &Location) -> Result<Option<Vec<PathBuf>>> {
    let pattern = input.path.to_string_lossy();
    if input.path.is_dir() {
        return files_in(&input.path).map(Some);
    }
    if pattern.contains(['*', '?', '[']) && !input.path.exists() {
        return files_like(&pattern).map(Some);
    }
    Ok(None)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let located = |error: io::Error| Error::io(folder, error);
    let paths = std::fs::read_dir(folder).map_err(located)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().map_err(located)?;
    paths.retain(|path| path.is_file() && Format::of_extension(path).is_some());
    paths.sort();
    Ok(paths)
}

fn files_like(pattern: &str) -> Result<Vec<PathBuf>> {
    let paths = glob::glob(pattern).map_err(|error| {
        Error::caused_by(ErrorKind::Argument, error).file(pattern).expected("a file or a glob pattern")
    })?;
    let mut paths: Vec<PathBuf> =
        paths.collect::<std::result::Result<_, _>>().map_err(|error| Error::io(pattern, error.into()))?;
    paths.retain(|path| path.is_file());
    Ok(paths)
}
