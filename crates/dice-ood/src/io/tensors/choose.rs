//! Which tensor of a file is meant.

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::io::tensors::info::TensorInfo;

/// The tensor that `name` names, or else the first of `defaults` that fits, or else the only one that fits.
pub(crate) fn choose<'a>(
    tensors: &'a [TensorInfo],
    name: Option<&str>,
    defaults: &[&str],
    what: &str,
    fits: impl Fn(&TensorInfo) -> bool,
) -> Result<&'a TensorInfo> {
    if let Some(name) = name {
        return tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            Error::lacking(Missing::Tensor, listed(tensors)).tensor(name).expected("a tensor of that name")
        });
    }
    // An npy file holds one array: what is wrong with that array is said when it is opened.
    if let [only] = tensors
        && only.name.is_empty()
    {
        return Ok(only);
    }
    if let Some(tensor) = defaults.iter().find_map(|name| tensors.iter().find(|tensor| tensor.name == *name)) {
        return Ok(tensor);
    }
    let fitting: Vec<&TensorInfo> = tensors.iter().filter(|tensor| fits(tensor)).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => Err(Error::lacking(Missing::Tensor, listed(tensors))
            .tensor(what)
            .expected(format!("a tensor named {}", defaults.join(", ")))
            .fix("name one: FILE#TENSOR")),
        _ => Err(Error::new(ErrorKind::Ambiguous, listed(tensors))
            .tensor(what)
            .expected(format!("one tensor that can be {what}"))
            .fix("name one: FILE#TENSOR")),
    }
}

/// Tensors with their shapes, for messages; the first ten.
pub(crate) fn listed(tensors: &[TensorInfo]) -> String {
    if tensors.is_empty() {
        return "no tensors".into();
    }
    let shown: Vec<String> = tensors
        .iter()
        .take(10)
        .map(|tensor| if tensor.name.is_empty() { tensor.to_string() } else { format!("`{}` {tensor}", tensor.name) })
        .collect();
    let more = tensors.len().saturating_sub(10);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
