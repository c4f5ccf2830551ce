//! Streams: their first bytes, and temporary copies of them.

use std::fs::File;
use std::io::{self, Read, Seek};

use crate::error::{Error, ErrorKind, Result};
use crate::io::files::Temporary;
use crate::io::tensors::rows::corrupt_or;

/// The first bytes of a stream, at most `count`; a pipe may hand them out one by one.
pub(super) fn peek(input: &mut dyn Read, count: u64) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    input.take(count).read_to_end(&mut start).map_err(|error| Error::caused_by(ErrorKind::Io, error))?;
    Ok(start)
}

pub(super) fn spool(input: &mut dyn Read) -> Result<(File, Temporary)> {
    let copying = |error: io::Error| {
        corrupt_or(error, |error| Error::new(ErrorKind::Io, format!("a temporary copy cannot be made: {error}")))
    };
    let (mut file, copy) = Temporary::file().map_err(copying)?;
    io::copy(input, &mut file).map_err(copying)?;
    file.rewind().map_err(copying)?;
    Ok((file, copy))
}
