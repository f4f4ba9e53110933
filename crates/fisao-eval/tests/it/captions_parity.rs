//! Against pycocoevalcap 1.2 on 258 images of COCO.

use std::collections::BTreeMap;

use fisao_eval::captions::{
    CaptionInput, CaptionOptions, CaptionReport, CaptionScores, MeteorTables, References,
    caption_tokens, evaluate,
};
use serde::Deserialize;

use crate::parity;

/// Both compute in doubles; only the order of sums differs.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Expected {
    refs: BTreeMap<String, Vec<String>>,
    hyp: BTreeMap<String, String>,
    tok_refs: BTreeMap<String, Vec<String>>,
    tok_hyp: BTreeMap<String, Vec<String>>,
    overall: Scores,
    per_image: BTreeMap<String, Scores>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scores {
    #[serde(rename = "Bleu_1")]
    bleu_1: f64,
    #[serde(rename = "Bleu_2")]
    bleu_2: f64,
    #[serde(rename = "Bleu_3")]
    bleu_3: f64,
    #[serde(rename = "Bleu_4")]
    bleu_4: f64,
    #[serde(rename = "ROUGE_L")]
    rouge_l: f64,
    #[serde(rename = "CIDEr")]
    cider: f64,
}

fn expected(test: &str) -> Option<Expected> {
    let bytes = parity::data(test, "captions/expected_coco.json")?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn report(expected: &Expected) -> CaptionReport {
    let mut references = References::default();
    for (image_id, captions) in &expected.refs {
        references.add(image_id, captions.clone());
    }
    let captions: Vec<CaptionInput> = expected
        .hyp
        .iter()
        .map(|(image_id, caption)| CaptionInput {
            image_id: image_id.clone(),
            caption: caption.clone(),
        })
        .collect();
    let options = CaptionOptions { tokens: true, ..CaptionOptions::default() };
    evaluate(&captions, &references, &MeteorTables::default(), &options).unwrap()
}

fn assert_equal(ours: &CaptionScores, theirs: &Scores, what: &str) {
    for (name, ours, theirs) in [
        ("BLEU-1", ours.bleu_1, theirs.bleu_1),
        ("BLEU-2", ours.bleu_2, theirs.bleu_2),
        ("BLEU-3", ours.bleu_3, theirs.bleu_3),
        ("BLEU-4", ours.bleu_4, theirs.bleu_4),
        ("ROUGE-L", ours.rouge_l, theirs.rouge_l),
        ("CIDEr", ours.cider, theirs.cider),
    ] {
        assert!((ours - theirs).abs() < TOLERANCE, "{name} of {what}: {ours} for {theirs}");
    }
}

#[test]
fn coco_caption_tokens_match_the_reference() {
    let Some(expected) = expected("coco_caption_tokens_match_the_reference") else { return };
    for (image_id, captions) in &expected.refs {
        for (caption, tokens) in captions.iter().zip(&expected.tok_refs[image_id]) {
            assert_eq!(caption_tokens(caption).join(" "), *tokens, "{caption}");
        }
    }
    for (image_id, caption) in &expected.hyp {
        assert_eq!(caption_tokens(caption).join(" "), expected.tok_hyp[image_id][0], "{caption}");
    }
}

#[test]
fn coco_caption_scores_match_the_reference() {
    let Some(expected) = expected("coco_caption_scores_match_the_reference") else { return };
    let report = report(&expected);
    assert_equal(&report.scores, &expected.overall, "the set");
    assert_eq!(report.per_image.len(), 258);
    for image in &report.per_image {
        assert_equal(&image.scores, &expected.per_image[&image.image_id], &image.image_id);
    }
}
