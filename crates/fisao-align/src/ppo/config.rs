//! Settings of proximal policy optimisation.

use serde::{Deserialize, Serialize};

use super::advantages::WhitenMode;
use super::losses::ClipRange;
use crate::error::AlignError;
use crate::ranges::{
    ABOVE_ZERO, LARGEST, RATE, ZERO_OR_MORE, is_rate, not_negative, positive, real,
};

/// The `[objective]` table of kind `ppo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Peak learning rate of the value head, which starts from zero and has to catch up. Default
    /// 1e-3.
    pub value_learning_rate: f64,
    /// First iterations that train the value head only, because advantages of an untrained critic
    /// push the policy at random (VC-PPO, arXiv 2503.01491). Unit: iterations. Default 0.
    pub critic_warmup_iterations: usize,
    /// ε of the clipped surrogate. Unit: probability ratio. Default 0.2 (arXiv 1707.06347).
    pub clip_range: f64,
    /// ε of the clipped value loss; a large number turns the clip off. Unit: reward. Default 0.2.
    pub value_clip_range: f64,
    /// Bound `c` on the ratio of tokens with negative advantage (arXiv 1912.09729; verl uses 3).
    /// Unit: probability ratio. Default: absent, no such bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
    /// Discount γ per token. Default 1: a caption is short and its end is as important.
    pub gamma: f64,
    /// λ of generalised advantage estimation. Default 0.95: token rewards are dense enough.
    pub lambda: f64,
    /// How advantages are normalised over an iteration's tokens: `none`, `scale` or
    /// `mean-and-scale`. Default `scale`.
    pub whiten: WhitenMode,
    /// Weight of the entropy bonus in the loss. Unit: per nat. Default 0.
    pub entropy_coefficient: f64,
    /// The KL penalty.
    pub kl: KlConfig,
}

/// The `[objective.kl]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct KlConfig {
    /// β at the start. Unit: reward per nat. Default 0.05, as in TRL.
    pub coefficient: f64,
    /// `fixed` or `adaptive` (arXiv 1909.08593). Default `fixed`.
    pub controller: KlControllerKind,
    /// KL the adaptive controller steers to. Unit: nats per response. Default 6.
    pub target: f64,
    /// How slowly it steers. Unit: responses. Default 10000.
    pub horizon: f64,
}

/// How β changes during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KlControllerKind {
    /// It does not.
    #[default]
    Fixed,
    /// It follows the measured KL.
    Adaptive,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            value_learning_rate: 1e-3,
            critic_warmup_iterations: 0,
            clip_range: 0.2,
            value_clip_range: 0.2,
            dual_clip: None,
            gamma: 1.0,
            lambda: 0.95,
            whiten: WhitenMode::Scale,
            entropy_coefficient: 0.0,
            kl: KlConfig::default(),
        }
    }
}

impl Default for KlConfig {
    fn default() -> Self {
        Self {
            coefficient: 0.05,
            controller: KlControllerKind::Fixed,
            target: 6.0,
            horizon: 10_000.0,
        }
    }
}

impl PpoConfig {
    /// The clip of the surrogate.
    pub fn clip(&self) -> ClipRange {
        ClipRange { epsilon: self.clip_range, dual: self.dual_clip }
    }

    pub(crate) fn validate(&self) -> Result<(), AlignError> {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        real("objective.value-learning-rate", self.value_learning_rate, is_rate, RATE)?;
        validate_clip(self.clip())?;
        real("objective.value-clip-range", self.value_clip_range, positive, ABOVE_ZERO)?;
        real("objective.gamma", self.gamma, unit, "from 0 to 1")?;
        real("objective.lambda", self.lambda, unit, "from 0 to 1")?;
        let entropy = self.entropy_coefficient;
        real("objective.entropy-coefficient", entropy, not_negative, ZERO_OR_MORE)?;
        validate_kl(&self.kl)
    }
}

/// Checks the clip of a surrogate.
pub(crate) fn validate_clip(clip: ClipRange) -> Result<(), AlignError> {
    let below_one = |x: f64| x > 0.0 && x < 1.0;
    let allowed = "between 0 and 1, both excluded";
    real("objective.clip-range", clip.epsilon, below_one, allowed)?;
    let Some(bound) = clip.dual else { return Ok(()) };
    let usable = |c: f64| c > 1.0 + clip.epsilon && c <= LARGEST;
    let allowed = "above 1 + objective.clip-range, at most 1e9 (or absent: no such bound)";
    real("objective.dual-clip", bound, usable, allowed)
}

/// Checks the KL penalty.
pub(crate) fn validate_kl(kl: &KlConfig) -> Result<(), AlignError> {
    real("objective.kl.coefficient", kl.coefficient, not_negative, ZERO_OR_MORE)?;
    real("objective.kl.target", kl.target, positive, ABOVE_ZERO)?;
    real("objective.kl.horizon", kl.horizon, positive, ABOVE_ZERO)
}
