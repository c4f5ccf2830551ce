//! Running a model up to its features.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use dice_ood::{Error, ErrorKind, Result};
use rten::{DataType, Dimension, ModelOptions, NodeId, ValueOrView, ValueType};
use rten_tensor::Tensor;
use rten_tensor::{Layout as _, prelude::*};

use crate::preprocess::{Layout as PixelLayout, Preprocess};
use crate::{FoundHead, Layout, Model, Quantization, quoted};

/// The part of a model that makes features of its inputs, run in pure Rust (`rten`).
pub struct Backbone {
    path: PathBuf,
    fingerprint: String,
    runtime: rten::Model,
    input: NodeId,
    output: NodeId,
    shape: InputShape,
    name: String,
    units: usize,
    layout: Layout,
    quantization: Option<Quantization>,
}

/// What a model's input looks like. `None` where the model leaves a size open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputShape {
    /// N: models that fix it are run that many images at a time.
    pub batch: Option<usize>,
    /// Channels.
    pub channels: Option<usize>,
    /// Height and width.
    pub size: [Option<usize>; 2],
    /// The order of the axes.
    pub layout: PixelLayout,
    /// Whether pixels come in one axis `[N, C * H * W]`, whose length this is.
    pub flat: Option<usize>,
}

impl Backbone {
    /// Prepares `model` to be run up to the features that `found` names.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an operator that the runtime lacks, saying which, for inputs that are not images of
    /// floating-point values, and for several inputs.
    pub fn new(model: &Model, found: &FoundHead) -> Result<Self> {
        let path = model.path().to_path_buf();
        // Reads, and so checks, every file the model refers to: the runtime would open them unchecked.
        let fingerprint = model.fingerprint()?;
        let unsupported = |what: String| {
            Error::new(ErrorKind::Unsupported, what)
                .file(path.display())
                .expected("a model that the built-in runtime can run")
                .fix("compute the features with the runtime you train with, and give them with --features")
        };
        let load = |optimise: bool| {
            guarded(|| ModelOptions::with_all_ops().enable_optimization(optimise).load_file(&path))
                .and_then(|loaded| loaded.map_err(|error| error.to_string()))
                .map_err(&unsupported)
        };
        // Optimisation can fuse the features tensor away.
        let mut runtime = load(true)?;
        if runtime.find_node(&found.features).is_none() {
            runtime = load(false)?;
        }
        let output = runtime
            .find_node(&found.features)
            .ok_or_else(|| unsupported(format!("no tensor {}", quoted(&found.features))))?;
        let [input] = *runtime.input_ids() else {
            return Err(unsupported(format!("{} inputs, where one is expected", runtime.input_ids().len())));
        };
        let info = runtime.node_info(input);
        if let Some(kind) = info.as_ref().and_then(rten::NodeInfo::dtype)
            && kind != ValueType::Tensor(DataType::Float)
        {
            return Err(unsupported(format!("an input of {kind}, where f32 is expected")));
        }
        let dimensions = info.and_then(|info| info.shape()).unwrap_or_default();
        let channels_last = model.images().is_some_and(|images| !images.channels_first);
        let shape = InputShape::of(&dimensions, channels_last).ok_or_else(|| {
            unsupported(format!("an input of {} axes, where [N, C, H, W] is expected", dimensions.len()))
        })?;
        let (units, layout) = (found.units(), found.layout);
        let (name, quantization) = (found.features.clone(), found.quantization);
        Ok(Self { path, fingerprint, runtime, input, output, shape, name, units, layout, quantization })
    }

    /// What the input looks like.
    pub fn input(&self) -> InputShape {
        self.shape
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// [`Model::fingerprint`] of the model.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// D.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Features `[rows, D]`, row-major, of `rows` preprocessed images of `size` (height, width), one after the other in
    /// `pixels`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for images of another size or number of channels than the model takes,
    /// [`ErrorKind::Unsupported`] where the runtime fails.
    pub fn run(&self, pixels: Vec<f32>, rows: usize, size: [usize; 2]) -> Result<Vec<f32>> {
        let Some(each) = pixels.len().checked_div(rows) else { return Ok(Vec::new()) };
        match self.shape.batch {
            Some(batch) if batch != rows => {
                let mut features = Vec::with_capacity(rows * self.units);
                for part in pixels.chunks(batch.max(1) * each) {
                    // The last part is filled up with zeros, whose features are dropped.
                    let mut part = part.to_vec();
                    let held = part.len() / each;
                    part.resize(batch.max(1) * each, 0.0);
                    let made = self.run_once(part, batch.max(1), size)?;
                    features.extend_from_slice(&made[..held * self.units]);
                }
                Ok(features)
            }
            _ => self.run_once(pixels, rows, size),
        }
    }

    fn run_once(&self, pixels: Vec<f32>, rows: usize, size: [usize; 2]) -> Result<Vec<f32>> {
        let each = pixels.len() / rows;
        let [height, width] = size;
        let channels = each / (height * width).max(1);
        let shape: Vec<usize> = match (self.shape.flat, self.shape.layout) {
            (Some(_), _) => vec![rows, each],
            (None, PixelLayout::Nchw) => vec![rows, channels, height, width],
            (None, PixelLayout::Nhwc) => vec![rows, height, width, channels],
        };
        let fits = |wanted: Option<usize>, found: usize| wanted.is_none_or(|wanted| wanted == found);
        let sizes_fit = fits(self.shape.size[0], height) && fits(self.shape.size[1], width);
        let fits = match self.shape.flat {
            Some(length) => length == each,
            None => sizes_fit && fits(self.shape.channels, channels),
        };
        if !fits {
            return Err(Error::new(ErrorKind::Shape, format!("{shape:?}"))
                .file(self.path.display())
                .tensor("input")
                .expected(self.shape.to_string())
                .fix("choose the preprocessing this network was trained with: --preprocess"));
        }
        let input = Tensor::from_data(shape.as_slice(), pixels);
        let failed = |what: String| {
            Error::new(ErrorKind::Unsupported, what)
                .file(self.path.display())
                .tensor(quoted(&self.name))
                .expected("a model that the built-in runtime can run")
        };
        let mut values =
            guarded(|| self.runtime.run(vec![(self.input, ValueOrView::from(input.view()))], &[self.output], None))
                .and_then(|run| run.map_err(|error| error.to_string()))
                .map_err(&failed)?;
        let value = values.pop().ok_or_else(|| failed("no result".into()))?;
        let (shape, values) = self.floats(value).ok_or_else(|| failed("features of another type".into()))?;
        self.rows_of(&shape, values, rows).ok_or_else(|| {
            Error::new(ErrorKind::Shape, format!("{shape:?}"))
                .file(self.path.display())
                .tensor(quoted(&self.name))
                .expected(format!("{} for {rows} images and D = {}", self.layout, self.units))
        })
    }

    fn floats(&self, value: rten::Value) -> Option<(Vec<usize>, Vec<f32>)> {
        let scale = |value: i64| match self.quantization {
            Some(Quantization { scale, zero_point }) => (value - zero_point) as f32 * scale,
            None => value as f32,
        };
        let values = match &value {
            rten::Value::FloatTensor(tensor) => tensor.to_vec(),
            rten::Value::UInt8Tensor(tensor) => tensor.iter().map(|value| scale((*value).into())).collect(),
            rten::Value::Int8Tensor(tensor) => tensor.iter().map(|value| scale((*value).into())).collect(),
            _ => return None,
        };
        Some((value.as_view().shape().to_vec(), values))
    }

    /// `[rows, D]` of what the features tensor holds; `None` where its shape does not fit.
    fn rows_of(&self, shape: &[usize], values: Vec<f32>, rows: usize) -> Option<Vec<f32>> {
        let units = self.units;
        let total = rows.checked_mul(units)?;
        match self.layout {
            Layout::Rows => (values.len() == total).then_some(values),
            Layout::Columns => {
                (values.len() == total).then(|| (0..total).map(|i| values[(i % units) * rows + i / units]).collect())
            }
            Layout::Channels { .. } => {
                let positions = values.len().checked_div(total).filter(|p| *p > 0 && p * total == values.len())?;
                (shape.get(1) == Some(&units)).then(|| values.chunks_exact(positions).map(mean).collect())
            }
            Layout::Positions { .. } => {
                let positions = values.len().checked_div(total).filter(|p| *p > 0 && p * total == values.len())?;
                let average = |row: usize, unit: usize| {
                    let sum: f64 =
                        (0..positions).map(|p| f64::from(values[(row * positions + p) * units + unit])).sum();
                    (sum / positions as f64) as f32
                };
                (shape.last() == Some(&units)).then(|| (0..total).map(|i| average(i / units, i % units)).collect())
            }
        }
    }
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64) as f32
}

/// Runs what may panic on a hostile model; the message of a panic is the error.
fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the runtime gave up: {}", text.unwrap_or("no reason given"))
    })
}

impl InputShape {
    fn of(dimensions: &[Dimension], channels_last: bool) -> Option<Self> {
        let fixed = |axis: usize| match dimensions.get(axis) {
            Some(Dimension::Fixed(size)) => Some(*size),
            _ => None,
        };
        let batch = fixed(0);
        let shape = |channels, height, width, layout| {
            Some(Self { batch, channels: fixed(channels), size: [fixed(height), fixed(width)], layout, flat: None })
        };
        match dimensions.len() {
            2 => {
                let flat = fixed(1);
                Some(Self { batch, channels: None, size: [None; 2], layout: PixelLayout::Nchw, flat: Some(flat?) })
            }
            4 if channels_last => shape(3, 1, 2, PixelLayout::Nhwc),
            4 => shape(1, 2, 3, PixelLayout::Nchw),
            _ => None,
        }
    }

    /// The preprocessing of `wanted`, in this input's layout.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where its size or number of channels is not that of the input.
    pub fn adapt(&self, mut wanted: Preprocess) -> Result<Preprocess> {
        wanted.layout = self.layout;
        wanted.check()?;
        let channels_fit = self.channels.is_none_or(|channels| channels == wanted.channels.count());
        let size_fits = wanted.size().is_none_or(|size| {
            self.size.iter().zip(size).all(|(here, there)| here.is_none_or(|here| here == there))
                && self.flat.is_none_or(|flat| flat == size[0] * size[1] * wanted.channels.count())
        });
        if channels_fit && size_fits {
            return Ok(wanted);
        }
        Err(Error::new(ErrorKind::Argument, wanted.to_string())
            .tensor("preprocessing")
            .expected(format!("what makes {self}"))
            .fix("name a preset or a preprocessor_config.json that fits the network (--preprocess)"))
    }

    /// The preset whose size and channels are those of this input, where there is just one.
    pub fn suggest(&self) -> Option<&'static str> {
        let mut fitting = Preprocess::PRESETS
            .into_iter()
            .filter(|name| Preprocess::preset(name).is_some_and(|preset| self.adapt(preset).is_ok()))
            .filter(|_| self.size[0].is_some() || self.flat.is_some());
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |size: Option<usize>, open: &str| size.map_or(open.to_owned(), |size| size.to_string());
        let batch = text(self.batch, "N");
        let (channels, [height, width]) =
            (text(self.channels, "C"), [text(self.size[0], "H"), text(self.size[1], "W")]);
        match (self.flat, self.layout) {
            (Some(length), _) => write!(f, "[{batch}, {length}]"),
            (None, PixelLayout::Nchw) => write!(f, "[{batch}, {channels}, {height}, {width}]"),
            (None, PixelLayout::Nhwc) => write!(f, "[{batch}, {height}, {width}, {channels}]"),
        }
    }
}
