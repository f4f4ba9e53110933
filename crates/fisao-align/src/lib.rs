//! Alignment of a vision-language policy with token-level rewards from its own visual encoder.
//!
//! What a run optimises is one enum, [`objective`]; the mathematics of each are pure functions:
//! proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) in [`ppo`], its form without a critic
//! in [`group`], direct preference optimisation in [`preference`]. [`trainer`] holds the one loop they share; what
//! a run reports is in [`events`], what it warns about in [`guards`].

pub mod calibrate;
pub mod captions;
pub mod centring;
pub mod config;
pub mod credit;
pub mod encoding;
pub mod error;
pub mod events;
pub mod features;
pub mod grounding;
pub mod group;
pub mod guards;
pub mod guided;
pub mod length;
pub mod likelihoods;
pub mod link;
mod log_probabilities;
pub mod mention_views;
pub mod mentions;
pub mod objective;
mod phase_clock;
pub mod ppo;
pub mod preference;
pub mod ranges;
pub mod recall;
pub mod region_weights;
mod responses;
pub mod rollout;
pub mod run_control;
pub mod sampling;
pub mod serving;
mod sharing;
pub mod signals;
pub mod tasks;
pub mod team;
pub mod token_rewards;
pub mod trainer;
pub mod update;

pub use config::AlignConfig;
pub use error::AlignError;
pub use events::{AlignEvent, IterationMetrics, Phase, PhaseSeconds, Warning, WarningCode};
pub use objective::Objective;
pub use run_control::{RunControl, StopFlag};
