//! The corrected reward: its expectation given the truth does not depend on the verifier.

use fisao_verifier::calibration::{
    Calibration, CalibrationError, Correctness, MentionScores, Statistic, fit_annotated,
};
use fisao_verifier::rewards::{
    PenaltyWeight, Response, RewardConfig, RewardError, RewardForm, RewardRule, ScoredMention,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::calibration::gaussians;

/// d′ = √2 Φ⁻¹(AUC) of the AUCs below: the distance of two Gaussians of spread 1, from tables of the normal distribution.
pub(crate) const DISTANCES: [(f64, f64); 6] = [
    (0.6, 0.358_29),
    (0.7, 0.741_61),
    (0.8, 1.190_23),
    (0.9, 1.812_39),
    (0.95, 2.326_17),
    (0.9999, 5.259_5),
];

fn corrected(break_even: f64, statistic: Statistic) -> RewardConfig {
    let form = RewardForm::Corrected { break_even, scale: 6.0, statistic };
    RewardConfig { form, ..RewardConfig::default() }
}

/// Scores of mentions of which a fraction is correct, with the truth.
fn mentions(distance: f64, fraction: f64, count: usize, seed: u64) -> (Vec<f64>, Vec<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mention = |_| {
        let correct = rng.random_bool(fraction);
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        (if correct { distance + normal } else { normal }, correct)
    };
    (0..count).map(mention).unzip()
}

fn calibrated(distance: f64, fraction: f64, count: usize, seed: u64) -> Calibration {
    let (scores, correct) = mentions(distance, fraction, count, seed);
    fit_annotated(&scores, &correct).unwrap()
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (square / count).sqrt())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// On fresh mentions, within the error of both samples: calibration's and test's.
    #[test]
    fn expected_corrected_rewards_do_not_depend_on_the_auc(
        at in 0..DISTANCES.len(),
        fraction in 0.5..0.95f64,
        break_even in 0.1..0.9f64,
        posterior in any::<bool>(),
        seed in any::<u64>(),
    ) {
        const COUNT: usize = 20_000;
        let (auc, distance) = DISTANCES[at];
        let calibration = calibrated(distance, fraction, COUNT, seed);
        // Standard error of an AUC near 0.5, where it is largest, by the smaller class: 1/√(12 n).
        let smaller = COUNT as f64 * fraction.min(1.0 - fraction);
        let tolerance = 5.0 / (12.0 * smaller).sqrt();
        let found = calibration.auc;
        prop_assert!((found - auc).abs() < tolerance, "{found} is not {auc} ± {tolerance}");
        let statistic = if posterior { Statistic::Posterior } else { Statistic::Score };
        let rule = RewardRule::new(&corrected(break_even, statistic), &calibration).unwrap();
        let (scores, correct) = mentions(distance, fraction, COUNT, !seed);
        for (class, expected) in [(true, 6.0 * (1.0 - break_even)), (false, -6.0 * break_even)] {
            let of_class = scores.iter().zip(&correct).filter(|(_, is)| **is == class);
            let rewards: Vec<f64> = of_class.map(|(&score, _)| rule.mention_reward(score)).collect();
            let (mean, error) = mean_and_error(&rewards);
            // The class means behind the reward are as uncertain as the mean tested here, and the gap they are divided by too.
            let fewer = fraction.min(1.0 - fraction) / if class { fraction } else { 1.0 - fraction };
            let tolerance = 5.0 * error * (2.0 + 1.0 / fewer.min(1.0)).sqrt() + 0.02;
            prop_assert!((mean - expected).abs() < tolerance, "{mean} is not {expected} ± {tolerance}");
        }
    }
}

/// Mentions of correct and of hallucinated objects vary less about their means under the posterior than under any other
/// statistic; a score, and a score cut off, are tried.
#[test]
fn posterior_statistic_has_the_least_variance() {
    for (_, distance) in DISTANCES {
        let calibration = calibrated(distance, 0.83, 50_000, 7);
        let noise = |statistic| Correctness::new(&calibration, statistic).unwrap().noise();
        assert!(noise(Statistic::Posterior) < noise(Statistic::Score) * 1.001, "d′ = {distance}");
        let cut = |score: f64| score.clamp(0.0, distance);
        let variance = |f: &dyn Fn(f64) -> f64| {
            let all = &calibration.mentions;
            let (plus, minus) = all.class_means(f).unwrap();
            let (plus_square, minus_square) = all.class_means(|s| f(s).powi(2)).unwrap();
            let within = 0.83 * (plus_square - plus * plus) + 0.17 * (minus_square - minus * minus);
            within / (plus - minus).powi(2)
        };
        assert!(noise(Statistic::Posterior).powi(2) < variance(&cut) * 1.001, "d′ = {distance}");
    }
}

/// d′ = 1, equal fractions: with f the score, ẑ = s and its spread in both classes is 1.
#[test]
fn score_noise_matches_hand_computed_value() {
    let correctness =
        Correctness::new(&gaussians((1.0, 1.0), (0.0, 1.0), 0.5), Statistic::Score).unwrap();
    assert!((correctness.estimate(0.3) - 0.3).abs() < 1e-9);
    assert!((correctness.noise() - 1.0).abs() < 1e-4, "{}", correctness.noise());
}

#[test]
fn perfect_verifier_gives_the_full_corrected_reward() {
    let calibration = gaussians((10.0, 0.1), (0.0, 0.1), 0.8);
    let rule = RewardRule::new(&corrected(0.6, Statistic::Posterior), &calibration).unwrap();
    assert!((rule.mention_reward(10.0) - 2.4).abs() < 1e-9);
    assert!((rule.mention_reward(0.0) + 3.6).abs() < 1e-9);
}

/// What each form pays from. Thresholds at λ = 0 with equal classes are fair at one half; the log-odds of the weak verifier
/// never pay, which is why a policy aligned with them falls silent.
#[test]
fn every_form_states_its_break_even_precision() {
    let even = gaussians((0.5, 0.1), (0.3, 0.1), 0.5);
    let weak = gaussians((0.5, 0.1), (0.4, 0.1), 0.83);
    let of = |form: &str, calibration: &Calibration| {
        let config: RewardConfig =
            toml::from_str(&format!("penalty-weight = 1\n[form]\nkind = \"{form}\"")).unwrap();
        RewardRule::new(&config, calibration).unwrap().break_even()
    };
    assert!((of("threshold", &even) - 0.5).abs() < 1e-6);
    assert!((of("corrected", &weak) - 0.5).abs() < 1e-12);
    assert!(of("log-odds", &weak) > 1.0, "{}", of("log-odds", &weak));
    let sure = gaussians((1.0, 0.01), (0.0, 0.01), 0.8);
    assert!((of("log-odds", &sure) - 0.5).abs() < 1e-6, "±max, whatever p*");
}

#[test]
fn the_break_even_precision_moves_within_its_range() {
    let mut rule = RewardRule::new(
        &corrected(0.5, Statistic::Posterior),
        &gaussians((1.0, 0.1), (0.0, 0.1), 0.8),
    )
    .unwrap();
    rule.set_break_even(0.7).unwrap();
    assert!((rule.break_even() - 0.7).abs() < 1e-12);
    assert!((rule.mention_reward(1.0) - 1.8).abs() < 1e-4);
    for wrong in [0.0, 1.0, f64::NAN] {
        assert!(
            matches!(rule.set_break_even(wrong), Err(RewardError::OutOfRange { .. })),
            "{wrong}"
        );
    }
}

/// Whatever its score happens to be: a minimum over noisy rewards would be a bias.
#[test]
fn repeated_mention_gets_exactly_the_repetition_penalty() {
    let rule = RewardRule::new(
        &corrected(0.5, Statistic::Posterior),
        &gaussians((1.0, 0.5), (0.0, 0.5), 0.8),
    )
    .unwrap();
    for score in [-3.0, 0.5, 3.0] {
        let mentions = [0..1, 2..3].map(|tokens| ScoredMention { category: 0, tokens, score });
        let response = Response {
            mentions: &mentions,
            token_count: 4,
            truncated: false,
            sentence_score: None,
        };
        let rewards = rule.token_rewards(&response);
        assert!((f64::from(rewards[2]) + 1.0).abs() < 1e-6, "{rewards:?}");
    }
}

#[test]
fn calibrations_with_overlapping_classes_are_rejected() {
    let near = Calibration { auc: 0.55, ..gaussians((0.1, 1.0), (0.0, 1.0), 0.8) };
    let error = RewardRule::new(&corrected(0.5, Statistic::Posterior), &near).unwrap_err();
    assert!(
        matches!(error, RewardError::Calibration(CalibrationError::Indistinct { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("AUC 0.550; at least 0.55 is needed"), "{error}");
}

#[test]
fn corrected_form_rejects_a_separate_penalty_weight() {
    let calibration = gaussians((1.0, 0.1), (0.0, 0.1), 0.8);
    let form = corrected(0.5, Statistic::Posterior);
    let heavy = RewardConfig { penalty_weight: PenaltyWeight::Fixed(1.6), ..form };
    let error = RewardRule::new(&heavy, &calibration).unwrap_err().to_string();
    assert!(error.contains("form.break-even says what an error costs"), "{error}");
    let wrong = corrected(1.0, Statistic::Posterior);
    assert!(RewardRule::new(&wrong, &calibration).is_err());
}

#[test]
fn calibrations_without_mention_scores_use_their_gaussians() {
    let with = calibrated(1.190_23, 0.83, 100_000, 3);
    let without = Calibration { mentions: MentionScores::default(), version: 2, ..with.clone() };
    without.validate().unwrap();
    for score in [-1.0, 0.0, 1.0, 2.0] {
        let of = |calibration| {
            Correctness::new(calibration, Statistic::Posterior).unwrap().estimate(score)
        };
        let (sample, gaussian) = (of(&with), of(&without));
        assert!((sample - gaussian).abs() < 0.05, "{sample} and {gaussian} at {score}");
    }
    let broken = MentionScores { scores: vec![0.1, 0.2], correct: vec![1.0, 2.0] };
    assert!(Calibration { mentions: broken, ..without }.validate().is_err());
}
