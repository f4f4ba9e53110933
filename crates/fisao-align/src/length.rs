//! Length as a constraint beside recall, without labels.
//!
//! A policy that no longer names what is not there writes shorter captions even where it names all that is: the words of
//! the hallucinated mentions are gone. Metrics that depend on length (`CHAIR_S`, pairwise judges) then compare captions of
//! different kinds. So the mean length L of greedy captions is kept between two fractions of the base model's L₀. The
//! Lagrangian of
//!
//! ```text
//! min-ratio · L₀  ≤  L = E[T]  ≤  max-ratio · L₀
//! ```
//!
//! adds the same reward ν = ν₁ − ν₂ to every token of a response, as L is the expected number of tokens. Both multipliers
//! follow projected dual ascent with a proportional part, as q* does ([`RecallController`](crate::recall::RecallController)):
//! ν₁ ≥ 0 rises while captions are too short, ν₂ ≥ 0 while they are too long, and within the two limits both fall to 0, where
//! the reward is that of mentions alone.
//!
//! Policy and base model are measured on the same images, captioned for the recall constraint anyway.

use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::ranges::{ABOVE_ZERO, ZERO_OR_MORE, not_negative, positive, real};
use crate::recall::{PairedCounts, newest_weight};

/// The `[length]` table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LengthConfig {
    /// Keep the length of captions near the base model's by a reward per token. Acts where recall is constrained, and is
    /// measured when recall is. Default true.
    pub constraint: bool,
    /// Least mean length, a fraction of the base model's. Above 0, at most 1. Default 0.95.
    pub min_ratio: f64,
    /// Greatest mean length, a fraction of the base model's. At least 1. Default 1.05.
    pub max_ratio: f64,
    /// Change of the reward per token for each measurement and unit of relative length beyond the limit. Unit: reward.
    /// Default 0.05.
    pub gain: f64,
    /// Reward per token for each unit of the running relative length beyond the limit. Unit: reward. Default 0.5.
    pub damping: f64,
    /// Largest absolute reward per token. Unit: reward. Default 0.3.
    pub max_bonus: f64,
}

impl Default for LengthConfig {
    fn default() -> Self {
        Self {
            constraint: true,
            min_ratio: 0.95,
            max_ratio: 1.05,
            gain: 0.05,
            damping: 0.5,
            max_bonus: 0.3,
        }
    }
}

impl LengthConfig {
    pub(crate) fn validate(&self) -> Result<(), AlignError> {
        let at_most_one = |x: f64| x > 0.0 && x <= 1.0;
        real("length.min-ratio", self.min_ratio, at_most_one, "above 0, at most 1")?;
        let at_least_one = |x: f64| (1.0..=100.0).contains(&x);
        real("length.max-ratio", self.max_ratio, at_least_one, "from 1 to 100")?;
        real("length.gain", self.gain, not_negative, ZERO_OR_MORE)?;
        real("length.damping", self.damping, not_negative, ZERO_OR_MORE)?;
        real("length.max-bonus", self.max_bonus, positive, ABOVE_ZERO)
    }
}

/// The two multipliers and the running length; part of a run's state.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LengthController {
    /// ν₁, but for its damping.
    too_short: f64,
    /// ν₂, but for its damping.
    too_long: f64,
    /// Running L/L₀.
    ratio: f64,
    /// Measurements so far.
    measurements: usize,
}

impl LengthController {
    /// Whether all its values are finite.
    pub(crate) fn is_finite(&self) -> bool {
        [self.too_short, self.too_long, self.ratio].iter().all(|x| x.is_finite())
    }

    /// Takes a measurement in. One whose base model says nothing changes nothing.
    pub fn observe(&mut self, counts: &PairedCounts, config: &LengthConfig) {
        if counts.base_length <= 0.0 {
            return;
        }
        let ratio = counts.policy_length / counts.base_length;
        self.measurements += 1;
        self.ratio += newest_weight(self.measurements) * (ratio - self.ratio);
        let ascend = |multiplier: f64, excess: f64| {
            (multiplier + config.gain * excess).clamp(0.0, config.max_bonus)
        };
        self.too_short = ascend(self.too_short, config.min_ratio - ratio);
        self.too_long = ascend(self.too_long, ratio - config.max_ratio);
    }

    /// ν now: the reward of every token, reward units.
    pub fn bonus(&self, config: &LengthConfig) -> f64 {
        if self.measurements == 0 {
            return 0.0;
        }
        let damped = |multiplier: f64, excess: f64| (multiplier + config.damping * excess).max(0.0);
        let bonus = damped(self.too_short, config.min_ratio - self.ratio)
            - damped(self.too_long, self.ratio - config.max_ratio);
        bonus.clamp(-config.max_bonus, config.max_bonus)
    }

    /// L/L₀, smoothed over about the last four measurements; none before the first.
    pub fn ratio(&self) -> Option<f64> {
        (self.measurements > 0).then_some(self.ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ratio: f64) -> PairedCounts {
        let (policy_length, base_length) = (40.0 * ratio, 40.0);
        PairedCounts { images: 64, policy: 3.0, base: 3.0, error: 0.1, policy_length, base_length }
    }

    fn after(ratios: &[f64]) -> f64 {
        let config = LengthConfig::default();
        let mut controller = LengthController::default();
        for &ratio in ratios {
            controller.observe(&counts(ratio), &config);
        }
        controller.bonus(&config)
    }

    #[test]
    fn length_bonus_is_zero_within_the_limits() {
        for ratios in [vec![], vec![1.0; 9], vec![0.95; 9], vec![1.05; 9]] {
            assert!(after(&ratios).abs() < 1e-12, "{ratios:?}");
        }
    }

    /// One measurement 10 % below the limit: 0.05 · 0.1 + 0.5 · 0.1.
    #[test]
    fn first_measurement_moves_length_bonus_by_gain_and_damping() {
        assert!((after(&[0.85]) - 0.055).abs() < 1e-12);
        assert!((after(&[1.15]) + 0.055).abs() < 1e-12);
    }

    #[test]
    fn length_bonus_accumulates_up_to_its_bound() {
        let bonuses = [1, 5, 20, 500].map(|count| after(&vec![0.8; count]));
        assert!(bonuses.is_sorted() && bonuses[0] < bonuses[1], "{bonuses:?}");
        assert!((bonuses[3] - 0.3).abs() < 1e-12, "{bonuses:?}");
        assert!((after(&[1.6; 500]) + 0.3).abs() < 1e-12);
    }

    #[test]
    fn length_bonus_returns_to_zero_once_length_recovers() {
        let mut ratios = vec![0.8; 10];
        let short = after(&ratios);
        ratios.extend([1.0; 40]);
        assert!(short > 0.1 && after(&ratios).abs() < 1e-12, "{short} {}", after(&ratios));
    }

    #[test]
    fn length_controller_is_unchanged_when_base_length_is_zero() {
        let config = LengthConfig::default();
        let mut controller = LengthController::default();
        controller.observe(&PairedCounts { base_length: 0.0, ..counts(1.0) }, &config);
        assert_eq!(controller, LengthController::default());
        assert!(controller.ratio().is_none());
    }
}
