//! Checks of [`crate::tilt`].

use crate::comparison::{Check, Facts, Origin, Topic};
use crate::random::{Noise, Stream};
use crate::rewards::{logit, sigmoid};
use crate::tilt::{bernoulli_divergence, gaussian_divergence, gaussian_gain, naming_probability};

/// Responses per batch.
const RESPONSES: usize = 40_000;
/// Values of 1/β along a curve.
const STRENGTHS: &[f64] = &[0.25, 0.5, 0.75, 1.0, 1.25];

const fn facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        name,
        topic: Topic::KlPenalty,
        what,
        formula,
        origin: Origin::Known,
        source: "Ziebart 2010; Korbak et al., arXiv 2205.11275; Rafailov et al., arXiv 2305.18290",
        parameter: "1/β, standard deviations of the reward",
        assumptions: &[
            "rewards of the reference's responses are normal",
            "the policy reaches its optimum",
        ],
    }
}

/// KL of the tilted distribution and its gain, by weights of responses of the reference with these rewards.
pub(super) fn tilted(
    strength: f64,
    stream: &mut Stream,
    reward: impl Fn(&mut Stream) -> f64,
) -> (f64, f64) {
    let (mut total, mut weighted, mut plain) = (0.0, 0.0, 0.0);
    for _ in 0..RESPONSES {
        let reward = reward(stream);
        let weight = (strength * reward).exp();
        total += weight;
        weighted += weight * reward;
        plain += reward;
    }
    let count = RESPONSES as f64;
    let mean = weighted / total;
    (strength * mean - (total / count).ln(), mean - plain / count)
}

/// Normal rewards.
fn normal(stream: &mut Stream) -> f64 {
    stream.noise(Noise::Gaussian)
}

pub(super) fn divergence(seed: u64) -> Check {
    let facts = facts("tilt-divergence", "KL of the optimum to the reference policy", "s²/(2β²)");
    facts.check(
        seed,
        (STRENGTHS, 3),
        |x| if x > 0.0 { gaussian_divergence(1.0, 1.0 / x) } else { 0.0 },
        |x, stream| tilted(x, stream, normal).0,
    )
}

pub(super) fn gain(seed: u64) -> Check {
    let facts =
        facts("tilt-gain", "Mean reward of the optimum above that of the reference", "s²/β");
    facts.check(
        seed,
        (STRENGTHS, 3),
        |x| gaussian_gain(1.0, 1.0 / x),
        |x, stream| tilted(x, stream, normal).1,
    )
}

/// How often the reference names an object, how often that is right, and the break-even precision.
const NAMING: (f64, (f64, f64)) = (0.6, (0.8, 0.5));
/// Steps of [`trained`].
const STEPS: usize = 4_000;
/// Responses of each step.
const PER_STEP: usize = 64;

/// Trains the probability of naming an object by the policy gradient from sampled, noisy rewards with the KL penalty in them (k1), and
/// returns the mean over the second half of the steps.
fn trained(beta: f64, stream: &mut Stream) -> f64 {
    let (reference, (precision, break_even)) = NAMING;
    let (mut theta, mut sum) = (logit(reference), 0.0);
    for step in 0..STEPS {
        let p = sigmoid(theta);
        let penalty = |named: bool| {
            let ratio = if named { p / reference } else { (1.0 - p) / (1.0 - reference) };
            beta * ratio.ln()
        };
        let mut gradient = 0.0;
        for _ in 0..PER_STEP {
            let named = stream.happens(p);
            let correct = f64::from(stream.happens(precision));
            // Noise of a verifier with d′ = 1.2, AUC 0.8.
            let reward = if named { correct - break_even + stream.normal() / 1.2 } else { 0.0 };
            gradient += (f64::from(named) - p) * (reward - penalty(named));
        }
        theta += 2.0 / (1.0 + step as f64 / 50.0).powf(0.6) * gradient / PER_STEP as f64;
        if 2 * step >= STEPS {
            sum += theta;
        }
    }
    sigmoid(sum / (STEPS / 2) as f64)
}

/// Facts of what [`trained`] finds.
const fn trained_facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        parameter: "β, reward units per nat",
        assumptions: &["one object, one decision", "the policy reaches its optimum"],
        origin: Origin::Ours,
        source: "docs/src/theory.md",
        ..facts(name, what, formula)
    }
}

pub(super) fn naming(seed: u64) -> Check {
    let facts = trained_facts(
        "tilt-naming",
        "How often the optimum names an object, against a policy trained on sampled rewards of a weak verifier",
        "logit p* = logit p + (precision − q*)/β",
    );
    let (reference, reward) = NAMING;
    facts.check(
        seed,
        (&[0.2, 0.3, 0.5, 0.75, 1.0], 2),
        |beta| naming_probability(reference, reward, beta),
        trained,
    )
}

pub(super) fn trained_divergence(seed: u64) -> Check {
    let facts = trained_facts(
        "tilt-trained-divergence",
        "Predicted KL of the optimum against the KL that this training reaches",
        "p* log(p*/p) + (1 − p*) log((1 − p*)/(1 − p))",
    );
    let (reference, reward) = NAMING;
    let divergence = |p: f64| bernoulli_divergence(p, reference);
    facts.check(
        seed,
        (&[0.2, 0.25, 0.3, 0.4, 0.5], 1),
        |beta| divergence(naming_probability(reference, reward, beta)),
        |beta, stream| divergence(trained(beta, stream)),
    )
}
