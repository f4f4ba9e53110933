//! Variance of the policy-gradient estimate under one reward per response and under one per token: a Gaussian bandit.
//!
//! ```text
//! a_t = θ_t + σ x_t,  x_t ~ N(0, 1)                     t = 1..T, one parameter per token
//! r_s = μ + w σ x_s + κ σ Σ_{u<s} x_u + n_s             at scored tokens s, n_s ~ N(0, σ_n²)
//! ĝ_t = (x_t/σ) A_t,  A_t = Σ_s c_ts (r_s − b_s)        b_s = μ with an exact baseline, else 0
//! c_ts = 1 for all s                                    one reward per response
//! c_ts = λ^(s−t) for s ≥ t, else 0                      rewards per token, GAE(λ)
//! ```
//!
//! With m_t = Σ c_ts (μ − b), q_tu the coefficient of σ x_u in A_t and N_t = Var(Σ_s c_ts n_s), Isserlis' theorem gives
//!
//! ```text
//! E ĝ_t = q_tt        Var ĝ_t = (m_t² + σ² Σ_{u≠t} q_tu² + N_t)/σ² + 2 q_tt²
//! ```
//!
//! All of this is ours: the paper claims that token rewards are better, and its theorem speaks of the loss, not of variance.

use crate::estimate::VectorMoments;
use crate::random::Stream;

/// The bandit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianBandit {
    /// T ≥ 1.
    pub tokens: usize,
    /// Every how manieth token is scored, the last always: K = ⌈T/`spacing`⌉ scored tokens.
    pub spacing: usize,
    /// μ, mean reward of a scored token.
    pub mean_reward: f64,
    /// w, effect of a token on its own reward per unit of the action.
    pub slope: f64,
    /// κ, effect of a token on each later reward.
    pub coupling: f64,
    /// σ > 0.
    pub action_deviation: f64,
    /// `σ_n` ≥ 0, the verifier's noise.
    pub verifier_noise: f64,
    /// Fraction of the noise's variance that all scored tokens of a response have in common, `[0, 1]`.
    pub common_noise: f64,
}

impl Default for GaussianBandit {
    fn default() -> Self {
        Self {
            tokens: 16,
            spacing: 4,
            mean_reward: 0.5,
            slope: 1.0,
            coupling: 0.0,
            action_deviation: 1.0,
            verifier_noise: 1.0,
            common_noise: 0.0,
        }
    }
}

/// How rewards are credited to tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Credit {
    /// The sum of all rewards to every token.
    Sentence,
    /// Rewards at their tokens, λ in `[0, 1]`: 0 credits a token with its own reward alone, 1 with all that follow.
    Token {
        /// λ of GAE, γ = 1.
        lambda: f64,
    },
}

/// A credit and whether rewards are compared with their exact means first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimator {
    /// How rewards are credited.
    pub credit: Credit,
    /// Fraction of the mean reward that the baseline subtracts: 0 without one, 1 for an exact critic.
    pub baseline: f64,
}

impl Estimator {
    /// One reward per response.
    pub fn sentence(baseline: f64) -> Self {
        Self { credit: Credit::Sentence, baseline }
    }

    /// Rewards per token.
    pub fn token(lambda: f64, baseline: f64) -> Self {
        Self { credit: Credit::Token { lambda }, baseline }
    }
}

/// Mean and variance of a gradient estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientMoments {
    /// E ĝ, `[T]`.
    pub mean: Vec<f64>,
    /// Σ_t Var ĝ_t.
    pub variance: f64,
}

impl GaussianBandit {
    /// Whether token s (from 0) is scored.
    pub fn is_scored(&self, s: usize) -> bool {
        (self.tokens - 1 - s).is_multiple_of(self.spacing)
    }

    /// c_ts, 0 where s is not scored.
    fn weight(&self, credit: Credit, t: usize, s: usize) -> f64 {
        match credit {
            _ if !self.is_scored(s) => 0.0,
            Credit::Sentence => 1.0,
            Credit::Token { .. } if s < t => 0.0,
            Credit::Token { lambda } => lambda.powi((s - t) as i32),
        }
    }

    /// Mean and total variance of the gradient estimate of one response.
    pub fn moments(&self, Estimator { credit, baseline }: Estimator) -> GradientMoments {
        let (variance_of_action, noise) =
            (self.action_deviation.powi(2), self.verifier_noise.powi(2));
        let (mut mean, mut variance) = (Vec::with_capacity(self.tokens), 0.0);
        for t in 0..self.tokens {
            let weights: Vec<f64> = (0..self.tokens).map(|s| self.weight(credit, t, s)).collect();
            let sum: f64 = weights.iter().sum();
            let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
            let offset = (1.0 - baseline) * self.mean_reward * sum;
            let noise =
                noise * ((1.0 - self.common_noise) * squares + self.common_noise * sum * sum);
            // From the last token to the first, so that the sum over later rewards grows.
            let (mut later, mut own, mut others) = (0.0, 0.0, 0.0);
            for (u, &weight) in weights.iter().enumerate().rev() {
                let effect = self.slope * weight + self.coupling * later;
                later += weight;
                if u == t {
                    own = effect;
                } else {
                    others += effect * effect;
                }
            }
            mean.push(own);
            variance += (offset * offset + noise) / variance_of_action + others + 2.0 * own * own;
        }
        GradientMoments { mean, variance }
    }

    /// One draw of the score functions x_t/σ and of the centred rewards r_s − b_s, each `[T]`.
    pub fn sample(&self, baseline: f64, stream: &mut Stream) -> (Vec<f64>, Vec<f64>) {
        let actions = stream.normals(self.tokens);
        let (own, common) =
            ((1.0 - self.common_noise).sqrt(), self.common_noise.sqrt() * stream.normal());
        let mut earlier = 0.0;
        let rewards = actions.iter().enumerate().map(|(s, &action)| {
            let noise = self.verifier_noise * (own * stream.normal() + common);
            let centred = (1.0 - baseline) * self.mean_reward;
            let reward =
                centred + self.action_deviation * (self.slope * action + self.coupling * earlier);
            earlier += action;
            if self.is_scored(s) { reward + noise } else { 0.0 }
        });
        let rewards = rewards.collect();
        (actions.iter().map(|action| action / self.action_deviation).collect(), rewards)
    }

    /// Gradient estimates of `count` responses.
    pub fn simulate(
        &self,
        estimator: Estimator,
        count: usize,
        stream: &mut Stream,
    ) -> VectorMoments {
        let mut moments = VectorMoments::new(self.tokens);
        for _ in 0..count {
            let (scores, rewards) = self.sample(estimator.baseline, stream);
            let advantages = advantages(estimator.credit, &rewards);
            let gradient: Vec<f64> = scores.iter().zip(advantages).map(|(g, a)| g * a).collect();
            moments.add(&gradient);
        }
        moments
    }

    /// Variance under one reward per response over that under one per token, both with the exact baseline, κ = 0 and λ = 0:
    ///
    /// ```text
    /// (T (w²σ² + σ_n²) + w²σ²) / (2 w²σ² + σ_n²)
    /// ```
    ///
    /// 1 at T = 1 and linear in T: at least (T + 1)/2, T for a verifier that is all noise, whatever the number of scored tokens.
    pub fn ratio(&self) -> f64 {
        let signal = (self.slope * self.action_deviation).powi(2);
        let noise = self.verifier_noise.powi(2);
        (self.tokens as f64 * (signal + noise) + signal) / (2.0 * signal + noise)
    }

    /// Responses in a batch beyond which one reward per response has the smaller mean squared error: rewards credited to their own
    /// tokens alone (λ = 0) miss κ Σ_{s>t}, a bias that does not average out.
    ///
    /// ```text
    /// N* = (V_sentence − V_token) / ‖E ĝ_sentence − E ĝ_token‖²
    /// ```
    pub fn break_even_batch(&self) -> f64 {
        let sentence = self.moments(Estimator::sentence(1.0));
        let token = self.moments(Estimator::token(0.0, 1.0));
        let bias = sentence.mean.iter().zip(&token.mean).map(|(s, t)| (s - t).powi(2));
        (sentence.variance - token.variance) / bias.sum::<f64>()
    }
}

/// A_t of centred rewards, `[T]`.
pub fn advantages(credit: Credit, rewards: &[f64]) -> Vec<f64> {
    match credit {
        Credit::Sentence => vec![rewards.iter().sum(); rewards.len()],
        Credit::Token { lambda } => {
            let mut advantage = 0.0;
            let backwards = rewards.iter().rev().map(|reward| {
                advantage = reward + lambda * advantage;
                advantage
            });
            let mut found: Vec<f64> = backwards.collect();
            found.reverse();
            found
        }
    }
}
