//! The command as it is used: what it prints, what it refuses, what it leaves behind.

mod bad_align;
mod bad_images;
mod bad_models;
mod bad_settings;
mod calibrations;
mod caption;
mod devices;
mod eval;
mod eval_benchmarks;
mod eval_captions;
mod eval_questions;
mod fake_hub;
mod fixture;
mod help;
mod hub;
mod hub_errors;
mod inspect;
mod merge;
mod pretrain;
mod resume;
mod runs;
mod score;
mod study;
mod tiles;
mod unit_tokens;
mod verify;
