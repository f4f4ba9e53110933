//! Settings of the PPO trainer: the `[ppo]` table of a run's configuration.

use serde::{Deserialize, Serialize};

use super::advantages::WhitenMode;
use super::losses::ClipRange;
use super::schedule::{LearningRates, Schedule};
use crate::error::AlignError;

/// The `[ppo]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Rounds of rollout → verify → advantages → update. Unit: iterations. Default 40.
    pub iterations: usize,
    /// Images captioned per iteration. Default 64.
    pub images_per_iteration: usize,
    /// Responses sampled for each of them. Default 1: with a value head a second image teaches
    /// more than a second caption of the same one.
    pub samples_per_image: usize,
    /// Passes over an iteration's responses. Default 2; 4 in TRL, 1 in verl.
    pub epochs: usize,
    /// Optimiser steps per pass. Default 4.
    pub minibatches: usize,
    /// Peak learning rate of the adapter (`AdamW`). Default 3e-5, as LLaVA-RLHF's 7B adapter.
    pub learning_rate: f64,
    /// Peak learning rate of the value head, which starts from zero and has to catch up. Default
    /// 1e-3.
    pub value_learning_rate: f64,
    /// Linear warm-up of both learning rates. Unit: iterations. Default 0.
    pub warmup_iterations: usize,
    /// Shape of both learning rates after the warm-up: `constant`, `linear` or `cosine`. Default
    /// `linear`, to zero at the end (Huang et al., "The N implementation details of RLHF with PPO").
    pub schedule: Schedule,
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
    /// Decoupled weight decay of the adapter. Default 0.
    pub weight_decay: f64,
    /// Largest L2 norm of a gradient, policy and value head each. Default 1.
    pub max_grad_norm: f64,
    /// Sampling temperature of rollouts; the trainer divides its logits by the same number.
    /// Default 1.
    pub temperature: f64,
    /// Ends an iteration's update once the mean KL from the sampling policy exceeds this. Unit:
    /// nats per token. Default: absent, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kl: Option<f64>,
    /// The price of leaving the reference.
    pub kl: KlConfig,
}

/// The `[ppo.kl]` table.
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
            iterations: 40,
            images_per_iteration: 64,
            samples_per_image: 1,
            epochs: 2,
            minibatches: 4,
            learning_rate: 3e-5,
            value_learning_rate: 1e-3,
            warmup_iterations: 0,
            schedule: Schedule::Linear,
            critic_warmup_iterations: 0,
            clip_range: 0.2,
            value_clip_range: 0.2,
            dual_clip: None,
            gamma: 1.0,
            lambda: 0.95,
            whiten: WhitenMode::Scale,
            entropy_coefficient: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            temperature: 1.0,
            target_kl: None,
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
    /// Responses per iteration.
    pub fn responses_per_iteration(&self) -> usize {
        self.images_per_iteration.saturating_mul(self.samples_per_image)
    }

    /// The clip of the surrogate.
    pub fn clip(&self) -> ClipRange {
        ClipRange { epsilon: self.clip_range, dual: self.dual_clip }
    }

    /// Learning rates of an iteration, counted from 0.
    ///
    /// The policy's schedule starts where the critic's warm-up ends, so that it sees its own
    /// warm-up and its full decay.
    pub fn learning_rates(&self, iteration: usize) -> LearningRates {
        let alone = self.critic_warmup_iterations;
        let policy = match iteration.checked_sub(alone) {
            None => 0.0,
            Some(step) => {
                self.schedule.factor(step, self.iterations - alone, self.warmup_iterations)
            }
        };
        let value = self.schedule.factor(iteration, self.iterations, self.warmup_iterations);
        LearningRates {
            policy: self.learning_rate * policy,
            value: self.value_learning_rate * value,
        }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`AlignError::OutOfRange`] names the first key that is out of range and what it may be.
    pub fn validate(&self) -> Result<(), AlignError> {
        self.validate_counts()?;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let above = "a finite number above 0";
        let at_least = "a finite number, 0 or more";
        real("learning-rate", self.learning_rate, positive, above)?;
        real("value-learning-rate", self.value_learning_rate, positive, above)?;
        let below_one = |x: f64| x > 0.0 && x < 1.0;
        real("clip-range", self.clip_range, below_one, "between 0 and 1, both excluded")?;
        real("value-clip-range", self.value_clip_range, positive, above)?;
        if let Some(bound) = self.dual_clip {
            let usable = |c: f64| c.is_finite() && c > 1.0 + self.clip_range;
            let allowed = "a finite number above 1 + clip-range (or absent: no such bound)";
            real("dual-clip", bound, usable, allowed)?;
        }
        real("gamma", self.gamma, unit, "from 0 to 1")?;
        real("lambda", self.lambda, unit, "from 0 to 1")?;
        real("entropy-coefficient", self.entropy_coefficient, not_negative, at_least)?;
        real("weight-decay", self.weight_decay, not_negative, at_least)?;
        real("max-grad-norm", self.max_grad_norm, positive, above)?;
        real("temperature", self.temperature, positive, above)?;
        if let Some(limit) = self.target_kl {
            real("target-kl", limit, positive, "a finite number above 0 (or absent: never stop)")?;
        }
        real("kl.coefficient", self.kl.coefficient, not_negative, at_least)?;
        real("kl.target", self.kl.target, positive, above)?;
        real("kl.horizon", self.kl.horizon, positive, above)
    }

    fn validate_counts(&self) -> Result<(), AlignError> {
        count("iterations", self.iterations, self.iterations >= 1, "1 or more")?;
        let images = self.images_per_iteration;
        count("images-per-iteration", images, images >= 1, "1 or more")?;
        count(
            "samples-per-image",
            self.samples_per_image,
            self.samples_per_image >= 1,
            "1 or more",
        )?;
        count("epochs", self.epochs, self.epochs >= 1, "1 or more")?;
        let minibatches = self.minibatches;
        let fits = (1..=self.responses_per_iteration()).contains(&minibatches);
        let allowed = "from 1 to images-per-iteration × samples-per-image";
        count("minibatches", minibatches, fits, allowed)?;
        let critic = self.critic_warmup_iterations;
        count(
            "critic-warmup-iterations",
            critic,
            critic < self.iterations,
            "less than iterations",
        )?;
        let warmup = self.warmup_iterations;
        let allowed = "less than iterations − critic-warmup-iterations";
        count("warmup-iterations", warmup, warmup < self.iterations - critic, allowed)
    }
}

fn real(
    key: &str,
    value: f64,
    allowed: impl Fn(f64) -> bool,
    range: &str,
) -> Result<(), AlignError> {
    if allowed(value) { Ok(()) } else { Err(out_of_range(key, &value.to_string(), range)) }
}

fn count(key: &str, value: usize, allowed: bool, range: &str) -> Result<(), AlignError> {
    if allowed { Ok(()) } else { Err(out_of_range(key, &value.to_string(), range)) }
}

fn out_of_range(key: &str, found: &str, allowed: &str) -> AlignError {
    AlignError::OutOfRange {
        key: format!("ppo.{key}"),
        found: found.to_owned(),
        allowed: allowed.to_owned(),
    }
}
