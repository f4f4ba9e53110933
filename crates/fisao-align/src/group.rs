//! Advantages without a critic: responses to one image are each other's baseline.
//!
//! The leave-one-out baseline is that of RLOO (arXiv 2402.14740), here per token: what the *other*
//! responses to the same image still earned from the same position on. It does not depend on the response it is
//! subtracted from, so the gradient stays unbiased.

use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::ppo::config::{validate_clip, validate_kl};
use crate::ppo::{ClipRange, KlConfig, WhitenMode};
use crate::ranges::{ZERO_OR_MORE, not_negative, real};

/// The `[objective]` table of kind `group-relative`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GroupRelativeConfig {
    /// What a response is compared with: `leave-one-out` or `none`. Default `leave-one-out`.
    pub baseline: GroupBaseline,
    /// How far credit reaches back: a reward counts `γ^k` for the token `k` places before it. Default 0.95, as far as λ
    /// reaches with a critic.
    pub gamma: f64,
    /// ε of the clipped surrogate. Unit: probability ratio. Default 0.2.
    pub clip_range: f64,
    /// Bound on the ratio of tokens with negative advantage. Default: absent, no such bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
    /// How advantages are normalised over an iteration's tokens. Default `scale`: never per group, which would weigh
    /// images by how alike their responses are (arXiv 2503.20783).
    pub whiten: WhitenMode,
    /// Weight of the entropy bonus in the loss. Unit: per nat. Default 0.
    pub entropy_coefficient: f64,
    /// The KL penalty.
    pub kl: KlConfig,
}

/// What a response is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupBaseline {
    /// The mean over the other responses to the same image.
    #[default]
    LeaveOneOut,
    /// Nothing.
    None,
}

impl Default for GroupRelativeConfig {
    fn default() -> Self {
        Self {
            baseline: GroupBaseline::LeaveOneOut,
            gamma: 0.95,
            clip_range: 0.2,
            dual_clip: None,
            whiten: WhitenMode::Scale,
            entropy_coefficient: 0.0,
            kl: KlConfig::default(),
        }
    }
}

impl GroupRelativeConfig {
    /// The clip of the surrogate.
    pub fn clip(&self) -> ClipRange {
        ClipRange { epsilon: self.clip_range, dual: self.dual_clip }
    }

    pub(crate) fn validate(&self) -> Result<(), AlignError> {
        real("objective.gamma", self.gamma, |x| (0.0..=1.0).contains(&x), "from 0 to 1")?;
        validate_clip(self.clip())?;
        let entropy = self.entropy_coefficient;
        real("objective.entropy-coefficient", entropy, not_negative, ZERO_OR_MORE)?;
        validate_kl(&self.kl)
    }
}

/// Discounted rewards still to come: `G_t = Σ_{k ≥ t} γ^{k−t} r_k`.
///
/// * `rewards` — `r`, `[T]`, reward units.
pub fn returns_to_go(rewards: &[f32], gamma: f64) -> Vec<f64> {
    let mut returns = vec![0.0; rewards.len()];
    let mut next = 0.0;
    for t in (0..rewards.len()).rev() {
        next = f64::from(rewards[t]) + gamma * next;
        returns[t] = next;
    }
    returns
}

/// Advantages of the responses to one image: `A_t = G_t − b_t`, with `b_t` the mean of the others' `G_t` and 0 past
/// their ends.
///
/// * `rewards` — one row per response, each of its own length.
///
/// A single response has nothing to be compared with: its advantages are its returns.
pub fn group_advantages(
    rewards: &[Vec<f32>],
    gamma: f64,
    baseline: GroupBaseline,
) -> Vec<Vec<f32>> {
    let returns: Vec<Vec<f64>> = rewards.iter().map(|row| returns_to_go(row, gamma)).collect();
    let others = returns.len().saturating_sub(1);
    if baseline == GroupBaseline::None || others == 0 {
        return returns.iter().map(|row| row.iter().map(|&g| g as f32).collect()).collect();
    }
    let longest = returns.iter().map(Vec::len).max().unwrap_or(0);
    let at = |t: usize| returns.iter().filter_map(|row| row.get(t)).sum::<f64>();
    let sums: Vec<f64> = (0..longest).map(at).collect();
    let advantage = |(t, &g): (usize, &f64)| (g - (sums[t] - g) / others as f64) as f32;
    returns.iter().map(|row| row.iter().enumerate().map(advantage).collect()).collect()
}
