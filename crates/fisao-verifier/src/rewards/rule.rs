//! A reward configuration resolved against a calibration.

use super::formula::{Formula, check_break_even};
use super::{PenaltyWeight, Placement, RewardConfig, RewardError};
use crate::calibration::{Calibration, ProbabilityModel, gaussian_mean};

/// What the rule pays where a mention is as likely wrong as right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boundary {
    /// Score at which a mention is as likely wrong as right; `None` when every score leans to the
    /// same side.
    pub score: Option<f64>,
    /// Reward at that score; never positive.
    pub reward: f64,
    /// Expected reward of a mention that is as likely wrong as right, over both score
    /// distributions. Positive only under a fixed penalty weight below `least_penalty_weight`.
    pub expected: f64,
    /// κ₋ at which `expected` is 0.
    pub least_penalty_weight: f64,
}

/// Scores at which a rule's reward changes its course; cosine. Absent where the form has none, or no score reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoreMarks {
    /// (τ₊, τ₋): between them a mention earns nothing.
    pub thresholds: Option<(f64, f64)>,
    /// Where the reward reaches its upper bound.
    pub full_reward: Option<f64>,
    /// Where it reaches its lower bound.
    pub full_penalty: Option<f64>,
    /// Where it changes sign.
    pub boundary: Option<f64>,
}

/// A reward configuration checked against, and bound to, a calibration.
#[derive(Clone, Debug)]
pub struct RewardRule {
    pub(super) formula: Formula,
    pub(super) placement: Placement,
    penalty_weight: f64,
    pub(super) repetition_penalty: f64,
    pub(super) truncated_penalty: f64,
    calibration: Calibration,
}

impl RewardRule {
    /// Binds a configuration to a calibration.
    ///
    /// # Errors
    /// A calibration that fails its own checks, a setting out of range, thresholds that cross, or a
    /// combination that rewards undecided mentions or penalises none.
    pub fn new(config: &RewardConfig, calibration: &Calibration) -> Result<Self, RewardError> {
        calibration.validate()?;
        config.validate()?;
        let RewardConfig { truncated_penalty, repetition_penalty, .. } = *config;
        let mut rule = Self {
            formula: Formula::new(&config.form, calibration)?,
            placement: config.placement,
            penalty_weight: 1.0,
            repetition_penalty,
            truncated_penalty,
            calibration: calibration.clone(),
        };
        rule.check_boundary()?;
        let corrected = matches!(rule.formula, Formula::Corrected { .. });
        rule.penalty_weight = match config.penalty_weight {
            PenaltyWeight::Balanced if corrected => 1.0,
            PenaltyWeight::Balanced => rule.least_penalty_weight().max(1.0),
            PenaltyWeight::Fixed(weight) => weight,
        };
        Ok(rule)
    }

    /// κ₋ in force.
    pub fn penalty_weight(&self) -> f64 {
        self.penalty_weight
    }

    /// Whether [`super::Response::sentence_score`] must be given.
    pub fn needs_sentence_score(&self) -> bool {
        matches!(self.formula, Formula::Sentence { .. })
    }

    /// r(s), weighted by κ₋ where negative: what a first mention of this score earns. Never falls
    /// in s, and is continuous.
    pub fn mention_reward(&self, score: f64) -> f64 {
        let reward = self.formula.reward(score, &self.calibration);
        if reward < 0.0 { self.penalty_weight * reward } else { reward }
    }

    /// E r(s) for a mention that is correct with probability `precision`, its score drawn from the
    /// calibrated Gaussian of its class: what naming an object pays a policy that knows no more
    /// than that.
    pub fn expected_reward(&self, precision: f64) -> f64 {
        let (gain, loss) = self.gain_and_loss(precision);
        gain - self.penalty_weight * loss
    }

    /// q*, the policy's own probability of being right from which on naming an object pays: where
    /// `p E[r | correct] + (1 − p) E[r | hallucinated]` changes sign. Above 1 no mention ever pays, and the best policy is
    /// silence; below 0 every mention does.
    pub fn break_even(&self) -> f64 {
        if let Formula::Corrected { break_even, .. } = self.formula {
            return break_even;
        }
        let (right, wrong) = (self.expected_reward(1.0), self.expected_reward(0.0));
        -wrong / (right - wrong)
    }

    /// Moves the break-even precision of the corrected form; the other forms have theirs from their own settings.
    ///
    /// # Errors
    /// [`RewardError::OutOfRange`] unless it lies between 0 and 1.
    pub fn set_break_even(&mut self, precision: f64) -> Result<(), RewardError> {
        check_break_even(precision)?;
        if let Formula::Corrected { break_even, .. } = &mut self.formula {
            *break_even = precision;
        }
        Ok(())
    }

    /// What the rule pays where a mention is as likely wrong as right.
    pub fn boundary(&self) -> Boundary {
        let score = self.even_odds();
        Boundary {
            score,
            reward: score.map_or(0.0, |score| self.mention_reward(score)),
            expected: self.expected_reward(0.5),
            least_penalty_weight: self.least_penalty_weight(),
        }
    }

    /// Score at which the reward of a first mention changes sign, to within rounding; `None` where all scores within ten
    /// standard deviations of the means earn, or all cost.
    pub fn neutral_score(&self) -> Option<f64> {
        let c = &self.calibration;
        let reach = 10.0 * c.sigma_correct.max(c.sigma_hallucinated);
        let (mut low, mut high) = (c.mu_hallucinated - reach, c.mu_correct + reach);
        if self.mention_reward(low) > 0.0 || self.mention_reward(high) <= 0.0 {
            return None;
        }
        // 64 halvings leave nothing of a range of f64 numbers of one magnitude.
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            if self.mention_reward(middle) <= 0.0 { low = middle } else { high = middle }
        }
        Some(high)
    }

    /// Scores at which the reward changes its course, as plots mark them.
    pub fn score_marks(&self) -> ScoreMarks {
        let mut marks = ScoreMarks::default();
        match self.formula {
            Formula::Threshold { tau_plus, tau_minus, .. } => {
                marks.thresholds = Some((tau_plus, tau_minus));
            }
            Formula::LogOdds { target_logit, max, probability } => {
                // Where logit p(s) − logit p* is 0 and ±max.
                let score = |logit: f64| {
                    let odds = (target_logit + logit).exp();
                    self.calibration.score_at(odds / (1.0 + odds), probability)
                };
                marks.boundary = score(0.0);
                (marks.full_reward, marks.full_penalty) = (score(max), score(-max));
            }
            Formula::Corrected { .. } => marks.boundary = self.neutral_score(),
            Formula::Sentence { .. } => marks.boundary = self.even_odds(),
        }
        marks
    }

    fn even_odds(&self) -> Option<f64> {
        let model = match self.formula {
            Formula::LogOdds { probability, .. } => probability,
            _ => ProbabilityModel::Gaussians,
        };
        self.calibration.score_at(0.5, model)
    }

    /// Whether a mention of this score is more likely wrong than right, by more than rounding: at the
    /// largest margin of a symmetric calibration τ₊ *is* the score of even odds.
    fn leans_wrong(&self, score: f64) -> bool {
        self.calibration.logit(score, ProbabilityModel::Gaussians) < -1e-9
    }

    fn check_boundary(&self) -> Result<(), RewardError> {
        match self.formula {
            // The probability never falls in the score, so the lowest one paid decides.
            Formula::Threshold { tau_plus, .. } if self.leans_wrong(tau_plus) => {
                Err(match self.even_odds() {
                    Some(boundary) => {
                        let excess = boundary - tau_plus;
                        RewardError::BoundaryPays { tau_plus, boundary, excess }
                    }
                    None => RewardError::EverythingLeansWrong { tau_plus },
                })
            }
            Formula::LogOdds { .. } if self.gain_and_loss(0.5).1 <= f64::EPSILON => {
                Err(RewardError::NothingPenalised)
            }
            _ => Ok(()),
        }
    }

    fn least_penalty_weight(&self) -> f64 {
        let (gain, loss) = self.gain_and_loss(0.5);
        if gain == 0.0 { 0.0 } else { gain / loss }
    }

    /// Expected positive part and expected negative part (as a positive number, before κ₋) of r(s).
    fn gain_and_loss(&self, precision: f64) -> (f64, f64) {
        let c = &self.calibration;
        let classes = [
            (precision, c.mu_correct, c.sigma_correct),
            (1.0 - precision, c.mu_hallucinated, c.sigma_hallucinated),
        ];
        let (mut gain, mut loss) = (0.0, 0.0);
        for (fraction, mean, deviation) in classes {
            let reward = |z: f64| self.formula.reward(mean + z * deviation, c);
            gain += fraction * gaussian_mean(|z| reward(z).max(0.0));
            loss += fraction * gaussian_mean(|z| (-reward(z)).max(0.0));
        }
        (gain, loss)
    }
}
