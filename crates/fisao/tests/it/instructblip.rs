//! A model whose image encoder reads the prompt, and its verifier: every command from the checkpoint to the merged adapter.

use std::fs;

use serde_json::{Value, json};

use crate::bad_align::{write_calibration, write_calibration_of};
use crate::fixture::Workplace;

fn furnished() -> Workplace {
    let place = Workplace::furnished();
    place.write_instructblip();
    write_calibration(&place);
    place
}

fn first_logprobs(place: &Workplace, model: &str, more: &[&str]) -> Vec<f64> {
    let arguments = [
        "caption",
        "--model",
        model,
        "--images",
        "pictures",
        "--max-new-tokens",
        "4",
        "--format",
        "json",
    ];
    let text = place.succeed(&[&arguments[..], more].concat());
    let caption = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    text.lines().map(|line| caption(line)["tokens"][0]["logprob"].as_f64().unwrap()).collect()
}

const ALIGN: [&str; 22] = [
    "align",
    "--model",
    "instructblip",
    "--verifier",
    "blip2",
    "--calibration",
    "calibration.json",
    "--images",
    "pictures",
    "--vocabulary",
    "words.txt",
    "--prompt",
    "Describe the image",
    "--set",
    "max-new-tokens=8",
    "--set",
    "align.images-per-iteration=3",
    "--set",
    "align.warmup-iterations=1",
    "--set",
    "align.minibatches=1",
    "--output",
];

fn align(place: &Workplace, run: &str, more: &[&str]) {
    place.write("words.txt", "dog\ncat\nbench\nimage\n");
    place.succeed(&[&ALIGN[..], &[run], more].concat());
}

#[test]
fn instruction_changes_what_is_seen() {
    let place = furnished();
    let asked = |prompt: &str| first_logprobs(&place, "instructblip", &["--prompt", prompt]);
    let (dog, cat) = (asked("the dog"), asked("the cat"));
    assert_eq!(dog.len(), 3);
    let differ = dog.iter().zip(&cat).all(|(dog, cat)| (dog - cat).abs() > 1e-6);
    assert!(differ, "{dog:?} {cat:?}");
}

#[test]
fn merged_model_equals_adapter_and_keeps_both_tokenizers() {
    let place = furnished();
    align(&place, "run", &["--set", "align.iterations=2", "--set", "align.learning-rate=0.05"]);
    place.succeed(&["merge", "--model", "instructblip", "--adapter", "run", "--output", "merged"]);
    assert!(place.path("merged/qformer_tokenizer/tokenizer.json").exists());
    let base = first_logprobs(&place, "instructblip", &[]);
    let adapted = first_logprobs(&place, "instructblip", &["--adapter", "run"]);
    let merged = first_logprobs(&place, "merged", &[]);
    assert_ne!(base, adapted);
    for (adapted, merged) in adapted.iter().zip(merged) {
        assert!((adapted - merged).abs() < 1e-4, "{adapted} {merged}");
    }
}

#[test]
fn resumed_run_ends_with_the_same_bytes() {
    let place = furnished();
    align(&place, "whole", &["--set", "align.iterations=3"]);
    align(&place, "cut", &["--set", "align.iterations=2"]);
    place.succeed(&["align", "--resume", "cut", "--set", "align.iterations=3"]);
    let adapter = |run: &str| fs::read(place.path(run).join("adapter/adapter_model.safetensors"));
    let samples = |run: &str| fs::read_to_string(place.path(run).join("samples.jsonl")).unwrap();
    // The schedule of the extended run was planned anew, so only the first iterations are the same.
    assert!(adapter("whole").is_ok() && adapter("cut").is_ok());
    assert_eq!(samples("whole").lines().next(), samples("cut").lines().next());
    place.command().args(["align", "--resume", "whole"]).assert().success();
}

/// The kernels of cards, compiled as C++ and run on the CPU: image tower, sampling, scores and updates. Two runs are the same to the byte,
/// and do what a run on the CPU does.
#[test]
fn alignment_by_the_kernels_of_cuda_matches_the_cpu() {
    let place = furnished();
    let settings = ["--set", "align.iterations=2", "--set", "align.learning-rate=0.01"];
    align(&place, "cpu", &settings);
    for run in ["first", "second"] {
        let test = "alignment_by_the_kernels_of_cuda_matches_the_cpu";
        let command = [&ALIGN[..], &[run], &settings].concat();
        if place.run_on_host_kernels(test, &command).is_none() {
            return;
        }
    }
    let adapter = |run: &str| {
        fs::read(place.path(run).join("adapter/adapter_model.safetensors")).expect("an adapter")
    };
    assert_eq!(adapter("first"), adapter("second"));
    assert_ne!(adapter("first"), adapter("cpu"), "other kernels did not compute it");
    let file = |run: &str, name: &str| fs::read_to_string(place.path(run).join(name)).unwrap();
    let rows = |run: &str| -> Vec<Value> {
        file(run, "metrics.jsonl").lines().map(|row| serde_json::from_str(row).unwrap()).collect()
    };
    let (found, expected) = (rows("first"), rows("cpu"));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in ["reward_mean", "kl", "entropy", "policy_loss", "value_loss", "grad_norm"] {
            let [found, expected] = [found, expected].map(|row| row[key].as_f64());
            let (Some(found), Some(expected)) = (found, expected) else { panic!("{key}") };
            let close = (found - expected).abs() < 1e-3 * expected.abs().max(1.0);
            assert!(close, "{key}: {found} instead of {expected}");
        }
    }
}

#[test]
fn mentions_get_scores_and_heat_maps() {
    let place = furnished();
    place.write("words.txt", "dog\ncat\n");
    let rows = [("a.png", "a dog and a cat"), ("b.png", "a cat")];
    let rows =
        rows.map(|(image, caption)| json!({ "image": image, "caption": caption }).to_string());
    place.write("captions.jsonl", rows.join("\n"));
    let page = place.path("page.html");
    let verify = ["verify", "--captions", "captions.jsonl", "--images", "pictures"];
    let more = ["--verifier", "blip2", "--vocabulary", "words.txt", "--format", "json", "--html"];
    let text = place.succeed(&[&verify[..], &more, &["page.html"]].concat());
    assert_eq!(text.matches("\"score\"").count(), 3, "{text}");
    assert!(fs::read_to_string(page).unwrap().contains("dog"));
}

/// The matching head reads image and text together: other scores on another scale, the same for a name and for a caption's mention.
#[test]
fn matching_head_scores_where_it_is_asked_for() {
    let place = furnished();
    place.write("words.txt", "dog\ncat\n");
    let score = |more: &[&str]| {
        let arguments = [
            "score",
            "--verifier",
            "blip2",
            "--vocabulary",
            "words.txt",
            "--image",
            "pictures/a.png",
        ];
        let text = ["--text", "cat", "--caption", "a dog and a cat", "--format", "json"];
        serde_json::from_str::<Value>(&place.succeed(&[&arguments[..], &text, more].concat()))
            .unwrap()
    };
    let (contrastive, matching) = (score(&[]), score(&["--head", "matching"]));
    assert_eq!((&contrastive["unit"], &matching["unit"]), (&json!("cosine"), &json!("log-odds")));
    let mentions = matching["captions"][0]["mentions"].as_array().unwrap();
    assert_eq!(matching["scores"][0]["score"], mentions[1]["score"]);
    assert_ne!(matching["scores"][0]["score"], mentions[0]["score"]);
    assert_ne!(matching["scores"][0]["score"], contrastive["scores"][0]["score"]);

    let arguments = ["score", "--verifier", "clip", "--image", "pictures/a.png", "--text", "cat"];
    let refused = place.refuse(&[&arguments[..], &["--head", "matching"]].concat());
    assert!(refused.contains("BLIP-2 checkpoints have"), "{refused}");
    let refused = place.refuse(
        &["score", "--verifier", "blip2", "--head", "matching", "--regions", "crops"]
            .into_iter()
            .chain(["--image", "pictures/a.png", "--text", "cat"])
            .collect::<Vec<_>>(),
    );
    assert!(refused.contains("score.regions is crops"), "{refused}");
}

/// A run scores, rewards and goes on by the head that its settings name.
#[test]
fn matching_head_gives_rewards() {
    let place = furnished();
    let samples = |run: &str, head: &str| {
        let head = format!("score.head={head}");
        align(&place, run, &["--set", "align.iterations=2", "--set", &head]);
        fs::read_to_string(place.path(run).join("samples.jsonl")).unwrap()
    };
    let (contrastive, matching) = (samples("one", "contrastive"), samples("other", "matching"));
    assert!(contrastive.contains("score"), "no mention was scored: {contrastive}");
    assert_ne!(contrastive, matching);
}

#[test]
fn tuned_tower_is_judged_by_the_calibration() {
    let place = furnished();
    write_calibration_of(&place, 0.01);
    place.write("words.txt", "dog\n");
    // Only the tower's patches differ; its last norm, which does too, is no part of what is shared.
    let weights = place.path("instructblip/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let document: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let name = "vision_tower.vision_model.embeddings.patch_embedding.weight";
    let offsets = document[name]["data_offsets"].as_array().unwrap();
    let [start, end] = [0, 1].map(|at| 8 + header + offsets[at].as_u64().unwrap() as usize);
    bytes[start..end].fill(0x3e);
    fs::write(weights, bytes).unwrap();
    let refused = place.refuse(&[&ALIGN[..], &["run"]].concat());
    assert!(refused.contains("its vision tower was tuned in"), "{refused}");
    assert!(refused.contains("guards.verifier-auc asks for 0.65"), "{refused}");
}

#[test]
fn what_is_missing_is_named() {
    let place = furnished();
    fs::remove_dir_all(place.path("instructblip/qformer_tokenizer")).unwrap();
    let caption = ["caption", "--model", "instructblip", "--images", "pictures"];
    let refused = place.refuse(&caption);
    assert!(refused.contains("qformer_tokenizer/tokenizer.json"), "{refused}");

    let path = place.path("instructblip/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["text_config"]["model_type"] = json!("t5");
    fs::write(&path, config.to_string()).unwrap();
    let refused = place.refuse(&caption);
    assert!(refused.contains("T5"), "{refused}");

    let path = place.path("blip2/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["architectures"] = json!(["Blip2ForConditionalGeneration"]);
    fs::write(&path, config.to_string()).unwrap();
    let refused = place.refuse(&[
        "score",
        "--verifier",
        "blip2",
        "--images",
        "pictures/a.png",
        "--text",
        "dog",
    ]);
    assert!(refused.contains("Salesforce/blip2-itm-vit-g"), "{refused}");
}

#[test]
fn inspect_describes_both() {
    let place = furnished();
    let model = place.succeed(&["inspect", "instructblip"]);
    assert!(model.contains("3 image tokens of a Q-Former that reads the instruction"), "{model}");
    let verifier = place.succeed(&["inspect", "blip2"]);
    assert!(verifier.contains("Q-Former of 2 layers, 12 wide, 4 queries"), "{verifier}");
}
