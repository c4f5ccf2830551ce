#![doc = include_str!("../README.md")]

pub mod artifact;
mod calibration;
mod detector;
mod error;
mod features;
mod head;
pub mod io;
mod kernel;
pub mod metrics;
mod random;
pub mod reference;
mod sparsify;
mod spec;
mod statistics;

/// Not part of the interface: what the benchmarks of this crate time.
#[doc(hidden)]
pub mod internal {
    pub use crate::kernel::{Product, Scratch, Slab, second_moment};
}

pub use artifact::{Artifact, Calibrated};
pub use calibration::{Calibration, Decision, Threshold};
pub use detector::{Detector, NO_CLASS, NonFinite, Scored, Together};
pub use error::{Error, ErrorKind, Result};
pub use features::{ArraySource, Block, FeatureSource, HoldOut, for_each_block};
pub use head::LinearHead;
pub use sparsify::{Mask, Salience, contribution};
pub use spec::{Clip, Contribution, Preset, Scope, Score, Shaping, Sparsity, Spec};
pub use statistics::{Gather, Statistics};
