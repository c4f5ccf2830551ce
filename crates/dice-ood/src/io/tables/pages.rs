//! Headers of Parquet pages.

use std::io::Read;

use crate::error::{Error, ErrorKind, Result};

/// What the header of a page says, in the compact protocol of Thrift, of which this is all that is needed.
pub(super) struct PageHeader {
    pub(super) is_dictionary: bool,
    /// Of the page once it is decompressed, or as it is stored if that is more.
    pub(super) bytes: u64,
    /// Of the page as it is stored.
    pub(super) compressed: u64,
    /// Of the header itself.
    pub(super) length: u64,
}

impl PageHeader {
    /// Reads a header of at most `most` bytes.
    pub(super) fn read(input: &mut impl Read, most: u64) -> Result<Self> {
        const DICTIONARY: i64 = 2;
        let mut thrift = Thrift(input.take(most));
        let mut fields = [None; 4];
        let mut last = 0;
        while let Some((id, kind)) = thrift.field(last)? {
            last = id;
            match fields.get_mut(id as usize) {
                Some(field) if field.is_none() && matches!(kind, 4..=6) => *field = Some(thrift.integer()?),
                Some(_) => return Err(broken("the header of a page of another form")),
                None => thrift.skip(kind, 0)?,
            }
        }
        let length = most - thrift.0.limit();
        match fields {
            [None, Some(kind), Some(bytes @ 0..), Some(compressed @ 0..)] => Ok(Self {
                is_dictionary: kind == DICTIONARY,
                // What is not compressed is as it is stored.
                bytes: bytes.max(compressed) as u64,
                compressed: compressed as u64,
                length,
            }),
            _ => Err(broken("the header of a page of another form")),
        }
    }
}

struct Thrift<R>(std::io::Take<R>);

impl<R: Read> Thrift<R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).map_err(|error| broken(&error.to_string()).because(error))?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("a number without end"))
    }

    fn integer(&mut self) -> Result<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// The id and type of the next field; `None` at the end of the structure.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        Ok(match (byte >> 4, byte & 0xf) {
            (_, 0) => None,
            (0, kind) => Some((self.integer()?.max(0), kind)),
            (step, kind) => Some((last.saturating_add(step.into()), kind)),
        })
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        const DEEPEST: usize = 8;
        match kind {
            // Booleans are their own type.
            1 | 2 => {}
            3 => _ = self.byte()?,
            4..=6 => _ = self.varint()?,
            7 => (0..8).try_for_each(|_| self.byte().map(|_| ()))?,
            8 => {
                let length = self.varint()?;
                let skipped = std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink());
                if skipped.map_err(|error| broken(&error.to_string()).because(error))? != length {
                    return Err(broken("the end of the data"));
                }
            }
            12 if depth < DEEPEST => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    last = id;
                    self.skip(kind, depth + 1)?;
                }
            }
            // Headers of pages have no lists.
            _ => return Err(broken("the header of a page of another form")),
        }
        Ok(())
    }
}

pub(super) fn broken(found: &str) -> Error {
    Error::new(ErrorKind::Malformed, found.trim_start_matches("Parquet error: "))
        .expected("a complete Parquet file")
        .fix("the file is truncated or corrupt: fetch or write it again")
}
