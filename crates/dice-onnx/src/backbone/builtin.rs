//! Networks in the runtime that is built in (`rten`).

use std::sync::Arc;

use dice_ood::{Error, ErrorKind, Result};
use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{Layout as _, TensorView, prelude::*};

use super::{Element, Features, INSTEAD, Network, Pixels, guarded};
use crate::{Model, quoted};

pub(super) struct BuiltIn {
    model: rten::Model,
    input: NodeId,
    output: NodeId,
    options: RunOptions,
}

impl BuiltIn {
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an operator or a type of input that the runtime lacks.
    pub(super) fn new(model: &Model, input: &str, element: Element, features: &str) -> Result<Self> {
        let unsupported = |what: String| {
            Error::new(ErrorKind::Unsupported, what)
                .file(model.path().display())
                .expected("a model that the built-in runtime can run")
                .fix(INSTEAD)
        };
        if matches!(element, Element::Float16 | Element::Float64) {
            return Err(unsupported(format!("an input of {element}")));
        }
        let load = |optimise: bool| {
            guarded(|| ModelOptions::with_all_ops().enable_optimization(optimise).load_file(model.path()))
                .and_then(|loaded| loaded.map_err(|error| error.to_string()))
                .map_err(unsupported)
        };
        // Optimisation can fuse the features tensor away.
        let mut loaded = load(true)?;
        if loaded.find_node(features).is_none() {
            loaded = load(false)?;
        }
        let node =
            |name: &str| loaded.find_node(name).ok_or_else(|| unsupported(format!("no tensor {}", quoted(name))));
        let (input, output) = (node(input)?, node(features)?);
        // Its own default is the number of physical cores, whatever was asked for.
        let pool = ThreadPool::with_num_threads(rayon::current_num_threads());
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(pool)));
        Ok(Self { model: loaded, input, output, options })
    }
}

impl Network for BuiltIn {
    fn run(&self, pixels: Pixels<'_>, shape: &[usize]) -> std::result::Result<Features, String> {
        let input: ValueOrView = match &pixels {
            Pixels::Float32(pixels) => TensorView::from_data(shape, *pixels).into(),
            Pixels::Uint8(pixels) => TensorView::from_data(shape, pixels.as_slice()).into(),
            Pixels::Int8(pixels) => TensorView::from_data(shape, pixels.as_slice()).into(),
            Pixels::Float16(_) | Pixels::Float64(_) => return Err("an input of another type".into()),
        };
        let run = || self.model.run(vec![(self.input, input)], &[self.output], Some(self.options.clone()));
        let mut values = guarded(run).and_then(|run| run.map_err(|error| error.to_string()))?;
        let value = values.pop().ok_or("no result")?;
        let shape = value.as_view().shape().to_vec();
        let (values, are_integers) = match value {
            Value::FloatTensor(tensor) => (tensor.into_data(), false),
            Value::UInt8Tensor(tensor) => (tensor.iter().map(|value| f32::from(*value)).collect(), true),
            Value::Int8Tensor(tensor) => (tensor.iter().map(|value| f32::from(*value)).collect(), true),
            _ => return Err("features of another type".into()),
        };
        Ok(Features { shape, values, are_integers })
    }
}
