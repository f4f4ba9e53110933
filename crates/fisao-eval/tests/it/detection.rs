use std::fs;
use std::path::PathBuf;

use fisao_eval::detection::{
    Groups, RiskCoverage, average_precision, brier, expected_calibration_error, mean_ranks,
    pearson, roc_auc, spearman,
};
use fisao_eval::statistics::Bootstrap;
use proptest::prelude::*;
use serde_json::Value;

/// Sums of some hundred numbers of size 1, in another order than numpy's.
const ROUNDING: f64 = 1e-12;

/// `fixtures/detection/generate.py` says how these were made.
fn expected(part: &str) -> Value {
    let folder = [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "detection"];
    let path = folder.iter().collect::<PathBuf>().join("expected.json");
    let text = fs::read(path).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()[part].take()
}

fn cases(part: &str) -> Vec<Value> {
    serde_json::from_value(expected(part)).unwrap()
}

fn numbers(of: &Value, name: &str) -> Vec<f64> {
    of[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn truths(of: &Value, name: &str) -> Vec<bool> {
    numbers(of, name).into_iter().map(|number| number > 0.5).collect()
}

#[track_caller]
fn assert_close(found: Option<f64>, expected: &Value) {
    let (found, expected) = (found.unwrap(), expected.as_f64().unwrap());
    assert!((found - expected).abs() < ROUNDING, "{found} is not {expected}");
}

#[test]
fn correlations_match_scipy() {
    for case in cases("correlation") {
        let (x, y) = (numbers(&case, "x"), numbers(&case, "y"));
        assert_eq!(mean_ranks(&x), numbers(&case, "ranks_of_x"));
        assert_close(pearson(&x, &y), &case["pearson"]);
        assert_close(spearman(&x, &y), &case["spearman"]);
    }
}

#[test]
fn roc_auc_and_average_precision_match_scikit_learn() {
    for case in cases("separation") {
        let (positive, negative) = (numbers(&case, "positive"), numbers(&case, "negative"));
        assert_close(roc_auc(&positive, &negative), &case["roc_auc"]);
        assert_close(average_precision(&positive, &negative), &case["average_precision"]);
    }
}

#[test]
fn brier_score_and_calibration_error_match_scikit_learn() {
    for case in cases("calibration") {
        let (said, is) = (numbers(&case, "probabilities"), truths(&case, "outcomes"));
        let bins = serde_json::from_value(case["bins"].clone()).unwrap();
        assert_close(brier(&said, &is), &case["brier"]);
        let error = expected_calibration_error(&said, &is, bins);
        assert_close(error, &case["expected_calibration_error"]);
    }
}

#[test]
fn risk_coverage_is_averaged_over_all_orders_of_ties() {
    for case in cases("risk_coverage") {
        let confidences = numbers(&case, "confidences").into_iter();
        let answers: Vec<_> = confidences.zip(truths(&case, "correct")).collect();
        let curve = RiskCoverage::of(&answers).unwrap();
        assert_close(Some(curve.aurc()), &case["aurc"]);
        let risks = case["risks"].as_array().unwrap();
        for (kept, risk) in (1..).zip(risks) {
            assert_close(curve.risk_at(f64::from(kept) / answers.len() as f64), risk);
        }
        let points = curve.points(1000);
        assert_eq!(points.len(), risks.len());
        points.iter().zip(risks).for_each(|(point, risk)| assert_close(Some(point.risk), risk));
    }
}

#[test]
fn grouped_bootstrap_intervals_match_scipy() {
    let case = expected("bootstrap");
    let (x, y) = (numbers(&case, "x"), numbers(&case, "y"));
    let groups = Groups::of(numbers(&case, "groups").into_iter().map(f64::to_bits));
    let of = |values: &[f64], rows: &[usize]| rows.iter().map(|&row| values[row]).collect();
    let statistics = |rows: &[usize]| -> [Option<f64>; 3] {
        let (x, y): (Vec<f64>, Vec<f64>) = (of(&x, rows), of(&y, rows));
        [spearman(&x, &y), Some(0.25), None]
    };
    let bootstrap = Bootstrap { resamples: 4000, seed: 3 };
    let [rho, constant, undefined] = groups.intervals(bootstrap, statistics);
    // Draws of another generator: over seeds, the ends scatter by about 0.005.
    let rho = rho.unwrap();
    assert!((rho.low - case["spearman_low"].as_f64().unwrap()).abs() < 0.02, "{rho:?}");
    assert!((rho.high - case["spearman_high"].as_f64().unwrap()).abs() < 0.02, "{rho:?}");
    assert_eq!(constant.map(|interval| (interval.low, interval.high)), Some((0.25, 0.25)));
    assert_eq!(undefined, None);
    assert_eq!(groups.intervals(bootstrap, statistics)[0], Some(rho));
}

#[test]
fn bootstrap_resamples_whole_groups() {
    let groups = Groups::of(["a", "b", "a", "c", "b", "a"]);
    assert_eq!(groups.count(), 3);
    let bootstrap = Bootstrap { resamples: 200, seed: 1 };
    let [sound] = groups.intervals(bootstrap, |rows| {
        let times = |row| rows.iter().filter(|&&drawn| drawn == row).count();
        assert_eq!((times(0), times(0), times(1)), (times(2), times(5), times(4)));
        assert_eq!(times(0) + times(1) + times(3), 3);
        [Some(1.0)]
    });
    assert!(sound.is_some());
    assert_eq!(Groups::of([""; 0]).intervals(bootstrap, |_| [Some(1.0)]), [None]);
}

#[test]
fn undefined_metrics_are_none() {
    let (rising, constant) = ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]);
    for correlation in [pearson, spearman] {
        assert_eq!(correlation(&rising[..2], &rising[..2]), None);
        assert_eq!(correlation(&rising, &constant), None);
        assert_eq!(correlation(&constant, &rising), None);
    }
    assert_eq!(spearman(&rising, &[f64::NEG_INFINITY, 0.0, f64::INFINITY]), Some(1.0));
    assert_eq!((roc_auc(&[], &rising), roc_auc(&rising, &[])), (None, None));
    assert_eq!(average_precision(&[], &rising), None);
    assert_eq!(average_precision(&rising, &[]), Some(1.0));
    assert_eq!((brier(&[], &[]), expected_calibration_error(&[], &[], 5)), (None, None));
    assert_eq!(RiskCoverage::of(&[]), None);
    let curve = RiskCoverage::of(&[(0.5, true), (0.4, false)]).unwrap();
    for coverage in [-0.5, 0.0, 1.001, f64::NAN] {
        assert_eq!(curve.risk_at(coverage), None);
    }
    assert_eq!(curve.points(0), []);
}

#[test]
fn pearson_is_accurate_for_huge_and_tiny_values() {
    for scale in [1e-320, 1e-200, 1e200, 1e300] {
        let values = [-1.0, 0.0, 1.0].map(|value| value * scale);
        assert!((pearson(&values, &[2.0, 3.0, 4.0]).unwrap() - 1.0).abs() < ROUNDING, "{scale}");
    }
}

#[test]
fn negative_zero_ties_with_zero() {
    assert_eq!(mean_ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    assert_eq!(roc_auc(&[0.0], &[-0.0]), Some(0.5));
    assert_eq!(average_precision(&[0.0], &[-0.0]), Some(0.5));
}

#[test]
#[should_panic(expected = "a score is NaN")]
fn nan_scores_are_refused() {
    roc_auc(&[f64::NAN], &[1.0]);
}

#[test]
#[should_panic(expected = "a correlation is one of pairs")]
fn correlations_require_equal_lengths() {
    spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0]);
}

#[test]
#[should_panic(expected = "not in [0, 1]")]
fn brier_score_rejects_values_outside_zero_to_one() {
    brier(&[1.5], &[true]);
}

/// A bound of a bin such as 0.07 of 100 bins, whose product with their number exceeds 7, is the last
/// of its bin.
#[test]
fn calibration_bin_bounds_are_exact() {
    for bin in 1..=100_u32 {
        let bound = f64::from(bin) / 100.0;
        let said = [bound, bound - 0.005];
        let together = expected_calibration_error(&said, &[true, false], 100).unwrap();
        assert!((together - (1.0 - said[0] - said[1]).abs() / 2.0).abs() < ROUNDING, "{bin}");
    }
}

#[test]
fn risk_coverage_curve_is_thinned_to_the_requested_points() {
    // Of 1000 answers, the surest 500 right and the others wrong.
    let answers: Vec<_> = (0..1000).map(|at| (-f64::from(at), at < 500)).collect();
    let points = RiskCoverage::of(&answers).unwrap().points(4);
    let points: Vec<_> = points.iter().map(|point| [point.coverage, point.risk]).collect();
    assert_eq!(points, [[0.25, 0.0], [0.5, 0.0], [0.75, 250.0 / 750.0], [1.0, 0.5]]);
}

/// Scores of which many are equal.
fn scores(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-6..6_i32).prop_map(|level| f64::from(level) / 4.0), count)
}

fn pairs() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (3..40_usize).prop_flat_map(|count| (scores(count), scores(count)))
}

/// As given and in another order.
fn answers() -> impl Strategy<Value = [Vec<(f64, bool)>; 2]> {
    let level = (0..5_i32).prop_map(f64::from);
    let answers = prop::collection::vec((level, any::<bool>()), 1..40);
    let both = |answers: Vec<_>| (Just(answers.clone()), Just(answers).prop_shuffle());
    answers.prop_flat_map(both).prop_map(|(given, shuffled)| [given, shuffled])
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < ROUNDING
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spearman_depends_on_ranks_only((x, y) in pairs()) {
        let rho = spearman(&x, &y);
        prop_assert_eq!(rho, spearman(&y, &x));
        let rising: Vec<f64> = x.iter().map(|value| value.exp() * 7.0 - 3.0).collect();
        prop_assert_eq!(rho, spearman(&rising, &y));
        let falling: Vec<f64> = x.iter().map(|value| -value.powi(3)).collect();
        let (Some(rho), Some(opposite)) = (rho, spearman(&falling, &y)) else { return Ok(()) };
        prop_assert!((-1.0..=1.0).contains(&rho) && close(rho, -opposite));
        prop_assert_eq!(spearman(&x, &x), Some(1.0));
    }

    #[test]
    fn pearson_is_scale_invariant((x, y) in pairs()) {
        let Some(r) = pearson(&x, &y) else { return Ok(()) };
        let other_unit: Vec<f64> = x.iter().map(|value| 40.0 - 3.0 * value).collect();
        prop_assert!(close(pearson(&other_unit, &y).unwrap(), -r));
        prop_assert!((-1.0..=1.0).contains(&r) && pearson(&y, &x) == Some(r));
    }

    #[test]
    fn roc_auc_and_average_precision_equal_their_definitions(positive in scores(1..30), negative in scores(1..30)) {
        let auc = roc_auc(&positive, &negative).unwrap();
        let above = |p: f64, n: f64| f64::from(u8::from(p > n)) + f64::from(u8::from(p >= n));
        let wins = positive.iter().flat_map(|&p| negative.iter().map(move |&n| above(p, n) / 2.0));
        prop_assert!(close(auc, wins.sum::<f64>() / (positive.len() * negative.len()) as f64));
        prop_assert!(close(auc, 1.0 - roc_auc(&negative, &positive).unwrap()));

        // The sum over thresholds, taken positive by positive.
        let reaching = |scores: &[f64], t| scores.iter().filter(|score| **score >= t).count() as f64;
        let precision = |&t: &f64| {
            reaching(&positive, t) / (reaching(&positive, t) + reaching(&negative, t))
        };
        let definition = positive.iter().map(precision).sum::<f64>() / positive.len() as f64;
        let found = average_precision(&positive, &negative).unwrap();
        prop_assert!(close(found, definition));
        prop_assert!(found > 0.0 && found <= 1.0);
    }

    #[test]
    fn metrics_do_not_depend_on_row_order([given, shuffled] in answers()) {
        let split = |answers: &[(f64, bool)], kind: bool| -> Vec<f64> {
            answers.iter().filter(|(_, is)| *is == kind).map(|(score, _)| *score).collect()
        };
        let [(p, n), (q, m)] = [&given, &shuffled].map(|rows| (split(rows, true), split(rows, false)));
        prop_assert_eq!(roc_auc(&p, &n), roc_auc(&q, &m));
        prop_assert_eq!(average_precision(&p, &n), average_precision(&q, &m));
        prop_assert_eq!(RiskCoverage::of(&given), RiskCoverage::of(&shuffled));
        let errors = [given, shuffled].map(|rows| {
            let (said, is): (Vec<f64>, Vec<bool>) =
                rows.iter().map(|(score, is)| (score / 4.0, *is)).unzip();
            (brier(&said, &is).unwrap(), expected_calibration_error(&said, &is, 3).unwrap())
        });
        prop_assert!(close(errors[0].0, errors[1].0) && close(errors[0].1, errors[1].1));
        // Jensen: a mean error is no larger than the root of the mean squared one.
        prop_assert!(errors[0].1 <= errors[0].0.sqrt() + ROUNDING);
    }

    #[test]
    fn perfect_ranking_has_the_lowest_aurc([answers, _] in answers()) {
        let area = |confidence: fn(&(f64, bool)) -> f64| {
            let rows: Vec<_> = answers.iter().map(|row| (confidence(row), row.1)).collect();
            RiskCoverage::of(&rows).unwrap().aurc()
        };
        let found = area(|row| row.0);
        let best = area(|row| f64::from(u8::from(row.1)));
        let worst = area(|row| f64::from(u8::from(!row.1)));
        prop_assert!(best <= found + ROUNDING && found <= worst + ROUNDING);
        let wrong = answers.iter().filter(|(_, right)| !right).count() as f64 / answers.len() as f64;
        prop_assert!(close(area(|_| 0.5), wrong));
        let curve = RiskCoverage::of(&answers).unwrap();
        prop_assert!(close(curve.risk_at(1.0).unwrap(), wrong));
        let points = curve.points(usize::MAX);
        let mean = points.iter().map(|point| point.risk).sum::<f64>() / points.len() as f64;
        prop_assert!(close(mean, found));
    }
}
