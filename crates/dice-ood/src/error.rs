//! One error type: where, what was expected, what was found, what to do.

use std::fmt;
use std::io;
use std::path::Path;

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
    /// A tensor, column or statistic that is not there.
    Missing,
    /// Several candidates, and no telling which is meant.
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
    /// To go on without images that cannot be decoded.
    SkipBroken,
    /// To score inputs that hold NaN or infinity as out-of-distribution.
    AcceptNonFinite,
    /// A detector that was fitted to the model itself.
    FitToModel,
}

/// An error that names the file and tensor, what was expected, what was found and how to fix it.
///
/// ```
/// # use dice_ood::LinearHead;
/// let error = LinearHead::from_rows(vec![1.0; 6], vec![0.0; 2], 4).unwrap_err();
/// assert_eq!(error.to_string(), "head weight: expected [2, 4] = 8 values, found 6 values");
/// ```
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    file: Option<String>,
    tensor: Option<String>,
    expected: Option<String>,
    found: String,
    fix: Option<String>,
    remedy: Option<Remedy>,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind`; `found` says what is there, or what happened.
    pub fn new(kind: ErrorKind, found: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            file: None,
            tensor: None,
            expected: None,
            found: found.into(),
            fix: None,
            remedy: None,
            source: None,
        }))
    }

    /// An operating-system error on `path`.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Malformed,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, source.to_string()).file(path.as_ref().display());
        error.0.source = Some(source);
        error
    }

    /// Names the file, unless an inner layer already has.
    pub fn file(mut self, file: impl fmt::Display) -> Self {
        self.0.file.get_or_insert_with(|| file.to_string());
        self
    }

    /// Names the file as its user knows it, in place of a copy of ours.
    pub(crate) fn renamed(mut self, file: impl fmt::Display) -> Self {
        self.0.file = Some(file.to_string());
        self
    }

    /// Names the tensor or column, unless an inner layer already has.
    pub fn tensor(mut self, tensor: impl fmt::Display) -> Self {
        let tensor = tensor.to_string();
        // The one array of an npy file has no name.
        self.0.tensor.get_or_insert(if tensor.is_empty() { "array".into() } else { tensor });
        self
    }

    /// Says what would have been right.
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// Says what the user can do.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
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
        let fix = self.0.fix.take().map_or_else(|| more.to_owned(), |fix| format!("{fix} ({more})"));
        self.0.fix = Some(fix);
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operating system's own error kind, where it was one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.0.source.as_ref().map(io::Error::kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        if let Some(file) = &parts.file {
            write!(f, "{file}: ")?;
        }
        if let Some(tensor) = &parts.tensor {
            write!(f, "{tensor}: ")?;
        }
        match &parts.expected {
            Some(expected) => write!(f, "expected {expected}, found {}", parts.found)?,
            None => f.write_str(&parts.found)?,
        }
        match &parts.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
