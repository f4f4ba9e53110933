use fisao_align::ppo::{
    KlConfig, KlController, KlControllerKind, KlEstimator, divergence::LOG_RATIO_LIMIT,
    token_rewards_with_kl,
};

use crate::{F32_TOLERANCE, assert_all_close, assert_close};

const F64_TOLERANCE: f64 = 1e-12;

/// `E_{x ~ p}` of an estimator of `KL(p‖q)`, by enumeration.
fn expectation(estimator: KlEstimator, p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * estimator.estimate(p.ln(), q.ln())).sum()
}

#[test]
fn k1_and_k3_are_unbiased() {
    // KL((½, ½) ‖ (¼, ¾)) = ½ ln 2 + ½ ln ⅔ = ½ ln (4/3).
    let (p, q) = ([0.5, 0.5], [0.25, 0.75]);
    let exact = 0.5 * (4.0f64 / 3.0).ln();
    assert_close(expectation(KlEstimator::K1, &p, &q), exact, F64_TOLERANCE);
    assert_close(expectation(KlEstimator::K3, &p, &q), exact, F64_TOLERANCE);
    // KL((½, ¼, ¼) ‖ (¼, ¼, ½)) = ½ ln 2 + 0 − ¼ ln 2 = ¼ ln 2.
    let (p, q) = ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]);
    let exact = 0.25 * 2.0f64.ln();
    assert_close(expectation(KlEstimator::K1, &p, &q), exact, F64_TOLERANCE);
    assert_close(expectation(KlEstimator::K3, &p, &q), exact, F64_TOLERANCE);
}

#[test]
fn k2_is_biased_but_accurate_to_second_order() {
    // E k2 for (½, ½) against (¼, ¾): ¼ (ln² 2 + ln² ⅔), not the KL.
    let (p, q) = ([0.5, 0.5], [0.25, 0.75]);
    let exact = 0.25 * (2.0f64.ln().powi(2) + (2.0f64 / 3.0).ln().powi(2));
    assert_close(expectation(KlEstimator::K2, &p, &q), exact, F64_TOLERANCE);
    assert!(exact > 1.1 * expectation(KlEstimator::K1, &p, &q));
    // Near each other, KL((½, ½) ‖ (½ − h, ½ + h)) = −½ ln(1 − 4h²) = 2h² + O(h⁴), and so is E k2.
    let h = 1e-3;
    let near = expectation(KlEstimator::K2, &[0.5, 0.5], &[0.5 - h, 0.5 + h]);
    assert_close(near / (2.0 * h * h), 1.0, 1e-4);
}

#[test]
fn only_k1_can_be_negative() {
    assert!(KlEstimator::K1.estimate(-2.0, -1.0) < 0.0);
    for gap in [-5.0, -1e-9, 0.0, 1e-9, 5.0] {
        assert!(KlEstimator::K2.estimate(gap, 0.0) >= 0.0);
        assert!(KlEstimator::K3.estimate(gap, 0.0) >= 0.0);
    }
}

#[test]
fn kl_estimators_clamp_the_log_ratio_and_propagate_nan() {
    assert_close(KlEstimator::K1.estimate(0.0, f64::NEG_INFINITY), LOG_RATIO_LIMIT, 0.0);
    assert!(KlEstimator::K3.estimate(-1e4, 0.0).is_finite());
    assert!(KlEstimator::K1.estimate(f64::NAN, 0.0).is_nan());
}

#[test]
fn kl_penalty_is_k1_per_token() {
    // 1 − 0.1·(−1 + 3), 0 − 0.1·(−2 + 1), −1 − 0.1·0.
    let rewards =
        token_rewards_with_kl(&[1.0, 0.0, -1.0], &[-1.0, -2.0, -0.5], &[-3.0, -1.0, -0.5], 0.1);
    assert_all_close(&rewards, &[0.8, 0.1, -1.0], F32_TOLERANCE);
    assert_close(KlEstimator::K1.sum(&[-1.0, -2.0, -0.5], &[-3.0, -1.0, -0.5]), 1.0, F64_TOLERANCE);
}

fn adaptive() -> KlController {
    KlController::new(&KlConfig {
        coefficient: 0.1,
        controller: KlControllerKind::Adaptive,
        target: 6.0,
        horizon: 10_000.0,
    })
}

#[test]
fn adaptive_controller_follows_ziegler() {
    // KL twice the target: error clipped from 1 to 0.2; 0.1 · (1 + 0.2 · 256/10000).
    let mut controller = adaptive();
    controller.update(12.0, 256);
    assert_close(controller.coefficient(), 0.100_512, F64_TOLERANCE);
    // 10 % below: not clipped; 0.1 · (1 − 0.1 · 256/10000).
    let mut controller = adaptive();
    controller.update(5.4, 256);
    assert_close(controller.coefficient(), 0.099_744, F64_TOLERANCE);
    // No KL at all: clipped to −0.2.
    let mut controller = adaptive();
    controller.update(0.0, 256);
    assert_close(controller.coefficient(), 0.099_488, F64_TOLERANCE);
}

#[test]
fn a_batch_beyond_the_horizon_cannot_turn_beta_negative() {
    let mut controller = adaptive();
    controller.update(0.0, 1_000_000);
    assert_close(controller.coefficient(), 0.08, F64_TOLERANCE);
}

#[test]
fn beta_is_unchanged_by_nan_kl_and_by_the_fixed_controller() {
    let mut controller = adaptive();
    controller.update(f64::NAN, 256);
    assert_eq!(controller, adaptive());
    let mut fixed = KlController::new(&KlConfig::default());
    fixed.update(100.0, 256);
    assert_eq!(fixed, KlController::new(&KlConfig::default()));
}

#[test]
fn controller_resumes_exactly() {
    let mut straight = adaptive();
    straight.update(7.3, 64);
    let saved = serde_json::to_string(&straight).expect("serialise");
    let mut resumed: KlController = serde_json::from_str(&saved).expect("deserialise");
    for controller in [&mut straight, &mut resumed] {
        controller.update(4.1, 64);
    }
    assert_eq!(straight.coefficient().to_bits(), resumed.coefficient().to_bits());
}
