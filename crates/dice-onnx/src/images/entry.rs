//! One image of a set.

use std::path::PathBuf;

use dice_ood::{Error, ErrorKind, Result};
use image::DynamicImage;

use crate::images::decode::{self, Decoded, Orientation};

/// One image of a set, not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path; `shard.tar/key.jpg`; the path that a Parquet table gives it, or `table.parquet:row`.
    pub id: String,
    /// The index of its class, where the set has labels.
    pub label: Option<i64>,
    /// Where its bytes are.
    pub image: Encoded,
}

/// An image as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// In a file of its own.
    File(PathBuf),
    /// The bytes of such a file.
    Bytes(Vec<u8>),
}

impl Entry {
    /// The pixels: see [`decode`](decode::decode).
    ///
    /// # Errors
    /// As [`decode`](decode::decode); [`ErrorKind::Missing`] where a table holds no bytes.
    pub fn decode(&self, orientation: Orientation) -> Result<DynamicImage> {
        self.decode_with(orientation, |_| 0).map(|decoded| decoded.image)
    }

    /// The pixels, with room for what is made of an image of a height and width: `besides` says how many bytes.
    pub(crate) fn decode_with(&self, orientation: Orientation, besides: impl Fn([usize; 2]) -> u64) -> Result<Decoded> {
        match &self.image {
            Encoded::File(path) => decode::decode_file(path, orientation, besides),
            Encoded::Bytes(bytes) if bytes.is_empty() => Err(Error::new(ErrorKind::Missing, "no bytes")
                .file(&self.id)
                .expected("an image")
                .fix("write the table with its images in it, not beside it")),
            Encoded::Bytes(bytes) => decode::decode_held(bytes, &self.id, orientation, besides),
        }
    }

    /// Bytes that it holds in memory.
    pub(crate) fn held(&self) -> usize {
        match &self.image {
            Encoded::File(_) => 0,
            Encoded::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Test sets are often said to be of class -1.
pub(super) fn is_label(label: Option<i64>) -> bool {
    label.is_some_and(|label| label >= 0)
}
