#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod arrays;
mod images;
mod model;
mod network;
mod run;
#[cfg(test)]
mod testing;
mod text;
mod write;

pub use arrays::source::ArraySource;
pub use images::decode::{Orientation, decode, decode_bytes};
pub use images::distort::Distortion;
pub use images::entry::{Encoded, Entry};
pub use images::preprocess::{Channels, PixelLayout, Preprocess, Resize};
pub use images::resample::{Filter, Resizer};
pub use images::set::{Entries, ImageSet};
pub use images::source::{Broken, ImageSource};
pub use images::thumbnail::thumbnail;
pub use model::Model;
pub use model::describe::{Images, TensorInfo};
pub use model::head::{FeatureLayout, Following, FoundHead, HeadOptions};
pub use model::linear::Quantization;
pub use model::rounding::Rounding;
pub use model::sign::Nonnegative;
pub use network::key::Key;
pub use network::measure::{Measured, measure, measure_alone};
pub use network::origin::{Origin, Prepared};
pub use network::{Network, NetworkOptions, Suggested};
pub use run::backbone::Backbone;
pub use run::input::{Axis, Element, InputShape, ModelInput};
pub use run::runtime::{Level, Runtime};
pub use write::export::{DECISION, Export, Exporter, FEATURES, P_VALUE, PREDICTION, SCORE};
