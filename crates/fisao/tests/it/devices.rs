//! `--device`.

use fisao_testkit::skipped::report_skipped;
use serde_json::Value;

use crate::bad_align::write_calibration;
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

/// A card whose driver fails is no bug of ours: while images are encoded, in the middle of the captions, and while a verifier scores.
#[test]
fn failing_card_is_reported() {
    let place = Workplace::furnished();
    let score = ["score", "--verifier", "clip", "--image", "pictures", "--text", "dog"];
    for (arguments, results) in
        [(&CAPTION[..], "0"), (&CAPTION, "1"), (&CAPTION, "5"), (&score, "0")]
    {
        let test = "failing_card_is_reported";
        let Some(output) = place.fail_on_host_kernels(test, arguments, results) else { return };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert_failed_call(&errors);
    }
    let mut command = place.command();
    command.args(CAPTION).args(["--device", "cuda"]);
    command.env("FISAO_CUDA_HOST", "1").env("FISAO_CUDA_HOST_FAILS", "soon");
    let errors = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(
        errors.contains("FISAO_CUDA_HOST_FAILS is soon; supported are N and N@FILE"),
        "{errors}"
    );
}

/// Before anything is computed, with a setting under which it fits.
#[test]
fn run_that_does_not_fit_a_card_is_refused() {
    let place = Workplace::furnished();
    write_calibration(&place);
    let mut command = place.command();
    command.args(["align", "--model", "llava", "--verifier", "clip", "--images", "pictures"]);
    command.args(["--calibration", "calibration.json", "--output", "run", "--device", "cuda"]);
    command.args(["--set", "max-new-tokens=40", "--set", "align.micro-batch=64"]);
    let output =
        command.env("FISAO_CUDA_HOST", "2000").output().expect("the command can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no C++ compiler") {
        report_skipped("run_that_does_not_fit_a_card_is_refused", "no C++ compiler");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(" GB of the card's memory, which is 0.0"), "{errors}");
    assert!(errors.contains("hint: --set align.micro-batch=1 takes "), "{errors}");
}

/// The call, its code and what to do, each once.
fn assert_failed_call(errors: &str) {
    let (call, hint) =
        ("error: cuMemcpyDtoH failed: CUDA_ERROR_ILLEGAL_ADDRESS", "hint: please report it with");
    for expected in [call, hint, "--device cpu runs without the card"] {
        assert_eq!(errors.matches(expected).count(), 1, "{expected}: {errors}");
    }
    assert!(!errors.contains("panicked") && !errors.contains("bug in fisao"), "{errors}");
}

/// A run whose card fails, again and again and in different phases of an iteration, goes on to the bytes of an undisturbed one.
#[test]
fn run_with_a_failing_card_resumes_as_if_nothing_had_happened() {
    let place = Workplace::furnished();
    write_calibration(&place);
    let test = "run_with_a_failing_card_resumes_as_if_nothing_had_happened";
    let set = [
        "align.iterations=5",
        // States are saved by the failures alone.
        "checkpoint.every=100",
        "max-new-tokens=16",
        "align.images-per-iteration=2",
        "align.samples-per-image=2",
        "align.learning-rate=3e-4",
        // A random model names nothing, so all its responses earn the same.
        "guards.patience=0",
    ];
    let begin = |output: &'static str| -> Vec<&str> {
        let mut arguments = vec!["align", "--model", "llava", "--verifier", "clip"];
        arguments.extend(["--calibration", "calibration.json", "--images", "pictures"]);
        arguments.extend(["--output", output]);
        arguments.extend(set.iter().flat_map(|setting| ["--set", *setting]));
        arguments
    };
    let Some(whole) = place.run_on_host_kernels(test, &begin("whole")) else { return };
    let said = String::from_utf8_lossy(&whole.stderr);
    assert!(said.contains(" GB of its memory, which is 8.6 GB"), "{said}");
    let recorded = |run: &str| {
        std::fs::read_to_string(place.path(run).join("metrics.jsonl")).unwrap().lines().count()
    };
    // An iteration takes about 260 results, nearly all of them in its update.
    let mut done = 0;
    for (arguments, results) in [
        (begin("cut"), "750"),
        (vec!["align", "--resume", "cut"], "200"),
        (vec!["align", "--resume", "cut"], "0"),
        (vec!["align", "--resume", "cut"], "450"),
    ] {
        let output = place.fail_on_host_kernels(test, &arguments, results).expect("kernels");
        assert_failed_call(&String::from_utf8_lossy(&output.stderr));
        assert!(place.path("cut/checkpoint").is_dir(), "a state was saved");
        let now = recorded("cut");
        assert!((1..5).contains(&now) && now >= done, "{now} iterations after {done}");
        done = now;
    }
    place.run_on_host_kernels(test, &["align", "--resume", "cut"]).expect("kernels");
    for name in ["adapter/adapter_model.safetensors", "metrics.jsonl", "validation.jsonl"] {
        let read = |run: &str| std::fs::read(place.path(run).join(name)).unwrap();
        assert_eq!(read("whole"), read("cut"), "{name} differs");
    }
    assert_eq!(recorded("cut"), 5);
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
