use fisao_eval::answers::{QuestionId, read_answers};
use fisao_eval::judged::{mm_hal, mm_vet, read_verdicts};

fn close(found: Option<f64>, expected: f64) {
    assert!((found.unwrap() - expected).abs() < 1e-9, "{found:?} is not {expected}");
}

const VET: &str = r#"{
    "v1_0": {"imagename": "a.jpg", "question": "x?", "answer": "1<AND>2", "imagesource": "…",
             "capability": ["ocr", "math"]},
    "v1_1": {"imagename": "b.jpg", "question": "y?", "answer": "3", "capability": ["ocr"]},
    "v1_10": {"imagename": "b.jpg", "question": "z?", "answer": "3", "capability": ["rec"]}
}"#;

#[test]
fn mm_vet_scores_are_averaged_per_capability() {
    let questions = mm_vet::read_questions(VET.as_bytes()).unwrap();
    let grades = r#"{"v1_0": {"model": [], "content": [], "score": [0.5, 0.7]},
                     "v1_1": {"score": [1.0, 0.0]}, "v1_7": {"score": [1.0]}}"#;
    let grades = mm_vet::read_grades(grades.as_bytes()).unwrap();
    let report = mm_vet::evaluate(&questions, &grades).unwrap();
    close(report.total.score, 55.0);
    close(report.capabilities["ocr"].score, 55.0);
    close(report.capabilities["math"].score, 60.0);
    close(report.combinations["math+ocr"].score, 60.0);
    assert_eq!(report.capabilities.get("rec"), None);
    close(Some(report.runs[0]), 75.0);
    close(Some(report.runs[1]), 35.0);
    close(report.standard_deviation, 20.0);
    assert_eq!((report.ungraded, report.unknown, report.total.questions), (1, 1, 2));

    let nothing = mm_vet::evaluate(&questions, &mm_vet::Grades::new()).unwrap();
    assert_eq!((nothing.total.score, nothing.standard_deviation), (None, None));
    let wrong = mm_vet::Grades::from([(QuestionId("v1_1".into()), vec![0.5, 5.0])]);
    let error = mm_vet::evaluate(&questions, &wrong).unwrap_err().to_string();
    assert_eq!(error, "question v1_1 is graded 5; grades are from 0 to 1");
}

#[test]
fn mm_vet_requests_are_built_and_verdicts_graded() {
    let questions = mm_vet::read_questions(VET.as_bytes()).unwrap();
    let answers =
        mm_vet::read_results(r#"{"v1_0": "one {answer}", "v1_10": "?"}"#.as_bytes()).unwrap();
    let requests =
        mm_vet::requests(&questions, &answers, "{question}|{answer}|{prediction}|").unwrap();
    assert_eq!(requests[0].prompt, "x?|1 <AND> 2|one {answer}|");
    assert_eq!((requests.len(), requests[1].question_id.0.as_str()), (2, "v1_10"));
    assert!(mm_vet::requests(&questions, &answers, mm_vet::TEMPLATE).is_ok());
    let error = mm_vet::requests(&questions, &answers, "{question}{answer}").unwrap_err();
    assert!(error.to_string().starts_with("the judge's prompt lacks {prediction}"));
    assert_eq!(mm_vet::prompt("x?"), "x?");

    let verdicts = "{\"question_id\": \"v1_0\", \"text\": \"0.5 or so\"}\n\
                    {\"question_id\": \"v1_10\", \"score\": 1}\n\
                    {\"question_id\": \"v1_10\", \"text\": \"good\"}";
    let verdicts = read_verdicts(verdicts.as_bytes()).unwrap();
    let (grades, unclear) = mm_vet::grade(&verdicts).unwrap();
    assert_eq!(unclear, 1);
    assert_eq!(grades[&QuestionId("v1_10".into())], [1.0, 0.0]);
    assert_eq!(mm_vet::parse_grade("1.1"), None);
    assert_eq!(mm_vet::parse_grade("NaN"), None);
    assert_eq!(mm_vet::parse_grade("0.3\n"), Some(0.3));
    let nameless = read_verdicts(r#"[{"text": "1"}]"#.as_bytes()).unwrap();
    assert!(mm_vet::grade(&nameless).unwrap_err().to_string().starts_with("verdict 1 has no"));
    assert!(read_answers(r#"[{"text": ""}]"#.as_bytes(), None).is_ok());
}

const HAL: &str = r#"[
    {"question_type": "attribute", "question_topic": "food", "image_content": ["Dog", "Cat"],
     "question": "x?", "gt_answer": "one", "model_answer": "two", "image_id": "1"},
    {"question_type": "counting", "image_content": [], "question": "y?", "gt_answer": "2"},
    {"question_type": "counting", "image_content": [], "question": "z?", "gt_answer": "3"}
]"#;

#[test]
fn mm_hal_ratings_below_three_are_hallucinations() {
    let records = mm_hal::read_records(HAL.as_bytes()).unwrap();
    let requests = mm_hal::requests(&records, "{contents}|{question}|{answer}|{response}").unwrap();
    assert_eq!(requests[0].prompt, "Dog, Cat|x?|one|two");
    assert_eq!(requests[2].question_id.0, "2");
    assert!(mm_hal::requests(&records, mm_hal::TEMPLATE).is_ok());
    assert_eq!(mm_hal::prompt("x?"), "x?");

    // As OpenAI's interface returns them, in order.
    let verdicts = r#"[
        {"id": "chatcmpl-1", "choices": [{"message": {"content": "Good. Rating: 5, informative"}}]},
        {"id": "chatcmpl-2", "choices": [{"message": {"content": "RATING: 2"}}]},
        {"id": "chatcmpl-3", "choices": [{"message": {"content": "Rating: 3 or Rating: 4"}}]}]"#;
    let verdicts = read_verdicts(verdicts.as_bytes()).unwrap();
    let report = mm_hal::evaluate(&records, &verdicts).unwrap();
    close(report.average_score, 7.0 / 3.0);
    close(report.hallucination_rate, 2.0 / 3.0);
    close(Some(report.average_by_type["counting"]), 1.0);
    assert_eq!((report.rated, report.unclear, report.unrated), (3, 1, 0));
    assert_eq!(report.ratings, [Some(5), Some(2), Some(0)]);
}

#[test]
fn mm_hal_verdicts_are_paired_with_their_records() {
    let records = mm_hal::read_records(HAL.as_bytes()).unwrap();
    let read = |text: &str| {
        mm_hal::evaluate(&records, &read_verdicts(text.as_bytes()).unwrap())
            .map_err(|e| e.to_string())
    };
    let report = read(r#"[{"question_id": 2, "score": 3}]"#).unwrap();
    assert_eq!((report.ratings[2], report.unrated), (Some(3), 2));
    close(report.hallucination_rate, 0.0);
    assert!(read(r#"[{"text": "1"}]"#).unwrap_err().starts_with("3 records but 1 verdicts"));
    let error = read(r#"[{"question_id": 3, "text": "1"}]"#).unwrap_err();
    assert_eq!(
        error,
        "verdict 1 is on question '3', which is no place of a record; ids are 0 to 2"
    );
    let twice = r#"[{"question_id": 1, "text": "1"}, {"question_id": 1, "text": "1"}]"#;
    assert!(read(twice).unwrap_err().contains("judged twice"));
    assert!(read_verdicts("{\"question_id\": 1}".as_bytes()).is_err());
    assert_eq!(mm_hal::evaluate(&[], &[]).unwrap().average_score, None);
    assert_eq!(mm_hal::parse_rating("7"), None);
    assert_eq!(mm_hal::parse_rating("rating 3"), None);
}
