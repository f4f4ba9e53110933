use fisao_eval::answers::{PairedBy, read_answers};
use fisao_eval::gqa::{Normalisation, evaluate, prompt, read_questions};
use fisao_eval::rates::Accuracy;

const QUESTIONS: &str = r#"{
    "20": {"question": "Is it?", "answer": "yes", "imageId": "n1", "isBalanced": true,
           "types": {"structural": "verify", "semantic": "rel", "detailed": null}},
    "3": {"question": "What is it?", "answer": "t-shirt", "imageId": "n2",
          "types": {"structural": "query", "semantic": "obj", "detailed": "x"}},
    "100": {"question": "What?", "answer": "dog", "imageId": "n2"}
}"#;

fn accuracy(correct: usize, questions: usize) -> Accuracy {
    (0..questions).map(|at| at < correct).collect()
}

#[test]
fn answers_are_compared_after_normalisation() {
    let questions = read_questions(QUESTIONS.as_bytes()).unwrap();
    let answers = r#"[{"questionId": "3", "text": "tshirt"}, {"question_id": "20", "text": "Yes.."},
                      {"question_id": "21", "text": "no"}]"#;
    let answers = read_answers(answers.as_bytes(), None).unwrap();
    let report = evaluate(&questions, &answers, Normalisation::Llava).unwrap();
    assert_eq!(report.accuracy, accuracy(1, 3));
    assert_eq!((report.open, report.binary), (accuracy(0, 1), accuracy(1, 1)));
    assert_eq!(report.types["semantic"]["rel"], accuracy(1, 1));
    assert!(!report.types.contains_key("detailed"));
    assert_eq!((report.unanswered, report.unknown_answers), (1, 1));
    assert_eq!(report.per_question[1].text.as_deref(), Some("tshirt"));

    let report = evaluate(&questions, &answers, Normalisation::LmmsEval).unwrap();
    assert_eq!(report.accuracy, accuracy(2, 3));
}

#[test]
fn answers_without_ids_are_paired_by_file_position() {
    let questions = read_questions(QUESTIONS.as_bytes()).unwrap();
    let answers = r#"[{"text": "yes"}, {"text": "t-shirt"}, {"text": "dog"}]"#;
    let answers = read_answers(answers.as_bytes(), None).unwrap();
    let report = evaluate(&questions, &answers, Normalisation::Llava).unwrap();
    assert_eq!((report.accuracy, report.paired_by), (accuracy(3, 3), PairedBy::Position));
}

#[test]
fn llava_and_lmms_eval_normalisations_differ() {
    let equal = |answer, expected| {
        [Normalisation::Llava, Normalisation::LmmsEval].map(|rule| rule.equal(answer, expected))
    };
    assert_eq!(equal("Yes.", "yes"), [true, true]);
    assert_eq!(equal("yes!", "yes"), [false, true]);
    assert_eq!(equal("yes", "Yes"), [false, true]);
    assert_eq!(equal("yes ", "yes"), [false, false]);
    assert_eq!(equal("yes, it is", "yes"), [false, false]);
    assert!(prompt("Is it?").starts_with("Is it?\nAnswer"));
    let error = read_questions("{\"1\": {}}".as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("not GQA's file of questions: '1': missing field"), "{error}");
}
