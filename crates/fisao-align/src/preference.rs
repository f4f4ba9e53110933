//! Preferences: which of two responses is better, and the loss of direct preference optimisation.

use burn::tensor::{Tensor, activation::log_sigmoid};

/// Loss of one pair: `−log σ(β m)`, `m = (log π_θ − log π_ref)(chosen) − (log π_θ − log π_ref)(rejected)`
/// (arXiv 2305.18290, eq. 7).
///
/// * `margin` — `m`, nats.
/// * `beta` — β, per nat.
pub fn dpo_term(margin: f64, beta: f64) -> f64 {
    let x = beta * margin;
    // log(1 + e^−x) without overflow on either side.
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Best and worst of a group by their rewards, if they lie apart by more than `min_gap`: `(chosen, rejected)`.
///
/// * `rewards` — `[K]`, one per response, reward units. Of equal ones the first counts.
pub fn best_and_worst(rewards: &[f64], min_gap: f64) -> Option<(usize, usize)> {
    let position = |better: fn(f64, f64) -> bool| {
        (1..rewards.len())
            .fold(0, |kept, at| if better(rewards[at], rewards[kept]) { at } else { kept })
    };
    let (best, worst) = (position(|a, b| a > b), position(|a, b| a < b));
    (rewards.len() > 1 && rewards[best] - rewards[worst] > min_gap).then_some((best, worst))
}

/// What the pairs of a micro-batch did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PreferenceStatistics {
    /// Pairs seen.
    pub pairs: usize,
    /// Of which the policy prefers the chosen response more than the reference does.
    pub right: usize,
    /// Sum of the margins, nats.
    pub margin: f64,
}

/// Log-likelihood of the chosen responses of a micro-batch of pairs, `[1]`, nats; the arguments are those of
/// [`dpo_loss`].
pub fn chosen_log_likelihood(log_probs: &Tensor<1>, lengths: &[usize]) -> Tensor<1> {
    let mut start = 0;
    let sums = lengths.chunks_exact(2).map(|pair| {
        let range = start..start + pair[0];
        start += pair[0] + pair[1];
        log_probs.clone().slice([range]).sum()
    });
    Tensor::cat(sums.collect(), 0).sum()
}

/// Loss of a micro-batch of pairs, [`dpo_term`] summed over pairs and divided by `normaliser`.
///
/// * `log_probs` — `log π_θ`, tracked, `[N]`, nats: chosen and rejected responses in turn, one after the other.
/// * `reference` — `log π_ref`, `[N]`, nats.
/// * `lengths` — tokens of each response, an even number of them.
/// * `normaliser` — pairs of the whole minibatch (not of this micro-batch).
///
/// Returns the loss `[1]` and what these pairs did.
pub fn dpo_loss(
    log_probs: &Tensor<1>,
    reference: &[f32],
    lengths: &[usize],
    beta: f64,
    normaliser: f64,
) -> (Tensor<1>, PreferenceStatistics) {
    assert_eq!(log_probs.dims(), [reference.len()], "one reference per token");
    assert_eq!(lengths.iter().sum::<usize>(), reference.len(), "lengths of all responses");
    assert!(lengths.len().is_multiple_of(2), "responses come in pairs");
    let device = log_probs.device();
    let drift = log_probs.clone() - Tensor::<1>::from_data(reference, &device);
    let mut start = 0;
    let mut drifts = lengths.iter().map(|&length| {
        let range = start..start + length;
        start += length;
        drift.clone().slice([range]).sum()
    });
    let mut margins = Vec::with_capacity(lengths.len() / 2);
    while let (Some(chosen), Some(rejected)) = (drifts.next(), drifts.next()) {
        margins.push(chosen - rejected);
    }
    let margins = Tensor::cat(margins, 0);
    let found: Vec<f32> = margins.to_data().iter::<f32>().collect();
    let statistics = PreferenceStatistics {
        pairs: found.len(),
        right: found.iter().filter(|&&margin| margin > 0.0).count(),
        margin: found.iter().map(|&margin| f64::from(margin)).sum(),
    };
    (log_sigmoid(margins * beta).sum() * (-1.0 / normaliser), statistics)
}
