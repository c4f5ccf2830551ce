//! Writing models: bytes added to an encoded model, and the operators of a detector among them.

pub(crate) mod export;
pub(crate) mod splice;
