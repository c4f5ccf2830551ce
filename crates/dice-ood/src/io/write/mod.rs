//! The files that are written: features, scores, state.

pub(crate) mod features;
pub(crate) mod header;
#[cfg(feature = "columns")]
mod parquet;
pub(crate) mod row;
pub(crate) mod scores;
