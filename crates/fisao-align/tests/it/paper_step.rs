//! One whole PPO step on three tokens, with every number worked out on paper.
//!
//! Policy: a table of logits, one row per token, two actions, the first one taken each time.
//! Sampling policy: logits (0, 0), so log `π_old` = ln ½. Policy now: rows (ln 3, 0), (0, 0), (ln 3, 0),
//! so π = ¾, ½, ¾ and ρ = 1.5, 1, 1.5.

use burn::tensor::{Device, Tensor, activation::log_softmax};
use fisao_align::ppo::{ClipRange, gae, policy_loss, token_rewards_with_kl, value_loss};

use crate::{F32_TOLERANCE, assert_all_close, assert_close};

const LN_HALF: f32 = -std::f32::consts::LN_2;
const CLIP: ClipRange = ClipRange { epsilon: 0.2, dual: None };

/// A = (0.65, −1.1, −0.6), G = (0.85, −0.7, −1.0); see [`advantages_match_hand_computed_values`].
const ADVANTAGES: [f32; 3] = [0.65, -1.1, -0.6];
const RETURNS: [f32; 3] = [0.85, -0.7, -1.0];
const OLD_VALUES: [f32; 3] = [0.2, 0.4, -0.4];

fn device() -> Device {
    Device::flex().autodiff()
}

#[test]
fn advantages_match_hand_computed_values() {
    // k1 = (−0.5, 0, 1), β = 0.2: r = (0.9 + 0.1, 0, −0.8 − 0.2) = (1, 0, −1).
    let reference = [LN_HALF + 0.5, LN_HALF, LN_HALF - 1.0];
    let rewards = token_rewards_with_kl(&[0.9, 0.0, -0.8], &[LN_HALF; 3], &reference, 0.2);
    assert_all_close(&rewards, &[1.0, 0.0, -1.0], F32_TOLERANCE);
    // γ = 1, λ = ½, V = (0.2, 0.4, −0.4):
    //   δ₂ = −1 − (−0.4)      = −0.6    A₂ = −0.6
    //   δ₁ = 0 − 0.4 − 0.4    = −0.8    A₁ = −0.8 + ½·(−0.6) = −1.1
    //   δ₀ = 1 + 0.4 − 0.2    =  1.2    A₀ =  1.2 + ½·(−1.1) =  0.65
    let (advantages, returns) = gae(&rewards, &OLD_VALUES, 1.0, 0.5);
    assert_all_close(&advantages, &[0.65, -1.1, -0.6], F32_TOLERANCE);
    assert_all_close(&returns, &[0.85, -0.7, -1.0], F32_TOLERANCE);
}

#[test]
fn policy_step_matches_hand_computed_values() {
    let ln3 = 3.0f32.ln();
    let logits = Tensor::<2>::from_data([[ln3, 0.0], [0.0, 0.0], [ln3, 0.0]], &device());
    let logits = logits.require_grad();
    let taken = log_softmax(logits.clone(), 1).narrow(1, 0, 1).reshape([3]);
    let (loss, statistics) = policy_loss(taken, &[LN_HALF; 3], &ADVANTAGES, CLIP, 3.0);
    // Surrogates: min(1.5·0.65, 1.2·0.65) = 0.78 (clipped)
    //             1·(−1.1)                = −1.1
    //             min(1.5·(−0.6), 1.2·(−0.6)) = −0.9 (not clipped: the worse one counts)
    // Loss −(0.78 − 1.1 − 0.9)/3 = 1.22/3.
    assert_close(loss.clone().into_scalar::<f32>().into(), 1.22 / 3.0, F32_TOLERANCE);

    // ∂loss/∂log π = −ρ A/3 where not clipped: (0, 1.1/3, 0.9/3); ∂log π/∂logits = (1 − π, −(1 − π)):
    // rows (0, 0), ±½·1.1/3, ±¼·0.9/3 = ±0.075. One step of gradient descent at rate 1:
    let gradients = loss.backward();
    let stepped = logits.clone().inner() - logits.grad(&gradients).expect("tracked");
    let stepped: Vec<f32> = stepped.to_data().iter::<f32>().collect();
    let ln3 = 3.0f64.ln();
    let expected = [ln3, 0.0, -0.55 / 3.0, 0.55 / 3.0, ln3 - 0.075, 0.075];
    assert_all_close(&stepped, &expected, F32_TOLERANCE);

    assert_close(statistics.clip_fraction(), 1.0 / 3.0, F32_TOLERANCE);
    assert_close(statistics.ratio_max(), 1.5, F32_TOLERANCE);
    assert_close(statistics.log_ratio_max(), 1.5f64.ln(), F32_TOLERANCE);
    // k3 of π_old against π_θ: (ρ − 1 − ln ρ) = (½ − ln 1.5, 0, ½ − ln 1.5), mean of three.
    assert_close(statistics.approx_kl(), 2.0 / 3.0 * (0.5 - 1.5f64.ln()), F32_TOLERANCE);
}

#[test]
fn value_step_matches_hand_computed_values() {
    let values = Tensor::<1>::from_data([0.5, 0.4, -0.5], &device()).require_grad();
    let (loss, statistics) = value_loss(values.clone(), &OLD_VALUES, &RETURNS, 0.2, 3.0);
    // t=0: V moved 0.3 from 0.2, clipped to 0.4: max(0.35², 0.45²) = 0.2025, no gradient
    // t=1: (0.4 + 0.7)² = 1.21, gradient 1.1/3
    // t=2: moved 0.1, inside: (−0.5 + 1)² = 0.25, gradient 0.5/3
    // Loss ½·(0.2025 + 1.21 + 0.25)/3 = 0.83125/3.
    assert_close(loss.clone().into_scalar::<f32>().into(), 0.831_25 / 3.0, F32_TOLERANCE);
    let gradients = loss.backward();
    let gradient: Vec<f32> = values.grad(&gradients).expect("tracked").to_data().iter().collect();
    assert_all_close(&gradient, &[0.0, 1.1 / 3.0, 0.5 / 3.0], F32_TOLERANCE);
    // Errors before the clip: 0.1225 + 1.21 + 0.25.
    assert_close(statistics.mean_squared_error(), 1.5825 / 3.0, F32_TOLERANCE);
    assert_close(statistics.clip_fraction(), 1.0 / 3.0, F32_TOLERANCE);
}

#[test]
fn dual_clip_bounds_only_negative_advantages() {
    // ρ = e² ≈ 7.39, c = 3. A = −2: surrogate max(−14.8, −6) = −6, no gradient.
    // A = +2: the ordinary clip, 1.2·2 = 2.4. Loss −(−6 + 2.4)/2 = 1.8.
    let log_probs = Tensor::<1>::from_data([1.0, 1.0], &device()).require_grad();
    let clip = ClipRange { epsilon: 0.2, dual: Some(3.0) };
    let (loss, statistics) = policy_loss(log_probs.clone(), &[-1.0; 2], &[-2.0, 2.0], clip, 2.0);
    assert_close(loss.clone().into_scalar::<f32>().into(), 1.8, F32_TOLERANCE);
    let gradients = loss.backward();
    let gradient: Vec<f32> =
        log_probs.grad(&gradients).expect("tracked").to_data().iter().collect();
    assert_eq!(gradient, [0.0, 0.0]);
    assert_close(statistics.clip_fraction(), 1.0, 0.0);
}
