//! Networks in the runtime that is built in (`rten`).

use std::sync::Arc;

use dice_ood::io::guard;
use dice_ood::{Error, ErrorKind, Remedy, Result};
use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{Layout as _, Tensor, TensorView, prelude::*};

use crate::model::Model;
use crate::model::element;
use crate::model::external;
use crate::model::proto::TensorProto;
use crate::model::tensor::{count_of, shape_of};
use crate::run::engine::{Engine, INSTEAD, InputTensor, InputValues, OutputTensor, Wanted};
use crate::run::input::{Element, ModelInput};
use crate::run::instead::with_known_operators;
use crate::run::runtime::Level;
use crate::text::quoted;
use crate::write::splice::replace_initializers;

/// More images than this leave the caches between operators: 32 run at half to four fifths of the speed.
const AT_ONCE: usize = 8;

pub(super) struct BuiltIn {
    model: rten::Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    options: RunOptions,
    level: Level,
}

impl BuiltIn {
    /// `model` up to what is `wanted`, or with all its outputs.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an operator or a type of input that the runtime lacks.
    pub(super) fn new(model: &Model, inputs: &[ModelInput], wanted: Option<&Wanted>) -> Result<Self> {
        let unsupported = |what: String| {
            Error::new(ErrorKind::Unsupported, what)
                .file(model.path().display())
                .expected("a model that the built-in runtime can run")
                .fix(INSTEAD)
                .with_remedy(Remedy::RuntimeOrFeatures)
        };
        let lacking = |input: &&ModelInput| matches!(input.element, Element::Float16 | Element::Float64);
        if let Some(input) = inputs.iter().find(lacking) {
            return Err(unsupported(format!("an input of {}", input.element)));
        }
        let located = |error: Error| error.file(model.path().display());
        let whole = with_weights(model).map_err(located)?;
        let bytes = whole.as_deref().unwrap_or(model.bytes());
        let rewritten = with_known_operators(model.proto(), bytes).map_err(located)?;
        let options = |optimise: bool| {
            let mut options = ModelOptions::with_all_ops();
            options.enable_optimization(optimise);
            options
        };
        let guarded_load =
            |load: &dyn Fn() -> std::result::Result<rten::Model, rten::LoadError>| guard(load).map_err(unsupported);
        let mut level = Level::All;
        let loaded = if whole.is_some() || !model.tensors().any(TensorProto::is_external) {
            // Optimisers keep the tensors of outputs: as the only output the features stay a tensor of their own.
            let bytes = rewritten.as_deref().unwrap_or(bytes);
            let pruned = wanted.map_or(Ok(bytes.to_vec()), |wanted| wanted.only(bytes)).map_err(located)?;
            guarded_load(&|| options(true).load(pruned.clone()))?
        } else if rewritten.is_none() && wanted.is_none_or(Wanted::is_there) {
            // The runtime looks for weights in other files beside the model file, so that this is opened by its path.
            let loaded = guarded_load(&|| options(true).load_file(model.path()))?;
            match wanted.map(|wanted| loaded.find_node(&wanted.tensor)) {
                Some(None) => {
                    level = Level::None;
                    guarded_load(&|| options(false).load_file(model.path()))?
                }
                _ => loaded,
            }
        } else {
            let what = format!(
                "operators to be replaced or added, with more than {} MiB of weights in other files",
                MOST_WEIGHTS >> 20
            );
            return Err(unsupported(what));
        };
        let node =
            |name: &str| loaded.find_node(name).ok_or_else(|| unsupported(format!("no tensor {}", quoted(name))));
        let outputs = match wanted {
            Some(wanted) => vec![node(&wanted.tensor)?],
            None => loaded.output_ids().to_vec(),
        };
        let inputs = inputs.iter().map(|input| node(&input.name)).collect::<Result<Vec<_>>>()?;
        // The default of rten is the number of physical cores, whatever number of threads was asked for.
        let pool = ThreadPool::with_num_threads(rayon::current_num_threads());
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(pool)));
        Ok(Self { model: loaded, inputs, outputs, options, level })
    }
}

/// Most bytes of weights in other files that become a part of the model in memory.
const MOST_WEIGHTS: usize = 512 << 20;

/// The model with the weights that lie in other files; `None` where it has none such, or more than [`MOST_WEIGHTS`].
///
/// rten 0.27 wants an offset for each tensor, and files beside the model whose names end in `.data`.
fn with_weights(model: &Model) -> Result<Option<Vec<u8>>> {
    let bytes = |tensor: &TensorProto| -> Option<usize> {
        count_of(&shape_of(tensor).ok()?).ok()?.checked_mul(element::size(tensor.data_type)?)
    };
    let graph = model.proto().graph.iter();
    let inside = graph.flat_map(|graph| &graph.initializer).filter(|tensor| tensor.is_external());
    let total = inside.clone().try_fold(0usize, |total, tensor| total.checked_add(bytes(tensor)?));
    let all = model.tensors().filter(|tensor| tensor.is_external()).count();
    if all == 0 || inside.count() < all || total.is_none_or(|total| total > MOST_WEIGHTS) {
        return Ok(None);
    }
    let taken_in = |tensor: TensorProto| {
        let Some(wanted) = bytes(&tensor).filter(|_| tensor.is_external()) else { return Ok(None) };
        let raw_data =
            external::read(&tensor, model.folder(), wanted).map_err(|error| error.tensor(quoted(&tensor.name)))?;
        Ok(Some(TensorProto { raw_data: Some(raw_data), external_data: Vec::new(), data_location: 0, ..tensor }))
    };
    replace_initializers(model.bytes(), taken_in).map(Some)
}

/// An input for rten, which has 32 bits for whole numbers of 64 bits and for truth values.
fn view<'a>(input: &'a InputTensor<'_>) -> std::result::Result<ValueOrView<'a>, String> {
    let shape = &*input.shape;
    Ok(match &input.values {
        InputValues::Float32(values) => TensorView::from_data(shape, &**values).into(),
        InputValues::Uint8(values) => TensorView::from_data(shape, values.as_slice()).into(),
        InputValues::Int8(values) => TensorView::from_data(shape, values.as_slice()).into(),
        InputValues::Int32(values) => TensorView::from_data(shape, values.as_slice()).into(),
        InputValues::Int64(values) => {
            let narrow = |value: &i64| i32::try_from(*value).map_err(|_| format!("the value {value}, beyond 32 bits"));
            let values = values.iter().map(narrow).collect::<std::result::Result<Vec<i32>, String>>()?;
            Value::Int32Tensor(Tensor::from_data(shape, values)).into()
        }
        InputValues::Bool(values) => {
            let values = values.iter().map(|value| i32::from(*value)).collect::<Vec<i32>>();
            Value::Int32Tensor(Tensor::from_data(shape, values)).into()
        }
        InputValues::Float16(_) | InputValues::Float64(_) => return Err("an input of another type".into()),
    })
}

/// What rten gives, in f32.
fn output(value: Value) -> std::result::Result<OutputTensor, String> {
    let shape = value.as_view().shape().to_vec();
    let (values, are_integers) = match value {
        Value::FloatTensor(tensor) => (tensor.into_data(), false),
        Value::UInt8Tensor(tensor) => (tensor.iter().map(|value| f32::from(*value)).collect(), true),
        Value::Int8Tensor(tensor) => (tensor.iter().map(|value| f32::from(*value)).collect(), true),
        Value::Int32Tensor(tensor) => (tensor.iter().map(|value| *value as f32).collect(), true),
        _ => return Err("an output of another type than numbers".into()),
    };
    Ok(OutputTensor { shape, values, are_integers })
}

impl Engine for BuiltIn {
    fn run(&self, inputs: &[InputTensor<'_>]) -> std::result::Result<Vec<OutputTensor>, String> {
        let inputs = self.inputs.iter().zip(inputs);
        let inputs = inputs.map(|(node, input)| Ok((*node, view(input)?)));
        let inputs = inputs.collect::<std::result::Result<Vec<(NodeId, ValueOrView)>, String>>()?;
        let run = || self.model.run(inputs, &self.outputs, Some(self.options.clone()));
        guard(run)?.into_iter().map(output).collect()
    }

    fn level(&self) -> Level {
        self.level
    }

    fn most_at_once(&self) -> usize {
        AT_ONCE
    }
}
