//! Settings of an alignment run.

use fisao_models::linear::ActivationDtype;
use fisao_models::lora::LoraConfig;
use fisao_verifier::regions::ScoreConfig;
use fisao_verifier::rewards::{RewardConfig, RewardError};
use fisao_verifier::templates::Templates;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::guards::GuardLimits;
use crate::length::LengthConfig;
use crate::objective::{Data, Objective};
use crate::ppo::{LearningRates, Schedule};
use crate::ranges::{
    ABOVE_ZERO, COUNTS, RATE, count, is_rate, out_of_range, positive, real, within,
};
use crate::recall::RecallConfig;
use crate::token_rewards::{AdditionalReward, AdditionalRewards};

/// Everything that determines an alignment run, apart from models and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AlignConfig {
    /// Seed of the adapter's start, the order of tasks, minibatches and sampling. From 0 to 2⁶³ − 1. Default 0.
    pub seed: u64,
    /// Longest response. Unit: tokens. From 1 to 1048576, and no more than the model's positions leave room for. Default 96.
    pub max_new_tokens: usize,
    /// Iterations between two validations; 0 validates before and after training only.
    /// Default 10.
    #[serde(alias = "check-every")]
    pub validation_every: usize,
    /// The loop.
    pub align: LoopConfig,
    /// What is optimised.
    pub objective: Objective,
    /// The low-rank adapter.
    pub lora: LoraConfig,
    /// From scores to rewards.
    pub reward: RewardConfig,
    /// Rewards beside that of mentions. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_rewards: Vec<AdditionalReward>,
    /// What keeps the policy from saying less.
    pub recall: RecallConfig,
    /// What keeps captions about as long as the base model's.
    pub length: LengthConfig,
    /// Sentences in which names are scored.
    pub templates: Templates,
    /// Where in an image names are looked for, and whether scores are centred.
    pub score: ScoreConfig,
    /// When to warn, and when to stop.
    pub guards: GuardLimits,
    /// What is saved for resuming.
    pub checkpoint: CheckpointConfig,
}

impl Default for AlignConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            max_new_tokens: 96,
            validation_every: 10,
            align: LoopConfig::default(),
            objective: Objective::default(),
            lora: LoraConfig::default(),
            reward: RewardConfig::default(),
            additional_rewards: Vec::new(),
            recall: RecallConfig::default(),
            length: LengthConfig::default(),
            templates: Templates::default(),
            score: ScoreConfig::default(),
            guards: GuardLimits::default(),
            checkpoint: CheckpointConfig::default(),
        }
    }
}

/// The `[align]` table: what every objective's loop has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoopConfig {
    /// Rounds of encode → sample → score → compare → reward → advantages → update. Unit: iterations. From 1 to 100000000. Default 40.
    pub iterations: usize,
    /// Images per iteration. From 1 to 65536. Default 64.
    pub images_per_iteration: usize,
    /// Responses sampled for each of them. Default 1: with a value head a second image teaches
    /// more than a second caption of the same one. The group-relative objective and pairs made
    /// from the model's own responses need 2 or more. From 1 to 1024.
    pub samples_per_image: usize,
    /// Passes over an iteration's responses. From 1 to 1000. Default 2; 4 in TRL, 1 in verl.
    pub epochs: usize,
    /// Optimiser steps per pass. Default 4.
    pub minibatches: usize,
    /// Responses differentiated together by one core; their gradients are added up over the
    /// minibatch, so that this decides about memory and speed, not about the result. From 1 to 65536. Default 8.
    pub micro_batch: usize,
    /// Peak learning rate of the adapter (`AdamW`). Above 0, at most 1. Default: absent, by the decoder's size, from 6e-4 for the demo's
    /// 2 million parameters (measured) to 3e-5 for 7 billion (LLaVA-RLHF's adapter), linear in the logarithms of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Linear warm-up of the learning rates. Unit: iterations. Default 0.
    pub warmup_iterations: usize,
    /// Shape of the learning rates after the warm-up: `constant`, `linear` or `cosine`. Default
    /// `linear`, to zero at the end (Huang et al., "The N implementation details of RLHF with PPO").
    pub schedule: Schedule,
    /// Decoupled weight decay of the adapter. From 0 to 100. Default 0.
    pub weight_decay: f64,
    /// Largest L2 norm of a gradient, policy and value head each. Default 1.
    pub max_grad_norm: f64,
    /// Sampling temperature of rollouts; the trainer divides its logits by the same number.
    /// From 0.01 to 100. Default 1.
    pub temperature: f64,
    /// Gradient (activation) checkpointing: keep the input of each layer instead of all its activations, and recompute these in the
    /// backward pass. Less memory for long sequences, a third more arithmetic. Default false.
    #[serde(alias = "recompute-layers")]
    pub gradient_checkpointing: bool,
    /// What the linear layers of a model held in bf16 multiply, when it speaks and when it learns: `f32`, activations as they are, or
    /// `bf16`, rounded, which is twice to four times as fast where the processor multiplies bf16. Default `f32`.
    pub activation_dtype: ActivationDtype,
    /// What the encoders made of images that come up again, kept in memory, and as much again of images that are captioned before and
    /// after training. Unit: MB; 0 keeps nothing. Default 1024.
    pub feature_cache_mb: usize,
    /// Beyond that, kept on disk, in a nameless file in the folder of the run. Unit: MB. Default 0.
    pub feature_cache_disk_mb: usize,
    /// The same results to the bit for any number of processes and threads: work is cut into eight parts, each of them is computed by one
    /// thread, and what they give is added up in order. At most eight threads then work at once, over all processes. Without it, as many
    /// parts as processes, each computed by all threads of its own. Default false.
    pub exact: bool,
    /// Sample responses with int8 copies of the decoder's frozen weights (symmetric, one scale for each output channel): half of what is
    /// read in 16 bits, which is what decoding a few responses waits for, for half as much memory again. On the CPU only. Prompts, greedy
    /// captions and updates are computed with the weights as they are, and so are the log-probabilities in importance
    /// ratios. Beyond `guards.sampler-kl` the run goes on without it. Default false.
    pub int8_sampling: bool,
    /// Ends an iteration's update once the mean KL from the policy before it exceeds this. Unit:
    /// nats per token. Default: absent, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_kl: Option<f64>,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            iterations: 40,
            images_per_iteration: 64,
            samples_per_image: 1,
            epochs: 2,
            minibatches: 4,
            micro_batch: 8,
            learning_rate: None,
            warmup_iterations: 0,
            schedule: Schedule::Linear,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            temperature: 1.0,
            gradient_checkpointing: false,
            activation_dtype: ActivationDtype::F32,
            feature_cache_mb: 1024,
            feature_cache_disk_mb: 0,
            exact: false,
            int8_sampling: false,
            target_kl: None,
        }
    }
}

/// The `[checkpoint]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Iterations between two saved states. Default 10.
    pub every: usize,
    /// Latest states that are kept. Default 2.
    pub keep: usize,
    /// The metric by which an adapter is called the best so far and written to `adapter-best`: `none`,
    /// `reward` (of the iteration's own responses), `validation-reward` or `validation-recall` (greedy
    /// responses to the validation tasks). Default `none`.
    pub best: BestBy,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 10, keep: 2, best: BestBy::None }
    }
}

/// By what a state is called the best so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// None is.
    #[default]
    None,
    /// Mean reward of the iteration's sampled responses.
    Reward,
    /// Mean reward of greedy responses to the validation tasks.
    #[serde(alias = "watched-reward")]
    ValidationReward,
    /// Recall of greedy responses to the validation tasks, whose labels are known.
    #[serde(alias = "watched-recall")]
    ValidationRecall,
}

impl AlignConfig {
    /// Responses per iteration that are sampled.
    pub fn responses_per_iteration(&self) -> usize {
        self.align.images_per_iteration.saturating_mul(self.samples_per_image())
    }

    /// Responses sampled to each image: none of a data set's own are needed twice.
    pub fn samples_per_image(&self) -> usize {
        match self.objective.definition().data() {
            Data::Sampled => self.align.samples_per_image,
            Data::Responses | Data::Pairs => 1,
        }
    }

    /// With the learning rate that suits a decoder whose matrices have this many elements, where none is set.
    #[must_use]
    pub fn for_decoder(mut self, elements: usize) -> Self {
        self.align.learning_rate.get_or_insert_with(|| rate_by_size(elements));
        self
    }

    /// Learning rates of an iteration, counted from 0; where none is set, those of a decoder of 7 billion parameters.
    ///
    /// The policy's schedule starts where the critic's warm-up ends, so that it sees its own
    /// warm-up and its full decay.
    pub fn learning_rates(&self, iteration: usize) -> LearningRates {
        let LoopConfig { iterations, warmup_iterations: warmup, schedule, learning_rate, .. } =
            self.align;
        let critic = self.objective.definition().critic();
        let alone = critic.map_or(0, |critic| critic.warmup_iterations);
        let policy = match iteration.checked_sub(alone) {
            None => 0.0,
            Some(step) => schedule.factor(step, iterations - alone, warmup),
        };
        let value = schedule.factor(iteration, iterations, warmup);
        let value_rate = critic.map_or(0.0, |critic| critic.learning_rate);
        let learning_rate = learning_rate.unwrap_or(LARGE_DECODER.1);
        LearningRates { policy: learning_rate * policy, value: value_rate * value }
    }

    /// Whether the break-even precision follows recall: with the corrected reward, in objectives that maximise rewards.
    pub fn constrains_recall(&self) -> bool {
        let corrected = self.reward.form.statistic().is_some();
        self.recall.constraint && corrected && self.objective.definition().maximises_reward()
    }

    /// Whether a reward per token keeps the length, which is measured together with recall.
    pub fn constrains_length(&self) -> bool {
        self.length.constraint && self.constrains_recall()
    }

    /// Checks every value against its range, and values against each other.
    ///
    /// # Errors
    /// [`AlignError`] naming the key.
    pub fn validate(&self) -> Result<(), AlignError> {
        let AlignConfig { seed, checkpoint, .. } = self;
        if *seed > LARGEST_SEED {
            return Err(out_of_range(
                "seed",
                &seed.to_string(),
                &format!("from 0 to {LARGEST_SEED}"),
            ));
        }
        within("max-new-tokens", self.max_new_tokens, 1..=1 << 20)?;
        within("validation-every", self.validation_every, COUNTS)?;
        within("checkpoint.every", checkpoint.every, 1..=*COUNTS.end())?;
        within("checkpoint.keep", checkpoint.keep, 1..=1_000_000)?;
        self.lora.validate()?;
        self.templates.validate()?;
        self.score.validate()?;
        self.align.validate()?;
        self.objective.definition().validate()?;
        self.reward.validate().map_err(|error| match error {
            RewardError::OutOfRange { setting, value, range } => {
                out_of_range(&format!("reward.{setting}"), &value.to_string(), range)
            }
            error => error.into(),
        })?;
        AdditionalRewards::new(&self.additional_rewards)?;
        self.recall.validate()?;
        self.length.validate()?;
        self.guards.validate()?;
        self.validate_together()
    }

    fn validate_together(&self) -> Result<(), AlignError> {
        let align = &self.align;
        let objective = self.objective.definition();
        let samples = align.samples_per_image;
        if objective.compares_responses() {
            let allowed = format!("2 or more for the objective {}", objective.name());
            count("align.samples-per-image", samples, samples >= 2, &allowed)?;
        }
        let responses = self.responses_per_iteration();
        if responses > MOST_RESPONSES {
            return Err(out_of_range(
                "align.images-per-iteration × align.samples-per-image",
                &responses.to_string(),
                &format!("at most {MOST_RESPONSES}"),
            ));
        }
        let minibatches = align.minibatches;
        let (most, allowed) = if objective.maximises_reward() {
            (responses, "from 1 to align.images-per-iteration × align.samples-per-image")
        } else {
            (align.images_per_iteration, "from 1 to align.images-per-iteration")
        };
        if align.int8_sampling && objective.data() != Data::Sampled {
            let allowed =
                format!("false for the objective {}, which samples nothing", objective.name());
            return Err(out_of_range("align.int8-sampling", "true", &allowed));
        }
        count("align.minibatches", minibatches, (1..=most).contains(&minibatches), allowed)?;
        let critic = objective.critic().map_or(0, |critic| critic.warmup_iterations);
        let allowed = "less than align.iterations";
        count("objective.critic-warmup-iterations", critic, critic < align.iterations, allowed)?;
        let warmup = align.warmup_iterations;
        let allowed = if critic == 0 {
            "less than align.iterations"
        } else {
            "less than align.iterations − objective.critic-warmup-iterations"
        };
        count("align.warmup-iterations", warmup, warmup < align.iterations - critic, allowed)
    }
}

impl LoopConfig {
    fn validate(&self) -> Result<(), AlignError> {
        let counts = [
            ("align.iterations", self.iterations, 1..=100_000_000),
            ("align.images-per-iteration", self.images_per_iteration, 1..=65_536),
            ("align.samples-per-image", self.samples_per_image, 1..=1_024),
            ("align.epochs", self.epochs, 1..=1_000),
            ("align.micro-batch", self.micro_batch, 1..=65_536),
            ("align.warmup-iterations", self.warmup_iterations, COUNTS),
            ("align.feature-cache-mb", self.feature_cache_mb, COUNTS),
            ("align.feature-cache-disk-mb", self.feature_cache_disk_mb, COUNTS),
        ];
        for (key, value, range) in counts {
            within(key, value, range)?;
        }
        if let Some(rate) = self.learning_rate {
            real("align.learning-rate", rate, is_rate, RATE)?;
        }
        let (decay, temperature) = (self.weight_decay, self.temperature);
        real("align.weight-decay", decay, |x| (0.0..=100.0).contains(&x), "from 0 to 100")?;
        real("align.max-grad-norm", self.max_grad_norm, positive, ABOVE_ZERO)?;
        real(
            "align.temperature",
            temperature,
            |x| (0.01..=100.0).contains(&x),
            "from 0.01 to 100",
        )?;
        match self.target_kl {
            Some(limit) => real(
                "align.target-kl",
                limit,
                positive,
                "above 0, at most 1e9 (or absent: never stop)",
            ),
            None => Ok(()),
        }
    }
}

/// Elements of a decoder's matrices and the learning rate of its adapter: measured on the demo's model.
const SMALL_DECODER: (f64, f64) = (2e6, 6e-4);
/// The same of LLaVA-1.5 7B, by LLaVA-RLHF (`train_rl_model.sh`).
const LARGE_DECODER: (f64, f64) = (6.6e9, 3e-5);

/// Learning rate of an adapter by the size of its decoder, to two digits.
///
/// ```text
/// ln rate = ln r₀ + t (ln r₁ − ln r₀),   t = (ln n − ln n₀) / (ln n₁ − ln n₀), within [0, 1]
/// ```
fn rate_by_size(elements: usize) -> f64 {
    let ((n0, r0), (n1, r1)) = (SMALL_DECODER, LARGE_DECODER);
    let along = ((elements as f64 / n0).ln() / (n1 / n0).ln()).clamp(0.0, 1.0);
    let rate = r0 * (r1 / r0).powf(along);
    // By way of text: the number that would be written.
    format!("{rate:.1e}").parse().unwrap_or(rate)
}

/// Most responses of an iteration.
const MOST_RESPONSES: usize = 1 << 20;

/// Largest seed: what TOML can write.
pub const LARGEST_SEED: u64 = i64::MAX as u64;
