use burn::tensor::{Device, Tensor, activation::log_softmax};
use fisao_align::ppo::{
    ClipRange, WhitenMode, entropy, gae,
    losses::{entropy_term, policy_term, value_term},
    policy_loss, token_rewards_with_kl, value_loss, whiten,
};
use proptest::prelude::*;

use crate::{F32_TOLERANCE, assert_all_close, assert_close};

/// Step of central differences, taken in f64 on the scalar definitions.
const STEP: f64 = 1e-5;
/// Sums and gradients in f32 against f64 and central differences.
const GRADIENT_TOLERANCE: f64 = 2e-5;
/// Distance kept from the kinks, where the derivative does not exist.
const KINK: f64 = 1e-3;

const CLIP: ClipRange = ClipRange { epsilon: 0.2, dual: Some(3.0) };

fn device() -> Device {
    Device::flex().autodiff()
}

fn tracked(values: &[f32]) -> Tensor<1> {
    Tensor::<1>::from_data(values, &device()).require_grad()
}

/// Loss and its gradient with respect to `leaf`.
fn differentiate<const D: usize>(loss: &Tensor<1>, leaf: &Tensor<D>) -> (f64, Vec<f32>) {
    let gradients = loss.backward();
    let gradient = leaf.grad(&gradients).expect("the leaf is tracked");
    (loss.clone().into_scalar::<f32>().into(), gradient.to_data().iter::<f32>().collect())
}

fn central_difference(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    (f(x + STEP) - f(x - STEP)) / (2.0 * STEP)
}

/// `(log π_θ, log π_old, A)` away from every kink of the surrogate.
fn policy_token() -> impl Strategy<Value = (f32, f32, f32)> {
    (-3.0f32..0.0, -3.0f32..0.0, -2.0f32..2.0).prop_filter("at a kink", |(new, old, _)| {
        let ratio = (f64::from(*new) - f64::from(*old)).exp();
        [0.8, 1.2, 3.0].iter().all(|kink| (ratio - kink).abs() > KINK)
    })
}

/// `(V, V_old, G)` away from every kink of the clipped value loss at range 0.2.
fn value_token() -> impl Strategy<Value = (f32, f32, f32)> {
    (-1.0f32..1.0, -1.0f32..1.0, -1.0f32..1.0).prop_filter("at a kink", |&(value, old, target)| {
        let (value, old, target) = (f64::from(value), f64::from(old), f64::from(target));
        let moved = value - old;
        let clipped = old + moved.clamp(-0.2, 0.2);
        let tie = ((value - target).abs() - (clipped - target).abs()).abs();
        (moved.abs() - 0.2).abs() > KINK && (moved.abs() < 0.2 || tie > KINK)
    })
}

proptest! {
    #[test]
    fn policy_gradient_equals_finite_differences(
        tokens in prop::collection::vec(policy_token(), 1..12)
    ) {
        let new: Vec<f32> = tokens.iter().map(|t| t.0).collect();
        let old: Vec<f32> = tokens.iter().map(|t| t.1).collect();
        let advantages: Vec<f32> = tokens.iter().map(|t| t.2).collect();
        let leaf = tracked(&new);
        let normaliser = tokens.len() as f64;
        let (loss, _) = policy_loss(leaf.clone(), &old, &advantages, CLIP, normaliser);
        let (loss, gradient) = differentiate(&loss, &leaf);
        let term = |t: &(f32, f32, f32), new: f64| {
            policy_term(new - f64::from(t.1), t.2.into(), CLIP) / normaliser
        };
        let expected: f64 = tokens.iter().map(|t| term(t, t.0.into())).sum();
        assert_close(loss, expected, GRADIENT_TOLERANCE);
        let expected: Vec<f64> =
            tokens.iter().map(|t| central_difference(|x| term(t, x), t.0.into())).collect();
        assert_all_close(&gradient, &expected, GRADIENT_TOLERANCE);
    }

    #[test]
    fn value_gradient_equals_finite_differences(
        tokens in prop::collection::vec(value_token(), 1..12)
    ) {
        let values: Vec<f32> = tokens.iter().map(|t| t.0).collect();
        let old: Vec<f32> = tokens.iter().map(|t| t.1).collect();
        let returns: Vec<f32> = tokens.iter().map(|t| t.2).collect();
        let leaf = tracked(&values);
        let normaliser = tokens.len() as f64;
        let (loss, _) = value_loss(leaf.clone(), &old, &returns, 0.2, normaliser);
        let (loss, gradient) = differentiate(&loss, &leaf);
        let term = |t: &(f32, f32, f32), value: f64| {
            value_term(value, t.1.into(), t.2.into(), 0.2) / normaliser
        };
        let expected: f64 = tokens.iter().map(|t| term(t, t.0.into())).sum();
        assert_close(loss, expected, GRADIENT_TOLERANCE);
        let expected: Vec<f64> =
            tokens.iter().map(|t| central_difference(|x| term(t, x), t.0.into())).collect();
        assert_all_close(&gradient, &expected, GRADIENT_TOLERANCE);
    }

    #[test]
    fn entropy_gradient_equals_finite_differences(logits in prop::collection::vec(-4.0f32..4.0, 2..9)) {
        let leaf = tracked(&logits);
        let per_token = entropy(leaf.clone().reshape([1, logits.len()]));
        let (found, gradient) = differentiate(&per_token.sum(), &leaf);
        let logits: Vec<f64> = logits.iter().map(|&l| l.into()).collect();
        assert_close(found, entropy_term(&logits), GRADIENT_TOLERANCE);
        let expected: Vec<f64> = (0..logits.len())
            .map(|i| {
                let at = |x: f64| {
                    let mut moved = logits.clone();
                    moved[i] = x;
                    entropy_term(&moved)
                };
                central_difference(at, logits[i])
            })
            .collect();
        assert_all_close(&gradient, &expected, GRADIENT_TOLERANCE);
    }

    /// Losses and gradients of micro-batches add up to those of the minibatch.
    #[test]
    fn micro_batch_losses_and_gradients_sum_to_the_minibatch(
        tokens in prop::collection::vec(policy_token(), 2..16),
        cut in 1usize..15,
    ) {
        let cut = cut.min(tokens.len() - 1);
        let new: Vec<f32> = tokens.iter().map(|t| t.0).collect();
        let old: Vec<f32> = tokens.iter().map(|t| t.1).collect();
        let advantages: Vec<f32> = tokens.iter().map(|t| t.2).collect();
        let normaliser = tokens.len() as f64;
        let part = |range: std::ops::Range<usize>| {
            let leaf = tracked(&new[range.clone()]);
            let (old, advantages) = (&old[range.clone()], &advantages[range]);
            let (policy, statistics) = policy_loss(leaf.clone(), old, advantages, CLIP, normaliser);
            // The same numbers serve as values, old values and returns.
            let (value, errors) = value_loss(leaf.clone(), old, advantages, 0.2, normaliser);
            let (loss, gradient) = differentiate(&(policy + value), &leaf);
            (loss, gradient, statistics, errors)
        };
        let (loss, gradient, statistics, errors) = part(0..tokens.len());
        let (first, second) = (part(0..cut), part(cut..tokens.len()));
        assert_close(first.0 + second.0, loss, GRADIENT_TOLERANCE);
        prop_assert_eq!([first.1, second.1].concat(), gradient);
        let (mut merged, mut merged_errors) = (first.2, first.3);
        merged.merge(&second.2);
        merged_errors.merge(&second.3);
        assert_close(merged.clip_fraction(), statistics.clip_fraction(), 0.0);
        assert_close(merged.ratio_max(), statistics.ratio_max(), 0.0);
        assert_close(merged.approx_kl(), statistics.approx_kl(), 1e-12);
        assert_close(merged_errors.mean_squared_error(), errors.mean_squared_error(), 1e-12);
    }
}

#[test]
fn entropy_of_equal_logits_is_the_log_of_their_count() {
    let logits = Tensor::<2>::from_data([[7.0f32; 5], [0.0; 5]], &device());
    let found: Vec<f32> = entropy(logits).to_data().iter::<f32>().collect();
    assert_all_close(&found, &[5.0f64.ln(); 2], F32_TOLERANCE);
}

/// Policy, reference, and a sample drawn in exact proportion: π = (½, ¼, ¼), `π_ref` = (¼, ¼, ½),
/// actions 0, 0, 1, 2.
const POLICY: [f64; 3] = [0.5, 0.25, 0.25];
const REFERENCE: [f64; 3] = [0.25, 0.25, 0.5];
const ACTIONS: [usize; 4] = [0, 0, 1, 2];

/// Gradient of the policy loss with respect to the logits, one-token responses, V = 0, reward 0.
fn gradient_without_rewards(beta: f64, mode: WhitenMode) -> Vec<f32> {
    let log = |p: &[f64; 3], a: usize| p[a].ln() as f32;
    let old: Vec<f32> = ACTIONS.iter().map(|&a| log(&POLICY, a)).collect();
    let mut advantages: Vec<Vec<f32>> = ACTIONS
        .iter()
        .zip(&old)
        .map(|(&action, &log_prob)| {
            let reference = [log(&REFERENCE, action)];
            let rewards = token_rewards_with_kl(&[0.0], &[log_prob], &reference, beta);
            gae(&rewards, &[0.0], 1.0, 0.95).0
        })
        .collect();
    whiten(&mut advantages, mode);
    let leaf = tracked(&POLICY.map(|p| p.ln() as f32));
    let log_probs = log_softmax(leaf.clone(), 0);
    let actions = ACTIONS.map(|a| a as i64);
    let taken = log_probs.select(0, Tensor::from_data(actions, &device()));
    let (loss, _) = policy_loss(taken, &old, &advantages.concat(), CLIP, 4.0);
    differentiate(&loss, &leaf).1
}

#[test]
fn policy_gradient_is_zero_without_rewards_and_kl_penalty() {
    for mode in [WhitenMode::None, WhitenMode::Scale, WhitenMode::MeanAndScale] {
        assert_eq!(gradient_without_rewards(0.0, mode), [0.0; 3], "{mode:?}");
    }
}

/// With nothing but the KL penalty the step follows `β ∂KL(π‖π_ref)/∂z_i = β π_i (ln π_i/π_ref,i − KL)`:
/// KL = ½ ln 2 − ¼ ln 2 = ¼ ln 2, hence β ln 2 · (½·¾, ¼·(−¼), ¼·(−5/4)).
#[test]
fn policy_gradient_descends_the_kl_without_rewards() {
    let beta = 0.3;
    let gradient = gradient_without_rewards(beta, WhitenMode::None);
    let unit = beta * 2.0f64.ln();
    let expected = [unit * 6.0 / 16.0, -unit / 16.0, unit * -5.0 / 16.0];
    assert_all_close(&gradient, &expected, F32_TOLERANCE);
}

#[test]
fn policy_loss_propagates_nan_and_clamps_huge_ratios() {
    let (loss, statistics) =
        policy_loss(tracked(&[-1.0, f32::NAN]), &[-1.0; 2], &[1.0; 2], CLIP, 2.0);
    assert!(loss.into_scalar::<f32>().is_nan());
    assert!(statistics.ratio_max().is_nan());
    // An impossible token is only guarded: e^−20 instead of 0, and no infinities.
    let leaf = tracked(&[0.0]);
    let (loss, _) =
        policy_loss(leaf.clone(), &[-1e4], &[-1.0], ClipRange { dual: None, ..CLIP }, 1.0);
    let (loss, gradient) = differentiate(&loss, &leaf);
    assert!(loss.is_finite() && gradient[0].is_finite());
}
