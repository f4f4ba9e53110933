//! `fisao eval amber`, `science-qa`, `gqa`, `seed-bench`, `mmbench`, `mm-vet` and `mm-hal`: from files of answers, and
//! from a model that answers now.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fixture::Workplace;

/// A file of rows, one a line.
fn lines(rows: &[Value]) -> String {
    rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn report(place: &Workplace, arguments: &[&str]) -> Value {
    let text = place.succeed(&[&["eval"], arguments, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap()
}

/// What a model writes into the folder `run`.
fn asked(place: &Workplace, arguments: &[&str]) -> Vec<Value> {
    let model = ["--model", "llava", "--output", "run", "--max-new-tokens", "3"];
    place.succeed(&[&["eval"], arguments, &model].concat());
    let answers = fs::read_to_string(place.path("run/answers.jsonl")).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_amber(place: &Workplace) {
    for folder in ["amber", "amber/data", "amber/data/query"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    fs::rename(place.path("pictures"), place.path("amber/image")).unwrap();
    let annotations = json!([
        { "id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"] },
        { "id": 2, "type": "discriminative-hallucination", "truth": "no" },
        { "id": 3, "type": "discriminative-attribute-state", "truth": "yes" },
    ]);
    place.write("amber/data/annotations.json", annotations.to_string());
    let associations = json!({ "dog": ["puppy"], "cat": [], "car": [] });
    place.write("amber/data/relation.json", associations.to_string());
    place.write("amber/data/safe_words.txt", "car\n");
    let query = |id: u64, query: &str| json!({ "id": id, "image": "a.png", "query": query });
    let queries =
        [query(1, "Describe this image."), query(2, "Is there a cat?"), query(3, "Is it wet?")];
    place.write("amber/data/query/query_all.json", json!(queries).to_string());
}

#[test]
fn amber_scores_descriptions_and_answers() {
    let place = Workplace::furnished();
    write_amber(&place);
    let responses = json!([
        { "id": 1, "response": "A puppy, a cat and a car." },
        { "id": 2, "response": "No" },
        { "id": 3, "response": "yes" },
    ]);
    place.write("responses.json", responses.to_string());
    let found = report(&place, &["amber", "--data", "amber", "--answers", "responses.json"]);
    // Three nouns, of which the cat is not there; "yes" is not "Yes".
    for (key, value) in [("cover", 1.0), ("hal", 1.0), ("cog", 1.0), ("accuracy", 0.5), ("f1", 1.0)]
    {
        assert_eq!(found[key], value, "{key}");
    }
    assert!((found["chair"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(found["generative"].get("per_description"), None);
    let arguments = ["eval", "amber", "--data", "amber", "--answers", "responses.json"];
    let output = place.run(&arguments);
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(errors.contains("1 answers are neither \"Yes\" nor \"No\""), "{errors}");
    assert!(text.contains("not with published values"), "{text}");

    let answers = asked(&place, &["amber", "--data", "amber", "--part", "discriminative"]);
    assert_eq!(answers.len(), 2);
    assert_eq!((&answers[0]["id"], &answers[0]["image"]), (&json!("2"), &json!("a.png")));
    assert!(answers[0]["response"].is_string());
    assert!(answers[0]["prompt"].as_str().unwrap().contains("single word"));
    fs::remove_file(place.path("amber/data/relation.json")).unwrap();
    let error = place.refuse(&arguments);
    assert!(error.contains("amber has no relation.json"), "{error}");
}

#[test]
fn science_qa_asks_only_questions_with_an_image() {
    let place = Workplace::furnished();
    for folder in ["sqa", "sqa/images", "sqa/images/test", "sqa/images/test/7"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    fs::copy(place.path("pictures/a.png"), place.path("sqa/images/test/7/image.png")).unwrap();
    let problem = |image: Option<&str>, answer: usize| {
        json!({ "question": "Which?", "choices": ["one", "two"], "answer": answer, "hint": "",
                "image": image, "subject": "natural science", "grade": "grade3" })
    };
    let problems = json!({ "7": problem(Some("image.png"), 0), "8": problem(None, 1) });
    place.write("sqa/problems.json", problems.to_string());
    place.write("sqa/pid_splits.json", json!({ "test": ["7", "8"], "train": [] }).to_string());
    place.write(
        "answers.jsonl",
        lines(&[
            json!({ "question_id": "7", "text": "A. one" }),
            json!({ "question_id": "8", "text": "perhaps" }),
        ]),
    );
    let arguments = ["science-qa", "--data", "sqa", "--answers", "answers.jsonl"];
    let found = report(&place, &arguments);
    assert_eq!((&found["accuracy"], &found["accuracy_with_image"]), (&json!(0.5), &json!(1.0)));
    assert_eq!(found["unclear"], 1);
    let answers = asked(&place, &["science-qa", "--data", "sqa"]);
    assert_eq!(answers.len(), 1);
    assert!(answers[0]["prompt"].as_str().unwrap().contains("A. one\nB. two\n"));
    let error = place.refuse(&[&["eval"], &arguments[..], &["--split", "val"]].concat());
    assert!(error.contains("no split `val`") && error.contains("test, train"), "{error}");
}

#[test]
fn gqa_is_scored_by_type_and_averaged_over_seeds() {
    let place = Workplace::furnished();
    let question = |image: &str, answer: &str, structural: &str| {
        json!({ "question": "What is it?", "answer": answer, "imageId": image,
                "types": { "structural": structural, "semantic": "obj" } })
    };
    let questions =
        json!({ "q1": question("a", "dog", "query"), "q2": question("b", "yes", "verify") });
    place.write("gqa.json", questions.to_string());
    let answer = |id: &str, text: &str| json!({ "questionId": id, "prediction": text });
    place.write("first.jsonl", lines(&[answer("q1", "Dog."), answer("q2", "yes")]));
    place.write("second.jsonl", lines(&[answer("q1", "cat"), answer("q2", "Yes.")]));
    let found =
        report(&place, &["gqa", "--data", "gqa.json", "--answers", "first.jsonl", "second.jsonl"]);
    assert_eq!(found["mean"]["accuracy"]["mean"], 0.75);
    assert_eq!(
        (&found["files"][1]["name"], &found["files"][1]["accuracy_open"]),
        (&json!("second"), &json!(0.0))
    );
    assert_eq!(found["intervals"]["accuracy_binary"], json!({ "low": 1.0, "high": 1.0 }));
    let one = ["eval", "gqa", "--data", "gqa.json", "--answers", "second.jsonl"];
    insta::assert_snapshot!(place.succeed(&one), @r"
    answers              accuracy %     open %       binary %  questions
    second                     50.0        0.0          100.0          2
    95 % interval       0.0 … 100.0  0.0 … 0.0  100.0 … 100.0
    semantic: obj              50.0          –              –          2
    structural: query           0.0          –              –          1
    structural: verify        100.0          –              –          1
    ");
    let pictures = ["gqa", "--data", "gqa.json", "--images", "pictures"];
    let answers = asked(&place, &pictures);
    assert_eq!(answers[1]["image"], "b");
    // Another image of the same name is no reason to keep the old answer.
    fs::copy(place.path("pictures/c.png"), place.path("pictures/b.png")).unwrap();
    let model = ["--model", "llava", "--output", "run", "--max-new-tokens", "3"];
    let error = place.refuse(&[&["eval"], &pictures[..], &model].concat());
    assert!(error.contains("the image of question 2 (pictures/b.png) is another"), "{error}");
}

fn write_seed(place: &Workplace) {
    let question = |id: &str, kind: &str, answer: &str| {
        json!({ "question_id": id, "question": "Which?", "choice_a": "one", "choice_b": "two",
                "choice_c": "three", "choice_d": "four", "answer": answer, "data_type": kind,
                "data_id": "a.png", "question_type_id": 1 })
    };
    let file = json!({
        "questions": [question("1", "image", "A"), question("2", "video", "B")],
        "question_type": { "Scene Understanding": 1 },
    });
    place.write("SEED-Bench.json", file.to_string());
}

#[test]
fn options_are_selected_by_letter_or_by_likelihood() {
    let place = Workplace::furnished();
    write_seed(&place);
    place.write(
        "letters.jsonl",
        lines(&[
            json!({ "question_id": 1, "text": "A" }),
            json!({ "question_id": 2, "text": "B." }),
        ]),
    );
    let seed = ["seed-bench", "--data", "SEED-Bench.json"];
    let letters = ["--answers", "letters.jsonl"];
    assert_eq!(report(&place, &[&seed[..], &letters].concat())["accuracy"], 0.5);
    place.write("others.jsonl", json!({ "question_id": 9, "log_likelihoods": [-1.0] }).to_string());
    let others = ["--rules", "likelihood", "--answers", "others.jsonl"];
    let error = place.refuse(&[&["eval"], &seed[..], &others].concat());
    assert!(error.contains("the first is of question 9, the first question is 1"), "{error}");
    let first = [&seed[..], &letters, &["--rules", "first-character"]].concat();
    assert_eq!(report(&place, &first)["accuracy"], 1.0);

    // The mean over the tokens of each option; the most likely one is what counts.
    let likely = [&seed[..], &["--images", "pictures", "--rules", "likelihood"]].concat();
    let answers = asked(&place, &likely);
    assert_eq!(answers.len(), 1, "the question about a video is not asked");
    let found: Vec<f64> = serde_json::from_value(answers[0]["log_likelihoods"].clone()).unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|&number| number < 0.0 && number > -50.0), "{found:?}");
    assert_eq!(answers[0]["prompt"], "Which?");
    let model = ["--model", "llava", "--output", "run", "--max-new-tokens", "3"];
    let error = place.refuse(&[&["eval"], &seed[..], &["--images", "pictures"], &model].concat());
    assert!(error.contains("made with `answers` \"log_likelihoods\", not \"text\""), "{error}");
    fs::remove_dir_all(place.path("run")).unwrap();
    let answers = asked(&place, &[&seed[..], &["--images", "pictures"]].concat());
    assert!(answers[0]["text"].is_string());
}

#[test]
fn mmbench_decodes_its_images_and_scores_rotations() {
    let place = Workplace::furnished();
    let picture = STANDARD.encode(fs::read(place.path("pictures/a.png")).unwrap());
    let rows = [
        "index\tquestion\tA\tB\tanswer\tcategory\timage".to_owned(),
        format!("1\tWhich?\tone\ttwo\tA\tlogic\t{picture}"),
        "1000001\tWhich?\ttwo\tone\tB\tlogic\t1".to_owned(),
    ];
    place.write("mmbench.tsv", rows.join("\n"));
    let arguments = ["mmbench", "--data", "mmbench.tsv"];
    place.write(
        "answers.jsonl",
        lines(&[json!({ "index": 1, "text": "A" }), json!({ "index": 1_000_001, "text": "A" })]),
    );
    let found = report(&place, &[&arguments[..], &["--answers", "answers.jsonl"]].concat());
    assert_eq!((&found["accuracy"], &found["accuracy_of_rotations"]), (&json!(0.0), &json!(0.5)));
    let answers = asked(&place, &arguments);
    assert_eq!(answers.len(), 2);
    let unpacked = fs::read(place.path("run/images/1.png")).unwrap();
    assert_eq!(unpacked, fs::read(place.path("pictures/a.png")).unwrap());
    place.write("mmbench.tsv", rows[..2].join("\n").replace(&picture, &"!".repeat(80)));
    let folder = ["--model", "llava", "--output", "other"];
    let error = place.refuse(&[&["eval"], &arguments[..], &folder].concat());
    assert!(error.contains("the image of question 1 is not base64"), "{error}");
}

#[test]
fn mmbench_without_ground_truth_is_answered_but_not_scored() {
    let place = Workplace::furnished();
    let picture = STANDARD.encode(fs::read(place.path("pictures/a.png")).unwrap());
    let rows =
        ["index\tquestion\tA\tB\timage".to_owned(), format!("1\tWhich?\tone\ttwo\t{picture}")];
    place.write("mmbench.tsv", rows.join("\n"));
    let arguments = ["eval", "mmbench", "--data", "mmbench.tsv"];
    let kept_back =
        "1 of 1 questions have no right answer in mmbench.tsv, so that answers cannot be scored";
    place.write("answers.jsonl", lines(&[json!({ "index": 1, "text": "A" })]));
    let error = place.refuse(&[&arguments[..], &["--answers", "answers.jsonl"]].concat());
    assert!(error.starts_with(&format!("error: {kept_back}\n")), "{error}");
    let model =
        ["--model", "llava", "--output", "run", "--max-new-tokens", "3", "--format", "json"];
    let output = place.run(&[&arguments[..], &model].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("warning: {kept_back}\n")), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found, json!({ "questions": 1, "accuracy": null, "answers": "run/answers.jsonl" }));
    assert_eq!(fs::read_to_string(place.path("run/answers.jsonl")).unwrap().lines().count(), 1);
    // What a table calls its questions does not lead out of the folder.
    place.write("mmbench.tsv", rows.join("\n").replace("\n1\t", "\n../../x\t"));
    let elsewhere = ["--model", "llava", "--output", "other"];
    let error = place.refuse(&[&arguments[..], &elsewhere].concat());
    assert!(error.contains("question id '../../x' of an image cannot be a file's name"), "{error}");
}

#[test]
fn mm_vet_writes_judge_requests_and_scores_verdicts() {
    let place = Workplace::furnished();
    fs::create_dir(place.path("vet")).unwrap();
    fs::rename(place.path("pictures"), place.path("vet/images")).unwrap();
    let question = |answer: &str| json!({ "imagename": "a.png", "question": "What?", "answer": answer, "capability": ["ocr"] });
    place.write(
        "vet/mm-vet.json",
        json!({ "v1_0": question("a"), "v1_1": question("b") }).to_string(),
    );
    let arguments = ["mm-vet", "--data", "vet"];
    let answers = asked(&place, &arguments);
    assert_eq!((answers.len(), &answers[0]["question_id"]), (2, &json!("v1_0")));
    let requests = fs::read_to_string(place.path("run/requests.jsonl")).unwrap();
    assert_eq!(requests.lines().count(), 2);
    assert!(requests.contains("Truth: a\\nPrediction: "), "{requests}");

    place.write("llava.jsonl", lines(&[json!({ "question_id": 1, "text": "bee" })]));
    let written = ["--answers", "llava.jsonl", "--requests", "out.jsonl"];
    place.succeed(&[&["eval"], &arguments[..], &written].concat());
    let requests = fs::read_to_string(place.path("out.jsonl")).unwrap();
    assert!(
        requests.starts_with("{\"question_id\":\"v1_1\"") && requests.contains("bee"),
        "{requests}"
    );
    place.write("prompt.txt", "Judge {question} {prediction}");
    let bare = [&["eval"], &arguments[..], &written, &["--judge-prompt", "prompt.txt"]].concat();
    let error = place.refuse(&bare);
    assert!(error.contains("lacks {answer}"), "{error}");

    place.write(
        "verdicts.jsonl",
        lines(&[
            json!({ "question_id": "v1_0", "text": "0.5" }),
            json!({ "question_id": "v1_1", "text": "very good" }),
        ]),
    );
    let found = report(&place, &[&arguments[..], &["--verdicts", "verdicts.jsonl"]].concat());
    assert_eq!(found["score"], 25.0);
    assert_eq!(found["capabilities"]["ocr"]["score"], 25.0);
}

#[test]
fn mm_hal_averages_the_ratings() {
    let place = Workplace::furnished();
    let record = json!({ "question_type": "attribute", "image_content": ["dog"], "question": "What?",
                         "gt_answer": "a dog", "image_src": "https://example.org/a.png" });
    place.write("hal.json", json!([record, record]).to_string());
    let arguments = ["mm-hal", "--data", "hal.json"];
    asked(&place, &[&arguments[..], &["--images", "pictures"]].concat());
    let requests = fs::read_to_string(place.path("run/requests.jsonl")).unwrap();
    assert!(requests.contains("In the picture: dog"), "{requests}");
    place.write(
        "verdicts.jsonl",
        lines(&[
            json!({ "question_id": 0, "text": "It is. Rating: 6" }),
            json!({ "question_id": 1, "text": "Rating: 2" }),
        ]),
    );
    let found = report(&place, &[&arguments[..], &["--verdicts", "verdicts.jsonl"]].concat());
    assert_eq!((&found["average_score"], &found["hallucination_rate"]), (&json!(4.0), &json!(0.5)));
    let error = place.refuse(&["eval", "mm-hal", "--data", "hal.json"]);
    assert!(error.contains("--verdicts"), "{error}");
}
