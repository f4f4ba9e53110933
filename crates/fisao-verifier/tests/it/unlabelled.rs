use fisao_verifier::calibration::{
    Anchors, Bootstrap, CalibrationError, Labels, UnlabelledConfig, fit_annotated, fit_unlabelled,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Normal deviates by Box and Muller.
pub(crate) struct Normal(pub(crate) ChaCha8Rng);

impl Normal {
    pub(crate) fn draw(&mut self, mean: f64, deviation: f64) -> f64 {
        let (u, v): (f64, f64) = (self.0.random(), self.0.random());
        let radius = (-2.0 * (1.0 - u).ln()).sqrt();
        mean + deviation * radius * (2.0 * std::f64::consts::PI * v).cos()
    }
}

struct Planted {
    scores: Vec<f64>,
    correct: Vec<bool>,
    mismatched: Vec<f64>,
    drops: Vec<f64>,
}

/// Correct 0.49 ± 0.05, hallucinated 0.34 ± 0.07, one in five hallucinated; mismatched pairs near
/// 0.01, as far from μ₋ as a real verifier puts them.
fn planted(count: usize, seed: u64) -> Planted {
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(seed));
    let correct: Vec<bool> = (0..count).map(|i| i % 5 != 0).collect();
    Planted {
        scores: correct
            .iter()
            .map(|&is| if is { normal.draw(0.49, 0.05) } else { normal.draw(0.34, 0.07) })
            .collect(),
        mismatched: (0..200).map(|_| normal.draw(0.01, 0.06)).collect(),
        drops: correct
            .iter()
            .map(|&is| if is { normal.draw(3.0, 1.0) } else { normal.draw(0.5, 0.5) })
            .collect(),
        correct,
    }
}

fn quick() -> UnlabelledConfig {
    UnlabelledConfig { bootstrap: Bootstrap { samples: 40, seed: 0 }, ..Default::default() }
}

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{what}: {found} is not {expected} ± {tolerance}"
    );
}

#[test]
fn unlabelled_fit_recovers_a_synthetic_mixture() {
    let world = planted(3000, 1);
    for log_prob_drops in [None, Some(world.drops.as_slice())] {
        let anchors = Anchors { mismatched: &world.mismatched, log_prob_drops, views: None };
        let config = quick();
        let found = fit_unlabelled(&world.scores, &anchors, &config).unwrap();
        let truth = fit_annotated(&world.scores, &world.correct).unwrap();
        assert_eq!(found.mode, Labels::None);
        close("mu_correct", found.mu_correct, truth.mu_correct, 0.01);
        close("mu_hallucinated", found.mu_hallucinated, truth.mu_hallucinated, 0.03);
        close("sigma_correct", found.sigma_correct, truth.sigma_correct, 0.01);
        close("sigma_hallucinated", found.sigma_hallucinated, truth.sigma_hallucinated, 0.02);
        close("prior", found.prior_correct, 0.8, 0.06);
        close("auc", found.auc, truth.auc, 0.03);
        assert_eq!(found.correct + found.hallucinated, 3000);
        let intervals = found.intervals.unwrap();
        let lower = intervals.mu_hallucinated;
        assert!(lower.low < found.mu_hallucinated && found.mu_hallucinated < lower.high);
        // Wider than if the classes were known (±2 · 0.07/√600 = 0.011 wide), but not by much.
        assert!((0.011..0.08).contains(&(lower.high - lower.low)), "{lower:?}");
        assert!(intervals.mu_correct.high - intervals.mu_correct.low < 0.02);
        assert_eq!(found.validate(), Ok(()));
    }
}

#[test]
fn mismatched_mean_bounds_the_lower_class_mean() {
    let world = planted(1000, 2);
    // An anchor above where the free fit would end: it must hold.
    let raised: Vec<f64> = world.mismatched.iter().map(|score| score + 0.40).collect();
    let bound = raised.iter().sum::<f64>() / raised.len() as f64;
    let fit = |mismatched: &[f64]| {
        let anchors = Anchors { mismatched, log_prob_drops: None, views: None };
        fit_unlabelled(&world.scores, &anchors, &quick()).unwrap()
    };
    assert!(fit(&world.mismatched).mu_hallucinated < bound - 0.01);
    assert!(fit(&raised).mu_hallucinated >= bound - 1e-12);
}

#[test]
fn unlabelled_fit_does_not_depend_on_the_order_of_scores() {
    let world = planted(500, 3);
    let config = quick();
    let anchors = Anchors { mismatched: &world.mismatched, log_prob_drops: None, views: None };
    let forward = fit_unlabelled(&world.scores, &anchors, &config).unwrap();
    let reversed: Vec<f64> = world.scores.iter().rev().copied().collect();
    let backward = fit_unlabelled(&reversed, &anchors, &config).unwrap();
    close("mu_hallucinated", forward.mu_hallucinated, backward.mu_hallucinated, 1e-4);
    close("auc", forward.auc, backward.auc, 1e-4);
}

#[test]
fn single_class_of_scores_is_not_split_into_two() {
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(4));
    let scores: Vec<f64> = (0..500).map(|_| normal.draw(0.4, 0.05)).collect();
    let mismatched: Vec<f64> = (0..50).map(|_| normal.draw(0.0, 0.05)).collect();
    let anchors = Anchors { mismatched: &mismatched, log_prob_drops: None, views: None };
    let error = fit_unlabelled(&scores, &anchors, &quick()).unwrap_err();
    assert!(matches!(error, CalibrationError::Unseparated { scores: 500, .. }), "{error}");
}

#[test]
fn unusable_unlabelled_data_is_rejected_with_the_reason() {
    let world = planted(100, 5);
    let config = UnlabelledConfig::default();
    let fit = |scores: &[f64], mismatched: &[f64], log_prob_drops: Option<&[f64]>| {
        fit_unlabelled(scores, &Anchors { mismatched, log_prob_drops, views: None }, &config)
            .unwrap_err()
    };
    let (scores, mismatched) = (&world.scores, &world.mismatched);
    assert!(matches!(
        fit(&scores[..19], mismatched, None),
        CalibrationError::TooFew { what: "mentions", found: 19, needed: 20 }
    ));
    assert!(matches!(
        fit(scores, &[], None),
        CalibrationError::TooFew { what: "mismatched pairs", found: 0, .. }
    ));
    assert!(matches!(
        fit(scores, mismatched, Some(&[0.0])),
        CalibrationError::Length { scores: 100, found: 1, .. }
    ));
    assert!(matches!(
        fit(&[f64::INFINITY; 30], mismatched, None),
        CalibrationError::NotFinite { index: 0, .. }
    ));
    assert!(matches!(fit(&[0.3; 30], mismatched, None), CalibrationError::NoSpread { .. }));
}
