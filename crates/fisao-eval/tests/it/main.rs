//! Tests of the evaluation crate's public face.

mod chair_input;
mod chair_mentions;
mod chair_score;
mod parity;
