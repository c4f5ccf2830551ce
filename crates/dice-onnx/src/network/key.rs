//! What features depend on, so that they can be kept and known again.

use std::io::Read;
use std::path::Path;

use dice_ood::io::{ArrayRows, ArrayValues, Arrays, Dataset, Extent, files};
use dice_ood::{Error, Ids, Result};
use sha2::{Digest, Sha256};

use crate::images::entry::Encoded;
use crate::images::set::ImageSet;
use crate::network::Network;
use crate::network::origin::Origin;

/// All that the features of some inputs depend on, as one number: the model, the tensor, the preprocessing, the runtime, this
/// version, and the bytes and names of the inputs in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// SHA-256 in hexadecimal.
    pub hash: String,
    /// How many inputs there are, N.
    pub rows: u64,
    /// Their class labels `[N]`, where they have them; the hash does not depend on labels.
    pub labels: Option<Vec<i64>>,
}

/// What is made of the same bytes by the same model: to be raised with every change of what decoding, resizing or a runtime gives.
const MAKING: u64 = 2;

/// Inputs that are hashed at a time.
const ROWS: usize = 1 << 12;

impl Network {
    /// The key of the features of `set`; all of its images are read, none is decoded.
    ///
    /// # Errors
    /// Those of [`ImageSet::entries`].
    pub fn key(&self, set: &ImageSet) -> Result<Key> {
        let mut hash = Hash::of(self.origin());
        let (mut rows, mut labels) = (0, Vec::new());
        for entry in set.entries() {
            let entry = entry?;
            hash.part(entry.id.as_bytes());
            match &entry.image {
                // What cannot be read is told of when it is decoded.
                Encoded::File(path) => hash.part(&of_file(path).unwrap_or_default()),
                Encoded::Bytes(bytes) => hash.part(bytes),
            }
            labels.extend(entry.label);
            rows += 1;
        }
        Ok(Key { hash: hash.finish(), rows, labels: set.labelled().then_some(labels) })
    }

    /// The key of the features of `data`, arrays named as the model's inputs; all of them are read.
    ///
    /// # Errors
    /// As [`Network::features_of_arrays`], and those of reading.
    pub fn key_of_arrays(&self, data: &Dataset) -> Result<Key> {
        let mut reader = self.features_of_arrays(data)?.into_reader();
        let mut hash = Hash::of(self.origin());
        let (mut rows, mut labels) = (0, None);
        loop {
            let read = reader.read(ROWS)?;
            if read.rows == 0 {
                break;
            }
            hash.arrays(&read);
            rows += read.rows as u64;
            if let Some(its) = read.labels {
                labels.get_or_insert_with(Vec::new).extend(its);
            }
        }
        Ok(Key { hash: hash.finish(), rows, labels })
    }
}

/// The SHA-256 of a file.
fn of_file(path: &Path) -> Result<Vec<u8>> {
    let mut file = files::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(|error| Error::io(path, error))? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}

struct Hash(Sha256);

impl Hash {
    /// Of what makes features of inputs; where the model lies does not matter.
    fn of(origin: &Origin) -> Self {
        let mut hash = Self(Sha256::new());
        hash.number(MAKING);
        hash.part(env!("CARGO_PKG_VERSION").as_bytes());
        let Origin { model: _, fingerprint, head, features, prepared, runtime, level } = origin;
        let level = level.as_deref().unwrap_or_default();
        for part in [fingerprint, head, features, &format!("{prepared:?}"), runtime, level] {
            hash.part(part.as_bytes());
        }
        hash
    }

    /// Adds bytes, and where they end.
    fn part(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn arrays(&mut self, read: &Arrays) {
        self.number(read.rows as u64);
        for array in &read.arrays {
            match array {
                Some(array) => self.array(array),
                None => self.part(b"none"),
            }
        }
        match &read.ids {
            Some(Ids::Text(ids)) => ids.iter().for_each(|id| self.part(id.as_bytes())),
            Some(Ids::Integer(ids)) => ids.iter().for_each(|id| self.number(id.cast_unsigned())),
            Some(Ids::Unsigned(ids)) => ids.iter().for_each(|id| self.number(*id)),
            None => self.part(b"none"),
        }
    }

    fn array(&mut self, array: &ArrayRows) {
        let (Extent::Shape(extents) | Extent::Lists(extents)) = &array.extent;
        self.part(if matches!(array.extent, Extent::Shape(_)) { b"shape" } else { b"lists" });
        self.number(extents.len() as u64);
        extents.iter().for_each(|extent| self.number(*extent as u64));
        match &array.values {
            ArrayValues::Floats(values) => values.iter().for_each(|value| self.0.update(value.to_le_bytes())),
            ArrayValues::Integers(values) => values.iter().for_each(|value| self.0.update(value.to_le_bytes())),
        }
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
