//! What runs a model, and what goes in and out.

use std::borrow::Cow;

use half::f16;

use crate::run::runtime::Level;

/// What to do where the built-in runtime cannot run a model.
pub(super) const INSTEAD: &str = "ONNX Runtime may run it; or compute the features where you train";

/// A model that a runtime has prepared, from its inputs to the tensors that were asked for. Errors are the runtime's own words.
pub(super) trait Engine: Send + Sync {
    /// The tensors that `inputs`, one for each of the model's in its order, give: the one that was asked for, or all outputs.
    fn run(&self, inputs: &[InputTensor<'_>]) -> std::result::Result<Vec<OutputTensor>, String>;

    /// How far the runtime rewrote the model.
    fn level(&self) -> Level;

    /// The most rows of inputs that are worth running together.
    fn most_at_once(&self) -> usize {
        usize::MAX
    }
}

/// An input, the number of whose values fits its shape.
pub(super) struct InputTensor<'a> {
    pub(super) values: InputValues<'a>,
    pub(super) shape: Vec<usize>,
}

/// Values as a model takes them.
pub(super) enum InputValues<'a> {
    Float32(Cow<'a, [f32]>),
    Float16(Vec<f16>),
    Float64(Vec<f64>),
    Uint8(Vec<u8>),
    Int8(Vec<i8>),
    Int32(Vec<i32>),
    Int64(Cow<'a, [i64]>),
    Bool(Vec<bool>),
}

/// A tensor that a runtime gives, its stored values converted to f32.
pub(super) struct OutputTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) are_integers: bool,
}
