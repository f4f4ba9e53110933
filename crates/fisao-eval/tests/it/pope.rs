use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;

use fisao_eval::answers::{PairedBy, PairingError, QuestionId, read_answers};
use fisao_eval::pope::{
    BuildError, BuildOptions, ImageObjects, Label, Negatives, Question, build, evaluate,
    parse_answer, prompt, read_questions, score_split,
};
use proptest::prelude::*;

use crate::parity;

/// Eight questions, four of each kind.
fn questions() -> Vec<Question> {
    let rows: Vec<String> = (1..=8)
        .map(|number| {
            let label = if number % 2 == 1 { "yes" } else { "no" };
            format!(
                r#"{{"question_id": {number}, "image": "a.jpg", "text": "?", "label": "{label}"}}"#
            )
        })
        .collect();
    let lines = read_questions(rows.join("\n").as_bytes()).unwrap();
    let list = read_questions(format!("[{}]", rows.join(",")).as_bytes()).unwrap();
    assert_eq!(lines, list);
    lines
}

/// TP 3, FN 1, TN 2, FP 2.
const ANSWERS: [&str; 8] = ["Yes", "No.", "Yes", "no", "yes", "I am sure.", "There is not", "NO"];

#[test]
fn split_scores_match_a_hand_count() {
    let rows: Vec<String> =
        ANSWERS.iter().map(|answer| format!(r#"{{"answer": "{answer}"}}"#)).collect();
    let answers = read_answers(rows.join("\n").as_bytes(), None).unwrap();
    let split = score_split("random", &questions(), &answers).unwrap();
    assert_eq!((split.questions, split.paired_by), (8, PairedBy::Position));
    assert_eq!(split.scores.accuracy, Some(5.0 / 8.0));
    assert_eq!(split.scores.precision, Some(3.0 / 5.0));
    assert_eq!(split.scores.recall, Some(3.0 / 4.0));
    assert_eq!(split.scores.f1, Some(6.0 / 9.0));
    assert_eq!(split.scores.yes_ratio, Some(5.0 / 8.0));
    assert!(!split.per_question[6].said_yes);
    assert_eq!(split.yes_by_default, 2, "\"I am sure.\" and \"NO\"");
    assert_eq!(split.per_question[6].label, Label::Yes);

    let report = evaluate(vec![split.clone(), split]);
    assert_eq!(report.mean, report.splits[0].scores);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["splits"][0]["accuracy"], 0.625);
    assert_eq!(json["splits"][0]["paired_by"], "position");
    assert_eq!(json["splits"][0]["per_question"][1]["label"], "no");
}

#[test]
fn answers_with_ids_may_be_unordered_or_missing() {
    let answers = r#"[{"question_id": "3", "text": "no"}, {"question_id": 2, "text": "no"},
                      {"question_id": 99, "text": "yes"}]"#;
    let answers = read_answers(answers.as_bytes(), None).unwrap();
    let split = score_split("s", &questions(), &answers).unwrap();
    assert_eq!((split.questions, split.unknown_answers), (8, 1));
    assert_eq!((split.unanswered.len(), split.unanswered[0].clone()), (6, QuestionId("1".into())));
    // What is not answered is wrong: one right of eight, no yes at all.
    assert_eq!(split.scores.accuracy, Some(1.0 / 8.0));
    assert_eq!((split.scores.precision, split.scores.recall), (None, Some(0.0)));
    assert_eq!((split.scores.f1, split.scores.yes_ratio), (Some(0.0), Some(0.0)));
    let answered = split.scores_of_answered.unwrap();
    assert_eq!((answered.accuracy, answered.yes_ratio), (Some(0.5), Some(0.0)));
    assert_eq!(evaluate(vec![split]).mean.precision, None);
    assert_eq!(evaluate(Vec::new()).mean.accuracy, None);

    // Three of four are found, and one of four is not asked for; both that are missing would be right.
    let rows = (3..=8).map(|at| {
        let text = if at % 2 == 1 { "yes" } else { "no" };
        format!(r#"{{"question_id": {at}, "text": "{text}"}}"#)
    });
    let rows: Vec<String> = rows.collect();
    let answers = read_answers(rows.join("\n").as_bytes(), None).unwrap();
    let split = score_split("s", &questions(), &answers).unwrap();
    assert_eq!(split.scores.accuracy, Some(6.0 / 8.0));
    assert_eq!((split.scores.precision, split.scores.recall), (Some(1.0), Some(3.0 / 4.0)));
    assert_eq!((split.scores.f1, split.scores.yes_ratio), (Some(6.0 / 7.0), Some(3.0 / 8.0)));
    let interval = fisao_eval::pope::intervals(
        &[&evaluate(vec![split])],
        fisao_eval::statistics::Bootstrap::default(),
    )[0];
    // All questions are about one image, so every draw is the same.
    assert_eq!(interval.map(|interval| interval.low), Some(6.0 / 8.0));

    let answers = read_answers(r#"[{"text": "no"}]"#.as_bytes(), None).unwrap();
    let error = score_split("s", &questions(), &answers).unwrap_err();
    assert_eq!(error, PairingError::Counts { questions: 8, answers: 1 });
}

#[test]
fn invalid_question_is_reported_by_line_and_column() {
    let text = "{\"question_id\": 1, \"image\": \"a\", \"text\": \"?\", \"label\": \"maybe\"}";
    let error = read_questions(text.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("line 1, column 62: unknown variant `maybe`"), "{error}");
}

#[test]
fn answers_are_parsed_as_in_the_reference() {
    for yes in ["", "Yes", "NO", "No!", "Nope", "cannot", "Yes. No.", "yes\nno", "none, really"] {
        assert!(parse_answer(yes), "{yes}");
    }
    for no in ["No", "no", "not", "No, there is.", "I do, not. Yes.", "yes no", "n,o"] {
        assert!(!parse_answer(no), "{no}");
    }
    assert_eq!(prompt("Is it?"), "Is it?\nAnswer the question using a single word or phrase.");
}

fn entry(image: &str, objects: &[&str]) -> ImageObjects {
    let objects = objects.iter().map(ToString::to_string).collect();
    ImageObjects { image: image.to_owned(), objects }
}

/// Counted by hand: dog 4, cat 3, apple 3, egg 2, car 1.
fn world() -> Vec<ImageObjects> {
    vec![
        entry("1", &["dog", "cat", "dog"]),
        entry("2", &["dog", "apple"]),
        entry("3", &["dog", "egg", "apple"]),
        entry("4", &["cat", "egg", "apple"]),
        entry("5", &["car", "cat", "dog"]),
        entry("6", &["zebra"]),
    ]
}

/// Questions about every image with two objects, by image.
fn asked(
    world: &[ImageObjects],
    images: usize,
    negatives: Negatives,
) -> BTreeMap<String, Vec<String>> {
    let options = BuildOptions { negatives, images, objects: 2, first_objects: true, seed: 3 };
    let mut asked = BTreeMap::<String, Vec<String>>::new();
    for question in build(world, &options).unwrap() {
        asked.entry(question.image.0).or_default().push(question.text);
    }
    asked
}

#[test]
fn popular_negatives_are_the_most_frequent_objects() {
    let asked = asked(&world(), 5, Negatives::Popular);
    assert_eq!(
        asked["4"],
        [
            "Is there a cat in the image?",
            "Is there a dog in the image?",
            "Is there an egg in the image?",
            "Is there a car in the image?"
        ]
    );
    assert!(!asked.contains_key("6"), "it holds a single object");
}

#[test]
fn adversarial_negatives_cooccur_with_the_preceding_object() {
    let mut world: Vec<ImageObjects> =
        (0..4).map(|at| entry(&at.to_string(), &["sky", "sea"])).collect();
    world.push(entry("desk", &["screen", "mouse", "key"]));
    world.push(entry("table", &["screen", "mouse"]));
    world.push(entry("shelf", &["screen", "urn"]));
    let asked = asked(&world, 7, Negatives::Adversarial);
    let shelf = &asked["shelf"];
    assert_eq!(shelf[0], "Is there a screen in the image?");
    assert_eq!(shelf[1], "Is there a mouse in the image?", "twice with a screen; the sky never");
    assert_eq!(shelf[2], "Is there an urn in the image?");
    // Only ever seen with the screen, which is in the image, so any other.
    assert!(["sky", "sea", "key"].iter().any(|name| shelf[3].contains(name)), "{shelf:?}");
}

#[test]
fn same_seed_selects_the_same_images_and_objects() {
    let all = [Negatives::Random, Negatives::Popular, Negatives::Adversarial];
    let present = |negatives| {
        let options = BuildOptions { images: 3, objects: 2, ..BuildOptions::new(negatives, 5) };
        let questions = build(&world(), &options).unwrap();
        assert_eq!(questions, build(&world(), &options).unwrap());
        questions.into_iter().step_by(2).map(|q| (q.image, q.text)).collect::<Vec<_>>()
    };
    assert_eq!(present(all[0]), present(all[1]));
    assert_eq!(present(all[0]), present(all[2]));
}

#[test]
fn impossible_question_sets_are_rejected() {
    let options = BuildOptions { images: 5, objects: 2, ..BuildOptions::new(Negatives::Random, 0) };
    let said = |images: &[ImageObjects], options| build(images, &options).unwrap_err();
    let many = BuildOptions { images: 6, ..options };
    let error = said(&world(), many);
    assert_eq!(error, BuildError::TooFewImages { given: 6, found: 5, objects: 2, wanted: 6 });
    let few = BuildOptions { images: 1, ..options };
    assert_eq!(
        said(&[entry("a", &["x", "y"])], few),
        BuildError::NothingAbsent { image: "a".into() }
    );
    let twice = [entry("a", &[]), entry("a", &[])];
    assert_eq!(said(&twice, few), BuildError::Repeated { image: "a".into() });
}

#[test]
fn random_negatives_are_uniform_over_absent_objects() {
    let mut world = vec![entry("a", &["x"])];
    world.extend(["p", "q", "r", "s"].iter().map(|name| entry(name, &[name])));
    let mut drawn = HashMap::<String, usize>::new();
    for seed in 0..4000 {
        let options =
            BuildOptions { images: 5, objects: 1, ..BuildOptions::new(Negatives::Random, seed) };
        let questions = build(&world, &options).unwrap();
        let about_a = questions.into_iter().filter(|q| q.image.0 == "a").nth(1).unwrap();
        *drawn.entry(about_a.text).or_default() += 1;
    }
    // Binomial(4000, 1/4): mean 1000, standard deviation 27.
    assert_eq!(drawn.len(), 4);
    assert!(drawn.values().all(|count| count.abs_diff(1000) < 140), "{drawn:?}");
}

fn sets() -> impl Strategy<Value = BTreeMap<String, BTreeSet<String>>> {
    let objects = prop::collection::btree_set("[a-h]", 0..6);
    prop::collection::btree_map("[0-9]{1,3}", objects, 1..30)
}

proptest! {
    #[test]
    fn questions_are_balanced_unique_and_correctly_labelled(truth in sets(), seed: u64, kind in 0..3_usize, first_objects: bool) {
        let negatives = [Negatives::Random, Negatives::Popular, Negatives::Adversarial][kind];
        let options = BuildOptions { negatives, images: 4, objects: 2, first_objects, seed };
        let Ok(questions) = build(&ImageObjects::all(&truth), &options) else { return Ok(()) };
        prop_assert_eq!(questions.len(), 4 * 2 * 2);
        let yes = questions.iter().filter(|q| q.label == Label::Yes).count();
        prop_assert_eq!(yes * 2, questions.len());
        let mut seen = BTreeSet::new();
        for (index, question) in questions.iter().enumerate() {
            let object = question.text.split(' ').nth(3).unwrap();
            let article = if "aeiou".contains(object) { "an" } else { "a" };
            prop_assert_eq!(question.text.split(' ').nth(2).unwrap(), article);
            let there = truth[&question.image.0].contains(object);
            prop_assert_eq!(there, question.label == Label::Yes);
            prop_assert!(seen.insert((question.image.0.clone(), object.to_owned())));
            prop_assert_eq!(&question.question_id.0, &(index + 1).to_string());
        }
        let images: BTreeSet<_> = seen.into_iter().map(|(image, _)| image).collect();
        prop_assert_eq!(images.len(), 4);
    }
}

#[test]
fn parsed_answers_match_recorded_reference_results() {
    let name = "pope::parsed_answers_match_recorded_reference_results";
    let Some(cases) = parity::data(name, "pope/expected_parse.json") else { return };
    let cases: Vec<HashMap<String, String>> = serde_json::from_slice(&cases).unwrap();
    assert_eq!(cases.len(), 15);
    for case in cases {
        assert_eq!(parse_answer(&case["answer"]), case["parsed"] == "yes", "{case:?}");
    }
}

#[derive(serde::Deserialize)]
struct Coco {
    objects: Vec<String>,
    images: BTreeMap<String, Vec<usize>>,
}

/// COCO's ground truth, as images.
fn coco(name: &str) -> Option<Vec<ImageObjects>> {
    let packed = parity::data(name, "chair/coco2014_trainval_gt_objects.json.gz")?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
    let coco: Coco = serde_json::from_str(&text).unwrap();
    let entry = |(image, objects): (String, Vec<usize>)| ImageObjects {
        image,
        objects: objects.into_iter().map(|at| coco.objects[at].clone()).collect(),
    };
    Some(coco.images.into_iter().map(entry).collect())
}

#[test]
fn published_labels_agree_with_the_ground_truth() {
    let name = "pope::published_labels_agree_with_the_ground_truth";
    let Some(lines) = parity::data(name, "pope/coco_pope_random.json") else { return };
    let Some(list) = parity::data(name, "pope/aokvqa_pope_seem_random.json") else { return };
    let Some(truth) = coco(name) else { return };
    assert_eq!(read_questions(list.as_slice()).unwrap().len(), 3000);
    let questions = read_questions(lines.as_slice()).unwrap();
    assert_eq!(questions.len(), 3000);
    let truth: HashMap<String, Vec<String>> =
        truth.into_iter().map(|entry| (entry.image, entry.objects)).collect();
    let agree = questions.iter().filter(|question| {
        let number = question.image.0.rsplit_once('_').unwrap().1.trim_start_matches('0');
        let number = number.trim_end_matches(".jpg");
        let object = question.text.strip_prefix("Is there a").unwrap();
        let object = object.strip_prefix('n').unwrap_or(object).trim_start();
        let object = object.strip_suffix(" in the image?").unwrap();
        truth[number].iter().any(|there| there == object) == (question.label == Label::Yes)
    });
    assert_eq!(agree.count(), 3000);
}

#[test]
fn questions_are_made_from_coco() {
    let Some(truth) = coco("pope::questions_are_made_from_coco") else { return };
    for negatives in [Negatives::Random, Negatives::Popular, Negatives::Adversarial] {
        let questions = build(&truth, &BuildOptions::new(negatives, 0)).unwrap();
        assert_eq!(questions.len(), 3000);
    }
}

#[test]
fn question_object_is_extracted_from_its_text() {
    let images = [entry("a", &["apple", "dining table"]), entry("b", &["dog", "fox"])];
    let options = BuildOptions { images: 2, objects: 2, ..BuildOptions::new(Negatives::Random, 1) };
    let questions = build(&images, &options).unwrap();
    let asked = |image: &str| {
        let mine = questions.iter().filter(|question| question.image.0 == image);
        mine.map(|question| question.object().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(asked("a"), BTreeSet::from(["apple", "dining table", "dog", "fox"]));
    let other = Question { text: "What is this?".to_owned(), ..questions[0].clone() };
    assert_eq!(other.object(), None);
}
