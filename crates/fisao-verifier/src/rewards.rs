//! Token rewards: what each name in a response is worth, placed on the tokens that spell it.
//!
//! For a mention with score s on the calibration's scale, pooled spread σ and bound `r_max`:
//!
//! ```text
//!  threshold      τ₊ = μ₊ − λ,  τ₋ = μ₋ + λ
//!
//!                 ⎧ min((s − τ₊)/σ,  r_max)   s ≥ τ₊     correct
//!          r(s) = ⎨ max((s − τ₋)/σ, −r_max)   s ≤ τ₋     hallucinated
//!                 ⎩ 0                          else       undecided
//!
//!  log-odds       r(s) = clamp(logit p(s) − logit p*, −r_max, r_max)
//!
//!  corrected      r(s) = a (ẑ(s) − q*),    ẑ(s) = (f(s) − f̄₋)/(f̄₊ − f̄₋)
//!                 E[r | correct] = a (1 − q*),   E[r | hallucinated] = −a q*,   whatever the AUC
//!
//!  sentence       clamp((S − mean S)/s.d. S, −r_max, r_max) on the last token, S the score of the
//!                 whole response; mentions earn nothing
//! ```
//!
//! Negative rewards of mentions are then multiplied by the penalty weight κ₋. Function tokens get 0,
//! only the first mention of a category can earn a positive reward (else repeating one true object would
//! be optimal), every later one costs at least the penalty of repetition (else true objects would be
//! repeated where nothing else is safe to say), and a response cut off by its length budget pays a fixed
//! penalty on its last token.
//!
//! The paper describes rewards relative to the two means, a margin and a normalisation in words;
//! the exact threshold form, `log-odds`, `corrected` and κ₋ are this project's
//! ([`Correctness`](crate::calibration::Correctness) has the sources of the correction).

mod config;
mod error;
mod formula;
mod rule;
mod tokens;

pub use config::{PenaltyWeight, Placement, RewardConfig, RewardForm};
pub use error::RewardError;
pub use formula::thresholds;
pub use rule::{Boundary, RewardRule, ScoreMarks};
pub use tokens::{Response, ScoredMention};
