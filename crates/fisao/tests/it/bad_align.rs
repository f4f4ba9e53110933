//! What `fisao align` refuses before it trains.

use fisao_formats::documents::write_json;
use fisao_verifier::calibration::fit_annotated;

use crate::fixture::Workplace;

/// A calibration of a verifier that tells correct (0.3 ± 0.05) from hallucinated (0.2 ± 0.05).
pub(crate) fn write_calibration(place: &Workplace) {
    write_calibration_of(place, 0.1);
}

/// The same of one whose means are so far apart; at 0.01 the AUC is about 0.6.
pub(crate) fn write_calibration_of(place: &Workplace, distance: f64) {
    let spread = |mean: f64| (0..100).map(move |at| mean + 0.05 * (f64::from(at) * 2.4).sin());
    let scores: Vec<f64> = spread(0.2 + distance).chain(spread(0.2)).collect();
    let correct: Vec<bool> = (0..200).map(|at| at < 100).collect();
    let calibration = fit_annotated(&scores, &correct).unwrap();
    write_json(&place.path("calibration.json"), &calibration).unwrap();
}

fn align(place: &Workplace, verifier: &str, more: &[&str]) -> String {
    let arguments = [
        "align",
        "--model",
        "llava",
        "--verifier",
        verifier,
        "--calibration",
        "calibration.json",
        "--images",
        "pictures",
        "--output",
        "run",
        "--set",
        "max-new-tokens=8",
    ];
    place.refuse(&[&arguments[..], more].concat())
}

#[test]
fn mismatched_verifier_is_rejected() {
    let place = Workplace::furnished();
    place.write_large_clip();
    write_calibration(&place);
    let error = align(&place, "large", &[]);
    assert!(error.contains("the verifier's vision tower is not the model's own"), "{error}");
    assert!(error.contains("--allow-mismatched-verifier"), "{error}");
}

/// Of a tower that was tuned calibration decides, not the weights.
#[test]
fn tuned_vision_tower_is_judged_by_its_auc() {
    let place = Workplace::furnished();
    write_calibration_of(&place, 0.01);
    let error = align(&place, "foreign", &[]);
    assert!(error.contains("foreign: its vision tower was tuned in"), "{error}");
    assert!(error.contains("guards.verifier-auc asks for 0.65"), "{error}");
    let calibrate =
        ["calibrate", "--model", "llava", "--verifier", "foreign", "--images", "pictures"];
    // Captions of a random model name nothing, but drift is measured before.
    let told = place
        .refuse(&[&calibrate[..], &["--output", "own.json", "--max-new-tokens", "8"]].concat());
    assert!(told.contains("drift of the vision tower: pooled embeddings of 3 images"), "{told}");
    // The model's own tower has no bound.
    let own =
        ["align", "--model", "llava", "--verifier", "clip", "--calibration", "calibration.json"];
    let small = [
        "--images",
        "pictures",
        "--set",
        "max-new-tokens=8",
        "--set",
        "align.iterations=1",
        "--output",
        "run",
    ];
    place.succeed(&[&own[..], &small].concat());
}

/// Another encoder that was asked for knowingly sees the images in its own way, here at twice the side.
#[test]
fn allowed_mismatched_verifier_gets_its_own_pixels() {
    let place = Workplace::furnished();
    place.write_large_clip();
    write_calibration(&place);
    let output = place.run(&[
        "align",
        "--model",
        "llava",
        "--verifier",
        "large",
        "--allow-mismatched-verifier",
        "--calibration",
        "calibration.json",
        "--images",
        "pictures",
        "--output",
        "run",
        "--set",
        "max-new-tokens=8",
        "--set",
        "align.iterations=1",
    ]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("the verifier's vision tower is not the model's own"), "{errors}");
}

/// Prompts have no labels, so that no adapter would ever be called the best.
#[test]
fn best_adapter_by_recall_requires_labelled_validation() {
    let place = Workplace::furnished();
    write_calibration(&place);
    let error = align(&place, "clip", &["--set", "checkpoint.best=validation-recall"]);
    assert!(error.contains("needs labelled validation images"), "{error}");
    assert!(error.contains("checkpoint.best=validation-reward"), "{error}");
}

#[test]
fn crossing_thresholds_are_rejected() {
    let place = Workplace::furnished();
    write_calibration(&place);
    let form = ["--set", "reward.form.kind=threshold", "--set", "reward.form.margin=0.2"];
    let error = align(&place, "clip", &form);
    assert!(error.contains("the reward thresholds cross: with margin 0.2"), "{error}");
}

#[test]
fn missing_calibration_is_reported_by_path() {
    let place = Workplace::furnished();
    let error = align(&place, "clip", &[]);
    assert!(error.contains("no calibration at ") && error.contains("calibration.json"), "{error}");
}
