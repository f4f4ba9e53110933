//! `--device`.

use fisao_testkit::skipped::report_skipped;
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

#[cfg(not(feature = "metal"))]
#[test]
fn device_missing_from_the_build_is_rejected_with_a_hint() {
    let place = Workplace::furnished();
    insta::assert_snapshot!(place.refuse(&[&CAPTION[..], &["--device", "metal"]].concat()), @r"
    error: --device metal:0: this build of fisao has no metal
    hint: build it with `cargo install --path crates/fisao --features metal`
    ");
    let score = ["score", "--image", "pictures", "--text", "dog", "--device", "metal:1"];
    let refusal = place.refuse(&score);
    assert!(refusal.contains("--device metal:1: this build of fisao has no metal"), "{refusal}");
}

/// With a card or without: no machine has a hundred.
#[test]
fn missing_card_is_refused_with_what_to_do() {
    let place = Workplace::furnished();
    let refusal = place.refuse(&[&CAPTION[..], &["--device", "cuda:99"]].concat());
    assert!(refusal.starts_with("error: --device cuda:99: no "), "{refusal}");
    assert!(refusal.contains("\nhint: "), "{refusal}");
}

/// Whether captions in JSON are the same words, and their log-probabilities as close as sums in another order are.
fn assert_same_captions(found: &str, expected: &str) {
    let captions = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    let (found, expected) = (captions(found), captions(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["caption"], expected["caption"]);
        let logprobs = |caption: &Value| -> Vec<f64> {
            let tokens = caption["tokens"].as_array().expect("tokens");
            tokens.iter().map(|token| token["logprob"].as_f64().expect("a number")).collect()
        };
        for (found, expected) in logprobs(found).iter().zip(logprobs(expected)) {
            assert!((found - expected).abs() < 2e-4, "{found} instead of {expected}");
        }
    }
}

/// The kernels of cards, compiled as C++ and run on the CPU.
#[test]
fn captions_by_the_kernels_of_cuda_match_the_cpu() {
    let place = Workplace::furnished();
    let test = "captions_by_the_kernels_of_cuda_match_the_cpu";
    let Some(output) = place.run_on_host_kernels(test, &CAPTION) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("FISAO_CUDA_HOST is set: no card is used"), "{errors}");
    let (found, expected) = (String::from_utf8_lossy(&output.stdout), place.succeed(&CAPTION));
    assert_same_captions(&found, &expected);
    assert!(found != expected, "the same to the bit: other kernels did not compute it");
}

/// A card whose driver fails in the middle of the captions is no bug of ours.
#[test]
fn failing_card_is_reported() {
    let place = Workplace::furnished();
    let mut command = place.command();
    command.args(CAPTION).args(["--device", "cuda"]).env("FISAO_CUDA_HOST", "5");
    let output = command.output().expect("the command can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no C++ compiler") {
        report_skipped("failing_card_is_reported", "no C++ compiler");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("error: cuMemcpyDtoH failed: CUDA_ERROR_ILLEGAL_ADDRESS"), "{errors}");
    assert!(!errors.contains("panicked") && !errors.contains("bug in fisao"), "{errors}");
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
    let captions = |device| place.succeed(&[&CAPTION[..], &["--device", device]].concat());
    assert_same_captions(&captions("vulkan"), &captions("cpu"));
    let refusal = place.refuse(&[&CAPTION[..], &["--device", "vulkan:99"]].concat());
    assert!(refusal.contains("--device vulkan:99: vulkan reaches"), "{refusal}");
}
