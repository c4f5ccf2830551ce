//! Images: where they come from, their pixels, and the inputs and features that are made of them.

#[cfg(feature = "columns")]
mod columns;
pub(crate) mod decode;
pub(crate) mod distort;
pub(crate) mod entry;
mod jpeg;
mod places;
pub(crate) mod preprocess;
pub(crate) mod resample;
pub(crate) mod set;
mod shards;
pub(crate) mod source;
pub(crate) mod thumbnail;
