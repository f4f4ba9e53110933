use std::collections::BTreeSet;

use fisao_eval::chair::{ChairError, ChairInput, GroundTruth, ObjectVocabulary, evaluate};

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

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

/// Four captions counted by hand: 7 mentions of which 3 are hallucinated (the cat twice, the fork
/// once), 2 captions of 4 hallucinate, 4 of 6 ground-truth categories are named, 19 words.
#[test]
fn rates_match_a_count_by_hand() {
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
    let report = evaluate(&captions, &truth, &vocabulary()).unwrap();
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
    assert_eq!(report.per_image[2].missed, BTreeSet::from(["cat".to_owned()]));
}

#[test]
fn rates_over_nothing_are_zero() {
    let report =
        evaluate(&captions(&[("a", "a field")]), &truth(&[("a", &[])]), &vocabulary()).unwrap();
    assert_eq!((report.chair_i, report.chair_s, report.recall), (0.0, 0.0, 0.0));
    assert_eq!(evaluate(&[], &truth(&[]), &vocabulary()), Err(ChairError::NoCaptions));
}

#[test]
fn an_image_without_ground_truth_is_named() {
    let error =
        evaluate(&captions(&[("lost.png", "a dog")]), &truth(&[]), &vocabulary()).unwrap_err();
    assert_eq!(error, ChairError::MissingGroundTruth { image_id: "lost.png".into() });
    assert!(error.to_string().contains("'lost.png'"));
}

#[test]
fn ground_truth_in_foreign_names_is_refused() {
    let error = evaluate(&captions(&[("a", "a dog")]), &truth(&[("a", &["puppy"])]), &vocabulary());
    assert_eq!(
        error,
        Err(ChairError::UnknownCategory { image_id: "a".into(), category: "puppy".into() })
    );
}

#[test]
fn order_of_captions_changes_no_rate() {
    let mut rows = captions(&[("a", "dog"), ("b", "cat"), ("a", "a car and a dog")]);
    let truth = truth(&[("a", &["dog"]), ("b", &["cat"])]);
    let forward = evaluate(&rows, &truth, &vocabulary()).unwrap();
    rows.reverse();
    let backward = evaluate(&rows, &truth, &vocabulary()).unwrap();
    close(forward.chair_i, backward.chair_i);
    close(forward.chair_s, 1.0 / 3.0);
    close(backward.chair_s, 1.0 / 3.0);
}

#[test]
fn the_report_survives_json() {
    let report =
        evaluate(&captions(&[("a", "a dög and a dog")]), &truth(&[("a", &[])]), &vocabulary())
            .unwrap();
    let json = serde_json::to_string(&report).unwrap();
    let back = serde_json::from_str(&json).unwrap();
    assert_eq!(report, back);
}
