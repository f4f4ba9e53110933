//! What a trainer says while it runs. It never prints: whoever started it draws these.

use std::collections::BTreeMap;

use fisao_models::vision_language::VisionLanguageModel;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// A step inside one iteration, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// The encoders run over images that are not in the cache.
    Encode,
    /// The policy writes responses.
    Sample,
    /// Mentions are found and scored.
    Score,
    /// Policy and base model caption the images greedily, for the constraints on recall and length.
    Compare,
    /// Scores become rewards of tokens.
    Reward,
    /// Log-probabilities, values, advantages.
    Advantages,
    /// Optimiser steps.
    Update,
}

/// One thing worth telling the user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum AlignEvent {
    /// A phase begins.
    PhaseStarted {
        /// Iteration, from 1.
        iteration: usize,
        /// Which phase.
        phase: Phase,
        /// Units of work it will take: images to encode, greedy captions to compare (0 where nothing is measured), optimiser
        /// steps of the update, else responses.
        steps: usize,
    },
    /// A phase has got further.
    PhaseAdvanced {
        /// Which phase.
        phase: Phase,
        /// Units of work done so far.
        done: usize,
    },
    /// A phase is over.
    PhaseFinished {
        /// Iteration, from 1.
        iteration: usize,
        /// Which phase.
        phase: Phase,
        /// Wall time, seconds.
        seconds: f64,
    },
    /// An iteration is over.
    IterationFinished {
        /// What it measured.
        metrics: Box<IterationMetrics>,
    },
    /// Something looks wrong, but the run goes on.
    Warning(Warning),
    /// The run can be resumed from here.
    CheckpointSaved {
        /// Iterations done, so the one it resumes with.
        iteration: usize,
    },
}

/// A named suspicion with its evidence and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Which suspicion.
    pub code: WarningCode,
    /// The evidence, in numbers.
    pub message: String,
    /// What to look at or change.
    pub hint: String,
}

impl Warning {
    /// That the CPU computed batches of a model which has a card, if there were more of them than `before`.
    pub fn of_batches_left_to_cpu(model: &VisionLanguageModel, before: usize) -> Option<Self> {
        let left = model.language_model().batches_left_to_cpu();
        let batches =
            if left == 1 { "1 batch was".to_owned() } else { format!("{left} batches were") };
        (left > before).then(|| Self {
            code: WarningCode::LeftToCpu,
            message: format!(
                "{batches} computed by the CPU, slowly: the card had no room for what was to be decoded, or was at work with other weights"
            ),
            hint: "see what else takes memory of the card (`nvidia-smi`), or decode shorter responses".to_owned(),
        })
    }
}

/// Every warning there is; the guards say what raises each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WarningCode {
    /// A metric is NaN or infinite.
    NotFinite,
    /// Sampler and trainer disagree about log-probabilities.
    SamplerMismatch,
    /// Int8 weights sample from another distribution than the policy's, and are no longer used.
    Int8SamplingLeft,
    /// The policy has gone far from the reference.
    KlHigh,
    /// One update moved some token's probability too far.
    RatioHigh,
    /// The clip removes the gradient of too many tokens.
    ClipHigh,
    /// The critic's estimates are worse than a constant.
    CriticWrong,
    /// No image gives a pair of responses that differ enough.
    PairsMissing,
    /// The policy has become nearly deterministic.
    EntropyCollapsed,
    /// Responses have become much shorter than the base model's.
    LengthCollapsed,
    /// Responses have become much longer than the base model's.
    LengthGrown,
    /// Responses stop ending by themselves.
    EndsMissing,
    /// Mentions repeat objects that the response has named before.
    RepetitionGrown,
    /// All responses earn the same.
    RewardConstant,
    /// No mention earns or costs anything.
    AllNeutral,
    /// On the calibration split the policy names fewer of the objects that are there.
    RecallDropped,
    /// Recall cannot be kept: the break-even precision is at its lower bound.
    BreakEvenAtBound,
    /// The estimated change of recall is not the labelled one.
    RecallMisestimated,
    /// On the calibration split reward no longer tells correct mentions from hallucinated ones.
    SeparationLost,
    /// The CPU computed what the card was to compute.
    LeftToCpu,
}

/// Everything one iteration measured: one line of `metrics.jsonl`.
///
/// A quantity an iteration cannot have (a fraction of no mentions, a critic's loss without a critic) is absent, `null` in
/// JSON. Wall times are kept apart (`timings.jsonl`): everything here is the same in every run of the same
/// configuration on the same machine, interrupted or not.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IterationMetrics {
    /// Iteration, from 1.
    pub iteration: usize,
    /// Responses sampled, or taken from the data.
    pub responses: usize,
    /// Real tokens of these responses, end token included.
    pub tokens: usize,

    /// Verifier reward summed over a response, mean over responses, without the KL term and the length bonus. Should
    /// rise.
    pub reward_mean: f64,
    /// Standard deviation of the same over responses. Zero means there is nothing to learn from.
    pub reward_std: f64,
    /// Object mentions per response.
    pub mentions_per_caption: f64,
    /// Fraction of mentions with positive reward, `[0, 1]`.
    #[serde(alias = "rewarded_share")]
    pub rewarded_fraction: Option<f64>,
    /// Fraction of mentions with negative reward, `[0, 1]`. Should fall.
    #[serde(alias = "penalised_share")]
    pub penalised_fraction: Option<f64>,
    /// Fraction of mentions without reward, `[0, 1]`.
    #[serde(alias = "neutral_share")]
    pub neutral_fraction: Option<f64>,
    /// Fraction of mentions whose category the response had named before, `[0, 1]`.
    #[serde(alias = "repeated_share")]
    pub repeated_fraction: Option<f64>,

    /// q*, the policy's own probability of being right from which on naming an object pays in this iteration.
    pub break_even: Option<f64>,
    /// Σ ẑ, expected number of categories named correctly, per greedy caption of the policy on this iteration's images;
    /// absent where recall is not constrained or not measured in this iteration.
    pub expected_correct: Option<f64>,
    /// The same of the base model on the same images.
    pub expected_correct_base: Option<f64>,
    /// Relative surplus of the first over the second, smoothed over about four measurements: near 0 when the constraint holds.
    pub recall_surplus: Option<f64>,
    /// Its standard error.
    pub recall_surplus_error: Option<f64>,
    /// Tokens of the same greedy captions of the policy as a fraction of the base model's, smoothed likewise.
    pub length_ratio: Option<f64>,
    /// ν, what every token earns in this iteration by the length constraint, reward units; absent where length is not
    /// constrained.
    pub length_bonus: Option<f64>,

    /// Tokens per response, mean. Far from the base model's, the reward is being gamed.
    pub length_mean: f64,
    /// Fraction of responses that ended by themselves within the budget, `[0, 1]`.
    pub eos_rate: f64,
    /// Entropy of the policy's next-token distribution at real tokens, mean, nats. Falls slowly.
    pub entropy: f64,

    /// `KL(π_θ‖π_ref)` summed over a response, mean over responses, k1, nats. May be slightly
    /// negative by chance; clearly negative means sampler and scorer differ. Absent where the policy did not write the
    /// responses.
    pub kl: Option<f64>,
    /// The same KL per token, k3, nats. Never negative.
    pub kl_per_token: Option<f64>,
    /// KL penalty β in this iteration, reward units per nat; absent where the reward does not hold it.
    pub kl_coefficient: Option<f64>,

    /// Mean of the advantages before whitening, reward units.
    pub advantage_mean: Option<f64>,
    /// Standard deviation of the advantages before whitening, reward units.
    pub advantage_std: Option<f64>,
    /// Fraction of the returns' variance the critic explained before this update: 1 perfect, 0 no
    /// better than a constant. Absent where returns do not vary.
    pub value_explained_variance: Option<f64>,

    /// Pairs of a better and a worse response that were learned from.
    pub pairs: Option<usize>,
    /// What the objective itself measured, under names of its own: `pair_accuracy` and `pair_margin` of preferences.
    #[serde(flatten, deserialize_with = "numbers")]
    pub objective: BTreeMap<String, f64>,

    /// Loss of the policy, its entropy bonus included, mean over the update's minibatches.
    pub policy_loss: f64,
    /// Clipped value loss, mean over the update's minibatches, reward units squared.
    pub value_loss: Option<f64>,
    /// Fraction of tokens whose gradient the clip removed, `[0, 1]`. 0.02 to 0.3 is usual.
    pub clip_fraction: Option<f64>,
    /// `KL(π_old‖π_θ)` per token over the update, k3, nats.
    pub approx_kl: f64,
    /// Largest `π_θ/π_old` of any token in the update.
    pub ratio_max: f64,
    /// Largest `|log π_θ − log π_old|` before the first optimiser step, nats: sampler against
    /// trainer, numerical noise if both are right.
    pub sampler_gap: f64,
    /// `KL(sampler‖π_old)` per token, k3, nats, where the sampler has int8 weights: its log-probabilities then differ from the
    /// trainer's by more than numerical noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_kl: Option<f64>,
    /// Epochs done; fewer than configured if `target-kl` ended the update.
    pub epochs_done: usize,
    /// Optimiser steps made; none if there was nothing to learn from.
    pub steps: usize,
    /// L2 norm of the policy's gradient before clipping, mean over optimiser steps.
    pub grad_norm: f64,
    /// Learning rate of the adapter.
    pub learning_rate: f64,
    /// Learning rate of the value head, where there is one.
    pub value_learning_rate: Option<f64>,

    /// Images that went through the encoders; what they made of the others had been kept.
    #[serde(skip)]
    pub images_encoded: usize,
    /// Wall time of the phases.
    #[serde(skip)]
    pub seconds: PhaseSeconds,
}

/// Reads the metrics that are not fields: values that are not numbers, such as a metric that an iteration did not have, are left out.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(f64),
        Other(IgnoredAny),
    }
    let others = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let number = |(name, value)| match value {
        Value::Number(number) => Some((name, number)),
        Value::Other(_) => None,
    };
    Ok(others.into_iter().filter_map(number).collect())
}

impl IterationMetrics {
    /// Whether the policy wrote the iteration's responses itself, and not the data.
    pub fn is_own(&self) -> bool {
        self.kl.is_some()
    }
}

/// Wall time per phase, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PhaseSeconds {
    /// Of [`Phase::Encode`].
    pub encode: f64,
    /// Of [`Phase::Sample`]; earlier versions timed encoding, scoring and comparing with it.
    #[serde(alias = "rollout")]
    pub sample: f64,
    /// Of [`Phase::Score`].
    pub score: f64,
    /// Of [`Phase::Compare`].
    pub compare: f64,
    /// Of [`Phase::Reward`].
    #[serde(alias = "verify")]
    pub reward: f64,
    /// Of [`Phase::Advantages`].
    pub advantages: f64,
    /// Of [`Phase::Update`].
    pub update: f64,
}

impl PhaseSeconds {
    /// Whole iteration, seconds.
    pub fn total(&self) -> f64 {
        let Self { encode, sample, score, compare, reward, advantages, update } = *self;
        encode + sample + score + compare + reward + advantages + update
    }

    pub(crate) fn of_mut(&mut self, phase: Phase) -> &mut f64 {
        match phase {
            Phase::Encode => &mut self.encode,
            Phase::Sample => &mut self.sample,
            Phase::Score => &mut self.score,
            Phase::Compare => &mut self.compare,
            Phase::Reward => &mut self.reward,
            Phase::Advantages => &mut self.advantages,
            Phase::Update => &mut self.update,
        }
    }
}
