#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod artifact;
mod calibration;
mod checks;
mod detector;
mod error;
pub mod evaluation;
mod exchangeability;
mod features;
mod fit;
mod head;
pub mod io;
mod kernel;
pub mod metrics;
mod progress;
mod random;
pub mod reference;
mod sparsify;
mod spec;
mod statistics;

pub use artifact::{Artifact, Calibrated};
pub use calibration::{Calibration, Decision, Threshold};
pub use checks::{Accuracy, Finding};
pub use detector::{Detector, NO_CLASS, NonFinite, Scored, Together};
pub use error::{Error, ErrorKind, Result};
pub use evaluation::{Report, evaluate};
pub use exchangeability::{BatchCheck, Check, Side, Verdict};
pub use features::{ArraySource, Block, FeatureSource, HoldOut, Id, Ids, Layout, Note, for_each_block};
pub use fit::{Fit, Fitted};
pub use head::LinearHead;
pub use progress::Progress;
pub use sparsify::{Mask, Salience, contribution};
pub use spec::{Clip, Contribution, Preset, Scope, Score, Shaping, Sparsity, Spec};
pub use statistics::{Gather, Statistics};
