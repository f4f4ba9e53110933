//! Models for images of any size, with positions of their own: every command from the checkpoint to the merged adapter.

use image::RgbImage;
use serde_json::Value;

use crate::bad_align::{write_calibration, write_calibration_of};
use crate::fixture::Workplace;

const FAMILIES: [&str; 2] = ["qwen2_5_vl", "qwen3_vl"];

/// Both models, a verifier, and images of two shapes.
fn furnished() -> Workplace {
    let place = Workplace::furnished();
    place.write_qwen_vl(true);
    place.write_qwen_vl(false);
    write_calibration(&place);
    place.write("words.txt", "dog\ncat\nbench\nimage\n");
    let wide = RgbImage::from_fn(40, 12, |x, y| image::Rgb([x as u8 * 6, 200, y as u8 * 20]));
    wide.save(place.path("pictures/d.png")).expect("an image can be saved");
    place
}

fn logprobs(place: &Workplace, model: &str, more: &[&str]) -> Vec<f64> {
    let arguments = ["caption", "--model", model, "--images", "pictures", "--max-new-tokens", "4"];
    let text = place.succeed(&[&arguments[..], &["--format", "json"], more].concat());
    let caption = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    text.lines().map(|line| caption(line)["tokens"][0]["logprob"].as_f64().unwrap()).collect()
}

const ALIGN: [&str; 17] = [
    "align",
    "--verifier",
    "clip",
    "--calibration",
    "calibration.json",
    "--images",
    "pictures",
    "--vocabulary",
    "words.txt",
    "--set",
    "max-new-tokens=8",
    "--set",
    "align.images-per-iteration=3",
    "--set",
    "align.minibatches=1",
    "--set",
    "align.learning-rate=0.05",
];

fn align(place: &Workplace, model: &str, run: &str, more: &[&str]) {
    let own = ["--model", model, "--output", run, "--allow-mismatched-verifier"];
    let iterations = ["--set", "align.iterations=3", "--set", "align.warmup-iterations=1"];
    place.succeed(&[&ALIGN[..], &own, &iterations, more].concat());
}

#[test]
fn merged_model_equals_adapter() {
    let place = furnished();
    for model in FAMILIES {
        let (run, merged) = (format!("{model}-run"), format!("{model}-merged"));
        align(&place, model, &run, &[]);
        place.succeed(&["merge", "--model", model, "--adapter", &run, "--output", &merged]);
        let base = logprobs(&place, model, &[]);
        let adapted = logprobs(&place, model, &["--adapter", &run]);
        assert_eq!(base.len(), 4);
        assert_ne!(base, adapted, "{model}");
        for (adapted, merged) in adapted.iter().zip(logprobs(&place, &merged, &[])) {
            assert!((adapted - merged).abs() < 1e-4, "{model}: {adapted} {merged}");
        }
    }
}

/// Log-probabilities of the answer's tokens, and what the answer says it is about.
fn answer_about(place: &Workplace, model: &str, images: &[&str]) -> (Vec<f64>, Value) {
    let shown = [&["caption", "--together", "--model", model, "--images"][..], images].concat();
    let text =
        place.succeed(&[&shown[..], &["--max-new-tokens", "4", "--format", "json"]].concat());
    let answer: Value = serde_json::from_str(text.trim()).expect("one answer");
    let tokens = answer["tokens"].as_array().unwrap().iter();
    (tokens.map(|token| token["logprob"].as_f64().unwrap()).collect(), answer["images"].clone())
}

#[test]
fn one_prompt_shows_all_images_in_their_order() {
    let place = furnished();
    let (wide, other) = ("pictures/d.png", "pictures/a.png");
    for model in FAMILIES {
        let (found, images) = answer_about(&place, model, &[wide, other]);
        assert_eq!(images, serde_json::json!([wide, other]));
        assert_ne!(found, answer_about(&place, model, &[other, wide]).0, "{model}: their order");
        assert_ne!(found, answer_about(&place, model, &[wide]).0, "{model}: the second image");
        let alone = place.succeed(&[
            "caption",
            "--model",
            model,
            "--images",
            wide,
            "--max-new-tokens",
            "4",
            "--format",
            "json",
        ]);
        let alone: Value = serde_json::from_str(alone.trim()).unwrap();
        let first = alone["tokens"][0]["logprob"].as_f64().unwrap();
        assert!((answer_about(&place, model, &[wide]).0[0] - first).abs() < 1e-5, "{model}");
    }
    let refused =
        place.refuse(&["caption", "--together", "--model", "llava", "--images", wide, other]);
    assert!(
        refused.contains("shows 2 images, and `llava` models were trained on one"),
        "{refused}"
    );
    assert!(refused.contains("SmolVLM, Qwen2.5-VL and Qwen3-VL take several"), "{refused}");
}

#[test]
fn gradient_checkpointing_changes_next_to_nothing() {
    let place = furnished();
    for model in FAMILIES {
        let (kept, recomputed) = (format!("{model}-kept"), format!("{model}-recomputed"));
        align(&place, model, &kept, &[]);
        align(&place, model, &recomputed, &["--set", "align.gradient-checkpointing=true"]);
        let found = logprobs(&place, model, &["--adapter", &recomputed]);
        let expected = logprobs(&place, model, &["--adapter", &kept]);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{model}: {found} {expected}");
        }
    }
}

#[test]
fn verifier_is_refused_unless_it_may_be_mismatched() {
    let place = furnished();
    for model in FAMILIES {
        let refused = place.refuse(&[&ALIGN[..], &["--model", model, "--output", "run"]].concat());
        assert!(refused.contains("one that no contrastive model has"), "{refused}");
        assert!(refused.contains("--allow-mismatched-verifier"), "{refused}");
    }
}

#[test]
fn inspect_says_what_images_become_and_what_verifies() {
    let place = furnished();
    for model in FAMILIES {
        let told = place.succeed(&["inspect", model]);
        assert!(told.contains("an image token for every 8×8 pixels"), "{told}");
        assert!(told.contains("verified by its own decoder (--verifier decoder)"), "{told}");
    }
}

/// No second checkpoint, and no permission for another encoder: images, captions and the model are all it takes.
#[test]
fn decoder_verifies_from_calibration_to_the_adapter() {
    let place = furnished();
    let images = ["--images", "pictures", "--vocabulary", "words.txt"];
    for model in FAMILIES {
        let run = format!("{model}-run");
        let calibrated =
            ["calibrate", "--model", model, "--output", "own.json", "--max-new-tokens", "8"];
        // Captions of a random model name nothing, but the verifier is there before that is found.
        let refused = place.refuse(&[&calibrated[..], &images].concat());
        assert!(
            refused.contains("verifier: the model's own decoder (--verifier decoder)"),
            "{refused}"
        );
        let align = ["align", "--model", model, "--calibration", "calibration.json"];
        let small = [
            "--set",
            "max-new-tokens=8",
            "--set",
            "align.images-per-iteration=3",
            "--set",
            "align.minibatches=1",
            "--set",
            "align.iterations=2",
        ];
        write_calibration_of(&place, 0.01);
        let refused = place.refuse(&[&align[..], &images, &small, &["--output", &run]].concat());
        assert!(refused.contains("guards.verifier-auc asks for 0.65"), "{refused}");
        write_calibration(&place);
        place.succeed(&[&align[..], &images, &small, &["--output", &run]].concat());
        place.succeed(&["align", "--resume", &run]);
        let verify = [
            "verify",
            "--captions",
            "captions.jsonl",
            "--images",
            "pictures",
            "--heat-maps",
            "--format",
            "json",
        ];
        place
            .write("captions.jsonl", "{\"image_id\": \"d.png\", \"caption\": \"a dog and a cat\"}");
        let own = ["--model", model, "--verifier", "decoder", "--vocabulary", "words.txt"];
        let verdict: Value =
            serde_json::from_str(&place.succeed(&[&verify[..], &own].concat())).unwrap();
        let mention = &verdict["mentions"][0];
        assert!(mention["score"].as_f64().unwrap() < 0.0, "a log-probability: {mention}");
        let map = &mention["heat_map"];
        let size = |key: &str| map[key].as_u64().unwrap() as usize;
        assert_eq!(map["probabilities"].as_array().unwrap().len(), size("rows") * size("columns"));
        assert!(size("columns") > size("rows"), "the image is wide: {map}");
    }
}

/// Its decoder runs on a card, its image encoder does not: the user is told so, once.
#[test]
fn image_encoder_beside_a_card_is_told() {
    let place = furnished();
    let test = "image_encoder_beside_a_card_is_told";
    let arguments =
        ["caption", "--model", "qwen3_vl", "--images", "pictures", "--max-new-tokens", "2"];
    let Some(output) = place.run_on_host_kernels(test, &arguments) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = "the card does not compute the image encoder, so it runs on the CPU: the image tower is Qwen-VL's; supported are CLIP's, \
                SigLIP's and EVA's";
    assert_eq!(errors.matches(told).count(), 1, "{errors}");
}
