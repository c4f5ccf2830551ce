//! Headers of safetensors files that are written.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use crate::error::{Error, ErrorKind, Result};

/// The header of a safetensors file, whose tensors lie in the order in which they are declared.
#[derive(Default)]
pub(crate) struct HeaderWriter {
    tensors: BTreeMap<String, TensorInfo>,
    end: usize,
}

impl HeaderWriter {
    pub(crate) fn declare(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: usize) {
        let data_offsets = (self.end, self.end + bytes);
        self.tensors.insert(name.to_owned(), TensorInfo { dtype, shape: shape.to_vec(), data_offsets });
        self.end += bytes;
    }

    /// Length and JSON, padded so that the tensors are aligned; keys are sorted.
    pub(crate) fn bytes(self, metadata: impl IntoIterator<Item = (String, String)>) -> Result<Vec<u8>> {
        let malformed = |error: serde_json::Error| Error::caused_by(ErrorKind::Malformed, error);
        let mut entries = BTreeMap::new();
        let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
        entries.insert("__metadata__".to_owned(), serde_json::to_value(metadata).map_err(malformed)?);
        for (name, tensor) in self.tensors {
            entries.insert(name, serde_json::to_value(tensor).map_err(malformed)?);
        }
        let mut json = serde_json::to_vec(&entries).map_err(malformed)?;
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut json);
        Ok(bytes)
    }
}
