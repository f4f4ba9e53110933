//! What holds of calibrations whatever the scores.

use fisao_verifier::calibration::{
    Anchors, Bootstrap, Calibration, CalibrationError, Interval, Intervals, MINIMUM_PER_CLASS,
    ProbabilityModel, SentenceCalibration, UnlabelledConfig, bootstrap_annotated, fit_annotated,
    fit_sentences, fit_unlabelled,
};
use proptest::prelude::*;
use proptest::sample::Index;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::calibration::alone;
use crate::unlabelled::Normal;

const MODELS: [ProbabilityModel; 2] = [ProbabilityModel::Gaussians, ProbabilityModel::Logistic];

/// Scores on a grid of 1/1024, so that shifts along the grid round nothing and ties stay ties; those
/// of correct mentions are higher by a random gap.
fn any_scores() -> impl Strategy<Value = Vec<(f64, bool)>> {
    let class = || prop::collection::vec(-1024..=1024i32, MINIMUM_PER_CLASS..40);
    (class(), class(), 0..1024i32).prop_map(|(right, wrong, gap)| {
        let on_grid = |steps: i32| f64::from(steps) / 1024.0;
        let right = right.into_iter().map(|steps| (on_grid(steps + gap), true));
        right.chain(wrong.into_iter().map(|steps| (on_grid(steps), false))).collect()
    })
}

fn fit(mentions: &[(f64, bool)]) -> Result<Calibration, CalibrationError> {
    let (scores, correct): (Vec<f64>, Vec<bool>) = mentions.iter().copied().unzip();
    fit_annotated(&scores, &correct)
}

fn moved(mentions: &[(f64, bool)], to: impl Fn(f64) -> f64) -> Vec<(f64, bool)> {
    mentions.iter().map(|(score, correct)| (to(*score), *correct)).collect()
}

/// Equal but for rounding, relative to the larger of the two and of 1.
fn close(what: &str, found: f64, expected: f64, tolerance: f64) -> Result<(), TestCaseError> {
    let scale = found.abs().max(expected.abs()).max(1.0);
    prop_assert!(
        (found - expected).abs() <= tolerance * scale,
        "{what}: {found} is not {expected}"
    );
    Ok(())
}

/// `found` is `expected` with every score s read as `factor` s + `offset`.
fn follows(
    found: &Calibration,
    expected: &Calibration,
    factor: f64,
    offset: f64,
) -> Result<(), TestCaseError> {
    let mean = |mu: f64| factor * mu + offset;
    for (what, found, expected) in [
        ("mu_correct", found.mu_correct, mean(expected.mu_correct)),
        ("mu_hallucinated", found.mu_hallucinated, mean(expected.mu_hallucinated)),
        ("sigma_correct", found.sigma_correct, factor * expected.sigma_correct),
        ("sigma_hallucinated", found.sigma_hallucinated, factor * expected.sigma_hallucinated),
        ("sigma", found.sigma, factor * expected.sigma),
    ] {
        close(what, found / factor, expected / factor, 1e-9)?;
    }
    prop_assert_eq!(found.auc.to_bits(), expected.auc.to_bits());
    prop_assert_eq!(found.prior_correct.to_bits(), expected.prior_correct.to_bits());
    prop_assert_eq!((found.correct, found.hallucinated), (expected.correct, expected.hallucinated));
    for score in [expected.mu_hallucinated, expected.mu_correct, expected.mu_correct + 1.0] {
        for model in MODELS {
            let (found, expected) = (found.logit(mean(score), model), expected.logit(score, model));
            // Newton's method stops a little short of the optimum, not always after as many steps.
            close(&format!("{model:?}"), found, expected, 1e-7)?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever [`fit_annotated`] gives, [`Calibration::validate`] takes.
    #[test]
    fn fitted_calibration_is_valid_and_monotone(
        mentions in any_scores(),
        magnitude in -6.0..6.0f64,
    ) {
        let factor = 10.0_f64.powf(magnitude);
        let Ok(calibration) = fit(&moved(&mentions, |score| factor * score)) else {
            return Ok(());
        };
        prop_assert_eq!(calibration.validate(), Ok(()));
        let counted = |counts: &[usize]| counts.iter().sum::<usize>();
        prop_assert_eq!(counted(&calibration.histograms.correct.counts), calibration.correct);
        let wrong = &calibration.histograms.hallucinated.counts;
        prop_assert_eq!(counted(wrong), calibration.hallucinated);
        for model in MODELS {
            let ladder = (-50..=50).map(|step| f64::from(step) * factor / 10.0);
            let rungs: Vec<f64> = ladder.map(|s| calibration.probability(s, model)).collect();
            for pair in rungs.windows(2) {
                let allowed = (0.0..=1.0).contains(&pair[1]) && pair[1] >= pair[0] - 1e-12;
                prop_assert!(allowed, "{model:?}: {} after {}", pair[1], pair[0]);
            }
        }
    }

    #[test]
    fn fit_does_not_depend_on_the_order_of_mentions(
        (mentions, shuffled) in any_scores()
            .prop_flat_map(|mentions| (Just(mentions.clone()), Just(mentions).prop_shuffle())),
    ) {
        match (fit(&mentions), fit(&shuffled)) {
            (Ok(expected), Ok(found)) => {
                follows(&found, &expected, 1.0, 0.0)?;
                prop_assert_eq!(found.histograms, expected.histograms);
            }
            // Not the means in a refusal's text: they are summed in another order.
            (Err(expected), Err(found)) => prop_assert_eq!(
                std::mem::discriminant(&found),
                std::mem::discriminant(&expected)
            ),
            (expected, found) => prop_assert!(false, "{expected:?} became {found:?}"),
        }
    }

    /// Scores higher by c: means higher by c, and nothing else differs.
    #[test]
    fn shifting_scores_shifts_only_the_means(mentions in any_scores(), steps in -4096..4096i32) {
        let offset = f64::from(steps) / 1024.0;
        prop_assume!(fit(&mentions).is_ok());
        let found = fit(&moved(&mentions, |score| score + offset)).unwrap();
        follows(&found, &fit(&mentions).unwrap(), 1.0, offset)?;
    }

    #[test]
    fn fit_is_equivariant_to_the_scale_of_scores(mentions in any_scores(), magnitude in -6.0..6.0f64) {
        let factor = 10.0_f64.powf(magnitude);
        prop_assume!(fit(&mentions).is_ok());
        let found = fit(&moved(&mentions, |score| factor * score)).unwrap();
        follows(&found, &fit(&mentions).unwrap(), factor, 0.0)?;
    }

    /// A verifier that answers the same whatever it is asked is found out, whatever the answer and
    /// however often it gave it.
    #[test]
    fn equal_scores_are_rejected_for_lack_of_spread(score in -1.0..1.0f64, count in MINIMUM_PER_CLASS..3000) {
        let equal = vec![score; count];
        let no_spread = |what| CalibrationError::NoSpread { what };
        prop_assert_eq!(fit_sentences(&equal), Err(no_spread("responses")));
        let others = (0..20).map(|step| (f64::from(step) / 10.0 - 3.0, false));
        let mentions: Vec<(f64, bool)> =
            equal.iter().map(|score| (*score, true)).chain(others).collect();
        prop_assert_eq!(fit(&mentions).map(|_| ()), Err(no_spread("correct mentions")));
        if count >= 2 * MINIMUM_PER_CLASS {
            let anchors = Anchors { mismatched: &[-2.0; 20], log_prob_drops: None, views: None };
            let found = fit_unlabelled(&equal, &anchors, &quick()).map(|_| ());
            prop_assert_eq!(found, Err(no_spread("mentions")));
        }
    }

    /// One number that is none, anywhere, is named by its place, before anything else is said.
    #[test]
    fn scores_that_are_not_finite_are_reported_by_index(
        mentions in any_scores(),
        place in any::<Index>(),
        broken in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ) {
        let index = place.index(mentions.len());
        let (mut scores, correct): (Vec<f64>, Vec<bool>) = mentions.into_iter().unzip();
        scores[index] = broken;
        let whole = [0.0; 20];
        let unlabelled = |scores: &[f64], mismatched: &[f64]| {
            let anchors = Anchors { mismatched, log_prob_drops: None, views: None };
            fit_unlabelled(scores, &anchors, &quick()).unwrap_err()
        };
        for (what, error) in [
            ("score", fit_annotated(&scores, &correct).unwrap_err()),
            ("score", fit_sentences(&scores).unwrap_err()),
            ("score", bootstrap_annotated(&scores, &correct, &alone(&scores), &Bootstrap::default()).unwrap_err()),
            ("score", unlabelled(&scores, &whole)),
            ("mismatched score", unlabelled(&whole, &scores)),
        ] {
            let expected =
                format!("{what} {index} is {broken}; every one must be a finite number");
            prop_assert_eq!(error.to_string(), expected);
        }
    }

    /// Mentions of one kind only, of any number: which kind it is, how many they are, and what to do.
    #[test]
    fn missing_class_error_names_the_class_and_the_remedy(count in 1..60usize, correct in any::<bool>()) {
        let scores: Vec<f64> = (0..count).map(|step| step as f64 / 10.0).collect();
        let labels = vec![correct; count];
        let (kind, what_to_do) = if correct {
            ("are correct", "caption more images")
        } else {
            ("count as hallucinated", "check that the annotations belong to these images")
        };
        for error in [
            fit_annotated(&scores, &labels).unwrap_err(),
            bootstrap_annotated(&scores, &labels, &alone(&scores), &Bootstrap::default()).unwrap_err(),
        ] {
            let text = error.to_string();
            prop_assert!(text.starts_with(&format!("all {count} mentions {kind}")), "{text}");
            prop_assert!(text.contains(what_to_do), "{text}");
        }
    }

    /// A scale of zero would make every reward of the sentence form infinite, or none at all.
    #[test]
    fn invalid_sentence_calibration_is_rejected(
        mentions in any_scores(),
        mean in prop_oneof![Just(0.0), Just(f64::NAN), Just(f64::INFINITY)],
        deviation in prop_oneof![Just(0.0), Just(-0.1), Just(f64::NAN), Just(f64::INFINITY)],
    ) {
        let Ok(mut calibration) = fit(&mentions) else {
            return Ok(());
        };
        calibration.sentence = Some(SentenceCalibration { mean, deviation, responses: 50 });
        let found = calibration.validate();
        let named = matches!(found, Err(CalibrationError::OutOfRange { field, .. })
            if field.starts_with("sentence."));
        prop_assert!(named, "{found:?}");
    }
}

#[test]
fn empty_input_is_rejected_with_a_remedy() {
    let ask = "caption more images";
    let anchors = Anchors { mismatched: &[], log_prob_drops: None, views: None };
    for (error, what) in [
        (fit_annotated(&[], &[]).unwrap_err(), "0 correct mentions"),
        (fit_sentences(&[]).unwrap_err(), "0 responses"),
        (fit_unlabelled(&[], &anchors, &quick()).unwrap_err(), "0 mentions"),
        (fit_unlabelled(&[0.5; 20], &anchors, &quick()).unwrap_err(), "0 mismatched pairs"),
    ] {
        let text = error.to_string();
        assert!(text.starts_with(what) && text.ends_with(ask), "{text}");
    }
}

/// Every number of the intervals, and the estimate it belongs to.
fn numbers(intervals: &Intervals, c: &Calibration) -> [(&'static str, Interval, f64); 5] {
    [
        ("mu_correct", intervals.mu_correct, c.mu_correct),
        ("sigma_correct", intervals.sigma_correct, c.sigma_correct),
        ("mu_hallucinated", intervals.mu_hallucinated, c.mu_hallucinated),
        ("sigma_hallucinated", intervals.sigma_hallucinated, c.sigma_hallucinated),
        ("auc", intervals.auc, c.auc),
    ]
}

/// So many mentions of each class, 1.5 spreads apart.
fn normal_classes(each: usize, seed: u64) -> (Vec<f64>, Vec<bool>) {
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(seed));
    let correct = (0..2 * each).map(|index| index % 2 == 0);
    correct.map(|is| (normal.draw(if is { 0.45 } else { 0.3 }, 0.1), is)).unzip()
}

/// Four times the mentions, half the width; √ is asymptotic and the ends are random, hence the slack.
#[test]
fn bootstrap_intervals_contain_the_estimate_and_narrow() {
    let bootstrap = Bootstrap { samples: 400, seed: 0 };
    let intervals = |each: usize, seed: u64| {
        let (scores, correct) = normal_classes(each, seed);
        let estimate = fit_annotated(&scores, &correct).unwrap();
        let intervals =
            bootstrap_annotated(&scores, &correct, &alone(&scores), &bootstrap).unwrap();
        numbers(&intervals, &estimate)
    };
    for seed in 0..4 {
        let (few, many) = (intervals(100, seed), intervals(400, seed));
        for ((what, small, at), (_, large, at_large)) in few.into_iter().zip(many) {
            assert!(small.low < at && at < small.high, "{what}: {at} is not in {small:?}");
            assert!(large.low < at_large && at_large < large.high, "{what}: {at_large}, {large:?}");
            let ratio = (large.high - large.low) / (small.high - small.low);
            assert!((0.35..0.7).contains(&ratio), "{what}: four times the mentions, {ratio} wide");
        }
    }
}

/// In 200 worlds the 95 % intervals of the means and of the AUC = Φ(1.5/√2) hold the truth about as
/// often as they say. Percentile intervals of 50 mentions fall short by a little, hence 90 %.
#[test]
fn bootstrap_intervals_have_about_nominal_coverage() {
    let truth = [("mu_correct", 0.45), ("mu_hallucinated", 0.3), ("auc", 0.855_578)];
    let mut held = [0; 3];
    for seed in 0..200 {
        let (scores, correct) = normal_classes(50, seed);
        let bootstrap = Bootstrap { seed, ..Bootstrap::default() };
        let found = bootstrap_annotated(&scores, &correct, &alone(&scores), &bootstrap).unwrap();
        let found = [found.mu_correct, found.mu_hallucinated, found.auc];
        for ((count, interval), (_, truth)) in held.iter_mut().zip(found).zip(truth) {
            *count += usize::from((interval.low..=interval.high).contains(&truth));
        }
    }
    for (count, (what, _)) in held.into_iter().zip(truth) {
        assert!((180..=199).contains(&count), "{what} is held {count} times in 200");
    }
}

/// One resample: these tests are about the estimate, and the resamples take most of the time.
fn quick() -> UnlabelledConfig {
    UnlabelledConfig { bootstrap: Bootstrap { samples: 1, seed: 0 }, ..Default::default() }
}

/// A world with σ₋ = σ₊ = 1, μ₋ = 0 and μ₊ = `separation`; mismatched pairs 3 σ below μ₋.
struct World {
    scores: Vec<f64>,
    mismatched: Vec<f64>,
    separation: f64,
}

impl World {
    fn new(count: usize, fraction: f64, separation: f64, seed: u64) -> Self {
        let mut normal = Normal(ChaCha8Rng::seed_from_u64(seed));
        let correct = (fraction * count as f64).round() as usize;
        let mean = |index: usize| if index < correct { separation } else { 0.0 };
        let scores = (0..count).map(|index| normal.draw(mean(index), 1.0)).collect();
        let mismatched = (0..200).map(|_| normal.draw(-3.0, 1.0)).collect();
        Self { scores, mismatched, separation }
    }

    fn fit(&self) -> Result<Calibration, CalibrationError> {
        let anchors = Anchors { mismatched: &self.mismatched, log_prob_drops: None, views: None };
        fit_unlabelled(&self.scores, &anchors, &quick())
    }

    /// The larger error of the two means, in σ.
    fn error(&self) -> Result<f64, CalibrationError> {
        let found = self.fit()?;
        Ok((found.mu_correct - self.separation).abs().max(found.mu_hallucinated.abs()))
    }
}

/// Both means within 0.3 σ from 2000 unlabelled mentions, where the scores tell the classes apart.
///
/// They do not always. Worlds in ten (seeds 0 to 9) that come out so, 2000 mentions:
///
/// ```text
///             separation   2 σ   2.5 σ   3 σ   4 σ   6 σ
///  correct  60 %            7     10     10    10    10
///           70 %            7      9     10    10    10
///           80 %            5      9     10    10    10
///           90 %            5      7      9     9    10
///           95 %            0      6      7     8    10
/// ```
///
/// The others miss by up to 1.6 σ, or are refused (one in ten at 2 σ and 60 or 90 %, four at 95 %).
/// Starting at the true split misses as often, so what is lacking is mentions, not a better start:
/// with 8000 all worlds from 3 σ on come out. The corner below 3 σ and above 80 % is left to
/// [`mixture_fit_error_shrinks_with_more_mentions`].
#[test]
fn mixture_fit_recovers_well_separated_classes() {
    let cells =
        [(0.6, 3.0), (0.7, 3.0), (0.8, 3.0), (0.6, 4.0), (0.8, 4.0), (0.6, 6.0), (0.95, 6.0)];
    for (fraction, separation) in cells {
        for seed in 0..3 {
            let error = World::new(2000, fraction, separation, seed).error().unwrap();
            assert!(error <= 0.3, "{fraction} correct, {separation} σ, seed {seed}: {error} σ off");
        }
    }
}

/// Where few mentions mislead, more of them help: the estimate is consistent.
#[test]
fn mixture_fit_error_shrinks_with_more_mentions() {
    let mean_error = |count: usize| {
        let errors = (0..6).filter_map(|seed| World::new(count, 0.9, 4.0, seed).error().ok());
        let errors: Vec<f64> = errors.collect();
        assert!(errors.len() >= 5, "{} of 6 worlds were fitted", errors.len());
        errors.iter().sum::<f64>() / errors.len() as f64
    };
    let (few, many) = (mean_error(300), mean_error(3000));
    assert!(many < few / 2.0, "{few} σ with 300 mentions, {many} σ with 3000");
}

/// Other units, other zero: the same mixture.
#[test]
fn unlabelled_fit_is_equivariant_to_scale_and_offset() {
    for (factor, offset) in [(0.01, 0.3), (1.0, -20.0), (50.0, 0.0)] {
        let world = World::new(1000, 0.75, 3.0, 5);
        let moved = |scores: &[f64]| scores.iter().map(|s| factor * s + offset).collect();
        let other =
            World { scores: moved(&world.scores), mismatched: moved(&world.mismatched), ..world };
        let (expected, found) =
            (World::new(1000, 0.75, 3.0, 5).fit().unwrap(), other.fit().unwrap());
        let near = |what: &str, found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{what}: {found} is not {expected}");
        };
        near("mu_correct", (found.mu_correct - offset) / factor, expected.mu_correct);
        near(
            "mu_hallucinated",
            (found.mu_hallucinated - offset) / factor,
            expected.mu_hallucinated,
        );
        near("sigma", found.sigma / factor, expected.sigma);
        near("prior_correct", found.prior_correct, expected.prior_correct);
        near("auc", found.auc, expected.auc);
        assert_eq!(found.validate(), Ok(()));
    }
}

/// A refusal does not contradict itself: where drops point at the high scores, two Gaussians do
/// explain them better than one, and the text must not deny it.
#[test]
fn unseparated_error_does_not_claim_a_positive_bic_gain() {
    let world = World::new(400, 0.5, 6.0, 0);
    let drops: Vec<f64> = world.scores.iter().map(|score| -score).collect();
    let anchors =
        Anchors { mismatched: &world.mismatched, log_prob_drops: Some(&drops), views: None };
    let error = fit_unlabelled(&world.scores, &anchors, &quick()).unwrap_err();
    if let CalibrationError::Unseparated { bic_gain, .. } = error {
        assert!(bic_gain <= 0.0, "{error}");
    }
}
