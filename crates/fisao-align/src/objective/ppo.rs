//! Proximal policy optimisation with a value head (Schulman et al. 2017, arXiv 1707.06347).

use super::definition::{
    AdvantageInputs, Advantages, Critic, CriticConfig, Data, LossInputs, Means,
    ObjectiveDefinition, ObjectiveLoss,
};
use crate::error::AlignError;
use crate::ppo::{ClipRange, KlConfig, PpoConfig, gae, policy_loss};

impl ObjectiveDefinition for PpoConfig {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn data(&self) -> Data {
        Data::Sampled
    }

    fn validate(&self) -> Result<(), AlignError> {
        Self::validate(self)
    }

    fn maximises_reward(&self) -> bool {
        true
    }

    fn kl(&self) -> Option<&KlConfig> {
        Some(&self.kl)
    }

    fn kl_mut(&mut self) -> Option<&mut KlConfig> {
        Some(&mut self.kl)
    }

    fn critic(&self) -> Option<CriticConfig> {
        Some(CriticConfig {
            learning_rate: self.value_learning_rate,
            warmup_iterations: self.critic_warmup_iterations,
            clip_range: self.value_clip_range,
        })
    }

    fn advantages(&self, inputs: &AdvantageInputs<'_>) -> Option<Advantages> {
        let rows = inputs.responses.rewards.iter().zip(inputs.values);
        let (advantages, returns) =
            rows.map(|(rewards, values)| gae(rewards, values, self.gamma, self.lambda)).unzip();
        let critic = Some(Critic { values: inputs.values.to_vec(), returns });
        Some(Advantages { advantages, critic, whiten: self.whiten })
    }

    fn loss(&self, inputs: LossInputs<'_>) -> ObjectiveLoss {
        surrogate(inputs, self.clip(), self.entropy_coefficient)
    }
}

/// The clipped surrogate with an entropy bonus, per nat.
pub(super) fn surrogate(inputs: LossInputs<'_>, clip: ClipRange, bonus: f64) -> ObjectiveLoss {
    let LossInputs { log_probs, entropy, old_log_probs, advantages, normaliser, .. } = inputs;
    let tokens = normaliser.tokens;
    let (loss, policy) = policy_loss(log_probs, old_log_probs, advantages, clip, tokens);
    let loss = if bonus > 0.0 { loss - entropy.sum() * (bonus / tokens) } else { loss };
    ObjectiveLoss { loss, policy, means: Means::default() }
}
