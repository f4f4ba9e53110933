//! Advantages of tokens, by the objective's own estimator, and what a step learns from at a time.

use crate::group::group_advantages;
use crate::log_probabilities::TokenEstimates;
use crate::mentions::ScoredResponse;
use crate::objective::{Objective, PairSource};
use crate::ppo::{Whitening, gae, token_rewards_with_kl, whiten};
use crate::preference::best_and_worst;
use crate::token_rewards::response_reward;

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

/// The critic before the update, and what it should have said.
#[derive(Debug, Clone)]
pub struct Critic {
    /// Its estimates per response and token.
    pub values: Vec<Vec<f32>>,
    /// What it should have estimated.
    pub returns: Vec<Vec<f32>>,
}

/// What the reward holds beside the verifier's.
pub(crate) struct RewardTerms {
    /// β, reward units per nat.
    pub(crate) kl_coefficient: f64,
    /// ν of every token, by the length constraint; reward units.
    pub(crate) length_bonus: Option<f64>,
}

/// Advantages by the objective's own estimator, whitened over the whole rollout.
pub(crate) fn credit(
    objective: &Objective,
    terms: &RewardTerms,
    captions: &[ScoredResponse],
    rewards: &[Vec<f32>],
    estimates: &[TokenEstimates],
) -> Option<Credit> {
    let penalised = || {
        rewards.iter().zip(estimates).map(|(reward, TokenEstimates { logprobs, reference, .. })| {
            let penalised =
                token_rewards_with_kl(reward, logprobs, reference, terms.kl_coefficient);
            with_length_bonus(penalised, terms.length_bonus.unwrap_or(0.0))
        })
    };
    let (mut advantages, critic, mode) = match objective {
        Objective::Ppo(ppo) => {
            let estimate = |(penalised, of): (Vec<f32>, &TokenEstimates)| {
                gae(&penalised, &of.values, ppo.gamma, ppo.lambda)
            };
            let (advantages, returns) = penalised().zip(estimates).map(estimate).unzip();
            let values = estimates.iter().map(|of| of.values.clone()).collect();
            (advantages, Some(Critic { values, returns }), ppo.whiten)
        }
        Objective::GroupRelative(group) => {
            let penalised: Vec<Vec<f32>> = penalised().collect();
            let mut advantages = Vec::with_capacity(penalised.len());
            // Responses to one image are adjacent.
            let groups = captions.chunk_by(|a, b| a.task == b.task).map(<[ScoredResponse]>::len);
            for size in groups {
                let first = advantages.len();
                let rows = &penalised[first..first + size];
                advantages.extend(group_advantages(rows, group.gamma, group.baseline));
            }
            (advantages, None, group.whiten)
        }
        Objective::Dpo(_) | Objective::Sft(_) => return None,
    };
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

/// What a step learns from at a time.
pub(crate) fn items(
    objective: &Objective,
    captions: &[ScoredResponse],
    rewards: &[Vec<f32>],
) -> Vec<Vec<usize>> {
    let Objective::Dpo(dpo) = objective else {
        return (0..captions.len()).map(|at| vec![at]).collect();
    };
    let mut pairs = Vec::new();
    let mut first = 0;
    for group in captions.chunk_by(|a, b| a.task == b.task) {
        let pair = match dpo.pairs {
            PairSource::Data => Some((0, 1)),
            PairSource::Verifier => {
                let rows = &rewards[first..first + group.len()];
                let sums: Vec<f64> = rows.iter().map(|row| response_reward(row)).collect();
                best_and_worst(&sums, dpo.min_gap)
            }
        };
        pairs.extend(pair.map(|(chosen, rejected)| vec![first + chosen, first + rejected]));
        first += group.len();
    }
    pairs
}
