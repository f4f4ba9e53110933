//! Alignment of a vision-language policy with token-level rewards from its own visual encoder.
//!
//! The mathematics of proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) lives
//! in [`ppo`] as pure functions; [`trainer`] holds the loop; what a run reports is in [`events`], what
//! it warns about in [`guards`].

pub mod calibrate;
pub mod captions;
pub mod config;
pub mod error;
pub mod events;
pub mod guards;
pub mod ppo;
pub mod rollout;
pub mod tasks;
pub mod trainer;
pub mod update;

pub use config::AlignConfig;
pub use error::AlignError;
pub use events::{AlignEvent, IterationMetrics, Phase, PhaseSeconds, Warning, WarningCode};
