//! Several signals combined: weights that are known, and one that was worked out by hand.

use fisao_verifier::calibration::{CalibrationError, Combination};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tolerance of what Newton's method ends at.
const CONVERGED: f64 = 1e-6;

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Two signals of unit variance and one that never changes; correctness drawn with these weights.
fn drawn(count: usize, weights: [f64; 2], intercept: f64) -> (Vec<Vec<f64>>, Vec<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    // Uniform over ±√3, which has variance 1.
    let mut signal = || (2.0 * rng.random::<f64>() - 1.0) * 3.0_f64.sqrt();
    let rows: Vec<Vec<f64>> = (0..count).map(|_| vec![signal(), signal(), 5.0]).collect();
    let chance = |row: &Vec<f64>| logistic(intercept + weights[0] * row[0] + weights[1] * row[1]);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let correct = rows.iter().map(|row| rng.random::<f64>() < chance(row)).collect();
    (rows, correct)
}

#[test]
fn combination_recovers_the_true_weights() {
    let (rows, correct) = drawn(40_000, [1.5, -0.7], 0.8);
    let found = Combination::fit(&["a", "b", "constant"], &rows, &correct, 1.0).unwrap();
    let weight = |at: usize| found.signals[at].weight;
    assert!((weight(0) - 1.5).abs() < 0.06, "{found:?}");
    assert!((weight(1) + 0.7).abs() < 0.06, "{found:?}");
    assert!((found.intercept - 0.8).abs() < 0.06, "{found:?}");
    assert!(weight(2).abs() < CONVERGED, "a signal that never changes tells nothing: {found:?}");
    // The intercept has no penalty, so the mean probability is the fraction of correct mentions.
    let mean = rows.iter().map(|row| found.probability(row)).sum::<f64>() / rows.len() as f64;
    let fraction = correct.iter().filter(|is| **is).count() as f64 / rows.len() as f64;
    assert!((mean - fraction).abs() < CONVERGED, "{mean} {fraction}");
}

#[test]
fn two_valued_signal_gets_the_log_odds_of_its_table() {
    // 30 of 40 mentions at x = 1 are correct and 10 of 40 at x = −1: without a penalty logit p(±1) = ±ln 3.
    let rows: Vec<Vec<f64>> = (0..80).map(|at| vec![if at < 40 { 1.0 } else { -1.0 }]).collect();
    let correct: Vec<bool> = (0..80).map(|at| at % 40 < if at < 40 { 30 } else { 10 }).collect();
    let free = Combination::fit(&["x"], &rows, &correct, 0.0).unwrap();
    assert!((free.logit(&[1.0]) - 3.0_f64.ln()).abs() < CONVERGED, "{free:?}");
    assert!((free.probability(&[-1.0]) - 0.25).abs() < CONVERGED, "{free:?}");
    // With a penalty 80 (σ(w) − 3/4) + ridge · w = 0 holds.
    for ridge in [1.0, 20.0] {
        let weight = Combination::fit(&["x"], &rows, &correct, ridge).unwrap().signals[0].weight;
        let slope = 80.0 * (logistic(weight) - 0.75) + ridge * weight;
        assert!(slope.abs() < 1e-4 && weight < 3.0_f64.ln(), "{ridge}: {weight} {slope}");
    }
}

#[test]
fn equal_signals_get_equal_finite_weights_on_separable_data() {
    let rows: Vec<Vec<f64>> = (0..60).map(|at| vec![f64::from(at); 2]).collect();
    let correct: Vec<bool> = (0..60).map(|at| at >= 30).collect();
    let found = Combination::fit(&["a", "b"], &rows, &correct, 1.0).unwrap();
    let [a, b] = [found.signals[0].weight, found.signals[1].weight];
    assert!((a - b).abs() < CONVERGED && a.is_finite() && a > 0.0, "{found:?}");
}

#[test]
fn combination_round_trips_through_json() {
    let (rows, correct) = drawn(200, [1.0, 1.0], 0.0);
    let found = Combination::fit(&["a", "b", "c"], &rows, &correct, 1.0).unwrap();
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Combination>(&text).unwrap(), found);
}

#[test]
fn unusable_combination_data_is_rejected() {
    let rows = vec![vec![1.0]; 30];
    let fit = |rows: &[Vec<f64>], correct: &[bool]| Combination::fit(&["x"], rows, correct, 1.0);
    let few: Vec<bool> = (0..30).map(|at| at < 9).collect();
    assert!(matches!(fit(&rows, &few), Err(CalibrationError::TooFew { found: 9, .. })));
    assert!(matches!(fit(&rows, &few[1..]), Err(CalibrationError::Length { .. })));
    let half: Vec<bool> = (0..30).map(|at| at % 2 == 0).collect();
    let mut broken = rows.clone();
    broken[7] = vec![f64::NAN];
    assert!(matches!(fit(&broken, &half), Err(CalibrationError::NotFinite { .. })));
    broken[7] = vec![1.0, 2.0];
    assert!(matches!(fit(&broken, &half), Err(CalibrationError::Length { .. })));
}
