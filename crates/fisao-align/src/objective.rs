//! What a run optimises: one enum, one loop. Each objective is a module of its own, behind [`ObjectiveDefinition`].

mod definition;
mod dpo;
mod group_relative;
mod ppo;
mod sft;

use serde::{Deserialize, Serialize};

pub use definition::{
    AdvantageInputs, Advantages, Critic, CriticConfig, Data, Items, LossInputs, Means, Normaliser,
    ObjectiveDefinition, ObjectiveLoss, RewardedResponses,
};
pub use dpo::{DpoConfig, PairSource};
pub use sft::SftConfig;

use crate::group::GroupRelativeConfig;
use crate::ppo::PpoConfig;

/// What is optimised: the `[objective]` table, told apart by its `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
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

impl Objective {
    /// Its data needs, credit, loss and guards.
    pub fn definition(&self) -> &dyn ObjectiveDefinition {
        match self {
            Self::Ppo(config) => config,
            Self::GroupRelative(config) => config,
            Self::Dpo(config) => config,
            Self::Sft(config) => config,
        }
    }

    /// Mutable [`definition`](Self::definition).
    pub fn definition_mut(&mut self) -> &mut dyn ObjectiveDefinition {
        match self {
            Self::Ppo(config) => config,
            Self::GroupRelative(config) => config,
            Self::Dpo(config) => config,
            Self::Sft(config) => config,
        }
    }
}
