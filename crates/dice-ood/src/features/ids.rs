//! Names of inputs.

use std::fmt;

/// The name of an input, of the type that its source has it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A whole number of a source whose numbers need not fit `i64`.
    Unsigned(u64),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
        }
    }
}

/// The names of inputs `[n]`, all of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// Text.
    Text(Vec<String>),
    /// Whole numbers.
    Integer(Vec<i64>),
    /// Whole numbers of a source whose numbers need not fit `i64`.
    Unsigned(Vec<u64>),
}

impl Ids {
    /// The name of row `row`.
    pub fn get(&self, row: usize) -> Id {
        match self {
            Self::Text(all) => Id::Text(all[row].clone()),
            Self::Integer(all) => Id::Integer(all[row]),
            Self::Unsigned(all) => Id::Unsigned(all[row]),
        }
    }

    /// How many there are, n.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(all) => all.len(),
            Self::Integer(all) => all.len(),
            Self::Unsigned(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the names from `first` on, where names are text.
    #[cfg(feature = "columns")]
    pub(crate) fn bytes_from(&self, first: usize) -> usize {
        if let Self::Text(all) = self { all.iter().skip(first).map(String::len).sum() } else { 0 }
    }

    /// What they are, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "whole numbers",
            Self::Unsigned(_) => "unsigned whole numbers",
        }
    }

    /// Keeps the names of the rows that `keep` marks.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        fn marked<T>(all: &mut Vec<T>, keep: &[bool]) {
            let mut flags = keep.iter();
            all.retain(|_| *flags.next().unwrap_or(&false));
        }
        match self {
            Self::Text(all) => marked(all, keep),
            Self::Integer(all) => marked(all, keep),
            Self::Unsigned(all) => marked(all, keep),
        }
    }
}
