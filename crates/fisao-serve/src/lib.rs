#![doc = include_str!("../README.md")]
//! # Where to find what
//!
//! * [`protocol`]: requests, answers and errors, as they are written.
//! * [`engine`]: what answers them, without knowing how they came.
//! * [`stdio`]: one JSON object a line, in order.
//! * [`http`]: the same and OpenAI's protocol over HTTP, where private `batching` writes what waits together.
#![allow(
    clippy::missing_errors_doc,
    reason = "errors are of one type, which says what is wrong; `# Errors` stands where a caller tells them apart"
)]

mod batching;
pub mod engine;
pub mod http;
mod metrics;
mod openai;
pub mod protocol;
pub mod stdio;
