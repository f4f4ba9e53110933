//! Judging a detector by its scores: correlation of ranks, separation of two classes, risk by
//! coverage, calibration.
//!
//! Pure functions of slices. What cannot be defined, such as the correlation with a constant, is
//! `None`; what can only be a mistake of the caller, such as lists of different lengths or NaN for
//! a score, panics. Equal scores are never put in an order of their own: no number depends on the
//! order in which scores are given.
//!
//! Mentions of one caption are not independent, so that intervals are drawn over [`Groups`] of
//! them, with the [`Bootstrap`](crate::statistics::Bootstrap) of the other measures.

mod calibration;
mod correlation;
mod groups;
mod ranks;
mod risk_coverage;
mod separation;
mod sweep;

pub use calibration::{brier, expected_calibration_error};
pub use correlation::{pearson, spearman};
pub use groups::Groups;
pub use ranks::mean_ranks;
pub use risk_coverage::{RiskCoverage, RiskPoint};
pub use separation::{average_precision, roc_auc};
pub use sweep::{Step, Sweep, Threshold};
