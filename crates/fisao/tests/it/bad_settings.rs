//! Settings that cannot be used, and folders that are taken.

use std::fs;

use crate::fixture::Workplace;

#[test]
fn an_unknown_setting_is_named_with_what_was_meant() {
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
fn a_setting_out_of_range_is_named() {
    let place = Workplace::new();
    let error = place.refuse(&["demo", "--output", "run", "--set", "objective.clip-range=2"]);
    assert!(error.contains("`objective.clip-range` = 2 is out of range"), "{error}");
    let error = place.refuse(&["demo", "--output", "run", "--set", "align.iterations=many"]);
    assert!(error.contains("`align.iterations` cannot be used"), "{error}");
}

#[test]
fn a_folder_that_holds_a_run_is_left_alone() {
    let place = Workplace::new();
    fs::create_dir(place.path("run")).unwrap();
    place.write("run/config.toml", "seed = 0\n");
    insta::assert_snapshot!(place.refuse(&["demo", "--output", "run"]), @r"
    error: run already holds a run (config.toml is there)
    hint: resume the run that is there, or choose another output folder
    ");
}

#[test]
fn an_unknown_setting_of_the_recipe_is_named() {
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
fn pretraining_goes_into_a_folder_of_its_own() {
    let place = Workplace::new();
    fs::create_dir(place.path("models")).unwrap();
    place.write("models/notes.txt", "mine");
    insta::assert_snapshot!(place.refuse(&["pretrain", "--output", "models"]), @r"
    error: models is not empty (notes.txt is there), and the output wants a folder of its own
    hint: choose another output folder, or empty this one
    ");
}
