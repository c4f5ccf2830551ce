//! A model with all its outputs, run as whoever serves it runs it.

use std::path::PathBuf;

use dice_ood::{Error, ErrorKind, Result};

use crate::model::Model;
use crate::run::backbone::{RowArrays, checked_depth, engine, in_runs, on_stack_for};
use crate::run::engine::Engine;
use crate::run::input::ModelInput;
use crate::run::runtime::Runtime;

/// A model in a runtime, which computes all its outputs.
pub(crate) struct Whole {
    path: PathBuf,
    engine: Box<dyn Engine>,
    inputs: Vec<ModelInput>,
    names: Vec<String>,
    depth: usize,
}

impl Whole {
    /// # Errors
    /// As [`crate::Backbone::new`].
    pub(crate) fn new(model: &Model, runtime: &Runtime) -> Result<Self> {
        // Reads, and so checks, every file that the model refers to.
        model.fingerprint()?;
        let (inputs, depth) = (ModelInput::all(model)?, checked_depth(model)?);
        let engine = engine(model, &inputs, None, runtime, depth)?;
        let names = model.outputs().into_iter().map(|output| output.name).collect();
        Ok(Self { path: model.path().to_owned(), engine, inputs, names, depth })
    }

    /// Each output by its name, for `rows` rows of `arrays`, one for each input, of which `batch` are run together; a batch that the model
    /// fixes divides them. Values of f64 are rounded to f32.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the runtime fails, and for outputs that are no numbers.
    pub(crate) fn run(&self, arrays: &[RowArrays], rows: usize, batch: usize) -> Result<Vec<(&str, Vec<f32>)>> {
        let mut outputs: Vec<(&str, Vec<f32>)> = self.names.iter().map(|name| (name.as_str(), Vec::new())).collect();
        in_runs(&self.inputs, arrays, rows, batch, |inputs, _, _| {
            let made = on_stack_for(self.depth, || self.engine.run(inputs))?.map_err(|what| self.failed(what))?;
            for ((_, values), made) in outputs.iter_mut().zip(made) {
                values.extend(made.values);
            }
            Ok(())
        })?;
        Ok(outputs)
    }

    fn failed(&self, what: String) -> Error {
        Error::new(ErrorKind::Unsupported, what).file(self.path.display()).expected("a model that the runtime can run")
    }
}
