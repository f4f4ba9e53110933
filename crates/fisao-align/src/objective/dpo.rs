//! Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), on pairs that the data give or the verifier makes.

use serde::{Deserialize, Serialize};

use super::definition::{
    Data, Items, LossInputs, Means, ObjectiveDefinition, ObjectiveLoss, RewardedResponses,
};
use super::sft::moved;
use crate::error::AlignError;
use crate::events::{IterationMetrics, Warning, WarningCode};
use crate::preference::{best_and_worst, chosen_log_likelihood, dpo_loss};
use crate::ranges::{ABOVE_ZERO, ZERO_OR_MORE, not_negative, positive, real};
use crate::token_rewards::response_reward;

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
#[non_exhaustive]
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

impl ObjectiveDefinition for DpoConfig {
    fn name(&self) -> &'static str {
        "dpo"
    }

    fn data(&self) -> Data {
        match self.pairs {
            PairSource::Verifier => Data::Sampled,
            PairSource::Data => Data::Pairs,
        }
    }

    fn validate(&self) -> Result<(), AlignError> {
        real("objective.beta", self.beta, positive, ABOVE_ZERO)?;
        real("objective.min-gap", self.min_gap, not_negative, ZERO_OR_MORE)?;
        real("objective.chosen-weight", self.chosen_weight, not_negative, ZERO_OR_MORE)
    }

    fn compares_responses(&self) -> bool {
        self.pairs == PairSource::Verifier
    }

    fn items(&self, responses: &RewardedResponses<'_>) -> Items {
        let mut pairs = Vec::new();
        let mut first = 0;
        for &size in responses.groups {
            let pair = match self.pairs {
                PairSource::Data => Some((0, 1)),
                PairSource::Verifier => {
                    let rows = &responses.rewards[first..first + size];
                    let sums: Vec<f64> = rows.iter().map(|row| response_reward(row)).collect();
                    best_and_worst(&sums, self.min_gap)
                }
            };
            pairs.extend(pair.map(|(chosen, rejected)| vec![first + chosen, first + rejected]));
            first += size;
        }
        Items::Pairs(pairs)
    }

    fn loss(&self, inputs: LossInputs<'_>) -> ObjectiveLoss {
        let LossInputs { log_probs, reference_log_probs, lengths, normaliser, .. } = &inputs;
        let policy = moved(&inputs);
        let (mut loss, pairs) =
            dpo_loss(log_probs, reference_log_probs, lengths, self.beta, normaliser.items);
        if self.chosen_weight > 0.0 {
            let chosen = chosen_log_likelihood(log_probs, lengths);
            loss = loss - chosen * (self.chosen_weight / normaliser.first_tokens);
        }
        let mut means = Means::default();
        // Fraction of pairs that the policy prefers more than the reference does, and by how much, nats.
        means.add("pair_accuracy", pairs.right as f64, pairs.pairs);
        means.add("pair_margin", pairs.margin, pairs.pairs);
        ObjectiveLoss { loss, policy, means }
    }

    fn warnings(&self, metrics: &IterationMetrics) -> Vec<Warning> {
        let none = metrics.pairs == Some(0);
        let warning = none.then(|| Warning {
            code: WarningCode::PairsMissing,
            message: "no image has two responses that differ enough to prefer one".to_owned(),
            hint: "raise align.temperature or align.samples-per-image, or lower objective.min-gap"
                .to_owned(),
        });
        warning.into_iter().collect()
    }
}
