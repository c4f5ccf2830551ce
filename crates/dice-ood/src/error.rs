//! One error type: where, what was expected, what was found, what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use crate::statistics::needs::Need;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong; match on this, print the [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused: missing file, directory, permission, full disk.
    Io,
    /// Bytes are not what their format says: truncated, corrupted, another format.
    Malformed,
    /// Well-formed, but of a kind this crate does not read.
    Unsupported,
    /// Tensors whose shapes do not fit each other.
    Shape,
    /// Something that is needed and was not given: [`Error::missing`] says what.
    Missing,
    /// Several candidates, of which the caller has to name one.
    Ambiguous,
    /// Columns of a table that are not those wanted: missing, new, one too many, or of another kind.
    Columns,
    /// No rows where at least one is needed.
    Empty,
    /// NaN or infinity, with the row and column it stands in.
    NotFinite,
    /// A detector spec that does not parse.
    Spec,
    /// A calibration that the sample size cannot support, or a rate outside (0, 1).
    Calibration,
    /// An argument outside its domain.
    Argument,
}

/// What a caller can give, or choose otherwise, so that it works. Errors say what is missing; each front end knows how it is given
/// there: a flag, an argument, a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// The preprocessing that the network was trained with.
    Preprocessing,
    /// Another runtime for the network, or the library of one.
    Runtime,
    /// Features that were computed elsewhere, in place of images.
    Features,
    /// Another runtime, or features that were computed elsewhere.
    RuntimeOrFeatures,
    /// Arrays named as the inputs of the network, in place of images.
    Arrays,
    /// To go on without images that cannot be decoded.
    SkipBroken,
    /// To score inputs that hold NaN or infinity as out-of-distribution.
    AcceptNonFinite,
    /// A detector that was fitted to the model itself.
    FitToModel,
}

/// What an [`ErrorKind::Missing`] is about, for a front end that knows how each is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// A statistic that was not gathered from the training features.
    Statistic(Need),
    /// Statistics that can be merged: rows and their number.
    Statistics,
    /// Class labels.
    Labels,
    /// The names of the inputs.
    Ids,
    /// The linear head, or one of its two tensors.
    Head,
    /// Features: no files of them.
    Features,
    /// A file, or any file in a folder or of a pattern.
    Files,
    /// Inputs held out of the fit, on whose scores a combination rests.
    Reference,
    /// The tensor or column that [`Parts::tensor`] names, or one that can serve as it.
    Tensor,
}

/// An error that names the file and tensor, what was expected, what was found and how to fix it.
///
/// ```
/// # use dice_ood::{ErrorKind, LinearHead};
/// let error = LinearHead::from_rows(vec![1.0; 6], vec![0.0; 2], 4).unwrap_err();
/// assert_eq!(error.to_string(), "head weight: expected [2, 4] = 8 values, found 6 values");
/// assert_eq!(error.kind(), ErrorKind::Shape);
/// assert_eq!(error.parts().tensor.as_deref(), Some("head weight"));
/// ```
#[derive(Debug)]
pub struct Error(Box<Whole>);

#[derive(Debug)]
struct Whole {
    kind: ErrorKind,
    missing: Option<Missing>,
    remedy: Option<Remedy>,
    parts: Parts,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an [`Error`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parts {
    /// The file, or the input, that is wrong.
    pub file: Option<String>,
    /// The tensor or column in it.
    pub tensor: Option<String>,
    /// The argument, setting or resource that is wrong, where that is no tensor.
    pub argument: Option<String>,
    /// What would have been right.
    pub expected: Option<String>,
    /// What was found, or what happened.
    pub found: String,
    /// What the user can do.
    pub fix: Option<String>,
}

impl Error {
    /// An error of `kind`; `found` says what is there, or what happened.
    pub fn new(kind: ErrorKind, found: impl Into<String>) -> Self {
        let parts = Parts { found: found.into(), ..Parts::default() };
        Self(Box::new(Whole { kind, missing: None, remedy: None, parts, source: None }))
    }

    /// An error about something that was not given.
    pub fn lacking(missing: Missing, found: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Missing, found);
        error.0.missing = Some(missing);
        error
    }

    /// An error of `kind` that another one caused, whose text says what happened.
    pub fn caused_by(kind: ErrorKind, cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(kind, cause.to_string()).because(cause)
    }

    /// An operating-system error on `path`.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Malformed,
            _ => ErrorKind::Io,
        };
        Self::caused_by(kind, source).file(path.as_ref().display())
    }

    /// Names the error behind this one, which [`source`](StdError::source) gives back.
    pub fn because(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(cause));
        self
    }

    /// Names the file, unless an inner layer already has.
    pub fn file(mut self, file: impl fmt::Display) -> Self {
        self.0.parts.file.get_or_insert_with(|| file.to_string());
        self
    }

    /// Names the file as its user knows it, in place of a temporary copy.
    pub(crate) fn renamed(mut self, file: impl fmt::Display) -> Self {
        self.0.parts.file = Some(file.to_string());
        self
    }

    /// Names the tensor or column, unless an inner layer already has.
    pub fn tensor(mut self, tensor: impl fmt::Display) -> Self {
        let tensor = tensor.to_string();
        // The one array of an npy file has no name.
        self.0.parts.tensor.get_or_insert(if tensor.is_empty() { "array".into() } else { tensor });
        self
    }

    /// Names the argument, setting or resource, unless an inner layer already has.
    pub fn argument(mut self, argument: impl fmt::Display) -> Self {
        self.0.parts.argument.get_or_insert_with(|| argument.to_string());
        self
    }

    /// Says what would have been right.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.parts.expected = Some(expected.into());
        self
    }

    /// Says what the user can do.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.parts.fix = Some(fix.into());
        self
    }

    /// Says what can be given or chosen, for front ends that know how.
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.0.remedy = Some(remedy);
        self
    }

    /// What can be given or chosen so that it works.
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.remedy
    }

    /// Adds to what the user can do, as a front end does that knows how.
    pub fn and_fix(mut self, more: &str) -> Self {
        let fix = self.0.parts.fix.take().map_or_else(|| more.to_owned(), |fix| format!("{fix} ({more})"));
        self.0.parts.fix = Some(fix);
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is missing, where [`ErrorKind::Missing`] is about one of these.
    pub fn missing(&self) -> Option<Missing> {
        self.0.missing
    }

    /// What the error says, part by part.
    pub fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// The operating system's own error kind, where it was one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.0.source.as_ref()?.downcast_ref::<io::Error>().map(io::Error::kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.parts.fmt(f)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [&self.file, &self.argument, &self.tensor].into_iter().flatten() {
            write!(f, "{place}: ")?;
        }
        match &self.expected {
            Some(expected) => write!(f, "expected {expected}, found {}", self.found)?,
            None => f.write_str(&self.found)?,
        }
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_parts_and_keeps_its_cause() {
        let cause = serde_json::from_str::<u8>("x").unwrap_err();
        let error = Error::caused_by(ErrorKind::Malformed, cause).file("a.json").tensor("").expected("a number");
        assert_eq!(error.to_string(), "a.json: array: expected a number, found expected value at line 1 column 1");
        assert!(error.source().is_some_and(|source| source.is::<serde_json::Error>()));
        assert_eq!((error.io_kind(), error.missing()), (None, None));
        let full = Error::io("b", io::ErrorKind::StorageFull.into()).fix("make room").and_fix("or buy some");
        assert_eq!((full.kind(), full.io_kind()), (ErrorKind::Io, Some(io::ErrorKind::StorageFull)));
        assert_eq!(full.parts().fix.as_deref(), Some("make room (or buy some)"));
        let absent = Error::lacking(Missing::Statistic(Need::Bank), "none").argument("k").file("c").file("d");
        assert_eq!((absent.kind(), absent.missing()), (ErrorKind::Missing, Some(Missing::Statistic(Need::Bank))));
        assert_eq!(absent.to_string(), "c: k: none");
    }
}
