use fisao_eval::answers::read_answers;
use fisao_eval::rates::Accuracy;
use fisao_eval::science_qa::{Problem, evaluate, parse_answer, prompt, read_problems, read_splits};

const PROBLEMS: &str = r#"{
    "1": {"question": "Which?", "choices": ["one", "two"], "answer": 1, "hint": "Two.",
          "image": "image.png", "subject": "natural science", "grade": "grade3", "lecture": "…"},
    "2": {"question": "What?", "choices": ["one", "two", "three"], "answer": 0, "hint": "",
          "image": null, "subject": "social science", "grade": "grade9"},
    "3": {"question": "Who?", "choices": ["one", "two"], "answer": 0, "hint": "",
          "image": "image.png", "subject": "natural science", "grade": "grade7"}
}"#;

fn accuracy(correct: usize, questions: usize) -> Accuracy {
    (0..questions).map(|at| at < correct).collect()
}

#[test]
fn problems_are_scored_by_subject_context_and_grade() {
    let problems = read_problems(PROBLEMS.as_bytes()).unwrap();
    let splits = read_splits(r#"{"test": ["3", "1", "2"], "train": []}"#.as_bytes()).unwrap();
    let answers = r#"{"question_id": "1", "text": "B. two"}
                     {"question_id": "2", "text": "The answer is C."}
                     {"question_id": "9", "text": "A"}"#;
    let answers = read_answers(answers.as_bytes(), None).unwrap();
    let report = evaluate(&problems, &splits["test"], &answers).unwrap();
    assert_eq!((report.accuracy, report.image_accuracy), (accuracy(1, 3), accuracy(1, 2)));
    assert_eq!((report.unanswered, report.unclear, report.unknown_answers), (1, 0, 1));
    assert_eq!(report.subjects["natural science"], accuracy(1, 2));
    assert_eq!(report.contexts["text"], accuracy(1, 1));
    assert_eq!(report.contexts["none"], accuracy(0, 1));
    assert_eq!(report.grades["1-6"], accuracy(1, 1));
    assert_eq!(report.grades["7-12"], accuracy(0, 2));
    assert_eq!(report.per_question[2].picked, Some(2));
    assert_eq!(serde_json::to_value(&report).unwrap()["image_accuracy"]["accuracy"], 0.5);
    let nothing = evaluate(&problems, &[], &[]).unwrap();
    assert_eq!((nothing.accuracy.accuracy, nothing.image_accuracy.accuracy), (None, None));
}

#[test]
fn answers_are_parsed_as_in_llava() {
    for (text, expected) in [
        ("B", Some(1)),
        ("B.", None),
        ("B. ", Some(1)),
        ("B. two", Some(1)),
        ("E. five", None),
        ("b", None),
        (" B", None),
        ("The answer is B.", Some(1)),
        ("So: The answer is B. Because.", Some(1)),
        ("The answer is B", None),
        ("The answer is B!", Some(1)),
        ("The answer is B\n", None),
        ("The answer is B. The answer is B.", None),
        ("the answer is B.", None),
        ("The answer is F.", None),
        ("Because of it. The answer is A. The answer is two.", Some(0)),
        ("B.two The answer is A.", Some(0)),
        ("", None),
    ] {
        assert_eq!(parse_answer(text, 4), expected, "{text:?}");
    }
    assert_eq!(parse_answer("C", 2), None);
}

#[test]
fn invalid_problems_and_answers_are_reported() {
    let mut problems = read_problems(PROBLEMS.as_bytes()).unwrap();
    let said = |problems: &_, ids: &[&str], answers: &str| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let answers = read_answers(answers.as_bytes(), None).unwrap();
        evaluate(problems, &ids, &answers).unwrap_err().to_string()
    };
    assert!(said(&problems, &["7"], "").starts_with("problem 7 of the split is not"));
    assert!(said(&problems, &["1"], r#"[{"text": "A"}]"#).starts_with("answer 1 has no \"quest"));
    problems.get_mut("1").unwrap().answer = 2;
    assert!(said(&problems, &["1"], "").starts_with("problem 1 has 2 options, but its answer"));
    assert!(read_problems("[]".as_bytes()).unwrap_err().to_string().starts_with("not ScienceQA"));
    assert!(read_splits("[]".as_bytes()).is_err());
}

#[test]
fn prompts_put_the_context_first() {
    let problems = read_problems(PROBLEMS.as_bytes()).unwrap();
    assert_eq!(
        prompt(&problems["1"]),
        "Context: Two.\nWhich?\nA. one\nB. two\n\
         Answer with the option's letter from the given choices directly."
    );
    let Problem { hint, .. } = &problems["2"];
    assert!(hint.is_empty() && prompt(&problems["2"]).starts_with("What?\nA. one"));
}
