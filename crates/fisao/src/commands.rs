//! One module per command; each has a `run` that takes the command's own arguments.

pub(crate) mod align;
pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod caption;
mod chooser;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod pretrain;
pub(crate) mod runs;
pub(crate) mod scenes;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod study;
pub(crate) mod verify;
