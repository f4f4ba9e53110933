use std::collections::BTreeMap;

use fisao_verifier::calibration::{
    Bootstrap, Calibration, CalibrationError, MentionScores, ProbabilityModel, auc,
    bootstrap_annotated, centres, fit_annotated, fit_sentences, histogram,
};
use proptest::prelude::*;

/// Every mention in a caption of its own.
pub(crate) fn alone(scores: &[f64]) -> Vec<usize> {
    (0..scores.len()).collect()
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected} ± {tolerance}");
}

/// Ten correct scores 1, 2, …, 10 and ten hallucinated ones −4, −3, …, 5.
pub(crate) fn hand_made() -> (Vec<f64>, Vec<bool>) {
    let correct = (1..=10).map(|s| (f64::from(s), true));
    let hallucinated = (-4..=5).map(|s| (f64::from(s), false));
    correct.chain(hallucinated).unzip()
}

/// A calibration with the given Gaussians and class fraction.
pub(crate) fn gaussians(plus: (f64, f64), minus: (f64, f64), prior: f64) -> Calibration {
    let (scores, correct) = hand_made();
    let pooled = f64::midpoint(plus.1.powi(2), minus.1.powi(2)).sqrt();
    Calibration {
        mu_correct: plus.0,
        sigma_correct: plus.1,
        mu_hallucinated: minus.0,
        sigma_hallucinated: minus.1,
        sigma: pooled,
        prior_correct: prior,
        // Known by its Gaussians alone.
        mentions: MentionScores::default(),
        ..fit_annotated(&scores, &correct).unwrap()
    }
}

/// Means 5.5 and 0.5. The sum of squared deviations of ten consecutive integers is 82.5, so both
/// variances are 82.5/9. Pairs won: a correct score k beats the hallucinated ones below it, of
/// which there are min(k+4, 10), and ties with itself while k ≤ 5; so Σ = (5+6+7+8+9) + 5·½ + 5·10.
#[test]
fn annotated_fit_matches_hand_computed_values() {
    let (scores, correct) = hand_made();
    let calibration = fit_annotated(&scores, &correct).unwrap();
    let deviation = (82.5_f64 / 9.0).sqrt();
    close(calibration.mu_correct, 5.5, 1e-12);
    close(calibration.mu_hallucinated, 0.5, 1e-12);
    close(calibration.sigma_correct, deviation, 1e-12);
    close(calibration.sigma, deviation, 1e-12);
    close(calibration.auc, 87.5 / 100.0, 1e-12);
    close(calibration.prior_correct, 0.5, 1e-12);
    assert_eq!((calibration.correct, calibration.hallucinated), (10, 10));
    assert_eq!(calibration.histograms.correct.counts.iter().sum::<usize>(), 10);
    // Equal spreads and fractions: even odds lie midway, and the log-odds are 5 (s − 3) / σ².
    close(calibration.score_at(0.5, ProbabilityModel::Gaussians).unwrap(), 3.0, 1e-9);
    close(calibration.logit(4.0, ProbabilityModel::Gaussians), 5.0 * 9.0 / 82.5, 1e-12);
    // The two classes mirror each other about 3, so must the regression.
    close(calibration.logistic.logit(3.0), 0.0, 1e-9);
    assert_eq!(calibration.validate(), Ok(()));
}

#[test]
fn pooled_spread_weights_classes_by_size() {
    // Variances 1·20/19 over 20 scores of ±1 and 4·10/9 over 10 scores of ±2, about their means.
    let right = (0..20).map(|i| (10.0 + f64::from(1 - 2 * (i % 2)), true));
    let wrong = (0..10).map(|i| (2.0 * f64::from(1 - 2 * (i % 2)), false));
    let (scores, correct): (Vec<f64>, Vec<bool>) = right.chain(wrong).unzip();
    let calibration = fit_annotated(&scores, &correct).unwrap();
    close(calibration.sigma, ((20.0 + 40.0) / 28.0_f64).sqrt(), 1e-12);
    close(calibration.prior_correct, 2.0 / 3.0, 1e-12);
    close(calibration.auc, 1.0, 0.0);
}

/// Fitted values of an independent derivation: with one score per class value the optimum of the
/// regression matches Platt's targets exactly, (n₊+1)/(n₊+2) = 11/12 and 1/(n₋+2) = 1/12 when the
/// classes sit at two points.
#[test]
fn logistic_regression_reaches_platt_targets() {
    let scores: Vec<f64> =
        (0..20).map(|i| if i < 10 { 2.0 } else { 1.0 } + 1e-9 * f64::from(i)).collect();
    let correct: Vec<bool> = (0..20).map(|i| i < 10).collect();
    let calibration = fit_annotated(&scores, &correct).unwrap();
    close(calibration.probability(2.0, ProbabilityModel::Logistic), 11.0 / 12.0, 1e-6);
    close(calibration.probability(1.0, ProbabilityModel::Logistic), 1.0 / 12.0, 1e-6);
}

#[test]
fn unusable_scores_are_rejected_with_the_reason() {
    let (mut scores, mut correct) = hand_made();
    assert!(matches!(
        fit_annotated(&scores[1..], &correct),
        Err(CalibrationError::Length { scores: 19, found: 20, .. })
    ));
    assert!(matches!(
        fit_annotated(&scores[..19], &correct[..19]),
        Err(CalibrationError::TooFew { what: "hallucinated mentions", found: 9, needed: 10 })
    ));
    let flipped: Vec<bool> = correct.iter().map(|is| !is).collect();
    let error = fit_annotated(&scores, &flipped).unwrap_err();
    assert!(error.to_string().contains("AUC 0.125, mean 5.5000 against 0.5000"), "{error}");
    scores[3] = f64::NAN;
    assert!(matches!(
        fit_annotated(&scores, &correct),
        Err(CalibrationError::NotFinite { index: 3, .. })
    ));
    scores = vec![1.0; 20];
    assert!(matches!(
        fit_annotated(&scores, &correct),
        Err(CalibrationError::NoSpread { what: "correct mentions" })
    ));
    for (all, fix) in [(true, "--temperature"), (false, "annotations belong to these images")] {
        correct.fill(all);
        let error = fit_annotated(&hand_made().0, &correct).unwrap_err().to_string();
        assert!(error.contains("all 20 mentions") && error.contains(fix), "{error}");
    }
}

#[test]
fn calibration_round_trips_through_json_and_is_validated() {
    let (scores, correct) = hand_made();
    let mut calibration = fit_annotated(&scores, &correct).unwrap();
    calibration.centres = Some(BTreeMap::from([("dog".to_owned(), 0.25)]));
    calibration.sentence = Some(fit_sentences(&scores).unwrap());
    let json = serde_json::to_string(&calibration).unwrap();
    assert_eq!(serde_json::from_str::<Calibration>(&json).unwrap(), calibration);
    assert!(json.contains(r#""mode":"annotations""#));
    assert!(serde_json::from_str::<Calibration>(&json.replace("\"auc\"", "\"aux\"")).is_err());

    calibration.sigma = 0.0;
    let error = calibration.validate().unwrap_err();
    assert_eq!(error, CalibrationError::OutOfRange { field: "sigma", value: 0.0 });
    calibration.version = 9;
    assert_eq!(calibration.validate(), Err(CalibrationError::Version { found: 9 }));
}

/// A name that every image shows has no image to be centred by.
#[test]
fn names_without_a_centre_get_the_mean_centre() {
    let of = |name: &str, mean| (name.to_owned(), mean);
    let found = centres([of("dog", Some(0.1)), of("person", None), of("cat", Some(0.3))]);
    close(found["person"], 0.2, 1e-12);
    close(found["dog"], 0.1, 0.0);
    close(centres([of("person", None)])["person"], 0.0, 0.0);
}

#[test]
fn histograms_count_every_score() {
    let counted = histogram(&[0.0, 0.24, 0.25, 0.99, 1.0, -3.0, 7.0], 4, 0.0..1.0);
    assert_eq!(counted.counts, [3, 1, 0, 3]);
}

#[test]
fn bootstrap_intervals_contain_the_estimate_and_are_seeded() {
    let (scores, correct) = hand_made();
    let bootstrap = Bootstrap::default();
    let intervals = bootstrap_annotated(&scores, &correct, &alone(&scores), &bootstrap).unwrap();
    // Standard error of the mean √(82.5/9/10) ≈ 0.957 (0.908 under resampling): ±1.78.
    close(intervals.mu_correct.low, 5.5 - 1.78, 0.4);
    close(intervals.mu_correct.high, 5.5 + 1.78, 0.4);
    assert!(intervals.auc.low < 0.875 && 0.875 < intervals.auc.high);
    assert!(intervals.sigma_hallucinated.low < intervals.sigma_hallucinated.high);
    assert_eq!(
        bootstrap_annotated(&scores, &correct, &alone(&scores), &bootstrap).unwrap(),
        intervals
    );
    let other = Bootstrap { seed: 1, ..bootstrap };
    assert_ne!(bootstrap_annotated(&scores, &correct, &alone(&scores), &other).unwrap(), intervals);
}

proptest! {
    #[test]
    fn auc_equals_its_definition(
        positive in prop::collection::vec((-6i8..6).prop_map(|s| f64::from(s) / 4.0), 1..40),
        negative in prop::collection::vec((-6i8..6).prop_map(|s| f64::from(s) / 4.0), 1..40),
    ) {
        let won = |p: f64, n: f64| if p > n { 1.0 } else if p < n { 0.0 } else { 0.5 };
        let pairs = (positive.len() * negative.len()) as f64;
        let expected: f64 =
            positive.iter().map(|p| negative.iter().map(|n| won(*p, *n)).sum::<f64>()).sum();
        prop_assert!((auc(&positive, &negative) - expected / pairs).abs() < 1e-12);
        prop_assert!((auc(&positive, &negative) + auc(&negative, &positive) - 1.0).abs() < 1e-12);
    }

    /// Whichever class is wider, more score is never less probable, and the Gaussian formula holds
    /// between the means.
    #[test]
    fn probability_is_monotone_in_the_score(
        gap in 0.01..3.0f64,
        sigma_plus in 0.05..2.0f64,
        sigma_minus in 0.05..2.0f64,
        prior in 0.02..0.98f64,
    ) {
        let calibration = gaussians((gap, sigma_plus), (0.0, sigma_minus), prior);
        let mut before = 0.0;
        for step in -200..=200 {
            let score = gap / 2.0 + f64::from(step) * 0.05;
            let now = calibration.probability(score, ProbabilityModel::Gaussians);
            prop_assert!((0.0..=1.0).contains(&now) && now >= before - 1e-12);
            before = now;
        }
        let density = |s: f64, mean: f64, sigma: f64| {
            (-0.5 * ((s - mean) / sigma).powi(2)).exp() / sigma
        };
        for score in [0.0, gap / 3.0, gap] {
            let right = prior * density(score, gap, sigma_plus);
            let wrong = (1.0 - prior) * density(score, 0.0, sigma_minus);
            let found = calibration.probability(score, ProbabilityModel::Gaussians);
            prop_assert!((found - right / (right + wrong)).abs() < 1e-9);
        }
        if let Some(score) = calibration.score_at(0.9, ProbabilityModel::Gaussians) {
            let found = calibration.probability(score, ProbabilityModel::Gaussians);
            prop_assert!((found - 0.9).abs() < 1e-6);
        }
    }
}
