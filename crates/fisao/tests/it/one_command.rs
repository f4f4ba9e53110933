//! `fisao align --model NAME --images PHOTOS --output RUN`: a run that calibrates itself and reports what it has changed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use fisao_runs::bundle::embedded;
use fisao_scenes::{Split, World, WorldKind};
use serde_json::{Value, json};

use crate::fixture::Workplace;
use crate::interrupted::{forget_times, interrupt, left_over};

/// Images of the folder `photographs`.
const IMAGES: u64 = 96;

/// A folder with the demo's models as checkpoints of one's own, scenes as photographs, and what is in them.
fn workplace() -> Workplace {
    let place = Workplace::new();
    let models = embedded(WorldKind::Clear).unwrap();
    copy(&models.llava(), &place.path("model"));
    copy(&models.clip(), &place.path("verifier"));
    fs::create_dir(place.path("photographs")).unwrap();
    let world = World::new();
    let mut annotations = String::new();
    for index in 0..IMAGES {
        let scene = world.scene(Split::Calibration, 0, index);
        let name = format!("{index:03}.png");
        world.render(&scene).save(place.path("photographs").join(&name)).unwrap();
        let row = json!({ "image_id": name, "objects": scene.categories() });
        writeln!(annotations, "{row}").unwrap();
    }
    place.write("annotations.jsonl", annotations);
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A short run into `output`.
fn align<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let begin = ["align", "--model", "model", "--verifier", "verifier", "--images", "photographs"];
    let sizes = ["--calibration-images", "64", "--test-images", "16", "--output", output];
    let set = ["align.iterations=2", "align.images-per-iteration=8", "max-new-tokens=64"];
    let set: Vec<&str> = set.iter().flat_map(|setting| ["--set", setting]).collect();
    [&begin[..], &sizes, &set, more].concat()
}

const WORLD: [&str; 2] = ["--vocabulary", "world"];

fn report(place: &Workplace, run: &str) -> Value {
    let text = fs::read(place.path(run).join("report.json")).unwrap();
    let mut value = serde_json::from_slice(&text).unwrap();
    forget_times(&mut value);
    value
}

#[test]
fn a_run_calibrates_itself_and_reports_estimates_before_and_after() {
    let place = workplace();
    let output = place.run(&align("run", &[&WORLD[..], &["--merge", "merged", "--yes"]].concat()));
    let (said, printed) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "vocabulary world, ",
        "96: 64 to calibrate on (without labels), 16 to train on (validated on 32 of the calibration's), 16 to be measured on before and after",
        "2 iterations of 8 images, 1 caption each, 16 in all; ppo, LoRA of rank 16, learning rate",
        "memory     ",
        "estimated AUC ",
        "merged model: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(printed.starts_with("Estimated by the verifier, without labels: "), "{printed}");
    assert!(printed.contains("greedy, estimated"), "{printed}");
    for file in
        ["calibration.json", "adapter/adapter_model.safetensors", "split.json", "config.toml"]
    {
        assert!(place.path("run").join(file).exists(), "{file}");
    }
    assert_eq!(left_over(&place.path("run")), [""; 0]);
    let found = report(&place, "run");
    let rows = found["before_after"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["estimated"] == true), "{rows:?}");
    let interval = &rows[0]["intervals"][0]["chair_i"];
    let (low, high) = (interval["low"].as_f64().unwrap(), interval["high"].as_f64().unwrap());
    let rate = rows[0]["base"]["chair_i"].as_f64().unwrap();
    assert!(low <= rate && rate <= high && low < high, "{rate} in {interval}");
    assert_eq!(found["images"]["annotated"], 0);
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(
        page.contains("data:image/jpeg;base64,") && page.contains("<strong>Estimates.</strong>")
    );
    assert!(page.contains("class=\"maps\""), "no doubtful word has a heat map");
    assert!(!page.contains("http://") && !page.contains("https://"), "the page asks nobody");
    // The merged model is one that describes images.
    let captions =
        place.succeed(&["caption", "--model", "merged", "--images", "photographs/000.png"]);
    assert!(!captions.trim().is_empty());
    // Nothing is left to do.
    let before = fs::read(place.path("run/report.html")).unwrap();
    let output = place.run(&["align", "--resume", "run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("all iterations are done, and the report is written"), "{said}");
    assert_eq!(fs::read(place.path("run/report.html")).unwrap(), before);
}

#[test]
fn annotated_images_are_measured_beside_the_estimates() {
    let place = workplace();
    let more = [&WORLD[..], &["--annotations", "annotations.jsonl"]].concat();
    let printed = place.succeed(&align("run", &more));
    assert!(printed.starts_with("Object mentions that name something absent "), "{printed}");
    let found = report(&place, "run");
    assert_eq!(found["images"]["annotated"], 16);
    let rows = found["before_after"].as_array().unwrap();
    let estimated: Vec<bool> = rows.iter().map(|row| row["estimated"] == true).collect();
    assert_eq!(estimated, [false, false, true, true]);
    // The demo's verifier tells correct mentions from hallucinated ones without a mistake.
    for at in [0, 1] {
        let rate = |row: &Value| row["base"]["chair_i"].as_f64().unwrap();
        let (measured, estimate) = (rate(&rows[at]), rate(&rows[at + 2]));
        assert!((measured - estimate).abs() < 0.05, "{measured} and {estimate}");
    }
    for (at, temperature) in [(0, 0.0), (1, 1.0)] {
        let [base, aligned] = [0, 1].map(|model| &rows[at]["protocols"][model]);
        for protocol in [base, aligned] {
            assert_eq!(protocol["images"], 16);
            assert!(protocol["model"].as_str().unwrap().ends_with("model"), "{protocol}");
            assert_eq!(protocol["temperature"], temperature);
            assert_eq!(
                (&protocol["vocabulary"], &protocol["rules"]),
                (&json!("world"), &json!("strict"))
            );
            assert_eq!(protocol["prompt"], "Describe the image.");
            assert!(protocol["tokens"]["mean"].as_f64().unwrap() > 1.0, "{protocol}");
        }
        assert_eq!(base["image_ids_sha256"], aligned["image_ids_sha256"]);
        assert_eq!((&base["adapter"], &aligned["adapter"]), (&Value::Null, &json!("adapter")));
        assert_eq!(aligned["adapter_sha256"].as_str().map(str::len), Some(64));
    }
    assert!(rows[2].get("protocols").is_none(), "estimates count nothing");
    let calibration: Value =
        serde_json::from_slice(&fs::read(place.path("run/calibration.json")).unwrap()).unwrap();
    assert_eq!(calibration["mode"], "annotations");
}

/// Ctrl-C, and kills, in every part of a run.
#[cfg(unix)]
#[test]
fn a_run_that_is_ended_in_any_phase_resumes_to_the_same_result() {
    let place = workplace();
    place.succeed(&align("whole", &WORLD));
    let told = "stopped; what was finished is saved. Continue with:\n  fisao align --resume cut";
    let kept = |name: &str| place.path(&format!("cut/{name}.partial"));
    let go_on = ["align", "--resume", "cut"];
    let said = interrupt(&place, &align("cut", &WORLD), &kept("calibration.json"));
    assert!(said.contains(told), "{said}");
    assert!(!place.path("cut/calibration.json").exists(), "the calibration was done");
    interrupt(&place, &go_on, &kept("captions-base-greedy"));
    assert!(
        place.path("cut/calibration.json").exists() && !place.path("cut/metrics.jsonl").exists()
    );
    kill_after(&place, &go_on, &place.path("cut/metrics.jsonl"));
    interrupt(&place, &go_on, &kept("captions-aligned-greedy"));
    assert!(!place.path("cut/report.json").exists(), "the report was written");
    place.succeed(&go_on);
    for name in [
        "calibration.json",
        "config.toml",
        "split.json",
        "metrics.jsonl",
        "validation.jsonl",
        "adapter/adapter_model.safetensors",
    ] {
        let bytes = |run: &str| fs::read(place.path(run).join(name)).unwrap();
        assert!(bytes("whole") == bytes("cut"), "{name} differs");
    }
    let numbers = |run: &str| {
        let mut report = report(&place, run);
        // Seconds and memory.
        report.as_object_mut().unwrap().remove("facts");
        report
    };
    assert_eq!(numbers("whole"), numbers("cut"));
    assert_eq!(left_over(&place.path("cut")), [""; 0]);
}

/// Starts the command and kills it once a file has a line.
#[cfg(unix)]
fn kill_after(place: &Workplace, arguments: &[&str], file: &Path) {
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    let mut child = place.start(arguments);
    let started = Instant::now();
    while fs::read_to_string(file).map_or(0, |text| text.lines().count()) < 1 {
        assert!(started.elapsed() < Duration::from_mins(2), "no progress");
        assert!(child.try_wait().unwrap().is_none(), "it ended before {}", file.display());
        sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn captions_survive_a_vocabulary_that_names_none_of_their_objects() {
    let place = workplace();
    place.write("words.txt", "zeppelin\nsextant\n");
    let output = place.run(&align("run", &["--vocabulary", "words.txt"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("none of the vocabulary's 2 objects is named in 64 captions"), "{said}");
    assert!(said.contains("fisao align --resume run --vocabulary LIST"), "{said}");
    let responses = fs::read_to_string(place.path("run/calibration.json.partial")).unwrap();
    assert_eq!(responses.lines().count(), 1 + 64);
    let output = place.run(&["align", "--resume", "run", "--vocabulary", "world"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("64 responses are there already"), "{said}");
    // The same as with that vocabulary from the beginning.
    place.succeed(&align("whole", &WORLD));
    assert_eq!(report(&place, "run")["before_after"], report(&place, "whole")["before_after"]);
    // Once it is calibrated, that cannot be changed.
    let error = place.refuse(&["align", "--resume", "run", "--vocabulary", "coco"]);
    assert!(error.contains("is calibrated already"), "{error}");
}

#[test]
fn a_run_that_cannot_calibrate_itself_says_what_to_do_and_keeps_its_captions() {
    let place = workplace();
    let few = ["--vocabulary", "world", "--calibration-images", "4"];
    let begin = align("run", &few);
    let begin: Vec<&str> = {
        // The first of the two counts is not wanted.
        let at = begin.iter().position(|part| *part == "--calibration-images").unwrap();
        [&begin[..at], &begin[at + 2..]].concat()
    };
    let output = place.run(&begin);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the run cannot calibrate itself; its captions are kept in run"),
        "{said}"
    );
    assert!(said.contains("are too few to calibrate on"), "{said}");
    assert!(said.contains("a larger --calibration-images"), "{said}");
    assert!(place.path("run/calibration.json.partial").exists());
}

#[test]
fn too_few_images_are_refused_with_the_number_that_is_needed() {
    let place = Workplace::furnished();
    let begin = ["align", "--model", "llava", "--verifier", "clip", "--images", "pictures"];
    let error = place.refuse(&[&begin[..], &["--output", "run"]].concat());
    insta::assert_snapshot!(error, @r"
    image folder: 3 rows
    error: 3 images are too few: the run needs 12, 4 to calibrate on, 4 or more to train on and 4 to be measured on
    hint: add images, set --calibration-images and --test-images, or calibrate on other images with `fisao calibrate` and give --calibration FILE
    ");
}

#[test]
fn a_dry_run_needs_no_calibration_and_writes_nothing() {
    let place = workplace();
    let begin = align("run", &WORLD);
    let at = begin.iter().position(|part| *part == "--output").unwrap();
    let dry = [&begin[..at], &begin[at + 2..], &["--dry-run"]].concat();
    let printed = place.succeed(&dry);
    assert!(
        printed.contains("all checks passed") && printed.contains("the whole run: about"),
        "{printed}"
    );
    assert!(!place.path("run").exists());
}

/// With a calibration of another time, images are held out where that is asked for.
#[test]
fn a_given_calibration_is_measured_on_request() {
    let place = workplace();
    let pair = ["--model", "model", "--verifier", "verifier", "--images", "photographs"];
    let more =
        ["--annotations", "annotations.jsonl", "--temperature", "1", "--max-new-tokens", "64"];
    let calibrate = [&["calibrate"][..], &pair, &WORLD, &more, &["--output", "made.json"]].concat();
    place.succeed(&calibrate);
    let set = ["--set", "align.iterations=1", "--set", "align.images-per-iteration=8"];
    let begin = [&["align"][..], &pair, &set, &["--calibration", "made.json"]].concat();
    let printed = place.succeed(&[&begin[..], &["--output", "plain"]].concat());
    assert_eq!(printed, "");
    assert!(!place.path("plain/report.html").exists() && !place.path("plain/split.json").exists());
    let printed =
        place.succeed(&[&begin[..], &["--output", "held", "--test-images", "8"]].concat());
    assert!(printed.contains("greedy, estimated"), "{printed}");
    assert_eq!(report(&place, "held")["images"]["test"], 8);
    let bytes = |run: &str| fs::read(place.path(run).join("calibration.json")).unwrap();
    assert!(bytes("plain") == bytes("held"));
}

/// The list of objects is found once, written with what is known of each, and used again by whoever goes on.
#[cfg(unix)]
#[test]
fn a_run_finds_its_vocabulary_and_resumes_with_it() {
    const AUTO: [&str; 2] = ["--vocabulary", "auto"];
    let place = workplace();
    let output = place.run(&align("whole", &AUTO));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("found in the captions of the 64 images to calibrate on"), "{said}");
    assert!(said.contains(" objects found in 64 captions: whole/vocabulary.txt; "), "{said}");
    let list = |run: &str| fs::read_to_string(place.path(run).join("vocabulary.txt")).unwrap();
    let found = list("whole");
    let objects = || found.lines().filter(|line| line.contains("# ") && !line.starts_with('#'));
    assert!(objects().count() > 10, "{found}");
    assert!(objects().all(|line| line.contains(" mentions, auc ")), "{found}");
    assert!(found.lines().any(|line| line.starts_with("person ")), "{found}");
    assert_eq!(left_over(&place.path("whole")), [""; 0]);

    interrupt(&place, &align("cut", &AUTO), &place.path("cut/calibration.json.partial"));
    place.succeed(&["align", "--resume", "cut"]);
    assert_eq!(list("cut"), found);
    for name in ["calibration.json", "metrics.jsonl", "adapter/adapter_model.safetensors"] {
        let bytes = |run: &str| fs::read(place.path(run).join(name)).unwrap();
        assert!(bytes("whole") == bytes("cut"), "{name} differs");
    }

    // An edited list is a list like any other, but not the calibration's.
    let fewer: Vec<&str> = found.lines().filter(|line| !line.starts_with("person ")).collect();
    place.write("cut/vocabulary.txt", fewer.join("\n"));
    let set = ["--set", "align.iterations=3"];
    let refused = place.refuse(&[&["align", "--resume", "cut"][..], &set].concat());
    assert!(refused.contains("vocabulary"), "{refused}");

    // With annotations the names stand under their categories.
    let more = [&AUTO[..], &["--annotations", "annotations.jsonl"]].concat();
    place.succeed(&align("annotated", &more));
    assert!(list("annotated").lines().any(|line| line.starts_with("person ")));
    // Rates count what the found list does not hold, too.
    let found = report(&place, "annotated");
    assert_eq!(found["before_after"][0]["protocols"][0]["vocabulary"], "everyday");
}
