//! What the loop asks of an objective. Everything in which objectives differ is behind this trait.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::events::{IterationMetrics, Warning};
use crate::ppo::{KlConfig, PolicyStatistics, WhitenMode};

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

/// An objective: its data needs, credit, loss and guards. Implemented by the settings of each.
pub trait ObjectiveDefinition {
    /// As the configuration writes it.
    fn name(&self) -> &'static str;

    /// What it learns from.
    fn data(&self) -> Data;

    /// Checks every setting against its range.
    ///
    /// # Errors
    /// [`AlignError::OutOfRange`] names the first key that is out of range and what it may be.
    fn validate(&self) -> Result<(), AlignError>;

    /// Whether it sets responses to one image against each other, and so needs several.
    fn compares_responses(&self) -> bool {
        false
    }

    /// Whether it maximises expected reward. The reward's break-even precision, KL penalty and constraints then act on it, and every
    /// response is one item of a minibatch.
    fn maximises_reward(&self) -> bool {
        false
    }

    /// The KL penalty, for objectives that have it in their reward.
    fn kl(&self) -> Option<&KlConfig> {
        None
    }

    /// Mutable [`kl`](Self::kl).
    fn kl_mut(&mut self) -> Option<&mut KlConfig> {
        None
    }

    /// How its value head learns, for objectives that have one.
    fn critic(&self) -> Option<CriticConfig> {
        None
    }

    /// What a step learns from at a time, as positions of responses: each on its own, unless the objective says otherwise.
    fn items(&self, responses: &RewardedResponses<'_>) -> Items {
        Items::Single((0..responses.rewards.len()).map(|at| vec![at]).collect())
    }

    /// Advantages of tokens, before they are whitened. Asked of objectives that [maximise rewards](Self::maximises_reward) only;
    /// `None` from the others.
    fn advantages(&self, inputs: &AdvantageInputs<'_>) -> Option<Advantages> {
        let _ = inputs;
        None
    }

    /// Loss of a micro-batch.
    fn loss(&self, inputs: LossInputs<'_>) -> ObjectiveLoss;

    /// Warnings of its own that an iteration's metrics give rise to.
    fn warnings(&self, metrics: &IterationMetrics) -> Vec<Warning> {
        let _ = metrics;
        Vec::new()
    }
}

/// How a value head learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CriticConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// First iterations that train the value head alone.
    pub warmup_iterations: usize,
    /// ε of the clipped value loss, reward units.
    pub clip_range: f64,
}

/// The responses of an iteration with their token rewards; those to one image are adjacent.
#[derive(Debug, Clone, Copy)]
pub struct RewardedResponses<'a> {
    /// Responses to each image, in order; their sum is the number of responses.
    pub groups: &'a [usize],
    /// Token rewards of each response, `[T]`, reward units.
    pub rewards: &'a [Vec<f32>],
}

/// What the items of an iteration are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Items {
    /// Single responses.
    Single(Vec<Vec<usize>>),
    /// A better and a worse response to one image each.
    Pairs(Vec<Vec<usize>>),
}

impl Items {
    /// Positions of the responses of each item.
    pub fn positions(&self) -> &[Vec<usize>] {
        match self {
            Self::Single(items) | Self::Pairs(items) => items,
        }
    }

    /// Number of pairs; absent where responses are learned from one by one.
    pub fn pairs(&self) -> Option<usize> {
        match self {
            Self::Single(_) => None,
            Self::Pairs(items) => Some(items.len()),
        }
    }
}

/// What advantages are computed from.
#[derive(Debug, Clone, Copy)]
pub struct AdvantageInputs<'a> {
    /// Token rewards of each response, KL penalty and length constraint included; those to one image are adjacent.
    pub responses: RewardedResponses<'a>,
    /// The critic's values of the same tokens, reward units; empty rows without a critic.
    pub values: &'a [Vec<f32>],
}

/// Advantages of tokens by an objective's own estimator.
#[derive(Debug, Clone)]
pub struct Advantages {
    /// Per response and token, reward units.
    pub advantages: Vec<Vec<f32>>,
    /// What the critic is taught, where there is one.
    pub critic: Option<Critic>,
    /// How they are to be normalised over the iteration.
    pub whiten: WhitenMode,
}

/// The critic before the update, and what it should have said.
#[derive(Debug, Clone)]
pub struct Critic {
    /// Its estimates per response and token.
    pub values: Vec<Vec<f32>>,
    /// What it should have estimated.
    pub returns: Vec<Vec<f32>>,
}

/// A micro-batch as a loss sees it. Rows hold the tokens of its responses one after the other, `[N]`.
#[derive(Debug, Clone)]
pub struct LossInputs<'a> {
    /// `log π_θ`, tracked, nats.
    pub log_probs: Tensor<1>,
    /// Entropy of each prediction, tracked, nats.
    pub entropy: Tensor<1>,
    /// `log π_old`, before the update, nats.
    pub old_log_probs: &'a [f32],
    /// `log π_ref`, with the adapter off, nats.
    pub reference_log_probs: &'a [f32],
    /// Whitened advantages; empty for objectives without.
    pub advantages: &'a [f32],
    /// Tokens of each response.
    pub lengths: &'a [usize],
    /// What sums are divided by.
    pub normaliser: Normaliser,
}

/// What sums over a minibatch are divided by; never by what a micro-batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normaliser {
    /// Items.
    pub items: f64,
    /// Tokens.
    pub tokens: f64,
    /// Tokens of the first response of each item: the chosen ones of pairs.
    pub first_tokens: f64,
}

/// The loss of a micro-batch, and what its tokens did.
#[derive(Debug, Clone)]
pub struct ObjectiveLoss {
    /// `[1]`.
    pub loss: Tensor<1>,
    /// Ratios and clipping.
    pub policy: PolicyStatistics,
    /// Whatever else the objective measures.
    pub means: Means,
}

/// Means over an update, by the name of the metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Means(BTreeMap<Cow<'static, str>, (f64, f64)>);

impl Means {
    /// Adds `count` observations with this sum.
    pub fn add(&mut self, name: &'static str, sum: f64, count: usize) {
        let (sums, counts) = self.0.entry(name.into()).or_default();
        *sums += sum;
        *counts += count as f64;
    }

    /// Adds the observations of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        for (name, &(sum, count)) in &other.0 {
            let (sums, counts) = self.0.entry(name.clone()).or_default();
            *sums += sum;
            *counts += count;
        }
    }

    /// Mean of each; of none without observations.
    pub fn means(&self) -> BTreeMap<String, f64> {
        let observed = self.0.iter().filter(|(_, (_, count))| *count > 0.0);
        observed.map(|(name, &(sum, count))| (name.to_string(), sum / count)).collect()
    }
}
