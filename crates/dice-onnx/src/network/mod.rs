//! What a network, its preprocessing and the features of both must agree on.

pub(crate) mod origin;
