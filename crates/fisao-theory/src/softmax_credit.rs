//! The same comparison for a softmax policy that picks words.
//!
//! At each of T tokens the policy picks one of V words with probabilities p = softmax(θ_t). K tokens are scored; the estimate of a
//! word's correctness there is z + n with z = 1 for words that are in the image and 0 else, and n of variance 1/d′²: the corrected
//! reward of a verifier with AUC = Φ(d′/√2). The score function is e_a − p, and E‖e_a − p‖² = 1 − ‖p‖².

use crate::estimate::VectorMoments;
use crate::normal;
use crate::random::Stream;

/// The policy and its verifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxPolicy {
    /// T ≥ 1.
    pub tokens: usize,
    /// Every how manieth token is scored, the last always.
    pub spacing: usize,
    /// AUC of the verifier in (½, 1].
    pub auc: f64,
}

/// Probabilities of the words; the first two are in the image.
const WORDS: [f64; 4] = [0.5, 0.3, 0.15, 0.05];
/// Correctness z of the words.
const CORRECT: [f64; 4] = [1.0, 1.0, 0.0, 0.0];

impl SoftmaxPolicy {
    fn is_scored(&self, s: usize) -> bool {
        (self.tokens - 1 - s).is_multiple_of(self.spacing)
    }

    /// Variance of the estimated correctness beyond that of the truth: 1/d′².
    pub fn verifier_variance(&self) -> f64 {
        if self.auc < 1.0 { normal::d_prime(self.auc).powi(-2) } else { 0.0 }
    }

    /// Σ_t tr Var ĝ_t under one reward per response and under one per token (λ = 0), both with the exact baseline z̄:
    ///
    /// ```text
    /// own    = Σ_a p_a ‖e_a − p‖² ((z_a − z̄)² + 1/d′²) − ‖Σ_a p_a (e_a − p)(z_a − z̄)‖²
    /// others = (1 − ‖p‖²)(Var z + 1/d′²)
    /// token     K own
    /// sentence  K own + (T K − K) others
    /// ```
    pub fn variances(&self) -> (f64, f64) {
        let noise = self.verifier_variance();
        let squares: f64 = WORDS.iter().map(|p| p * p).sum();
        let mean: f64 = WORDS.iter().zip(CORRECT).map(|(p, z)| p * z).sum();
        let (mut own, mut variance, mut gradient) = (noise * (1.0 - squares), 0.0, [0.0; 4]);
        for (a, (p, z)) in WORDS.iter().zip(CORRECT).enumerate() {
            let centred = z - mean;
            own += p * (1.0 - 2.0 * p + squares) * centred * centred;
            variance += p * centred * centred;
            for (b, entry) in gradient.iter_mut().enumerate() {
                *entry += p * (f64::from(a == b) - WORDS[b]) * centred;
            }
        }
        own -= gradient.iter().map(|entry| entry * entry).sum::<f64>();
        let (tokens, scored) = (self.tokens as f64, self.tokens.div_ceil(self.spacing) as f64);
        let others = (1.0 - squares) * (variance + noise);
        (scored * own + (tokens * scored - scored) * others, scored * own)
    }

    /// Variance under one reward per response over that under one per token.
    pub fn ratio(&self) -> f64 {
        let (sentence, token) = self.variances();
        sentence / token
    }

    /// The same of `count` sampled responses.
    pub fn simulated_ratio(&self, count: usize, stream: &mut Stream) -> f64 {
        let deviation = self.verifier_variance().sqrt();
        let mean: f64 = WORDS.iter().zip(CORRECT).map(|(p, z)| p * z).sum();
        let (mut sentence, mut token) =
            (VectorMoments::new(4 * self.tokens), VectorMoments::new(4 * self.tokens));
        for _ in 0..count {
            let picked: Vec<usize> = (0..self.tokens).map(|_| stream.index(&WORDS)).collect();
            let rewards: Vec<f64> = (0..self.tokens)
                .map(|s| {
                    if !self.is_scored(s) {
                        return 0.0;
                    }
                    CORRECT[picked[s]] - mean + deviation * stream.normal()
                })
                .collect();
            let total: f64 = rewards.iter().sum();
            let gradient = |advantage: &dyn Fn(usize) -> f64| -> Vec<f64> {
                let entry = |at: usize| {
                    let (t, b) = (at / 4, at % 4);
                    (f64::from(picked[t] == b) - WORDS[b]) * advantage(t)
                };
                (0..4 * self.tokens).map(entry).collect()
            };
            sentence.add(&gradient(&|_| total));
            token.add(&gradient(&|t| rewards[t]));
        }
        sentence.total_variance() / token.total_variance()
    }
}
