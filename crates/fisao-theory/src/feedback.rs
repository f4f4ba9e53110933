//! When feedback from the image lowers the loss: the latent linear-Gaussian model.
//!
//! ```text
//! z ~ N(0, I_k), c ~ N(0, I_m)              latent content of the image, of the context
//! v = U_v z + ξ_v     x = U_x c + ξ_x       U_vᵀU_v = I, U_xᵀU_x = I, ξ_v ~ N(0, σ_v² I), ξ_x ~ N(0, σ_x² I)
//! y* = A z + B c + ε                        ε ~ N(0, σ_ε² I)
//! ŷ = (1 − δ) A U_vᵀ v + B U_xᵀ x + b       the reference policy's mean: it under-uses the image by δ
//! u = W v + ζ n                             the verifier's direction, W = P_yᵀ P_v, n ~ N(0, I)
//! ŷ_η = ŷ + η u                             mean of the KL-regularised optimum, η = 1/β, policy covariance I
//! ```
//!
//! The model is the paper's (arXiv 2410.14148) in the notation of this project; the verifier's noise ζ, the threshold on δ, the
//! step and what depends on the AUC are ours.

use std::f64::consts::{FRAC_PI_2, PI, SQRT_2};

use crate::matrix::{Matrix, dot};
use crate::random::{Noise, Stream};

/// Dimensions k, m of the latents and those of v, x and y in [`FeedbackModel::example`].
const SHAPE: [usize; 5] = [3, 2, 6, 4, 3];

/// The model with all its matrices.
#[derive(Clone, Debug)]
pub struct FeedbackModel {
    /// A, `[y, k]`.
    answer_of_image: Matrix,
    /// B, `[y, m]`.
    answer_of_context: Matrix,
    /// `U_v`, `[v, k]`.
    vision: Matrix,
    /// `U_x`, `[x, m]`.
    text: Matrix,
    /// W, `[y, v]`.
    verifier: Matrix,
    /// b, `[y]`.
    prior: Vec<f64>,
    /// What varies.
    pub setting: FeedbackSetting,
}

/// The scalars of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedbackSetting {
    /// δ, how far the policy under-uses the image, `[0, 1]`.
    pub under_use: f64,
    /// `σ_v` ≥ 0.
    pub vision_noise: f64,
    /// θ, angle between the verifier's matrix and the useful one, radians, `[0, π]`.
    pub angle: f64,
    /// ζ ≥ 0.
    pub verifier_noise: f64,
    /// Mean of each latent of the image; the closed forms take it to be 0.
    pub latent_mean: f64,
}

impl Default for FeedbackSetting {
    fn default() -> Self {
        Self {
            under_use: 0.5,
            vision_noise: 0.3,
            angle: 0.5,
            verifier_noise: 0.2,
            latent_mean: 0.0,
        }
    }
}

/// `σ_x` in [`FeedbackModel::example`].
const TEXT_NOISE: f64 = 0.3;
/// `σ_ε` in [`FeedbackModel::example`].
const ANSWER_NOISE: f64 = 0.3;

impl FeedbackModel {
    /// Matrices drawn once and for all; the verifier's has norm 1 and lies at an angle to A `U_vᵀ`:
    /// W = cos θ Â + sin θ Ô, ⟨Â, Ô⟩ = 0.
    pub fn example(setting: FeedbackSetting) -> Self {
        let mut stream = Stream::new(0, "feedback model", 0);
        let [k, m, v, x, y] = SHAPE;
        let answer_of_image = Matrix::random([y, k], &mut stream).normalised();
        let answer_of_context = Matrix::random([y, m], &mut stream).normalised();
        let vision = Matrix::orthonormal([v, k], &mut stream);
        let text = Matrix::orthonormal([x, m], &mut stream);
        let useful = answer_of_image.times_transposed(&vision).normalised();
        let other = Matrix::random([y, v], &mut stream);
        let other = other.combined(1.0, &useful, -other.inner(&useful)).normalised();
        let verifier = useful.combined(setting.angle.cos(), &other, setting.angle.sin());
        let prior = vec![0.2; y];
        Self { answer_of_image, answer_of_context, vision, text, verifier, prior, setting }
    }

    /// E⟨y* − ŷ, u⟩ = (δ − (1 − δ) σ_v²) ⟨W, A U_vᵀ⟩.
    ///
    /// Feedback lowers the loss for small η exactly where this is positive.
    pub fn agreement(&self) -> f64 {
        let FeedbackSetting { under_use, vision_noise, .. } = self.setting;
        let useful = self.answer_of_image.times_transposed(&self.vision);
        (under_use - (1.0 - under_use) * vision_noise.powi(2)) * self.verifier.inner(&useful)
    }

    /// d/dη E‖y* − `ŷ_η`‖² at η = 0: −2 E⟨y* − ŷ, u⟩.
    pub fn slope(&self) -> f64 {
        -2.0 * self.agreement()
    }

    /// E‖u‖² = ‖W U_v‖² + σ_v² ‖W‖² + ζ² dim y.
    pub fn power(&self) -> f64 {
        let FeedbackSetting { vision_noise, verifier_noise, .. } = self.setting;
        let seen = self.verifier.times_matrix(&self.vision);
        seen.inner(&seen)
            + vision_noise.powi(2) * self.verifier.inner(&self.verifier)
            + verifier_noise.powi(2) * self.prior.len() as f64
    }

    /// E‖y* − ŷ‖² = (δ² + (1 − δ)² σ_v²) ‖A‖² + σ_x² ‖B‖² + σ_ε² dim y + ‖b‖².
    pub fn loss(&self) -> f64 {
        let FeedbackSetting { under_use, vision_noise, .. } = self.setting;
        let seen = under_use.powi(2) + (1.0 - under_use).powi(2) * vision_noise.powi(2);
        seen * self.answer_of_image.inner(&self.answer_of_image)
            + TEXT_NOISE.powi(2) * self.answer_of_context.inner(&self.answer_of_context)
            + ANSWER_NOISE.powi(2) * self.prior.len() as f64
            + dot(&self.prior, &self.prior)
    }

    /// η* = E⟨y* − ŷ, u⟩ / E‖u‖², the step that lowers the loss most; negative where feedback is misleading.
    pub fn best_step(&self) -> f64 {
        self.agreement() / self.power()
    }

    /// (L(0) − L(η*))/L(0) = (E⟨y* − ŷ, u⟩)² / (E‖u‖² E‖y* − ŷ‖²), `[0, 1]`.
    pub fn best_reduction(&self) -> f64 {
        self.agreement().powi(2) / (self.power() * self.loss())
    }

    /// One draw of y* − ŷ, `[y]`, and u, `[y]`.
    pub fn sample(&self, stream: &mut Stream) -> (Vec<f64>, Vec<f64>) {
        let FeedbackSetting { under_use, vision_noise, verifier_noise, latent_mean, .. } =
            self.setting;
        let [k, m, v, x, y] = SHAPE;
        let latent: Vec<f64> = stream.normals(k).iter().map(|z| z + latent_mean).collect();
        let context = stream.normals(m);
        let noisy = |matrix: &Matrix, latent: &[f64], noise: Vec<f64>, size: f64| -> Vec<f64> {
            matrix
                .times(latent)
                .iter()
                .zip(noise)
                .map(|(seen, noise)| seen + size * noise)
                .collect()
        };
        let image = noisy(&self.vision, &latent, stream.normals(v), vision_noise);
        let text = noisy(&self.text, &context, stream.normals(x), TEXT_NOISE);
        let of_latent = self.answer_of_image.times(&latent);
        let of_context = self.answer_of_context.times(&context);
        let read_image = self.answer_of_image.times(&self.vision.transposed_times(&image));
        let read_text = self.answer_of_context.times(&self.text.transposed_times(&text));
        let residual = (0..y).map(|at| {
            let truth = of_latent[at] + of_context[at] + ANSWER_NOISE * stream.normal();
            truth - (1.0 - under_use) * read_image[at] - read_text[at] - self.prior[at]
        });
        let residual: Vec<f64> = residual.collect();
        let direction = noisy(&self.verifier, &image, stream.normals(y), verifier_noise);
        (residual, direction)
    }
}

/// δ₀ = `σ_v`²/(1 + `σ_v`²): a policy that under-uses the image by less is hurt by feedback from it, since reading a noisy image in full
/// is already too much (1 − δ₀ = 1/(1 + `σ_v`²) is the regression coefficient of z on `U_vᵀ v`). `σ_v` ≥ 0. Ours.
pub fn break_even_under_use(vision_noise: f64) -> f64 {
    let variance = vision_noise.powi(2);
    variance / (1.0 + variance)
}

/// AUC of a direction u as a detector of the sign of a residual e, (e, u) Gaussian with mean 0 and correlation ρ in `[−1, 1]`:
///
/// ```text
/// P(u₁ > u₂ | e₁ > 0 > e₂) = ½ + (2/π) asin(ρ/√2)
/// ```
///
/// Ours, by Sheppard's orthant probability for three variables.
pub fn direction_auc(correlation: f64) -> f64 {
    0.5 + 2.0 / PI * (correlation / SQRT_2).asin()
}

/// ρ = √2 sin(π/2 (AUC − ½)), the inverse of [`direction_auc`].
pub fn correlation(auc: f64) -> f64 {
    SQRT_2 * (FRAC_PI_2 * (auc - 0.5)).sin()
}

/// Fraction of E e² that the best step along u removes, as a function of the AUC of u in `[0, 1]`:
///
/// ```text
/// ρ² = 1 − sin(π AUC)
/// ```
///
/// 0 at an AUC of ½, 1 for a perfect verifier, 0.41 at 0.8. Below ½ the step is negative. Ours.
pub fn removable_fraction(auc: f64) -> f64 {
    1.0 - (PI * auc).sin()
}

/// One draw of a scalar residual e and a direction u = e + ζ n of a verifier with noise ζ ≥ 0; corr(e, u) = 1/√(1 + ζ²).
pub fn scalar_sample(verifier_noise: f64, noise: Noise, stream: &mut Stream) -> (f64, f64) {
    let residual = stream.noise(noise);
    (residual, residual + verifier_noise * stream.noise(noise))
}

/// AUC of directions for the sign of residuals, by ranks.
pub fn measured_auc(pairs: &[(f64, f64)]) -> f64 {
    let mut sorted: Vec<(f64, bool)> = pairs.iter().map(|&(e, u)| (u, e > 0.0)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for (_, positive) in sorted {
        if positive {
            wins += below;
        } else {
            below += 1.0;
        }
    }
    wins / (below * (pairs.len() as f64 - below))
}

/// Fraction of the squared residual that the step fitted on the first half of the pairs removes on the second.
pub fn measured_reduction(pairs: &[(f64, f64)]) -> f64 {
    let (fitted, tested) = pairs.split_at(pairs.len() / 2);
    let sum = |pairs: &[(f64, f64)], f: &dyn Fn(f64, f64) -> f64| -> f64 {
        pairs.iter().map(|&(e, u)| f(e, u)).sum()
    };
    let step = sum(fitted, &|e, u| e * u) / sum(fitted, &|_, u| u * u);
    1.0 - sum(tested, &|e, u| (e - step * u).powi(2)) / sum(tested, &|e, _| e * e)
}
