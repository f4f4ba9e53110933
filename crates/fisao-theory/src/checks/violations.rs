//! Simulations that violate an assumption of a closed form: how much it matters.

use crate::comparison::Violation;
use crate::credit::{Estimator, GaussianBandit};
use crate::deletion as frontier;
use crate::estimate::{VectorMoments, mean};
use crate::feedback::removable_fraction;
use crate::kl_estimators::{k2, k2_bias, k3, k3_variance};
use crate::random::{Noise, Stream};
use crate::rewards::{Binormal, Form};
use crate::tilt::gaussian_divergence;

use super::deletion::{D_PRIME, LOST};
use super::kl_estimators::moments;
use super::rewards::{BREAK_EVEN, CORRECT};
use super::{credit, deletion, feedback, rewards, tilt};

const GAUSSIAN: &str = "Gaussian noise";
const LAPLACE: &str = "Laplace noise";
const STUDENT: &str = "Student-t noise, 5 degrees of freedom";
/// AUC that a violation is shown at.
const AUC: f64 = 0.8;

pub(super) fn feedback_laplace(seed: u64) -> Violation {
    reduction(seed, LAPLACE, Noise::Laplace)
}

pub(super) fn feedback_student(seed: u64) -> Violation {
    reduction(seed, STUDENT, Noise::StudentT)
}

fn reduction(seed: u64, instead: &'static str, noise: Noise) -> Violation {
    let words = ("residual and direction are jointly Gaussian", instead);
    Violation::of(seed, "feedback-reduction-by-auc", words, removable_fraction(AUC), |stream| {
        feedback::reduction_at(noise, stream)
    })
}

pub(super) fn feedback_off_centre(seed: u64) -> Violation {
    let words =
        ("latents are centred", "latents of mean 0.3, beside a prior of 0.2 in each answer");
    let predicted = feedback::default_best_step();
    Violation::of(seed, "feedback-best-step", words, predicted, feedback::best_step_off_centre)
}

/// Ratio of variances, exact baselines, where a bandit is not what the closed form takes it to be.
fn ratio(
    seed: u64,
    words: (&'static str, &'static str),
    bandit: GaussianBandit,
    baseline: f64,
) -> Violation {
    let closed = GaussianBandit::default().ratio();
    Violation::of(seed, "credit-length", words, closed, |stream| {
        let (above, below) = (Estimator::sentence(baseline), Estimator::token(0.0, baseline));
        credit::simulated(&bandit, above, below, stream)
    })
}

pub(super) fn credit_common_noise(seed: u64) -> Violation {
    let bandit = GaussianBandit { common_noise: 0.3, ..GaussianBandit::default() };
    let words = (
        "the verifier's errors are independent between words",
        "30 % of their variance is common to the words of a response",
    );
    ratio(seed, words, bandit, 1.0)
}

pub(super) fn credit_coupled(seed: u64) -> Violation {
    let bandit = GaussianBandit { coupling: 0.2, ..GaussianBandit::default() };
    let words = (
        "a token affects its own reward alone",
        "it affects every later reward by a fifth of that; the bias is in credit-break-even-batch",
    );
    ratio(seed, words, bandit, 1.0)
}

pub(super) fn credit_half_a_critic(seed: u64) -> Violation {
    let words = ("the baseline is exact", "the critic predicts half of the mean reward");
    ratio(seed, words, GaussianBandit::default(), 0.5)
}

pub(super) fn credit_shared_parameter(seed: u64) -> Violation {
    let bandit = GaussianBandit::default();
    let words = ("tokens have parameters of their own", "one parameter for all tokens");
    Violation::of(seed, "credit-length", words, bandit.ratio(), |stream| {
        let (mut sentence, mut token) = (VectorMoments::new(1), VectorMoments::new(1));
        for _ in 0..20_000 {
            let (scores, rewards) = bandit.sample(1.0, stream);
            let (score, total) = (scores.iter().sum::<f64>(), rewards.iter().sum::<f64>());
            sentence.add(&[score * total]);
            token.add(&[scores.iter().zip(&rewards).map(|(score, reward)| score * reward).sum()]);
        }
        sentence.total_variance() / token.total_variance()
    })
}

pub(super) fn threshold_laplace(seed: u64) -> Violation {
    threshold(seed, LAPLACE, Noise::Laplace)
}

pub(super) fn threshold_student(seed: u64) -> Violation {
    threshold(seed, STUDENT, Noise::StudentT)
}

fn threshold(seed: u64, instead: &'static str, noise: Noise) -> Violation {
    let model = Binormal::with_auc(AUC, CORRECT);
    let closed = rewards::threshold_break_even(model);
    Violation::of(seed, "threshold-break-even", (GAUSSIAN, instead), closed, |stream| {
        rewards::simulated_threshold_break_even(model, noise, stream)
    })
}

pub(super) fn corrected_score_student(seed: u64) -> Violation {
    let model = Binormal::with_auc(AUC, CORRECT);
    let form = Form::CorrectedScore { break_even: BREAK_EVEN };
    let words = (GAUSSIAN, STUDENT);
    let closed = model.d_prime.powi(-2);
    Violation::of(seed, "corrected-score-variance", words, closed, |stream| {
        rewards::simulated(model, form, Noise::StudentT, stream).relative_variance(CORRECT)
    })
}

pub(super) fn corrected_posterior_student(seed: u64) -> Violation {
    let model = Binormal::with_auc(AUC, CORRECT);
    let form = Form::CorrectedPosterior { break_even: BREAK_EVEN };
    let words = ("class means of p(s) under normal scores (break-even precision 0.5)", STUDENT);
    Violation::of(seed, "corrected-posterior-variance", words, BREAK_EVEN, |stream| {
        rewards::simulated(model, form, Noise::StudentT, stream).break_even()
    })
}

pub(super) fn corrected_drift(seed: u64) -> Violation {
    let model = Binormal::with_auc(AUC, CORRECT);
    let words = (
        "class means are those of the policy's own mentions (break-even precision 0.5)",
        "the remaining hallucinations score 0.3 standard deviations higher",
    );
    Violation::of(seed, "corrected-score-variance", words, BREAK_EVEN, |stream| {
        let reward = model.reward(Form::CorrectedScore { break_even: BREAK_EVEN });
        let half = 0.5 * model.d_prime;
        let mut class = |at: f64| mean(20_000, || reward(at + stream.normal()));
        let (right, wrong) = (class(half), class(0.3 - half));
        -wrong / (right - wrong)
    })
}

pub(super) fn corrected_correlated(seed: u64) -> Violation {
    let model = Binormal::with_auc(AUC, CORRECT);
    let words = (
        "the verifier's errors are independent between words",
        "correlation 0.2 between the 4 words of a caption",
    );
    let closed = model.d_prime.powi(-2);
    Violation::of(seed, "corrected-score-variance", words, closed, |stream| {
        const WORDS: usize = 4;
        let (own, common) = (0.8_f64.sqrt(), 0.2_f64.sqrt());
        let mut means = VectorMoments::new(1);
        for _ in 0..20_000 {
            let shared = common * stream.normal();
            let total: f64 = (0..WORDS).map(|_| shared + own * stream.normal()).sum();
            means.add(&[total / model.d_prime]);
        }
        // Variance per word that independent errors would need for the same variance of the caption's sum.
        means.total_variance() / WORDS as f64
    })
}

pub(super) fn deletion_laplace(seed: u64) -> Violation {
    removed(seed, (GAUSSIAN, LAPLACE), 1.0, Noise::Laplace)
}

pub(super) fn deletion_student(seed: u64) -> Violation {
    removed(seed, (GAUSSIAN, STUDENT), 1.0, Noise::StudentT)
}

pub(super) fn deletion_wider(seed: u64) -> Violation {
    let words = ("equal variances", "scores of hallucinated mentions spread 1.2 times as widely");
    removed(seed, words, 1.2, Noise::Gaussian)
}

fn removed(seed: u64, words: (&'static str, &'static str), spread: f64, noise: Noise) -> Violation {
    let closed = frontier::removed(D_PRIME, LOST);
    Violation::of(seed, "deletion-removed", words, closed, |stream| {
        deletion::simulated((D_PRIME, spread), LOST, noise, stream)
    })
}

pub(super) fn tilt_laplace(seed: u64) -> Violation {
    tilted(seed, "Laplace rewards", |stream| stream.noise(Noise::Laplace))
}

pub(super) fn tilt_skewed(seed: u64) -> Violation {
    // Mostly full reward, sometimes much less: 1 − an exponential variable.
    tilted(seed, "rewards skewed downwards: 1 − an exponential variable", |stream| {
        1.0 + stream.uniform().ln()
    })
}

fn tilted(
    seed: u64,
    instead: &'static str,
    reward: impl Fn(&mut Stream) -> f64 + Sync,
) -> Violation {
    let words = ("rewards of the reference's responses are normal", instead);
    Violation::of(seed, "tilt-divergence", words, gaussian_divergence(1.0, 2.0), |stream| {
        tilt::tilted(0.5, stream, &reward).0
    })
}

/// Log-ratio of Laplace distributions of scale 1 that are `delta` apart, at a sample of the first.
fn laplace_log_ratio(delta: f64, stream: &mut Stream) -> f64 {
    let x = std::f64::consts::SQRT_2 * stream.noise(Noise::Laplace);
    (x + delta).abs() - x.abs()
}

/// Distance of the two, and their KL: Δ + exp(−Δ) − 1.
const DELTA: f64 = 0.7;

fn laplace_divergence() -> f64 {
    DELTA + (-DELTA).exp_m1()
}

const LOG_RATIO: (&str, &str) =
    ("the log-ratio is normal", "policy and reference are Laplace distributions of the same KL");

pub(super) fn k3_laplace(seed: u64) -> Violation {
    Violation::of(seed, "k3-variance", LOG_RATIO, k3_variance(laplace_divergence()), |stream| {
        moments(|| k3(laplace_log_ratio(DELTA, stream))).1
    })
}

pub(super) fn k2_laplace(seed: u64) -> Violation {
    Violation::of(seed, "k2-bias", LOG_RATIO, k2_bias(laplace_divergence()), |stream| {
        moments(|| k2(laplace_log_ratio(DELTA, stream))).0 - laplace_divergence()
    })
}
