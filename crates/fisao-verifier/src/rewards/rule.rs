//! A reward configuration resolved against a calibration.

use super::formula::{Formula, in_range};
use super::{PenaltyWeight, Placement, RewardConfig, RewardError};
use crate::calibration::{Calibration, ProbabilityModel};

/// Cells of the midpoint rule per Gaussian, and how many standard deviations they cover.
const QUADRATURE_CELLS: usize = 4096;
const QUADRATURE_REACH: f64 = 8.0;

/// What the rule pays where the verifier is in two minds.
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
        let RewardConfig { truncated_penalty, repetition_penalty, .. } = *config;
        for (setting, penalty) in
            [("truncated-penalty", truncated_penalty), ("repetition-penalty", repetition_penalty)]
        {
            in_range(setting, penalty, penalty >= 0.0, "a finite number ≥ 0")?;
        }
        let mut rule = Self {
            formula: Formula::new(&config.form, calibration)?,
            placement: config.placement,
            penalty_weight: 1.0,
            repetition_penalty,
            truncated_penalty,
            calibration: calibration.clone(),
        };
        rule.check_boundary()?;
        rule.penalty_weight = match config.penalty_weight {
            PenaltyWeight::Balanced => rule.least_penalty_weight().max(1.0),
            PenaltyWeight::Fixed(weight) => {
                in_range("penalty-weight", weight, weight >= 0.0, "a finite number ≥ 0")?;
                weight
            }
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
    pub fn unit_reward(&self, score: f64) -> f64 {
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

    /// What the rule pays where the verifier is in two minds.
    pub fn boundary(&self) -> Boundary {
        let score = self.even_odds();
        Boundary {
            score,
            reward: score.map_or(0.0, |score| self.unit_reward(score)),
            expected: self.expected_reward(0.5),
            least_penalty_weight: self.least_penalty_weight(),
        }
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
        let width = 2.0 * QUADRATURE_REACH / QUADRATURE_CELLS as f64;
        let (mut gain, mut loss) = (0.0, 0.0);
        for (share, mean, deviation) in classes {
            for cell in 0..QUADRATURE_CELLS {
                let z = (cell as f64 + 0.5) * width - QUADRATURE_REACH;
                let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let reward = self.formula.reward(mean + z * deviation, c);
                gain += share * density * width * reward.max(0.0);
                loss += share * density * width * (-reward).max(0.0);
            }
        }
        (gain, loss)
    }
}
