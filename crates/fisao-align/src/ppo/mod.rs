//! Proximal policy optimisation on token-level rewards, as pure functions.
//!
//! Notation: a response has `T` tokens, `t ∈ [0, T)`. Token `t` was sampled with log-probability
//! `log π_old(y_t)`; the policy being trained gives it `log π_θ(y_t)`, the reference
//! `log π_ref(y_t)`. All slices hold *real response tokens only*: prompt, image and padding
//! positions never enter, so nothing has to be masked and nothing can leak.

pub mod advantages;
pub mod config;
pub mod divergence;
pub mod losses;
pub mod schedule;
pub mod statistics;
pub mod tokens;

pub use advantages::{WhitenMode, Whitening, gae, whiten};
pub use config::{KlConfig, KlControllerKind, PpoConfig};
pub use divergence::{KlController, KlEstimator, token_rewards_with_kl};
pub use losses::{ClipRange, entropy, policy_loss, value_loss};
pub use schedule::{LearningRates, Schedule};
pub use statistics::{PolicyStatistics, ValueStatistics, explained_variance};
pub use tokens::RealTokens;
