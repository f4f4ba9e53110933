use fisao_eval::answers::read_answers;
use fisao_eval::options::{
    LetterRule, MmbenchError, OptionQuestion, OptionsError, Reading, circular, letter, most_likely,
    pick_by_likelihood, pick_by_text, prompt, read_likelihoods, read_mmbench, read_seed, score,
    visit_mmbench,
};
use fisao_eval::rates::Accuracy;

fn accuracy(correct: usize, questions: usize) -> Accuracy {
    (0..questions).map(|at| at < correct).collect()
}

const SEED: &str = r#"{
    "questions": [
        {"question_id": "101", "question": "Which?", "choice_a": "one", "choice_b": "two",
         "choice_c": "three", "choice_d": "four", "answer": "B", "data_type": "image",
         "question_type_id": 1, "data_id": "x", "segment": null},
        {"question_id": 102, "question": "Which?", "choice_a": "one", "choice_b": "two",
         "choice_c": "three", "choice_d": "four", "answer": "D", "data_type": "image",
         "question_type_id": 2},
        {"question_id": 103, "question": "Which?", "choice_a": "one", "choice_b": "two",
         "choice_c": "three", "choice_d": "four", "answer": "A", "data_type": "video",
         "question_type_id": 1}
    ],
    "question_type": {"Scene": 1, "Text": 2}
}"#;

#[test]
fn seed_bench_is_scored_by_question_type() {
    let questions = read_seed(SEED.as_bytes()).unwrap();
    let answers = r#"[{"question_id": 103, "text": "A. one"}, {"question_id": 101, "text": "B"}]"#;
    let answers = read_answers(answers.as_bytes(), None).unwrap();
    for (rule, correct, unclear) in
        [(LetterRule::Exact, 1, 1), (LetterRule::FirstCharacter, 2, 0), (LetterRule::Infer, 2, 0)]
    {
        let report =
            score(&questions, &pick_by_text(&questions, &answers, rule).unwrap().readings).unwrap();
        assert_eq!(report.accuracy, accuracy(correct, 3), "{rule:?}");
        assert_eq!((report.unanswered, report.unclear), (1, unclear), "{rule:?}");
        assert_eq!(report.categories["question_type"]["Scene"], accuracy(correct, 2));
        assert_eq!(report.categories["question_type"]["Text"], accuracy(0, 1));
        assert_eq!(report.categories["data_type"]["image"], accuracy(1, 2));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["correct"], correct);
        assert_eq!(json["per_question"][0]["picked"]["option"], 1);
    }
    let nothing = score(&[], &[]).unwrap();
    assert_eq!(nothing.accuracy.accuracy, None);
}

#[test]
fn most_likely_option_is_selected() {
    assert_eq!(most_likely(&[Some(-2.0), Some(-1.0), Some(-1.0), None]), Some(1));
    assert_eq!(most_likely(&[None, Some(f64::NAN), Some(f64::NEG_INFINITY)]), Some(2));
    assert_eq!(most_likely(&[None, Some(f64::NAN)]), None);

    let questions = read_seed(SEED.as_bytes()).unwrap();
    let rows = "{\"question_id\": 102, \"log_likelihoods\": [-3, -2, null, -1.5]}\n\
                {\"question_id\": 101, \"log_likelihoods\": [-3, -4, -5, -6]}";
    let rows = read_likelihoods(rows.as_bytes()).unwrap();
    let picks = pick_by_likelihood(&questions, &rows).unwrap().readings;
    assert_eq!(picks, [Some(Reading::Option(0)), Some(Reading::Option(3)), None]);
    assert_eq!(score(&questions, &picks).unwrap().accuracy, accuracy(1, 3));

    let short = r#"[{"question_id": 101, "log_likelihoods": [-3]}]"#;
    let short = read_likelihoods(short.as_bytes()).unwrap();
    let error = pick_by_likelihood(&questions, &short).unwrap_err();
    assert_eq!(error, OptionsError::Likelihoods { id: "101".into(), options: 4, found: 1 });
    let twice = "{\"question_id\": 1, \"log_likelihoods\": []}\n\
                 {\"question_id\": \"1\", \"log_likelihoods\": []}";
    let error = read_likelihoods(twice.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "line 2: question 1 is given twice; keep one");
}

const MMBENCH: &str = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category\n\
    7\tWhich one?\tLook \"up\".\tred\tgreen\tblue\t\tC\tcolour\taGk=\tperception\n\
    8\t\"Two\nlines, \"\"quoted\"\"\"\t\tyes\tno\tnan\t\tA\treason\taGk=\tthought\n\
    1000007\tWhich one?\tLook \"up\".\tblue\tred\tgreen\t\tA\tcolour\t7\tperception\n\
    2000007\tWhich one?\tLook \"up\".\tgreen\tblue\tred\t\tB\tcolour\t7\tperception\n\
    1000009\tStray\t\tgreen\tblue\t\t\tB\tcolour\t7\tperception\n";

fn picks(questions: &[OptionQuestion], texts: [&str; 5]) -> Vec<Option<Reading>> {
    let read = |(text, question): (&str, &OptionQuestion)| {
        Some(LetterRule::FirstCharacter.read(text, &question.options))
    };
    texts.into_iter().zip(questions).map(read).collect()
}

#[test]
fn circular_evaluation_requires_every_rotation_to_be_correct() {
    let questions = read_mmbench(MMBENCH.as_bytes()).unwrap();
    assert_eq!(questions[0].options, ["red", "green", "blue"]);
    assert_eq!(questions[1].question, "Two\nlines, \"quoted\"");
    assert_eq!((questions[1].options.len(), questions[1].hint.clone()), (2, None));

    let report = circular(&questions, &picks(&questions, ["C", "A", "A", "B", "B"])).unwrap();
    assert_eq!((report.accuracy, report.orphans), (accuracy(2, 2), 1));
    assert_eq!(report.groups[0].rotations, 3);
    assert_eq!(report.categories["l2-category"]["perception"], accuracy(1, 1));

    let picks = picks(&questions, ["C", "B", "A", "A", "B"]);
    let report = circular(&questions, &picks).unwrap();
    assert_eq!(report.accuracy, accuracy(0, 2));
    assert_eq!((report.groups[0].correct, report.groups[1].correct), (2, 0));
    assert_eq!(report.categories["category"]["colour"], accuracy(0, 1));
    assert_eq!(score(&questions, &picks).unwrap().accuracy, accuracy(3, 5));

    let seed = read_seed(SEED.replace("\"101\"", "\"x1\"").as_bytes()).unwrap();
    let error = circular(&seed, &[None, None, None]).unwrap_err();
    assert_eq!(error, OptionsError::Index { id: "x1".into() });
}

#[test]
fn mmbench_images_are_visited_with_their_questions() {
    let mut images = Vec::new();
    visit_mmbench(MMBENCH.as_bytes(), |question, image| {
        images.push((question.id.0, image.unwrap_or_default().to_owned()));
        Ok::<(), MmbenchError>(())
    })
    .unwrap();
    assert_eq!(images[0], ("7".to_owned(), "aGk=".to_owned()));
    assert_eq!(images.len(), 5);
}

#[test]
fn prompts_list_the_options() {
    let questions = read_mmbench(MMBENCH.as_bytes()).unwrap();
    assert_eq!(
        prompt(&questions[0]),
        "Look \"up\".\nWhich one?\nA. red\nB. green\nC. blue\n\
         Answer with the option's letter from the given choices directly."
    );
    assert_eq!((letter(0), letter(25), letter(26), letter(300)), ('A', 'Z', '?', '?'));
}

#[test]
fn invalid_files_are_reported_by_line_or_question() {
    let said = |text: &str| read_mmbench(text.as_bytes()).unwrap_err().to_string();
    assert!(said("index\tA\tB\n").starts_with("no column 'question'"));
    assert!(said("index\tquestion\tB\n").starts_with("no column 'A'"));
    let head = "index\tquestion\tA\tB\tanswer\n";
    assert!(said(&format!("{head}1\tq\tx\t\tA\n")).starts_with("line 2: question 1 has 1 options"));
    let answer = said(&format!("{head}1\tq\tx\ty\tA\n2\tq\tx\ty\tC\n"));
    assert!(answer.starts_with("line 3: question 2 has 'C' as answer"), "{answer}");
    assert!(said(&format!("{head}1\tq\n")).starts_with("not a table"));

    let hidden = read_mmbench("index\tquestion\tA\tB\n1\tq\tx\ty\n".as_bytes()).unwrap();
    assert_eq!(score(&hidden, &[None]), Err(OptionsError::NoTruth { id: "1".into() }));

    let seed = |text: &str| read_seed(text.as_bytes()).unwrap_err().to_string();
    assert!(seed("[]").starts_with("not SEED-Bench's file"));
    assert!(seed(&SEED.replace("\"D\"", "\"E\"")).starts_with("question 102 has 'E' as answer"));
}

#[test]
fn letter_rules_read_answers_differently() {
    let options = ["x".to_owned(), "y".to_owned()];
    let read = |rule: LetterRule, text| rule.read(text, &options);
    let (a, b) = (Reading::Option(0), Reading::Option(1));
    assert_eq!(read(LetterRule::Exact, "B"), b);
    assert_eq!(read(LetterRule::Exact, "B."), Reading::Unclear);
    assert_eq!(read(LetterRule::Exact, "C"), Reading::Unclear);
    assert_eq!(read(LetterRule::FirstCharacter, "\n Because"), b);
    assert_eq!(read(LetterRule::FirstCharacter, "(A)"), Reading::Unclear);
    assert_eq!(read(LetterRule::FirstCharacter, ""), Reading::Unclear);
    assert_eq!(read(LetterRule::Infer, "(A)"), a);
    assert_eq!(read(LetterRule::Infer, "Z"), Reading::Refused);
}

#[derive(serde::Deserialize)]
struct Case {
    options: Vec<String>,
    answer: String,
    read: Option<char>,
}

/// Answers written for the purpose, and what VLMEvalKit reads from them: `fixtures/option_letters`.
#[test]
fn options_are_inferred_as_in_vlmevalkit() {
    let cases = include_str!("../../../../fixtures/option_letters/cases.json");
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    assert!(cases.len() > 150);
    for Case { options, answer, read } in cases {
        let found = LetterRule::Infer.read(&answer, &options);
        let expected = match read {
            Some('Z') => Reading::Refused,
            None => Reading::Unclear,
            Some(found) => Reading::Option(found as usize - 'A' as usize),
        };
        assert_eq!(found, expected, "{answer:?} of {options:?}");
    }
}
