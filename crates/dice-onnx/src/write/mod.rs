//! Writing models: detectors as operators, inside an encoded model or alone.

pub(crate) mod export;
mod lower;
pub(crate) mod operators;
pub(crate) mod splice;
