//! Checks of [`crate::credit`] and [`crate::softmax_credit`].

use crate::comparison::{Check, Facts, Origin, Topic};
use crate::credit::{Estimator, GaussianBandit};
use crate::random::Stream;
use crate::softmax_credit::SoftmaxPolicy;

/// Responses per batch.
const RESPONSES: usize = 4_000;
/// Lengths of responses, tokens.
const LENGTHS: &[f64] = &[1.0, 4.0, 8.0, 16.0, 32.0, 64.0];

const fn facts(name: &'static str, what: &'static str, formula: &'static str) -> Facts {
    Facts {
        name,
        topic: Topic::Credit,
        what,
        formula,
        origin: Origin::Ours,
        source: "docs/src/theory.md",
        parameter: "T, tokens of a response",
        assumptions: &[
            "a token affects its own reward alone",
            "tokens have parameters of their own and are independent",
            "the verifier's errors are independent between words",
        ],
    }
}

/// Variance of one estimator over that of another, closed form.
fn ratio(bandit: &GaussianBandit, above: Estimator, below: Estimator) -> f64 {
    bandit.moments(above).variance / bandit.moments(below).variance
}

/// The same of sampled responses.
pub(super) fn simulated(
    bandit: &GaussianBandit,
    above: Estimator,
    below: Estimator,
    stream: &mut Stream,
) -> f64 {
    let mut variance = |estimator| bandit.simulate(estimator, RESPONSES, stream).total_variance();
    variance(above) / variance(below)
}

fn of_length(tokens: f64) -> GaussianBandit {
    GaussianBandit { tokens: tokens.round().max(1.0) as usize, ..GaussianBandit::default() }
}

pub(super) fn ratio_by_length(seed: u64) -> Check {
    let facts = facts(
        "credit-length",
        "Variance of the gradient under one reward per response over that under one per token, exact baselines",
        "(T (w²σ² + σ_n²) + w²σ²) / (2 w²σ² + σ_n²)",
    );
    facts.check(
        seed,
        (LENGTHS, 3),
        |x| of_length(x).ratio(),
        |x, stream| {
            simulated(&of_length(x), Estimator::sentence(1.0), Estimator::token(0.0, 1.0), stream)
        },
    )
}

pub(super) fn ratio_by_noise(seed: u64) -> Check {
    let facts = Facts {
        parameter: "σ_n/(wσ), noise of the verifier over the signal",
        ..facts(
            "credit-noise",
            "The same ratio at T = 16: from (T + 1)/2 for a perfect verifier towards T",
            "(T (w²σ² + σ_n²) + w²σ²) / (2 w²σ² + σ_n²)",
        )
    };
    let at = |noise: f64| GaussianBandit { verifier_noise: noise, ..GaussianBandit::default() };
    facts.check(
        seed,
        (&[0.0, 0.5, 1.0, 2.0, 4.0], 3),
        |x| at(x).ratio(),
        |x, stream| simulated(&at(x), Estimator::sentence(1.0), Estimator::token(0.0, 1.0), stream),
    )
}

pub(super) fn ratio_without_baseline(seed: u64) -> Check {
    let facts = Facts {
        parameter: "scored tokens of 16",
        ..facts(
            "credit-no-baseline",
            "The same ratio without a baseline, by the number of scored tokens: the mean reward of the others is noise, too",
            "(T K² μ² + T K (w²σ² + σ_n²) + K w²σ²) / (K (μ² + 2 w²σ² + σ_n²)), σ = 1",
        )
    };
    let at = |scored: f64| GaussianBandit {
        spacing: (16.0 / scored).round() as usize,
        ..GaussianBandit::default()
    };
    let closed = |scored: f64| {
        let GaussianBandit { mean_reward, slope, verifier_noise, tokens, .. } = at(scored);
        let (offset, signal, noise) = (mean_reward.powi(2), slope.powi(2), verifier_noise.powi(2));
        let length = tokens as f64;
        let sentence = length * scored * scored * offset
            + length * scored * (signal + noise)
            + scored * signal;
        sentence / (scored * (offset + 2.0 * signal + noise))
    };
    facts.check(seed, (&[1.0, 2.0, 4.0, 8.0, 16.0], 2), closed, |x, stream| {
        simulated(&at(x), Estimator::sentence(0.0), Estimator::token(0.0, 0.0), stream)
    })
}

pub(super) fn ratio_of_rewards_to_go(seed: u64) -> Check {
    let facts = facts(
        "credit-rewards-to-go",
        "Variance under one reward per response over that under rewards per token that credit all earlier tokens (λ = 1): below 2 where scored words are spread evenly",
        "Σ_t Var ĝ_t, c_ts = 1 over c_ts = 1[s ≥ t]",
    );
    facts.check(
        seed,
        (LENGTHS, 3),
        |x| ratio(&of_length(x), Estimator::sentence(1.0), Estimator::token(1.0, 1.0)),
        |x, stream| {
            simulated(&of_length(x), Estimator::sentence(1.0), Estimator::token(1.0, 1.0), stream)
        },
    )
}

pub(super) fn ratio_of_gae(seed: u64) -> Check {
    let facts = Facts {
        parameter: "λ of GAE",
        ..facts(
            "credit-gae",
            "Variance under one reward per response over that under GAE(λ) with rewards per token, T = 64",
            "Σ_t Var ĝ_t, c_ts = 1 over c_ts = λ^(s − t)",
        )
    };
    let bandit = of_length(64.0);
    facts.check(
        seed,
        (&[0.0, 0.5, 0.8, 0.95, 1.0], 3),
        |x| ratio(&bandit, Estimator::sentence(1.0), Estimator::token(x, 1.0)),
        |x, stream| simulated(&bandit, Estimator::sentence(1.0), Estimator::token(x, 1.0), stream),
    )
}

fn softmax(tokens: f64, auc: f64) -> SoftmaxPolicy {
    SoftmaxPolicy { tokens: tokens.round().max(1.0) as usize, spacing: 4, auc }
}

pub(super) fn ratio_of_softmax(seed: u64) -> Check {
    let facts = facts(
        "credit-softmax",
        "The same ratio for a softmax policy over words, verifier of AUC 0.8, corrected reward",
        "(own + (T − 1)(1 − ‖p‖²)(Var z + 1/d′²)) / own",
    );
    facts.check(
        seed,
        (&LENGTHS[..5], 3),
        |x| softmax(x, 0.8).ratio(),
        |x, stream| softmax(x, 0.8).simulated_ratio(RESPONSES / 2, stream),
    )
}

pub(super) fn softmax_by_auc(seed: u64) -> Check {
    let facts = Facts {
        parameter: "AUC of the verifier",
        ..facts(
            "credit-softmax-auc",
            "The same ratio at T = 16 by the verifier's AUC",
            "(own + (T − 1)(1 − ‖p‖²)(Var z + 1/d′²)) / own",
        )
    };
    facts.check(
        seed,
        (&[0.6, 0.7, 0.8, 0.9, 0.99], 2),
        |x| softmax(16.0, x).ratio(),
        |x, stream| softmax(16.0, x).simulated_ratio(RESPONSES / 2, stream),
    )
}

pub(super) fn break_even_batch(seed: u64) -> Check {
    let facts = Facts {
        parameter: "κ, effect of a token on each later reward",
        assumptions: &["effects on later rewards are linear and equal", "the baseline is exact"],
        ..facts(
            "credit-break-even-batch",
            "Responses per batch beyond which one reward per response errs less than rewards credited to their own tokens alone",
            "N* = (V_sentence − V_token) / ‖bias‖²",
        )
    };
    let at = |coupling: f64| GaussianBandit { coupling, ..GaussianBandit::default() };
    facts.check(
        seed,
        (&[0.15, 0.2, 0.3, 0.4, 0.5], 2),
        |x| at(x).break_even_batch(),
        |x, stream| {
            let bandit = at(x);
            let sentence = bandit.simulate(Estimator::sentence(1.0), 2 * RESPONSES, stream);
            let token = bandit.simulate(Estimator::token(0.0, 1.0), 2 * RESPONSES, stream);
            let (above, below) = (sentence.total_variance(), token.total_variance());
            let bias = sentence
                .means()
                .iter()
                .zip(token.means())
                .map(|(s, t)| (s - t).powi(2))
                .sum::<f64>();
            // The squared difference of two estimates is too large by their variances.
            (above - below) / (bias - (above + below) / (2 * RESPONSES) as f64)
        },
    )
}
