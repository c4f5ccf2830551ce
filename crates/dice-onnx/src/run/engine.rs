//! What runs a model, and what goes in and out.

use half::f16;

/// What to do where the built-in runtime cannot run a model.
pub(super) const INSTEAD: &str = "ONNX Runtime may run it; or compute the features where you train";

/// A model that a runtime has prepared, from its one input to its features tensor. Errors are the runtime's own words.
pub(super) trait Engine: Send + Sync {
    /// The features tensor of `pixels`, whose number fits `shape`.
    fn run(&self, pixels: Pixels<'_>, shape: &[usize]) -> std::result::Result<FeatureTensor, String>;

    /// The most images that are worth running together.
    fn most_at_once(&self) -> usize {
        usize::MAX
    }
}

/// Pixels as a model takes them.
pub(super) enum Pixels<'a> {
    Float32(&'a [f32]),
    Float16(Vec<f16>),
    Float64(Vec<f64>),
    Uint8(Vec<u8>),
    Int8(Vec<i8>),
}

/// A features tensor, its stored values converted to f32.
pub(super) struct FeatureTensor {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) are_integers: bool,
}
