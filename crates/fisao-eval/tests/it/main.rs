//! Tests of the evaluation crate's public face.

mod amber;
mod captions_input;
mod captions_parity;
mod captions_score;
mod captions_tokens;
mod chair_input;
mod chair_mentions;
mod chair_parity;
mod chair_reference;
mod chair_score;
mod detection;
mod gqa;
mod judged;
mod localization;
mod mme;
mod options;
mod parity;
mod pope;
mod science_qa;
mod statistics;
