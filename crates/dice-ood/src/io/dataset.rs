//! Where features are read from, and what goes with them.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::io::files::{Temporary, check_input};
use crate::io::location::{Location, expand};
use crate::io::request::Columns;
use crate::io::spool::spool;
use crate::io::vectors::read_labels;

/// Where features are read from, and what goes with them. Can be opened again and again, but for standard input and
/// pipes: see [`Dataset::rereadable`].
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(super) files: Vec<Location>,
    /// What the files are called in messages: a copy of standard input keeps its name.
    pub(super) shown: Vec<Arc<str>>,
    pub(super) labels: Option<(Location, Arc<Vec<i64>>)>,
    /// Whether labels beside the features are read.
    pub(super) wants_labels: bool,
    /// Whether names of the inputs are read.
    pub(super) wants_ids: bool,
    pub(super) columns: Arc<Columns>,
    /// Names of the units, in order; empty where they are not known.
    pub(super) units: Arc<[String]>,
    /// Number of units, where it is known.
    pub(super) width: Option<usize>,
    /// Streams, copied to temporary files where they have to be read more than once.
    pub(super) spooled: Vec<Arc<Temporary>>,
}

impl Dataset {
    /// The data set of `inputs`: paths, globs, directories, `-`; each with an optional `#name`.
    ///
    /// # Errors
    /// As [`expand`].
    pub fn new<I>(inputs: I) -> Result<Self>
    where
        I: IntoIterator<Item: Into<Location>>,
    {
        let files = expand(inputs)?;
        if files.is_empty() {
            return Err(Error::lacking(Missing::Features, "no feature files"));
        }
        if files.iter().filter(|file| file.is_stdin()).count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        files.iter().try_for_each(|file| check_input(&file.path))?;
        let shown = files.iter().map(|file| file.to_string().into()).collect();
        Ok(Self {
            files,
            shown,
            labels: None,
            wants_labels: true,
            wants_ids: true,
            columns: Arc::default(),
            units: Arc::default(),
            width: None,
            spooled: Vec::new(),
        })
    }

    /// Takes the labels `[N]` from a file of their own.
    ///
    /// # Errors
    /// Those of reading, and [`ErrorKind::Malformed`] for labels that are not whole numbers.
    pub fn with_labels(mut self, file: impl Into<Location>) -> Result<Self> {
        let file = file.into();
        let labels = Arc::new(read_labels(&file)?);
        self.labels = Some((file, labels));
        Ok(self)
    }

    /// Leaves labels beside the features unread, so that malformed labels are no error.
    pub fn without_labels(mut self) -> Self {
        self.wants_labels = false;
        self
    }

    /// Leaves the names of the inputs unread, so that malformed names are no error.
    pub fn without_ids(mut self) -> Self {
        self.wants_ids = false;
        self
    }

    /// Reads the names of the inputs, as is the rule.
    pub fn with_ids(mut self) -> Self {
        self.wants_ids = true;
        self
    }

    /// Takes columns of tables for what `columns` says.
    pub fn with_columns(mut self, columns: &Columns) -> Self {
        self.columns = Arc::new(columns.clone());
        self
    }

    /// Expects features of `width` units. Where `names` has the columns that a fit took them from (see [`Layout::units`](crate::Layout::units)),
    /// tables are put into that order, and one of other columns is refused; without names, columns are taken in the order
    /// of the table.
    pub fn with_units(mut self, width: usize, names: &[String]) -> Self {
        self.width = Some(width);
        self.units = names.into();
        self
    }

    /// Copies standard input and pipes to temporary files, so that the data can be read more than once.
    ///
    /// # Errors
    /// Those of reading and of writing the copy.
    pub fn rereadable(mut self) -> Result<Self> {
        for stream in self.files.iter_mut().filter(|file| file.is_stream()) {
            let (_, spooled) = spool(&mut stream.open_stream()?)?;
            stream.path = spooled.path().to_path_buf();
            self.spooled.push(Arc::new(spooled));
        }
        Ok(self)
    }

    /// Calls the data `name` in messages, as for a temporary copy of it.
    pub fn called(mut self, name: &str) -> Self {
        self.shown = vec![name.into(); self.files.len()];
        self
    }

    /// What the files are called in messages.
    pub fn names(&self) -> &[Arc<str>] {
        &self.shown
    }

    /// The files, expanded.
    pub fn files(&self) -> &[Location] {
        &self.files
    }
}
