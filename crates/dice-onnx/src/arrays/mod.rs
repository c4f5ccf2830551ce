//! Inputs that are not images: arrays named as those of the model.

pub(crate) mod feed;
pub(crate) mod source;
#[cfg(test)]
mod tests;
