//! Running a network up to its features.

pub(crate) mod backbone;
mod builtin;
mod onnxruntime;
pub(crate) mod runtime;
