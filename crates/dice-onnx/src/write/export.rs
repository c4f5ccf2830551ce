//! A detector as operators of ONNX: inside its network, or alone behind features that others compute.
//!
//! Nothing of a network changes: a few standard operators behind the features tensor are appended ([`crate::write::splice`]), so
//! its own outputs stay what they are, bit for bit, and any ONNX runtime serves the detector. One runtime makes an exception
//! for models in f16 on CPUs: ONNX Runtime, when it optimises, keeps f32 between their operators and rounds where a tensor
//! is read, so that any further reader can move their outputs by the last bit of an f16; [`crate::measure`] says by how much.
//!
//! ```text
//! features -> [N, D] -> what the detector says of itself (dice_ood::graph, lowered by crate::write::lower) -> ood_score
//!                                  ood_score -> how many calibration scores it reaches              -> p_value
//!                                            -> is it below the threshold?                          -> is_ood
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use dice_ood::graph::{self as expression, Binary, Reduce, Wire};
use dice_ood::io::{AtomicFile, files};
use dice_ood::{Calibrated, Error, ErrorKind, Result};
use prost::Message;

use crate::model::Model;
use crate::model::element;
use crate::model::external::External;
use crate::model::graph::Graph;
use crate::model::head::{FeatureLayout, FoundHead};
use crate::model::node::ADDED;
use crate::model::proto::{
    AttributeProto, DimensionProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto,
};
use crate::text::quoted;
use crate::write::lower::{StoredWeight, constant_bytes, just_below, lower};
use crate::write::operators::Operators;
use crate::write::splice::splice;

/// The score, f32 `[N]`; higher = more in-distribution.
pub const SCORE: &str = "ood_score";
/// The conformal p-value, f32 `[N]`.
pub const P_VALUE: &str = "p_value";
/// The decision, bool `[N]`.
pub const DECISION: &str = "is_ood";
/// The class of the largest logit, int64 `[N]`.
pub const PREDICTION: &str = "prediction";
/// Features, f32 `[N, D]`: an input, or an output where they are wanted.
pub const FEATURES: &str = "features";

/// Before this version of the operator set operands did not broadcast.
const OLDEST_OPSET: i64 = 7;
/// Of models without a network: read by runtimes since 2021.
const OWN_OPSET: i64 = 17;
const OWN_IR_VERSION: i64 = 8;
/// What a protobuf message may hold.
const LARGEST: usize = (1 << 31) - 1;

/// Makes ONNX models of a detector.
///
/// Inputs that hold NaN or infinity, or whose squares overflow f32 (values beyond about 10^19), get a score of NaN, the smallest
/// p-value and class -1, and are out-of-distribution.
#[derive(Debug, Clone)]
pub struct Exporter<'a> {
    calibrated: &'a Calibrated,
    expressed: Expressed,
    notes: BTreeMap<String, String>,
}

impl<'a> Exporter<'a> {
    /// An exporter of `calibrated`: its score, and p-value and decision where it has calibration scores.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a detector with a step that has no expression, or with constants of 2 GiB.
    pub fn new(calibrated: &'a Calibrated) -> Result<Self> {
        let exporter = Self { calibrated, expressed: Expressed::of(calibrated)?, notes: BTreeMap::new() };
        match exporter.constant_bytes() {
            0..=LARGEST => Ok(exporter),
            bytes => Err(too_large(bytes).tensor(format!("constants of detector '{}'", calibrated.detector().spec()))),
        }
    }

    /// How many bytes the detector's constants take beside the head: little, unless it looks things up, as in a bank of
    /// training features.
    pub fn constant_bytes(&self) -> usize {
        constant_bytes(&self.expressed.graph, &self.expressed.all())
    }

    /// What goes into the model's `metadata_props` beside the detector's own notes, with `dice_ood.` before the names.
    pub fn notes(mut self, notes: &BTreeMap<String, String>) -> Self {
        self.notes.extend(notes.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    /// The network again, with the detector behind the features that `found` names: outputs [`SCORE`], [`P_VALUE`] and
    /// [`DECISION`] behind its own.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where the detector's head is not the model's, or the model carries a detector already;
    /// [`ErrorKind::Unsupported`] for operator sets before 7 and results of 2 GiB; [`ErrorKind::Malformed`].
    pub fn in_model(&self, model: &Model, found: &FoundHead) -> Result<Export> {
        self.spliced(model, found, false).map_err(|error| error.file(model.path().display()))
    }

    /// [`Exporter::in_model`], with the features `[N, D]` as a further output: see [`Export::features`].
    ///
    /// # Errors
    /// As [`Exporter::in_model`].
    pub fn in_model_with_features(&self, model: &Model, found: &FoundHead) -> Result<Export> {
        self.spliced(model, found, true).map_err(|error| error.file(model.path().display()))
    }

    fn spliced(&self, model: &Model, found: &FoundHead, features: bool) -> Result<Export> {
        let graph = model.graph()?;
        let mut addition = Addition::to(model, &graph)?;
        check_head(found, self.calibrated)?;
        let rows = addition.rows(found);
        let stored = stored_weight(&graph, found);
        addition.detector(self.calibrated, &self.expressed.without_prediction(), &rows, stored.as_ref());
        let features = features.then(|| addition.features(&graph, &rows, found.units()));
        let addition = ModelProto {
            graph: Some(addition.operators.into_graph()),
            metadata_props: self.metadata(),
            ..ModelProto::default()
        };
        let bytes = checked(splice(model.bytes(), addition)?)?;
        let added = bytes.len() - model.bytes().len();
        Ok(Export { bytes, added, features, files: external_files(model)? })
    }

    /// The detector alone, for whoever serves features: from [`FEATURES`] `[N, D]` to [`SCORE`], [`P_VALUE`], [`DECISION`] and
    /// [`PREDICTION`], the class that the detector's own head predicts (that of its first member for a combination). Opset 17,
    /// IR version 8.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for results of 2 GiB.
    pub fn alone(&self) -> Result<Export> {
        let units = self.calibrated.detector().head().units();
        let mut all = Addition {
            operators: Operators::new(OWN_IR_VERSION, OWN_OPSET),
            batch: DimensionProto { dim_value: None, dim_param: Some("N".into()) },
        };
        all.operators.input(all.info(FEATURES, element::FLOAT, &[units]));
        all.detector(self.calibrated, &self.expressed, FEATURES, None);
        let mut graph = all.operators.into_graph();
        graph.name = "detector".into();
        let model = ModelProto {
            ir_version: OWN_IR_VERSION,
            producer_name: "dice-ood".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OWN_OPSET }],
            metadata_props: self.metadata(),
        };
        let bytes = checked(model.encode_to_vec())?;
        Ok(Export { added: bytes.len(), bytes, features: None, files: BTreeMap::new() })
    }

    fn metadata(&self) -> Vec<StringStringEntryProto> {
        let mut all = BTreeMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("detector".into(), self.calibrated.detector().spec().to_string()),
            ("orientation".into(), "higher ood_score = more in-distribution".into()),
        ]);
        if let Some(threshold) = self.calibrated.threshold() {
            all.insert("threshold".into(), threshold.score().to_string());
            all.insert("tpr".into(), threshold.tpr().to_string());
            all.insert("calibration_inputs".into(), threshold.calibration_size().to_string());
        }
        all.extend(self.notes.iter().map(|(key, value)| (key.clone(), value.clone())));
        all.into_iter().map(|(key, value)| StringStringEntryProto { key: format!("dice_ood.{key}"), value }).collect()
    }
}

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
    /// The encoded model. External data stays where the original refers to it: see [`Export::write`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// By how many bytes the file is larger than that of the network; all of them where there is none.
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

fn checked(bytes: Vec<u8>) -> Result<Vec<u8>> {
    match bytes.len() {
        0..=LARGEST => Ok(bytes),
        length => Err(too_large(length).fix("save the model with its weights as external data first")),
    }
}

fn too_large(bytes: usize) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{bytes} bytes with the detector"))
        .expected("at most 2 GiB in one file, as protobuf allows")
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
        .fix("fit the detector to this very model"))
}

/// Where the model itself holds the head's weights as they are.
fn stored_weight<'m>(graph: &Graph<'m>, found: &FoundHead) -> Option<StoredWeight<'m>> {
    let is_head = |node: &&NodeProto| node.name == found.node || node.output.first() == Some(&found.node);
    let node = graph.nodes.iter().find(is_head)?;
    let (classes, units, weight) = (found.classes(), found.units(), found.head.weight());
    node.input.iter().filter(|name| graph.is_constant(name)).find_map(|name| {
        let stored = graph.fold(name).ok().filter(|stored| stored.values.len() == weight.len())?.into_f32();
        let same = |place: &dyn Fn(usize, usize) -> usize| {
            weight.indexed_iter().all(|((class, unit), value)| stored[place(class, unit)].to_bits() == value.to_bits())
        };
        let classes_first = same(&|class, unit| class * units + unit);
        if !classes_first && !same(&|class, unit| unit * classes + class) {
            return None;
        }
        Some(StoredWeight { tensor: name, classes_first, dequantize: dequantize(graph, name) })
    })
}

/// The operator that makes a tensor of integers, to be repeated.
fn dequantize(graph: &Graph<'_>, tensor: &str) -> Option<NodeProto> {
    let (_, node) = graph.producer(tensor).filter(|(_, node)| node.op_type == "DequantizeLinear")?;
    let rank = graph.constant_shape(tensor).map_or(0, |shape| shape.len() as i64);
    let attributes = node.attribute.iter().filter_map(|attribute| match (&*attribute.name, attribute.i) {
        // The first axis counted from the last: zeros are not written.
        ("axis", 0) => Some(AttributeProto::int("axis", -rank)),
        (_, 0) => None,
        _ => Some(attribute.clone()),
    });
    Some(NodeProto { attribute: attributes.collect(), ..node.clone() })
}

/// A detector as an expression, and which of its values `[N, 1]` become outputs.
#[derive(Debug, Clone)]
struct Expressed {
    graph: expression::Graph,
    score: Wire,
    p_value: Option<Wire>,
    prediction: Option<Wire>,
}

impl Expressed {
    fn of(calibrated: &Calibrated) -> Result<Self> {
        let detector = calibrated.detector();
        let mut graph = expression::Graph::default();
        let score = detector.express(&mut graph).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "a step that is no expression of operators")
                .tensor(format!("detector '{}'", detector.spec()))
                .expected("a detector of steps that can be exported")
        })?;
        let zero = zero_or_nan(&mut graph);
        let score = graph.add(score, zero);
        let p_value = calibrated.calibration().map(|calibration| graph.p_value(score, calibration.scores()));
        let prediction = graph.logits().map(|logits| class_or_none(&mut graph, logits, zero));
        Ok(Self { graph, score, p_value, prediction })
    }

    fn without_prediction(&self) -> Self {
        Self { prediction: None, ..self.clone() }
    }

    fn all(&self) -> Vec<Wire> {
        [self.score].into_iter().chain(self.p_value).chain(self.prediction).collect()
    }
}

/// 0, or NaN for inputs that hold NaN or infinity: what units that keep no weight, clipping and counting would hide.
fn zero_or_nan(graph: &mut expression::Graph) -> Wire {
    let features = graph.features();
    let squares = graph.mul(features, features);
    let sum = graph.sum(squares);
    graph.scale(sum, 0.0)
}

/// The column of the largest logit, or -1 where `zero` is NaN.
fn class_or_none(graph: &mut expression::Graph, logits: Wire, zero: Wire) -> Wire {
    let class = graph.reduce(Reduce::ArgMax, logits);
    let (one, least) = (graph.scalar(1.0), graph.scalar(-1.0));
    let is_known = graph.binary(Binary::Greater, zero, least);
    let number = graph.add(class, one);
    let number = graph.mul(number, is_known);
    graph.sub(number, one)
}

/// What is added to a model, or all of one that is made.
struct Addition {
    operators: Operators,
    /// The first axis of the added outputs.
    batch: DimensionProto,
}

impl Addition {
    fn to(model: &Model, graph: &Graph<'_>) -> Result<Self> {
        let standard = model.proto().opsets().next();
        let opset = standard.filter(|version| *version >= OLDEST_OPSET).ok_or_else(|| {
            let found = standard.map_or("no standard operator set".into(), |version| format!("opset {version}"));
            Error::new(ErrorKind::Unsupported, found)
                .expected(format!("opset {OLDEST_OPSET} or later"))
                .fix("convert the model with onnx.version_converter, or export it again")
        })?;
        let taken = [SCORE, P_VALUE, DECISION].into_iter().find(|name| graph.tensor(name).is_some());
        let made = graph.nodes.iter().flat_map(|node| node.output.iter().chain([&node.name]));
        let stored = model.tensors().map(|tensor| &tensor.name);
        let declared = graph.inputs.iter().map(|input| &input.name);
        let ours = made.chain(stored).chain(declared).find(|name| name.starts_with(ADDED));
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
        Ok(Self { operators: Operators::new(model.proto().ir_version, opset), batch })
    }

    /// Features `[N, D]` in f32.
    fn rows(&mut self, found: &FoundHead) -> String {
        let operators = &mut self.operators;
        let units = found.units() as i64;
        let made = found.made.as_ref().map(|made| operators.rows(made, &found.features, units));
        let shape: &[i64] = match found.layout {
            FeatureLayout::Rows | FeatureLayout::SelectedByInput | FeatureLayout::Joined => &[-1, units],
            FeatureLayout::Columns => &[units, -1],
            FeatureLayout::Channels { .. } => &[0, units, -1],
            FeatureLayout::Positions { .. } | FeatureLayout::Selected { .. } => &[0, -1, units],
        };
        let reshaped = operators.reshape(made.as_ref().unwrap_or(&found.features), shape);
        let mut rows = operators.cast(&reshaped, element::FLOAT);
        if let Some(stored) = found.quantization {
            if stored.zero_point != 0 {
                let zero = operators.scalar("zero_point", stored.zero_point as f32);
                rows = operators.node("Sub", &[&rows, &zero], vec![]);
            }
            let scale = operators.scalar("scale", stored.scale);
            rows = operators.node("Mul", &[&rows, &scale], vec![]);
        }
        let mean = match found.layout {
            FeatureLayout::Rows | FeatureLayout::SelectedByInput | FeatureLayout::Joined => return rows,
            FeatureLayout::Columns => {
                return operators.node("Transpose", &[&rows], vec![AttributeProto::ints("perm", &[1, 0])]);
            }
            FeatureLayout::Channels { .. } => operators.reduce("ReduceMean", &rows, 2),
            FeatureLayout::Positions { .. } => operators.reduce("ReduceMean", &rows, 1),
            FeatureLayout::Selected { position } => {
                let position = operators.integers("position", &[position]);
                operators.node("Gather", &[&rows, &position], vec![AttributeProto::int("axis", 1)])
            }
        };
        operators.reshape(&mean, &[-1, units])
    }

    /// The detector on `rows` `[N, D]`, as outputs `[N]`.
    fn detector(
        &mut self,
        calibrated: &Calibrated,
        expressed: &Expressed,
        rows: &str,
        stored: Option<&StoredWeight<'_>>,
    ) {
        let units = calibrated.detector().head().units();
        let names = lower(&expressed.graph, &expressed.all(), &mut self.operators, (rows, units), stored);
        self.column(&names[expressed.score.index()], element::FLOAT, SCORE);
        if let Some(p_value) = expressed.p_value {
            self.column(&names[p_value.index()], element::FLOAT, P_VALUE);
        }
        if let Some(threshold) = calibrated.threshold() {
            self.decision(threshold.score());
        }
        if let Some(prediction) = expressed.prediction {
            let class = self.operators.cast(&names[prediction.index()], element::INT64);
            self.column(&class, element::INT64, PREDICTION);
        }
    }

    /// A tensor `[N, 1]` as output `[N]`.
    fn column(&mut self, tensor: &str, kind: i32, output: &str) {
        self.operators.reshape_to(tensor, &[-1], output);
        self.operators.output(self.info(output, kind, &[]));
    }

    /// Whether the score is below `threshold`, as output [`DECISION`]: written so that NaN is.
    fn decision(&mut self, threshold: f64) {
        let bound = self.operators.scalar("threshold", just_below(threshold));
        let accepted = self.operators.node("Greater", &[SCORE, &bound], vec![]);
        self.operators.named("Not", &[&accepted], vec![], DECISION);
        self.operators.output(self.info(DECISION, element::BOOL, &[]));
    }

    fn features(&mut self, graph: &Graph<'_>, rows: &str, units: usize) -> String {
        let name = if graph.tensor(FEATURES).is_some() { "ood_features" } else { FEATURES };
        self.operators.named("Identity", &[rows], vec![], name);
        self.operators.output(self.info(name, element::FLOAT, &[units]));
        name.into()
    }

    /// A tensor `[N, ...]`.
    fn info(&self, name: &str, kind: i32, rest: &[usize]) -> ValueInfoProto {
        let fixed = rest.iter().map(|extent| DimensionProto { dim_value: Some(*extent as i64), dim_param: None });
        ValueInfoProto::tensor(name, kind, [self.batch.clone()].into_iter().chain(fixed).collect())
    }
}

/// The files with external data by the names that the model gives them; refused where they lie outside its folder.
fn external_files(model: &Model) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for tensor in model.tensors().filter(|tensor| tensor.is_external()) {
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
mod tests;
