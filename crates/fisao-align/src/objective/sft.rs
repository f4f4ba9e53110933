//! Supervised fine-tuning on given responses.

use fisao_models::parameters::floats;
use serde::{Deserialize, Serialize};

use super::definition::{Data, LossInputs, Means, ObjectiveDefinition, ObjectiveLoss};
use crate::error::AlignError;
use crate::ppo::{ClipRange, PolicyStatistics};

/// Supervised fine-tuning: `−log π_θ` of the given responses, mean over tokens. It has no settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SftConfig {}

impl ObjectiveDefinition for SftConfig {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn data(&self) -> Data {
        Data::Responses
    }

    fn validate(&self) -> Result<(), AlignError> {
        Ok(())
    }

    fn loss(&self, inputs: LossInputs<'_>) -> ObjectiveLoss {
        let policy = moved(&inputs);
        let loss = inputs.log_probs.sum() * (-1.0 / inputs.normaliser.tokens);
        ObjectiveLoss { loss, policy, means: Means::default() }
    }
}

/// How far tokens have moved since before the update, for losses without a ratio of their own.
pub(super) fn moved(inputs: &LossInputs<'_>) -> PolicyStatistics {
    let old = inputs.old_log_probs;
    let nothing = vec![0.0; old.len()];
    let clip = ClipRange { epsilon: 0.2, dual: None };
    PolicyStatistics::measure(&floats(&inputs.log_probs), old, &nothing, clip)
}
