#![expect(clippy::float_cmp, reason = "rounded to one decimal, numbers are equal or not")]

use fisao_eval::amber::{
    AmberData, Kind, Named, Plurals, evaluate, prompt, read_annotations, read_associations,
    read_queries, read_safe_words, read_starts,
};
use fisao_eval::answers::{Answer, QuestionId};

use crate::parity;

const ANNOTATIONS: &str = r#"[
    {"id": 1, "type": "generative", "truth": ["tree", "path", "dog", "dog"], "hallu": ["cat"]},
    {"id": 2, "type": "generative", "truth": ["cat"], "hallu": ["dog", "tree"]},
    {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 4, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 5, "type": "discriminative-attribute-state", "truth": "no"},
    {"id": 6, "type": "discriminative-attribute-number", "truth": "no"},
    {"id": 7, "type": "discriminative-attribute-action", "truth": "yes"},
    {"id": 8, "type": "discriminative-relation", "truth": "yes"},
    {"id": 9, "type": "relation", "truth": "no"}
]"#;

const ASSOCIATIONS: &str = r#"{"tree": ["path", "bush"], "path": [], "dog": ["puppy"], "cat": [],
                              "light": []}"#;

fn data() -> AmberData {
    AmberData {
        annotations: read_annotations(ANNOTATIONS.as_bytes()).unwrap(),
        associations: read_associations(ASSOCIATIONS.as_bytes()).unwrap(),
        safe_words: read_safe_words("light\n\n".as_bytes()).unwrap(),
        starts: read_starts("qa_correct_num=0.001\n\nqa_correct_score=0\n".as_bytes()).unwrap(),
    }
}

fn responses(rows: &[(u64, &str)]) -> Vec<Answer> {
    let row = |&(id, text): &(u64, &str)| Answer {
        question_id: Some(QuestionId(id.to_string())),
        text: text.to_owned(),
    };
    rows.iter().map(row).collect()
}

fn close(found: Option<f64>, expected: f64) {
    assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} is not {expected}");
}

/// The first description names a path, which by the official order counts as the tree it is associated with,
/// two of the puppies, a cat that was to be expected, and a light, which is never wrong.
#[test]
fn generative_scores_match_a_hand_count() {
    let rows = [(1, "A path with puppies: one puppy, a cat and a light."), (2, "The cat.")];
    let report = evaluate(&data(), &responses(&rows), Plurals::Official).unwrap().generative;
    assert_eq!((report.nouns, report.hallucinated, report.descriptions), (6, 1, 2));
    close(report.chair, 1.0 / 6.0);
    close(report.cover, 3.0 / 5.0);
    close(report.hal, 1.0 / 2.0);
    close(report.cog, 1.0 / 3.0);
    let first = &report.per_description[0];
    assert_eq!(first.covered, ["tree", "dog"]);
    assert_eq!(first.likely_named, ["cat"]);
    let named: Vec<_> = first.nouns.iter().map(|noun| (noun.word.as_str(), noun.named)).collect();
    let expected = [
        ("path", Named::There),
        ("puppy", Named::There),
        ("puppy", Named::There),
        ("cat", Named::LikelyHallucination),
        ("light", Named::Safe),
    ];
    assert_eq!(named, expected);
    let official = report.official.unwrap();
    // 1 / 6.001, 3 / 5.001, 100 − 1 / 2.001, 1 / 3.001 in per cent
    assert_eq!((official.chair, official.cover), (16.7, 60.0));
    assert_eq!((official.hal, official.cog), (50.0, 33.3));

    let rows = [(2, "a bush")];
    let report = evaluate(&data(), &responses(&rows), Plurals::Official).unwrap().generative;
    assert_eq!(report.per_description[0].nouns[0].named, Named::LikelyHallucination);
    let rows = [(2, "a LIGHT Path")];
    let report = evaluate(&data(), &responses(&rows), Plurals::Official).unwrap().generative;
    assert_eq!((report.nouns, report.chair, report.cover), (0, None, Some(0.0)));
    let report = evaluate(&data(), &responses(&rows), Plurals::All).unwrap().generative;
    assert_eq!((report.nouns, report.chair), (2, Some(0.5)));
}

#[test]
fn discriminative_scores_take_no_as_the_positive_answer() {
    let rows = [(3, "No"), (4, "No"), (5, "Yes"), (6, "no"), (7, "Yes"), (8, "Yes"), (9, "No")];
    let report = evaluate(&data(), &responses(&rows), Plurals::Official).unwrap();
    assert_eq!(report.unanswered, 2);
    let answers = report.discriminative;
    // Right: 3, 7, 8, 9. "No" is said three times, right twice, and is true four times.
    close(answers.all.accuracy, 4.0 / 7.0);
    close(answers.all.precision, 2.0 / 3.0);
    close(answers.all.recall, 2.0 / 4.0);
    close(answers.all.f1, 4.0 / 7.0);
    assert_eq!((answers.all.questions, answers.all.neither), (7, 1));
    close(answers.attribute.accuracy, 1.0 / 4.0);
    assert_eq!((answers.action.questions, answers.action.precision), (1, None));
    close(answers.relation.accuracy, 1.0);
    close(answers.existence.recall, 1.0);
    let official = answers.existence.official.unwrap();
    // 1 / 1.001 = 99.9 per cent; 2 · 0.999² / (1.998 + 0.001) = 99.85
    assert_eq!((official.accuracy, official.recall), (99.9, 99.9));
    assert_eq!(official.f1, 99.9);
    assert_eq!(answers.attribute.official.unwrap().f1, 0.0);

    let nothing = evaluate(&data(), &[], Plurals::Official).unwrap();
    assert_eq!((nothing.unanswered, nothing.discriminative.all.official), (9, None));
    assert_eq!((nothing.generative.hal, nothing.generative.official), (None, None));
}

#[test]
fn invalid_responses_and_data_files_are_reported() {
    let report = evaluate(&data(), &responses(&[(99, "No")]), Plurals::All).unwrap();
    assert_eq!(report.unknown, [QuestionId("99".into())]);

    let text = Answer { question_id: None, text: String::new() };
    let error = evaluate(&data(), &[text], Plurals::All).unwrap_err().to_string();
    assert!(error.starts_with("response 1 has no \"id\""), "{error}");

    let mut foreign = data();
    foreign.associations.remove("dog");
    let error = evaluate(&foreign, &responses(&[(2, "")]), Plurals::All).unwrap_err().to_string();
    assert!(error.starts_with("annotation 2 holds 'dog'"), "{error}");

    let said = |text: &str| read_annotations(text.as_bytes()).unwrap_err().to_string();
    assert!(
        said(r#"[{"id": 1, "type": "generative", "truth": "yes"}]"#).contains("entry 1: \"tru")
    );
    assert!(said(r#"[{"id": 1, "type": "relation", "truth": "maybe"}]"#).contains("\"yes\" or"));
    let twice = r#"{"id": 1, "type": "relation", "truth": "yes"}"#;
    assert!(said(&format!("{twice}\n{twice}")).starts_with("line 2: id 1 is used twice"));
    let error = read_starts("a=0\nb=x".as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "line 2: 'b=x' is not of the form name=number");
    assert!(read_associations("[]".as_bytes()).is_err());
}

#[test]
fn only_discriminative_prompts_ask_for_a_single_word() {
    assert_eq!(prompt("Describe this image.", Kind::Generative), "Describe this image.");
    assert!(
        prompt("Is it?", Kind::State)
            .ends_with("?\nAnswer the question using a single word or phrase.")
    );
    let query = r#"[{"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."}]"#;
    assert_eq!(read_queries(query.as_bytes()).unwrap()[0].id, QuestionId("1".into()));
}

/// Responses made from the benchmark itself: every second object there; for every second image every third
/// likely hallucination; for every third two keys of the association lists; answers in turn.
fn made_up(data: &AmberData) -> Vec<Answer> {
    let keys: Vec<&String> = data.associations.keys().collect();
    let response = |annotation: &fisao_eval::amber::Annotation| {
        let id = annotation.id as usize;
        let text = if annotation.kind == Kind::Generative {
            let mut words: Vec<&str> =
                annotation.truth.iter().step_by(2).map(String::as_str).collect();
            if id.is_multiple_of(2) {
                words.extend(annotation.likely.iter().step_by(3).map(String::as_str));
            }
            if id.is_multiple_of(3) {
                let two = [keys[id % keys.len()], keys[7 * id % keys.len()]];
                words.extend(two.map(String::as_str));
            }
            words.retain(|word| *word != "hot");
            // With an article, so that a can is a noun.
            format!("the {}", words.join(" the "))
        } else {
            ["Yes", "No", "No", "no.", "Yes"][id % 5].to_owned()
        };
        (annotation.id, text)
    };
    let made: Vec<(u64, String)> = data.annotations.iter().map(response).collect();
    responses(&made.iter().map(|(id, text)| (*id, text.as_str())).collect::<Vec<_>>())
}

fn official_data(name: &str) -> Option<AmberData> {
    let file = |file: &str| parity::data(name, &format!("amber/{file}"));
    Some(AmberData {
        annotations: read_annotations(file("annotations.json")?.as_slice()).unwrap(),
        associations: read_associations(file("relation.json")?.as_slice()).unwrap(),
        safe_words: read_safe_words(file("safe_words.txt")?.as_slice()).unwrap(),
        starts: read_starts(file("metrics.txt")?.as_slice()).unwrap(),
    })
}

/// The official script on the same responses, with equality in place of spaCy's similarity and every word taken for
/// a noun, reduced by WordNet 3.0.
#[test]
fn scores_match_the_official_script() {
    let name = "amber::scores_match_the_official_script";
    let Some(data) = official_data(name) else { return };
    assert_eq!(data.annotations.len(), 15_220);
    let report = evaluate(&data, &made_up(&data), Plurals::Official).unwrap();
    assert_eq!((report.unanswered, report.unknown.len()), (0, 0));
    let generative = report.generative.official.unwrap();
    let found = [generative.chair, generative.cover, generative.hal, generative.cog];
    assert_eq!(found, [32.8, 53.0, 66.6, 18.9]);
    let answers = report.discriminative;
    for (what, answers, expected) in [
        ("all", answers.all, [40.0, 66.1, 39.9, 49.8]),
        ("existence", answers.existence, [40.0, 100.0, 40.0, 57.1]),
        ("attribute", answers.attribute, [40.0, 50.0, 40.0, 44.4]),
        ("state", answers.state, [40.2, 50.4, 40.8, 45.1]),
        ("number", answers.number, [39.0, 48.8, 37.8, 42.6]),
        ("action", answers.action, [41.3, 50.5, 40.9, 45.2]),
        ("relation", answers.relation, [39.8, 39.8, 38.5, 39.1]),
    ] {
        let official = answers.official.unwrap();
        let found = [official.accuracy, official.precision, official.recall, official.f1];
        assert_eq!(found, expected, "{what}");
    }
    let Some(queries) = parity::data(name, "amber/query_discriminative.json") else { return };
    assert_eq!(read_queries(queries.as_slice()).unwrap().len(), 14_216);
    let Some(queries) = parity::data(name, "amber/query_generative.json") else { return };
    assert_eq!(read_queries(queries.as_slice()).unwrap().len(), 1_004);
}
