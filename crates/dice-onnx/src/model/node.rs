//! Operators of a graph: their names and attributes.

use crate::model::proto::{AttributeProto, NodeProto};
use crate::text::quoted;

/// What the names of operators and tensors begin with that this crate adds to a model.
pub(crate) const ADDED: &str = "dice_ood/";

/// Whether a node is of ONNX itself, not of an extension.
pub(crate) fn is_standard(node: &NodeProto) -> bool {
    matches!(&*node.domain, "" | "ai.onnx")
}

pub(crate) fn attribute<'m>(node: &'m NodeProto, name: &str) -> Option<&'m AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub(crate) fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

pub(crate) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |attribute| attribute.f)
}

/// An operator as messages name it: its type and its name, or that of its output.
pub(crate) fn named(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    let operator: String = node.op_type.chars().take(60).flat_map(char::escape_debug).collect();
    format!("{operator} {}", quoted(name.map_or("", String::as_str)))
}

/// A node's name, or that of its output where it has none.
pub(crate) fn label_of(node: &NodeProto) -> &str {
    match (&*node.name, node.output.first()) {
        ("", Some(output)) => output,
        (name, _) => name,
    }
}
