//! A model in plain language.

use std::fmt::Write;

use crate::graph::{Graph, dimensions_of};
use crate::head::HeadOptions;
use crate::model::Model;
use crate::proto::{NodeProto, ValueInfoProto};
use crate::quoted;
use crate::tensor::{count_of, element, shape_of};

/// Most inputs, outputs and notes listed, and most of a note's text.
const LISTED: usize = 8;
const SHOWN: usize = 160;

impl Model {
    /// The model in plain language, in lines: who made it, inputs and outputs, what its input seems to be, and the head or why
    /// there is none.
    pub fn describe(&self) -> String {
        self.describe_with(&HeadOptions::default())
    }

    /// [`Model::describe`] with a head of the user's choice.
    pub fn describe_with(&self, options: &HeadOptions) -> String {
        let mut text = String::new();
        let proto = self.proto();
        let producer = format!("{} {}", proto.producer_name, proto.producer_version);
        let producer = if producer.trim().is_empty() { "unknown".into() } else { quoted(producer.trim()) };
        let _ = write!(text, "Model     ONNX of producer {producer}, IR version {}", proto.ir_version);
        for set in proto.opset_import.iter().filter(|set| matches!(&*set.domain, "" | "ai.onnx")) {
            let _ = write!(text, ", opset {}", set.version);
        }
        text.push('\n');
        let Ok(graph) = self.graph() else { return text };
        let parameters = self.tensors().filter_map(|tensor| count_of(&shape_of(tensor).ok()?).ok());
        let parameters = parameters.fold(0usize, usize::saturating_add);
        let _ = writeln!(text, "          {} operators, {parameters} parameters and constants", graph.nodes.len());
        let elsewhere = self.tensors().filter(|tensor| tensor.data_location == 1).count();
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
        if let Some(preprocessing) = preprocessing(&graph) {
            let _ = writeln!(text, "Images    {preprocessing}");
        }
        for (key, value) in self.metadata().take(LISTED) {
            let mut shown: String = value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            if value.chars().nth(SHOWN).is_some() {
                shown += "...";
            }
            let _ = writeln!(text, "Metadata  {} {shown}", quoted(key));
        }
        let _ = match self.find_head(options) {
            Ok(found) => write!(text, "{found}"),
            Err(error) => writeln!(text, "No head   {error}"),
        };
        text
    }
}

/// `float32 [batch, 3, 224, 224]`; what is no tensor is said to be none.
fn type_of(info: &ValueInfoProto) -> String {
    let Some(tensor) = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()) else {
        return "of no tensor type (a sequence or map)".into();
    };
    let name = element::name(tensor.elem_type);
    let Some(shape) = &tensor.shape else { return format!("{name} of unknown shape") };
    let extents: Vec<String> = shape
        .dim
        .iter()
        .take(crate::describe::LISTED)
        .map(|extent| match (extent.dim_value, &extent.dim_param) {
            (Some(extent), _) if extent > 0 => extent.to_string(),
            (_, Some(name)) if !name.is_empty() => name.chars().take(40).flat_map(char::escape_debug).collect(),
            _ => "?".into(),
        })
        .collect();
    format!("{name} [{}]", extents.join(", "))
}

/// What images the model seems to want: layout, size, and whether the graph normalises them.
fn preprocessing(graph: &Graph) -> Option<String> {
    let [input] = graph.inputs[..] else { return None };
    let extents = dimensions_of(input)?;
    let [_, second, third, fourth] = extents[..] else { return None };
    let channels = |extent: Option<usize>| extent.filter(|extent| matches!(extent, 1 | 3 | 4));
    let (layout, channels, height, width) = match (channels(second), channels(fourth)) {
        (Some(count), _) => ("NCHW (channels first)", count, third, fourth),
        (None, Some(count)) => ("NHWC (channels last)", count, second, third),
        (None, None) => return None,
    };
    let size = match (height, width) {
        (Some(height), Some(width)) => format!("{width} x {height}"),
        _ => "any size".into(),
    };
    let code = input.r#type.as_ref()?.tensor_type.as_ref()?.elem_type;
    let values = match (normalises(graph, &input.name), code) {
        (Some(operator), _) => format!("the graph itself scales them ({operator}): give raw values"),
        (None, element::UINT8) => "raw bytes".into(),
        (None, _) => {
            "values as in training (the graph does not normalise: apply the training's mean and deviation)".into()
        }
    };
    Some(format!("{layout}, {size}, {channels} channel{}; {values}", if channels == 1 { "" } else { "s" }))
}

/// The operators that scale the input before anything else does, where there are any.
fn normalises(graph: &Graph, input: &str) -> Option<String> {
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
