//! Killed runs resume as if nothing had happened.

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
    "validation.jsonl",
];

pub(crate) fn begin(output: &str) -> Vec<String> {
    let iterations = format!("align.iterations={ITERATIONS}");
    let set = [
        iterations.as_str(),
        "checkpoint.every=3",
        "max-new-tokens=24",
        "align.images-per-iteration=8",
        "align.learning-rate=1e-3",
        "objective.kl.controller=adaptive",
        // Phrases are embedded when they are met, in another order after a resume.
        "score.wording=phrase",
        // A random model names nothing, so all its responses earn the same.
        "guards.patience=0",
    ];
    let mut arguments: Vec<&str> = vec!["align", "--model", "llava", "--verifier", "clip"];
    arguments.extend(["--calibration", "calibration.json", "--images", "pictures"]);
    arguments.extend(["--output", output]);
    arguments.extend(set.iter().flat_map(|setting| ["--set", setting]));
    arguments.into_iter().map(str::to_owned).collect()
}

pub(crate) fn go_on(output: &str) -> Vec<String> {
    ["align", "--resume", output].map(str::to_owned).to_vec()
}

pub(crate) fn workplace() -> Workplace {
    let place = Workplace::furnished();
    write_calibration(&place);
    place
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

pub(crate) fn recorded(place: &Workplace, run: &str) -> usize {
    fs::read_to_string(place.path(run).join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Starts the command and ends it, in the way a signal does, once so many iterations are recorded. Returns its exit code,
/// or `None` if it was killed.
fn end_after(place: &Workplace, arguments: &[String], lines: usize, signal: &str) -> Option<i32> {
    let mut child = place.start(arguments);
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

pub(crate) fn assert_same(place: &Workplace, whole: &str, cut: &str) {
    for name in RESULTS {
        let read = |run: &str| fs::read(place.path(run).join(name)).unwrap_or_default();
        assert_eq!(read(whole), read(cut), "{name} differs");
    }
    assert_eq!(recorded(place, cut), ITERATIONS);
}

#[cfg(unix)]
#[test]
fn repeatedly_killed_run_equals_an_uninterrupted_one() {
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
fn demo_run_killed_before_its_first_checkpoint_starts_over() {
    let place = Workplace::new();
    let begin = |output: &str| {
        let set = ["align.iterations=3", "align.images-per-iteration=8", "validation-every=2"];
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
fn stopped_run_saves_a_state_that_resumes_exactly() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    assert_eq!(end_after(&place, &begin("cut"), 4, "-TERM"), Some(130));
    assert!(recorded(&place, "cut") < ITERATIONS, "it stopped before its end");
    place.succeed(&strings(&go_on("cut")));
    assert_same(&place, "whole", "cut");
}

/// Whatever it was doing, and though nothing was learned yet.
#[cfg(unix)]
#[test]
fn run_stopped_before_its_first_iteration_starts_over() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    let mut child = place.start(begin("cut"));
    let started = Instant::now();
    // The records are opened after it has begun to listen for Ctrl-C.
    while !place.path("cut/samples.jsonl").exists() {
        assert!(started.elapsed() < Duration::from_mins(2), "no progress");
        sleep(Duration::from_millis(1));
    }
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(recorded(&place, "cut") < ITERATIONS);
    place.succeed(&strings(&go_on("cut")));
    assert_same(&place, "whole", "cut");
}

#[test]
fn damaged_checkpoint_is_skipped() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    place.truncate("cut/checkpoint/iteration-12/trainer.safetensors", 200);
    let mut metrics = fs::read_to_string(place.path("cut/metrics.jsonl")).unwrap();
    metrics.push_str("{\"iteration\":13,\"resp");
    place.write("cut/metrics.jsonl", metrics);
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("the state after iteration 12 is passed over"), "{errors}");
    assert!(errors.contains("resuming after iteration 9 of 12"), "{errors}");
    assert_same(&place, "whole", "cut");
}

/// Earlier versions called some settings, keys and files by other names.
#[test]
fn run_with_former_names_is_resumed() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    let former = [begin("cut"), vec!["--set".to_owned(), "check-every=10".to_owned()]].concat();
    let output = place.run(&strings(&former));
    let errors = String::from_utf8_lossy(&output.stderr);
    let note = "note: the setting `check-every` has been renamed to `validation-every`\n";
    assert!(errors.contains(note), "{errors}");
    let rename = |name: &str, names: &[(&str, &str)]| {
        let mut text = fs::read_to_string(place.path(name)).expect("it was written");
        for (present, former) in names {
            assert!(text.contains(present), "{name} has no {present}");
            text = text.replace(present, former);
        }
        place.write(name, text);
    };
    let settings = [
        ("validation-every", "check-every"),
        ("gradient-checkpointing", "recompute-layers"),
        ("entropy-fraction", "entropy-share"),
        ("neutral-fraction", "neutral-share"),
    ];
    rename("cut/config.toml", &settings);
    let source = [
        ("validation-fraction", "validation-share"),
        ("allow-mismatched-verifier", "allow-foreign-verifier"),
    ];
    rename("cut/run.toml", &source);
    rename("cut/metrics.jsonl", &[("repeated_fraction", "repeated_share")]);
    fs::rename(place.path("cut/validation.jsonl"), place.path("cut/watch.jsonl"))
        .expect("it is there");
    place.truncate("cut/checkpoint/iteration-12/trainer.safetensors", 200);
    place.succeed(&strings(&go_on("cut")));
    assert!(!place.path("cut/watch.jsonl").exists());
    for name in ["adapter/adapter_model.safetensors", "validation.jsonl"] {
        let read = |run: &str| fs::read(place.path(run).join(name)).expect("it is there");
        assert!(read("whole") == read("cut"), "{name} differs");
    }
    assert_eq!(recorded(&place, "cut"), ITERATIONS);
}

/// The numbers of a file's records, in order.
fn iterations_of(place: &Workplace, name: &str) -> Vec<usize> {
    let text = fs::read_to_string(place.path(name)).expect("it was written");
    let number = |line: &str| -> usize {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        record["iteration"].as_u64().expect("a number") as usize
    };
    text.lines().map(number).collect()
}

/// The steps of the events in a file for `TensorBoard`: length and its checksum, the time, the step under tag 0x10, and more.
fn steps_of(events: &[u8]) -> Vec<usize> {
    let (mut steps, mut rest) = (Vec::new(), events);
    while let Some((head, body)) = rest.split_first_chunk::<12>() {
        let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
        let event = &body[..length];
        let step = if event[9] == 0x10 { usize::from(event[10]) } else { 0 };
        steps.push(step);
        rest = &body[length + 4..];
    }
    steps
}

#[test]
fn iterations_count_from_one_everywhere() {
    let place = workplace();
    // The largest ratio of an update is above 1.
    let more = ["--set", "validation-every=4", "--set", "guards.ratio=1"];
    let output = place.run(&[&strings(&begin("run"))[..], &more].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let all: Vec<usize> = (1..=ITERATIONS).collect();
    assert_eq!(iterations_of(&place, "run/metrics.jsonl"), all);
    assert_eq!(iterations_of(&place, "run/timings.jsonl"), all);
    // What is validated is the policy after an iteration; the base model's number is 0.
    assert_eq!(iterations_of(&place, "run/validation.jsonl"), [0, 4, 8, 12]);
    let mut shown = iterations_of(&place, "run/samples.jsonl");
    shown.dedup();
    assert_eq!(shown, [0, 4, 8, 12]);
    let first = fs::read_to_string(place.path("run/samples/iteration-00000.html")).unwrap();
    assert!(first.contains("Samples before training"), "{first}");
    let last = fs::read_to_string(place.path("run/samples/iteration-00012.html")).unwrap();
    assert!(last.contains("Samples after iteration 12"), "{last}");
    let events = fs::read_dir(place.path("run/tensorboard")).unwrap().next().unwrap().unwrap();
    let mut steps = steps_of(&fs::read(events.path()).unwrap());
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps, (0..=ITERATIONS).collect::<Vec<_>>());
    assert!(place.path("run/checkpoint/iteration-12").is_dir());
    assert!(said.contains("warning: after iteration 1: one update changed"), "{said}");
}

/// Earlier versions counted the iterations of metrics and timings from 0.
#[test]
fn a_run_that_counted_from_zero_is_renumbered_and_resumed() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    for name in ["cut/metrics.jsonl", "cut/timings.jsonl"] {
        let mut text = fs::read_to_string(place.path(name)).unwrap();
        for at in 1..=ITERATIONS {
            let number = |at: usize| format!("{{\"iteration\":{at},");
            assert!(text.contains(&number(at)), "{name}");
            text = text.replace(&number(at), &number(at - 1));
        }
        place.write(name, text);
    }
    place.truncate("cut/checkpoint/iteration-12/trainer.safetensors", 200);
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("resuming after iteration 9 of 12"), "{errors}");
    assert_same(&place, "whole", "cut");
    let all: Vec<usize> = (1..=ITERATIONS).collect();
    assert_eq!(iterations_of(&place, "cut/timings.jsonl"), all);
}

/// Everything in a run's folder with its bytes but the lock.
fn bytes_of(place: &Workplace, name: &str) -> Vec<u8> {
    fs::read(place.path(name)).unwrap_or_default()
}

#[test]
fn flipped_bit_in_a_checkpoint_is_detected() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    let name = "cut/checkpoint/iteration-12/trainer.safetensors";
    let mut bytes = bytes_of(&place, name);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.write(name, bytes);
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("trainer.safetensors is damaged"), "{errors}");
    assert!(errors.contains("resuming after iteration 9 of 12"), "{errors}");
    assert_same(&place, "whole", "cut");
}

#[test]
fn resume_falls_back_or_is_rejected_if_records_have_gaps() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    let lines = |name: &str, keep: &dyn Fn(usize) -> bool| {
        let text = fs::read_to_string(place.path(name)).unwrap();
        let kept = text.lines().enumerate().filter(|(at, _)| keep(*at));
        kept.flat_map(|(_, line)| [line, "\n"]).collect::<String>()
    };
    // Cut behind the state before the last: the run goes back to that.
    place.write("cut/metrics.jsonl", lines("cut/metrics.jsonl", &|at| at < 10));
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("metrics.jsonl has 0 records of iteration 11, not 1"), "{errors}");
    assert!(errors.contains("resuming after iteration 9 of 12"), "{errors}");
    assert_same(&place, "whole", "cut");
    // Every state comes after what is missing: refused, and nothing of what is there is touched.
    for (name, keep) in [
        ("cut/metrics.jsonl", &(|_| false) as &dyn Fn(usize) -> bool),
        ("cut/metrics.jsonl", &|at| at != 4),
        ("cut/timings.jsonl", &|at| at != 0),
        ("cut/validation.jsonl", &|at| at != 0),
        ("cut/samples.jsonl", &|at| at != 2),
    ] {
        let whole = fs::read_to_string(place.path(name)).unwrap();
        let holed = lines(name, keep);
        place.write(name, &holed);
        let error = place.refuse(&strings(&go_on("cut")));
        assert!(error.contains(&format!("{name} has ")), "{error}");
        assert!(error.contains("put the file back as it was"), "{error}");
        assert_eq!(fs::read_to_string(place.path(name)).unwrap(), holed);
        place.write(name, whole);
    }
    fs::remove_file(place.path("cut/metrics.jsonl")).unwrap();
    let error = place.refuse(&strings(&go_on("cut")));
    assert!(error.contains("metrics.jsonl has 0 records of iteration 1, not 1"), "{error}");
}

#[test]
fn run_is_not_resumed_with_edited_data() {
    let place = workplace();
    let prompts = [
        r#"{"image":"a.png","prompt":"Describe the image"}"#,
        r#"{"image":"b.png","prompt":"Describe the image"}"#,
        r#"{"image":"c.png","prompt":"Describe the dog"}"#,
        r#"{"image":"a.png","prompt":"Describe the cat"}"#,
    ];
    let write = |rows: &[&str]| place.write("prompts.jsonl", rows.join("\n"));
    write(&prompts);
    let begin = |output: &str| {
        let more = ["--prompts", "prompts.jsonl", "--set", "align.iterations=2"];
        begin(output).into_iter().chain(more.map(str::to_owned)).collect::<Vec<_>>()
    };
    place.succeed(&strings(&begin("whole")));
    place.succeed(&strings(&begin("cut")));
    fs::remove_dir_all(place.path("cut/checkpoint")).unwrap();
    let [first, second, third, fourth] = prompts;
    let changed = first.replace("image\"}", "bench\"}");
    for (rows, said) in [
        (vec![first, second, third], "what was row 4 is no longer there (rows: 1 removed)"),
        (vec![first, second, third, fourth, second], "row 5 (b.png) is new (rows: 1 added)"),
        (
            vec![second, first, third, fourth],
            "the rows are in another order, from row 1 (b.png) on",
        ),
        (vec![&changed, second, third, fourth], "row 1 (a.png) has another prompt or answer"),
    ] {
        write(&rows);
        let error = place.refuse(&strings(&go_on("cut")));
        assert!(error.contains("cut was started with other data: "), "{error}");
        assert!(error.contains(said), "{error}");
    }
    write(&prompts);
    // Another image of the same size under the same name.
    let picture = bytes_of(&place, "pictures/b.png");
    let mut other = image::open(place.path("pictures/b.png")).unwrap().to_rgb8();
    other.put_pixel(3, 3, image::Rgb([1, 2, 3]));
    other.save(place.path("pictures/b.png")).unwrap();
    let error = place.refuse(&strings(&go_on("cut")));
    assert!(error.contains("the image of row 2 (b.png) is another"), "{error}");
    place.write("pictures/b.png", picture);
    place.succeed(&strings(&go_on("cut")));
    for name in RESULTS {
        assert_eq!(
            bytes_of(&place, &format!("whole/{name}")),
            bytes_of(&place, &format!("cut/{name}")),
            "{name}"
        );
    }
    // A run of an earlier version, which does not say what it was begun with.
    fs::remove_file(place.path("cut/data.json")).unwrap();
    let errors = place.run(&strings(&go_on("cut"))).stderr;
    let errors = String::from_utf8_lossy(&errors);
    assert!(errors.contains("does not record the data it was started with"), "{errors}");
}

#[test]
fn run_is_not_resumed_with_other_models_or_calibration() {
    let place = workplace();
    place.succeed(&strings(&begin("cut")));
    let mut calibration: serde_json::Value =
        serde_json::from_slice(&bytes_of(&place, "cut/calibration.json")).unwrap();
    calibration["mu_correct"] = 0.75.into();
    let calibration = calibration.to_string().into_bytes();
    let flipped = |name: &str| {
        let mut bytes = bytes_of(&place, name);
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        bytes
    };
    for (name, other, said) in [
        ("llava/model.safetensors", flipped("llava/model.safetensors"), "the model is another"),
        ("clip/tokenizer_config.json", b"{}".to_vec(), "the verifier is another"),
        ("cut/calibration.json", calibration, "the calibration is another"),
    ] {
        let before = bytes_of(&place, name);
        place.write(name, other);
        let error = place.refuse(&strings(&go_on("cut")));
        assert!(error.contains(&format!("cut was started with other data: {said}")), "{error}");
        place.write(name, before);
    }
    // As earlier versions wrote it.
    let data = bytes_of(&place, "cut/data.json");
    let mut older: serde_json::Value = serde_json::from_slice(&data).unwrap();
    let inputs = older["inputs"].as_object_mut().unwrap();
    inputs.retain(|name, _| name == "vocabulary");
    place.write("cut/data.json", older.to_string());
    place.succeed(&strings(&go_on("cut")));
}

#[test]
fn changed_image_folder_is_detected_on_resume() {
    let place = workplace();
    place.succeed(&strings(&begin("cut")));
    fs::copy(place.path("pictures/a.png"), place.path("pictures/aa.png")).unwrap();
    let error = place.refuse(&strings(&go_on("cut")));
    assert!(error.contains("row 2 (aa.png) is new (rows: 1 added)"), "{error}");
}

/// Two processes at once: the second is refused and names the first, and the first ends as if it had been alone.
#[cfg(unix)]
#[test]
fn run_folder_is_locked_by_one_process_at_a_time() {
    let place = workplace();
    place.succeed(&strings(&begin("whole")));
    let mut child = place.start(begin("cut"));
    let started = Instant::now();
    while recorded(&place, "cut") < 1 {
        assert!(started.elapsed() < Duration::from_mins(2), "no progress");
        sleep(Duration::from_millis(2));
    }
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    // It may have been over by then, on a fast machine.
    if output.status.code() != Some(0) {
        assert!(
            errors.contains(&format!("cut is being written by process {} on ", child.id())),
            "{errors}"
        );
        assert!(errors.contains("wait until it has ended"), "{errors}");
    }
    assert!(child.wait().expect("it ends").success());
    assert_same(&place, "whole", "cut");
    assert!(!place.path("cut/.fisao.lock").exists());
}

#[cfg(unix)]
#[test]
fn lock_of_a_killed_run_is_taken_over_with_a_note() {
    let place = workplace();
    end_after(&place, &begin("cut"), 2, "-KILL");
    assert!(place.path("cut/.fisao.lock").exists());
    let output = place.run(&strings(&go_on("cut")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("has ended; its lock is taken over"), "{errors}");
    place.write("cut/.fisao.lock", r#"{"pid":7,"host":"elsewhere"}"#);
    let error = place.refuse(&strings(&go_on("cut")));
    assert!(error.contains("cut is being written by process 7 on elsewhere"), "{error}");
    assert!(error.contains("delete cut/.fisao.lock"), "{error}");
}

#[test]
fn run_is_resumed_only_with_its_original_settings() {
    let place = workplace();
    place.succeed(&strings(&begin("cut")));
    let refuse = |more: &[&str]| place.refuse(&[&["align", "--resume", "cut"], more].concat());
    let error = refuse(&["--set", "align.iterations=20", "--set", "lora.rank=4"]);
    assert!(error.contains("`lora.rank` ="), "{error}");
    assert!(!error.contains("= 12"), "the number of iterations may change: {error}");
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
    assert!(error.contains("cut was started with something else: `model` ="), "{error}");
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
fn all_zero_reward_is_rejected_in_the_first_iteration() {
    let place = workplace();
    place.write("words.txt", "xylophone\n");
    let mut arguments = begin("run");
    let more = ["--set", "reward.truncated-penalty=0", "--vocabulary", "words.txt"];
    arguments.extend(more.map(str::to_owned));
    let error = place.refuse(&strings(&arguments));
    assert!(error.contains("the reward is zero for every one of the first 8 responses"), "{error}");
}

#[test]
fn a_run_without_a_learning_rate_gets_and_keeps_that_of_its_models_size() {
    let place = workplace();
    let begin = begin("run");
    let own = begin.iter().position(|word| word.starts_with("align.learning-rate")).unwrap();
    let begin = [&begin[..own - 1], &begin[own + 1..]].concat();
    let output = place.run(&strings(&begin));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("learning rate 6e-4, by the model's size"), "{said}");
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("learning-rate = 0.0006\n"), "{config}");
    let output = place.run(&strings(&go_on("run")));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("learning rate"), "{said}");
}

#[test]
fn finished_run_is_extended_by_raising_its_iterations() {
    let place = workplace();
    place.succeed(&strings(&begin("run")));
    let set = |iterations: &str| {
        let set = format!("align.iterations={iterations}");
        [go_on("run"), vec!["--set".to_owned(), set]].concat()
    };
    let output = place.run(&strings(&set("15")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("15 iterations instead of 12"), "{errors}");
    assert_eq!(recorded(&place, "run"), 15);
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let rates: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["learning_rate"].as_f64().unwrap())
        .collect();
    // 1/12 of the whole rate at the end of twelve, 3/15 to 1/15 of it at the end of fifteen.
    for (found, expected) in rates[11..].iter().zip([1.0 / 12.0, 0.2, 2.0 / 15.0, 1.0 / 15.0]) {
        assert!((found - 1e-3 * expected).abs() < 1e-9, "{rates:?}");
    }
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("iterations = 15"), "whoever resumes it next goes on to 15");

    let output = place.run(&strings(&set("10")));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("15 iterations are done, more than align.iterations = 10"), "{errors}");
    assert_eq!(fs::read_to_string(place.path("run/config.toml")).unwrap(), config);
    assert_eq!(recorded(&place, "run"), 15);
}
