use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use fisao_eval::detection::{RiskCoverage, Sweep, average_precision, roc_auc};
use fisao_eval::localization::{
    Broken, LabelOptions, Labels, LocalizationError, LocalizationOptions, LocalizationReport,
    Measures, Offsets, Orientation, PairedTextsBy, Predictions, Problem, SpanMatches, Tokenization,
    Unmatched, evaluate, read_labels, read_predictions,
};
use fisao_eval::statistics::Bootstrap;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Sums of some hundred numbers of size 1, in another order than numpy's.
const ROUNDING: f64 = 1e-12;

const NO_INTERVALS: Bootstrap = Bootstrap { resamples: 0, seed: 0 };

fn lines(rows: &[Value]) -> String {
    rows.iter().flat_map(|row| [row.to_string(), "\n".to_owned()]).collect()
}

fn labels(rows: &[Value]) -> Labels {
    let options = LabelOptions { with_tokens: true, ..LabelOptions::default() };
    read_labels(lines(rows).as_bytes(), &options).unwrap()
}

fn predictions(rows: &[Value]) -> Predictions {
    read_predictions(lines(rows).as_bytes(), &LabelOptions::default()).unwrap()
}

/// What is said of labels that cannot be read.
fn refused(row: &Value) -> String {
    let rows = [json!({ "text": "fine", "spans": [] }), row.clone()];
    read_labels(lines(&rows).as_bytes(), &LabelOptions::default()).unwrap_err().to_string()
}

fn compare(labels: &[Value], predicted: &[Value]) -> LocalizationReport {
    compare_with(
        labels,
        predicted,
        &LocalizationOptions { bootstrap: NO_INTERVALS, ..Default::default() },
    )
}

fn compare_with(
    labels_rows: &[Value],
    predicted: &[Value],
    options: &LocalizationOptions,
) -> LocalizationReport {
    evaluate(&labels(labels_rows), &predictions(predicted), options).unwrap()
}

/// Type and words of every labelled span of the first text.
fn marked(labels: &Labels) -> Vec<(&str, &str)> {
    let text = &labels.texts[0];
    let of = |span: &fisao_eval::localization::LabelSpan| {
        (labels.types[span.kind].as_str(), &text.text[span.bytes.clone()])
    };
    text.spans.iter().map(of).collect()
}

#[track_caller]
fn assert_measures(found: &Measures, expected: &Value) {
    for (name, expected) in expected.as_object().unwrap() {
        let found = found.value(name).unwrap_or_else(|| panic!("{name} is undefined"));
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() < ROUNDING, "{name}: {found} is not {expected}");
    }
}

#[test]
fn measures_match_scikit_learn() {
    let folder = [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "localization"];
    let path = folder.iter().collect::<PathBuf>().join("expected.json");
    let expected: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let rows = |name: &str| case[name].as_array().unwrap().clone();
        let has_verdicts = case["predictions"].to_string().contains("hallucinated");
        let threshold = case["threshold"].as_f64().filter(|_| !has_verdicts);
        let options =
            LocalizationOptions { threshold, bootstrap: NO_INTERVALS, ..Default::default() };
        let report = compare_with(&rows("labels"), &rows("predictions"), &options);
        assert_measures(&report.token_measures, &case["tokens"]);
        assert_measures(&report.span_measures, &case["spans"]);
        assert_measures(&report.over_types, &case["macro"]);
        for of in &report.types {
            assert_measures(&of.measures, &case["types"][&of.name]);
        }
        assert_eq!((report.types.len(), report.paired_by), (3, PairedTextsBy::Id));
        let best = report.best_threshold.unwrap();
        assert!((best.f1 - case["tokens"]["best_f1"].as_f64().unwrap()).abs() < ROUNDING);
    }
}

#[test]
fn halloc_layout_is_read() {
    let row = json!({
        "id": "caption_1", "image_id": 2_377_504, "prompt": "<image>Describe the image.",
        "hallucinated_text": "Ein Café: two red bags on a table in the rain",
        "source_text": "", "source_metadata": {}, "qa_ids": [],
        "tokenized_text": ["ein", "caf", "##é", ":", "two", "red", "bags", "on", "a", "table", "in", "the", "rain"],
        "annotations": {
            "scene": [{ "scene": { "name": "rain", "char_index": "41:45", "token_index": "12" } }],
            "object": [],
            "attribute": [{ "attr": { "name": "red", "char_index": "14:17" }, "obj": { "name": "Bags", "char_index": "18:22" } }],
            "relation": [{ "subject": null, "relation": { "name": "on", "char_index": "23:25" }, "object": { "name": "a", "char_index": "26" } }],
        },
    });
    for text in [json!([row]).to_string(), row.to_string()] {
        let labels = read_labels(
            text.as_bytes(),
            &LabelOptions { with_tokens: true, ..LabelOptions::default() },
        )
        .unwrap();
        assert_eq!(labels.types, ["object", "attribute", "relationship", "scene"]);
        let mut found = marked(&labels);
        found.sort_unstable();
        let expected = [
            ("attribute", "bags"),
            ("attribute", "red"),
            ("relationship", "a"),
            ("relationship", "on"),
            ("scene", "rain"),
        ];
        assert_eq!(found, expected);
        let first = &labels.texts[0];
        assert_eq!(
            (first.id.as_deref(), first.image.as_deref()),
            (Some("caption_1"), Some("2377504"))
        );
        let tokens: Vec<&str> =
            first.tokens.iter().flatten().map(|at| &first.text[at.clone()]).collect();
        assert_eq!(&tokens[..4], ["Ein", "Caf", "é", ":"]);
        assert_eq!(tokens.len(), 13);
    }
}

#[test]
fn halloc_labels_that_do_not_fit_are_named() {
    let row =
        |annotations: Value| json!({ "hallucinated_text": "A dog.", "annotations": annotations });
    let part = |name: &str, index: Value| {
        row(json!({ "object": [{ "obj": { "name": name, "char_index": index } }] }))
    };
    for (row, expected) in [
        (
            row(json!({ "color": [] })),
            "line 2: HalLoc has no type 'color'; its types are object, attribute",
        ),
        (row(json!({ "object": [3] })), "line 2: type 'object' does not hold annotations"),
        (
            part("dog", json!("2:99")),
            "line 2: char_index '2:99' of 'dog' is outside the text of 6 characters",
        ),
        (
            part("dog", json!("5:2")),
            "line 2: char_index '5:2' of 'dog' is outside the text of 6 characters",
        ),
        (part("cat", json!("2:5")), "line 2: offsets of 'cat' cover 'dog'"),
        (
            part("dog", json!("two")),
            "line 2: char_index 'two' of type 'object' is not \"start:end\"",
        ),
        (part("dog", json!("0:18446744073709551615")), "line 2: char_index"),
        (part("dog", json!("18446744073709551615")), "line 2: char_index"),
    ] {
        let said = refused(&row);
        assert!(said.starts_with(expected), "{said}");
    }
    let found = labels(&[part("dog", Value::Null)]);
    assert_eq!(
        marked(&found),
        [("object", "dog")],
        "without an index, by the one place of the name"
    );
}

#[test]
fn layouts_of_other_datasets_are_read() {
    let ragtruth = json!({
        "id": "1472", "model": "m", "response": "Gaza Strip and the West Bank",
        "labels": [{ "start": 0, "end": 10, "text": "Gaza Strip", "meta": "HIGH", "label_type": "Evident Baseless Info" }],
    });
    assert_eq!(marked(&labels(&[ragtruth])), [("evident baseless info", "Gaza Strip")]);

    let m_hal_detect = json!({
        "image_id": 42, "question": "Describe it.", "response": "A dog. Two cats. It may rain. Who knows.",
        "annotations": [
            { "start": 0, "end": 6, "text": "A dog.", "label": "ACCURATE" },
            { "start": 7, "end": 16, "text": "Two cats.", "label": "INACCURATE" },
            { "start": 17, "end": 29, "text": "It may rain.", "label": "ANALYSIS" },
            { "start": 30, "end": 40, "text": "Who knows.", "label": "UNSURE" },
        ],
    });
    let found = labels(&[m_hal_detect]);
    assert_eq!(marked(&found), [("inaccurate", "Two cats.")]);
    assert_eq!(found.texts[0].ignored, vec![Range { start: 30, end: 40 }]);

    let mu_shroom = json!({ "id": "val-en-1", "model_output_text": "Petra won silver", "hard_labels": [[10, 16]], "soft_labels": [{ "start": 10, "end": 16, "prob": 0.9 }] });
    assert_eq!(marked(&labels(std::slice::from_ref(&mu_shroom))), [("hallucination", "silver")]);
    let said =
        read_predictions(mu_shroom.to_string().as_bytes(), &LabelOptions::default()).unwrap();
    assert_eq!((said.texts[0].spans[0].score, said.texts[0].spans[0].verdict), (0.9, None));
}

#[test]
fn spans_and_tokens_are_read_in_all_their_forms() {
    let text = "Ein Café: zwei Hunde";
    let expected = [("hallucination", "zwei")];
    for spans in [
        json!([[10, 14]]),
        json!([{ "start": 10, "end": 15.0 }]),
        json!([{ "text": "zwei" }]),
        json!([[10, 14, "hallucination"]]),
    ] {
        assert_eq!(marked(&labels(&[json!({ "caption": text, "spans": spans })])), expected);
    }
    let bytes = LabelOptions { offsets: Offsets::Bytes, ..LabelOptions::default() };
    let row = json!({ "caption": text, "spans": [[11, 15]] }).to_string();
    assert_eq!(marked(&read_labels(row.as_bytes(), &bytes).unwrap()), expected);

    let tokens = ["Ein", "Café", ":", "zwei", "Hunde"];
    for (values, expected) in [
        (json!([0, 0, 0, 1, 1]), vec![("hallucination", "zwei Hunde")]),
        (
            json!([false, true, false, true, false]),
            vec![("hallucination", "Café"), ("hallucination", "zwei")],
        ),
        (
            json!(["O", "B-object", "O", "B-Attribute", "B-Attribute"]),
            vec![("object", "Café"), ("attribute", "zwei"), ("attribute", "Hunde")],
        ),
        (
            json!(["O", "object", "O", "B-object", "I-object"]),
            vec![("object", "Café"), ("object", "zwei Hunde")],
        ),
        (json!(["B", "I", "I", "O", "O"]), vec![("hallucination", "Ein Café:")]),
    ] {
        let row = json!({ "text": text, "tokens": tokens, "labels": values });
        assert_eq!(marked(&labels(&[row])), expected, "{values}");
    }
    let without_text = labels(&[json!({ "tokens": tokens, "tags": [0, 0, 0, 0, 1] })]);
    assert_eq!(without_text.texts[0].text, "Ein Café : zwei Hunde");
    assert_eq!(marked(&without_text), [("hallucination", "Hunde")]);
}

#[test]
fn broken_label_files_are_refused_with_their_line() {
    for (row, expected) in [
        (json!({ "spans": [] }), "line 2: no text; it is looked for in \"hallucinated_text\""),
        (json!({ "text": "A dog" }), "line 2: no labels; they are looked for in \"spans\""),
        (json!({ "text": 3, "spans": [] }), "line 2: \"text\" holds no text"),
        (
            json!({ "text": "A dog", "spans": [[2, 6]] }),
            "line 2: span 2 to 6 is outside the text of 5 characters",
        ),
        (json!({ "text": "A dog", "spans": [[4, 2]] }), "line 2: span 4 to 2 is outside"),
        (json!({ "text": "A dog", "spans": [[-1, 2]] }), "line 2: span -1 to 2 is outside"),
        (json!({ "text": "A dog", "spans": [[1, 2]] }), "line 2: span 1 to 2 covers no word"),
        (
            json!({ "text": "A dog", "spans": [{ "start": 0, "end": 1, "text": "dog" }] }),
            "line 2: offsets of 'dog' cover 'A'",
        ),
        (
            json!({ "text": "A dog", "spans": [{ "text": "cat" }] }),
            "line 2: span 'cat' does not occur",
        ),
        (
            json!({ "text": "dog, dog", "spans": [{ "text": "dog" }] }),
            "line 2: span 'dog' occurs more than once",
        ),
        (
            json!({ "text": "aaa", "spans": [{ "text": "aa" }] }),
            "line 2: span 'aa' occurs more than once",
        ),
        (
            json!({ "text": "A dog", "spans": [{ "start": 0 }] }),
            "line 2: {\"start\":0} is not a span",
        ),
        (
            json!({ "text": "A dog", "spans": [[0.5, 2]] }),
            "line 2: offset 0.5 is not a whole number",
        ),
        (
            json!({ "text": "A dog", "labels": [0, 1] }),
            "line 2: \"labels\" holds labels of tokens, but there are no \"tokens\"",
        ),
        (json!({ "tokens": ["A", "dog"], "labels": [0] }), "line 2: 2 tokens but 1 labels"),
        (
            json!({ "tokens": ["A", "dog"], "labels": [0, 2] }),
            "line 2: 2 is not a label of a token",
        ),
        (
            json!({ "text": "A dog", "tokens": ["A", "cat"], "labels": [0, 1] }),
            "line 2: token 2 'cat' is not where the text goes on with 'dog'",
        ),
        (json!({ "id": [], "text": "A", "spans": [] }), "line 2: \"id\" is []; an id is"),
    ] {
        let said = refused(&row);
        assert!(said.starts_with(expected), "{said}");
    }
    let read = |text: &str| read_labels(text.as_bytes(), &LabelOptions::default());
    let said = read("{\"text\": \"A\", \"spans\": []}\n{\"text\":").unwrap_err().to_string();
    assert!(said.starts_with("line 2, column 8: EOF"), "{said}");
    let twice = json!({ "id": 7, "text": "A", "spans": [] });
    let said = read(&lines(&[twice.clone(), twice])).unwrap_err().to_string();
    assert_eq!(said, "line 2: id '7' stands on line 1 already; keep one of the two");
    let empty = read("\n").unwrap();
    let error =
        evaluate(&empty, &Predictions::default(), &LocalizationOptions::default()).unwrap_err();
    assert_eq!(error, LocalizationError::NoLabels { skipped: 0 });
}

#[test]
fn characters_are_not_bytes() {
    let row = json!({ "text": "🐕 läuft", "spans": [{ "start": 2, "end": 7, "text": "läuft" }] });
    assert_eq!(labels(std::slice::from_ref(&row)).texts[0].spans[0].bytes, 5..11);
    let bytes = LabelOptions { offsets: Offsets::Bytes, ..LabelOptions::default() };
    let said = read_labels(row.to_string().as_bytes(), &bytes).unwrap_err().to_string();
    assert!(
        said.contains("span 2 to 7 is outside the text of 11 bytes"),
        "within a character: {said}"
    );
}

#[test]
fn texts_whose_labels_do_not_fit_are_skipped_and_counted() {
    let rows = [
        json!({ "text": "A dog", "spans": [[0, 9]] }),
        json!({ "text": "A dog", "spans": [{ "text": "cat" }] }),
        json!({ "text": "A dog", "spans": [{ "text": "cow" }] }),
        json!({ "text": "A dog", "spans": [] }),
    ];
    let options = LabelOptions { broken: Broken::Skip, ..LabelOptions::default() };
    let found = read_labels(lines(&rows).as_bytes(), &options).unwrap();
    assert_eq!((found.texts.len(), found.skipped.total()), (1, 3));
    let counts: Vec<_> = found.skipped.each().collect();
    assert_eq!(counts[0].0, Problem::OutsideText);
    assert_eq!(
        counts[1],
        (Problem::Missing, 2, "line 2: span 'cat' does not occur in the text; give offsets")
    );
    let row = json!({ "text": "A dog" }).to_string();
    assert!(
        read_labels(row.as_bytes(), &options).is_err(),
        "what is no label at all is refused all the same"
    );
}

fn verified(caption: &str, mentions: &Value) -> Value {
    json!({ "image_id": "a", "image": "x/a.png", "caption": caption, "unit": "cosine", "mentions": mentions, "hallucinated": 1 })
}

#[test]
fn predictions_of_fisao_verify_are_read() {
    let mention = json!({ "start": 4, "end": 8, "text": "Café", "category": "bar", "form": "bar", "negated": false, "score": 0.2,
                          "p_hallucinated": 0.75, "hallucinated": true });
    let negated = json!({ "start": 14, "end": 17, "text": "dog", "category": "dog", "form": "dog", "negated": true, "score": 0.0 });
    let row = verified("Ein Café, not dog", &json!([mention, negated]));
    // In characters, whatever the labels' offsets count.
    let bytes = LabelOptions { offsets: Offsets::Bytes, ..LabelOptions::default() };
    let found = read_predictions(row.to_string().as_bytes(), &bytes).unwrap();
    assert_eq!(found.orientation, Some(Orientation::Probability));
    let spans = &found.texts[0].spans;
    assert_eq!(spans.len(), 1, "a negated mention is not scored");
    assert_eq!(
        (spans[0].bytes.clone(), spans[0].score, spans[0].verdict),
        (4..9, 0.75, Some(true))
    );

    let plain = |caption: &str| {
        verified(
            caption,
            &json!([{ "start": 0, "end": 3, "text": "dog", "negated": false, "score": 0.2 }]),
        )
    };
    let found = predictions(&[plain("dog")]);
    assert_eq!(found.orientation, Some(Orientation::NegatedScore));
    assert_eq!((found.texts[0].spans[0].score, found.texts[0].spans[0].verdict), (-0.2, None));
    let mixed = lines(&[row, plain("dog")]);
    let said =
        read_predictions(mixed.as_bytes(), &LabelOptions::default()).unwrap_err().to_string();
    assert!(
        said.starts_with("line 2: scores of this row and of an earlier one are of different kinds"),
        "{said}"
    );
}

#[test]
fn predictions_that_cannot_be_read_are_refused() {
    for (row, expected) in [
        (json!({ "text": "A dog" }), "line 1: no predictions; they are looked for in \"spans\""),
        (
            json!({ "text": "A dog", "spans": [{ "start": 0, "end": 1, "score": "x" }] }),
            "line 1: score \"x\" is not a finite number; higher is more likely",
        ),
        (
            json!({ "text": "A dog", "spans": [{ "start": 0, "end": 9, "score": 1 }] }),
            "line 1: span 0 to 9 is outside",
        ),
        (
            json!({ "text": "A dog", "spans": [{ "start": 0, "end": 1, "hallucinated": "yes" }] }),
            "line 1: \"hallucinated\" is \"yes\"",
        ),
        (json!({ "text": "A dog", "scores": [1] }), "line 1: \"scores\" are those of tokens"),
        (json!({ "tokens": ["A", "dog"], "scores": [1] }), "line 1: 2 tokens but 1 scores"),
        (
            json!({ "text": "A dog", "mentions": [{ "start": 0, "end": 1 }] }),
            "line 1: a mention has neither",
        ),
    ] {
        let said = read_predictions(row.to_string().as_bytes(), &LabelOptions::default())
            .unwrap_err()
            .to_string();
        assert!(said.starts_with(expected), "{said}");
    }
    let options = LabelOptions { broken: Broken::Skip, ..LabelOptions::default() };
    let row = json!({ "text": "A dog", "spans": [[0, 9]] }).to_string();
    assert_eq!(read_predictions(row.as_bytes(), &options).unwrap().skipped.total(), 1);
}

#[test]
fn words_without_opinion_are_missed_and_counted() {
    let label = json!({ "text": "A red dog and a blue cat", "spans": [[2, 5, "attribute"], [6, 9, "object"], [21, 24, "object"]] });
    let said = json!({ "text": "A red dog and a blue cat", "spans": [
        { "start": 6, "end": 9, "score": 0.9, "hallucinated": true },
        { "start": 21, "end": 24, "score": 0.1, "hallucinated": false },
    ] });
    let report = compare(&[label], &[said]);
    let tokens = |name: &str| report.token_measures.value(name);
    assert_eq!((report.tokens, report.hallucinated, report.without_opinion), (7, 3, 5));
    assert_eq!(report.hallucinated_without_opinion, 1);
    assert_eq!((tokens("recall"), tokens("precision")), (Some(1.0 / 3.0), Some(1.0)));
    assert_eq!(tokens("without_opinion"), Some(1.0 / 3.0));
    // Of 3 × 4 pairs, "red" ties with all four clean words, the others are above them.
    assert_eq!(tokens("roc_auc"), Some((4.0 + 4.0 + 2.0) / 12.0));
    assert_eq!(tokens("roc_auc_with_opinion"), None, "both words with an opinion are hallucinated");
    assert_eq!(
        report.token_measures.get("roc_auc_with_opinion").unwrap().undefined,
        Some("tokens with an opinion are all hallucinated, or none is")
    );
    assert_eq!(tokens("best_f1"), Some(0.8), "no threshold takes what has no score");
    let kinds: Vec<_> = report
        .types
        .iter()
        .map(|of| {
            (of.name.as_str(), of.measures.value("recall"), of.measures.value("without_opinion"))
        })
        .collect();
    assert_eq!(kinds, [("attribute", Some(0.0), Some(1.0)), ("object", Some(0.5), Some(0.0))]);
    assert_eq!(report.over_types.value("recall"), Some(0.25));
    assert_eq!(report.span_measures.value("without_opinion"), Some(1.0 / 3.0));
    assert_eq!(report.per_text[0].found, Some(1));
}

#[test]
fn undefined_numbers_say_why() {
    let span = |score: f64| json!({ "text": "A dog", "spans": [{ "start": 2, "end": 5, "score": score }] });
    let clean = compare(&[json!({ "text": "A dog", "spans": [] })], &[span(0.5)]);
    for name in ["roc_auc", "average_precision", "f1", "recall", "best_f1"] {
        let of = clean.token_measures.get(name).unwrap();
        assert_eq!(
            (of.value, of.undefined),
            (None, Some("nothing is labelled as hallucinated")),
            "{name}"
        );
    }
    assert_eq!(clean.token_measures.value("aurc"), Some(0.0));
    let all = compare(&[json!({ "text": "A dog", "spans": [[0, 5]] })], &[span(0.5)]);
    assert_eq!(
        all.token_measures.get("roc_auc").unwrap().undefined,
        Some("every token is hallucinated")
    );
    assert_eq!(all.token_measures.value("average_precision"), Some(1.0));
    let f1 = all.token_measures.get("f1").unwrap();
    assert_eq!(f1.undefined, Some("the detector gives no verdicts; give a threshold"));
    assert_eq!(all.span_measures.get("exact_f1").unwrap().undefined, f1.undefined);
    assert_eq!(all.flagged_spans, None);
    let silent = compare(
        &[json!({ "text": "A dog", "spans": [[2, 5]] })],
        &[json!({ "text": "A dog", "spans": [] })],
    );
    let tokens = &silent.token_measures;
    assert_eq!(tokens.value("roc_auc"), Some(0.5), "one tie");
    assert_eq!((tokens.value("f1"), tokens.value("precision")), (Some(0.0), None));
    assert_eq!(
        tokens.get("aurc").unwrap().undefined,
        Some("the detector has no opinion on any token")
    );
    assert_eq!(
        tokens.get("best_f1").unwrap().undefined,
        Some("the detector has no opinion on any token")
    );
    let text = serde_json::to_value(&silent).unwrap();
    assert_eq!(text["token_measures"]["precision"]["value"], Value::Null);
}

#[test]
fn unsure_parts_are_left_out_of_all_measures() {
    let label =
        json!({ "text": "A dog and a cat", "spans": [[0, 5, "unsure"], [12, 15, "object"]] });
    let said = json!({ "text": "A dog and a cat", "spans": [[2, 5], [12, 15]] });
    let report = compare(&[label], &[said]);
    assert_eq!((report.tokens, report.ignored), (3, 2));
    assert_eq!(
        (report.token_measures.value("precision"), report.span_measures.value("exact_precision")),
        (Some(1.0), Some(1.0))
    );
}

#[test]
fn threshold_replaces_verdicts() {
    let label = json!({ "text": "A dog", "spans": [[2, 5]] });
    let said = json!({ "text": "A dog", "spans": [{ "start": 2, "end": 5, "score": 0.4, "hallucinated": false }] });
    assert_eq!(
        compare(std::slice::from_ref(&label), std::slice::from_ref(&said))
            .token_measures
            .value("recall"),
        Some(0.0)
    );
    let options =
        LocalizationOptions { threshold: Some(0.4), bootstrap: NO_INTERVALS, ..Default::default() };
    let report = compare_with(&[label], &[said], &options);
    assert_eq!(
        (report.token_measures.value("recall"), report.span_measures.value("exact_f1")),
        (Some(1.0), Some(1.0))
    );
}

#[test]
fn flagged_neighbours_among_tokens_are_one_span() {
    let label = json!({ "text": "two traffic lights", "spans": [[4, 18]] });
    let said = json!({ "tokens": ["two", "traffic", "lights"], "scores": [0.1, 0.8, 0.9], "text": "two traffic lights" });
    let options =
        LocalizationOptions { threshold: Some(0.5), bootstrap: NO_INTERVALS, ..Default::default() };
    let report = compare_with(&[label], &[said], &options);
    assert_eq!(
        (report.flagged_spans, report.span_measures.value("exact_f1")),
        (Some(1), Some(1.0))
    );
}

#[test]
fn tokens_of_the_labels_are_used_where_wanted() {
    let label =
        json!({ "text": "A dog.", "tokens": ["A", "do", "##g", "."], "labels": [0, 1, 1, 0] });
    let said = json!({ "text": "A dog.", "spans": [[2, 5]] });
    let options = LocalizationOptions {
        tokenization: Tokenization::Labels,
        bootstrap: NO_INTERVALS,
        ..Default::default()
    };
    assert_eq!(compare(std::slice::from_ref(&label), std::slice::from_ref(&said)).tokens, 2);
    let report = compare_with(&[label], std::slice::from_ref(&said), &options);
    assert_eq!((report.tokens, report.hallucinated), (4, 2));
    let error = evaluate(
        &labels(&[json!({ "id": 5, "text": "A dog.", "spans": [] })]),
        &predictions(&[said]),
        &options,
    )
    .unwrap_err();
    assert_eq!(error, LocalizationError::NoTokens { text: "5".to_owned() });
}

#[test]
fn texts_are_paired_by_id_or_by_image_and_text() {
    let spans = json!([]);
    let row = |id: Option<u32>, image: &str, text: &str| json!({ "id": id, "image": image, "text": text, "spans": spans });
    let by_id = compare(
        &[row(Some(1), "a", "yes"), row(Some(2), "a", "no")],
        &[row(Some(2), "b", "no"), row(Some(1), "b", "yes")],
    );
    assert_eq!((by_id.texts, by_id.images, by_id.paired_by), (2, 1, PairedTextsBy::Id));
    // An image is found by any of its names; equal texts of an image go with each other in order.
    let labels_rows = [
        row(Some(1), "COCO_val2014_000000000042.jpg", "yes"),
        row(Some(2), "COCO_val2014_000000000042.jpg", "yes"),
    ];
    let by_image = compare(&labels_rows, &[row(None, "42", "yes"), row(None, "42", "yes")]);
    assert_eq!((by_image.texts, by_image.paired_by), (2, PairedTextsBy::ImageAndText));

    let options = LocalizationOptions::default();
    let said = |predicted: &[Value], options: &LocalizationOptions| {
        evaluate(&labels(&labels_rows), &predictions(predicted), options).unwrap_err().to_string()
    };
    let (other, unknown) = (row(None, "42", "Yes."), row(None, "43", "yes"));
    let text = said(&[other.clone(), unknown.clone(), row(None, "42", "yes")], &options);
    assert_eq!(
        text,
        "1 labelled texts have no prediction, 1 predictions are of images or ids without labels, 1 of other texts, \
         first 42: 'Yes.'; --skip-unmatched leaves them out and counts them"
    );
    let skip = LocalizationOptions { skip_unmatched: true, bootstrap: NO_INTERVALS, ..options };
    let report =
        compare_with(&labels_rows, &[other.clone(), unknown, row(None, "42", "yes")], &skip);
    let unmatched = Unmatched { without_prediction: 1, unknown: 1, other_text: 1 };
    assert_eq!((report.texts, report.unmatched), (1, unmatched));
    assert!(said(&[other], &skip).starts_with("no labelled text has a prediction"));
    let repeated = vec![row(None, "42", "yes"); 3];
    assert!(
        said(&repeated, &skip)
            .starts_with("there are more predictions than labels for the text 'yes' of image '42'")
    );
    let twice = lines(&[row(Some(1), "a", "x"), row(Some(1), "a", "y")]);
    assert!(read_predictions(twice.as_bytes(), &LabelOptions::default()).is_err());
}

#[test]
fn intervals_are_drawn_over_images() {
    let text = "one two three four";
    let row = |image: usize, wrong: bool| json!({ "image": image, "text": text, "spans": if wrong { json!([[0, 3]]) } else { json!([]) } });
    let said = |image: usize, score: f64| json!({ "image": image, "text": text, "spans": [{ "start": 0, "end": 3, "score": score }] });
    let labels_rows: Vec<Value> = (0..40).map(|image| row(image, image % 2 == 0)).collect();
    let predicted: Vec<Value> = (0..40)
        .map(|image| {
            said(image, if image % 2 == 0 { (image % 7) as f64 } else { (image % 5) as f64 })
        })
        .collect();
    let options = LocalizationOptions { threshold: Some(3.0), ..Default::default() };
    let report = compare_with(&labels_rows, &predicted, &options);
    for name in ["roc_auc", "average_precision", "f1", "best_f1", "aurc", "recall"] {
        let of = report.token_measures.get(name).unwrap();
        let (value, interval) = (of.value.unwrap(), of.interval.unwrap());
        assert!(
            interval.low < value && value <= interval.high && interval.low < interval.high,
            "{name}: {of:?}"
        );
    }
    assert_eq!(compare_with(&labels_rows, &predicted, &options), report, "the same draws again");
    // All texts of one image: one draw, which is the same always.
    let one: Vec<Value> = labels_rows.iter().map(|_| row(7, true)).collect();
    let one_said: Vec<Value> = predicted.iter().map(|_| said(7, 1.0)).collect();
    let interval = compare_with(&one, &one_said, &options)
        .token_measures
        .get("roc_auc")
        .unwrap()
        .interval
        .unwrap();
    assert!((interval.high - interval.low).abs() < ROUNDING);
}

fn items() -> impl Strategy<Value = Vec<(f64, bool)>> {
    let score = prop_oneof![5 => (-4_i32..5).prop_map(f64::from), 1 => Just(f64::NEG_INFINITY)];
    prop::collection::vec((score, any::<bool>()), 1..40)
}

fn spans() -> impl Strategy<Value = Vec<Range<usize>>> {
    prop::collection::vec(
        (0_usize..20, 1_usize..6).prop_map(|(start, length)| start..(start + length).min(21)),
        0..6,
    )
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < ROUNDING,
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn sweep_equals_measures_of_lists(items in items()) {
        let sweep = Sweep::of(items.iter().copied());
        let of = |label: bool| -> Vec<f64> { items.iter().filter(|item| item.1 == label).map(|item| item.0).collect() };
        prop_assert!(close(sweep.roc_auc(), roc_auc(&of(true), &of(false))));
        prop_assert!(close(sweep.average_precision(), average_precision(&of(true), &of(false))));
        let kept: Vec<(f64, bool)> = items.iter().filter(|item| item.0.is_finite()).map(|&(score, wrong)| (-score, !wrong)).collect();
        prop_assert_eq!(sweep.risk_coverage(), RiskCoverage::of(&kept));
        prop_assert_eq!(Sweep::of_steps(sweep.steps().iter().copied()), sweep);
    }

    #[test]
    fn auc_is_invariant_under_monotone_maps_and_reversed_by_swapped_labels(items in items()) {
        let auc = Sweep::of(items.iter().copied()).roc_auc();
        let mapped = Sweep::of(items.iter().map(|&(score, label)| (score.exp() * 3.0 - 1.0, label)));
        prop_assert!(close(mapped.roc_auc(), auc));
        let swapped = Sweep::of(items.iter().map(|&(score, label)| (score, !label)));
        prop_assert!(close(swapped.roc_auc(), auc.map(|auc| 1.0 - auc)));
    }

    #[test]
    fn best_f1_is_reached_and_not_exceeded(items in items(), threshold in -5.0_f64..6.0) {
        let best = Sweep::of(items.iter().copied()).best_f1();
        let f1 = |threshold: f64| {
            let count = |said: bool, is: bool| items.iter().filter(|item| (item.0 >= threshold) == said && item.1 == is).count() as f64;
            2.0 * count(true, true) / (2.0 * count(true, true) + count(true, false) + count(false, true))
        };
        if let Some(best) = best {
            prop_assert!((f1(best.threshold) - best.f1).abs() < ROUNDING);
            prop_assert!(best.f1 >= f1(threshold) - ROUNDING);
            let harmonic = 2.0 * best.precision * best.recall / (best.precision + best.recall).max(1e-300);
            prop_assert!((harmonic - best.f1).abs() < ROUNDING);
        } else {
            prop_assert!(items.iter().all(|item| !item.1) || items.iter().all(|item| item.0.is_infinite()));
        }
    }

    #[test]
    fn overlap_is_never_below_exact_and_matching_is_symmetric(predicted in spans(), labelled in spans()) {
        let text = "abcdefghijklmnopqrstu";
        let matches = SpanMatches::of(text, &predicted, &labelled);
        let ([p, r, f1], [exact_p, exact_r, exact_f1]) = (matches.overlap(), matches.exact());
        prop_assert!(p >= exact_p && r >= exact_r && f1 >= exact_f1);
        let swapped = SpanMatches::of(text, &labelled, &predicted);
        prop_assert_eq!(swapped.overlap(), [r, p, f1]);
        prop_assert_eq!(swapped.characters()[2], matches.characters()[2]);
        let doubled = SpanMatches::of(text, &[&predicted[..], &predicted].concat(), &labelled);
        prop_assert_eq!(doubled, matches, "a span that is said twice counts once");
    }
}
