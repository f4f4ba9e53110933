//! `--device`.

#[cfg(feature = "vulkan")]
use serde_json::Value;

use crate::fixture::Workplace;

const CAPTION: [&str; 9] = [
    "caption",
    "--model",
    "llava",
    "--image",
    "pictures",
    "--max-new-tokens",
    "6",
    "--format",
    "json",
];

#[test]
fn cpu_is_the_default_device() {
    let place = Workplace::furnished();
    let silent = place.succeed(&CAPTION);
    assert_eq!(place.succeed(&[&CAPTION[..], &["--device", "cpu"]].concat()), silent);
}

#[test]
fn unknown_device_is_rejected() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(place.refuse(&[&CAPTION[..], &["--device", "gpu:0"]].concat()), @r"
    error: invalid value 'gpu:0' for '--device <DEVICE>': write auto, cpu, vulkan, cuda or metal; with several cards, vulkan:1 is the second

    For more information, try '--help'.
    ");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn device_missing_from_the_build_is_rejected_with_a_hint() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(place.refuse(&[&CAPTION[..], &["--device", "cuda"]].concat()), @r"
    error: --device cuda:0: this build of fisao has no cuda
    hint: build it with `cargo install --path crates/fisao --features cuda`
    ");
    let score = ["score", "--image", "pictures", "--text", "dog", "--device", "cuda:1"];
    let refusal = place.refuse(&score);
    assert!(refusal.contains("--device cuda:1: this build of fisao has no cuda"), "{refusal}");
}

#[cfg(feature = "vulkan")]
#[test]
fn missing_vulkan_driver_is_reported() {
    let place = Workplace::furnished();
    for choice in ["vulkan", "vulkan:1"] {
        let mut command = place.command();
        command.args(CAPTION).args(["--device", choice]);
        let output = command.env("VK_DRIVER_FILES", "none.json").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("error: --device vulkan:"), "{errors}");
        assert!(errors.contains("vulkan reaches no device"), "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
    let mut command = place.command();
    command.args(CAPTION).args(["--device", "auto"]);
    let output = command.env("VK_DRIVER_FILES", "none.json").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), place.succeed(&CAPTION));
}

/// Needs a Vulkan device, and fails where there is none; Mesa's lavapipe is one.
#[cfg(feature = "vulkan")]
#[test]
fn captions_on_vulkan_match_the_cpu() {
    let place = Workplace::furnished();
    let captions = |device: &str| -> Vec<Value> {
        let text = place.succeed(&[&CAPTION[..], &["--device", device]].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    for (actual, expected) in captions("vulkan").iter().zip(&captions("cpu")) {
        assert_eq!(actual["caption"], expected["caption"]);
        let logprobs = |caption: &Value| -> Vec<f64> {
            let tokens = caption["tokens"].as_array().expect("tokens");
            tokens.iter().map(|token| token["logprob"].as_f64().expect("a number")).collect()
        };
        for (actual, expected) in logprobs(actual).iter().zip(logprobs(expected)) {
            assert!((actual - expected).abs() < 1e-4, "{actual} instead of {expected}");
        }
    }
    let refusal = place.refuse(&[&CAPTION[..], &["--device", "vulkan:99"]].concat());
    assert!(refusal.contains("--device vulkan:99: vulkan reaches"), "{refusal}");
}
