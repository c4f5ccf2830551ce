//! Running a network up to its features.

pub(crate) mod backbone;
mod builtin;
mod engine;
pub(crate) mod input;
mod instead;
mod onnxruntime;
pub(crate) mod runtime;
pub(crate) mod whole;
