//! Readers of answers, annotations and calibrations, tried with damaged files: see `fisao_testkit::fuzz`.

use fisao_align::trainer::TrainerState;
use fisao_eval::captions::{read_caption_rows, read_references};
use fisao_eval::localization::{Broken, LabelOptions, read_labels, read_predictions};
use fisao_eval::{amber, answers, chair, gqa, judged, mme, options, pope, science_qa};
use fisao_testkit::fuzz::{BYTES, CountedAllocator, Form, Reader, run};
use fisao_verifier::calibration::{Calibration, fit_annotated};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: CountedAllocator = CountedAllocator::new();

#[test]
fn readers_survive_damaged_files() {
    check_nested_entries();
    let mut readers = rows();
    readers.extend(lists());
    readers.push(localization());
    readers.extend(tables());
    readers.push(reader("calibration", Form::Json, vec![calibration()], |input| {
        if let Ok(calibration) = serde_json::from_slice::<Calibration>(input) {
            let _ = calibration.validate();
        }
    }));
    readers.push(reader("trainer-state", Form::Json, vec![trainer_state()], |input| {
        if let Ok(state) = serde_json::from_slice::<TrainerState>(input) {
            let _ = state.check();
        }
    }));
    run(&readers, &ALLOCATOR);
}

fn reader(
    name: &'static str,
    form: Form,
    files: Vec<Vec<u8>>,
    read: impl Fn(&[u8]) + 'static,
) -> Reader {
    Reader { name, form, bytes: BYTES, files, read: Box::new(read) }
}

fn lines(rows: &[Value]) -> Vec<u8> {
    rows.iter().map(|row| row.to_string() + "\n").collect::<String>().into_bytes()
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON")
}

/// A megabyte of entries that hold nothing but lists took 144 times its length. Too long to be changed at random.
fn check_nested_entries() {
    let entry = format!("{}0{}", "[".repeat(16), "]".repeat(16));
    let file = format!("[{}]", vec![entry; (1 << 20) / 34].join(","));
    let before = ALLOCATOR.begin();
    assert!(chair::read_ground_truth(file.as_bytes()).is_err());
    let peak = ALLOCATOR.peak().saturating_sub(before);
    assert!(peak < 8 * file.len(), "{peak} bytes at a time for {}", file.len());
}

/// Reports of CHAIR, of this project and of lmms-eval.
fn chair_reports() -> Vec<Vec<u8>> {
    let own = json!({ "chair_i": 0.2, "chair_s": null, "recall": 0.5, "protocol": { "rules": "strict", "images": 3 } });
    let other = json!({
        "results": { "coco_cap_chair": { "coco_cap_chair_i,none": 20.0, "coco_cap_recall,none": 70.0 } },
        "configs": { "coco_cap_chair": { "generation_kwargs": { "max_new_tokens": 9 } } },
        "n-samples": { "coco_cap_chair": { "effective": 3 } },
    });
    vec![bytes(&own), bytes(&json!({ "files": [own] })), bytes(&other)]
}

/// One JSON object on each line, or a list of them.
fn rows() -> Vec<Reader> {
    let answers_rows = [
        json!({ "question_id": 1, "text": "Yes." }),
        json!({ "question_id": "a", "prediction": "No", "answer": "yes", "image": "x_000000000012.jpg" }),
    ];
    let captions = [
        json!({ "image_id": 391_895, "caption": "A dog on a bench." }),
        json!({ "image_id": "COCO_val2014_000000000042.jpg", "caption": "Two cats." }),
        json!({ "image_id": 391_895.0, "caption": null }),
        json!({ "image_id": 7, "caption": "A", "prompt": "Go.", "tokens": [{ "id": 1 }], "finish_reason": "stop" }),
    ];
    let both = |rows: &[Value]| vec![lines(rows), bytes(&json!(rows))];
    let questions =
        [json!({ "question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes" })];
    let likelihoods = [json!({ "question_id": 1, "likelihoods": [-1.5, -2.0] })];
    let verdicts = [json!({ "id": 1, "text": "4.5" })];
    vec![
        reader("answers", Form::JsonLines, both(&answers_rows), |input| {
            let _ = answers::read_answers(input, None);
            let _ = answers::read_answers(input, Some("prediction"));
        }),
        reader("chair-captions", Form::JsonLines, both(&captions), |input| {
            drop(chair::read_captions(input));
            drop(chair::read_made_captions(input));
        }),
        reader("image-list", Form::Json, vec![bytes(&json!([42, "000000000073"]))], |input| {
            drop(chair::ImageList::read("list", input));
        }),
        reader("chair-report", Form::Json, chair_reports(), |input| {
            if let Ok(report) = serde_json::from_slice(input) {
                drop(chair::read_other_report(&report));
            }
        }),
        reader("captions", Form::JsonLines, both(&captions), |input| {
            drop(read_caption_rows(input));
        }),
        reader("pope", Form::JsonLines, both(&questions), |input| {
            drop(pope::read_questions(input));
        }),
        reader("likelihoods", Form::JsonLines, both(&likelihoods), |input| {
            drop(options::read_likelihoods(input));
        }),
        reader("verdicts", Form::JsonLines, both(&verdicts), |input| {
            drop(judged::read_verdicts(input));
        }),
    ]
}

/// Labels and predictions of hallucinated spans, in all their layouts.
fn localization() -> Reader {
    let text = "A café, a red dog";
    let part = json!({ "name": "red", "char_index": "10:13", "token_index": "4" });
    let labels = [
        json!({ "id": 1, "image_id": 7, "hallucinated_text": text, "annotations": { "attribute": [{ "attr": part }], "scene": [] } }),
        json!({ "id": "b", "response": text, "annotations": [{ "start": 2, "end": 6, "text": "café", "label": "UNSURE" }] }),
        json!({ "image": "c.jpg", "text": text, "spans": [[2, 6], [2, 6, "scene"], { "text": "dog", "type": "object" }] }),
        json!({ "text": text, "tokens": ["A", "caf", "##é", ",", "a", "red", "dog"], "labels": [0, 1, true, "B-x", "I-x", "O", "I"] }),
    ];
    let mention = json!({ "start": 14, "end": 17, "text": "dog", "negated": false, "score": 0.1, "p_hallucinated": 0.7, "hallucinated": true });
    let predictions = [
        json!({ "image_id": "c", "caption": text, "unit": "cosine", "mentions": [mention], "hallucinated": 1 }),
        json!({ "image": "c.jpg", "text": text, "spans": [{ "start": 2, "end": 6, "score": 0.5 }] }),
        json!({ "tokens": ["A", "dog"], "scores": [0.5, null] }),
    ];
    let files = vec![lines(&labels), bytes(&json!(labels)), lines(&predictions)];
    reader("localization", Form::JsonLines, files, |input| {
        for broken in [Broken::Refuse, Broken::Skip] {
            let options = LabelOptions { broken, ..LabelOptions::default() };
            drop(read_labels(input, &options));
            drop(read_predictions(input, &options));
        }
    })
}

/// One JSON document.
fn lists() -> Vec<Reader> {
    let coco = json!({
        "images": [{ "id": 42, "file_name": "COCO_val2014_000000000042.jpg" }],
        "categories": [{ "id": 18, "name": "dog", "supercategory": "animal" }],
        "annotations": [{ "id": 1, "image_id": 42, "category_id": 18, "caption": "A dog." }],
    });
    let gqa_file = json!({ "1": { "question": "What is it?", "imageId": "2", "answer": "dog", "types": { "structural": "query" },
                                  "semantic": [], "entailed": [], "equivalent": ["1"], "isBalanced": true } });
    let problems = json!({ "1": { "question": "Which?", "choices": ["a", "b"], "answer": 0, "hint": "", "image": "image.png",
                                  "subject": "natural science", "grade": "grade2", "split": "test" } });
    let splits = json!({ "test": ["1"], "train": [] });
    let annotations =
        json!([{ "id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"] }]);
    let queries = json!([{ "id": 1, "image": "AMBER_1.jpg", "query": "Describe this image." }]);
    let associations = json!({ "dog": ["leash", "collar"] });
    vec![
        reader("coco", Form::Json, vec![bytes(&coco)], |input| {
            let _ = chair::read_ground_truth(input);
            let _ = read_references(input);
        }),
        reader("gqa", Form::Json, vec![bytes(&gqa_file)], |input| drop(gqa::read_questions(input))),
        reader("science-qa", Form::Json, vec![bytes(&problems), bytes(&splits)], |input| {
            let _ = science_qa::read_problems(input);
            let _ = science_qa::read_splits(input);
        }),
        reader(
            "amber",
            Form::Json,
            [annotations, queries, associations].iter().map(bytes).collect(),
            |input| {
                let _ = amber::read_annotations(input);
                let _ = amber::read_queries(input);
                let _ = amber::read_associations(input);
            },
        ),
        reader("mm-vet", Form::Json, vec![bytes(&json!({ "v1_0": "A dog." }))], |input| {
            let _ = judged::mm_vet::read_questions(input);
            let _ = judged::mm_vet::read_results(input);
            let _ = judged::mm_vet::read_grades(input);
        }),
    ]
}

/// Text with fields between tabs or commas.
fn tables() -> Vec<Reader> {
    let tsv = b"index\tquestion\tA\tB\tanswer\tcategory\timage\n1\tWhat?\ta dog\ta cat\tA\tx\tiVBORw0KGgo=\n2\t\"b\tc\"\ta\tb\tB\tx\t1\n";
    let task = b"a.jpg\tIs it a dog?\tYes\tno\na.jpg\tIs it a cat?\tNo\tno\n";
    let synonyms = b"dog, puppy, hound\ncat,  kitten\n";
    vec![
        reader("mmbench", Form::Text, vec![tsv.to_vec()], |input| {
            drop(options::read_mmbench(input));
        }),
        reader("mme", Form::Text, vec![task.to_vec()], |input| {
            let _ = mme::read_task("existence", input);
            let _ = mme::read_questions("existence", input);
        }),
        reader("synonyms", Form::Text, vec![synonyms.to_vec()], |input| {
            drop(chair::read_synonyms(input));
        }),
    ]
}

/// What a run goes on from, tensors and all.
fn trainer_state() -> Vec<u8> {
    let values = [0.5, -0.25];
    bytes(&json!({
        "iteration": 3,
        "parameters": { "a.lora_A": values },
        "moments": { "a.lora_A": [[0.1, 0.2], [0.01, 0.02]] },
        "optimiser_steps": 12,
        "parameter_steps": { "a.lora_A": 12 },
        "kl": null,
        "baseline": null,
        "base_recall": 0.8,
        "recall": { "integral": 0.1, "base_sum": 90.0, "images": 30, "surplus": 0.01, "variance": 0.001, "measurements": 3 },
        "hopeless": 0,
    }))
}

/// A calibration with a fit of its own.
fn calibration() -> Vec<u8> {
    let scores = (0..40).map(|at| f64::from(at) * 0.01 + 0.1).collect::<Vec<_>>();
    let correct = (0..40).map(|at| at >= 15 && at != 20 || at == 7).collect::<Vec<_>>();
    let calibration = fit_annotated(&scores, &correct).expect("enough of both");
    bytes(&serde_json::to_value(calibration).expect("JSON"))
}
