//! Checks that turn numbers into warnings: the ways in which alignment fails without an error.

use serde::{Deserialize, Serialize};

use crate::events::{IterationMetrics, Warning, WarningCode};

/// What the metrics are compared with: the base model, before any update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Tokens per sampled response.
    pub length_mean: f64,
    /// Share of sampled responses that ended by themselves, `[0, 1]`.
    pub eos_rate: f64,
    /// Entropy per token, nats.
    pub entropy: f64,
    /// Share of mentions whose category the response had named before, `[0, 1]`; 0 without mentions.
    pub repeated_share: f64,
}

/// How far each metric may go before it raises its warning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GuardLimits {
    /// Largest disagreement between sampler and trainer before the first step. Unit: nats. Default
    /// 1e-2: a change of 1 % in a token's probability, far above f32 rounding.
    pub sampler_gap: f64,
    /// Largest KL from the reference. Unit: nats per token. Default 0.5, which is 10 nats for a
    /// caption of 20 tokens.
    pub kl_per_token: f64,
    /// Largest ratio in an update. Default 10, beyond which TRL's first PPO trainer skipped a batch.
    pub ratio: f64,
    /// Least entropy as a share of the base model's. Default 0.2.
    pub entropy_share: f64,
    /// Least length as a share of the base model's. Default 0.85.
    pub shortest: f64,
    /// Greatest length as a share of the base model's. Default 1.25.
    pub longest: f64,
    /// Largest fall of the share of responses that end by themselves. Default 0.05.
    pub eos_drop: f64,
    /// Least standard deviation of rewards over responses. Unit: reward. Default 1e-6.
    pub reward_std: f64,
    /// Largest share of mentions without reward. Default 0.98.
    pub neutral_share: f64,
    /// Largest growth of the share of repeated mentions. Unit: fraction. Default 0.1.
    pub repetition_growth: f64,
    /// Largest fall of recall on the calibration split. Unit: fraction. Default 0.02.
    pub recall_drop: f64,
    /// Least AUC of reward as a detector of correct mentions. Default 0.75: at 0.80 over a
    /// prototype's own mentions the policy already learned silence rather than sight.
    pub separation_auc: f64,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            sampler_gap: 1e-2,
            kl_per_token: 0.5,
            ratio: 10.0,
            entropy_share: 0.2,
            shortest: 0.85,
            longest: 1.25,
            eos_drop: 0.05,
            reward_std: 1e-6,
            neutral_share: 0.98,
            repetition_growth: 0.1,
            recall_drop: 0.02,
            separation_auc: 0.75,
        }
    }
}

/// Warnings an iteration's metrics give rise to, gravest first.
pub fn check_iteration(
    metrics: &IterationMetrics,
    baseline: &Baseline,
    limits: &GuardLimits,
) -> Vec<Warning> {
    let broken = not_finite(metrics);
    if broken.is_some() {
        // Comparisons with a NaN are all false: nothing else can be trusted.
        return broken.into_iter().collect();
    }
    [update_warnings(metrics, baseline, limits), rollout_warnings(metrics, baseline, limits)]
        .concat()
}

fn not_finite(metrics: &IterationMetrics) -> Option<Warning> {
    let named = [
        ("reward_mean", metrics.reward_mean),
        ("reward_std", metrics.reward_std),
        ("kl", metrics.kl),
        ("kl_per_token", metrics.kl_per_token),
        ("entropy", metrics.entropy),
        ("advantage_mean", metrics.advantage_mean),
        ("advantage_std", metrics.advantage_std),
        ("policy_loss", metrics.policy_loss),
        ("value_loss", metrics.value_loss),
        ("approx_kl", metrics.approx_kl),
        ("ratio_max", metrics.ratio_max),
        ("sampler_gap", metrics.sampler_gap),
        ("grad_norm", metrics.grad_norm),
    ];
    let names: Vec<&str> = named.iter().filter(|(_, x)| !x.is_finite()).map(|(n, _)| *n).collect();
    (!names.is_empty()).then(|| {
        warning(
            WarningCode::NotFinite,
            format!("iteration {}: not a finite number: {}", metrics.iteration, names.join(", ")),
            "resume from the last checkpoint with a lower ppo.learning-rate or ppo.max-grad-norm",
        )
    })
}

fn update_warnings(m: &IterationMetrics, base: &Baseline, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if m.sampler_gap > limits.sampler_gap {
        warnings.push(warning(
            WarningCode::SamplerMismatch,
            format!(
                "before the first step the trainer's log-probabilities differ from the sampler's by \
                 up to {:.4} nats (limit {})",
                m.sampler_gap, limits.sampler_gap
            ),
            "ratios no longer mean what PPO takes them for: use one dtype for both, and the same \
             ppo.temperature",
        ));
    }
    if m.kl_per_token > limits.kl_per_token {
        warnings.push(warning(
            WarningCode::KlHigh,
            format!(
                "KL from the reference is {:.3} nats per token (limit {})",
                m.kl_per_token, limits.kl_per_token
            ),
            "raise ppo.kl.coefficient or lower ppo.learning-rate; look at sampled captions for \
             broken grammar",
        ));
    }
    if m.ratio_max > limits.ratio {
        warnings.push(warning(
            WarningCode::RatioHigh,
            format!(
                "one update changed a token's probability {:.1}-fold (limit {})",
                m.ratio_max, limits.ratio
            ),
            "lower ppo.learning-rate or ppo.epochs, or set ppo.target-kl",
        ));
    }
    if m.entropy < limits.entropy_share * base.entropy {
        warnings.push(warning(
            WarningCode::EntropyCollapsed,
            format!(
                "entropy is {:.3} nats per token, the base model's was {:.3}",
                m.entropy, base.entropy
            ),
            "every caption of an image is nearly the same: raise ppo.kl.coefficient or \
             ppo.entropy-coefficient",
        ));
    }
    warnings
}

fn rollout_warnings(m: &IterationMetrics, base: &Baseline, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let lengths = || {
        format!(
            "captions have {:.1} tokens, the base model's had {:.1}",
            m.length_mean, base.length_mean
        )
    };
    if m.length_mean < limits.shortest * base.length_mean {
        warnings.push(warning(
            WarningCode::LengthCollapsed,
            lengths(),
            "the policy hallucinates less by saying less: weigh penalties down, or raise \
             ppo.kl.coefficient",
        ));
    } else if m.length_mean > limits.longest * base.length_mean {
        warnings.push(warning(
            WarningCode::LengthGrown,
            lengths(),
            "the policy collects rewards by naming more: weigh rewards down, or raise \
             ppo.kl.coefficient",
        ));
    }
    if m.eos_rate < base.eos_rate - limits.eos_drop {
        warnings.push(warning(
            WarningCode::EndsMissing,
            format!(
                "{:.0} % of captions end by themselves, of the base model's {:.0} % did",
                100.0 * m.eos_rate,
                100.0 * base.eos_rate
            ),
            "raise the penalty for truncated responses or max-new-tokens",
        ));
    }
    let repeated = m.repeated_share.unwrap_or(0.0);
    if repeated > base.repeated_share + limits.repetition_growth {
        warnings.push(warning(
            WarningCode::RepetitionGrown,
            format!(
                "{:.0} % of mentions repeat an object, of the base model's {:.0} % did",
                100.0 * repeated,
                100.0 * base.repeated_share
            ),
            "the policy fills captions with what it is sure of: raise reward.repetition-penalty",
        ));
    }
    let neutral = m.neutral_share.unwrap_or(1.0);
    if neutral > limits.neutral_share {
        warnings.push(warning(
            WarningCode::AllNeutral,
            format!(
                "{:.0} % of {:.1} mentions per caption earn no reward",
                100.0 * neutral,
                m.mentions_per_caption
            ),
            "thresholds or vocabulary do not fit these captions: calibrate on them, or lower the \
             margin",
        ));
    } else if m.reward_std < limits.reward_std {
        warnings.push(warning(
            WarningCode::RewardConstant,
            format!("all responses earn {:.3}: there is nothing to prefer", m.reward_mean),
            "raise ppo.temperature or ppo.images-per-iteration, or calibrate again",
        ));
    }
    warnings
}

/// The policy on the calibration split, whose labels are known, before or during training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitHealth {
    /// Share of the objects present that the captions name, `[0, 1]`.
    pub recall: f64,
    /// The same for the base model.
    pub base_recall: f64,
    /// Probability that a correct mention earns more than a hallucinated one, ties counted half.
    /// Absent if either kind is missing.
    pub reward_auc: Option<f64>,
    /// Mean reward of correct mentions, reward units.
    pub reward_correct: Option<f64>,
    /// Mean reward of hallucinated mentions, reward units.
    pub reward_hallucinated: Option<f64>,
}

/// Warnings the calibration split gives rise to.
///
/// A hallucinated mention that earns reward on average is a separation lost, whatever the AUC: the
/// policy is then paid for hallucinating.
pub fn check_split(health: &SplitHealth, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let auc = health.reward_auc.is_some_and(|auc| auc.is_nan() || auc < limits.separation_auc);
    let paid = health.reward_hallucinated.is_some_and(|reward| reward > 0.0);
    let unpaid = health.reward_correct.is_some_and(|reward| reward < 0.0);
    if auc || paid || unpaid {
        let number = |x: Option<f64>| x.map_or_else(|| "none".to_owned(), |x| format!("{x:.3}"));
        warnings.push(warning(
            WarningCode::SeparationLost,
            format!(
                "mean reward is {} for correct and {} for hallucinated words, AUC {} (limit {})",
                number(health.reward_correct),
                number(health.reward_hallucinated),
                number(health.reward_auc),
                limits.separation_auc
            ),
            "training on this reward can raise hallucination: calibrate on the model's own captions, \
             or use a stronger verifier",
        ));
    }
    if health.recall < health.base_recall - limits.recall_drop {
        warnings.push(warning(
            WarningCode::RecallDropped,
            format!(
                "recall on the calibration split is {:.1} %, the base model's was {:.1} %",
                100.0 * health.recall,
                100.0 * health.base_recall
            ),
            "objects that are there go unsaid: weigh penalties down, or raise ppo.kl.coefficient",
        ));
    }
    warnings
}

fn warning(code: WarningCode, message: String, hint: &str) -> Warning {
    Warning { code, message, hint: hint.to_owned() }
}
