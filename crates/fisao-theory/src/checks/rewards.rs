//! Checks of [`crate::rewards`].

use crate::comparison::{Check, Facts, Origin, Topic};
use crate::estimate::{bisect, mean, mean_and_variance};
use crate::normal::{auc, d_prime};
use crate::random::{Noise, Stream};
use crate::rewards::{Binormal, ClassMoments, Form, Moments, logit, silence_auc};

/// Mentions per class and batch.
const MENTIONS: usize = 30_000;
/// Fraction of correct mentions: that of the built-in clear dataset, rounded.
pub(super) const CORRECT: f64 = 0.8;
/// AUCs along a curve.
const AUCS: &[f64] = &[0.6, 0.7, 0.8, 0.9, 0.95];
/// Target precision p* of the log-odds form.
const TARGET: f64 = 0.9;
/// Break-even precision q* of the corrected forms.
pub(super) const BREAK_EVEN: f64 = 0.5;

pub(super) const fn facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        name,
        topic: Topic::WeakVerifier,
        what,
        formula,
        origin: Origin::Ours,
        source: "docs/src/theory.md",
        parameter: "AUC of the verifier",
        assumptions: &[
            "scores are normal in both classes, with equal variances",
            "class means are those of the policy's own mentions",
        ],
    }
}

/// The threshold form as `reward.form` has it by default: a margin of 0.3 of the distance, a limit.
fn threshold_form(model: Binormal) -> Form {
    Form::Threshold { margin: 0.3 * model.d_prime, limit: 1.0 }
}

/// Scores of one class: mean, and noise of variance 1.
pub(super) fn simulated(
    model: Binormal,
    form: Form,
    noise: Noise,
    stream: &mut Stream,
) -> ClassMoments {
    let reward = model.reward(form);
    let mut class = |at: f64| {
        let (mean, variance) = mean_and_variance(MENTIONS, || reward(at + stream.noise(noise)));
        Moments { mean, variance }
    };
    let half = 0.5 * model.d_prime;
    ClassMoments { correct: class(half), hallucinated: class(-half) }
}

pub(super) fn auc_of_scores(seed: u64) -> Check {
    let facts = Facts {
        parameter: "d′, distance of the mean scores, standard deviations",
        origin: Origin::Known,
        source: "Green & Swets 1966",
        ..facts(
            "verifier-auc",
            "Probability that a correct mention outscores a hallucinated one",
            "Φ(d′/√2)",
        )
    };
    facts.check(seed, (&[0.5, 1.0, 1.5, 2.0, 3.0], 1), auc, |d_prime, stream| {
        mean(MENTIONS, || f64::from(d_prime + stream.normal() > stream.normal()))
    })
}

pub(super) fn break_even_of_threshold(seed: u64) -> Check {
    let facts = Facts {
        assumptions: &["scores are normal in both classes, with equal variances"],
        ..facts(
            "threshold-break-even",
            "Precision above which a mention pays under the threshold form, where scores are 0.3 standard deviations higher than calibrated",
            "−m₋/(m₊ − m₋), m± = h(x₊) − h(x₊ − r) − h(x₋) + h(x₋ − r), h(x) = x Φ(x) + φ(x)",
        )
    };
    let at = |auc: f64| Binormal::with_auc(auc, CORRECT);
    facts.check(
        seed,
        (AUCS, 2),
        |auc| threshold_break_even(at(auc)),
        |auc, stream| simulated_threshold_break_even(at(auc), Noise::Gaussian, stream),
    )
}

/// Standard deviations by which all scores are higher than in the calibration: without, the answer would be ½ by symmetry.
const SHIFT: f64 = 0.3;

/// Break-even precision of the threshold form.
pub(super) fn threshold_break_even(model: Binormal) -> f64 {
    let (form, half) = (threshold_form(model), 0.5 * model.d_prime);
    let of = |mean: f64| model.class_moments(form, mean + SHIFT);
    ClassMoments { correct: of(half), hallucinated: of(-half) }.break_even()
}

/// The same of simulated scores.
pub(super) fn simulated_threshold_break_even(
    model: Binormal,
    noise: Noise,
    stream: &mut Stream,
) -> f64 {
    let (reward, half) = (model.reward(threshold_form(model)), 0.5 * model.d_prime);
    let mut class = |at: f64| mean(MENTIONS, || reward(at + SHIFT + stream.noise(noise)));
    let (right, wrong) = (class(half), class(-half));
    -wrong / (right - wrong)
}

pub(super) fn break_even_of_log_odds(seed: u64) -> Check {
    let facts = facts(
        "log-odds-break-even",
        "Precision above which a mention pays under the log-odds form, p* = 0.9, π = 0.8: above 1 none does",
        "½ + (logit p* − logit π)/d′²",
    );
    let form = Form::LogOdds { target: TARGET };
    facts.check(
        seed,
        (AUCS, 2),
        |x| 0.5 + (logit(TARGET) - logit(CORRECT)) / d_prime(x).powi(2),
        |x, stream| {
            simulated(Binormal::with_auc(x, CORRECT), form, Noise::Gaussian, stream).break_even()
        },
    )
}

pub(super) fn silence(seed: u64) -> Check {
    let facts = Facts {
        parameter: "π, fraction of correct mentions",
        ..facts(
            "log-odds-silence",
            "AUC below which the log-odds form (p* = 0.9) makes silence the best policy",
            "Φ(√(logit p* − logit π))",
        )
    };
    let closed = |correct: f64| silence_auc(correct, TARGET);
    facts.check(seed, (&[0.5, 0.6, 0.7, 0.8, 0.85], 3), closed, |correct, stream| {
        let noise = stream.normals(MENTIONS);
        // Mean reward of correct mentions, on the same noise; it rises with d′.
        let expected = |d_prime: f64| {
            let reward = Binormal { d_prime, correct_fraction: correct }
                .reward(Form::LogOdds { target: TARGET });
            noise.iter().map(|noise| reward(0.5 * d_prime + noise)).sum::<f64>()
        };
        auc(bisect((0.0, 6.0), 30, |d_prime| expected(d_prime) < 0.0))
    })
}

/// Relative variance of a form by the AUC.
fn variance(seed: u64, facts: Facts, form: Form, closed: impl Fn(f64) -> f64) -> Check {
    facts.check(seed, (AUCS, 2), closed, |auc, stream| {
        let model = Binormal::with_auc(auc, CORRECT);
        simulated(model, form, Noise::Gaussian, stream).relative_variance(CORRECT)
    })
}

pub(super) fn variance_of_corrected_score(seed: u64) -> Check {
    let facts = facts(
        "corrected-score-variance",
        "Variance that the verifier's errors add to the estimated correctness of a mention, corrected score",
        "1/d′² = 1/(2 Φ⁻¹(AUC)²)",
    );
    let form = Form::CorrectedScore { break_even: BREAK_EVEN };
    variance(seed, facts, form, |auc| d_prime(auc).powi(-2))
}

pub(super) fn variance_of_corrected_label(seed: u64) -> Check {
    let facts = Facts {
        origin: Origin::Known,
        source: "Natarajan et al., NIPS 2013; Wang, Liu & Li, arXiv 1810.01032",
        ..facts(
            "corrected-label-variance",
            "The same for scores cut at 0 to labels and corrected by their error rates",
            "TPR (1 − TPR)/(TPR − FPR)², TPR = 1 − FPR = Φ(d′/2)",
        )
    };
    let form = Form::CorrectedLabel { threshold: 0.0, break_even: BREAK_EVEN };
    variance(seed, facts, form, |auc| {
        let right = crate::normal::cumulative(0.5 * d_prime(auc));
        right * (1.0 - right) / (2.0 * right - 1.0).powi(2)
    })
}

pub(super) fn variance_of_corrected_posterior(seed: u64) -> Check {
    let facts = facts(
        "corrected-posterior-variance",
        "The same for the corrected posterior, the default reward: the smallest of all functions of the score",
        "π(1 − π)(π(1 − π)/Var p(s) − 1), one integral",
    );
    let form = Form::CorrectedPosterior { break_even: BREAK_EVEN };
    variance(seed, facts, form, |auc| {
        let model = Binormal::with_auc(auc, CORRECT);
        let own = CORRECT * (1.0 - CORRECT);
        // E p² = π E[p | correct], so that Var p = π(1 − π)(p̄₊ − p̄₋).
        let (right, wrong) = model.posterior_means();
        own * (1.0 / (right - wrong) - 1.0)
    })
}
