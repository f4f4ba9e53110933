#![doc = include_str!("../README.md")]
//! # Where to find what
//!
//! * A run: [`align`] from its first iteration or from where it stopped, [`demo`] on the built-in synthetic dataset, both by
//!   one private `pipeline` around [`training`]; [`run_list`] for what is in run folders, [`merge`] for a model with the adapter in
//!   its weights. Their settings: [`settings`], [`settings_reference`], [`demo_config`].
//! * What a run needs: [`bundle`] for a model and its verifier, found by [`model_location`] and run on a [`device`];
//!   [`vocabulary`], [`calibrations`], [`tasks`], [`ground_truth`], [`image_directory`] and [`prompt`].
//! * What a run keeps: [`checkpoints`], [`response_file`], [`state_folders`], [`data_check`], [`locks`], [`text_cache`].
//! * A verifier: [`calibrate`] for one model, [`verify`] for captions that are there.
//! * What models say: [`answering`] puts questions to a model, [`scorer`] scores what captions name, [`world`] evaluates captions of
//!   the built-in synthetic dataset.
//! * What goes on: [`reporter`] for remarks and progress, [`failure`] for what ends work, [`stop`] for ending it early.
#![allow(
    clippy::missing_errors_doc,
    reason = "errors are anyhow's and say what is wrong; `# Errors` stands where a caller tells them apart"
)]

pub mod align;
pub mod answering;
pub mod bundle;
mod cache_folder;
pub mod calibrate;
pub mod calibrations;
pub mod checkpoints;
pub mod data_check;
pub mod demo;
pub mod demo_config;
pub mod device;
mod duration;
pub mod failure;
pub mod found_vocabulary;
pub mod ground_truth;
pub mod image_directory;
pub mod locks;
pub mod memory;
pub mod merge;
pub mod model_location;
mod models;
mod pipeline;
pub mod processes;
pub mod prompt;
pub mod prospects;
pub mod renamed;
pub mod reporter;
pub mod response_file;
pub mod run_list;
pub mod score_settings;
mod scored_captions;
pub mod scorer;
pub mod settings;
pub mod settings_reference;
pub mod state_folders;
pub mod stop;
pub mod tasks;
pub mod text_cache;
pub mod training;
pub mod verifier_choice;
pub mod verify;
pub mod vocabulary;
pub mod world;
pub mod world_pope;

pub use failure::Refusal;
pub use reporter::Reporter;
