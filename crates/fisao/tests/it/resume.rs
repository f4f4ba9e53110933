//! Runs that are killed go on as if nothing had happened.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

const ITERATIONS: usize = 12;

/// What is compared to the byte.
const RESULTS: [&str; 4] = [
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "metrics.jsonl",
    "watch.jsonl",
];

fn begin(output: &str) -> Vec<String> {
    let iterations = format!("align.iterations={ITERATIONS}");
    let set = [
        iterations.as_str(),
        "checkpoint.every=3",
        "max-new-tokens=24",
        "align.images-per-iteration=8",
        "align.learning-rate=1e-3",
        "objective.kl.controller=adaptive",
        // A random model names nothing, so all its responses earn the same.
        "guards.patience=0",
    ];
    let mut arguments: Vec<&str> = vec!["align", "--model", "llava", "--verifier", "clip"];
    arguments.extend(["--calibration", "calibration.json", "--images", "pictures"]);
    arguments.extend(["--output", output]);
    arguments.extend(set.iter().flat_map(|setting| ["--set", setting]));
    arguments.into_iter().map(str::to_owned).collect()
}

fn go_on(output: &str) -> Vec<String> {
    ["align", "--resume", output].map(str::to_owned).to_vec()
}

fn workplace() -> Workplace {
    let place = Workplace::furnished();
    write_calibration(&place);
    place
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn recorded(place: &Workplace, run: &str) -> usize {
    fs::read_to_string(place.path(run).join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Starts the command and ends it, in the way a signal does, once so many iterations are recorded. Returns its exit code,
/// or `None` if it was killed.
fn end_after(place: &Workplace, arguments: &[String], lines: usize, signal: &str) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fisao"))
        .args(arguments)
        .current_dir(place.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let started = Instant::now();
    while recorded(place, "cut") < lines && child.try_wait().expect("it can be asked").is_none() {
        assert!(started.elapsed() < Duration::from_mins(2), "no progress");
        sleep(Duration::from_millis(2));
    }
    let id = child.id().to_string();
    // It may have ended by itself in the meantime.
    let _ = Command::new("kill").args([signal, &id]).stderr(Stdio::null()).status();
    child.wait().expect("it ends").code()
}

fn assert_same(place: &Workplace, whole: &str, cut: &str) {
    for name in RESULTS {
        let read = |run: &str| fs::read(place.path(run).join(name)).unwrap_or_default();
        assert_eq!(read(whole), read(cut), "{name} differs");
    }
    assert_eq!(recorded(place, cut), ITERATIONS);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_again_and_again_ends_like_one_that_was_not() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    // Before anything was saved, between two states, and right after one.
    end_after(&place, &begin("cut"), 1, "-KILL");
    for lines in [2, 5, 7, 9] {
        end_after(&place, &go_on("cut"), lines, "-KILL");
    }
    let newest = place.path("cut/checkpoint");
    assert!(newest.is_dir(), "states were saved");
    place.succeed(&strings(&go_on("cut")));
    assert_same(&place, "whole", "cut");
    // A finished run has nothing left to do, and stays as it is.
    place.succeed(&strings(&go_on("cut")));
    assert_same(&place, "whole", "cut");
}

/// What the base model recalled is part of the state, and of what is recorded before there is a state.
#[cfg(unix)]
#[test]
fn a_run_of_the_embedded_world_that_is_killed_before_its_first_state_begins_again() {
    let place = Workplace::new();
    let begin = |output: &str| {
        let set = ["align.iterations=3", "align.images-per-iteration=8", "check-every=2"];
        let set = set.iter().flat_map(|setting| ["--set", setting]);
        let begin = ["align", "--demo", "--seed", "3", "--output", output];
        begin.into_iter().chain(set).map(str::to_owned).collect::<Vec<_>>()
    };
    place.succeed(&strings(&begin("whole")));
    end_after(&place, &begin("cut"), 1, "-KILL");
    assert!(!place.path("cut/checkpoint").exists(), "a state was saved");
    place.succeed(&strings(&go_on("cut")));
    for name in RESULTS {
        let read = |run: &str| fs::read(place.path(run).join(name)).unwrap_or_default();
        assert_eq!(read("whole"), read("cut"), "{name} differs");
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_saves_its_state_and_says_how_to_go_on() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    assert_eq!(end_after(&place, &begin("cut"), 4, "-TERM"), Some(130));
    assert!(recorded(&place, "cut") < ITERATIONS, "it stopped before its end");
    place.succeed(&strings(&go_on("cut")));
    assert_same(&place, "whole", "cut");
}

#[test]
fn a_state_that_is_damaged_is_passed_over() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    place.truncate("cut/checkpoint/iteration-12/trainer.safetensors", 200);
    let mut metrics = fs::read_to_string(place.path("cut/metrics.jsonl")).unwrap();
    metrics.push_str("{\"iteration\":12,\"resp");
    place.write("cut/metrics.jsonl", metrics);
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("the state after iteration 12 cannot be read"), "{errors}");
    assert!(errors.contains("going on after iteration 9 of 12"), "{errors}");
    assert_same(&place, "whole", "cut");
}

#[test]
fn a_run_goes_on_as_it_was_begun_or_not_at_all() {
    let place = workplace();
    place.succeed(&strings(&begin("cut")));
    let refuse = |more: &[&str]| place.refuse(&[&["align", "--resume", "cut"], more].concat());
    let error = refuse(&["--set", "align.iterations=20", "--set", "lora.rank=4"]);
    assert!(error.contains("`align.iterations` = 12, not 20"), "{error}");
    assert!(error.contains("`lora.rank` ="), "{error}");
    let error = refuse(&[
        "--model",
        "clip",
        "--verifier",
        "clip",
        "--calibration",
        "calibration.json",
        "--images",
        "pictures",
    ]);
    assert!(error.contains("cut was begun with something else: `model` ="), "{error}");
    assert!(!error.contains("`images`"), "{error}");

    let record = fs::read_to_string(place.path("cut/run.toml")).unwrap();
    place.write("cut/run.toml", record.replace("version = 1", "version = 99"));
    let error = refuse(&[]);
    assert!(error.contains("cut is a run of layout 99, and this is of 1"), "{error}");
    let error = place.refuse(&["align", "--resume", "elsewhere"]);
    assert!(error.contains("elsewhere"), "{error}");
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let place = workplace();
    let mut arguments = begin("never");
    arguments.push("--dry-run".to_owned());
    let said = place.succeed(&strings(&arguments));
    for part in ["all checks passed", "one iteration of 12", "the whole run: about", "MB at most"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!place.path("never").exists());
}

#[test]
fn a_reward_that_nothing_earns_is_refused_in_the_first_iteration() {
    let place = workplace();
    place.write("words.txt", "xylophone\n");
    let mut arguments = begin("run");
    let more = ["--set", "reward.truncated-penalty=0", "--vocabulary", "words.txt"];
    arguments.extend(more.map(str::to_owned));
    let error = place.refuse(&strings(&arguments));
    assert!(error.contains("the reward is zero for every one of the first 8 responses"), "{error}");
}
