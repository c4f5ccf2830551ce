//! Running a model up to its features.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread;

use dice_ood::io::ArrayValues;
use dice_ood::{Error, ErrorKind, Remedy, Result};

use crate::model::Model;
use crate::model::head::{FeatureLayout, FoundHead};
use crate::model::linear::Quantization;
use crate::model::node::attribute;
use crate::model::proto::NodeProto;
use crate::model::rounding::Rounding;
use crate::run::engine::{Engine, INSTEAD, InputTensor, OutputTensor, Wanted};
use crate::run::input::{InputShape, ModelInput};
use crate::run::runtime::{Level, Runtime};
use crate::run::{builtin, onnxruntime};
use crate::text::quoted;

/// What to do where images and input do not fit.
const CHOOSE: &str = "choose the preprocessing this network was trained with";

/// Rows of few values are run together up to so many values, which the caches hold.
const SMALL_RUN: usize = 1 << 12;
/// The most rows of many values that are run together: what a network makes of them takes many times their memory.
const LARGE_RUN: usize = 32;

/// The part of a model that makes features of its inputs, ready to run.
pub struct Backbone {
    path: PathBuf,
    fingerprint: String,
    engine: Box<dyn Engine>,
    inputs: Vec<ModelInput>,
    /// What images are taken; why none are.
    images: std::result::Result<InputShape, String>,
    name: String,
    units: usize,
    layout: FeatureLayout,
    quantization: Option<Quantization>,
    runtime: &'static str,
    /// Whether images must not share a run.
    alone: bool,
    /// Of the model: see [`on_stack_for`].
    depth: usize,
}

/// Operators that may depend on each other, one after the other: runtimes follow such chains by recursion.
const MAX_DEPTH: usize = 1 << 14;

impl Backbone {
    /// Prepares `model` to be run by `runtime` up to the features that `found` names.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an operator that the runtime lacks, saying which, and for inputs of other types than numbers.
    /// For an ONNX Runtime that is not there, cannot be opened or is too old, an error that says how to get one.
    pub fn new(model: &Model, found: &FoundHead, runtime: &Runtime) -> Result<Self> {
        let path = model.path().to_path_buf();
        // The fingerprint reads, and so checks, every file that the model refers to: a runtime would open them unchecked.
        let fingerprint = model.fingerprint()?;
        let inputs = ModelInput::all(model)?;
        let images = InputShape::of(model, &inputs);
        let depth = checked_depth(model)?;
        let engine = engine(model, &inputs, Some(&Wanted::of(model, found)), runtime, depth)?;
        // Scales that are those of all values of a run: images in one run would change each other's features.
        let nodes = model.proto().graph.iter().flat_map(|graph| &graph.node);
        let alone = found.rounding == Some(Rounding::Dynamic) || nodes.into_iter().any(mixes_rows);
        let (units, layout) = (found.units(), found.layout);
        let (name, quantization) = (found.features.clone(), found.quantization);
        Ok(Self {
            path,
            fingerprint,
            engine,
            inputs,
            images,
            name,
            units,
            layout,
            quantization,
            runtime: runtime.name(),
            alone,
            depth,
        })
    }

    /// What the input looks like, of a network of images.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a network whose input is no image, or that has several inputs.
    pub fn input(&self) -> Result<InputShape> {
        self.images.clone().map_err(|what| {
            Error::new(ErrorKind::Unsupported, what)
                .file(self.path.display())
                .expected("one input of images, [N, C, H, W], [N, H, W, C] or [N, C * H * W]")
                .fix("give arrays named as the model's inputs")
                .with_remedy(Remedy::Arrays)
        })
    }

    /// All inputs.
    pub fn inputs(&self) -> &[ModelInput] {
        &self.inputs
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// [`Runtime::name`] of what runs it.
    pub fn runtime(&self) -> &'static str {
        self.runtime
    }

    /// How far that runtime rewrote it.
    pub fn level(&self) -> Level {
        self.engine.level()
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
    /// [`ErrorKind::Shape`] for images of another size or number of channels than the model takes, [`ErrorKind::Argument`] for
    /// values that its type cannot hold, [`ErrorKind::Unsupported`] where the runtime fails or the model takes no images.
    pub fn run(&self, pixels: Vec<f32>, rows: usize, size: [usize; 2]) -> Result<Vec<f32>> {
        let Some(each) = pixels.len().checked_div(rows) else { return Ok(Vec::new()) };
        let input = self.input()?;
        let batch = self.batch(input.batch, rows);
        if batch == rows {
            return self.run_images(&input, &pixels, rows, size);
        }
        let mut features = Vec::with_capacity(rows * self.units);
        for part in pixels.chunks((batch * each).max(1)) {
            let held = part.len() / each.max(1);
            let mut part = Cow::Borrowed(part);
            // A model of fixed batch gets its last part padded with zeros, whose features are dropped.
            let run = input.batch.unwrap_or(held);
            if held < run {
                part.to_mut().resize(run * each, 0.0);
            }
            let made = self.run_images(&input, &part, run, size)?;
            features.extend_from_slice(&made[..held * self.units]);
        }
        Ok(features)
    }

    /// How many of `rows` are run together, where the model fixes `fixed`.
    fn batch(&self, fixed: Option<usize>, rows: usize) -> usize {
        fixed.unwrap_or(if self.alone { 1 } else { rows.min(self.engine.most_at_once()) })
    }

    fn run_images(&self, input: &InputShape, pixels: &[f32], rows: usize, size: [usize; 2]) -> Result<Vec<f32>> {
        let each = pixels.len() / rows;
        let [height, width] = size;
        let channels = each / (height * width).max(1);
        let shape: Vec<usize> = std::iter::once(rows).chain(input.row(channels, size)).collect();
        let fits = |wanted: Option<usize>, found: usize| wanted.is_none_or(|wanted| wanted == found);
        let sizes_fit = fits(input.size[0], height) && fits(input.size[1], width);
        let fits = match input.flat {
            Some(length) => length == each,
            None => sizes_fit && fits(input.channels, channels),
        };
        let refuse = |kind, found: String| Error::new(kind, found).file(self.path.display()).tensor("input");
        if !fits || shape.iter().product::<usize>() != pixels.len() {
            return Err(refuse(ErrorKind::Shape, format!("{shape:?}"))
                .expected(input.to_string())
                .fix(CHOOSE)
                .with_remedy(Remedy::Preprocessing));
        }
        let values = input.element.floats(pixels).map_err(|value| {
            refuse(ErrorKind::Argument, format!("the value {value}"))
                .expected(format!("what {} can hold", input.element))
                .fix(CHOOSE)
                .with_remedy(Remedy::Preprocessing)
        })?;
        self.run_once(&[InputTensor { values, shape }], rows)
    }

    /// Features `[rows, D]` of arrays, one for each of [`Backbone::inputs`], whose shapes are those that these take.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for values that an input's type cannot hold, [`ErrorKind::Unsupported`] where the runtime fails.
    pub(crate) fn run_arrays(&self, arrays: &[RowArrays], rows: usize) -> Result<Vec<f32>> {
        let mut features = Vec::with_capacity(rows * self.units);
        in_runs(&self.inputs, arrays, rows, self.batch_of_arrays(arrays, rows), |inputs, held, run| {
            let made = self.run_once(inputs, run)?;
            features.extend_from_slice(&made[..held * self.units]);
            Ok(())
        })?;
        Ok(features)
    }

    /// N, where the model fixes it.
    pub(crate) fn fixed_batch(&self) -> Option<usize> {
        fixed_batch(&self.inputs)
    }

    /// How many of `rows` of `arrays` are run together.
    pub(crate) fn batch_of_arrays(&self, arrays: &[RowArrays], rows: usize) -> usize {
        let each: usize = arrays.iter().map(|array| array.shape.iter().product::<usize>()).sum();
        match self.fixed_batch() {
            None if !self.alone => rows.min(self.engine.most_at_once().min(LARGE_RUN).max(SMALL_RUN / each.max(1))),
            fixed => fixed.unwrap_or(1),
        }
    }

    fn run_once(&self, inputs: &[InputTensor<'_>], rows: usize) -> Result<Vec<f32>> {
        let refuse = |kind, found: String| Error::new(kind, found).file(self.path.display()).tensor(quoted(&self.name));
        let run = on_stack_for(self.depth, || self.engine.run(inputs))?;
        let only = run.and_then(|tensors| tensors.into_iter().next().ok_or_else(|| "no result".into()));
        let OutputTensor { shape, mut values, are_integers } = only.map_err(|what| {
            refuse(ErrorKind::Unsupported, what)
                .expected("a model that the runtime can run")
                .fix(INSTEAD)
                .with_remedy(Remedy::RuntimeOrFeatures)
        })?;
        if let Some(Quantization { scale, zero_point }) = self.quantization.filter(|_| are_integers) {
            values.iter_mut().for_each(|value| *value = (*value - zero_point as f32) * scale);
        }
        self.rows_of(&shape, values, rows).ok_or_else(|| {
            refuse(ErrorKind::Shape, format!("{shape:?}"))
                .expected(format!("{} for {rows} inputs and D = {}", self.layout, self.units))
        })
    }

    /// `[rows, D]` of what the features tensor holds; `None` where its shape does not fit.
    fn rows_of(&self, shape: &[usize], values: Vec<f32>, rows: usize) -> Option<Vec<f32>> {
        let units = self.units;
        let total = rows.checked_mul(units)?;
        match self.layout {
            FeatureLayout::Rows | FeatureLayout::SelectedByInput | FeatureLayout::Joined => {
                (values.len() == total).then_some(values)
            }
            FeatureLayout::Columns => {
                (values.len() == total).then(|| (0..total).map(|i| values[(i % units) * rows + i / units]).collect())
            }
            FeatureLayout::Channels { .. } => {
                let positions = values.len().checked_div(total).filter(|p| *p > 0 && p * total == values.len())?;
                (shape.get(1) == Some(&units)).then(|| values.chunks_exact(positions).map(mean).collect())
            }
            FeatureLayout::Positions { .. } => {
                let positions = values.len().checked_div(total).filter(|p| *p > 0 && p * total == values.len())?;
                let average = |row: usize, unit: usize| {
                    let sum: f64 =
                        (0..positions).map(|p| f64::from(values[(row * positions + p) * units + unit])).sum();
                    (sum / positions as f64) as f32
                };
                (shape.last() == Some(&units)).then(|| (0..total).map(|i| average(i / units, i % units)).collect())
            }
            FeatureLayout::Selected { position } => {
                let [_, positions, width] = *shape else { return None };
                let from_end = if position < 0 { positions as i64 } else { 0 };
                let place = usize::try_from(position + from_end).ok().filter(|place| *place < positions)?;
                let fits = width == units && values.len() == total * positions;
                let of_row = |row: usize| values[(row * positions + place) * units..].iter().take(units);
                fits.then(|| (0..rows).flat_map(of_row).copied().collect())
            }
        }
    }
}

/// `model` in `runtime`, up to what is `wanted` or with all its outputs; `depth` is that of the model.
pub(super) fn engine(
    model: &Model,
    inputs: &[ModelInput],
    wanted: Option<&Wanted>,
    runtime: &Runtime,
    depth: usize,
) -> Result<Box<dyn Engine>> {
    on_stack_for(depth, || -> Result<Box<dyn Engine>> {
        Ok(match runtime {
            Runtime::BuiltIn => Box::new(builtin::BuiltIn::new(model, inputs, wanted)?),
            Runtime::OnnxRuntime { library, level } => {
                Box::new(onnxruntime::OnnxRuntime::new(model, inputs, wanted, library, *level)?)
            }
        })
    })?
}

/// An array of some rows that have one shape.
pub(crate) struct RowArrays {
    /// Of one row.
    pub(crate) shape: Vec<usize>,
    /// Of all rows, one after the other.
    pub(crate) values: ArrayValues,
}

impl RowArrays {
    /// `count` rows from `first` on, and the last of them again until there are `run`.
    fn part(&self, first: usize, count: usize, run: usize) -> Self {
        fn of<T: Copy>(values: &[T], each: usize, first: usize, count: usize, run: usize) -> Vec<T> {
            let held = &values[first * each..(first + count) * each];
            let last = &held[held.len() - each..];
            let mut part = held.to_vec();
            (count..run).for_each(|_| part.extend_from_slice(last));
            part
        }
        let each = self.shape.iter().product();
        let values = match &self.values {
            ArrayValues::Floats(values) => ArrayValues::Floats(of(values, each, first, count, run)),
            ArrayValues::Integers(values) => ArrayValues::Integers(of(values, each, first, count, run)),
        };
        Self { shape: self.shape.clone(), values }
    }
}

/// N, where one of `inputs` fixes it.
fn fixed_batch(inputs: &[ModelInput]) -> Option<usize> {
    inputs.iter().find_map(ModelInput::batch)
}

/// Gives `rows` rows of `arrays`, one for each of `inputs`, to `run`, `batch` at a time: with how many rows each run holds, and of how many it
/// is. A model of fixed batch gets its last run filled up with the last row.
pub(super) fn in_runs(
    inputs: &[ModelInput],
    arrays: &[RowArrays],
    rows: usize,
    batch: usize,
    mut run: impl FnMut(&[InputTensor<'_>], usize, usize) -> Result<()>,
) -> Result<()> {
    let fixed = fixed_batch(inputs);
    for first in (0..rows).step_by(batch) {
        let held = batch.min(rows - first);
        let size = fixed.unwrap_or(held);
        let parts: Vec<RowArrays> = arrays.iter().map(|array| array.part(first, held, size)).collect();
        let tensors = inputs.iter().zip(&parts).map(|(input, part)| tensor(input, part, size));
        run(&tensors.collect::<Result<Vec<_>>>()?, held, size)?;
    }
    Ok(())
}

/// `part`, of `rows` rows, as `input` takes it.
fn tensor<'a>(input: &ModelInput, part: &'a RowArrays, rows: usize) -> Result<InputTensor<'a>> {
    let refuse = |value: String| {
        Error::new(ErrorKind::Argument, format!("the value {value}"))
            .tensor(quoted(&input.name))
            .expected(format!("what {} can hold", input.element))
    };
    let values = match &part.values {
        ArrayValues::Floats(values) => input.element.floats(values).map_err(|value| refuse(value.to_string()))?,
        ArrayValues::Integers(values) => input.element.integers(values).map_err(|value| refuse(value.to_string()))?,
    };
    Ok(InputTensor { values, shape: std::iter::once(rows).chain(part.shape.iter().copied()).collect() })
}

/// Whether an operator takes means and variances of all rows, as is its default: rows in one run would change each other's features.
fn mixes_rows(node: &NodeProto) -> bool {
    node.op_type == "MeanVarianceNormalization" && attribute(node, "axes").is_none_or(|axes| axes.ints.contains(&0))
}

pub(super) fn checked_depth(model: &Model) -> Result<usize> {
    let depth = model.depth()?;
    if depth <= MAX_DEPTH {
        return Ok(depth);
    }
    Err(Error::new(ErrorKind::Unsupported, format!("a chain of {depth} operators"))
        .file(model.path().display())
        .expected(format!("at most {MAX_DEPTH} that depend on each other"))
        .fix("compute the features where you train")
        .with_remedy(Remedy::Features))
}

/// Does `work` on a stack that recursion over a chain of `depth` operators fits, which that of this thread may not be.
pub(super) fn on_stack_for<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    /// What every thread has room for.
    const SHALLOW: usize = 256;
    /// More than a call takes in the runtimes, without optimisation too.
    const STACK_EACH: usize = 4 << 10;
    if depth <= SHALLOW {
        return Ok(work());
    }
    let builder = thread::Builder::new().name("dice-runtime".into()).stack_size((4 << 20) + depth * STACK_EACH);
    let failed = |found: String| Error::new(ErrorKind::Io, found).tensor("runtime thread");
    thread::scope(|scope| {
        let worker = builder.spawn_scoped(scope, work).map_err(|error| failed(error.to_string()))?;
        worker.join().map_err(|_| failed("a panic in the runtime".into()))
    })
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::images::preprocess::{Preprocess, Resize};
    use crate::model::element;
    use crate::model::head::HeadOptions;
    use crate::testing::{Builder, external, int, ints, value};

    /// A model whose features are the means of the channels of its input, which is `shape` of values of type `code`.
    fn means(shape: &[i64], code: i32) -> Builder {
        let mut builder = Builder::new().node("Cast", &["x"], &["c"], &[int("to", element::FLOAT.into())]);
        let map = if shape[3] == 3 {
            builder = builder.node("Transpose", &["c"], &["t"], &[ints("perm", &[0, 3, 1, 2])]);
            "t"
        } else {
            "c"
        };
        let mut input = value("x", shape);
        input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = code;
        builder.graph().input = vec![input];
        builder
            .node("GlobalAveragePool", &[map], &["g"], &[])
            .node("Flatten", &["g"], &["h"], &[])
            .counting("w", &[3, 2])
            .floats("b", &[2], &[0.0; 2])
            .node("Gemm", &["h", "w", "b"], &["y"], &[])
            .output("y", &[0, 2])
    }

    fn prepared(builder: &Builder, runtime: &Runtime) -> Result<Backbone> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, builder.encode()).unwrap();
        let model = Model::open(&path).unwrap();
        Backbone::new(&model, &model.find_head(&HeadOptions::default()).unwrap(), runtime)
    }

    /// The built-in runtime, and the ONNX Runtime that `DICE_ONNXRUNTIME` names.
    fn runtimes() -> Vec<Runtime> {
        let path = std::env::var_os("DICE_ONNXRUNTIME");
        if path.is_none() {
            println!("without ONNX Runtime: DICE_ONNXRUNTIME names none");
        }
        [Runtime::BuiltIn].into_iter().chain(path.map(Runtime::onnx_runtime)).collect()
    }

    #[test]
    fn inputs_of_every_type_batch_and_order_give_the_same_features() {
        for runtime in runtimes() {
            for (code, name) in [
                (element::FLOAT, "float32"),
                (element::UINT8, "uint8"),
                (element::INT8, "int8"),
                (element::FLOAT16, "float16"),
                (element::DOUBLE, "float64"),
            ] {
                for (batch, last) in [(0, false), (1, false), (2, true), (0, true)] {
                    let shape = if last { [batch, 2, 2, 3] } else { [batch, 3, 2, 2] };
                    let backbone = match prepared(&means(&shape, code), &runtime) {
                        Ok(backbone) => backbone,
                        Err(error) => {
                            assert!(runtime == Runtime::BuiltIn && name.starts_with("float"), "{error}");
                            assert!(error.to_string().contains(name), "{error}");
                            continue;
                        }
                    };
                    // Three images, whose channels are constant.
                    let level = |image: usize, channel: usize| (10 * image + channel) as f32 + 0.2;
                    let pixels = (0..36).map(|i| {
                        let (image, place) = (i / 12, i % 12);
                        level(image, if last { place % 3 } else { place / 4 })
                    });
                    let made = backbone.run(pixels.collect(), 3, [2, 2]).unwrap();
                    let whole = backbone.input().unwrap().element.range().is_some();
                    for (i, found) in made.iter().enumerate() {
                        let expected = level(i / 3, i % 3);
                        let expected = if whole { expected.round() } else { expected };
                        assert!((found - expected).abs() < 0.01, "{runtime}, {name}, {shape:?}: {made:?}");
                    }
                }
            }
        }
    }

    /// Weights of the body in another file: in a folder below, with another ending than `.data`, and without an offset.
    #[test]
    fn weights_in_any_file_of_the_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("weights")).unwrap();
        let values: Vec<u8> = (1..=9u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        std::fs::write(folder.path().join("weights/body.bin"), [&[0; 8][..], &values].concat()).unwrap();
        std::fs::write(folder.path().join("body.bin"), &values).unwrap();
        let builder = Builder::new()
            .node("GlobalAveragePool", &["x"], &["g"], &[])
            .node("Flatten", &["g"], &["f"], &[])
            .node("MatMul", &["f", "body"], &["h"], &[])
            .counting("w", &[3, 2])
            .node("MatMul", &["h", "w"], &["y"], &[])
            .output("y", &[0, 2]);
        let mut unsaid = external("body", &[3, 3], "body.bin", 0);
        unsaid.external_data.retain(|entry| entry.key != "offset");
        for (place, tensor) in [external("body", &[3, 3], "weights/body.bin", 8), unsaid].into_iter().enumerate() {
            let mut builder = builder.clone();
            builder.graph().initializer.push(tensor);
            let path = folder.path().join(format!("{place}.onnx"));
            std::fs::write(&path, builder.encode()).unwrap();
            let model = Model::open(&path).unwrap();
            let found = model.find_head(&HeadOptions::default()).unwrap();
            for runtime in runtimes() {
                let backbone = Backbone::new(&model, &found, &runtime).unwrap();
                // Channels 1, 2 and 3 times the rows 1 to 9.
                let pixels = (0..48).map(|i| (i / 16 + 1) as f32).collect();
                assert_eq!(backbone.run(pixels, 1, [4, 4]).unwrap(), [30.0, 36.0, 42.0], "{runtime}, {place}");
            }
        }
    }

    /// `means` behind a chain of operators that change nothing.
    fn deep(operators: usize) -> Builder {
        let mut builder = means(&[0, 3, 2, 2], element::FLOAT);
        for place in 0..operators {
            let input = if place == 0 { "x".into() } else { format!("c{}", place - 1) };
            builder = builder.node("Relu", &[&input], &[&format!("c{place}")], &[]);
        }
        let last = format!("c{}", operators - 1);
        for node in builder.graph().node.iter_mut().filter(|node| !node.output[0].starts_with('c')) {
            node.input.iter_mut().filter(|name| *name == "x").for_each(|name| name.clone_from(&last));
        }
        builder
    }

    #[test]
    fn a_long_chain_of_operators_runs_and_a_longer_one_is_refused() {
        for runtime in runtimes() {
            let backbone = prepared(&deep(MAX_DEPTH - 100), &runtime).unwrap();
            let made = backbone.run(vec![0.5; 12], 1, [2, 2]).unwrap();
            assert_eq!(made, [0.5; 3], "{runtime}");
            let error = prepared(&deep(MAX_DEPTH + 1), &runtime).map(|_| ()).unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("chain"), "{error}");
        }
    }

    #[test]
    fn values_that_bytes_cannot_hold_are_refused() {
        let backbone = prepared(&means(&[0, 3, 2, 2], element::UINT8), &Runtime::BuiltIn).unwrap();
        for value in [-0.6, 255.5, f32::NAN] {
            let error = backbone.run(vec![value; 12], 1, [2, 2]).unwrap_err();
            assert!(error.kind() == ErrorKind::Argument && error.remedy() == Some(Remedy::Preprocessing), "{error}");
        }
        let input = backbone.input().unwrap();
        assert_eq!(input.to_string(), "uint8 [N, 3, 2, 2]");
        let levels = |scale, mean: f32| Preprocess {
            resize: Resize::Keep,
            scale,
            mean: vec![mean; 3],
            std: vec![1.0; 3],
            ..Preprocess::preset("cifar10").unwrap()
        };
        assert!(input.adapt(levels(1.0, 0.0)).is_ok());
        for wrong in [levels(1.0 / 255.0, 0.0), levels(1.0, 128.0)] {
            assert!(input.adapt(wrong).unwrap_err().to_string().contains("do_rescale"));
        }
        let signed = prepared(&means(&[0, 3, 2, 2], element::INT8), &Runtime::BuiltIn).unwrap();
        assert!(signed.input().unwrap().adapt(levels(1.0, 128.0)).is_ok());
    }

    #[test]
    fn a_missing_operator_is_named_with_a_runtime_that_has_it() {
        let mut builder = means(&[0, 3, 2, 2], element::FLOAT);
        builder.graph().node[0].op_type = "Bernoulli".into();
        builder.graph().node[0].attribute.clear();
        for runtime in runtimes() {
            match prepared(&builder, &runtime) {
                Ok(_) => assert_ne!(runtime, Runtime::BuiltIn),
                Err(error) => {
                    assert!(runtime == Runtime::BuiltIn && error.kind() == ErrorKind::Unsupported, "{error}");
                    assert_eq!(error.remedy(), Some(Remedy::RuntimeOrFeatures), "{error}");
                    for part in ["Bernoulli", "ONNX Runtime"] {
                        assert!(error.to_string().contains(part), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_onnx_runtime_is_an_error() {
        let builder = means(&[0, 3, 2, 2], element::FLOAT);
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("library.so");
        std::fs::write(&text, [b'x'; 100]).unwrap();
        let mut paths = vec![text, folder.path().join("absent.so"), folder.path().to_owned()];
        // A device, and a library of another kind where it lies there.
        paths.extend(["/dev/zero", "/lib/x86_64-linux-gnu/libm.so.6"].map(PathBuf::from));
        for path in paths {
            let error = prepared(&builder, &Runtime::onnx_runtime(path.clone())).err().unwrap();
            println!("{error}");
            // Where the other tests have opened one, no second one is.
            let told =
                error.remedy() == Some(Remedy::Runtime) || error.to_string().contains("one ONNX Runtime a process");
            assert!(told, "{}: {error}", path.display());
        }
    }
}
