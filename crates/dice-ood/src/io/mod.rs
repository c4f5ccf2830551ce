//! Files of features, labels, heads, statistics and scores.
//!
//! Two families. *Tensor files* (npy, npz, safetensors, PyTorch) hold named arrays; *tables* (CSV, Parquet, Arrow IPC)
//! hold columns. Both end as a [`FeatureSource`](crate::FeatureSource), read block by block. Headers are claims: nothing is
//! allocated because a header says so, only because the bytes are there.
//!
//! A file may be written `path#name` to choose one of its tensors or columns.

mod arrays;
mod budget;
mod chain;
mod dataset;
pub mod files;
mod format;
mod guard;
mod heads;
pub(crate) mod location;
mod names;
mod request;
mod source;
mod spool;
pub(crate) mod state;
mod tables;
mod tally;
pub(crate) mod tensors;
pub(crate) mod vectors;
mod whole;
mod write;

pub use arrays::{ArrayReader, ArrayRows, ArrayValues, Arrays, Extent, WantedArray};
pub use budget::{Budget, Share};
pub use dataset::Dataset;
pub use files::AtomicFile;
pub use format::Format;
pub use guard::guard;
pub use heads::{Chosen, FoundHead, find_head, list, read_head};
pub use location::{Location, expand};
pub use names::SCORE_NAMES;
pub use request::Columns;
#[cfg(feature = "columns")]
pub use tables::parquet::{PageSizes, ParquetBatches, ParquetFile, Reading};
pub use tensors::element::f32_of_f16;
pub use tensors::info::{DType, TensorInfo};
pub use tensors::read_metadata;
pub use vectors::{read_labels, read_vector};
pub use write::features::FeaturesWriter;
pub use write::row::ScoreRow;
pub use write::scores::ScoreWriter;
