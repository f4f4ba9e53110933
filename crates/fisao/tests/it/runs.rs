//! `fisao runs`: what is told of runs that are sound, unfinished, of another version or damaged.

use std::fs::{self, File};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fixture::Workplace;

/// A run that was last written at noon of a day in November 2023.
fn run(place: &Workplace, name: &str, day: u64, files: &[(&str, String)]) {
    for (file, text) in files {
        let path = place.path(name).join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(&path, text).expect("writable");
        let noon = 1_698_796_800 + (day - 1) * 24 * 3600 + 12 * 3600;
        let file = File::options().write(true).open(&path).expect("it is there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(noon)).expect("times can be set");
    }
}

/// Metrics of so many iterations, the last of which earned `reward`.
fn metrics(iterations: usize, reward: f64) -> String {
    let line = |iteration: usize| {
        let left = (iterations - 1 - iteration) as f64;
        let line = json!({
            "iteration": iteration, "reward_mean": reward - left, "kl": 2.0 + left,
            "length_mean": 40.0, "value_loss": null,
        });
        format!("{line}\n")
    };
    (0..iterations).map(line).collect()
}

fn config(text: &str) -> (&'static str, String) {
    ("config.toml", text.to_owned())
}

/// Three runs, and a folder that is none.
fn sound() -> Workplace {
    let place = Workplace::new();
    let scores = |chair_i: f64, recall: f64| json!({ "chair_i": chair_i, "chair_s": 2.0 * chair_i, "recall": recall });
    let summary = json!({
        "schema": 1, "base": scores(0.187, 0.872), "aligned": scores(0.036, 0.897),
        "warnings": ["recall fell", "a ratio was high"],
    });
    let old =
        "seed = 3\n[ppo]\niterations = 8\nlearning-rate = 0.0008\n[ppo.kl]\ncoefficient = 0.1\n";
    run(
        &place,
        "runs/old",
        3,
        &[
            config(old),
            ("demo.toml", "labels = \"none\"\n".into()),
            ("metrics.jsonl", metrics(8, 6.5)),
            ("summary.json", summary.to_string()),
        ],
    );
    let grouped = "seed = 4\n[align]\niterations = 20\n[objective]\nkind = \"group\"\n[reward.form]\nkind = \"log-odds\"\n";
    run(&place, "runs/sweep/grouped", 5, &[config(grouped), ("metrics.jsonl", metrics(2, -0.5))]);
    let started = "seed = 4\n[align]\niterations = 20\n";
    run(&place, "runs/sweep/started", 4, &[config(started)]);
    run(&place, "runs/notes", 1, &[("plan.txt", String::new())]);
    place
}

/// What is printed and what is said.
fn told(place: &Workplace, arguments: &[&str]) -> (String, String) {
    let output = place.command().env("TZ", "UTC").args(arguments).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(output.stderr));
    (text(output.stdout), text(output.stderr))
}

fn document(place: &Workplace, arguments: &[&str]) -> Value {
    let arguments = [&["runs"], arguments, &["--format", "json"]].concat();
    serde_json::from_str(&told(place, &arguments).0).expect("JSON")
}

/// Names of the runs in their order.
fn order(place: &Workplace, key: &str) -> Vec<String> {
    let document = document(place, &["--sort", key]);
    let name = |run: &Value| {
        run["path"].as_str().and_then(|path| path.rsplit('/').next().map(str::to_owned))
    };
    document["runs"].as_array().expect("a list").iter().filter_map(name).collect()
}

#[test]
fn runs_are_listed() {
    let place = sound();
    let (table, said) = told(&place, &["runs"]);
    insta::assert_snapshot!(table);
    assert_eq!(said, "no run in runs/notes\n");
    insta::assert_snapshot!(told(&place, &["runs", "--format", "markdown"]).0);
    let first = &document(&place, &[])["runs"][0];
    assert_eq!((&first["written"], &first["seed"]), (&json!("2023-11-03T12:00:00Z"), &json!(3)));
    assert_eq!((&first["reward"], &first["kl"]), (&json!(4.5), &json!(4.0)), "the last five");
    assert_eq!(first["aligned"]["chair_i"], 0.036);
}

#[test]
fn run_given_directly_and_by_its_parent_is_listed_once() {
    let place = sound();
    let (table, said) = told(&place, &["runs", "runs/sweep/grouped", "runs/sweep"]);
    assert_eq!((table.lines().count(), said.as_str()), (3, ""));
    // Without scores there are no columns for them.
    assert!(!table.contains("CHAIR"), "{table}");
}

#[test]
fn runs_are_sorted_by_the_given_column() {
    let place = sound();
    assert_eq!(order(&place, "path"), ["old", "grouped", "started"]);
    assert_eq!(order(&place, "written"), ["grouped", "started", "old"]);
    assert_eq!(order(&place, "reward"), ["old", "grouped", "started"]);
    assert_eq!(order(&place, "kl"), ["grouped", "old", "started"]);
    assert_eq!(order(&place, "method"), ["grouped", "old", "started"]);
    assert_eq!(order(&place, "chair-i"), ["old", "grouped", "started"]);
}

#[test]
fn only_settings_that_differ_are_compared() {
    let place = sound();
    insta::assert_snapshot!(told(&place, &["runs", "--compare"]).0);
    let document = document(&place, &["--compare", "runs/sweep"]);
    let expected =
        json!({ "objective.kind": ["group", null], "reward.form.kind": ["log-odds", null] });
    assert_eq!(document["settings"], expected);
}

#[test]
fn damaged_runs_are_reported_but_listed() {
    let place = Workplace::new();
    let broken = format!("{}not JSON\n{{\"iteration\":3,\"rew", metrics(2, 1.0));
    run(&place, "runs/broken", 1, &[config("seed = 1\n"), ("metrics.jsonl", broken)]);
    run(
        &place,
        "runs/foreign",
        1,
        &[
            config("seed = \n"),
            ("metrics.jsonl", "{\"step\":1,\"kl\":0.5}\n".into()),
            ("summary.json", "{\"base\":".into()),
        ],
    );
    let (table, said) = told(&place, &["runs"]);
    insta::assert_snapshot!(table);
    insta::assert_snapshot!(said);
}

#[test]
fn folder_without_runs_is_accepted_but_a_missing_one_is_not() {
    let place = Workplace::new();
    fs::create_dir_all(place.path("empty/below")).expect("writable");
    place.write("notes.txt", "");
    let (table, said) = told(&place, &["runs", "empty", "notes.txt"]);
    assert_eq!(table.lines().count(), 1, "{table}");
    assert_eq!(said, "no run in 2 folders: empty, notes.txt\n");
    let error = place.refuse(&["runs"]);
    assert!(error.contains("no folder at runs") && error.contains("hint: name folders"), "{error}");
}
