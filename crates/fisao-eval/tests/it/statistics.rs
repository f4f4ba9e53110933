//! Student's t and Holm's correction against scipy and statsmodels.

use std::fs;
use std::path::PathBuf;

use fisao_eval::statistics::{MeanEstimate, holm, paired_t_test};
use serde_json::Value;

/// The incomplete beta function and its inverse, computed in two ways.
const RELATIVE: f64 = 1e-9;

/// `fixtures/statistics/generate.py` says how these were made.
fn cases(part: &str) -> Vec<Value> {
    let folder = [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "statistics"];
    let path = folder.iter().collect::<PathBuf>().join("expected.json");
    let mut expected: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    serde_json::from_value(expected[part].take()).unwrap()
}

fn numbers(of: &Value) -> Vec<f64> {
    serde_json::from_value(of.clone()).unwrap()
}

#[track_caller]
fn assert_close(found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    let allowed = RELATIVE * expected.abs() + 1e-14;
    assert!((found - expected).abs() < allowed, "{found} is not {expected}");
}

#[test]
fn mean_intervals_match_scipy() {
    for case in cases("mean") {
        let estimate = MeanEstimate::of(&numbers(&case["values"])).unwrap();
        let interval = estimate.interval.unwrap();
        assert_close(interval.low, &case["low"]);
        assert_close(interval.high, &case["high"]);
    }
}

#[test]
fn paired_t_tests_match_scipy() {
    for case in cases("paired") {
        let pairs: Vec<(f64, f64)> =
            numbers(&case["first"]).into_iter().zip(numbers(&case["second"])).collect();
        let test = paired_t_test(&pairs).unwrap();
        assert_eq!(test.runs, pairs.len());
        assert_close(test.difference, &case["difference"]);
        assert_close(test.interval.unwrap().low, &case["low"]);
        assert_close(test.interval.unwrap().high, &case["high"]);
        assert_close(test.p.unwrap(), &case["p"]);
    }
}

#[test]
fn holm_corrections_match_statsmodels() {
    for case in cases("holm") {
        let adjusted = holm(&numbers(&case["p"]));
        for (&found, expected) in adjusted.iter().zip(case["adjusted"].as_array().unwrap()) {
            assert_close(found, expected);
        }
    }
    assert!(holm(&[]).is_empty());
}

#[test]
fn single_run_has_no_interval_and_no_p_value() {
    let one = MeanEstimate::of(&[4.0]).unwrap();
    assert_eq!((one.spread.runs, one.interval), (1, None));
    assert_eq!(MeanEstimate::of(&[]), None);
    assert_eq!(paired_t_test(&[]), None);
    let pair = paired_t_test(&[(1.0, 3.0)]).unwrap();
    assert_eq!((pair.interval, pair.p), (None, None));
    // Equal in every pair: 0 / 0.
    assert_eq!(paired_t_test(&[(0.5, 0.5), (0.25, 0.25)]).unwrap().p, None);
    // The same difference in every pair: as sure as can be.
    assert_eq!(paired_t_test(&[(0.5, 0.75), (0.25, 0.5)]).unwrap().p, Some(0.0));
}
