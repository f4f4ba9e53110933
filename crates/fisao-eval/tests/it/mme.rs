use std::collections::BTreeMap;

use fisao_eval::mme::{COGNITION, PERCEPTION, Reading, evaluate, prompt, read_task, score_task};

use crate::parity;

const TASK: &str = "a.jpg\tIs it? Please answer yes or no.\tYes\tYes, it is\n\
                    a.jpg\tIs it not? Please answer yes or no.\tNo\tno\n\n\
                    b.jpg\tIs it?\tYes\tSure\n\
                    b.jpg\tIs it not?\tno\t No";

fn score(text: &str, reading: Reading) -> fisao_eval::mme::TaskReport {
    score_task(read_task("color", text.as_bytes()).unwrap(), reading)
}

#[test]
fn task_scores_match_a_hand_count() {
    let task = score(TASK, Reading::Official);
    assert_eq!((task.acc, task.acc_plus, task.score), (Some(0.75), Some(0.5), Some(125.0)));
    assert_eq!((task.questions, task.other), (4, 1));
    assert_eq!(task.per_question[2].said_yes, None);

    let empty = score("", Reading::Official);
    assert_eq!((empty.acc, empty.acc_plus, empty.score), (None, None, None));
}

#[test]
fn perception_and_cognition_sum_over_available_tasks() {
    let mut tasks = BTreeMap::new();
    for name in ["color", "OCR", "code_reasoning", "humour"] {
        tasks.insert(name.to_owned(), score(TASK, Reading::Official));
    }
    let report = evaluate(tasks);
    assert_eq!((report.perception, report.cognition), (Some(250.0), Some(125.0)));
    assert_eq!(report.perception_missing.len(), PERCEPTION.len() - 2);
    assert_eq!(report.cognition_missing.len(), COGNITION.len() - 1);
    assert_eq!(report.unknown_tasks, ["humour"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["tasks"]["color"]["acc_plus"], 0.5);
    assert_eq!(json["tasks"]["color"]["per_question"][0]["answer"], "Yes, it is");

    let nothing = evaluate(BTreeMap::new());
    assert_eq!((nothing.perception, nothing.cognition), (None, None));
}

#[test]
fn answers_are_parsed_as_in_the_references() {
    let said = |answer| (Reading::Official.parse(answer), Reading::LmmsEval.parse(answer));
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(said("YES!"), (yes, yes));
    assert_eq!(said(" Yes"), (yes, yes));
    assert_eq!(said("  Yes"), (None, yes));
    assert_eq!(said("not at all"), (no, no));
    assert_eq!(said("a no"), (no, no));
    assert_eq!(said("...no"), (None, no));
    assert_eq!(said("Y."), (None, yes));
    assert_eq!(said("n"), (None, no));
    assert_eq!(said("unknown"), (None, None));
    assert_eq!(said("eyes"), (yes, yes));
    assert_eq!(said(""), (None, None));
}

#[test]
fn invalid_tasks_are_reported_by_line() {
    let said = |text: &[u8]| read_task("color", text).unwrap_err().to_string();
    assert!(said(b"\na.jpg\tq\tYes").starts_with("color: line 2 has 3 columns"));
    assert!(said(b"a.jpg\tq\tYes\ta\nb").starts_with("color: line 2 has 1 columns"));
    assert!(said(b"a.jpg\tq\tMaybe\tyes").starts_with("color: line 1 has 'Maybe' as ground truth"));
    let odd = "a\tq\tYes\tno\na\tq\tNo\tno\n\nb\tq\tNo\tno\nc\tq\tNo\tno\n";
    assert!(said(odd.as_bytes()).starts_with("color: line 4 asks about 'b' but"));
    assert!(said(b"b\tq\tNo\tno").starts_with("color: line 1 asks about 'b' but"));
    assert!(said(b"b\tq\tNo\tn\xE9\n").starts_with("color: line 1 cannot be read"));
}

#[test]
fn prompt_asks_for_a_single_word() {
    let expected = "Is it?\nAnswer the question using a single word or phrase.";
    assert_eq!(prompt("Is it? Please answer yes or no."), expected);
    assert_eq!(prompt("Is it?"), expected);
}

#[derive(serde::Deserialize)]
struct Expected {
    questions: usize,
    acc: f64,
    acc_plus: f64,
    score: f64,
}

#[test]
fn scores_match_the_official_ones() {
    let name = "mme::scores_match_the_official_ones";
    let Some(expected) = parity::data(name, "mme/expected.json") else { return };
    let expected: BTreeMap<String, Expected> = serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.len(), 6);
    for (task, expected) in expected {
        let Some(text) = parity::data(name, &format!("mme/{task}.txt")) else { return };
        let report = score_task(read_task(&task, text.as_slice()).unwrap(), Reading::Official);
        assert_eq!(report.questions, expected.questions, "{task}");
        assert_eq!(report.acc, Some(expected.acc), "{task}");
        assert_eq!(report.acc_plus, Some(expected.acc_plus), "{task}");
        assert_eq!(report.score, Some(expected.score), "{task}");
    }
}
