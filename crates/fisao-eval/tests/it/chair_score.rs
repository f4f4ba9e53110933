use std::collections::BTreeSet;

use fisao_eval::chair::{
    ChairError, ChairInput, ChairOptions, ChairReport, GroundTruth, MatchedIds, MissingGroundTruth,
    ObjectVocabulary, Rules, evaluate,
};

fn vocabulary() -> ObjectVocabulary {
    let names = ["dog", "cat", "car", "pizza", "fork"];
    ObjectVocabulary::new(names.iter().map(|name| ((*name).to_owned(), vec![])).collect()).unwrap()
}

fn truth(rows: &[(&str, &[&str])]) -> GroundTruth {
    rows.iter()
        .map(|(id, objects)| {
            ((*id).to_owned(), objects.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
        })
        .collect()
}

fn captions(rows: &[(&str, &str)]) -> Vec<ChairInput> {
    rows.iter()
        .map(|(id, caption)| ChairInput {
            image_id: (*id).to_owned(),
            caption: (*caption).to_owned(),
        })
        .collect()
}

fn score(captions: &[ChairInput], truth: &GroundTruth) -> Result<ChairReport, ChairError> {
    evaluate(captions.to_vec(), truth, &vocabulary(), &ChairOptions::default())
}

fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a rate over something");
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

/// Four captions counted by hand: 7 mentions of which 3 are hallucinated (the cat twice, the fork
/// once), 2 captions of 4 hallucinate, 4 of 6 ground-truth categories are named, 19 words.
#[test]
fn chair_rates_match_a_hand_count() {
    let captions = captions(&[
        ("a", "A dog, a cat and another cat."),
        ("b", "A pizza with a fork on it"),
        ("c", "Two cars near a dog"),
        ("d", ""),
    ]);
    let truth = truth(&[
        ("a", &["dog"]),
        ("b", &["pizza", "dog"]),
        ("c", &["car", "dog", "cat"]),
        ("d", &[]),
        ("never captioned", &["spaceship"]),
    ]);
    let report = score(&captions, &truth).unwrap();
    assert_eq!((report.mentions, report.hallucinated, report.captions), (7, 3, 4));
    assert_eq!((report.recalled, report.ground_truth), (4, 6));
    assert_eq!(report.captions_with_hallucination, 2);
    close(report.chair_i, 3.0 / 7.0);
    close(report.chair_s, 0.5);
    close(report.recall, 4.0 / 6.0);
    close(report.mean_length_words, 19.0 / 4.0);

    let first = &report.per_image[0];
    let verdicts: Vec<_> =
        first.mentions.iter().map(|m| (m.text.as_str(), m.start, m.hallucinated)).collect();
    assert_eq!(verdicts, [("dog", 2, false), ("cat", 9, true), ("cat", 25, true)]);
    assert_eq!(report.per_image[2].missed, ["cat".to_owned()]);
}

#[test]
fn rates_without_mentions_or_captions_are_none() {
    let report = score(&captions(&[("a", "a field")]), &truth(&[("a", &[])])).unwrap();
    assert_eq!((report.chair_i, report.recall), (None, None));
    close(report.chair_s, 0.0);
    assert_eq!(score(&[], &truth(&[])), Err(ChairError::NoCaptions));
    let skipping = ChairOptions { missing: MissingGroundTruth::Skip, ..ChairOptions::default() };
    let report =
        evaluate(captions(&[("a", "a dog")]), &truth(&[]), &vocabulary(), &skipping).unwrap();
    assert_eq!((report.chair_s, report.mean_length_words), (None, None));
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["chair_s"].is_null(), "{json}");
}

#[test]
fn captions_without_ground_truth_are_rejected_or_skipped() {
    let captions = captions(&[
        ("x.png", "a dog"),
        ("lost.png", "a dog"),
        ("y.png", ""),
        ("lost.png", "a cat"),
    ]);
    let truth = truth(&[("x.png", &["cat"]), ("y.png", &[])]);
    let error = score(&captions, &truth).unwrap_err();
    let image_id = "lost.png".to_owned();
    assert_eq!(error, ChairError::MissingGroundTruth { image_id, count: 2, captions: 4 });
    assert!(
        error
            .to_string()
            .starts_with("2 of 4 captions describe images without ground truth, first 'lost.png'")
    );
    let skipping = ChairOptions { missing: MissingGroundTruth::Skip, ..ChairOptions::default() };
    let report = evaluate(captions, &truth, &vocabulary(), &skipping).unwrap();
    assert_eq!((report.captions, report.captions_without_ground_truth), (2, 2));
    close(report.chair_s, 0.5);
}

#[test]
fn repeated_empty_and_inexactly_matched_captions_are_counted() {
    let captions = captions(&[
        ("COCO_val2014_000000000007.jpg", "a dog"),
        ("7", " "),
        ("000000000007", "a field"),
        ("b.jpg", "a cat"),
        ("b.png", "a cat"),
    ]);
    let report = score(&captions, &truth(&[("7", &["dog"]), ("b.png", &["cat"])])).unwrap();
    assert_eq!(report.matched, MatchedIds { exactly: 2, by_number: 2, by_file_name: 1 });
    assert_eq!((report.repeated_captions, report.empty_captions), (3, 1));
    assert_eq!(report.captions_without_object, 2);
    // sha256 of "7\nb.png\n".
    assert_eq!(
        report.image_ids_sha256,
        "51e781a669f96348a687bf99cc71639b17199d14f3b8d70c105c3a82a0c35a62"
    );
}

#[test]
fn spans_are_given_in_bytes_and_in_characters() {
    let captions = captions(&[("a", "İé🐶 — \"Dogs\" and CATS")]);
    for rules in [Rules::Strict, Rules::Reference] {
        let options = ChairOptions { rules, ..ChairOptions::default() };
        let report =
            evaluate(captions.clone(), &truth(&[("a", &["dog"])]), &vocabulary(), &options);
        let report = report.unwrap();
        assert_eq!(report.rules, rules);
        let mentions: Vec<_> = report.per_image[0]
            .mentions
            .iter()
            .map(|m| (m.text.as_str(), m.start, m.end, m.char_start, m.char_end))
            .collect();
        assert_eq!(mentions, [("Dogs", 14, 18, 7, 11), ("CATS", 24, 28, 17, 21)], "{rules:?}");
    }
}

#[test]
fn many_captions_keep_their_order() {
    let rows: Vec<ChairInput> = (0..5000)
        .map(|at| ChairInput { image_id: "a".into(), caption: format!("{at} dogs") })
        .collect();
    let report = score(&rows, &truth(&[("a", &["dog"])])).unwrap();
    assert!(report.per_image.iter().zip(&rows).all(|(judged, row)| judged.caption == row.caption));
    assert_eq!((report.mentions, report.hallucinated), (5000, 0));
}

#[test]
fn ground_truth_outside_the_vocabulary_is_rejected() {
    let error = score(&captions(&[("a", "a dog")]), &truth(&[("a", &["puppy"])]));
    assert_eq!(
        error,
        Err(ChairError::UnknownCategory { image_id: "a".into(), category: "puppy".into() })
    );
}

#[test]
fn rates_do_not_depend_on_caption_order() {
    let mut rows = captions(&[("a", "dog"), ("b", "cat"), ("a", "a car and a dog")]);
    let truth = truth(&[("a", &["dog"]), ("b", &["cat"])]);
    let forward = score(&rows, &truth).unwrap();
    rows.reverse();
    let backward = score(&rows, &truth).unwrap();
    assert_eq!(forward.chair_i, backward.chair_i);
    assert_eq!(forward.image_ids_sha256, backward.image_ids_sha256);
    close(forward.chair_s, 1.0 / 3.0);
    close(backward.chair_s, 1.0 / 3.0);
}

#[test]
fn report_round_trips_through_json() {
    let report = score(&captions(&[("a", "a dög and a dog")]), &truth(&[("a", &[])])).unwrap();
    let json = serde_json::to_string(&report).unwrap();
    let back: ChairReport = serde_json::from_str(&json).unwrap();
    // The counts that sums are made of stay behind.
    assert_eq!(ChairReport { counts: Vec::new(), ..report }, back);
}

#[test]
fn rates_are_the_same_without_verdicts() {
    let captions = captions(&[("a", "a dog and a cat"), ("b", ""), ("a", "two dogs")]);
    let truth = truth(&[("a", &["dog", "car"]), ("b", &["cat"])]);
    let all = score(&captions, &truth).unwrap();
    let options = ChairOptions { verdicts: false, ..ChairOptions::default() };
    let bare = evaluate(captions, &truth, &vocabulary(), &options).unwrap();
    assert!(bare.per_image.is_empty());
    assert_eq!(bare.counts, all.counts);
    assert_eq!(ChairReport { per_image: all.per_image.clone(), ..bare }, all);
}
