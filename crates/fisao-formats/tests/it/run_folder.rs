//! The run folder: never two runs in one, never half a file.

use std::fs;

use fisao_formats::documents::write_atomically;
use fisao_formats::run_folder::RunFolder;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::message;

#[test]
fn run_folder_holds_a_single_run() {
    let folder = tempdir().expect("a temporary folder");
    let root = folder.path().join("runs/first");
    let run = RunFolder::create(&root).expect("a new folder");
    assert_eq!(
        message(RunFolder::open(&root), &folder),
        "DIR/runs/first holds no run to resume (config.toml is missing)"
    );
    // Created, but nothing written yet: free as soon as whoever made it is done with it.
    let said = message(RunFolder::create(&root), &folder);
    assert!(said.starts_with("DIR/runs/first is being written by process "), "{said}");
    drop(run);
    let run = RunFolder::create(&root).expect("an empty folder");
    run.write_toml(RunFolder::CONFIG, &json!({ "seed": 1 })).expect("writable");
    let error = RunFolder::create(&root).expect_err("the run is there");
    let hint = error.hint().expect("there is a way out");
    assert!(hint.contains("resume") && hint.contains("another"), "{hint}");
    assert_eq!(
        error.to_string().replace(&folder.path().display().to_string(), "DIR"),
        "DIR/runs/first already holds a run (config.toml is there)"
    );
    assert_eq!(RunFolder::open(&root).expect("a run").root(), run.root());
    let said = message(RunFolder::open_to_write(&root), &folder);
    assert!(said.starts_with("DIR/runs/first is being written by process "), "{said}");
    drop(run);
    RunFolder::open_to_write(&root).expect("nobody else writes into it");
}

#[test]
fn output_folder_with_other_files_is_rejected() {
    let folder = tempdir().expect("a temporary folder");
    fs::write(folder.path().join("thesis.tex"), "").expect("writable");
    assert_eq!(
        message(RunFolder::create(folder.path()), &folder),
        "DIR is not empty (thesis.tex is there), and the output wants a folder of its own"
    );
    let said = message(RunFolder::create(&folder.path().join("thesis.tex")), &folder);
    assert!(said.starts_with("cannot use as output folder DIR/thesis.tex: "), "{said}");
}

#[test]
fn an_interrupted_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempdir().expect("a temporary folder");
    let run = RunFolder::create(folder.path()).expect("an empty folder");
    run.write_json("summary.json", &json!({ "seed": 1 })).expect("writable");
    let result = write_atomically(&run.path("summary.json"), |file| {
        std::io::Write::write_all(file, b"{\"seed\":")?;
        Err(std::io::Error::other("the disk is full"))
    });
    assert_eq!(message(result, &folder), "cannot write DIR/summary.json: the disk is full");
    let text = fs::read_to_string(run.path("summary.json")).expect("the old file");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("whole"), json!({ "seed": 1 }));
    assert_eq!(fs::read_dir(run.root()).expect("a folder").count(), 2, "the file and the lock");
}

#[cfg(unix)]
#[test]
fn written_files_have_default_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().expect("a temporary folder");
    let run = RunFolder::create(folder.path()).expect("an empty folder");
    run.write_bytes("report.html", b"<p>").expect("writable");
    fs::write(run.path("ordinary"), b"").expect("writable");
    let mode = |name: &str| fs::metadata(run.path(name)).expect("it is there").permissions().mode();
    assert_eq!(mode("report.html"), mode("ordinary"));
}

#[test]
fn metrics_are_appended_line_by_line_across_reopening() {
    let folder = tempdir().expect("a temporary folder");
    let run = RunFolder::create(folder.path()).expect("an empty folder");
    let read = || fs::read_to_string(run.path(RunFolder::METRICS)).expect("it is there");
    let mut metrics = run.records(RunFolder::METRICS).expect("writable");
    metrics.write(&json!({ "step": 1, "reward": 0.5 })).expect("writable");
    assert_eq!(read(), "{\"step\":1,\"reward\":0.5}\n", "the line is there before the next one");
    drop(metrics);
    run.records(RunFolder::METRICS)
        .and_then(|mut metrics| metrics.write(&json!({ "step": 2 })))
        .expect("writable");
    assert_eq!(read().lines().count(), 2);
}

#[test]
fn resuming_drops_repeated_steps_and_a_truncated_last_line() {
    let folder = tempdir().expect("a temporary folder");
    let run = RunFolder::create(folder.path()).expect("an empty folder");
    run.retain_records(RunFolder::METRICS, |_| true).expect("no metrics are no problem");
    let path = run.path(RunFolder::METRICS);
    fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").expect("writable");
    run.retain_records(RunFolder::METRICS, |record| record["step"].as_u64() <= Some(2))
        .expect("whole lines");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "{\"step\":1}\n{\"step\":2}\n");
    fs::write(&path, "{\"step\": 0,\"x\":0.1}\n{\"step\": 5}\n").expect("writable");
    run.retain_records(RunFolder::METRICS, |record| {
        if record["step"] == json!(0) {
            record["step"] = json!(1);
        }
        true
    })
    .expect("whole lines");
    let text = fs::read_to_string(&path).expect("it is there");
    assert_eq!(
        text, "{\"step\":1,\"x\":0.1}\n{\"step\": 5}\n",
        "what is not changed stays as it is"
    );
    fs::write(&path, "{\"step\":1}\nnonsense\n").expect("writable");
    let said = message(run.retain_records(RunFolder::METRICS, |_| true), &folder);
    assert!(said.starts_with("DIR/metrics.jsonl, line 2: "), "{said}");
}
