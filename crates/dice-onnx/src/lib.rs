#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod images;
mod model;
mod network;
mod run;
#[cfg(test)]
mod testing;
mod write;

pub use images::preprocess::{Channels, Filter, Layout as PixelLayout, Preprocess, Resize};
pub use images::source::{Broken, ImageSource};
pub use images::{Encoded, Entries, Entry, ImageSet, decode, decode_bytes};
pub use model::Model;
pub use model::describe::{Images, TensorInfo};
pub use model::head::{Following, FoundHead, HeadOptions, Layout};
pub use model::linear::Quantization;
pub use model::sign::Nonnegative;
pub use network::origin::Origin;
pub use run::backbone::{Backbone, Element, InputShape};
pub use run::runtime::Runtime;
pub use write::export::{DECISION, Export, SCORE};

// The names by which `write::export` calls them.
use model::{graph, proto, tensor};
use write::splice;

/// A name from a file, safe to print: control characters escaped, never long.
fn quoted(name: &str) -> String {
    const LONGEST: usize = 200;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text += "...";
    }
    format!("`{text}`")
}

/// An operator as messages name it: its type and its name, or that of its output.
fn named(node: &proto::NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    let operator: String = node.op_type.chars().take(60).flat_map(char::escape_debug).collect();
    format!("{operator} {}", quoted(name.map_or("", String::as_str)))
}
