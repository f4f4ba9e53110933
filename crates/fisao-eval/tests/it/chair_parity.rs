//! CHAIR beside the published scorer, on data that is not part of the project.

use std::io::Read;

use fisao_eval::chair::{
    ChairInput, ChairOptions, ChairReport, GroundTruth, ImageList, MentionFinder, ObjectVocabulary,
    Rules, evaluate, read_captions, read_ground_truth, read_synonyms, reference,
};
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::parity::data;

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).expect("a whole gzip file");
    text
}

/// Synonyms, ground truth and the captions of one of the two files.
struct Published {
    vocabulary: ObjectVocabulary,
    truth: GroundTruth,
    captions: Vec<ChairInput>,
}

fn published(test: &str, file: &str) -> Option<Published> {
    let synonyms = data(test, "chair/synonyms.txt")?;
    let truth = unpacked(&data(test, "chair/coco2014_trainval_gt_objects.json.gz")?);
    let captions = unpacked(&data(test, &format!("chair/{file}.jsonl.gz"))?);
    Some(Published {
        vocabulary: read_synonyms(&synonyms[..]).expect("the published list"),
        truth: read_ground_truth(&truth[..]).expect("published ground truth"),
        captions: read_captions(&captions[..]).expect("published captions"),
    })
}

fn scored(published: &Published, rules: Rules) -> ChairReport {
    let options = ChairOptions { rules, ..ChairOptions::default() };
    evaluate(published.captions.clone(), &published.truth, &published.vocabulary, &options).unwrap()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Aggregate {
    #[serde(rename = "CHAIRs")]
    chair_s: f64,
    #[serde(rename = "CHAIRi")]
    chair_i: f64,
    recall: f64,
}

#[test]
fn published_caption_files_score_as_in_the_reference() {
    let test = "published_caption_files_score_as_in_the_reference";
    let Some(expected) = data(test, "chair/expected_aggregate.json") else { return };
    let expected: std::collections::BTreeMap<String, Aggregate> =
        serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.len(), 2);
    for (file, expected) in expected {
        let Some(published) = published(test, &file) else { return };
        assert_eq!((published.captions.len(), published.truth.len()), (2000, 123_287));
        let report = scored(&published, Rules::Reference);
        assert_eq!(report.matched.exactly, 2000);
        for (found, expected) in [
            (report.chair_s, expected.chair_s),
            (report.chair_i, expected.chair_i),
            (report.recall, expected.recall),
        ] {
            let found = found.unwrap();
            assert!((found - expected).abs() < 1e-9, "{file}: {found} is not {expected}");
        }
        // The same captions by strict rules are another measurement altogether.
        assert_ne!(scored(&published, Rules::Strict).mentions, report.mentions);
    }
}

#[test]
fn chair_500_has_published_ground_truth() {
    let test = "chair_500_has_published_ground_truth";
    let Some(truth) = data(test, "chair/coco2014_trainval_gt_objects.json.gz") else { return };
    let truth = read_ground_truth(&unpacked(&truth)[..]).expect("published ground truth");
    let list = ImageList::chair_500();
    let names = list.names(&truth).expect("every image is in the ground truth");
    assert_eq!(names.len(), 500);
    let objects: usize = names.iter().map(|&name| truth[name].len()).sum();
    assert_eq!(objects, 1559);
}

#[derive(Deserialize)]
struct Annotated {
    caption: String,
    tokens: Vec<String>,
    words: Vec<String>,
    node_words: Vec<String>,
    raw_words: Vec<String>,
    gt: Vec<String>,
    hallucinated: Option<Vec<(String, String)>>,
}

/// Every token, word, mention and verdict of the reference; its "words" are those of the mentions in the
/// singular, which our mentions show as written.
#[test]
fn annotated_captions_are_analysed_as_in_the_reference() {
    let test = "annotated_captions_are_analysed_as_in_the_reference";
    let Some(lines) = data(test, "chair/expected_captions.jsonl") else { return };
    let Some(synonyms) = data(test, "chair/synonyms.txt") else { return };
    let vocabulary = read_synonyms(&synonyms[..]).unwrap();
    let mut finder = MentionFinder::new(&vocabulary, Rules::Reference);
    let text = |tokens: Vec<reference::Token>| -> Vec<String> {
        tokens.into_iter().map(|token| token.text).collect()
    };
    let lines = String::from_utf8(lines).unwrap();
    let mut verdicts = 0;
    for line in lines.lines() {
        let annotated: Annotated = serde_json::from_str(line).unwrap();
        let caption = &annotated.caption;
        assert_eq!(text(reference::tokenize(caption)), annotated.tokens, "{caption}");
        let words = reference::words(caption);
        let mentions = finder.mentions(caption);
        let singular: Vec<&String> = mentions
            .iter()
            .map(|mention| &words.iter().find(|word| word.span == mention.span).unwrap().text)
            .collect();
        assert_eq!(singular, annotated.words.iter().collect::<Vec<_>>(), "{caption}");
        assert_eq!(text(words), annotated.raw_words, "{caption}");
        let categories: Vec<&String> = mentions.iter().map(|mention| &mention.category).collect();
        assert_eq!(categories, annotated.node_words.iter().collect::<Vec<_>>(), "{caption}");
        let Some(expected) = annotated.hallucinated else { continue };
        let found: Vec<&String> =
            categories.into_iter().filter(|&category| !annotated.gt.contains(category)).collect();
        assert_eq!(found, expected.iter().map(|(_, node)| node).collect::<Vec<_>>(), "{caption}");
        verdicts += 1;
    }
    assert_eq!(lines.lines().count(), 147);
    assert!(verdicts >= 120, "{verdicts}");
}

#[test]
fn singular_forms_match_the_reference() {
    let test = "singular_forms_match_the_reference";
    let Some(table) = data(test, "chair/singular.tsv") else { return };
    let table = String::from_utf8(table).unwrap();
    let rows: Vec<(&str, &str)> = table.lines().map(|row| row.split_once('\t').unwrap()).collect();
    assert_eq!(rows.len(), 4000);
    let differing: Vec<_> = rows
        .into_iter()
        .filter(|(word, singular)| reference::singularize(word) != *singular)
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
}
