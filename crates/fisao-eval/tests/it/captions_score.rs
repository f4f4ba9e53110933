//! Scores against pycocoevalcap: see `fixtures/caption_scores/generate.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fisao_eval::captions::{
    CaptionError, CaptionInput, CaptionOptions, CaptionReport, CaptionScores, MeteorStage,
    MeteorTables, References, evaluate, intervals,
};
use fisao_eval::image_id::Matched;
use fisao_eval::statistics::Bootstrap;
use serde::Deserialize;

const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Expected {
    captions: BTreeMap<String, String>,
    references: BTreeMap<String, Vec<String>>,
    tables: BTreeMap<String, String>,
    overall: BTreeMap<String, f64>,
    per_image: BTreeMap<String, BTreeMap<String, f64>>,
}

fn expected() -> Expected {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/caption_scores/expected.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn captions(texts: &[(&str, &str)]) -> Vec<CaptionInput> {
    let input = |&(image_id, caption): &(&str, &str)| CaptionInput {
        image_id: image_id.to_owned(),
        caption: caption.to_owned(),
    };
    texts.iter().map(input).collect()
}

fn references(texts: &[(&str, &[&str])]) -> References {
    let mut references = References::default();
    for (image_id, captions) in texts {
        references.add(image_id, captions.iter().map(ToString::to_string));
    }
    references
}

fn score(
    captions: &[CaptionInput],
    references: &References,
    options: &CaptionOptions,
) -> Result<CaptionReport, CaptionError> {
    evaluate(captions, references, &MeteorTables::default(), options)
}

fn report_of(expected: &Expected, tables: &MeteorTables) -> CaptionReport {
    let texts: Vec<(&str, &str)> =
        expected.captions.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let mut references = References::default();
    for (image_id, captions) in &expected.references {
        references.add(image_id, captions.clone());
    }
    let options = CaptionOptions::default();
    evaluate(&captions(&texts), &references, tables, &options).unwrap()
}

fn assert_equal(ours: &CaptionScores, theirs: &BTreeMap<String, f64>, meteor: &str, what: &str) {
    for (name, ours) in [
        ("bleu_1", ours.bleu_1),
        ("bleu_2", ours.bleu_2),
        ("bleu_3", ours.bleu_3),
        ("bleu_4", ours.bleu_4),
        ("rouge_l", ours.rouge_l),
        ("cider", ours.cider),
        (meteor, ours.meteor),
    ] {
        let theirs = theirs[name];
        assert!((ours - theirs).abs() < TOLERANCE, "{name} of {what}: {ours} for {theirs}");
    }
}

#[test]
fn caption_scores_match_the_reference() {
    let expected = expected();
    let table = |name: &str| expected.tables[name].as_bytes();
    let mut tables = MeteorTables::default();
    tables.read_function_words(table("function.words")).unwrap();
    for meteor in ["meteor_exact_stem", "meteor"] {
        if meteor == "meteor" {
            tables.read_synonyms(table("english.exceptions"), table("english.synsets")).unwrap();
            let (none, all) = (Vec::new(), references_of(&expected));
            tables.read_paraphrases(table("paraphrase"), &none, &all).unwrap();
            assert_eq!(tables.stages().last(), Some(&MeteorStage::Paraphrase));
        }
        let report = report_of(&expected, &tables);
        assert_equal(&report.scores, &expected.overall, meteor, "the set");
        for image in &report.per_image {
            let theirs = &expected.per_image[&image.image_id];
            assert_equal(&image.scores, theirs, meteor, &image.image_id);
        }
    }
}

/// References and captions as references, so that the words of both are known.
fn references_of(expected: &Expected) -> References {
    let mut references = References::default();
    for (image_id, captions) in &expected.references {
        references.add(image_id, captions.clone());
        references.add(image_id, [expected.captions[image_id].clone()]);
    }
    references
}

#[test]
fn a_caption_equal_to_its_reference_scores_highest() {
    let captions = captions(&[("1", "A red bus on a road."), ("2", "Two dogs eat a large pizza!")]);
    let references = references(&[
        ("1", &["a red bus on a road"]),
        ("2", &["two dogs eat a large pizza", "nothing like it"]),
    ]);
    let scores = score(&captions, &references, &CaptionOptions::default()).unwrap().scores;
    for (name, value) in [
        ("bleu_1", scores.bleu_1),
        ("bleu_4", scores.bleu_4),
        ("rouge_l", scores.rouge_l),
        ("meteor", scores.meteor),
    ] {
        assert!((value - 1.0).abs() < 1e-8, "{name}: {value}");
    }
    // Ten for the first image; five for the second, half of whose references are something else.
    assert!((scores.cider - 7.5).abs() < 1e-9);
}

#[test]
fn empty_caption_scores_zero_and_is_counted() {
    let captions = captions(&[("1", " . "), ("2", "a dog")]);
    let references = references(&[("1", &["a cat"]), ("2", &["a dog"])]);
    let report = score(&captions, &references, &CaptionOptions::default()).unwrap();
    assert_eq!((report.empty_captions, report.images), (1, 2));
    let empty = &report.per_image[0].scores;
    assert!(empty.bleu_1 < 1e-9 && empty.rouge_l == 0.0 && empty.cider == 0.0, "{empty:?}");
    assert!(empty.meteor == 0.0);
}

#[test]
fn images_are_matched_by_number_or_file_name_and_counted() {
    let captions = captions(&[("COCO_val2014_000000000042.jpg", "a dog"), ("b/x.png", "a cat")]);
    let references = references(&[
        ("42", &["a dog"]),
        ("x", &["a cat"]),
        ("7", &["unused"]),
        ("8", &["unused"]),
    ]);
    let report = score(&captions, &references, &CaptionOptions::default()).unwrap();
    assert_eq!(report.matched, [(Matched::ByNumber, 1), (Matched::ByFileName, 1)].into());
    assert_eq!((report.references, report.references_without_caption), (2, 2));
    // printf '42\nx\n' | sha256sum
    assert_eq!(
        report.image_ids_sha256,
        "e4d9482e85ba2822bf5dd7a4cec24584b83900bee054c8db58cb7521b2a0fe4b"
    );
}

#[test]
fn captions_without_references_are_rejected_or_skipped() {
    let captions = captions(&[("1", "a dog"), ("2", "a cat"), ("3", "a cow")]);
    let references = references(&[("1", &["a dog"]), ("3", &[])]);
    let refused = score(&captions, &references, &CaptionOptions::default()).unwrap_err();
    assert_eq!(refused, CaptionError::MissingReferences { image_id: "2".to_owned(), count: 2 });
    assert!(refused.to_string().starts_with("2 captions have no references, the first is"));
    let skip = CaptionOptions { skip_images_without_references: true, ..CaptionOptions::default() };
    let report = score(&captions, &references, &skip).unwrap();
    assert_eq!((report.images, report.captions_without_references), (1, 2));
    let none = score(&captions[1..], &references, &skip).unwrap_err();
    assert_eq!(none, CaptionError::NoCaptions);
    assert_eq!(score(&[], &references, &skip), Err(CaptionError::NoCaptions));
}

#[test]
fn one_image_under_two_names_is_refused() {
    let captions = captions(&[("42", "a dog"), ("000000000042", "a cat")]);
    let refused = score(&captions, &references(&[("42", &["a dog"])]), &CaptionOptions::default());
    let (first, second) = ("42".to_owned(), "000000000042".to_owned());
    assert_eq!(refused, Err(CaptionError::SameImage { first, second }));
}

#[test]
fn intervals_contain_the_scores_and_report_states_meteor_stages() {
    let expected = expected();
    let texts: Vec<(&str, &str)> =
        expected.captions.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let options = CaptionOptions { tokens: true, ..CaptionOptions::default() };
    let mut references = References::default();
    expected.references.iter().for_each(|(id, texts)| references.add(id, texts.clone()));
    let report = score(&captions(&texts), &references, &options).unwrap();
    assert_eq!(report, score(&captions(&texts), &references, &options).unwrap());
    let json = serde_json::to_value(&report).unwrap();
    let bootstrap = Bootstrap { resamples: 200, seed: 0 };
    for (metric, interval) in CaptionScores::NAMES.into_iter().zip(intervals(&[&report], bootstrap))
    {
        let (value, interval) = (json[metric].as_f64().unwrap(), interval.unwrap());
        assert!(interval.low < value && value < interval.high, "{metric}: {value} {interval:?}");
        assert!(json["per_image"][0][metric].is_f64());
    }
    assert_eq!(json["meteor_stages"], serde_json::json!(["exact", "stem"]));
    assert_eq!(json["meteor_function_words"], false);
    let tokens = report.per_image[2].tokens.as_ref().unwrap();
    assert_eq!(tokens.caption, "cat");
    assert_eq!(tokens.references.len(), report.per_image[2].references);
}

#[test]
fn invalid_meteor_tables_are_reported_by_line() {
    let mut tables = MeteorTables::default();
    let incomplete = tables.read_synonyms("man\nmen\nox\n".as_bytes(), "".as_bytes()).unwrap_err();
    assert_eq!(
        incomplete.to_string(),
        "METEOR's irregular forms, line 4: the entry that ends here is incomplete"
    );
    let number = tables.read_synonyms("".as_bytes(), "a\n1\nb\nx\n".as_bytes()).unwrap_err();
    assert_eq!(number.to_string(), "METEOR's synsets, line 4: a synset is a number");
    assert_eq!(tables.stages(), [MeteorStage::Exact, MeteorStage::Stem]);
}
