#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod backbone;
mod describe;
mod export;
mod graph;
mod head;
mod images;
mod linear;
mod model;
mod origin;
mod preprocess;
mod proto;
mod sign;
mod source;
mod splice;
mod tail;
mod tensor;
#[cfg(test)]
mod testing;

pub use backbone::{Backbone, Element, InputShape, Runtime};
pub use describe::{Images, TensorInfo};
pub use export::{DECISION, Export, SCORE};
pub use head::{Following, FoundHead, HeadOptions, Layout};
pub use images::{Encoded, Entries, Entry, ImageSet, decode, decode_bytes};
pub use linear::Quantization;
pub use model::Model;
pub use origin::Origin;
pub use preprocess::{Channels, Filter, Layout as PixelLayout, Preprocess, Resize};
pub use sign::Nonnegative;
pub use source::{Broken, ImageSource};

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
