//! Closed forms for alignment with token rewards, and the Monte Carlo estimates they are held against.
//!
//! [`feedback`], [`credit`], [`rewards`], [`deletion`], [`tilt`] and [`kl_estimators`] are mathematics: an equation, the ranges of
//! its arguments, a few lines of code. [`checks`] lists what is compared with what; [`comparison`] is the form of a result.
//! The derivations are in `docs/src/theory.md`. Nothing here opens a file or depends on another crate of the workspace.
#![doc = include_str!("../README.md")]
#![allow(clippy::doc_markdown, reason = "formulas, whose symbols are not code")]

pub mod checks;
pub mod comparison;
pub mod credit;
pub mod deletion;
pub mod estimate;
pub mod feedback;
pub mod kl_estimators;
mod matrix;
pub mod normal;
pub mod random;
pub mod rewards;
pub mod softmax_credit;
pub mod tilt;
