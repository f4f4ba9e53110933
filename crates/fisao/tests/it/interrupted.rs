//! Ctrl-C while captions are written: the command ends soon, keeps what was written, says how to go on, and ends like one that
//! was not stopped.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::Workplace;

/// Longest time between Ctrl-C and the end, on a machine that does other things, too. A part of the work that was not stopped
/// would end later than the next one begins, which `interrupt` sees.
const SOON: Duration = Duration::from_secs(20);

/// Starts the command, stops it as soon as responses are kept in a file, and returns what it said.
pub(crate) fn interrupt(place: &Workplace, arguments: &[&str], kept: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fisao"));
    command.args(arguments).current_dir(place.path("."));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let started = Instant::now();
    let lines = || fs::read_to_string(kept).map_or(0, |text| text.lines().count());
    // The first line says what they depend on.
    while lines() < 2 {
        assert!(started.elapsed() < Duration::from_mins(2), "no responses in {}", kept.display());
        assert!(child.try_wait().unwrap().is_none(), "it ended before {}", kept.display());
        sleep(Duration::from_millis(2));
    }
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let stopping = Instant::now();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(stopping.elapsed() < SOON, "it took {:?}: {said}", stopping.elapsed());
    assert!(lines() >= 2, "nothing was kept");
    said
}

/// A JSON file without what depends on the time it took.
fn read(place: &Workplace, name: &str) -> Value {
    let mut value = serde_json::from_slice(&fs::read(place.path(name)).unwrap()).unwrap();
    forget_times(&mut value);
    value
}

pub(crate) fn forget_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["seconds", "peak_rss_mb"].contains(&key.as_str()));
            fields.values_mut().for_each(forget_times);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_times),
        _ => {}
    }
}

/// Names of the files of a folder and all folders in it that responses on their way are kept in.
pub(crate) fn left_over(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(left_over(&path));
        } else if path.extension().is_some_and(|ending| ending == "partial" || ending == "lock") {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Each part that is stopped is followed by another one, so that the last batch of it does not end the work.
#[test]
fn demo_interrupted_while_captioning_resumes_exactly() {
    let place = Workplace::new();
    let begin = |output: &'static str| {
        let begin = ["demo", "--quick", "--labels", "none", "--output", output];
        [&begin[..], &["--set", "align.iterations=1"]].concat()
    };
    place.succeed(&begin("whole"));
    let told =
        "stopped; what was finished is saved. Continue with:\n  fisao demo --output cut --resume";
    let stop = |arguments: &[&str], kept: &str| {
        let said = interrupt(&place, arguments, &place.path(&format!("cut/{kept}.partial")));
        assert!(said.contains(told), "{said}");
        said
    };
    stop(&begin("cut"), "calibration.json");
    let go_on = ["demo", "--output", "cut", "--resume"];
    stop(&go_on, "captions-base-greedy");
    assert!(place.path("cut/calibration.json").exists(), "the calibration was done");
    assert!(!place.path("cut/metrics.jsonl").exists(), "it went on to train");
    let said = stop(&go_on, "captions-aligned-greedy");
    assert!(said.contains("captions-base-greedy.partial: "), "{said}");
    place.succeed(&go_on);
    for name in ["summary.json", "calibration.json"] {
        assert_eq!(read(&place, &format!("whole/{name}")), read(&place, &format!("cut/{name}")));
    }
    for name in ["metrics.jsonl", "validation.jsonl", "adapter/adapter_model.safetensors"] {
        let bytes = |run: &str| fs::read(place.path(run).join(name)).unwrap();
        assert!(bytes("whole") == bytes("cut"), "{name} differs");
    }
    assert_eq!(left_over(&place.path("cut")), [""; 0]);
}

#[test]
fn an_alignment_that_is_stopped_while_it_calibrates_goes_on() {
    let place = Workplace::new();
    let begin = |output: &'static str| {
        let begin = ["align", "--demo", "--labels", "none", "--output", output];
        let set = ["--set", "align.iterations=1", "--set", "align.warmup-iterations=0"];
        [&begin[..], &set].concat()
    };
    place.succeed(&begin("whole"));
    let told = "stopped; what was finished is saved. Continue with:\n  fisao align --resume cut";
    let kept = place.path("cut/calibration.json.partial");
    let go_on = ["align", "--resume", "cut"];
    let said = interrupt(&place, &begin("cut"), &kept);
    assert!(said.contains(told), "{said}");
    assert!(!place.path("cut/calibration.json").exists(), "the calibration was done");
    let output = place.run(&go_on);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("calibration.json.partial: "), "{said}");
    for name in [
        "calibration.json",
        "metrics.jsonl",
        "validation.jsonl",
        "adapter/adapter_model.safetensors",
    ] {
        let bytes = |run: &str| fs::read(place.path(run).join(name)).unwrap();
        assert!(bytes("whole") == bytes("cut"), "{name} differs");
    }
    assert_eq!(left_over(&place.path("cut")), [""; 0]);
}

#[test]
fn comparison_interrupted_while_captioning_resumes_exactly() {
    let place = Workplace::new();
    let compare = |output: &'static str| {
        let methods = ["--methods", "best-of-n", "--set", "align.iterations=1"];
        let begin = ["compare", "--quick", "--seeds", "1", "--labels", "none", "--output", output];
        [&begin[..], &methods].concat()
    };
    place.succeed(&compare("whole"));
    let told = |method: &str| {
        format!(
            "stopped in {method}, seed 0; what was finished is kept. Continue with:\n  the same command"
        )
    };
    for (method, kept) in [
        ("FiSAO (PPO)", "fisao/seed-0.calibration"),
        ("FiSAO (PPO)", "fisao/seed-0.greedy"),
        ("base model", "base/seed-0.greedy"),
        ("best of 8", "best-of-n/seed-0.candidates"),
    ] {
        let kept = place.path(&format!("cut/runs/{kept}.partial"));
        let said = interrupt(&place, &compare("cut"), &kept);
        assert!(said.contains(&told(method)), "{said}");
    }
    place.succeed(&compare("cut"));
    assert_eq!(read(&place, "whole/compare.json"), read(&place, "cut/compare.json"));
    assert_eq!(left_over(&place.path("cut")), [""; 0]);
}
