//! Checks of [`crate::feedback`].

use std::f64::consts::FRAC_PI_2;

use crate::comparison::{Check, Facts, Origin, Topic};
use crate::estimate::{bisect, mean};
use crate::feedback::{
    self, FeedbackModel, FeedbackSetting, break_even_under_use, correlation, measured_auc,
    measured_reduction, removable_fraction, scalar_sample,
};
use crate::matrix::dot;
use crate::random::{Noise, Stream};

/// Draws per batch.
const DRAWS: usize = 8_000;
/// What each formula of the vector model takes for granted.
const ASSUMED: &[&str] = &[
    "latents, noise and answers are jointly Gaussian",
    "latents are centred and independent, context of image",
    "the verifier's noise is independent of the answer",
];

const fn facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        name,
        topic: Topic::Feedback,
        what,
        formula,
        origin: Origin::Ours,
        source: "docs/src/theory.md; the model is that of arXiv 2410.14148",
        parameter: "",
        assumptions: ASSUMED,
    }
}

fn model(change: impl FnOnce(&mut FeedbackSetting)) -> FeedbackModel {
    let mut setting = FeedbackSetting::default();
    change(&mut setting);
    FeedbackModel::example(setting)
}

/// E‖y* − ŷ − η u‖² at three steps, on the same draws.
fn losses(model: &FeedbackModel, steps: [f64; 3], stream: &mut Stream) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for _ in 0..DRAWS {
        let (residual, direction) = model.sample(stream);
        for (sum, step) in sums.iter_mut().zip(steps) {
            let left = residual.iter().zip(&direction).map(|(e, u)| (e - step * u).powi(2));
            *sum += left.sum::<f64>();
        }
    }
    sums.map(|sum| sum / DRAWS as f64)
}

/// Slope at 0 of the loss over the step: a central difference, exact for a parabola.
fn simulated_slope(model: &FeedbackModel, stream: &mut Stream) -> f64 {
    let [low, _, high] = losses(model, [-0.5, 0.0, 0.5], stream);
    high - low
}

pub(super) fn slope(seed: u64) -> Check {
    let facts = Facts {
        parameter: "δ, how far the policy under-uses the image",
        origin: Origin::Paper,
        ..facts(
            "feedback-slope",
            "Slope of the loss at the first step along the verifier's direction; feedback helps where it is negative",
            "−2 (δ − (1 − δ) σ_v²) ⟨W, A U_vᵀ⟩",
        )
    };
    let at = |under_use: f64| model(|setting| setting.under_use = under_use);
    facts.check(
        seed,
        (&[0.0, 0.25, 0.5, 0.75, 1.0], 2),
        |x| at(x).slope(),
        |x, stream| simulated_slope(&at(x), stream),
    )
}

pub(super) fn break_even(seed: u64) -> Check {
    let facts = Facts {
        parameter: "σ_v, noise of the image features",
        ..facts(
            "feedback-break-even",
            "Under-use of the image below which feedback from it raises the loss",
            "δ₀ = σ_v²/(1 + σ_v²)",
        )
    };
    facts.check(
        seed,
        (&[0.25, 0.5, 0.75, 1.0, 1.5], 1),
        break_even_under_use,
        |vision_noise, stream| {
            // The slope is linear in δ: its root follows from the ends.
            let mut at = |under_use: f64| {
                let model = model(|setting| {
                    (setting.under_use, setting.vision_noise) = (under_use, vision_noise);
                });
                simulated_slope(&model, stream)
            };
            let (low, high) = (at(0.0), at(1.0));
            low / (low - high)
        },
    )
}

pub(super) fn best_step(seed: u64) -> Check {
    let facts = Facts {
        parameter: "ζ, noise of the verifier",
        ..facts(
            "feedback-best-step",
            "Step η* = 1/β that lowers the loss most",
            "η* = E⟨y* − ŷ, u⟩ / (‖W U_v‖² + σ_v² ‖W‖² + ζ² dim y)",
        )
    };
    let at = |noise: f64| model(|setting| setting.verifier_noise = noise);
    facts.check(
        seed,
        (&[0.0, 0.2, 0.4, 0.6, 0.8], 2),
        |x| at(x).best_step(),
        |x, stream| {
            // Vertex of the parabola through three losses.
            let [low, middle, high] = losses(&at(x), [-1.0, 0.0, 1.0], stream);
            0.5 * (low - high) / (low - 2.0 * middle + high)
        },
    )
}

pub(super) fn best_reduction(seed: u64) -> Check {
    let facts = Facts {
        parameter: "θ, angle of the verifier's matrix to the useful one, radians",
        ..facts(
            "feedback-best-reduction",
            "Fraction of the loss that the best step removes, for a misaligned and noisy verifier",
            "(E⟨y* − ŷ, u⟩)² / (E‖u‖² E‖y* − ŷ‖²)",
        )
    };
    let at = |angle: f64| model(|setting| setting.angle = angle);
    facts.check(
        seed,
        (&[0.0, 0.4, 0.8, 1.2, FRAC_PI_2], 1),
        |x| at(x).best_reduction(),
        |x, stream| {
            let model = at(x);
            let [before, after, _] = losses(&model, [0.0, model.best_step(), 1.0], stream);
            1.0 - after / before
        },
    )
}

pub(super) fn tilted_mean(seed: u64) -> Check {
    let facts = Facts {
        parameter: "η = 1/β",
        origin: Origin::Paper,
        assumptions: &[
            "the policy is Gaussian with covariance I",
            "the score is bilinear in image and answer",
        ],
        ..facts(
            "feedback-tilted-mean",
            "How far the KL-regularised optimum moves the mean of the answers, by reweighting answers of the reference policy",
            "‖η u‖, u = P_yᵀ P_v v",
        )
    };
    let direction = [0.6, -0.3, 0.5];
    let length = dot(&direction, &direction).sqrt();
    facts.check(
        seed,
        (&[0.25, 0.5, 0.75, 1.0, 1.5], 1),
        |x| x * length,
        |x, stream| {
            let (mut weights, mut moved) = (0.0, 0.0);
            for _ in 0..4 * DRAWS {
                let along = dot(&stream.normals(3), &direction);
                let weight = (x * along).exp();
                weights += weight;
                moved += weight * along / length;
            }
            moved / weights
        },
    )
}

/// Draws of a residual and a direction.
fn pairs(noise: f64, kind: Noise, stream: &mut Stream) -> Vec<(f64, f64)> {
    (0..DRAWS).map(|_| scalar_sample(noise, kind, stream)).collect()
}

/// Noise ζ at which u = e + ζ n has this AUC, for Gaussian e and n.
fn noise_for(auc: f64) -> f64 {
    (correlation(auc).powi(-2) - 1.0).max(0.0).sqrt()
}

const SCALAR: &[&str] = &["residual and direction are jointly Gaussian with mean 0"];

pub(super) fn direction_auc(seed: u64) -> Check {
    let facts = Facts {
        parameter: "ρ, correlation of direction and residual",
        assumptions: SCALAR,
        ..facts(
            "feedback-direction-auc",
            "AUC of the verifier's direction as a detector of the sign of the error",
            "½ + (2/π) asin(ρ/√2)",
        )
    };
    facts.check(
        seed,
        (&[0.2, 0.4, 0.6, 0.8, 1.0], 2),
        feedback::direction_auc,
        |correlation, stream| {
            let noise = (correlation.powi(-2) - 1.0).sqrt();
            measured_auc(&pairs(noise, Noise::Gaussian, stream))
        },
    )
}

pub(super) fn reduction_by_auc(seed: u64) -> Check {
    let facts = Facts {
        parameter: "AUC of the direction",
        assumptions: SCALAR,
        ..facts(
            "feedback-reduction-by-auc",
            "Fraction of the squared error that the best step removes; step fitted and tested on different draws",
            "ρ² = 1 − sin(π AUC)",
        )
    };
    facts.check(seed, (&[0.6, 0.7, 0.8, 0.9, 1.0], 2), removable_fraction, |auc, stream| {
        measured_reduction(&pairs(noise_for(auc), Noise::Gaussian, stream))
    })
}

/// Fraction removed at an AUC of 0.8 where residual and noise follow another distribution.
pub(super) fn reduction_at(kind: Noise, stream: &mut Stream) -> f64 {
    let drawn: Vec<(f64, f64)> =
        (0..DRAWS).map(|_| (stream.noise(kind), stream.noise(kind))).collect();
    let at = |noise: f64| -> Vec<(f64, f64)> {
        drawn.iter().map(|&(e, n)| (e, e + noise * n)).collect()
    };
    // Bisection: the AUC falls with the noise.
    let noise = bisect((0.0, 10.0), 20, |noise| measured_auc(&at(noise)) > 0.8);
    measured_reduction(&at(noise))
}

/// Step found where latents have a mean, so that the prior's bias is no longer neutral.
pub(super) fn best_step_off_centre(stream: &mut Stream) -> f64 {
    let model = model(|setting| setting.latent_mean = 0.3);
    let agreement = mean(DRAWS, || {
        let (residual, direction) = model.sample(stream);
        dot(&residual, &direction)
    });
    let power = mean(DRAWS, || {
        let (_, direction) = model.sample(stream);
        dot(&direction, &direction)
    });
    agreement / power
}

/// What the closed form says of the same.
pub(super) fn default_best_step() -> f64 {
    model(|_| ()).best_step()
}
