//! What a run optimises: one enum, one loop.

use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::group::{GroupBaseline, GroupRelativeConfig};
use crate::ppo::{KlConfig, PpoConfig};
use crate::ranges::{ABOVE_ZERO, ZERO_OR_MORE, not_negative, positive, real};

/// What is optimised: the `[objective]` table, told apart by its `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Objective {
    /// Proximal policy optimisation with a value head (arXiv 1707.06347). The default.
    Ppo(PpoConfig),
    /// The same without a value head: responses to one image are each other's baseline.
    #[serde(alias = "grpo", alias = "rloo")]
    GroupRelative(GroupRelativeConfig),
    /// Direct preference optimisation (arXiv 2305.18290).
    Dpo(DpoConfig),
    /// Supervised fine-tuning on given responses.
    Sft(SftConfig),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Ppo(PpoConfig::default())
    }
}

/// Direct preference optimisation: `−log σ(β [log π_θ/π_ref (chosen) − log π_θ/π_ref (rejected)]) − α log π_θ(chosen)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DpoConfig {
    /// β: how strongly the reference holds. Unit: per nat. Default 0.1.
    pub beta: f64,
    /// Where pairs come from: `verifier`, which ranks the model's own responses anew in every
    /// iteration (self-rewarding), or `data`, which has chosen and rejected responses. Default
    /// `verifier`.
    pub pairs: PairSource,
    /// Least difference of reward between the responses of a pair that the verifier makes; images
    /// whose responses lie closer give none, and are counted. Unit: reward. Default 0.5.
    #[serde(alias = "least-gap")]
    pub min_gap: f64,
    /// α: weight of the likelihood of the chosen responses beside the preference, `−α log π_θ`, mean over their tokens
    /// (arXiv 2404.19733). Without it DPO may make both responses of a pair unlikely, and the model forgets to speak.
    /// Default 1.
    pub chosen_weight: f64,
}

/// Where preference pairs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairSource {
    /// The best and the worst of the model's own responses to an image, by their rewards.
    #[default]
    Verifier,
    /// The data's chosen and rejected responses.
    Data,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, pairs: PairSource::Verifier, min_gap: 0.5, chosen_weight: 1.0 }
    }
}

/// Supervised fine-tuning: `−log π_θ` of the given responses, mean over tokens. It has no settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SftConfig {}

/// What an objective learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Responses that the policy writes.
    Sampled,
    /// One given response to each image.
    Responses,
    /// A chosen and a rejected response to each image.
    Pairs,
}

impl Objective {
    /// As the configuration writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ppo(_) => "ppo",
            Self::GroupRelative(_) => "group-relative",
            Self::Dpo(_) => "dpo",
            Self::Sft(_) => "sft",
        }
    }

    /// What it learns from.
    pub fn data(&self) -> Data {
        match self {
            Self::Ppo(_)
            | Self::GroupRelative(_)
            | Self::Dpo(DpoConfig { pairs: PairSource::Verifier, .. }) => Data::Sampled,
            Self::Dpo(DpoConfig { pairs: PairSource::Data, .. }) => Data::Pairs,
            Self::Sft(_) => Data::Responses,
        }
    }

    /// Whether it sets responses to one image against each other, and so needs several.
    pub fn compares_responses(&self) -> bool {
        match self {
            Self::GroupRelative(config) => config.baseline == GroupBaseline::LeaveOneOut,
            Self::Dpo(config) => config.pairs == PairSource::Verifier,
            Self::Ppo(_) | Self::Sft(_) => false,
        }
    }

    /// The KL penalty, for objectives that have it in their reward.
    pub fn kl(&self) -> Option<&KlConfig> {
        match self {
            Self::Ppo(config) => Some(&config.kl),
            Self::GroupRelative(config) => Some(&config.kl),
            Self::Dpo(_) | Self::Sft(_) => None,
        }
    }

    /// First iterations that train the critic alone; 0 without one.
    pub fn critic_warmup_iterations(&self) -> usize {
        match self {
            Self::Ppo(config) => config.critic_warmup_iterations,
            Self::GroupRelative(_) | Self::Dpo(_) | Self::Sft(_) => 0,
        }
    }

    /// Mutable [`kl`](Self::kl).
    pub fn kl_mut(&mut self) -> Option<&mut KlConfig> {
        match self {
            Self::Ppo(config) => Some(&mut config.kl),
            Self::GroupRelative(config) => Some(&mut config.kl),
            Self::Dpo(_) | Self::Sft(_) => None,
        }
    }

    /// Settings of PPO, where that is the objective.
    pub fn ppo_mut(&mut self) -> Option<&mut PpoConfig> {
        match self {
            Self::Ppo(config) => Some(config),
            _ => None,
        }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`AlignError::OutOfRange`] names the first key that is out of range and what it may be.
    pub fn validate(&self) -> Result<(), AlignError> {
        match self {
            Self::Ppo(config) => config.validate(),
            Self::GroupRelative(config) => config.validate(),
            Self::Dpo(config) => {
                real("objective.beta", config.beta, positive, ABOVE_ZERO)?;
                real("objective.min-gap", config.min_gap, not_negative, ZERO_OR_MORE)?;
                real("objective.chosen-weight", config.chosen_weight, not_negative, ZERO_OR_MORE)
            }
            Self::Sft(SftConfig {}) => Ok(()),
        }
    }
}
