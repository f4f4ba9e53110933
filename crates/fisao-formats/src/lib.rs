//! Every file that FiSAO reads or writes.
//!
//! * [`checkpoint`]: model folders in Hugging Face layout, LLaVA and CLIP.
//! * [`weights`]: safetensors, memory-mapped, under canonical tensor names.
//! * [`tokenizer`], [`processor`], [`images`]: text and images on their way into a model.
//! * [`prompts`]: the images and prompts of training, read row by row.
//! * [`chat_template`]: how a checkpoint wants to be spoken to.
//! * `hub` (feature `hub`): checkpoints and adapters by their name on the Hugging Face Hub.
//! * [`adapter`]: LoRA adapters in PEFT's layout; [`merge`]: checkpoints with one folded in.
//! * [`run_folder`], [`documents`], [`json_lines`], [`digest`]: a run's own files; [`data_record`]: what data it was begun
//!   with; [`folder_lock`]: who writes into a folder; [`tensorboard`]: a run's curves for TensorBoard.
//!
//! Input files are other people's: whatever is wrong with one is a [`FormatError`] that names it, never
//! a panic. Output files are written beside their place and renamed into it, so that an interrupted
//! write leaves the old file or none.

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
mod limits;
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

pub use adapter::Adapter;
pub use chat_template::ChatTemplate;
pub use checkpoint::{Checkpoint, Loaded, ModelConfig};
pub use data_record::DataRecord;
pub use error::FormatError;
pub use folder_lock::FolderLock;
pub use prompts::PromptSet;
pub use run_folder::{MetricsWriter, RunFolder};
pub use tokenizer::HfTokenizer;
pub use weights::{LoadDtype, SafetensorsSource, StoredDtype};
