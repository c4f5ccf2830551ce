//! Heads and features in PyTorch checkpoints, read without executing pickle.

use std::io::{Cursor, Read as _};
use std::path::Path;

use pytorch_reader::{DType as TorchType, PytorchReader, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::io::files;
use crate::io::guard::decode;
use crate::io::tensors::info::{DType, TensorInfo};
use crate::io::tensors::npz;
use crate::io::tensors::rows::{Bytes, TensorFile, TensorRows};

struct TorchFile {
    /// Bytes of the file: no tensor in it can be larger, as checkpoints are not compressed.
    length: u64,
    tensors: Vec<TensorInfo>,
    handles: Vec<Tensor>,
}

pub(super) fn open(path: &Path) -> Result<Box<dyn TensorFile>> {
    // The reader wants a file it can seek; missing files and directories get the plain message.
    let located = |error| Error::io(path, error);
    let mut file = files::open(path)?;
    let length = file.metadata().map_err(located)?.len();
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start).map_err(located)?;
    if start == b"PK" {
        // The reader takes one of two members of one name.
        npz::members(path)?;
    }
    let reader = decode(|| PytorchReader::new(path), malformed)?;
    let mut handles: Vec<Tensor> = reader.into_tensors().into_values().collect();
    handles.sort_by(|a, b| a.name.cmp(&b.name));
    let tensors = handles
        .iter()
        .map(|tensor| TensorInfo {
            name: tensor.name.clone(),
            dtype: dtype_of(tensor.dtype()),
            shape: tensor.shape().to_vec(),
        })
        .collect();
    Ok(Box::new(TorchFile { length, tensors, handles }))
}

impl TensorFile for TorchFile {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        let place = self.place(tensor);
        if tensor.byte_len().is_none_or(|bytes| bytes as u64 > self.length) {
            return Err(Error::new(ErrorKind::Unsupported, tensor.to_string())
                .tensor(&tensor.name)
                .expected(format!("values that a file of {} bytes can hold", self.length))
                .fix("an expanded or compressed tensor: save a contiguous copy of it"));
        }
        let bytes = decode(|| self.handles[place].read(), |found| malformed(found).tensor(&tensor.name))?;
        TensorRows::new(tensor, Bytes::RowMajor(Box::new(Cursor::new(bytes))), cfg!(target_endian = "big"))
    }
}

fn malformed(found: &str) -> Error {
    let error =
        Error::new(ErrorKind::Malformed, found).expected("a PyTorch checkpoint of plain tensors (a state dict)");
    // The reader's words for a file whose outermost object is not a dictionary.
    if found.contains("at the root of the PyTorch file") && found.ends_with("torch.Tensor") {
        return Error::new(ErrorKind::Unsupported, "a tensor alone, without a name")
            .expected("a dictionary of tensors")
            .fix("save it as torch.save({'features': tensor}, FILE), or as npy with numpy.save(FILE, tensor.numpy())");
    }
    error.fix("save it with torch.save(model.state_dict(), ...); code inside a pickle is never executed")
}

fn dtype_of(dtype: TorchType) -> DType {
    match dtype {
        TorchType::F64 => DType::F64,
        TorchType::F32 => DType::F32,
        TorchType::F16 => DType::F16,
        TorchType::BF16 => DType::BF16,
        TorchType::I64 => DType::I64,
        TorchType::I32 => DType::I32,
        TorchType::I16 => DType::I16,
        TorchType::I8 => DType::I8,
        TorchType::U64 => DType::U64,
        TorchType::U32 => DType::U32,
        TorchType::U16 => DType::U16,
        TorchType::U8 => DType::U8,
        TorchType::Bool => DType::Bool,
    }
}
