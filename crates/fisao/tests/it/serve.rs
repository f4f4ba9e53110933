//! `fisao serve --stdio`: one JSON object a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::bad_align::write_calibration;
use crate::fixture::Workplace;

/// Replies to lines, after the greeting.
fn replies(place: &Workplace, more: &[&str], lines: &[String]) -> (Value, Vec<Value>) {
    let assert = place
        .command()
        .args(["serve", "--stdio", "--verifier", "clip", "--vocabulary", "words.txt"])
        .args(more)
        .write_stdin(lines.join("\n"))
        .assert()
        .success();
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let mut replies = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (replies.next().unwrap(), replies.collect())
}

fn furnished() -> Workplace {
    let place = Workplace::furnished();
    write_calibration(&place);
    place.write("words.txt", "dog\ncat\n");
    place
}

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "id": id, "method": method, "params": params }).to_string()
}

const CALIBRATED: [&str; 2] = ["--calibration", "calibration.json"];

#[test]
fn verdicts_and_scores_are_those_of_the_commands() {
    let place = furnished();
    let image = json!({ "path": "pictures/a.png" });
    let caption = "Im Café: a dog and no cat";
    let sample = json!({ "image": image, "caption": caption });
    let lines = [
        request(1, "verify", &json!({ "samples": [sample], "heat_maps": true })),
        request(2, "score", &json!({ "image": image, "names": ["dog"] })),
        request(3, "mentions", &json!({ "texts": [caption, ""] })),
    ];
    let (greeting, replies) = replies(&place, &CALIBRATED, &lines);
    assert_eq!((&greeting["protocol"], &greeting["calibrated"]), (&json!(1), &json!(true)));
    assert_eq!(greeting["methods"], json!(["mentions", "score", "token_rewards", "verify"]));
    assert_eq!(greeting.get("remark"), None);
    let arguments =
        ["score", "--verifier", "clip", "--image", "pictures/a.png", "--format", "json"];
    let text = ["--text", "dog", "--caption", caption, "--vocabulary", "words.txt"];
    let printed = place.succeed(&[&arguments[..], &text, &CALIBRATED].concat());
    let printed: Value = serde_json::from_str(&printed).unwrap();

    let verdict = &replies[0]["result"]["samples"][0];
    let (dog, cat) = (&verdict["mentions"][0], &verdict["mentions"][1]);
    let same = &printed["captions"][0]["mentions"][0];
    for key in ["start", "end", "text", "category", "form", "negated", "score", "p_hallucinated"] {
        assert_eq!(dog[key], same[key], "{key}");
    }
    assert_eq!((&dog["start"], &dog["end"]), (&json!(11), &json!(14)));
    assert_eq!((&cat["negated"], &cat["p_hallucinated"]), (&json!(true), &Value::Null));
    assert_eq!(dog["heat_map"]["cosines"].as_array().unwrap().len(), 4);
    let counted = dog["hallucinated"].as_bool().map(u64::from);
    assert_eq!(verdict["hallucinated"].as_u64(), counted);
    assert_eq!(replies[1]["result"]["scores"][0]["score"], printed["scores"][0]["score"]);
    assert_eq!(replies[1]["result"]["unit"], "cosine");
    let found = &replies[2]["result"]["mentions"];
    assert_eq!((found[0].as_array().unwrap().len(), &found[1]), (2, &json!([])));
}

/// Rewards stand on the tokens that spell a mention, however the text was cut into tokens; an image is the same by its path and by
/// its bytes.
#[test]
fn rewards_stand_on_the_tokens_that_spell_a_mention() {
    let place = furnished();
    let bytes = std::fs::read(place.path("pictures/a.png")).unwrap();
    let images = [json!({ "path": "pictures/a.png" }), json!({ "base64": STANDARD.encode(bytes) })];
    let spans = [
        json!([[0, 1], [1, 3], [3, 5], [5, 9], [9, 13], [13, 13]]),
        json!([[0, 5], [5, 13], [13, 13]]),
    ];
    let sample = |image: &Value, spans: &Value| json!({ "image": image, "text": "a dog and cat", "token_spans": spans });
    let samples = [
        sample(&images[0], &spans[0]),
        sample(&images[1], &spans[0]),
        sample(&images[0], &spans[1]),
        json!({ "image": images[0], "text": "", "token_spans": [] }),
    ];
    let (_, replies) = replies(
        &place,
        &CALIBRATED,
        &[request(1, "token_rewards", &json!({ "samples": samples }))],
    );
    let samples = replies[0]["result"]["samples"].as_array().unwrap();
    assert_eq!(samples[0], samples[1]);
    let tokens = |at: usize, mention: usize| samples[at]["mentions"][mention]["tokens"].clone();
    assert_eq!((tokens(0, 0), tokens(0, 1)), (json!([1, 3]), json!([4, 5])));
    assert_eq!((tokens(2, 0), tokens(2, 1)), (json!([0, 1]), json!([1, 2])));
    let rewards = |at: usize| -> Vec<f64> {
        let rewards = samples[at]["rewards"].as_array().unwrap();
        rewards.iter().map(|reward| reward.as_f64().unwrap()).collect()
    };
    let (fine, coarse) = (rewards(0), rewards(2));
    assert_eq!((fine.len(), coarse.len(), rewards(3).len()), (6, 3, 0));
    assert!(fine[2] != 0.0 && fine[4] != 0.0, "{fine:?}");
    assert_eq!((fine[0], fine[1], fine[3], fine[5]), (0.0, 0.0, 0.0, 0.0));
    assert_eq!((coarse[0], coarse[1], coarse[2]), (fine[2], fine[4], 0.0));
}

#[test]
fn built_in_models_say_that_photographs_are_nothing_to_them() {
    let place = Workplace::new();
    let assert = place.command().args(["serve", "--stdio"]).write_stdin("").assert().success();
    let output = assert.get_output();
    let greeting: Value = serde_json::from_slice(&output.stdout).unwrap();
    let remark = greeting["remark"].as_str().unwrap();
    assert!(remark.contains("what it says of photographs means nothing"), "{remark}");
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.contains("hint: name a model with --model"), "{warned}");
}

#[test]
fn captions_are_those_of_the_command_with_and_without_the_adapter() {
    let place = furnished();
    let asked = json!({ "images": [{ "path": "pictures/a.png" }], "max_new_tokens": 5, "prompt": "<image> Describe." });
    let arguments = ["--model", "llava", "--allow-mismatched-verifier"];
    let (greeting, replies) = replies(&place, &arguments, &[request(1, "caption", &asked)]);
    assert_eq!(greeting["model"], "llava");
    let caption = &replies[0]["result"]["captions"][0][0];
    let command =
        ["caption", "--model", "llava", "--images", "pictures/a.png", "--max-new-tokens", "5"];
    let more = ["--prompt", "<image> Describe.", "--format", "json"];
    let printed: Value =
        serde_json::from_str(&place.succeed(&[&command[..], &more].concat())).unwrap();
    assert_eq!((&caption["text"], &caption["tokens"]), (&printed["caption"], &printed["tokens"]));
}

#[test]
fn what_is_wrong_with_a_request_is_named_and_the_next_one_answered() {
    let place = furnished();
    place.write("broken.png", "no image");
    let path = |path: &str| json!({ "image": { "path": path }, "names": ["dog"] });
    let spans = json!({ "samples": [{ "image": { "path": "pictures/a.png" }, "text": "é", "token_spans": [[0, 2]] }] });
    let wrong = [
        ("{".to_owned(), "invalid-json", "not JSON"),
        (request(1, "scores", &json!({})), "unknown-method", "no method 'scores'"),
        (request(1, "score", &json!({})), "invalid-params", "missing field `image`"),
        (request(1, "score", &path("nowhere.png")), "invalid-image", "nowhere.png"),
        (request(1, "score", &path("broken.png")), "invalid-image", "broken.png"),
        (
            request(1, "score", &json!({ "image": { "base64": "!" }, "names": [] })),
            "invalid-image",
            "base64",
        ),
        (
            request(1, "token_rewards", &spans),
            "invalid-params",
            "samples[0].token_spans[0] is [0, 2]",
        ),
        (request(1, "caption", &json!({ "images": [] })), "unavailable", "need a model"),
        (
            json!({ "id": 1, "method": "mentions", "protocol": 2 }).to_string(),
            "unsupported-protocol",
            "speaks 1",
        ),
        (
            request(1, "mentions", &json!({ "texts": ["x".repeat(2 << 20)] })),
            "too-large",
            "longer than 1 MB",
        ),
    ];
    let fine = request(9, "mentions", &json!({ "texts": ["a dog"] }));
    let lines = wrong.iter().flat_map(|(line, ..)| [line.clone(), fine.clone()]);
    let more = [&CALIBRATED[..], &["--body-mb", "1"]].concat();
    let (_, replies) = replies(&place, &more, &lines.collect::<Vec<_>>());
    assert_eq!(replies.len(), 2 * wrong.len());
    for (pair, (_, code, message)) in replies.chunks(2).zip(&wrong) {
        assert_eq!(pair[0]["error"]["code"], *code, "{}", pair[0]);
        let said = pair[0]["error"]["message"].as_str().unwrap();
        assert!(said.contains(message), "{said}");
        assert_eq!((&pair[1]["id"], pair[1].get("error")), (&json!(9), None));
    }
}

#[test]
fn folder_of_images_is_not_left() {
    let place = furnished();
    place.write("secret.png", "x");
    let path =
        |path: &str| request(1, "score", &json!({ "image": { "path": path }, "names": ["dog"] }));
    let lines =
        ["pictures/a.png", "secret.png", "pictures/../secret.png", "pictures/none.png"].map(path);
    let (_, replies) = replies(&place, &["--images", "pictures"], &lines);
    assert!(replies[0].get("result").is_some(), "{}", replies[0]);
    for reply in &replies[1..] {
        assert!(
            reply["error"]["message"].as_str().unwrap().contains("no such file in the folder"),
            "{reply}"
        );
    }
}

/// A client gets each answer when it is ready, not when the input ends; one that goes away ends the server.
#[test]
fn replies_come_one_by_one_and_the_server_ends_with_its_client() {
    let place = furnished();
    let mut child = std::process::Command::new(place.command().get_program())
        .current_dir(place.path("."))
        .args(["serve", "--stdio", "--verifier", "clip", "--vocabulary", "words.txt"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(output.next().unwrap().unwrap().contains("\"protocol\":1"));
    for id in 0..3 {
        writeln!(input, "{}", request(id, "mentions", &json!({ "texts": ["a dog"] }))).unwrap();
        let reply: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(reply["id"], id);
    }
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}
