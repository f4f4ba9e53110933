//! Settings that cannot be used, and folders that are taken.

use std::fs;

use crate::fixture::Workplace;

#[test]
fn unknown_setting_error_suggests_the_nearest_key() {
    let place = Workplace::new();
    insta::assert_snapshot!(
        place.refuse(&["demo", "--output", "run", "--set", "objective.clip-rnge=0.1"]),
        @r"
    error: --set: `objective.clip-rnge` is not a setting
    hint: did you mean `objective.clip-range`?
    "
    );
    place.write("run.toml", "[objective]\nlambda = 0.9\n\n[objective.kl]\ncoeficient = 0.1\n");
    insta::assert_snapshot!(
        place.refuse(&["demo", "--output", "run", "--config", "run.toml"]),
        @r"
    error: run.toml: `objective.kl.coeficient` is not a setting
    hint: did you mean `objective.kl.coefficient`?
    "
    );
}

#[test]
fn invalid_setting_values_are_reported_by_key() {
    let place = Workplace::new();
    let error = place.refuse(&["demo", "--output", "run", "--set", "objective.clip-range=2"]);
    assert!(error.contains("`objective.clip-range` = 2 is out of range"), "{error}");
    let error = place.refuse(&["demo", "--output", "run", "--set", "align.iterations=many"]);
    assert!(error.contains("`align.iterations` cannot be used"), "{error}");
}

#[test]
fn out_of_range_option_values_are_rejected_with_their_range() {
    let place = Workplace::furnished();
    let refuse = |arguments: &[&str], parts: &[&str]| {
        let error = place.refuse(arguments);
        for part in parts {
            assert!(error.contains(part), "{arguments:?}: {error}");
        }
    };
    let largest = u64::MAX.to_string();
    for command in ["demo", "align --demo"] {
        let command: Vec<&str> = command.split(' ').collect();
        let arguments = [&command[..], &["--output", "run", "--seed", &largest]].concat();
        refuse(&arguments, &["`seed` = 18446744073709551615", "from 0 to 9223372036854775807"]);
        // Known only once the model is: there is no room for so many.
        let arguments =
            [&command[..], &["--output", "run", "--set", "max-new-tokens=100000"]].concat();
        refuse(
            &arguments,
            &["`max-new-tokens` = 100000", "at most 4", "of the model's 512 positions"],
        );
    }
    let compare = ["compare", "--output", "run"];
    for (option, value, range) in [
        ("--seeds", "0", "1..=10000"),
        ("--seeds", largest.as_str(), "1..=10000"),
        ("--first-seed", &largest, "0..="),
        ("--best-of", "0", "1..=1024"),
        ("--best-of", "99999999", "1..=1024"),
    ] {
        refuse(&[&compare[..], &[option, value]].concat(), &[option, range]);
    }
    refuse(&[&compare[..], &["--set", "max-new-tokens=500"]].concat(), &["`max-new-tokens` = 500"]);
    refuse(&[&compare[..], &["--vary", "prompts=1e300"]].concat(), &["prompts=1e300", "from 1 to"]);
    let caption = ["caption", "--image", "pictures"];
    let best = ["--calibration", "c.json", "--temperature", "1"];
    refuse(&[&caption[..], &best, &["--best-of", "0"]].concat(), &["--best-of", "1..=1024"]);
    for value in ["0", "1", "1.5", "nan"] {
        refuse(
            &[&caption[..], &best[..2], &["--guided", value]].concat(),
            &["--guided is ", "greater than 0 and less than 1"],
        );
    }
    refuse(&[&caption[..], &["--guided", "0.8"]].concat(), &["--calibration"]);
    refuse(&[&caption[..], &best].concat(), &["--best-of", "--guided"]);
    for value in ["0", "99999999999", "-1"] {
        refuse(
            &[&caption[..], &[&format!("--max-new-tokens={value}")]].concat(),
            &["--max-new-tokens"],
        );
    }
    for value in ["nan", "inf", "1e-9", "1e9"] {
        refuse(
            &[&caption[..], &["--temperature", value]].concat(),
            &["--temperature is ", "0 or from 0.01 to 100"],
        );
    }
    let count = ["eval", "chair", "--world", "test", "--count", "99999999999"];
    refuse(&count, &["--count", "1..=1048576"]);
    refuse(&["study", "verifier", "--output", "s", "--count", "0"], &["--count", "1..=1048576"]);
}

/// Where the result is to go is tried before anything is computed.
#[test]
fn unwritable_output_is_rejected_before_any_computation() {
    let place = Workplace::furnished();
    place.write("file", "");
    place.write("captions.jsonl", "{\"image_id\":\"a.png\",\"caption\":\"A dog.\"}\n");
    place.write("truth.jsonl", "{\"image_id\":\"a\",\"objects\":[\"dog\"]}\n");
    fs::create_dir(place.path("folder")).unwrap();
    // The models that these name do not exist, and are not missed.
    let model = ["--model", "nothing", "--verifier", "nothing"];
    let verifier = ["--verifier", "nothing"];
    let inside = "file/below";
    let calibrate = ["calibrate", "--images", "nothing"];
    for (arguments, output) in [
        ([&calibrate[..], &model, &["--output", "folder"]].concat(), "folder"),
        ([&calibrate[..], &model, &["--output", inside]].concat(), inside),
        (
            [
                &["verify", "--captions", "captions.jsonl", "--images", "pictures"],
                &verifier[..],
                &["--html", "folder"],
            ]
            .concat(),
            "folder",
        ),
        (
            [
                &["verify", "--captions", "captions.jsonl", "--images", "pictures"],
                &verifier[..],
                &["--html", inside],
            ]
            .concat(),
            inside,
        ),
        (vec!["align", "--demo", "--output", inside], inside),
        (vec!["demo", "--output", inside], inside),
        (vec!["compare", "--output", inside], inside),
        (vec!["merge", "--model", "nothing", "--adapter", "nothing", "--output", inside], inside),
        (vec!["pretrain", "--output", inside], inside),
        ([&["study", "verifier"], &model[..], &["--output", inside]].concat(), inside),
        (vec!["eval", "pope", "build", "--world", "test", "--output", inside], inside),
        (
            vec![
                "eval",
                "chair",
                "--images",
                "pictures",
                "--ground-truth",
                "truth.jsonl",
                "--model",
                "nothing",
                "--output",
                inside,
            ],
            inside,
        ),
    ] {
        let error = place.refuse(&arguments);
        let named = error.contains(&format!("cannot write {output}"))
            || error.contains(&format!("cannot use as output folder {output}"));
        assert!(named, "{arguments:?}: {error}");
    }
}

#[test]
fn output_folder_that_holds_a_run_is_rejected() {
    let place = Workplace::new();
    fs::create_dir(place.path("run")).unwrap();
    place.write("run/config.toml", "seed = 0\n");
    insta::assert_snapshot!(place.refuse(&["demo", "--output", "run"]), @r"
    error: run already holds a run (config.toml is there)
    hint: resume the run that is there, or choose another output folder
    ");
}

#[test]
fn unknown_recipe_setting_error_suggests_the_nearest_key() {
    let place = Workplace::new();
    insta::assert_snapshot!(
        place.refuse(&["pretrain", "--output", "models", "--set", "clip-step=5"]),
        @r"
    error: --set: `clip-step` is not a setting of the recipe
    hint: did you mean `clip-steps`?
    "
    );
}

#[test]
fn pretraining_rejects_a_non_empty_output_folder() {
    let place = Workplace::new();
    fs::create_dir(place.path("models")).unwrap();
    place.write("models/notes.txt", "mine");
    insta::assert_snapshot!(place.refuse(&["pretrain", "--output", "models"]), @r"
    error: models is not empty (notes.txt is there), and the output wants a folder of its own
    hint: choose another output folder, or empty this one
    ");
}
