//! Checks that turn numbers into warnings: the ways in which alignment fails without an error.

use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::events::{IterationMetrics, Warning, WarningCode};
use crate::ranges::{COUNTS, LARGEST, ZERO_OR_MORE, not_negative, real, within};
use crate::recall::RecallConfig;

/// What the metrics are compared with: the base model, before any update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Tokens per sampled response.
    pub length_mean: f64,
    /// Fraction of sampled responses that ended by themselves, `[0, 1]`.
    pub eos_rate: f64,
    /// Entropy per token, nats.
    pub entropy: f64,
    /// Fraction of mentions whose category the response had named before, `[0, 1]`; 0 without mentions.
    #[serde(alias = "repeated_share")]
    pub repeated_fraction: f64,
}

/// How far each metric may go before it raises its warning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GuardLimits {
    /// Largest disagreement between sampler and trainer before the first step. Unit: nats. Default
    /// 1e-2: a change of 1 % in a token's probability, far above f32 rounding.
    pub sampler_gap: f64,
    /// Largest KL of the policy from a sampler with int8 weights (`align.int8-sampling`), beyond which the run samples with the weights
    /// as they are. Unit: nats per token. Default 1e-3: a tenth of a nat for a caption of 100 tokens.
    pub sampler_kl: f64,
    /// Largest KL from the reference. Unit: nats per token. Default 0.5, which is 10 nats for a
    /// caption of 20 tokens.
    pub kl_per_token: f64,
    /// Largest ratio in an update. Default 10, beyond which TRL's first PPO trainer skipped a batch.
    pub ratio: f64,
    /// Largest fraction of tokens whose gradient the clip removes. Default 0.4.
    pub clip_fraction: f64,
    /// Least fraction of the returns' variance that the critic explains, once it has had ten iterations; 0 is what a
    /// constant explains. Default -1.
    pub explained_variance: f64,
    /// Least entropy as a fraction of the base model's. Default 0.2.
    #[serde(alias = "entropy-share")]
    pub entropy_fraction: f64,
    /// Least length as a fraction of the base model's. Default 0.85.
    #[serde(alias = "shortest")]
    pub min_length_ratio: f64,
    /// Greatest length as a fraction of the base model's. Default 1.25.
    #[serde(alias = "longest")]
    pub max_length_ratio: f64,
    /// Largest fall of the fraction of responses that end by themselves. Default 0.05.
    pub eos_drop: f64,
    /// Least AUC that the calibration must have measured where the verifier is not the model's own encoder as it was trained with its
    /// text head: a tuned copy of it, or the model's decoder. Below it the run is refused before it begins. From 0 to 1. Default 0.65:
    /// rewards stay right on average with a weaker verifier, but need many more captions.
    pub verifier_auc: f64,
    /// Least standard deviation of rewards over responses. Unit: reward. Default 1e-6.
    pub reward_std: f64,
    /// Largest fraction of mentions without reward. Default 0.98.
    #[serde(alias = "neutral-share")]
    pub neutral_fraction: f64,
    /// Largest growth of the fraction of repeated mentions, beyond two standard errors. Unit: fraction. Default 0.1.
    pub repetition_growth: f64,
    /// Largest fall of recall on the calibration split. Unit: fraction. Default 0.02.
    pub recall_drop: f64,
    /// Least AUC of reward as a detector of correct mentions. Default 0.55: weaker rewards are corrected for their
    /// errors, and below that they carry next to nothing.
    pub separation_auc: f64,
    /// Largest difference between the estimated and the labelled change of recall on the calibration split, both relative to
    /// the base model. Unit: fraction. Default 0.08.
    pub recall_estimate: f64,
    /// Iterations in a row in which a metric is so far beyond its limit that training does not recover (see
    /// [`unrecoverable`]) after which the run stops; 0 never stops. Default 5.
    pub patience: usize,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            sampler_gap: 1e-2,
            sampler_kl: 1e-3,
            kl_per_token: 0.5,
            ratio: 10.0,
            clip_fraction: 0.4,
            explained_variance: -1.0,
            entropy_fraction: 0.2,
            min_length_ratio: 0.85,
            max_length_ratio: 1.25,
            eos_drop: 0.05,
            verifier_auc: 0.65,
            reward_std: 1e-6,
            neutral_fraction: 0.98,
            repetition_growth: 0.1,
            recall_drop: 0.02,
            separation_auc: 0.55,
            recall_estimate: 0.08,
            patience: 5,
        }
    }
}

impl GuardLimits {
    pub(crate) fn validate(&self) -> Result<(), AlignError> {
        let limits = [
            ("guards.sampler-gap", self.sampler_gap),
            ("guards.sampler-kl", self.sampler_kl),
            ("guards.kl-per-token", self.kl_per_token),
            ("guards.ratio", self.ratio),
            ("guards.clip-fraction", self.clip_fraction),
            ("guards.entropy-fraction", self.entropy_fraction),
            ("guards.min-length-ratio", self.min_length_ratio),
            ("guards.max-length-ratio", self.max_length_ratio),
            ("guards.eos-drop", self.eos_drop),
            ("guards.reward-std", self.reward_std),
            ("guards.neutral-fraction", self.neutral_fraction),
            ("guards.repetition-growth", self.repetition_growth),
            ("guards.recall-drop", self.recall_drop),
            ("guards.separation-auc", self.separation_auc),
            ("guards.recall-estimate", self.recall_estimate),
        ];
        for (key, value) in limits {
            real(key, value, not_negative, ZERO_OR_MORE)?;
        }
        let is_auc = |auc: f64| (0.0..=1.0).contains(&auc);
        real("guards.verifier-auc", self.verifier_auc, is_auc, "from 0 to 1")?;
        real(
            "guards.explained-variance",
            self.explained_variance,
            |x| (-LARGEST..=LARGEST).contains(&x),
            "from -1e9 to 1e9",
        )?;
        within("guards.patience", self.patience, COUNTS)
    }
}

/// How many times beyond its limit the KL of an unrecoverable policy is.
const ABORT_KL: f64 = 4.0;
/// Length of an unrecoverable policy's responses as fractions of the base model's: below the first, above the second.
const ABORT_LENGTH: (f64, f64) = (0.4, 2.5);
/// Fraction of responses that have to end by themselves, of those that did.
const ABORT_ENDS: f64 = 0.2;
/// Growth of the fraction of repeated mentions, fraction.
const ABORT_REPETITION: f64 = 0.5;
/// Estimated fraction of the base model's correct mentions that an unrecoverable policy no longer makes, with nothing left to raise them.
const ABORT_RECALL: f64 = 0.25;
/// Iterations that a critic has to learn before its error counts.
const CRITIC_STARTS: usize = 10;

/// What is wrong beyond recovery, if anything: the policy has left its reference (four times the limit of the KL), says
/// next to nothing or no longer ends (under 0.4 or over 2.5 of the base model's length; a fifth of its ends), repeats
/// itself (half of all mentions more than before), names a quarter less of what is there though the recall constraint has no
/// room left, or there is nothing to learn from (all responses earn the same, no
/// pair of them differs) or nothing learned means what it should (sampler and trainer disagree).
///
/// `warnings` are those of [`check_iteration`].
pub fn unrecoverable<'a>(
    m: &IterationMetrics,
    base: &Baseline,
    limits: &GuardLimits,
    warnings: &'a [Warning],
) -> Option<&'a Warning> {
    let aborts = |code: WarningCode| match code {
        WarningCode::KlHigh => m.kl_per_token.is_some_and(|kl| kl > ABORT_KL * limits.kl_per_token),
        WarningCode::LengthCollapsed => m.length_mean < ABORT_LENGTH.0 * base.length_mean,
        WarningCode::LengthGrown => m.length_mean > ABORT_LENGTH.1 * base.length_mean,
        WarningCode::EndsMissing => m.eos_rate < ABORT_ENDS * base.eos_rate,
        WarningCode::RepetitionGrown => {
            m.repeated_fraction.unwrap_or(0.0) > base.repeated_fraction + ABORT_REPETITION
        }
        WarningCode::BreakEvenAtBound => m.recall_surplus.unwrap_or(0.0) < -ABORT_RECALL,
        WarningCode::NotFinite
        | WarningCode::SamplerMismatch
        | WarningCode::RewardConstant
        | WarningCode::PairsMissing => true,
        _ => false,
    };
    warnings.iter().find(|warning| aborts(warning.code))
}

/// Warnings an iteration's metrics give rise to, gravest first. Lengths, ends, repetitions, entropy and rewards of responses that the
/// data gave tell of the data: of these nothing is said.
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
    let mut warnings = update_warnings(metrics, limits);
    if metrics.is_own() {
        warnings.extend(rollout_warnings(metrics, baseline, limits));
    }
    warnings
}

fn not_finite(metrics: &IterationMetrics) -> Option<Warning> {
    let named = [
        ("reward_mean", metrics.reward_mean),
        ("reward_std", metrics.reward_std),
        ("kl", metrics.kl.unwrap_or(0.0)),
        ("kl_per_token", metrics.kl_per_token.unwrap_or(0.0)),
        ("entropy", metrics.entropy),
        ("advantage_mean", metrics.advantage_mean.unwrap_or(0.0)),
        ("advantage_std", metrics.advantage_std.unwrap_or(0.0)),
        ("policy_loss", metrics.policy_loss),
        ("value_loss", metrics.value_loss.unwrap_or(0.0)),
        ("approx_kl", metrics.approx_kl),
        ("ratio_max", metrics.ratio_max),
        ("sampler_gap", metrics.sampler_gap),
        ("sampler_kl", metrics.sampler_kl.unwrap_or(0.0)),
        ("grad_norm", metrics.grad_norm),
    ];
    let own = metrics.objective.iter().map(|(name, &x)| (name.as_str(), x));
    let named = named.into_iter().chain(own);
    let names: Vec<&str> = named.filter(|(_, x)| !x.is_finite()).map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| {
        warning(
            WarningCode::NotFinite,
            format!("not a finite number: {}", names.join(", ")),
            "start again with a lower align.learning-rate or align.max-grad-norm",
        )
    })
}

fn update_warnings(m: &IterationMetrics, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(kl) = m.sampler_kl.filter(|&kl| kl > limits.sampler_kl) {
        warnings.push(warning(
            WarningCode::Int8SamplingLeft,
            format!(
                "int8 weights sample from a distribution that is {kl:.2e} nats per token from the \
                 policy's (limit {}); the next iterations sample with the weights as they are",
                limits.sampler_kl
            ),
            "start with align.int8-sampling = false, or allow more with guards.sampler-kl",
        ));
    }
    if m.sampler_kl.is_none() && m.sampler_gap > limits.sampler_gap {
        warnings.push(warning(
            WarningCode::SamplerMismatch,
            format!(
                "before the first step the trainer's log-probabilities differ from the sampler's by \
                 up to {:.4} nats (limit {})",
                m.sampler_gap, limits.sampler_gap
            ),
            "ratios no longer mean what they are taken for: use one dtype for both, and the same \
             align.temperature",
        ));
    }
    if let Some(kl) = m.kl_per_token.filter(|&kl| kl > limits.kl_per_token) {
        warnings.push(warning(
            WarningCode::KlHigh,
            format!(
                "KL from the reference is {kl:.3} nats per token (limit {})",
                limits.kl_per_token
            ),
            "raise objective.kl.coefficient or lower align.learning-rate; look at sampled captions for \
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
            "lower align.learning-rate or align.epochs, or set align.target-kl",
        ));
    }
    if let Some(clipped) = m.clip_fraction.filter(|&fraction| fraction > limits.clip_fraction) {
        warnings.push(warning(
            WarningCode::ClipHigh,
            format!(
                "the clip removed the gradient of {:.0} % of tokens (limit {:.0} %)",
                100.0 * clipped,
                100.0 * limits.clip_fraction
            ),
            "steps are too long to be used: lower align.learning-rate or align.epochs",
        ));
    }
    let explained = m.value_explained_variance.filter(|_| m.iteration > CRITIC_STARTS);
    if let Some(explained) = explained.filter(|&fraction| fraction < limits.explained_variance) {
        warnings.push(warning(
            WarningCode::CriticWrong,
            format!(
                "the critic explains {explained:.2} of the returns' variance (limit {}); a constant \
                 explains 0",
                limits.explained_variance
            ),
            "advantages are mostly its errors: lower objective.value-learning-rate, or take the \
             group-relative objective",
        ));
    }
    warnings
}

fn rollout_warnings(m: &IterationMetrics, base: &Baseline, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if m.entropy < limits.entropy_fraction * base.entropy {
        warnings.push(warning(
            WarningCode::EntropyCollapsed,
            format!(
                "entropy is {:.3} nats per token, the base model's was {:.3}",
                m.entropy, base.entropy
            ),
            "every caption of an image is nearly the same: raise objective.kl.coefficient or \
             objective.entropy-coefficient",
        ));
    }
    let lengths = || {
        format!(
            "captions have {:.1} tokens, the base model's had {:.1}",
            m.length_mean, base.length_mean
        )
    };
    if m.length_mean < limits.min_length_ratio * base.length_mean {
        warnings.push(warning(
            WarningCode::LengthCollapsed,
            lengths(),
            "the policy hallucinates less by saying less: weigh penalties down, or raise \
             objective.kl.coefficient",
        ));
    } else if m.length_mean > limits.max_length_ratio * base.length_mean {
        warnings.push(warning(
            WarningCode::LengthGrown,
            lengths(),
            "the policy collects rewards by naming more: weigh rewards down, or raise \
             objective.kl.coefficient",
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
    let repeated = m.repeated_fraction.unwrap_or(0.0);
    if repeated - 2.0 * repetition_error(m, base)
        > base.repeated_fraction + limits.repetition_growth
    {
        warnings.push(warning(
            WarningCode::RepetitionGrown,
            format!(
                "{:.0} % of mentions repeat an object, of the base model's {:.0} % did",
                100.0 * repeated,
                100.0 * base.repeated_fraction
            ),
            "the policy fills captions with what it is sure of: raise reward.repetition-penalty",
        ));
    }
    // Rewards of whole responses leave the fraction unknown, though there are mentions.
    let unknown = if m.mentions_per_caption > 0.0 { 0.0 } else { 1.0 };
    let neutral = m.neutral_fraction.unwrap_or(unknown);
    if neutral > limits.neutral_fraction {
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
            "raise align.temperature or align.images-per-iteration, or calibrate again",
        ));
    }
    warnings
}

/// Standard error of the growth of the fraction of repeated mentions, where both were counted over as many mentions; 0 without
/// any.
fn repetition_error(m: &IterationMetrics, base: &Baseline) -> f64 {
    let mentions = m.mentions_per_caption * m.responses as f64;
    if mentions <= 0.0 {
        return 0.0;
    }
    let variance = |fraction: f64| fraction * (1.0 - fraction);
    let both = variance(m.repeated_fraction.unwrap_or(0.0)) + variance(base.repeated_fraction);
    (both / mentions).sqrt()
}

/// The policy on validation tasks, before or during training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitHealth {
    /// Mean reward of a greedy response, reward units.
    pub reward: f64,
    /// Fraction of the objects present that the captions name, `[0, 1]`; absent where they are not known.
    pub recall: Option<f64>,
    /// The same for the base model.
    pub base_recall: Option<f64>,
    /// Σ ẑ, expected number of categories named correctly per caption: what the recall constraint sees of the same
    /// captions, without labels.
    #[serde(default)]
    pub expected_correct: Option<f64>,
    /// The same for the base model.
    #[serde(default)]
    pub base_expected_correct: Option<f64>,
    /// Probability that a correct mention earns more than a hallucinated one, ties counted half.
    /// Absent if either kind is missing.
    pub reward_auc: Option<f64>,
    /// Mean reward of correct mentions, reward units.
    pub reward_correct: Option<f64>,
    /// Mean reward of hallucinated mentions, reward units.
    pub reward_hallucinated: Option<f64>,
    /// Standard error of [`reward_auc`](Self::reward_auc), 0 where it was not recorded.
    #[serde(default)]
    pub reward_auc_error: f64,
    /// Standard error of [`reward_correct`](Self::reward_correct).
    #[serde(default)]
    pub reward_correct_error: f64,
    /// Standard error of [`reward_hallucinated`](Self::reward_hallucinated).
    #[serde(default)]
    pub reward_hallucinated_error: f64,
}

impl SplitHealth {
    /// Change of recall relative to the base model: as the labels have it, and as it is estimated without them.
    pub fn recall_changes(&self) -> Option<(f64, f64)> {
        let labelled = self.recall? / self.base_recall.filter(|&base| base > 0.0)? - 1.0;
        let base = self.base_expected_correct.filter(|&base| base > 0.0)?;
        Some((labelled, self.expected_correct? / base - 1.0))
    }
}

/// Warnings the calibration split gives rise to.
///
/// A hallucinated mention that earns reward on average is a separation lost, whatever the AUC: the
/// policy is then paid for hallucinating. What lies within two standard errors of a limit is no evidence.
pub fn check_split(health: &SplitHealth, limits: &GuardLimits) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let auc_error = 2.0 * health.reward_auc_error;
    let auc = health
        .reward_auc
        .is_some_and(|auc| auc.is_nan() || auc + auc_error < limits.separation_auc);
    let paid_error = 2.0 * health.reward_hallucinated_error;
    let paid = health.reward_hallucinated.is_some_and(|reward| reward > paid_error);
    let unpaid_error = 2.0 * health.reward_correct_error;
    let unpaid = health.reward_correct.is_some_and(|reward| reward < -unpaid_error);
    if auc || paid || unpaid {
        let number = |x: Option<f64>| x.map_or_else(|| "none".to_owned(), |x| format!("{x:.3}"));
        warnings.push(warning(
            WarningCode::SeparationLost,
            format!(
                "mean reward is {} for correct and {} for hallucinated mentions, AUC {} (limit {})",
                number(health.reward_correct),
                number(health.reward_hallucinated),
                number(health.reward_auc),
                limits.separation_auc
            ),
            "training on this reward can raise hallucination: calibrate on the model's own captions, \
             or use a stronger verifier",
        ));
    }
    if let (Some(recall), Some(base)) = (health.recall, health.base_recall)
        && recall < base - limits.recall_drop
    {
        warnings.push(warning(
            WarningCode::RecallDropped,
            format!(
                "recall on the calibration split is {:.1} %, the base model's was {:.1} %",
                100.0 * recall,
                100.0 * base
            ),
            "objects that are there go unsaid: weigh penalties down, or raise objective.kl.coefficient",
        ));
    }
    warnings
}

/// Warns when the estimated change of recall, which the constraint goes by, departs from the labelled one. `noise` is the
/// standard deviation of the estimated correctness of one mention: weak verifiers are allowed to be further off.
pub fn check_recall_estimate(
    health: &SplitHealth,
    limits: &GuardLimits,
    noise: f64,
) -> Option<Warning> {
    let (labelled, estimated) = health.recall_changes()?;
    let limit = limits.recall_estimate * noise.max(1.0);
    ((labelled - estimated).abs() > limit).then(|| {
        warning(
            WarningCode::RecallMisestimated,
            format!(
                "recall on the calibration split changed by {:+.1} % of the base model's, but is estimated to \
                 have changed by {:+.1} % (limit {:.0} points)",
                100.0 * labelled,
                100.0 * estimated,
                100.0 * limit
            ),
            "the calibration does not hold for what the policy says now: calibrate on more images, or set \
             recall.constraint = false and reward.form.break-even by hand",
        )
    })
}

/// Warns when the recall constraint has no room left: its break-even precision is as low as it may be, and fewer objects are
/// named than by the base model all the same.
pub fn check_recall_bound(
    m: &IterationMetrics,
    recall: &RecallConfig,
    limits: &GuardLimits,
) -> Option<Warning> {
    let (precision, surplus) = (m.break_even?, m.recall_surplus?);
    let shortfall = -surplus - 2.0 * m.recall_surplus_error.unwrap_or(0.0);
    (precision <= recall.min_break_even && shortfall > limits.recall_drop).then(|| {
        warning(
            WarningCode::BreakEvenAtBound,
            format!(
                "the policy names {:.1} % fewer objects that are there than the base model, by its estimate, \
                 though a mention pays from a precision of {precision:.2} on, the lowest allowed",
                -100.0 * surplus
            ),
            "the policy has learned silence: lower align.learning-rate, raise objective.kl.coefficient, or \
             lower recall.min-break-even",
        )
    })
}

fn warning(code: WarningCode, message: String, hint: &str) -> Warning {
    Warning { code, message, hint: hint.to_owned() }
}
