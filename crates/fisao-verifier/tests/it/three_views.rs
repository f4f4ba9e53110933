//! Calibration from three views of simulated mentions, beside calibration with their labels.

use fisao_verifier::calibration::{
    Anchors, Bootstrap, Calibration, CalibrationError, Correctness, Labels, Statistic,
    ThreeViewsConfig, UnlabelledConfig, Views, fit_annotated, fit_three_views, fit_unlabelled,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::corrected::DISTANCES;
use crate::unlabelled::Normal;

/// Errors of ẑ that leave a corrected reward usable: at q* = ½ they move the break-even precision by 0.1.
const USABLE: f64 = 0.25;

/// One resample: these tests are about the estimate.
fn quick() -> ThreeViewsConfig {
    ThreeViewsConfig { bootstrap: Bootstrap { samples: 1, seed: 0 }, ..Default::default() }
}

fn distance(auc: f64) -> f64 {
    DISTANCES.iter().find(|(of, _)| (of - auc).abs() < 1e-9).unwrap().1
}

/// Mentions of which `fraction` are correct. Both classes have a spread of 1 in every view, and μ₋ = 0.
struct World {
    views: [Vec<f64>; 3],
    correct: Vec<bool>,
    distance: f64,
    fraction: f64,
}

/// What a calibration misses: μ₊ and μ₋ (σ), π, E[ẑ | correct] − 1 and E[ẑ | hallucinated].
#[derive(Debug)]
struct Missed {
    means: [f64; 2],
    fraction: f64,
    correctness: [f64; 2],
}

impl World {
    /// `aucs` of the score and of the other two, with `correlation` of all pairs within each class.
    fn new(count: usize, fraction: f64, aucs: [f64; 3], correlation: f64, seed: u64) -> Self {
        let mut normal = Normal(ChaCha8Rng::seed_from_u64(seed));
        let mut views: [Vec<f64>; 3] = Default::default();
        let correct: Vec<bool> = (0..count).map(|_| normal.0.random_bool(fraction)).collect();
        for &is in &correct {
            let common = normal.draw(0.0, correlation.sqrt());
            for (view, auc) in views.iter_mut().zip(aucs) {
                let mean = if is { distance(auc) } else { 0.0 };
                view.push(normal.draw(mean + common, (1.0 - correlation).sqrt()));
            }
        }
        Self { views, correct, distance: distance(aucs[0]), fraction }
    }

    fn others(&self) -> Views<'_> {
        Views { second: &self.views[1], third: &self.views[2], captions: None }
    }

    fn fit(&self) -> Result<Calibration, CalibrationError> {
        fit_three_views(&self.views[0], &self.others(), &quick())
    }

    fn labelled(&self) -> Calibration {
        fit_annotated(&self.views[0], &self.correct).unwrap()
    }

    /// Expectations over all mentions there could be, not over those at hand.
    fn missed(&self, found: &Calibration) -> Missed {
        let correctness = Correctness::new(found, Statistic::Posterior).unwrap();
        let mean = |mu: f64| {
            let (mut sum, mut total) = (0.0, 0.0);
            for cell in 0..400 {
                let z = (f64::from(cell) - 199.5) * 0.03;
                let density = (-0.5 * z * z).exp();
                sum += density * correctness.estimate(mu + z);
                total += density;
            }
            sum / total
        };
        Missed {
            means: [found.mu_correct - self.distance, found.mu_hallucinated],
            fraction: found.prior_correct - self.fraction,
            correctness: [mean(self.distance) - 1.0, mean(0.0)],
        }
    }
}

impl Missed {
    fn usable(&self) -> bool {
        self.correctness.iter().all(|error| error.abs() <= USABLE)
    }
}

/// Root mean squares of what is missed over seeds 0 to 7, with views and with labels.
fn over_seeds(count: usize, fraction: f64, aucs: [f64; 3]) -> [[f64; 5]; 2] {
    let mut squares = [[0.0; 5]; 2];
    for seed in 0..8 {
        let world = World::new(count, fraction, aucs, 0.0, seed);
        let fit =
            world.fit().unwrap_or_else(|error| panic!("{fraction}, {aucs:?}, {seed}: {error}"));
        for (sums, calibration) in squares.iter_mut().zip([fit, world.labelled()]) {
            let Missed { means: [plus, minus], fraction, correctness: [right, wrong] } =
                world.missed(&calibration);
            for (sum, error) in sums.iter_mut().zip([plus, minus, fraction, right, wrong]) {
                *sum += error * error / 8.0;
            }
        }
    }
    squares.map(|row| row.map(f64::sqrt))
}

/// Bounds on μ₊, μ₋, π, E[ẑ | correct] and E[ẑ | hallucinated], above what was measured by half. A score of AUC 0.8 shows
/// no two humps; the other views do the work.
#[test]
fn three_views_calibrate_weak_verifiers_without_labels() {
    let cells = [
        (2000, 0.75, [0.7, 0.8, 0.8], [0.08, 0.15, 0.06, 0.08, 0.2]),
        (2000, 0.85, [0.8, 0.8, 0.8], [0.06, 0.17, 0.05, 0.04, 0.2]),
        (2000, 0.85, [0.8, 0.7, 0.9], [0.06, 0.2, 0.06, 0.05, 0.25]),
        (8000, 0.85, [0.6, 0.8, 0.8], [0.04, 0.1, 0.06, 0.08, 0.28]),
        (8000, 0.95, [0.9, 0.9, 0.9], [0.03, 0.2, 0.02, 0.02, 0.15]),
    ];
    for (count, fraction, aucs, bounds) in cells {
        let [found, _] = over_seeds(count, fraction, aucs);
        let within = found.iter().zip(bounds).all(|(found, bound)| *found <= bound);
        assert!(within, "{count}, {fraction}, {aucs:?}: {found:?} exceeds {bounds:?}");
    }
}

/// What labels add: the fraction of the correct and the means of either class are at most so many times less exact.
#[test]
fn three_views_are_less_exact_than_labels_by_a_bounded_factor() {
    let [views, labels] = over_seeds(8000, 0.85, [0.8, 0.8, 0.8]);
    for (number, most) in [(0, 3.0), (1, 5.0), (2, 10.0)] {
        let ratio = views[number] / labels[number];
        assert!((0.5..most).contains(&ratio), "number {number}: {ratio} times");
    }
    let [few, _] = over_seeds(1000, 0.75, [0.8, 0.8, 0.8]);
    let [many, _] = over_seeds(16_000, 0.75, [0.8, 0.8, 0.8]);
    assert!(many[1] < few[1] / 2.0, "μ₋: {} σ with 1,000, {} σ with 16,000", few[1], many[1]);
}

/// Of a rising function of a view, and of a view with five values, only the order counts.
#[test]
fn three_views_fit_depends_only_on_the_order_of_a_view() {
    let mut usable = 0;
    for seed in 0..8 {
        let mut world = World::new(4000, 0.85, [0.8, 0.8, 0.8], 0.0, seed);
        let plain = world.fit().unwrap();
        world.views[1].iter_mut().for_each(|value| *value = (0.7 * *value).exp());
        let skewed = world.fit().unwrap();
        assert!((plain.mu_hallucinated - skewed.mu_hallucinated).abs() < 1e-9);
        world.views[2]
            .iter_mut()
            .for_each(|value| *value = (*value / 0.7).round().clamp(-1.0, 3.0));
        usable += usize::from(world.missed(&world.fit().unwrap()).usable());
    }
    assert!(usable >= 7, "{usable} of 8");
}

/// Classes of unequal spread: the hallucinated one wider in every view.
#[test]
fn three_views_fit_recovers_unequal_spreads() {
    let mut sigmas = Vec::new();
    for seed in 0..6 {
        let mut world = World::new(6000, 0.8, [0.8, 0.9, 0.9], 0.0, seed);
        for view in &mut world.views {
            for (value, correct) in view.iter_mut().zip(&world.correct) {
                *value *= if *correct { 1.0 } else { 1.4 };
            }
        }
        let found = world.fit().unwrap();
        sigmas.push(found.sigma_hallucinated / found.sigma_correct);
        assert!(found.mu_hallucinated.abs() < 0.2, "seed {seed}: {}", found.mu_hallucinated);
    }
    let mean = sigmas.iter().sum::<f64>() / 6.0;
    assert!((mean - 1.4).abs() < 0.12, "{mean}: {sigmas:?}");
}

/// Views that depend on each other within the classes bias the fraction; where the bias is large it is found out.
#[test]
fn dependent_views_are_rejected() {
    let refused = |count: usize, correlation: f64| {
        (0..8)
            .filter(|seed| {
                let world = World::new(count, 0.85, [0.8, 0.8, 0.8], correlation, *seed);
                matches!(world.fit(), Err(CalibrationError::Dependent { errors, .. }) if errors > 3.0)
            })
            .count()
    };
    assert_eq!(refused(2000, 0.0), 0);
    assert_eq!(refused(8000, 0.0), 0);
    assert_eq!(refused(2000, 0.3), 8);
    // A correlation of 0.1 takes more mentions to see.
    assert!(refused(2000, 0.1) <= 4 && refused(16_000, 0.1) >= 7);
}

#[test]
fn mention_probabilities_are_calibrated() {
    let world = World::new(8000, 0.8, [0.8, 0.9, 0.9], 0.0, 3);
    let found = world.fit().unwrap();
    assert_eq!((found.mode, found.validate()), (Labels::None, Ok(())));
    assert_eq!(found.correct + found.hallucinated, 8000);
    let expected = found.mentions.correct.iter().sum::<f64>().round() as usize;
    assert_eq!(found.correct, expected);
    assert!((found.auc - 0.8).abs() < 0.03, "{}", found.auc);
    // Of the mentions given a probability between two tenths, about that fraction is correct.
    for tenth in 0..10 {
        let range = f64::from(tenth) / 10.0..f64::from(tenth + 1) / 10.0;
        let chosen: Vec<(f64, bool)> = found
            .mentions
            .correct
            .iter()
            .zip(&world.correct)
            .filter(|(p, _)| range.contains(p))
            .map(|(p, is)| (*p, *is))
            .collect();
        let count = chosen.len() as f64;
        let expected = chosen.iter().map(|(p, _)| p).sum::<f64>() / count;
        let right = chosen.iter().filter(|(_, is)| *is).count() as f64 / count;
        let tolerance = 0.08 + 3.0 * (0.25 / count).sqrt();
        assert!((right - expected).abs() < tolerance, "{right} of {count} near {expected}");
    }
}

/// 95 % intervals hold the truth in most worlds; those over captions are wider where mentions of one caption agree.
#[test]
fn intervals_cover_the_truth_and_account_for_shared_captions() {
    let config = ThreeViewsConfig {
        bootstrap: Bootstrap { samples: 60, seed: 0 },
        ..ThreeViewsConfig::default()
    };
    let (mut held, mut refused) = ([0; 2], 0);
    for seed in 0..12 {
        let world = World::new(1500, 0.8, [0.8, 0.9, 0.9], 0.0, 100 + seed);
        // The check of independence errs now and then.
        let Ok(found) = fit_three_views(&world.views[0], &world.others(), &config) else {
            refused += 1;
            continue;
        };
        let intervals = found.intervals.unwrap();
        let truth = [(intervals.mu_correct, world.distance), (intervals.mu_hallucinated, 0.0)];
        for (count, (interval, truth)) in held.iter_mut().zip(truth) {
            *count += usize::from((interval.low..=interval.high).contains(&truth));
        }
    }
    assert!(refused <= 1 && held.iter().all(|count| *count >= 9), "{held:?} of 12 − {refused}");

    // Every mention twice, in one caption.
    let world = World::new(750, 0.8, [0.8, 0.9, 0.9], 0.0, 0);
    let twice = |view: &Vec<f64>| view.iter().flat_map(|v| [*v, *v]).collect::<Vec<_>>();
    let [scores, second, third] = world.views.each_ref().map(twice);
    let numbers: Vec<usize> = (0..1500).map(|mention| mention / 2).collect();
    let width = |captions: Option<&[usize]>| {
        let views = Views { second: &second, third: &third, captions };
        let found = fit_three_views(&scores, &views, &config)?.intervals.unwrap();
        Ok(found.mu_hallucinated.high - found.mu_hallucinated.low)
    };
    let alone = fit_three_views(&world.views[0], &world.others(), &config).unwrap();
    let alone = alone.intervals.unwrap().mu_hallucinated;
    let ratio = width(Some(&numbers)).unwrap() / (alone.high - alone.low);
    assert!((0.75..1.35).contains(&ratio), "{ratio}: twice the same mention tells nothing new");
    // Taken for independent they are too sure of everything, dependence of the views included.
    let sure: Result<f64, CalibrationError> = width(None);
    assert!(matches!(sure, Err(CalibrationError::Dependent { .. })), "{sure:?}");
}

#[test]
fn unusable_views_are_rejected_with_the_reason() {
    let world = World::new(2000, 0.85, [0.8, 0.9, 0.9], 0.0, 0);
    let [scores, second, third] = world.views.each_ref().map(Vec::as_slice);
    let refused = |scores: &[f64], second: &[f64], third: &[f64]| {
        let views = Views { second, third, captions: None };
        fit_three_views(scores, &views, &quick()).unwrap_err()
    };
    let broken: Vec<f64> =
        second.iter().enumerate().map(|(i, v)| if i == 7 { f64::NAN } else { *v }).collect();
    assert_eq!(
        refused(scores, &broken, third).to_string(),
        "second view 7 is NaN; every one must be a finite number"
    );
    assert_eq!(
        refused(scores, second, &third[1..]).to_string(),
        "2000 scores came with 1999 values of the third view; give one for every score"
    );
    assert!(matches!(
        refused(&scores[..199], &second[..199], &third[..199]),
        CalibrationError::TooFew { what: "mentions", found: 199, needed: 200 }
    ));
    assert_eq!(
        refused(scores, second, &[0.5; 2000]),
        CalibrationError::ConstantView { what: "third view" }
    );
    assert_eq!(
        refused(&[0.5; 2000], second, third),
        CalibrationError::NoSpread { what: "mentions" }
    );
    let views = Views { captions: Some(&[0, 1]), ..world.others() };
    assert!(matches!(
        fit_three_views(scores, &views, &quick()),
        Err(CalibrationError::Length { what: "captions", found: 2, .. })
    ));

    let reversed: Vec<f64> = third.iter().map(|value| -value).collect();
    let error = refused(scores, second, &reversed);
    assert!(
        matches!(error, CalibrationError::Opposed { first: "score", second: "third view", .. }),
        "{error}"
    );
    assert!(error.to_string().contains("reverse the sign"), "{error}");
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(9));
    let noise: Vec<f64> = scores.iter().map(|_| normal.draw(0.0, 1.0)).collect();
    let error = refused(scores, &noise, third);
    assert!(
        matches!(error, CalibrationError::Unrelated { .. } | CalibrationError::Opposed { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("second view"), "{error}");

    // Mostly hallucinated: believed where it is allowed.
    let mostly_wrong = World::new(4000, 0.3, [0.8, 0.9, 0.9], 0.0, 1);
    let error = mostly_wrong.fit().unwrap_err();
    assert!(
        matches!(error, CalibrationError::ImplausibleFraction { fraction, .. } if (fraction - 0.3).abs() < 0.06),
        "{error}"
    );
    let config = ThreeViewsConfig { least_fraction: 0.2, ..quick() };
    assert!(fit_three_views(&mostly_wrong.views[0], &mostly_wrong.others(), &config).is_ok());
}

/// Two Gaussians where they are apart, three views where they are not, and a reason where neither will do.
#[test]
fn unlabelled_fit_uses_three_views_where_gaussians_overlap() {
    let config = UnlabelledConfig {
        bootstrap: quick().bootstrap,
        three_views: quick(),
        ..UnlabelledConfig::default()
    };
    let fit = |world: &World, views: Option<Views<'_>>| {
        let mismatched: Vec<f64> = (0..200).map(|step| -9.0 + f64::from(step) / 200.0).collect();
        let anchors = Anchors { mismatched: &mismatched, log_prob_drops: None, views };
        fit_unlabelled(&world.views[0], &anchors, &config)
    };
    for seed in 0..4 {
        let weak = World::new(4000, 0.85, [0.8, 0.8, 0.8], 0.0, seed);
        let found = fit(&weak, Some(weak.others())).unwrap();
        assert_eq!(found, weak.fit().unwrap());
        assert!(weak.missed(&found).usable(), "seed {seed}: {:?}", weak.missed(&found));
        assert!(
            !fit(&weak, None).is_ok_and(|found| weak.missed(&found).usable() && found.auc > 0.96)
        );

        let strong = World::new(4000, 0.7, [0.9999, 0.8, 0.8], 0.0, seed);
        assert_eq!(fit(&strong, Some(strong.others())), fit(&strong, None));
    }
    // Outliers pass for a class by themselves, and not where the views are asked.
    let mut weak = World::new(4000, 0.85, [0.8, 0.8, 0.8], 0.0, 0);
    weak.views[0].iter_mut().step_by(50).for_each(|score| *score -= 8.0);
    assert!(fit(&weak, None).unwrap().auc > 0.99);
    assert_eq!(fit(&weak, Some(weak.others())), weak.fit());
    assert!(fit(&weak, Some(weak.others())).unwrap().auc < 0.85);

    let weak = World::new(4000, 0.85, [0.8, 0.8, 0.8], 0.0, 0);
    let short = Views { third: &weak.views[2][1..], ..weak.others() };
    assert!(matches!(fit(&weak, Some(short)), Err(CalibrationError::Length { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Other units of the score, other order of the mentions: the same calibration.
    #[test]
    fn three_views_fit_does_not_depend_on_units_and_order(seed in 0..1000u64, factor in 0.01..50.0f64, offset in -5.0..5.0f64) {
        let world = World::new(1200, 0.75, [0.8, 0.9, 0.9], 0.0, seed);
        prop_assume!(world.fit().is_ok());
        let expected = world.fit().unwrap();
        let backward = |view: &Vec<f64>| view.iter().rev().copied().collect::<Vec<_>>();
        let moved: Vec<f64> = world.views[0].iter().rev().map(|s| factor * s + offset).collect();
        let (second, third) = (backward(&world.views[1]), backward(&world.views[2]));
        let views = Views { second: &second, third: &third, captions: None };
        let found = fit_three_views(&moved, &views, &quick()).unwrap();
        for (found, expected) in [
            ((found.mu_correct - offset) / factor, expected.mu_correct),
            ((found.mu_hallucinated - offset) / factor, expected.mu_hallucinated),
            (found.sigma / factor, expected.sigma),
            (found.prior_correct, expected.prior_correct),
            (found.auc, expected.auc),
        ] {
            prop_assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }
}
