//! Settings of an alignment run.

use fisao_models::lora::LoraConfig;
use fisao_verifier::rewards::RewardConfig;
use fisao_verifier::scorer::ScoreConfig;
use fisao_verifier::templates::Templates;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::guards::GuardLimits;
use crate::ppo::PpoConfig;

/// Everything that determines an alignment run, apart from models and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AlignConfig {
    /// Seed of the adapter's start, the order of tasks, minibatches and sampling. Default 0.
    pub seed: u64,
    /// Longest response. Unit: tokens. Default 96.
    pub max_new_tokens: usize,
    /// Iterations between two looks at the calibration split; 0 looks before and after only.
    /// Default 10.
    pub check_every: usize,
    /// The low-rank adapter.
    pub lora: LoraConfig,
    /// From scores to rewards.
    pub reward: RewardConfig,
    /// Sentences in which names are scored.
    pub templates: Templates,
    /// Where in an image names are looked for, and whether scores are centred.
    pub score: ScoreConfig,
    /// The optimisation.
    pub ppo: PpoConfig,
    /// When to warn.
    pub guards: GuardLimits,
}

impl Default for AlignConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            max_new_tokens: 96,
            check_every: 10,
            lora: LoraConfig::default(),
            reward: RewardConfig::default(),
            templates: Templates::default(),
            score: ScoreConfig::default(),
            ppo: PpoConfig::default(),
            guards: GuardLimits::default(),
        }
    }
}

impl AlignConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`AlignError`] naming the key.
    pub fn validate(&self) -> Result<(), AlignError> {
        if self.max_new_tokens == 0 {
            return Err(AlignError::OutOfRange {
                key: "max-new-tokens".to_owned(),
                found: "0".to_owned(),
                allowed: "1 or more".to_owned(),
            });
        }
        self.lora.validate().map_err(|error| AlignError::Setting(error.to_string()))?;
        self.templates.validate().map_err(|error| AlignError::Setting(error.to_string()))?;
        self.score.validate().map_err(AlignError::Setting)?;
        self.ppo.validate()
    }
}
