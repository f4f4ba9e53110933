//! `fisao eval pope`, `mme` and `diff`.

use std::fs;

use fisao_formats::digest::sha256_bytes;
use fisao_formats::folder_lock::FolderLock;
use serde_json::{Value, json};

use crate::fixture::Workplace;
use crate::merge::with_adapter;

fn json_of(place: &Workplace, arguments: &[&str]) -> Value {
    let text = place.succeed(&[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap()
}

fn write_pope(place: &Workplace) {
    let question = |id: usize, image: &str, object: &str, label: &str| {
        json!({ "question_id": id, "image": image, "label": label,
                "text": format!("Is there a {object} in the image?") })
    };
    let questions = [
        question(1, "a.png", "dog", "yes"),
        question(2, "a.png", "cat", "no"),
        question(3, "b.png", "dog", "yes"),
        question(4, "b.png", "car", "no"),
    ];
    let lines: Vec<String> = questions.iter().map(ToString::to_string).collect();
    place.write("questions.jsonl", lines.join("\n"));
    place.write("more.json", json!(questions).to_string());
    let answers = ["Yes.", "yes, a cat", "No", "no"];
    let line =
        |(at, text): (usize, &&str)| json!({ "question_id": at + 1, "text": text }).to_string();
    let lines: Vec<String> = answers.iter().enumerate().map(line).collect();
    place.write("answers.jsonl", lines.join("\n"));
}

const POPE: [&str; 6] =
    ["eval", "pope", "--questions", "questions.jsonl", "--answers", "answers.jsonl"];

#[test]
fn pope_answers_are_scored() {
    let place = Workplace::new();
    write_pope(&place);
    let report = json_of(&place, &POPE);
    assert_eq!(report["questions"], 4);
    // One yes of each kind: TP 1, FP 1, FN 1, TN 1.
    for rate in ["accuracy", "precision", "recall", "f1", "yes_ratio"] {
        assert_eq!(report[rate], 0.5, "{rate}");
    }
    assert_eq!(report["splits"][0].get("per_question"), None);
    let all = json_of(&place, &[&POPE[..], &["--per-question"]].concat());
    assert_eq!(all["splits"][0]["per_question"][1]["said_yes"], true);
    insta::assert_snapshot!(place.succeed(&POPE), @r"
    split           accuracy %  precision %     recall %        F1 %        yes %  questions
    questions             50.0         50.0         50.0        50.0         50.0          4
    95 % interval  50.0 … 50.0  50.0 … 50.0  0.0 … 100.0  0.0 … 66.7  0.0 … 100.0
    ");
}

#[test]
fn pope_splits_are_averaged() {
    let place = Workplace::new();
    write_pope(&place);
    place.write(
        "right.json",
        json!([{ "answer": "yes" }, { "answer": "no" }, { "answer": "yes" },
                                     { "answer": "no" }])
        .to_string(),
    );
    let arguments = [
        "eval",
        "pope",
        "--questions",
        "questions.jsonl",
        "more.json",
        "--answers",
        "answers.jsonl",
        "right.json",
    ];
    let report = json_of(&place, &arguments);
    assert_eq!((&report["accuracy"], &report["questions"]), (&json!(0.75), &json!(8)));
    insta::assert_snapshot!(
        place.succeed(&[&arguments[..], &["--format", "markdown"]].concat()), @r"
    | split | accuracy % | precision % | recall % | F1 % | yes % | questions |
    | --- | ---: | ---: | ---: | ---: | ---: | ---: |
    | questions | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 4 |
    | more | 100.0 | 100.0 | 100.0 | 100.0 | 50.0 | 4 |
    | mean | 75.0 | 75.0 | 75.0 | 75.0 | 50.0 | 8 |
    | 95 % interval | 75.0 … 75.0 | 75.0 … 75.0 | 50.0 … 100.0 | 50.0 … 83.3 | 25.0 … 75.0 |  |
    ");
    let error = place.refuse(&arguments[..7]);
    assert!(error.contains("2 files of questions but 1 of answers"), "{error}");
}

#[test]
fn missing_answers_are_reported_and_count_as_wrong() {
    let place = Workplace::new();
    write_pope(&place);
    place.write("answers.jsonl", "{\"question_id\": 1, \"text\": \"yes\"}\n");
    let output = place.run(&POPE);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("3 questions have no answer and count as wrong, first 2"), "{errors}");
    let report = json_of(&place, &POPE);
    assert_eq!(
        (&report["questions"], &report["unanswered"], &report["accuracy"]),
        (&json!(4), &json!(3), &json!(0.25))
    );
    assert_eq!(report["splits"][0]["scores_of_answered"]["accuracy"], 1.0);
    place.write("answers.jsonl", "{\"question_id\": 1, \"text\": \"yes\"}\n{\"question_id\": 2}\n");
    let error = place.refuse(&POPE);
    assert!(error.contains("answers.jsonl") && error.contains("line 2: no answer"), "{error}");
}

/// A run that was killed in the middle of a line goes on behind the last whole one.
#[test]
fn interrupted_answering_resumes_after_the_last_whole_line() {
    let place = Workplace::furnished();
    write_pope(&place);
    let arguments = [
        "eval",
        "pope",
        "--questions",
        "questions.jsonl",
        "--model",
        "llava",
        "--images",
        "pictures",
        "--output",
        "run",
        "--max-new-tokens",
        "4",
    ];
    let whole = json_of(&place, &arguments);
    let file = place.path("run/questions/answers.jsonl");
    let answers = fs::read_to_string(&file).unwrap();
    assert_eq!(answers.lines().count(), 4);
    let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    assert_eq!((&first["question_id"], &first["image"]), (&json!("1"), &json!("a.png")));
    let prompt = first["prompt"].as_str().unwrap();
    assert!(prompt.ends_with("Answer the question using a single word or phrase."), "{prompt}");

    let half = answers.find('\n').unwrap() + 20;
    fs::write(&file, &answers[..half]).unwrap();
    assert_eq!(json_of(&place, &arguments), whole);
    assert_eq!(fs::read_to_string(&file).unwrap(), answers);

    let error = place.refuse(&[&arguments[..], &["--seed", "3"]].concat());
    assert!(error.contains("made with `seed` 0, not 3"), "{error}");
    let changed =
        fs::read_to_string(place.path("questions.jsonl")).unwrap().replace("cat", "bench");
    place.write("questions.jsonl", changed);
    let error = place.refuse(&arguments);
    assert!(error.contains("questions was started with other data: question 2 "), "{error}");
    write_pope(&place);

    // Another process writes answers there.
    let folder = place.path("run/questions");
    let (lock, _) = FolderLock::acquire(&folder).unwrap();
    let error = place.refuse(&arguments);
    let owner = format!("questions is being written by process {} on ", std::process::id());
    assert!(error.contains(&owner), "{error}");
    drop(lock);

    // Answers of an earlier version, which compared names and sizes of images.
    fs::remove_file(folder.join("data.json")).unwrap();
    let settings = folder.join("settings.json");
    let mut older: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
    let size = |name: &str| fs::metadata(place.path("pictures").join(name)).unwrap().len();
    let named = ["a.png", "a.png", "b.png", "b.png"].map(|name| format!("{name} {}\n", size(name)));
    older["pictures_sha256"] = sha256_bytes(named.concat().as_bytes()).into();
    fs::write(&settings, older.to_string()).unwrap();
    assert_eq!(json_of(&place, &arguments), whole);
    fs::copy(place.path("pictures/c.png"), place.path("pictures/b.png")).unwrap();
    if size("c.png") != size("a.png") {
        assert!(place.refuse(&arguments).contains("`pictures_sha256`"));
    }
}

/// Under the same path may be another model by now, as where training wrote its result over the one before.
#[test]
fn answers_are_not_continued_after_model_files_changed() {
    let place = with_adapter();
    write_pope(&place);
    let mut arguments = vec!["eval", "pope", "--questions", "questions.jsonl", "--output", "run"];
    arguments.extend(["--model", "llava", "--adapter", "adapter", "--images", "pictures"]);
    arguments.extend(["--max-new-tokens", "4"]);
    let whole = json_of(&place, &arguments);
    let file = place.path("run/questions/answers.jsonl");
    let answers = fs::read_to_string(&file).unwrap();
    fs::write(&file, &answers[..=answers.find('\n').unwrap()]).unwrap();
    let replaced = |name: &str, said: &str| {
        let before = fs::read(place.path(name)).unwrap();
        let mut after = before.clone();
        let last = after.len() - 3;
        after[last] ^= 1;
        place.write(name, after);
        let error = place.refuse(&arguments);
        let folder = "run/questions holds answers of something else: the files of the";
        assert!(error.contains(&format!("error: {folder} {said} have changed since\n")), "{error}");
        assert!(
            error.contains("hint: put the files back as they were, or name another"),
            "{error}"
        );
        place.write(name, before);
    };
    replaced("llava/model.safetensors", "model llava");
    replaced("adapter/adapter_model.safetensors", "adapter \"adapter\"");

    // Of an earlier version, which did not write down what the files held.
    let settings = place.path("run/questions/settings.json");
    let mut older: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
    for key in ["model_digest", "adapter_sha256"] {
        assert!(older.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    fs::write(&settings, older.to_string()).unwrap();
    let output = place.run(&[&arguments[..], &["--format", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("settings.json does not say what the model's files held"), "{said}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), whole);
    assert_eq!(fs::read_to_string(&file).unwrap(), answers);
}

#[test]
fn answering_requires_answers_or_images() {
    let place = Workplace::furnished();
    write_pope(&place);
    let error = place.refuse(&POPE[..4]);
    insta::assert_snapshot!(error, @r"
    error: there are no answers to score
    hint: give --answers, or let a model answer: --images DIR --output DIR, with --model
    ");
    let arguments = [&POPE[..4], &["--images", "nowhere", "--output", "run"]].concat();
    let error = place.refuse(&arguments);
    assert!(error.contains("nowhere has no image a.png"), "{error}");
}

#[test]
fn questions_are_built_from_objects_and_synthetic_scenes() {
    let place = Workplace::new();
    place.write(
        "objects.json",
        json!({ "a.png": ["dog", "cat"], "b.png": ["car", "dog"], "c.png": ["bench", "bird"] })
            .to_string(),
    );
    let build = |negatives: &str, output: &str| {
        place.succeed(&[
            "eval",
            "pope",
            "build",
            "--ground-truth",
            "objects.json",
            "--negatives",
            negatives,
            "--pictures",
            "3",
            "--objects",
            "2",
            "--output",
            output,
        ]);
        fs::read_to_string(place.path(output)).unwrap()
    };
    let random = build("random", "random.jsonl");
    assert_eq!(random.lines().count(), 12);
    assert_eq!(random.matches("\"label\":\"yes\"").count(), 6);
    assert_eq!(build("random", "again.jsonl"), random);
    assert!(build("popular", "popular.jsonl").contains("Is there"));

    place.succeed(&[
        "eval",
        "pope",
        "build",
        "--world",
        "test",
        "--negatives",
        "adversarial",
        "--pictures",
        "4",
        "--objects",
        "2",
        "--output",
        "world",
    ]);
    let questions = fs::read_to_string(place.path("world/adversarial.jsonl")).unwrap();
    let first: Value = serde_json::from_str(questions.lines().next().unwrap()).unwrap();
    assert!(place.path("world/images").join(first["image"].as_str().unwrap()).is_file());
    assert_eq!(questions.lines().count(), 16);
}

#[test]
fn mme_tasks_are_scored_and_summed() {
    let place = Workplace::new();
    fs::create_dir(place.path("mme")).unwrap();
    place.write(
        "mme/existence.txt",
        "1.jpg\tIs there a dog? Please answer yes or no.\tYes\tYes, there is.\n\
         1.jpg\tIs there a cat? Please answer yes or no.\tNo\tno\n\
         2.jpg\tIs there a car? Please answer yes or no.\tYes\tperhaps\n\
         2.jpg\tIs there a bus? Please answer yes or no.\tNo\tNo.\n",
    );
    let report = json_of(&place, &["eval", "mme", "--answers", "mme"]);
    let task = &report["tasks"]["existence"];
    assert_eq!(
        (&task["acc"], &task["acc_plus"], &task["score"]),
        (&json!(0.75), &json!(0.5), &json!(125.0))
    );
    assert_eq!((&report["perception"], &report["cognition"]), (&json!(125.0), &Value::Null));
    let output = place.run(&["eval", "mme", "--answers", "mme"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r"
    task        acc %  acc+ %   score   95 % interval  questions  neither
    existence    75.0    50.0  125.00                          4        1
    perception      –       –  125.00  50.00 … 200.00          –        –
    cognition       –       –       –                          –        –
    ");
    assert!(String::from_utf8_lossy(&output.stderr).contains("perception lacks"));
    let csv = place.succeed(&["eval", "mme", "--answers", "mme", "--format", "csv"]);
    insta::assert_snapshot!(csv, @r"
    task,acc %,acc+ %,score,95 % from,95 % to,questions,neither
    existence,75.0,50.0,125.00,,,4,1
    perception,,,125.00,50.00,200.00,,
    cognition,,,,,,,
    ");
    place.write("mme/existence.txt", "1.jpg\tIs there a dog?\tYes\n");
    let error = place.refuse(&["eval", "mme", "--answers", "mme"]);
    assert!(error.contains("existence") && error.contains("line 1"), "{error}");
}
