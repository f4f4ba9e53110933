//! What a reward of mentions is worth with a verifier of a given AUC: binormal scores.
//!
//! ```text
//! s | correct ~ N(d′/2, 1)       s | hallucinated ~ N(−d′/2, 1)       AUC = Φ(d′/√2)
//! ```
//!
//! With m₊ and m₋ the mean reward of correct and of hallucinated mentions, a policy that is right with probability p expects
//! p m₊ + (1 − p) m₋ from a mention: it pays above the break-even precision q = −m₋/(m₊ − m₋), which is 0 where every mention
//! pays and above 1 where none does. The bias of a form is the distance of q from what was meant, its variance within the classes in
//! units of (m₊ − m₋)² says how many captions it takes.
//!
//! The corrected form is Natarajan et al., *Learning with Noisy Labels*, NIPS 2013, and Wang, Liu & Li, arXiv 1810.01032, with a
//! score in place of a flipped label; the threshold form is ours after the paper's description (arXiv 2410.14148); the analysis is ours.

use crate::normal::{cumulative, d_prime, density, expectation};

/// The verifier's scores on a model's mentions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binormal {
    /// d′ ≥ 0, distance of the means in standard deviations.
    pub d_prime: f64,
    /// π, fraction of the mentions that are correct, (0, 1).
    pub correct_fraction: f64,
}

/// A reward as a function of the score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// s − τ.
    Plain {
        /// τ.
        threshold: f64,
    },
    /// 1 above τ, −1 below.
    Sign {
        /// τ.
        threshold: f64,
    },
    /// min(s − τ₊, r) above τ₊ = d′/2 − λ, max(s − τ₋, −r) below τ₋ = −d′/2 + λ, else 0; 0 ≤ λ ≤ d′/2.
    Threshold {
        /// λ.
        margin: f64,
        /// r > 0.
        limit: f64,
    },
    /// logit p(s) − logit p*.
    LogOdds {
        /// p* in (0, 1).
        target: f64,
    },
    /// (s + d′/2)/d′ − q*.
    CorrectedScore {
        /// q* in (0, 1).
        break_even: f64,
    },
    /// (1\[s > τ\] − FPR)/(TPR − FPR) − q*.
    CorrectedLabel {
        /// τ.
        threshold: f64,
        /// q* in (0, 1).
        break_even: f64,
    },
    /// (p(s) − p̄₋)/(p̄₊ − p̄₋) − q*.
    CorrectedPosterior {
        /// q* in (0, 1).
        break_even: f64,
    },
}

/// Mean and variance of a reward in one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Variance.
    pub variance: f64,
}

/// Moments of a reward in both classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassMoments {
    /// Of correct mentions.
    pub correct: Moments,
    /// Of hallucinated mentions.
    pub hallucinated: Moments,
}

/// ln(p/(1 − p)), p in (0, 1).
pub fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// 1/(1 + exp(−x)), the inverse of [`logit`].
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Binormal {
    /// Of a verifier with this AUC in (½, 1).
    pub fn with_auc(auc: f64, correct_fraction: f64) -> Self {
        Self { d_prime: d_prime(auc), correct_fraction }
    }

    /// p(s) = P(correct | s): logit p(s) = d′ s + logit π.
    pub fn posterior(&self, score: f64) -> f64 {
        sigmoid(self.d_prime * score + logit(self.correct_fraction))
    }

    /// E[p(s) | correct] and E[p(s) | hallucinated].
    pub fn posterior_means(&self) -> (f64, f64) {
        let at = |mean: f64| expectation(mean, |score| self.posterior(score));
        (at(0.5 * self.d_prime), at(-0.5 * self.d_prime))
    }

    /// The reward as a function of the score.
    pub fn reward(self, form: Form) -> impl Fn(f64) -> f64 {
        let half = 0.5 * self.d_prime;
        // E f over correct and over hallucinated mentions, for the forms that are corrected.
        let (right, wrong) = match form {
            Form::CorrectedLabel { threshold, .. } => {
                (cumulative(half - threshold), cumulative(-half - threshold))
            }
            Form::CorrectedPosterior { .. } => self.posterior_means(),
            _ => (half, -half),
        };
        let corrected = move |f: f64, break_even: f64| (f - wrong) / (right - wrong) - break_even;
        move |score| match form {
            Form::Plain { threshold } => score - threshold,
            Form::Sign { threshold } => (score - threshold).signum(),
            Form::Threshold { margin, limit } => {
                let reward = (score - (half - margin)).clamp(0.0, limit);
                reward + (score - (margin - half)).clamp(-limit, 0.0)
            }
            Form::LogOdds { target } => logit(self.posterior(score)) - logit(target),
            Form::CorrectedScore { break_even } => corrected(score, break_even),
            Form::CorrectedLabel { threshold, break_even } => {
                corrected(f64::from(score > threshold), break_even)
            }
            Form::CorrectedPosterior { break_even } => corrected(self.posterior(score), break_even),
        }
    }

    /// Mean and variance of a reward in both classes: in closed form, for the posterior with one integral.
    pub fn moments(&self, form: Form) -> ClassMoments {
        let half = 0.5 * self.d_prime;
        let of = |mean: f64| self.class_moments(form, mean);
        ClassMoments { correct: of(half), hallucinated: of(-half) }
    }

    /// Mean and variance of a reward where scores are N(mean, 1).
    pub fn class_moments(&self, form: Form, mean: f64) -> Moments {
        let half = 0.5 * self.d_prime;
        match form {
            Form::Plain { threshold } => Moments { mean: mean - threshold, variance: 1.0 },
            Form::Sign { threshold } => {
                let above = cumulative(mean - threshold);
                Moments { mean: 2.0 * above - 1.0, variance: 4.0 * above * (1.0 - above) }
            }
            Form::Threshold { margin, limit } => {
                assert!(margin <= half, "a margin is at most half the distance of the means");
                // The two parts are never both different from 0, so that their squares add up.
                let (up, up_square) = censored(mean - (half - margin), limit);
                let (down, down_square) = censored((margin - half) - mean, limit);
                let mean = up - down;
                Moments { mean, variance: up_square + down_square - mean * mean }
            }
            Form::LogOdds { target } => Moments {
                mean: self.d_prime * mean + logit(self.correct_fraction) - logit(target),
                variance: self.d_prime.powi(2),
            },
            Form::CorrectedScore { break_even } => Moments {
                mean: (mean + half) / self.d_prime - break_even,
                variance: self.d_prime.powi(-2),
            },
            Form::CorrectedLabel { threshold, break_even } => {
                let (right, wrong) = (cumulative(half - threshold), cumulative(-half - threshold));
                let above = cumulative(mean - threshold);
                Moments {
                    mean: (above - wrong) / (right - wrong) - break_even,
                    variance: above * (1.0 - above) / (right - wrong).powi(2),
                }
            }
            Form::CorrectedPosterior { break_even } => {
                let (right, wrong) = self.posterior_means();
                let first = expectation(mean, |score| self.posterior(score));
                let second = expectation(mean, |score| self.posterior(score).powi(2));
                Moments {
                    mean: (first - wrong) / (right - wrong) - break_even,
                    variance: (second - first * first) / (right - wrong).powi(2),
                }
            }
        }
    }
}

/// E y and E y² for y = clamp(x, 0, c), x ~ N(m, 1), c > 0:
///
/// ```text
/// E y  = h(m) − h(m − c)                        h(m) = E x⁺    = m Φ(m) + φ(m)
/// E y² = g(m) − g(m − c) − 2 c h(m − c)         g(m) = E (x⁺)² = (m² + 1) Φ(m) + m φ(m)
/// ```
pub fn censored(mean: f64, limit: f64) -> (f64, f64) {
    let h = |m: f64| m * cumulative(m) + density(m);
    let g = |m: f64| (m * m + 1.0) * cumulative(m) + m * density(m);
    let beyond = mean - limit;
    (h(mean) - h(beyond), g(mean) - g(beyond) - 2.0 * limit * h(beyond))
}

impl ClassMoments {
    /// q = −m₋/(m₊ − m₋).
    pub fn break_even(&self) -> f64 {
        -self.hallucinated.mean / (self.correct.mean - self.hallucinated.mean)
    }

    /// (π Var₊ + (1 − π) Var₋)/(m₊ − m₋)²: what a verifier's errors add to the variance of an estimate of correctness.
    pub fn relative_variance(&self, correct_fraction: f64) -> f64 {
        let within = correct_fraction * self.correct.variance
            + (1.0 - correct_fraction) * self.hallucinated.variance;
        within / (self.correct.mean - self.hallucinated.mean).powi(2)
    }
}

/// AUC below which the log-odds form makes silence the best policy, for π < p*: at a lower one even a correct mention loses.
///
/// ```text
/// E[r | correct] = d′²/2 + logit π − logit p* = 0   ⇒   AUC = Φ(√(logit p* − logit π))
/// ```
pub fn silence_auc(correct_fraction: f64, target: f64) -> f64 {
    cumulative((logit(target) - logit(correct_fraction)).max(0.0).sqrt())
}
