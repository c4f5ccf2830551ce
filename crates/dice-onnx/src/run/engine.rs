//! What runs a model, and what goes in and out.

use std::borrow::Cow;

use half::f16;

/// What to do where the built-in runtime cannot run a model.
pub(super) const INSTEAD: &str = "ONNX Runtime may run it; or compute the features where you train";

/// A model that a runtime has prepared, from its inputs to its features tensor. Errors are the runtime's own words.
pub(super) trait Engine: Send + Sync {
    /// The features tensor of `inputs`, one for each of the model's, in its order.
    fn run(&self, inputs: &[InputTensor<'_>]) -> std::result::Result<FeatureTensor, String>;

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

/// A features tensor, its stored values converted to f32.
pub(super) struct FeatureTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) are_integers: bool,
}
