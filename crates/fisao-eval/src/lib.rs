//! Evaluation of what a vision-language model wrote: text in, numbers out.
//!
//! Nothing here opens a file, runs a model or depends on another crate of the workspace, so a
//! score can be recomputed from saved captions alone. [`chair`] measures object hallucination in
//! captions, [`captions`] their likeness to people's; [`pope`], [`mme`], [`amber`], [`options`],
//! [`science_qa`], [`gqa`] and [`judged`] are benchmarks of questions, whose [`answers`] are read
//! alike; [`detection`] judges the scores of a detector, [`localization`] what it says of words and
//! spans; [`statistics`] says how sure a number is.
#![doc = include_str!("../README.md")]

pub mod amber;
pub mod answers;
mod caption_row;
pub mod captions;
pub mod chair;
pub mod detection;
mod digest;
pub mod gqa;
pub mod image_id;
pub mod judged;
mod keyed;
pub mod localization;
pub mod mme;
pub mod options;
pub mod pope;
pub mod rates;
pub mod rows;
pub mod science_qa;
pub mod statistics;
mod written_facts;
mod written_id;
