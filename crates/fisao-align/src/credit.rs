//! Advantages of tokens: penalised rewards, the objective's own estimator, whitening.

use crate::log_probabilities::TokenEstimates;
use crate::objective::{AdvantageInputs, Advantages, Critic, Objective, RewardedResponses};
use crate::ppo::{Whitening, token_rewards_with_kl, whiten};

/// Advantages, and what the critic is taught.
#[derive(Debug, Clone)]
pub struct Credit {
    /// Whitened advantages per response and token.
    pub advantages: Vec<Vec<f32>>,
    /// What they were before.
    pub whitening: Whitening,
    /// Of the critic, where there is one.
    pub critic: Option<Critic>,
}

/// What the reward holds beside the verifier's.
pub(crate) struct RewardTerms {
    /// β, reward units per nat.
    pub(crate) kl_coefficient: f64,
    /// ν of every token, by the length constraint; reward units.
    pub(crate) length_bonus: Option<f64>,
}

/// Advantages by the objective's own estimator, whitened over the whole rollout; none for objectives that do not maximise
/// rewards, for which nothing is computed.
pub(crate) fn credit(
    objective: &Objective,
    terms: &RewardTerms,
    groups: &[usize],
    rewards: &[Vec<f32>],
    estimates: &[TokenEstimates],
) -> Option<Credit> {
    let objective = objective.definition();
    if !objective.maximises_reward() {
        return None;
    }
    let penalised: Vec<Vec<f32>> = rewards
        .iter()
        .zip(estimates)
        .map(|(reward, TokenEstimates { logprobs, reference, .. })| {
            let penalised =
                token_rewards_with_kl(reward, logprobs, reference, terms.kl_coefficient);
            with_length_bonus(penalised, terms.length_bonus.unwrap_or(0.0))
        })
        .collect();
    let values: Vec<Vec<f32>> = estimates.iter().map(|of| of.values.clone()).collect();
    let inputs = AdvantageInputs {
        responses: RewardedResponses { groups, rewards: &penalised },
        values: &values,
    };
    let Advantages { mut advantages, critic, whiten: mode } = objective.advantages(&inputs)?;
    let whitening = whiten(&mut advantages, mode);
    Some(Credit { advantages, whitening, critic })
}

/// Adds the length constraint's reward to every token.
fn with_length_bonus(mut rewards: Vec<f32>, bonus: f64) -> Vec<f32> {
    for reward in &mut rewards {
        *reward = (f64::from(*reward) + bonus) as f32;
    }
    rewards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{DpoConfig, SftConfig};

    #[test]
    fn objectives_without_advantages_read_no_estimates() {
        let terms = RewardTerms { kl_coefficient: 0.1, length_bonus: Some(0.5) };
        // Estimates of no token: a penalised reward of them would be a panic.
        let none = TokenEstimates {
            logprobs: Vec::new(),
            reference: Vec::new(),
            values: Vec::new(),
            entropy: Vec::new(),
        };
        for objective in
            [Objective::Dpo(DpoConfig::default()), Objective::Sft(SftConfig::default())]
        {
            let found = credit(&objective, &terms, &[1], &[vec![1.0]], std::slice::from_ref(&none));
            assert!(found.is_none());
        }
    }
}
