//! `fisao bench`: which cases there are, what is said of them, and what is refused. How fast they are is not tested.

use serde_json::Value;

use crate::fixture::Workplace;

#[test]
fn cases_are_listed() {
    insta::assert_snapshot!("bench-list", Workplace::new().succeed(&["bench", "--list"]));
}

#[test]
fn unknown_case_is_rejected_before_measuring() {
    insta::assert_snapshot!(
        "bench-unknown",
        Workplace::new().refuse(&["bench", "product", "decod-7b"])
    );
}

#[test]
fn measuring_time_of_zero_is_rejected() {
    let error = Workplace::new().refuse(&["bench", "product", "--seconds", "0"]);
    assert!(error.contains("must be a number above 0"), "{error}");
}

/// The process that measures ends when the one that started it was killed.
#[cfg(target_os = "linux")]
#[test]
fn measuring_process_ends_when_the_command_is_killed() {
    use std::process::{Command, Stdio};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    let children = |id: u32| {
        let path = format!("/proc/{id}/task/{id}/children");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < Duration::from_mins(1), "{what}");
            sleep(Duration::from_millis(5));
        }
    };
    for signal in ["-KILL", "-TERM", "-INT"] {
        let mut parent = Command::new(env!("CARGO_BIN_EXE_fisao"))
            .args(["bench", "product-1-f32", "--no-ceilings", "--seconds", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = parent.id();
        wait_for("no process was started", &|| !children(id).is_empty());
        let child = children(id);
        assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
        parent.wait().unwrap();
        let status = format!("/proc/{child}/status");
        let is_over =
            || std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"));
        wait_for(signal, &is_over);
    }
}

/// A whole name is one case, the beginning of names are several; what they did is in the numbers.
#[test]
fn selected_cases_report_consistent_measurements() {
    let measured = |cases: &[&str]| -> Value {
        let options = ["bench", "--no-ceilings", "--seconds", "0.001", "--format", "json"];
        let arguments: Vec<&str> = options.iter().chain(cases).copied().collect();
        serde_json::from_str(&Workplace::new().succeed(&arguments)).expect("JSON")
    };
    let found = measured(&["product-16-f32", "product-1-"]);
    let cases = found["cases"].as_array().expect("a list");
    let names: Vec<&str> = cases.iter().filter_map(|case| case["case"].as_str()).collect();
    assert_eq!(names, ["product-1-f32", "product-1-bf16", "product-16-f32"]);
    for case in cases {
        let number = |key: &str| case[key].as_f64().expect("a number");
        assert!(number("repetitions") >= 3.0, "{case}");
        assert!(number("shortest") <= number("seconds"), "{case}");
        assert!(number("seconds") <= number("longest"), "{case}");
        let rate = number("count") / number("seconds");
        assert!((number("rate") / rate - 1.0).abs() < 1e-9, "{case}");
        assert!(number("peak_memory_mb") > 1.0, "{case}");
    }
    // One row by 4096 × 4096: two operations a number, which takes four bytes or two.
    let bytes_by_flop = |at: usize| {
        let number = |key: &str| cases[at][key].as_f64().expect("a number");
        number("gigabytes_per_second") / number("gflops")
    };
    assert!((bytes_by_flop(0) - 2.0).abs() < 1e-9, "f32");
    assert!((bytes_by_flop(1) - 1.0).abs() < 1e-9, "bf16");
    assert!(cases[2]["gigabytes_per_second"].is_null(), "its matrix stays in a cache");
}
