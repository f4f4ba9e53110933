//! Every file that FiSAO reads or writes.
//!
//! Models:
//!
//! * [`checkpoint`]: folders in Hugging Face layout, their configurations, and the models in them.
//! * [`weights`]: safetensors, memory-mapped, under canonical tensor names.
//! * [`tokenizer`], [`chat_template`], [`processor`]: text and images on their way into a model.
//! * [`adapter`]: LoRA adapters in PEFT's layout; [`merge`]: checkpoints with one folded in.
//! * `hub` (feature `hub`): checkpoints and adapters by their name on the Hugging Face Hub.
//!
//! Data:
//!
//! * [`images`]: image files, and folders of them.
//! * [`prompts`]: the images and prompts of training, read row by row.
//! * [`documents`], [`json_lines`], [`named_vectors`]: JSON, TOML, JSON lines, and vectors with names.
//!
//! Runs:
//!
//! * [`run_folder`]: a run's own files; [`tensorboard`]: its curves for TensorBoard.
//! * [`data_record`]: what data it was begun with, by the digests of [`digest`].
//! * [`folder_lock`]: who writes into a folder.
//!
//! Types are imported from their modules; [`FormatError`] alone is here. Input files are other people's: whatever is wrong with
//! one is a [`FormatError`] that names it, never a panic. Output files are written beside their place and renamed into it, so
//! that an interrupted write leaves the old file or none.

// What a file says is converted with care.
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

pub mod adapter;
pub mod chat_template;
pub mod checkpoint;
pub mod data_record;
pub mod digest;
pub mod documents;
mod error;
mod fields;
mod files;
pub mod folder_lock;
#[cfg(feature = "hub")]
pub mod hub;
pub mod images;
pub mod json_lines;
mod lock_owner;
pub mod merge;
pub mod named_vectors;
pub mod processor;
pub mod prompts;
mod read_ahead;
pub mod run_folder;
pub mod tensorboard;
pub mod tokenizer;
pub mod weights;

pub use error::FormatError;
