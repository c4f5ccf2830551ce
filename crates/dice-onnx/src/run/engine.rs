//! What runs a model, and what goes in and out.

use std::borrow::Cow;

use dice_ood::Result;
use half::f16;

use crate::model::Model;
use crate::model::head::FoundHead;
use crate::model::proto::ModelProto;
use crate::run::runtime::Level;
use crate::write::operators::Operators;
use crate::write::splice::{only_output, splice};

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

/// The tensor that a model is run up to.
pub(super) struct Wanted {
    /// Its name.
    pub(super) tensor: String,
    /// The features' name, by which a user knows it.
    pub(super) features: String,
    /// The operators that make it, where the model does not.
    made_by: Option<ModelProto>,
}

impl Wanted {
    /// The features of `found`, made of tensors of `model` where it has no tensor of them.
    pub(super) fn of(model: &Model, found: &FoundHead) -> Self {
        let features = found.features.clone();
        let Some(made) = &found.made else { return Self { tensor: features.clone(), features, made_by: None } };
        let proto = model.proto();
        let mut operators = Operators::of_run(proto.ir_version, proto.opsets().next().unwrap_or(1));
        let tensor = operators.rows(made, &features, found.units() as i64);
        let made_by = ModelProto { graph: Some(operators.into_graph()), ..ModelProto::default() };
        Self { tensor, features, made_by: Some(made_by) }
    }

    /// Whether the model makes it.
    pub(super) fn is_there(&self) -> bool {
        self.made_by.is_none()
    }

    /// The encoded `model` with this as its only output.
    ///
    /// # Errors
    /// As [`splice`].
    pub(super) fn only(&self, model: &[u8]) -> Result<Vec<u8>> {
        match &self.made_by {
            None => only_output(model, &self.tensor),
            Some(made_by) => only_output(&splice(model, made_by.clone())?, &self.tensor),
        }
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
