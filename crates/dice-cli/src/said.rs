//! What a command says: results to standard output, accounts of the run to standard error.

use std::io::Write;

use dice_ood::{Error, Result};

/// What every command knows.
pub(crate) struct Context {
    pub(crate) quiet: bool,
}

impl Context {
    /// Says something about the run on standard error, unless asked to be quiet.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Says that something is probably a mistake on standard error, also when asked to be quiet.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        complain(format_args!("\x1b[1;33mwarning\x1b[0m: {text}"));
    }
}

/// Writes to standard error; when that is full or closed there is nobody left to tell.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Writes results to standard output; a closed pipe is an error that `main` understands.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = anstream::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::io("standard output", error))
}

pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}
