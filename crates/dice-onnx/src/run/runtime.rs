//! Which runtime runs a network.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Remedy, Result};

/// What runs a network: the runtime that is built in, or an ONNX Runtime that the user has.
///
/// Written `built-in` or `onnxruntime=PATH`, or `onnxruntime@LEVEL=PATH` with a [`Level`] of its optimisation. Features of the
/// two agree to 1e-4 of the largest feature for models that compute in f32. Models that compute in 8 bits round in places that
/// are each runtime's own choice, and differ by many of their own steps, up to a quarter of the largest feature in deep ones:
/// fit and score with the same runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Runtime {
    /// `rten`, in Rust: nothing to install.
    #[default]
    BuiltIn,
    /// ONNX Runtime 1.21 or newer, opened at run time: its shared library, or a folder that holds it, such as that of the
    /// Python package `onnxruntime`.
    OnnxRuntime {
        /// Where it is.
        library: PathBuf,
        /// How far it rewrites a model before it runs it.
        level: Level,
    },
}

/// How far a runtime rewrites a model before it runs it. Models in f32 give the same features at all levels, up to rounding; quantised
/// ones do not.
///
/// Written `none`, `basic`, `extended` or `all`, which ONNX Runtime calls `ORT_DISABLE_ALL` to `ORT_ENABLE_ALL`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Not at all.
    None,
    /// What does not change results.
    Basic,
    /// Operators merged for a kind of processor too.
    Extended,
    /// All that the runtime has, as it does by itself.
    #[default]
    All,
}

impl Level {
    const ALL: [Self; 4] = [Self::None, Self::Basic, Self::Extended, Self::All];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::Argument, crate::text::quoted(text))
                .tensor("optimisation level")
                .expected(Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// How [`Runtime::OnnxRuntime`] begins when written.
const ONNX_RUNTIME: &str = "onnxruntime";

/// What to do without a library of ONNX Runtime.
pub(super) const INSTALL: &str = "give the path of libonnxruntime.so (onnxruntime.dll, libonnxruntime.dylib) of a release of \
     ONNX Runtime, or of the folder of the Python package onnxruntime, which holds it";

impl Runtime {
    /// `built-in` or `onnxruntime`, without the path of its library.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::OnnxRuntime { .. } => ONNX_RUNTIME,
        }
    }

    /// The ONNX Runtime at `library`, as it runs models by itself.
    pub fn onnx_runtime(library: impl Into<PathBuf>) -> Self {
        Self::OnnxRuntime { library: library.into(), level: Level::All }
    }
}

impl FromStr for Runtime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = text.strip_prefix(ONNX_RUNTIME).and_then(|rest| rest.split_once('='));
        match named {
            Some(("", path)) if !path.is_empty() => Ok(Self::onnx_runtime(path)),
            Some((level, path)) if level.starts_with('@') && !path.is_empty() => {
                Ok(Self::OnnxRuntime { library: path.into(), level: level[1..].parse()? })
            }
            None if text == "built-in" => Ok(Self::BuiltIn),
            _ => Err(Error::new(ErrorKind::Argument, crate::text::quoted(text))
                .tensor("runtime")
                .expected("built-in or onnxruntime=PATH")
                .fix(INSTALL)),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::OnnxRuntime { library, level: Level::All } => write!(f, "{ONNX_RUNTIME}={}", library.display()),
            Self::OnnxRuntime { library, level } => write!(f, "{ONNX_RUNTIME}@{level}={}", library.display()),
        }
    }
}

/// The library at `path`, or in the folder `path`, as an absolute path.
///
/// # Errors
/// [`ErrorKind::Io`] where `path` does not exist, [`ErrorKind::Missing`] for a folder without it, [`ErrorKind::Malformed`] for a
/// file that is no whole library, which systems answer by killing the process that opens it.
pub(super) fn library(path: &Path) -> Result<PathBuf> {
    let kind =
        std::fs::metadata(path).map_err(|error| Error::io(path, error).fix(INSTALL).with_remedy(Remedy::Runtime))?;
    let file = match kind.is_dir() {
        false => path.to_owned(),
        true => ["", "capi", "onnxruntime/capi", "lib"]
            .iter()
            .find_map(|below| first_library(&path.join(below)))
            .ok_or_else(|| {
                Error::new(ErrorKind::Missing, "no ONNX Runtime in this folder")
                    .file(path.display())
                    .expected("libonnxruntime.so, onnxruntime.dll or libonnxruntime.dylib")
                    .fix(INSTALL)
                    .with_remedy(Remedy::Runtime)
            })?,
    };
    let file = std::path::absolute(&file).map_err(|error| Error::io(&file, error))?;
    check_whole(&file)?;
    Ok(file)
}

/// The library among the files of `folder`; of several the shortest name, to which the others are versions.
fn first_library(folder: &Path) -> Option<PathBuf> {
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| {
            let name = name.to_ascii_lowercase();
            let unix = name.strip_prefix("libonnxruntime").is_some_and(|rest| rest.starts_with('.'));
            name == "onnxruntime.dll" || unix && (name.contains(".so") || name.ends_with(".dylib"))
        })
        .collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    Some(folder.join(names.first()?))
}

/// Refuses pipes and devices, which would be waited for, and truncated ELF files, whose missing pages kill.
fn check_whole(file: &Path) -> Result<()> {
    let refuse = |found: &str| {
        Error::new(ErrorKind::Malformed, found)
            .file(file.display())
            .expected("a shared library of ONNX Runtime")
            .fix(INSTALL)
            .with_remedy(Remedy::Runtime)
    };
    let kind = std::fs::metadata(file).map_err(|error| Error::io(file, error))?;
    if !kind.is_file() {
        return Err(refuse("a pipe or device"));
    }
    let mut header = [0; 64];
    let mut opened = files::open(file)?;
    let read = std::io::Read::read_exact(&mut opened, &mut header);
    if read.is_err() {
        return Err(refuse("a file too short for a library"));
    }
    // An ELF file of 64 bits, least significant byte first, ends with its table of sections.
    if header.starts_with(b"\x7fELF\x02\x01") {
        let number = |start: usize, length: usize| {
            header[start..start + length].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let end = (number(58, 2) * number(60, 2)).checked_add(number(40, 8));
        if end.is_none_or(|end| end > kind.len()) {
            return Err(refuse("a truncated library"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn runtimes_are_written_as_they_are_read() {
        for text in ["built-in", "onnxruntime=/opt/lib/libonnxruntime.so", "onnxruntime@basic=a=b/"] {
            assert_eq!(text.parse::<Runtime>().unwrap().to_string(), text);
        }
        for text in ["", "onnxruntime", "onnxruntime=", "tensorrt", "Built-in"] {
            let error = text.parse::<Runtime>().unwrap_err().to_string();
            assert!(error.contains("onnxruntime=PATH"), "{error}");
        }
        let error = "onnxruntime@most=lib".parse::<Runtime>().unwrap_err().to_string();
        assert!(error.contains("`most`") && error.contains("none, basic, extended, all"), "{error}");
    }

    #[test]
    fn the_library_is_found_in_folders_and_broken_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = library(&folder.path().join("absent.so")).unwrap_err();
        assert!(error.kind() == ErrorKind::Io && error.remedy() == Some(Remedy::Runtime), "{error}");
        assert_eq!(library(folder.path()).unwrap_err().kind(), ErrorKind::Missing);
        let capi = folder.path().join("onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        for name in ["libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so", "onnxruntime.py"] {
            std::fs::write(capi.join(name), [b'x'; 100]).unwrap();
        }
        assert_eq!(library(folder.path()).unwrap(), capi.join("libonnxruntime.so.1.32.0"));
        let mut elf = [0; 100];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[40] = 80;
        elf[58..61].copy_from_slice(&[64, 0, 1]);
        let broken = folder.path().join("broken.so");
        for bytes in [&b"\x7fELF"[..], &elf] {
            std::fs::write(&broken, bytes).unwrap();
            assert_eq!(library(&broken).unwrap_err().kind(), ErrorKind::Malformed);
        }
    }
}
