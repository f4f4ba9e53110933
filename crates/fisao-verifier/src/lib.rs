//! The verifier: what a response names, how well each name fits the image, and what that is worth.
//!
//! ```text
//! response ─ mentions ─→ TokenMention ─ scores ─→ ScoredMention ─ rewards ─→ one reward per token
//!                                             ↑
//!                      calibration: scores of correct and hallucinated mentions
//! ```
//!
//! * [`mentions`]: objects a text names, mapped to the tokens that spell them; [`listing`]: lists of objects;
//! * [`templates`]: sentences in which a name is shown to the text encoder;
//! * [`calibration`]: what scores of correct and hallucinated mentions look like;
//! * [`regions`]: where in an image a name is looked for;
//! * `scorer`: how well a name fits an image, by the policy's own encoder;
//! * [`rewards`]: from scores to token rewards.
//!
//! All but the scorer, which runs the encoder and is there with the feature of that name, work on plain slices and need
//! neither model nor device.
#![doc = include_str!("../README.md")]

pub mod calibration;
pub mod listing;
pub mod regions;
pub mod rewards;
#[cfg(feature = "scorer")]
pub mod scorer;
pub mod templates;

/// Text → mentions: the objects a response names and the tokens that spell them.
pub use fisao_mentions as mentions;
