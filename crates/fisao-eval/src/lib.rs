//! Evaluation of what a vision-language model wrote: text in, numbers out.
//!
//! Nothing here opens a file, runs a model or depends on another crate of the workspace, so a
//! score can be recomputed from saved captions alone. [`chair`] measures object hallucination;
//! [`statistics`] says how sure a number is.

pub mod chair;
pub mod image_id;
pub mod rows;
pub mod statistics;
