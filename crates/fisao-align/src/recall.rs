//! Recall as a constraint, without labels.
//!
//! Minimise the expected number of hallucinated mentions subject to naming as many objects that are there as the base
//! model does. With z = 1 for a correct mention and 0 for a hallucinated one, the Lagrangian
//!
//! ```text
//! E[Σ (1 − z)] − μ (E[Σ z] − R₀)        is minimised by the reward  z − q*,   q* = 1/(1 + μ),
//! ```
//!
//! so the break-even precision of the corrected reward *is* the multiplier. z is not known, but its unbiased estimate ẑ
//! is ([`Correctness`]), and that is all the constraint needs: the expected number of correct mentions per caption,
//! R = E[Σ ẑ], each category of a caption counted once. q* follows the surplus e = R/R₀ − 1 by dual ascent with a
//! proportional part (Stooke, Achiam and Abbeel 2020, arXiv 2007.03964): naming more than the base model raises what a
//! mention must be sure of, naming less lowers it.
//!
//! R and R₀ are measured on the same images of the iteration, captioned greedily with the adapter on and off, so that
//! what both name (the same name with the same score) cancels, and only what changed contributes noise.
//!
//! Bias. The class means behind ẑ were taken over the base model's mentions. What the base model never names is scored lower
//! than what it half sees, so that new hallucinations count below 0 and new names cannot buy surplus. Objects that are hard to
//! see score low and count below 1, whether the policy starts or stops naming them: where an encoder errs alike on like
//! images, a loss of hard objects is underestimated. [`RecallConfig::margin`] allows for that; where labels exist the guard
//! compares. Repeated mentions count nothing.

use std::collections::BTreeSet;

use fisao_verifier::calibration::Correctness;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::mentions::ScoredResponse;
use crate::ranges::{COUNTS, ZERO_OR_MORE, not_negative, real, within};

/// Standard error of one measured surplus up to which it counts in full; a less certain one counts less, in proportion.
const CERTAIN: f64 = 0.03;

/// Correct mentions per caption of the base model below which there is nothing to hold the policy to.
const LEAST_BASE: f64 = 0.05;

/// Standard deviation of the estimated correctness of one mention from which on the margin counts in full.
const NOISY: f64 = 0.4;

/// Fraction of a new measurement in a running mean.
const SMOOTHING: f64 = 0.25;

/// Weight of the newest of so many measurements in their running mean: a plain mean at first, then over about the last four.
pub(crate) fn newest_weight(measurements: usize) -> f64 {
    SMOOTHING.max(1.0 / measurements.max(1) as f64)
}

/// The `[recall]` table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RecallConfig {
    /// Move the break-even precision so that the estimated number of correct mentions stays at the base model's. Acts on
    /// the corrected reward, of responses that the policy samples. Default true.
    pub constraint: bool,
    /// Iterations between two measurements, which caption the iteration's images greedily with the adapter on and off.
    /// Default 1.
    pub every: usize,
    /// Surplus over the base model's number of correct mentions that is aimed at, a fraction of it; negative allows a loss. An
    /// estimate by an encoder that errs alike on like images is optimistic by some per cent; with one that hardly errs, of a
    /// noise below 0.4, less is aimed at, in proportion. Default 0.03.
    pub margin: f64,
    /// Change of logit q* per measurement and unit of relative surplus beyond the margin. Default 0.5.
    pub gain: f64,
    /// Change of logit q* per unit of the running surplus beyond the margin, which damps the above. Default 12.
    pub damping: f64,
    /// Lowest q*. Default 0.2.
    #[serde(alias = "least")]
    pub min_break_even: f64,
    /// Highest q*. Default 0.9.
    #[serde(alias = "most")]
    pub max_break_even: f64,
}

impl Default for RecallConfig {
    fn default() -> Self {
        Self {
            constraint: true,
            every: 1,
            margin: 0.03,
            gain: 0.5,
            damping: 12.0,
            min_break_even: 0.2,
            max_break_even: 0.9,
        }
    }
}

impl RecallConfig {
    /// The same for a verifier of this [noise](Correctness::noise).
    #[must_use]
    pub fn for_noise(self, noise: f64) -> Self {
        Self { margin: self.margin * (noise / NOISY).min(1.0), ..self }
    }

    pub(crate) fn validate(&self) -> Result<(), AlignError> {
        within("recall.every", self.every, 1..=*COUNTS.end())?;
        let fraction = |x: f64| x > -1.0 && x < 1.0;
        real("recall.margin", self.margin, fraction, "above -1 and below 1")?;
        real("recall.gain", self.gain, not_negative, ZERO_OR_MORE)?;
        real("recall.damping", self.damping, not_negative, ZERO_OR_MORE)?;
        let inside = |x: f64| x > 0.0 && x < 1.0;
        real("recall.min-break-even", self.min_break_even, inside, "above 0 and below 1")?;
        let above = |x: f64| inside(x) && x >= self.min_break_even;
        real(
            "recall.max-break-even",
            self.max_break_even,
            above,
            "at least recall.min-break-even and below 1",
        )
    }
}

/// Σ ẑ over the first mention of each category: an unbiased estimate of how many categories a caption names correctly.
pub fn expected_correct(caption: &ScoredResponse, correctness: &Correctness) -> f64 {
    let mut named = BTreeSet::new();
    let mentions = caption.mentions.iter().zip(&caption.scores);
    mentions
        .filter(|(mention, _)| named.insert(mention.category))
        .map(|(_, &score)| correctness.estimate(score))
        .sum()
}

/// Expected correct mentions and lengths on the same images, of policy and base model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedCounts {
    /// Images.
    pub images: usize,
    /// Per caption of the policy.
    pub policy: f64,
    /// Per caption of the base model.
    pub base: f64,
    /// Standard error of the difference of the two.
    pub error: f64,
    /// Tokens per caption of the policy.
    pub policy_length: f64,
    /// Tokens per caption of the base model.
    pub base_length: f64,
}

impl PairedCounts {
    /// Compares captions image by image.
    ///
    /// # Panics
    /// The two are not equally many, or none.
    pub fn new(
        policy: &[ScoredResponse],
        base: &[ScoredResponse],
        correctness: &Correctness,
    ) -> Self {
        assert_eq!(policy.len(), base.len(), "one caption of each per image");
        assert!(!policy.is_empty(), "no captions to compare");
        let length = |captions: &[ScoredResponse]| {
            let tokens: usize = captions.iter().map(|caption| caption.tokens.len()).sum();
            tokens as f64 / captions.len() as f64
        };
        let (policy_length, base_length) = (length(policy), length(base));
        let of = |captions: &[ScoredResponse]| -> Vec<f64> {
            captions.iter().map(|caption| expected_correct(caption, correctness)).collect()
        };
        let (policy, base) = (of(policy), of(base));
        let images = policy.len();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / images as f64;
        let differences: Vec<f64> = policy.iter().zip(&base).map(|(a, b)| a - b).collect();
        let error = standard_error(&differences);
        let (policy, base) = (mean(&policy), mean(&base));
        Self { images, policy, base, error, policy_length, base_length }
    }
}

/// Standard error of the mean of some values; 0 of fewer than two.
pub(crate) fn standard_error(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (count - 1.0) / count).sqrt()
}

/// The multiplier and what it has seen; part of a run's state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecallController {
    /// logit q*, but for its damping.
    integral: f64,
    /// Base model's correct mentions, summed over images.
    base_sum: f64,
    /// Images measured.
    images: usize,
    /// Running relative surplus.
    surplus: f64,
    /// Running variance of one measurement of it.
    variance: f64,
    /// Measurements so far.
    measurements: usize,
}

/// What the constraint knows after a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecallEstimate {
    /// R/R₀ − 1, smoothed over about the last four measurements.
    pub surplus: f64,
    /// Its standard error.
    pub error: f64,
}

impl RecallController {
    /// Starts at a break-even precision.
    pub fn new(break_even: f64) -> Self {
        Self {
            integral: logit(break_even),
            base_sum: 0.0,
            images: 0,
            surplus: 0.0,
            variance: 0.0,
            measurements: 0,
        }
    }

    /// Whether all its values are finite.
    pub(crate) fn is_finite(&self) -> bool {
        [self.integral, self.base_sum, self.surplus, self.variance].iter().all(|x| x.is_finite())
    }

    /// Takes a measurement in.
    pub fn observe(&mut self, counts: &PairedCounts, config: &RecallConfig) {
        self.base_sum += counts.base * counts.images as f64;
        self.images += counts.images;
        // R₀ over all images seen, so that its own noise dies away.
        let base = self.base_sum / self.images as f64;
        if base < LEAST_BASE {
            return;
        }
        let surplus = (counts.policy - counts.base) / base;
        let error = counts.error / base;
        self.measurements += 1;
        let fraction = newest_weight(self.measurements);
        self.surplus += fraction * (surplus - self.surplus);
        self.variance += fraction * (error * error - self.variance);
        let certainty = CERTAIN / error.max(CERTAIN);
        self.integral += config.gain * certainty * (surplus - config.margin);
        // Beyond the bounds there is nothing to gain: held there, it comes back as soon as the sign changes.
        self.integral =
            self.integral.clamp(logit(config.min_break_even), logit(config.max_break_even));
    }

    /// q* now.
    pub fn break_even(&self, config: &RecallConfig) -> f64 {
        if self.measurements == 0 {
            return sigmoid(self.integral).clamp(config.min_break_even, config.max_break_even);
        }
        let error = self.variance.sqrt().max(CERTAIN);
        let damped =
            self.integral + config.damping * CERTAIN / error * (self.surplus - config.margin);
        sigmoid(damped).clamp(config.min_break_even, config.max_break_even)
    }

    /// The running surplus with its error.
    pub fn estimate(&self) -> RecallEstimate {
        // Weights of a running mean with weight a: variance a/(2 − a) of one measurement's.
        let fraction = newest_weight(self.measurements);
        let effective = if fraction > SMOOTHING { fraction } else { SMOOTHING / (2.0 - SMOOTHING) };
        RecallEstimate { surplus: self.surplus, error: (self.variance * effective).sqrt() }
    }
}

fn logit(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln()
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use fisao_models::generation::FinishReason;
    use fisao_verifier::calibration::{Statistic, fit_annotated};
    use fisao_verifier::mentions::TokenMention;

    use super::*;

    fn counts(policy: f64, error: f64) -> PairedCounts {
        let (policy_length, base_length) = (40.0, 40.0);
        PairedCounts { images: 64, policy, base: 3.0, error, policy_length, base_length }
    }

    const NO_MARGIN: RecallConfig = RecallConfig {
        constraint: true,
        every: 1,
        margin: 0.0,
        gain: 0.5,
        damping: 10.0,
        min_break_even: 0.2,
        max_break_even: 0.9,
    };

    fn after(measured: &[PairedCounts], config: &RecallConfig) -> f64 {
        let mut controller = RecallController::new(0.5);
        for counts in measured {
            controller.observe(counts, config);
        }
        controller.break_even(config)
    }

    /// Before anything was measured nothing moves, whatever the margin.
    #[test]
    fn surplus_raises_the_break_even_precision_and_shortfall_lowers_it() {
        assert!((after(&[], &RecallConfig::default()) - 0.5).abs() < 1e-12);
        assert!((after(&[counts(3.0, 0.01); 9], &NO_MARGIN) - 0.5).abs() < 1e-12);
        assert!(after(&[counts(3.1, 0.01); 9], &NO_MARGIN) > 0.57);
        assert!(after(&[counts(2.9, 0.01); 9], &NO_MARGIN) < 0.43);
    }

    /// One measurement of +10 %: logit q* = 0.5 · 0.1 + 10 · 0.1.
    #[test]
    fn first_measurement_moves_break_even_by_gain_and_damping() {
        let found = after(&[counts(3.3, 0.0)], &NO_MARGIN);
        assert!((logit(found) - 1.05).abs() < 1e-9, "{found}");
    }

    #[test]
    fn uncertain_measurements_move_break_even_less() {
        let (sure, unsure) =
            (after(&[counts(3.3, 0.05)], &NO_MARGIN), after(&[counts(3.3, 0.9)], &NO_MARGIN));
        assert!(sure > unsure && unsure > 0.5, "{sure} {unsure}");
    }

    #[test]
    fn break_even_stays_within_bounds_without_windup() {
        let config = RecallConfig { damping: 0.0, ..NO_MARGIN };
        let mut controller = RecallController::new(0.5);
        for _ in 0..500 {
            controller.observe(&counts(6.0, 0.01), &config);
        }
        assert!((controller.break_even(&config) - config.max_break_even).abs() < 1e-12);
        controller.observe(&counts(2.0, 0.01), &config);
        assert!(controller.break_even(&config) < config.max_break_even);
    }

    #[test]
    fn break_even_is_unchanged_when_base_model_names_no_object() {
        for policy in [0.0, 2.0] {
            let counts = PairedCounts { base: 0.0, ..counts(policy, 0.1) };
            assert!((after(&[counts], &RecallConfig::default()) - 0.5).abs() < 1e-12);
        }
    }

    #[test]
    fn recall_margin_is_reduced_for_low_verifier_noise() {
        let config = RecallConfig { margin: 0.04, ..NO_MARGIN };
        for (noise, margin) in [(0.0, 0.0), (0.1, 0.01), (0.4, 0.04), (2.6, 0.04)] {
            assert!((config.for_noise(noise).margin - margin).abs() < 1e-12, "{noise}");
        }
    }

    /// A tenth less is what this margin aims at.
    #[test]
    fn recall_margin_sets_the_target_surplus() {
        let config = RecallConfig { margin: -0.1, ..NO_MARGIN };
        assert!((after(&[counts(2.7, 0.0)], &config) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn expected_correct_counts_each_category_once() {
        let scores: Vec<f64> = (0..40).map(|at| f64::from(at % 2) + 0.01 * f64::from(at)).collect();
        let correct: Vec<bool> = (0..40).map(|at| at % 2 == 1).collect();
        let calibration = fit_annotated(&scores, &correct).unwrap();
        let correctness = Correctness::new(&calibration, Statistic::Score).unwrap();
        let caption = |named: &[(usize, f64)]| {
            let mention = |&(category, _): &(usize, f64)| TokenMention {
                category,
                form: String::new(),
                text: String::new(),
                span: 0..1,
                tokens: 0..1,
                negated: false,
                description: None,
            };
            ScoredResponse {
                task: 0,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                finish: FinishReason::Stop,
                text: String::new(),
                negated: 0,
                mentions: named.iter().map(mention).collect(),
                scores: named.iter().map(|&(_, score)| score).collect(),
            }
        };
        let count = |named: &[(usize, f64)]| expected_correct(&caption(named), &correctness);
        let once = count(&[(0, 1.1), (1, 0.9)]);
        assert!((count(&[(0, 1.1), (1, 0.9), (0, 1.3), (1, 1.2), (0, 1.1)]) - once).abs() < 1e-12);
        assert!(count(&[(0, 1.1), (1, 0.9), (2, 1.3)]) > once + 0.5);
    }
}
