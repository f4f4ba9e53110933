//! A whole decoder against the CPU path of fisao-models, which reads every sequence from its beginning, without padding or a cache.

mod decoding;
pub(crate) mod model;
mod training;
