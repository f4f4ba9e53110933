//! Tests of the verifier's pure parts.

mod calibration;
mod calibration_properties;
mod combination;
mod corrected;
#[cfg(feature = "scorer")]
mod decoder_reader;
mod reward_properties;
mod rewards;
#[cfg(feature = "scorer")]
mod scorer;
mod three_views;
mod unlabelled;
