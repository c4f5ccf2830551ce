//! The model again, with the detector inside: outputs `ood_score`, `is_ood` and, if wanted, `features`.
//!
//! Nothing of the original changes: a few standard operators behind the features tensor are appended ([`crate::splice`]), so
//! its own outputs stay what they are, bit for bit, and any ONNX runtime serves the detector. One runtime makes an exception
//! for models in f16 on CPUs: ONNX Runtime, when it optimises, keeps f32 between their operators and rounds where a tensor
//! is read, so that any further reader can move their outputs by the last bit of an f16.
//!
//! ```text
//! features -> [N, D] -> Clip -> Gather (units that keep a weight) -> Gemm (kept weights) -> log-sum-exp -> ood_score
//!                                                                  -> is it below the threshold? -> is_ood
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use dice_ood::card::Value;
use dice_ood::io::{AtomicFile, files};
use dice_ood::{Calibrated, Error, ErrorKind, Result};

use crate::graph::Graph;
use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use crate::splice::splice;
use crate::tensor::{External, element};
use crate::{FoundHead, Layout, Model, quoted};

/// The score, f32 `[N]`; higher = more in-distribution.
pub const SCORE: &str = "ood_score";
/// The decision, bool `[N]`.
pub const DECISION: &str = "is_ood";

/// What the names of all added tensors and operators begin with.
pub(crate) const PREFIX: &str = "dice_ood/";
/// Before this version of the operator set operands did not broadcast.
const OLDEST_OPSET: i64 = 7;
/// What a protobuf message may hold.
const LARGEST: usize = (1 << 31) - 1;

/// A model with a detector inside, ready to be written.
#[derive(Debug, Clone)]
pub struct Export {
    bytes: Vec<u8>,
    added: usize,
    features: Option<String>,
    /// Files with external data, as the model names them.
    files: BTreeMap<String, PathBuf>,
}

impl Export {
    /// Puts `calibrated` behind the features that `found` names. `features` adds these as an output `[N, D]`; `notes` go into
    /// the model's `metadata_props` beside the detector's own, with `dice_ood.` before their names.
    ///
    /// Inputs that hold NaN or infinity get a score of NaN or infinity, and are out-of-distribution.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where the detector's head is not the model's, or the model carries a detector already;
    /// [`ErrorKind::Unsupported`] for operator sets before 7 and for results of 2 GiB; [`ErrorKind::Malformed`].
    pub fn new(
        model: &Model,
        found: &FoundHead,
        calibrated: &Calibrated,
        features: bool,
        notes: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let graph = model.graph()?;
        let located = |error: Error| error.file(model.path().display());
        let mut tail = Tail::new(model, &graph).map_err(located)?;
        check_head(found, calibrated).map_err(located)?;
        let rows = tail.rows(found);
        let score = tail.score(&graph, found, &rows, calibrated).map_err(located)?;
        tail.output(SCORE, element::FLOAT, &[]);
        if let Some(threshold) = calibrated.threshold() {
            tail.decision(&score, threshold.score());
            tail.output(DECISION, element::BOOL, &[]);
        }
        let features = features.then(|| tail.features_output(&graph, &rows, found.units()));
        let metadata_props = metadata(calibrated, notes);
        let addition = ModelProto { graph: Some(tail.graph), metadata_props, ..ModelProto::default() };
        let bytes = splice(model.bytes(), addition).map_err(located)?;
        if bytes.len() > LARGEST {
            return Err(located(
                Error::new(ErrorKind::Unsupported, format!("{} bytes with the detector", bytes.len()))
                    .expected("at most 2 GiB in one file, as protobuf allows")
                    .fix("save the model with its weights as external data first"),
            ));
        }
        let added = bytes.len() - model.bytes().len();
        Ok(Self { bytes, added, features, files: external_files(model)? })
    }

    /// The encoded model. External data stays where the original refers to it: see [`Export::write`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// By how many bytes the file grows.
    pub fn added(&self) -> usize {
        self.added
    }

    /// The name of the features output, where it was asked for: `features`, or `ood_features` where that is taken.
    pub fn features(&self) -> Option<&str> {
        self.features.as_deref()
    }

    /// Writes the model to `path`, atomically, and copies its external data beside it where they are not there already.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where another file has the name of external data, [`ErrorKind::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let target = path.parent().unwrap_or(Path::new(""));
        if self.files.keys().any(|location| plain(&target.join(location)) == plain(path)) {
            return Err(Error::new(ErrorKind::Argument, "the name of its external data")
                .file(path.display())
                .expected("another name for the model"));
        }
        for (location, source) in &self.files {
            copy_beside(source, &target.join(location))?;
        }
        let mut file = AtomicFile::create(path)?;
        file.write_all(&self.bytes).map_err(|error| Error::io(path, error))?;
        file.commit()
    }
}

/// The detector's head must be the one whose features it will read.
fn check_head(found: &FoundHead, calibrated: &Calibrated) -> Result<()> {
    let head = calibrated.detector().head();
    if **head == found.head {
        return Ok(());
    }
    let shape = |classes: usize, units: usize| format!("[{classes}, {units}]");
    let (theirs, ours) = (shape(found.classes(), found.units()), shape(head.classes(), head.units()));
    let difference = if theirs == ours {
        let pairs = found.head.weight().into_iter().zip(head.weight()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        format!("a head {theirs} with other values (weights differ by up to {pairs})")
    } else {
        format!("a head {theirs}")
    };
    Err(Error::new(ErrorKind::Argument, difference)
        .tensor(quoted(&found.node))
        .expected(format!("the head of the detector, {ours}"))
        .fix("fit the detector to this very model: dice fit --model"))
}

/// Where the model itself holds the head's weights as they are: a tensor, and whether classes are its first axis.
fn stored_weight<'m>(graph: &Graph<'m>, found: &FoundHead) -> Option<(&'m str, bool)> {
    let is_head = |node: &&NodeProto| node.name == found.node || node.output.first() == Some(&found.node);
    let node = graph.nodes.iter().find(is_head)?;
    let (classes, units, weight) = (found.classes(), found.units(), found.head.weight());
    node.input.iter().filter(|name| graph.is_constant(name)).find_map(|name| {
        let stored = graph.fold(name).ok().filter(|stored| stored.values.len() == weight.len())?.into_f32();
        let same = |place: &dyn Fn(usize, usize) -> usize| {
            weight.indexed_iter().all(|((class, unit), value)| stored[place(class, unit)].to_bits() == value.to_bits())
        };
        match (same(&|class, unit| class * units + unit), same(&|class, unit| unit * classes + class)) {
            (true, _) => Some((name.as_str(), true)),
            (false, true) => Some((name.as_str(), false)),
            _ => None,
        }
    })
}

/// The score and its temperature, where operators for it are known.
fn score_of(calibrated: &Calibrated) -> Result<(&'static str, f64)> {
    let spec = calibrated.detector().spec();
    let shaped =
        |shaped: &dice_ood::PipelineSpec| shaped.stem.shaping.is_some() && calibrated.detector().clip().is_none();
    let known = spec.as_pipeline().filter(|pipeline| !shaped(pipeline)).and_then(|pipeline| {
        let name = pipeline.score.card().name;
        let temperature = match pipeline.score.arguments().get("temperature") {
            Some(Value::Real(temperature)) => temperature,
            _ => 1.0,
        };
        ["max-logit", "energy", "msp"].contains(&name).then_some((name, temperature))
    });
    known.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("detector '{spec}'"))
            .expected("energy, msp or max-logit, which operators are known for")
    })
}

/// The operators that are added, in order.
struct Tail {
    graph: GraphProto,
    ir_version: i64,
    opset: i64,
    /// The first axis of the added outputs.
    batch: DimensionProto,
}

impl Tail {
    fn new(model: &Model, graph: &Graph<'_>) -> Result<Self> {
        let imports = &model.proto().opset_import;
        let standard = imports.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx")).map(|set| set.version);
        let opset = standard.filter(|version| *version >= OLDEST_OPSET).ok_or_else(|| {
            let found = standard.map_or("no standard operator set".into(), |version| format!("opset {version}"));
            Error::new(ErrorKind::Unsupported, found)
                .expected(format!("opset {OLDEST_OPSET} or later"))
                .fix("convert the model with onnx.version_converter, or export it again")
        })?;
        let taken = [SCORE, DECISION].into_iter().find(|name| graph.tensor(name).is_some());
        let made = graph.nodes.iter().flat_map(|node| node.output.iter().chain([&node.name]));
        let stored = model.tensors().map(|tensor| &tensor.name);
        let declared = graph.inputs.iter().map(|input| &input.name);
        let ours = made.chain(stored).chain(declared).find(|name| name.starts_with(PREFIX));
        if let Some(name) = taken.or(ours.map(String::as_str)) {
            return Err(Error::new(ErrorKind::Argument, format!("a tensor {}", quoted(name)))
                .expected("a model that carries no detector yet")
                .fix("export from the original model"));
        }
        let batch = match graph.inputs[..] {
            [input] => input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref()?.dim.first()),
            _ => None,
        };
        let batch = batch.cloned().unwrap_or_default();
        Ok(Self { graph: GraphProto::default(), ir_version: model.proto().ir_version, opset, batch })
    }

    /// Features `[N, D]` in f32.
    fn rows(&mut self, found: &FoundHead) -> String {
        let units = found.units() as i64;
        let shape: &[i64] = match found.layout {
            Layout::Rows => &[-1, units],
            Layout::Columns => &[units, -1],
            Layout::Channels { .. } => &[0, units, -1],
            Layout::Positions { .. } => &[0, -1, units],
        };
        let reshaped = self.reshape(&found.features, shape);
        let mut rows = self.node("Cast", &[&reshaped], vec![AttributeProto::int("to", element::FLOAT.into())]);
        if let Some(stored) = found.quantization {
            if stored.zero_point != 0 {
                let zero = self.scalar("zero_point", stored.zero_point as f32);
                rows = self.node("Sub", &[&rows, &zero], vec![]);
            }
            let scale = self.scalar("scale", stored.scale);
            rows = self.node("Mul", &[&rows, &scale], vec![]);
        }
        let mean = match found.layout {
            Layout::Rows => return rows,
            Layout::Columns => return self.node("Transpose", &[&rows], vec![AttributeProto::ints("perm", &[1, 0])]),
            Layout::Channels { .. } => self.reduce("ReduceMean", &rows, 2, 18),
            Layout::Positions { .. } => self.reduce("ReduceMean", &rows, 1, 18),
        };
        self.reshape(&mean, &[-1, units])
    }

    fn features_output(&mut self, graph: &Graph<'_>, rows: &str, units: usize) -> String {
        let name = if graph.tensor("features").is_some() { "ood_features" } else { "features" };
        self.named("Identity", &[rows], vec![], name);
        self.output(name, element::FLOAT, &[units]);
        name.into()
    }

    /// The score of `rows` `[N, D]`, as output [`SCORE`].
    fn score(&mut self, graph: &Graph<'_>, found: &FoundHead, rows: &str, calibrated: &Calibrated) -> Result<String> {
        let detector = calibrated.detector();
        let (kind, temperature) = score_of(calibrated)?;
        let mut rows = rows.to_owned();
        if let Some(clip) = detector.clip() {
            let clip = clip as f32;
            rows = if self.opset < 11 {
                self.node("Clip", &[&rows], vec![AttributeProto::float("max", clip)])
            } else {
                let bound = self.scalar("clip", clip);
                self.node("Clip", &[&rows, "", &bound], vec![])
            };
        }
        let logits = self.logits(graph, found, &rows, calibrated);
        let max = self.reduce("ReduceMax", &logits, 1, 18);
        let score = match kind {
            "max-logit" => max,
            "energy" => {
                let mut log = {
                    let sum = self.shifted_sum(&logits, &max, temperature);
                    self.node("Log", &[&sum], vec![])
                };
                if temperature != 1.0 {
                    let temperature = self.scalar("temperature", temperature as f32);
                    log = self.node("Mul", &[&log, &temperature], vec![]);
                }
                self.node("Add", &[&max, &log], vec![])
            }
            // The largest probability is that of the largest logit: 1 over the sum of all, each over the largest.
            _ => {
                let sum = self.shifted_sum(&logits, &max, temperature);
                self.node("Reciprocal", &[&sum], vec![])
            }
        };
        let shape = self.integers("score_shape", &[-1]);
        Ok(self.named("Reshape", &[&score, &shape], vec![], SCORE))
    }

    /// `[N, C]`, of whichever takes less room: the model's own weights and which of them are kept, or those of the units that
    /// keep any.
    fn logits(&mut self, graph: &Graph<'_>, found: &FoundHead, rows: &str, calibrated: &Calibrated) -> String {
        let detector = calibrated.detector();
        let head = detector.head();
        let (classes, units) = (head.classes(), head.units());
        let kept = |class: usize, unit: usize| detector.mask().is_none_or(|mask| mask.kept()[(class, unit)]);
        let bias = self.floats("bias", &[classes], &head.bias().to_vec());
        let speaking: Vec<usize> = (0..units).filter(|unit| (0..classes).any(|class| kept(class, *unit))).collect();
        let index = if speaking.len() < units { size_of::<i64>() } else { 0 };
        let copied = speaking.len() * (classes * size_of::<f32>() + index);
        let marked = if detector.mask().is_some() { classes * units } else { 0 };
        if let Some((weight, classes_first)) = stored_weight(graph, found).filter(|_| marked < copied) {
            let weight = self.unquantised(graph, weight);
            let shape = if classes_first { [classes, units] } else { [units, classes] };
            let weight = self.reshape(&weight, &shape.map(|extent| extent as i64));
            let mut weight = self.node("Cast", &[&weight], vec![AttributeProto::int("to", element::FLOAT.into())]);
            if detector.mask().is_some() {
                let place = |place: usize| match classes_first {
                    true => kept(place / units, place % units),
                    false => kept(place % classes, place / classes),
                };
                let mask = (0..classes * units).map(|at| u8::from(place(at))).collect();
                let mask = self.constant("kept", shape.map(|extent| extent as i64).to_vec(), element::BOOL, mask);
                let mask = self.node("Cast", &[&mask], vec![AttributeProto::int("to", element::FLOAT.into())]);
                weight = self.node("Mul", &[&weight, &mask], vec![]);
            }
            let turned = classes_first.then(|| AttributeProto::int("transB", 1));
            return self.node("Gemm", &[rows, &weight, &bias], turned.into_iter().collect());
        }
        let mut rows = rows.to_owned();
        if speaking.len() < units {
            let indices: Vec<i64> = speaking.iter().map(|unit| *unit as i64).collect();
            let indices = self.integers("units", &indices);
            rows = self.node("Gather", &[&rows, &indices], vec![AttributeProto::int("axis", 1)]);
        }
        let mut weight = Vec::with_capacity(classes * speaking.len());
        for class in 0..classes {
            let value = |unit: &usize| if kept(class, *unit) { head.weight()[(class, *unit)] } else { 0.0 };
            weight.extend(speaking.iter().map(value));
        }
        let weight = self.floats("weight", &[classes, speaking.len()], &weight);
        self.node("Gemm", &[&rows, &weight, &bias], vec![AttributeProto::int("transB", 1)])
    }

    /// A stored tensor, dequantised once more where it is quantised: optimisers fuse a DequantizeLinear with its only reader,
    /// which a second one would prevent.
    fn unquantised(&mut self, graph: &Graph<'_>, tensor: &str) -> String {
        let Some((_, node)) = graph.producer(tensor).filter(|(_, node)| node.op_type == "DequantizeLinear") else {
            return tensor.to_owned();
        };
        let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
        let rank = graph.constant_shape(tensor).map_or(0, |shape| shape.len() as i64);
        let attributes = node.attribute.iter().filter_map(|attribute| match (&*attribute.name, attribute.i) {
            // The first axis counted from the last: zeros are not written.
            ("axis", 0) => Some(AttributeProto::int("axis", -rank)),
            (_, 0) => None,
            _ => Some(attribute.clone()),
        });
        let attributes = attributes.collect();
        self.node(&node.op_type, &inputs, attributes)
    }

    /// `sum_c exp((f_c - max) / T)`, which cannot overflow.
    fn shifted_sum(&mut self, logits: &str, max: &str, temperature: f64) -> String {
        let mut shifted = self.node("Sub", &[logits, max], vec![]);
        if temperature != 1.0 {
            let temperature = self.scalar("divisor", temperature as f32);
            shifted = self.node("Div", &[&shifted, &temperature], vec![]);
        }
        let exponentials = self.node("Exp", &[&shifted], vec![]);
        self.reduce("ReduceSum", &exponentials, 1, 13)
    }

    /// Whether the score is below `threshold`, as output [`DECISION`]: written so that NaN is.
    fn decision(&mut self, score: &str, threshold: f64) {
        let mut nearest = threshold as f32;
        if f64::from(nearest) > threshold {
            nearest = nearest.next_down();
        }
        // In f32, to be at least x is to be above the number before x; `GreaterOrEqual` came with opset 12.
        let bound = self.scalar("threshold", nearest.next_down());
        let accepted = self.node("Greater", &[score, &bound], vec![]);
        self.named("Not", &[&accepted], vec![], DECISION);
    }

    fn reshape(&mut self, tensor: &str, shape: &[i64]) -> String {
        let shape = self.integers("shape", shape);
        self.node("Reshape", &[tensor, &shape], vec![])
    }

    /// A reduction of one axis, which stays with length one. `since`: the opset from which axes are an input.
    fn reduce(&mut self, operator: &str, tensor: &str, axis: i64, since: i64) -> String {
        if self.opset < since {
            return self.node(operator, &[tensor], vec![AttributeProto::ints("axes", &[axis])]);
        }
        let axes = self.integers("axes", &[axis]);
        self.node(operator, &[tensor, &axes], vec![])
    }

    fn scalar(&mut self, name: &str, value: f32) -> String {
        self.floats(name, &[], &[value])
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let shape = shape.iter().map(|extent| *extent as i64).collect();
        self.constant(name, shape, element::FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, vec![values.len() as i64], element::INT64, bytes)
    }

    /// An initializer; before IR version 4 each of them is also declared as an input.
    fn constant(&mut self, name: &str, dims: Vec<i64>, data_type: i32, bytes: Vec<u8>) -> String {
        let name = format!("{PREFIX}{name}_{}", self.graph.initializer.len());
        if self.ir_version < 4 {
            let dim = dims.iter().map(|extent| DimensionProto { dim_value: Some(*extent), dim_param: None }).collect();
            self.graph.input.push(ValueInfoProto::tensor(&name, data_type, dim));
        }
        let raw_data = Some(bytes.into());
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims,
            data_type,
            raw_data,
            ..TensorProto::default()
        });
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = format!("{PREFIX}{}_{}", operator.to_lowercase(), self.graph.node.len());
        self.named(operator, inputs, attributes, &output)
    }

    fn named(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>, output: &str) -> String {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.to_owned()],
            name: format!("{PREFIX}node_{}", self.graph.node.len()),
            op_type: operator.to_owned(),
            attribute,
            domain: String::new(),
        });
        output.to_owned()
    }

    /// Declares an output `[N, ...]`.
    fn output(&mut self, name: &str, kind: i32, rest: &[usize]) {
        let fixed = rest.iter().map(|extent| DimensionProto { dim_value: Some(*extent as i64), dim_param: None });
        let dim = [self.batch.clone()].into_iter().chain(fixed).collect();
        self.graph.output.push(ValueInfoProto::tensor(name, kind, dim));
    }
}

fn metadata(calibrated: &Calibrated, notes: &BTreeMap<String, String>) -> Vec<StringStringEntryProto> {
    let mut all = BTreeMap::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("detector".into(), calibrated.detector().spec().to_string()),
        ("orientation".into(), "higher ood_score = more in-distribution".into()),
    ]);
    if let Some(threshold) = calibrated.threshold() {
        all.insert("threshold".into(), threshold.score().to_string());
        all.insert("tpr".into(), threshold.tpr().to_string());
        all.insert("calibration_inputs".into(), threshold.calibration_size().to_string());
    }
    all.extend(notes.iter().map(|(key, value)| (key.clone(), value.clone())));
    all.into_iter().map(|(key, value)| StringStringEntryProto { key: format!("dice_ood.{key}"), value }).collect()
}

/// The files with external data by the names that the model gives them; refused where they lie outside its folder.
fn external_files(model: &Model) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for tensor in model.tensors().filter(|tensor| tensor.data_location == 1) {
        let location = tensor.external_data.iter().find(|entry| entry.key == "location");
        let Some(location) = location.filter(|location| seen.insert(location.value.as_str())) else { continue };
        let place = External::of(tensor, model.folder()).map_err(|error| error.file(model.path().display()))?;
        files.insert(location.value.clone(), place.path);
    }
    Ok(files)
}

/// The path without `.` and `..`, links taken for folders.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// Copies `source` to `target` unless it is there.
fn copy_beside(source: &Path, target: &Path) -> Result<()> {
    let here = |error: io::Error| Error::io(target, error);
    if target.exists() {
        if same_content(source, target)? {
            return Ok(());
        }
        return Err(Error::new(ErrorKind::Argument, "another file of this name")
            .file(target.display())
            .expected(format!("the external data of the model, as in {}", source.display()))
            .fix("write the model to a folder of its own"));
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(here)?;
    }
    let mut input = files::open(source)?;
    let mut output = AtomicFile::create_new(target)?;
    io::copy(&mut input, &mut output).map_err(here)?;
    output.commit()
}

fn same_content(source: &Path, target: &Path) -> Result<bool> {
    if source.canonicalize().is_ok_and(|source| target.canonicalize().is_ok_and(|target| source == target)) {
        return Ok(true);
    }
    let (one, other) = (files::open(source)?, files::open(target)?);
    same_bytes(one, other).map_err(|error| Error::io(target, error))
}

fn same_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], Vec::new());
    loop {
        let read = one.read(&mut left)?;
        right.resize(read, 0);
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right)?;
        if left[..read] != right[..] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Builder, external, int, ints};
    use crate::{Backbone, HeadOptions, Runtime};
    use dice_ood::{Calibration, Decision, Needs, Spec, Statistics};
    use ndarray::ArrayView2;
    use rten_tensor::prelude::{AsView, Layout as _};
    use std::sync::Arc;

    const ROWS: usize = 5;

    fn fitted(found: &FoundHead, features: &[f32], spec: &str) -> Calibrated {
        let rows = ArrayView2::from_shape((ROWS, found.units()), features).unwrap();
        let mut statistics = Statistics::new(found.units(), &Needs::marginals());
        statistics.update(rows).unwrap();
        let detector = spec.parse::<Spec>().unwrap().fit(&Arc::new(found.head.clone()), &statistics).unwrap();
        let scores = detector.score(rows).unwrap();
        Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.5).unwrap()
    }

    /// What an exported model returns for five inputs is what the detector says of their features.
    fn check(builder: &Builder, spec: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, builder.encode()).unwrap();
        let model = Model::open(&path).unwrap();
        let found = model.find_head(&HeadOptions::default()).unwrap();
        let pixels: Vec<f32> = (0..ROWS * 48).map(|i| ((i * 29) % 31) as f32 * (i / 48 + 1) as f32 / 31.0).collect();
        let features =
            Backbone::new(&model, &found, &Runtime::BuiltIn).unwrap().run(pixels.clone(), ROWS, [4, 4]).unwrap();
        let calibrated = fitted(&found, &features, spec);
        let exported = folder.path().join("exported.onnx");
        Export::new(&model, &found, &calibrated, true, &BTreeMap::new()).unwrap().write(&exported).unwrap();

        let runtime = rten::ModelOptions::with_all_ops().load_file(&exported).unwrap();
        let input = rten_tensor::Tensor::from_data(&[ROWS, 3, 4, 4][..], pixels);
        let outputs = [SCORE, DECISION, "features"].map(|name| runtime.node_id(name).unwrap());
        let values = runtime.run(vec![(runtime.node_id("x").unwrap(), input.view().into())], &outputs, None).unwrap();
        let [rten::Value::FloatTensor(scores), rten::Value::Int32Tensor(ood), rten::Value::FloatTensor(rows)] =
            <[rten::Value; 3]>::try_from(values).unwrap()
        else {
            panic!("outputs of other types")
        };
        assert_eq!((scores.shape(), ood.shape()), (&[ROWS][..], &[ROWS][..]));
        assert_eq!(rows.shape(), &[ROWS, found.units()]);
        for (exported, ours) in rows.iter().zip(&features) {
            assert!((exported - ours).abs() <= 1e-6 * ours.abs(), "{:?}: {exported} for {ours}", found.layout);
        }
        let expected = calibrated.detector().score(ArrayView2::from_shape((ROWS, found.units()), &features).unwrap());
        let threshold = calibrated.threshold().copied().unwrap();
        let mut decisions = [0, 0];
        for ((expected, score), ood) in expected.unwrap().into_iter().zip(scores.iter()).zip(ood.iter()) {
            assert!((f64::from(*score) - expected).abs() <= 1e-5 * expected.abs(), "{spec}: {score} for {expected}");
            if (expected - threshold.score()).abs() > 1e-5 * expected.abs() {
                assert_eq!(*ood != 0, threshold.decide(expected) == Decision::OutOfDistribution);
                decisions[*ood as usize] += 1;
            }
        }
        assert!(decisions[0] > 0 && decisions[1] > 0, "{spec}: both decisions are seen: {decisions:?}");
    }

    fn pooled() -> Builder {
        Builder::new().features().counting("w", &[3, 4]).output("y", &[0, 4]).node("MatMul", &["h", "w"], &["y"], &[])
    }

    #[test]
    fn every_layout_of_features() {
        let relu = || Builder::new().node("Relu", &["x"], &["r"], &[]).output("y", &[0, 2]);
        check(&pooled(), "dice(0.5) | energy");
        let map = relu()
            .counting("w", &[2, 3, 1, 1])
            .node("Conv", &["r", "w"], &["c"], &[])
            .node("GlobalAveragePool", &["c"], &["p"], &[])
            .node("Flatten", &["p"], &["y"], &[]);
        check(&map, "dice(0.5) | energy");
        let sequence = relu()
            .ints("shape", &[0, 3, 16])
            .counting("w", &[3, 2])
            .node("Reshape", &["r", "shape"], &["s"], &[])
            .node("Transpose", &["s"], &["t"], &[ints("perm", &[0, 2, 1])])
            .node("MatMul", &["t", "w"], &["m"], &[])
            .node("ReduceMean", &["m"], &["y"], &[ints("axes", &[1]), int("keepdims", 0)]);
        check(&sequence, "max-logit");
        let columns = Builder::new()
            .features()
            .counting("w", &[3, 2])
            .output("y", &[0, 2])
            .node("Transpose", &["h"], &["t"], &[ints("perm", &[1, 0])])
            .node("Gemm", &["t", "w"], &["y"], &[int("transA", 1)]);
        check(&columns, "react(0.9) | energy");
    }

    #[test]
    fn every_operator_set_and_old_files() {
        for (opset, ir) in [(7, 3), (9, 3), (9, 4), (11, 6), (13, 7), (17, 8), (18, 8), (21, 10)] {
            let mut builder = pooled();
            builder.0.opset_import[0].version = opset;
            builder.0.ir_version = ir;
            if ir < 4 {
                builder.graph().input.push(crate::testing::value("w", &[3, 4]));
            }
            for spec in ["react(0.9) | dice(0.3) | energy(temperature=2)", "msp(temperature=50)"] {
                check(&builder, spec);
            }
        }
        let mut old = pooled();
        old.0.opset_import[0].version = 6;
        let (model, found) = (old.model().unwrap(), old.find().unwrap());
        let calibrated = fitted(&found, &[1.0; 15], "energy");
        let error = Export::new(&model, &found, &calibrated, false, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("opset 6"), "{error}");
    }

    #[test]
    fn other_heads_taken_names_and_unused_units() {
        let (model, found) = (pooled().model().unwrap(), pooled().find().unwrap());
        let calibrated = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "unit-prune(0.6) | energy");
        let other = pooled().floats("v", &[4], &[1.0; 4]);
        let mut other_head = found.clone();
        other_head.head = dice_ood::LinearHead::from_rows(vec![1.0; 12], vec![0.0; 4], 3).unwrap();
        let error = Export::new(&model, &other_head, &calibrated, false, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("other values"), "{error}");
        let taken = other.node("Relu", &["y"], &["is_ood"], &[]).output("is_ood", &[0]);
        let error = Export::new(&taken.model().unwrap(), &found, &calibrated, false, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("is_ood"), "{error}");
        let named = pooled().node("Relu", &["y"], &["features"], &[]);
        let export = Export::new(&named.model().unwrap(), &found, &calibrated, true, &BTreeMap::new()).unwrap();
        assert_eq!(export.features(), Some("ood_features"));
        let stored = |export: &Export| -> Vec<Vec<i64>> {
            let exported = Model::from_bytes(export.bytes().to_vec(), "test.onnx").unwrap();
            let ours = |tensor: &&TensorProto| {
                ["weight", "kept"].iter().any(|name| tensor.name.starts_with(&format!("{PREFIX}{name}")))
            };
            exported.tensors().filter(ours).map(|tensor| tensor.dims.clone()).collect()
        };
        // The model's own weights serve, with a byte for each that says whether it is kept, or without.
        assert_eq!(stored(&export), [[3, 4]]);
        let dense = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "energy");
        assert!(stored(&Export::new(&model, &found, &dense, false, &BTreeMap::new()).unwrap()).is_empty());
        // A scale folded into the head: its weights are nowhere in the model. Only the unit that is left keeps some.
        let scaled = Builder::new()
            .features()
            .counting("w", &[3, 4])
            .floats("two", &[], &[2.0])
            .output("y", &[0, 4])
            .node("MatMul", &["h", "w"], &["m"], &[])
            .node("Mul", &["m", "two"], &["y"], &[]);
        let (model, found) = (scaled.model().unwrap(), scaled.find().unwrap());
        let calibrated = fitted(&found, &[1.0, 0.0, 3.0].repeat(ROWS), "unit-prune(0.6) | energy");
        assert_eq!(stored(&Export::new(&model, &found, &calibrated, false, &BTreeMap::new()).unwrap()), [[4, 1]]);
        check(&scaled, "unit-prune(0.6) | energy");
    }

    #[test]
    fn external_data_go_along() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let values: Vec<u8> = (1..=12u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        std::fs::write(folder.path().join("data/w.bin"), &values).unwrap();
        let mut builder = pooled();
        builder.graph().initializer[0] = external("w", &[3, 4], "data/w.bin", 0);
        std::fs::write(folder.path().join("model.onnx"), builder.encode()).unwrap();
        let model = Model::open(folder.path().join("model.onnx")).unwrap();
        let found = model.find_head(&HeadOptions::default()).unwrap();
        let calibrated = fitted(&found, &[1.0, 2.0, 3.0].repeat(ROWS), "energy");
        let export = Export::new(&model, &found, &calibrated, false, &BTreeMap::new()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        for place in [folder.path().join("ood.onnx"), elsewhere.join("ood.onnx")] {
            export.write(&place).unwrap();
            // Once more, where all is there already.
            export.write(&place).unwrap();
            let found = Model::open(&place).unwrap().find_head(&HeadOptions::default()).unwrap();
            assert_eq!(found.head, **calibrated.detector().head());
        }
        builder.graph().initializer[0] = external("w", &[3, 4], "w.onnx", 0);
        std::fs::write(folder.path().join("w.onnx"), &values).unwrap();
        std::fs::write(folder.path().join("flat.onnx"), builder.encode()).unwrap();
        let flat = Model::open(folder.path().join("flat.onnx")).unwrap();
        let flat =
            Export::new(&flat, &flat.find_head(&HeadOptions::default()).unwrap(), &calibrated, false, &BTreeMap::new());
        let flat = flat.unwrap();
        for place in [folder.path().join("w.onnx"), elsewhere.join("data/../w.onnx")] {
            let error = flat.write(&place).unwrap_err();
            assert!(error.to_string().contains("external data"), "{error}");
        }
        assert_eq!(std::fs::read(folder.path().join("w.onnx")).unwrap(), values);
        assert!(!elsewhere.join("w.onnx").exists());
        std::fs::write(elsewhere.join("data/w.bin"), b"something else").unwrap();
        let error = export.write(&elsewhere.join("again.onnx")).unwrap_err();
        assert!(error.to_string().contains("w.bin"), "{error}");
        assert_eq!(std::fs::read(elsewhere.join("data/w.bin")).unwrap(), b"something else");
    }
}
