//! Tests of the crate's public face.

mod agreement;
mod limits;
