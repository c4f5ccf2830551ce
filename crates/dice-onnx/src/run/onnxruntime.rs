//! Networks in an ONNX Runtime that is opened at run time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dice_ood::io::guard;
use dice_ood::{Error, ErrorKind, Remedy, Result};
use half::f16;
use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};

use crate::model::Model;
use crate::run::engine::{Engine, InputTensor, InputValues, OutputTensor, Wanted};
use crate::run::input::ModelInput;
use crate::run::runtime::{INSTALL, Level, library};
use crate::text::quoted;

/// A process can open one library once, and keeps it.
static OPENED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

pub(super) struct OnnxRuntime {
    session: Mutex<Session>,
    /// The names of the inputs.
    inputs: Vec<String>,
    level: Level,
}

impl OnnxRuntime {
    /// `model` up to what is `wanted`, or with all its outputs, in the library at `path`.
    ///
    /// # Errors
    /// Those of opening the library, and [`ErrorKind::Unsupported`] for a model that it cannot run.
    pub(super) fn new(
        model: &Model,
        inputs: &[ModelInput],
        wanted: Option<&Wanted>,
        path: &Path,
        level: Level,
    ) -> Result<Self> {
        let environment = opened(library(path)?)?;
        // Features are seldom an output of the model. With them as its only output, the runtime drops the operators behind them.
        let pruned = match wanted {
            Some(wanted) => wanted.only(model.bytes()).map_err(|error| error.file(model.path().display()))?.into(),
            None => Cow::Borrowed(model.bytes()),
        };
        let folder = std::path::absolute(model.folder()).map_err(|error| Error::io(model.folder(), error))?;
        let session = guard(|| session(&environment, &pruned, &folder, level)).map_err(|what| {
            Error::new(ErrorKind::Unsupported, what)
                .file(model.path().display())
                .tensor(wanted.map_or_else(|| "outputs".into(), |wanted| quoted(&wanted.features)))
                .expected("a model that this ONNX Runtime can run")
                .fix("a newer ONNX Runtime may; or compute the features where you train")
                .with_remedy(Remedy::RuntimeOrFeatures)
        })?;
        let inputs = inputs.iter().map(|input| input.name.clone()).collect();
        Ok(Self { session: Mutex::new(session), inputs, level })
    }
}

fn session(environment: &Environment, model: &[u8], folder: &Path, level: Level) -> ort::Result<Session> {
    // A model from memory has no folder of its own to find its weights in.
    let key = "session.model_external_initializers_file_folder_path";
    Session::builder(environment)?
        .with_log_level(LogLevel::Fatal)?
        .with_optimization_level(match level {
            Level::None => GraphOptimizationLevel::Disable,
            Level::Basic => GraphOptimizationLevel::Level1,
            Level::Extended => GraphOptimizationLevel::Level2,
            Level::All => GraphOptimizationLevel::All,
        })?
        .with_intra_threads(rayon::current_num_threads())?
        // Threads that wait for the next operator spin; after the last operator of a run they stop, and leave the cores to decoding.
        .with_config_entry("session.force_spinning_stop", "1")?
        .with_config_entry(key, folder.to_string_lossy())?
        .commit_from_memory(model)
}

/// The environment of `library`, which is opened where it is not yet.
fn opened(library: PathBuf) -> Result<Environment> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, environment)) = &*opened {
        if *path == library {
            return Ok(environment.clone());
        }
        return Err(Error::new(ErrorKind::Argument, format!("{} is open already", path.display()))
            .file(library.display())
            .tensor("runtime")
            .expected("one ONNX Runtime a process"));
    }
    let refuse = |kind, found: String| {
        Error::new(kind, found)
            .file(library.display())
            .expected("ONNX Runtime 1.21 or newer")
            .fix(INSTALL)
            .with_remedy(Remedy::Runtime)
    };
    let open = || {
        let builder = ort::init_from(&library).map_err(|error| match error {
            LoadDynamicError::Dlopen { error, .. } => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                refuse(ErrorKind::Malformed, format!("a library that cannot be opened: {why}"))
            }
            LoadDynamicError::BadVersion { version_str, .. } => {
                refuse(ErrorKind::Unsupported, format!("ONNX Runtime {version_str}"))
            }
            LoadDynamicError::MissingApi { .. } | LoadDynamicError::InvalidVersionString => {
                refuse(ErrorKind::Malformed, "a library that is not ONNX Runtime".into())
            }
        })?;
        let build = builder.with_name("dice").with_telemetry(false).build();
        build.map_err(|error| refuse(ErrorKind::Unsupported, error.to_string()))
    };
    let environment = guard(|| Ok::<_, String>(open())).map_err(|panic| refuse(ErrorKind::Unsupported, panic))??;
    *opened = Some((library, environment.clone()));
    Ok(environment)
}

impl Engine for OnnxRuntime {
    fn run(&self, inputs: &[InputTensor<'_>]) -> std::result::Result<Vec<OutputTensor>, String> {
        let run = || -> ort::Result<Option<Vec<OutputTensor>>> {
            let given = self.inputs.iter().zip(inputs).map(|(name, input)| Ok((name.as_str(), view(input)?)));
            let given = given.collect::<ort::Result<Vec<_>>>()?;
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let outputs = session.run(given)?;
            outputs.values().map(|value| output(&value)).collect()
        };
        guard(run).and_then(|outputs| outputs.ok_or_else(|| "an output of another type than numbers".into()))
    }

    fn level(&self) -> Level {
        self.level
    }
}

fn view<'a>(input: &'a InputTensor<'_>) -> ort::Result<SessionInputValue<'a>> {
    let shape = &*input.shape;
    Ok(match &input.values {
        InputValues::Float32(values) => TensorRef::from_array_view((shape, &**values))?.into(),
        InputValues::Float16(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        InputValues::Float64(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        InputValues::Uint8(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        InputValues::Int8(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        InputValues::Int32(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
        InputValues::Int64(values) => TensorRef::from_array_view((shape, &**values))?.into(),
        InputValues::Bool(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
    })
}

/// What the runtime gives, in f32; `None` for what is no tensor of numbers.
fn output(value: &DynValue) -> ort::Result<Option<OutputTensor>> {
    fn read<T: PrimitiveTensorElementType + Copy>(
        value: &DynValue,
        float: impl Fn(T) -> f32,
        are_integers: bool,
    ) -> ort::Result<Option<OutputTensor>> {
        let (shape, values) = value.try_extract_tensor::<T>()?;
        let shape = shape.iter().map(|extent| usize::try_from(*extent).unwrap_or(0)).collect();
        Ok(Some(OutputTensor { shape, values: values.iter().map(|value| float(*value)).collect(), are_integers }))
    }
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => read(value, |value: f32| value, false),
        Some(TensorElementType::Float16) => read(value, f16::to_f32, false),
        Some(TensorElementType::Float64) => read(value, |value: f64| value as f32, false),
        Some(TensorElementType::Uint8) => read(value, |value: u8| value.into(), true),
        Some(TensorElementType::Int8) => read(value, |value: i8| value.into(), true),
        Some(TensorElementType::Int32) => read(value, |value: i32| value as f32, true),
        Some(TensorElementType::Int64) => read(value, |value: i64| value as f32, true),
        Some(TensorElementType::Bool) => read(value, |value: bool| f32::from(u8::from(value)), true),
        _ => Ok(None),
    }
}
