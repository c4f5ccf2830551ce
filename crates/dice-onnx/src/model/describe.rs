//! A model in plain language.

use std::fmt::{self, Write};

use crate::model::Model;
use crate::model::element;
use crate::model::graph::{Graph, dimensions_of};
use crate::model::head::HeadOptions;
use crate::model::node::ADDED;
use crate::model::proto::{NodeProto, ValueInfoProto};
use crate::model::tensor::{count_of, shape_of};
use crate::text::quoted;

/// Most inputs and outputs listed, most notes, and most of a note's text.
const LISTED: usize = 8;
const NOTES: usize = 24;
const SHOWN: usize = 160;

impl Model {
    /// What the model takes, without the initializers that old models list as inputs.
    pub fn inputs(&self) -> Vec<TensorInfo> {
        self.graph().map(|graph| graph.inputs.iter().map(|info| TensorInfo::of(info)).collect()).unwrap_or_default()
    }

    /// What the model returns.
    pub fn outputs(&self) -> Vec<TensorInfo> {
        self.proto.graph.iter().flat_map(|graph| &graph.output).map(TensorInfo::of).collect()
    }

    /// What images the model takes, where its only input looks like images.
    pub fn images(&self) -> Option<Images> {
        self.graph().ok().and_then(|graph| images(&graph))
    }

    /// The model in plain language, in lines: who made it, inputs and outputs, what its input seems to be, and the head or why
    /// there is none.
    pub fn describe(&self) -> String {
        self.describe_with(&HeadOptions::default())
    }

    /// Whether this is a detector that was exported alone: all its operators are those of the detector.
    pub fn is_detector(&self) -> bool {
        let nodes = self.proto().graph.as_ref().map_or(&[][..], |graph| &graph.node);
        !nodes.is_empty() && nodes.iter().all(|node| node.name.starts_with(ADDED))
    }

    /// [`Model::describe`] with a head of the user's choice.
    pub fn describe_with(&self, options: &HeadOptions) -> String {
        let mut text = String::new();
        let proto = self.proto();
        let producer = format!("{} {}", proto.producer_name, proto.producer_version);
        let producer = if producer.trim().is_empty() { "unknown".into() } else { quoted(producer.trim()) };
        let _ = write!(text, "Model     ONNX of producer {producer}, IR version {}", proto.ir_version);
        for version in proto.opsets() {
            let _ = write!(text, ", opset {version}");
        }
        text.push('\n');
        let Ok(graph) = self.graph() else { return text };
        let parameters = self.tensors().filter_map(|tensor| count_of(&shape_of(tensor).ok()?).ok());
        let parameters = parameters.fold(0usize, usize::saturating_add);
        let _ = writeln!(text, "          {} operators, {parameters} parameters and constants", graph.nodes.len());
        let elsewhere = self.tensors().filter(|tensor| tensor.is_external()).count();
        if elsewhere > 0 {
            let _ = writeln!(text, "          {elsewhere} tensors are kept in other files");
        }
        for (title, infos) in [("Input ", &graph.inputs), ("Output", &graph.outputs.iter().collect())] {
            for info in infos.iter().take(LISTED) {
                let _ = writeln!(text, "{title}    {} {}", quoted(&info.name), type_of(info));
            }
            if infos.len() > LISTED {
                let _ = writeln!(text, "          and {} more", infos.len() - LISTED);
            }
        }
        if let Some(images) = images(&graph) {
            let _ = writeln!(text, "Images    {images}");
        }
        for (key, value) in self.metadata().take(NOTES) {
            let mut shown: String = value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            if value.chars().nth(SHOWN).is_some() {
                shown += "...";
            }
            let _ = writeln!(text, "Metadata  {} {shown}", quoted(key));
        }
        if self.is_detector() {
            text += "Detector  alone, of features that a network makes: it has no network inside\n";
            return text;
        }
        let _ = match self.find_head(options) {
            Ok(found) => write!(text, "{found}"),
            Err(error) => writeln!(text, "No head   {error}"),
        };
        text
    }
}

/// An input or output as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type as numpy calls it, such as `float32`; `None` for sequences and maps.
    pub element: Option<String>,
    /// Its extents, `None` for those that are free; `None` where the shape is not declared.
    pub shape: Option<Vec<Option<usize>>>,
}

impl TensorInfo {
    pub(crate) fn of(info: &ValueInfoProto) -> Self {
        let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        Self {
            name: info.name.clone(),
            element: tensor.map(|tensor| element::name(tensor.elem_type)),
            shape: dimensions_of(info),
        }
    }
}

/// `float32 [batch, 3, 224, 224]`; what is no tensor is said to be none.
fn type_of(info: &ValueInfoProto) -> String {
    let Some(tensor) = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()) else {
        return "of no tensor type (a sequence or map)".into();
    };
    let name = element::name(tensor.elem_type);
    let Some(shape) = &tensor.shape else { return format!("{name} of unknown shape") };
    let extents = shape.dim.iter().take(LISTED).map(|extent| match (extent.dim_value, &extent.dim_param) {
        (Some(extent), _) if extent > 0 => extent.to_string(),
        (_, Some(name)) if !name.is_empty() => name.chars().take(40).flat_map(char::escape_debug).collect(),
        _ => "?".into(),
    });
    format!("{name} [{}]", extents.collect::<Vec<String>>().join(", "))
}

/// What images a model takes, as far as its graph tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Images {
    /// The input they are given to.
    pub input: String,
    /// Whether `[N, channels, height, width]` (NCHW) rather than `[N, height, width, channels]` (NHWC).
    pub channels_first: bool,
    /// 1, 3 or 4.
    pub channels: usize,
    /// Height, where it is fixed.
    pub height: Option<usize>,
    /// Width, where it is fixed.
    pub width: Option<usize>,
    /// Whether the model takes bytes.
    pub bytes: bool,
    /// The operators by which the graph itself scales its input first, such as `Sub, Div`; `None` where it does not.
    pub scaled_by: Option<String>,
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.channels_first { "NCHW (channels first)" } else { "NHWC (channels last)" })?;
        match (self.height, self.width) {
            (Some(height), Some(width)) => write!(f, ", {width} x {height}")?,
            _ => f.write_str(", any size")?,
        }
        write!(f, ", {} channel{}; ", self.channels, if self.channels == 1 { "" } else { "s" })?;
        match &self.scaled_by {
            Some(operators) => {
                write!(f, "the graph itself scales them ({operators}): give them as its first operators expect")
            }
            None if self.bytes => f.write_str("bytes"),
            None => f.write_str(
                "values as in training (the graph does not normalise: apply the training's mean and deviation)",
            ),
        }
    }
}

pub(crate) fn images(graph: &Graph) -> Option<Images> {
    let [input] = graph.inputs[..] else { return None };
    let [_, second, third, fourth] = dimensions_of(input)?[..] else { return None };
    let channels = |extent: Option<usize>| extent.filter(|extent| matches!(extent, 1 | 3 | 4));
    let (channels_first, channels, height, width) = match (channels(second), channels(fourth)) {
        (Some(count), _) => (true, count, third, fourth),
        (None, Some(count)) => (false, count, second, third),
        (None, None) => return None,
    };
    let code = input.r#type.as_ref()?.tensor_type.as_ref()?.elem_type;
    let bytes = code == element::UINT8;
    let scaled_by = scaling(graph, &input.name);
    Some(Images { input: input.name.clone(), channels_first, channels, height, width, bytes, scaled_by })
}

/// The operators that scale the input before anything else does, where there are any.
fn scaling(graph: &Graph, input: &str) -> Option<String> {
    let mut tensor = input;
    let mut found: Vec<&str> = Vec::new();
    for _ in 0..12 {
        let [place] = graph.consumers(tensor) else { break };
        let node: &NodeProto = &graph.nodes[*place];
        match &*node.op_type {
            "Sub" | "Div" | "Mul" | "Add" if node.input.iter().any(|name| graph.is_constant(name)) => {
                found.push(&node.op_type);
            }
            "BatchNormalization" | "ImageScaler" | "Normalizer" => found.push(&node.op_type),
            "Identity" | "Cast" | "Transpose" | "Reshape" | "Resize" | "Unsqueeze" | "Squeeze" | "Pad"
            | "QuantizeLinear" | "DequantizeLinear" => {}
            _ => break,
        }
        tensor = node.output.first()?;
    }
    if found.is_empty() { None } else { Some(found.join(", ")) }
}
