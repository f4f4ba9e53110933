//! Prompt sets of several forms as what `fisao align` trains on.

use std::fs;

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

fn align(more: &[&str]) -> Vec<String> {
    let begin = [
        "align",
        "--model",
        "llava",
        "--verifier",
        "clip",
        "--calibration",
        "calibration.json",
        "--output",
        "run",
        "--set",
        "max-new-tokens=8",
        "--set",
        "align.iterations=2",
        "--set",
        "align.images-per-iteration=3",
        "--set",
        "align.minibatches=1",
        "--set",
        "guards.patience=0",
    ];
    begin.iter().chain(more).map(ToString::to_string).collect()
}

fn workplace() -> Workplace {
    let place = Workplace::furnished();
    write_calibration(&place);
    place
}

fn succeed(place: &Workplace, more: &[&str]) -> String {
    let arguments = align(more);
    let output = place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    errors
}

fn refuse(place: &Workplace, more: &[&str]) -> String {
    let arguments = align(more);
    place.refuse(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn prompt_rows_support_sft_dpo_and_ppo() {
    let place = workplace();
    place.write(
        "pairs.jsonl",
        "{\"image\": \"a.png\", \"question\": \"What is it?\", \"chosen\": \"a dog\", \"rejected\": \"a cat\"}\n\
         {\"image\": \"b.png\", \"question\": \"What is it?\", \"chosen\": \"a cat\", \"rejected\": \"a dog\"}\n",
    );
    let data = ["--prompts", "pairs.jsonl", "--images", "pictures"];
    let dpo = ["--set", "objective.kind=dpo", "--set", "objective.pairs=data"];
    let said = succeed(&place, &[&data[..], &dpo].concat());
    assert!(said.contains("JSON lines: 2 rows"), "{said}");
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"pairs\":3"), "{metrics}");
    fs::remove_dir_all(place.path("run")).unwrap();
    succeed(&place, &[&data[..], &["--set", "objective.kind=sft"]].concat());
    fs::remove_dir_all(place.path("run")).unwrap();
    // Questions alone are enough for what writes its own answers.
    succeed(&place, &data);
}

#[test]
fn conversations_are_read_and_rows_without_image_counted() {
    let place = workplace();
    place.write(
        "instruct.json",
        "[{\"id\": \"1\", \"image\": \"a.png\", \"conversations\": [{\"from\": \"human\", \"value\": \
         \"<image>\\nWhat is it?\"}, {\"from\": \"gpt\", \"value\": \"a dog\"}]},\n\
         {\"id\": \"2\", \"conversations\": [{\"from\": \"human\", \"value\": \"Hi\"}, {\"from\": \"gpt\", \
         \"value\": \"Hello\"}]}]",
    );
    let data = ["--prompts", "instruct.json", "--images", "pictures"];
    let said = succeed(&place, &[&data[..], &["--set", "objective.kind=sft"]].concat());
    assert!(said.contains("1 rows are left out, as they have no image"), "{said}");
}

#[test]
fn missing_prompt_data_is_reported_before_the_model_is_loaded() {
    let place = workplace();
    place.write("gone.jsonl", "{\"image\": \"z.png\", \"question\": \"What is it?\"}\n");
    let error = refuse(&place, &["--prompts", "gone.jsonl", "--images", "pictures"]);
    assert!(error.contains("z.png") && error.contains("--images"), "{error}");

    place.write("asks.jsonl", "{\"image\": \"a.png\", \"question\": \"What is it?\"}\n");
    let data = ["--prompts", "asks.jsonl", "--images", "pictures"];
    let error = refuse(&place, &[&data[..], &["--set", "objective.kind=sft"]].concat());
    assert!(
        error.contains("a.png has no response, which the objective `sft` learns from"),
        "{error}"
    );
    let error = refuse(&place, &[&data[..], &["--validation-fraction", "1"]].concat());
    assert!(
        error.contains("--validation-fraction is 1; it must be 0 or more and below 1"),
        "{error}"
    );
    let error = refuse(&place, &[&data[..], &["--validation-fraction", "0.001"]].concat());
    assert!(error.contains("leaves 1 to train on and 0 for validation"), "{error}");
}
