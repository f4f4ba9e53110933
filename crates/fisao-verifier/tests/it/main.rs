//! Tests of the verifier's pure parts.

mod calibration;
mod mentions;
mod rewards;
mod unlabelled;
