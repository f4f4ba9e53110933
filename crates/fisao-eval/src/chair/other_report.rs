//! Reports of CHAIR by this project, by its earlier versions and by lmms-eval, to be put beside one of ours.

use serde::Deserialize as _;
use serde_json::Value;

use super::Protocol;

/// A report that somebody else may have written: its numbers, as fractions, and what is known of how they came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtherReport {
    /// Name of the captions, where the report is about several files.
    pub name: Option<String>,
    /// Who wrote it, for people.
    pub source: &'static str,
    /// `CHAIR_S`.
    pub chair_s: Option<f64>,
    /// `CHAIR_I`.
    pub chair_i: Option<f64>,
    /// Recall.
    pub recall: Option<f64>,
    /// F1.
    pub f1: Option<f64>,
    /// What is known of how the numbers came about.
    pub protocol: Protocol,
    /// Whether the report lacks a protocol.
    pub missing_protocol: bool,
}

/// JSON that is no report of CHAIR.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "is no report of CHAIR; give what `fisao eval chair --format json` prints, or lmms-eval's *_results.json of \
     coco_cap_chair"
)]
pub struct NoReport;

/// lmms-eval's name for its task.
const TASK: &str = "coco_cap_chair";

/// Reads a report: of one file of captions, or of several.
///
/// # Errors
/// It is none.
pub fn read_other_report(value: &Value) -> Result<Vec<OtherReport>, NoReport> {
    if let Some(results) = value.pointer(&format!("/results/{TASK}")) {
        return Ok(vec![of_lmms_eval(value, results)]);
    }
    if let Some(files) = value.get("files").and_then(Value::as_array) {
        return files.iter().map(own).collect();
    }
    Ok(vec![own(value)?])
}

/// A report of this project.
fn own(value: &Value) -> Result<OtherReport, NoReport> {
    let number = |key: &str| value.get(key).and_then(Value::as_f64);
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if value.get("chair_i").is_none() || value.get("chair_s").is_none() {
        return Err(NoReport);
    }
    let written = value.get("protocol");
    let protocol = match written {
        Some(written) => Protocol::deserialize(written).map_err(|_| NoReport)?,
        // What earlier versions wrote.
        None => Protocol {
            scorer: text("rules").map(|_| "fisao".to_owned()),
            rules: text("rules"),
            vocabulary_sha256: text("vocabulary_sha256"),
            image_ids_sha256: text("image_ids_sha256"),
            captions: value.get("captions").and_then(Value::as_u64).map(|count| count as usize),
            ..Protocol::default()
        },
    };
    Ok(OtherReport {
        name: text("name"),
        source: "fisao",
        chair_s: number("chair_s"),
        chair_i: number("chair_i"),
        recall: number("recall"),
        f1: number("f1"),
        protocol,
        missing_protocol: written.is_none(),
    })
}

/// What lmms-eval writes: numbers in percent, and the settings of its task.
fn of_lmms_eval(value: &Value, results: &Value) -> OtherReport {
    let number = |key: &str| {
        // "coco_cap_chair_i,none", where none is the filter.
        let mut metrics = results.as_object()?.iter();
        let metric = metrics.find(|(name, _)| name.split(',').next() == Some(key));
        metric.and_then(|(_, value)| value.as_f64()).map(|percent| percent / 100.0)
    };
    let setting = |key: &str| value.pointer(&format!("/configs/{TASK}/generation_kwargs/{key}"));
    let greedy = setting("do_sample") == Some(&Value::Bool(false));
    let temperature = setting("temperature").and_then(Value::as_f64);
    let images = value.pointer(&format!("/n-samples/{TASK}/effective")).and_then(Value::as_u64);
    let images = images.map(|count| count as usize);
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (chair_i, recall) = (number("coco_cap_chair_i"), number("coco_cap_recall"));
    let precision = chair_i.map(|chair_i| 1.0 - chair_i);
    let f1 = precision.zip(recall).filter(|(precision, recall)| precision + recall > 0.0);
    OtherReport {
        name: None,
        source: "lmms-eval",
        chair_s: number("coco_cap_chair_s"),
        chair_i,
        recall,
        f1: f1.map(|(precision, recall)| 2.0 * precision * recall / (precision + recall)),
        protocol: Protocol {
            scorer: Some("lmms-eval".to_owned()),
            version: text("/lmms_eval_version").map(str::to_owned),
            rules: Some("lmms-eval".to_owned()),
            images,
            captions: images,
            model: text("/model_name").or_else(|| text("/config/model_args")).map(str::to_owned),
            temperature: if greedy { Some(0.0) } else { temperature },
            max_new_tokens: setting("max_new_tokens").and_then(Value::as_u64),
            ..Protocol::default()
        },
        missing_protocol: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_of_lmms_eval_are_read() {
        let results = json!({
            "results": { "coco_cap_chair": {
                "alias": "coco_cap_chair",
                "coco_cap_chair_i,none": 20.0, "coco_cap_chair_i_stderr,none": 0.4,
                "coco_cap_chair_s,none": 63.4, "coco_cap_chair_s_stderr,none": "N/A",
                "coco_cap_recall,none": 80.0, "coco_cap_recall_stderr,none": "N/A",
            } },
            "configs": { "coco_cap_chair": { "generation_kwargs": {
                "max_new_tokens": 2048, "temperature": 0, "do_sample": false, "until": []
            } } },
            "n-samples": { "coco_cap_chair": { "original": 500, "effective": 8 } },
            "model_name": "liuhaotian/llava-v1.5-7b",
            "lmms_eval_version": "0.7.3",
        });
        let [report] = &read_other_report(&results).unwrap()[..] else { panic!("one report") };
        let close = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-12;
        assert!(close(report.chair_i, 0.2) && close(report.chair_s, 0.634));
        assert!(close(report.recall, 0.8) && close(report.f1, 0.8), "{report:?}");
        let protocol = &report.protocol;
        assert_eq!((protocol.images, protocol.max_new_tokens), (Some(8), Some(2048)));
        assert_eq!(protocol.temperature, Some(0.0));
        assert_eq!(protocol.model.as_deref(), Some("liuhaotian/llava-v1.5-7b"));
        assert_eq!((protocol.prompt.as_ref(), report.missing_protocol), (None, true));
    }

    #[test]
    fn reports_of_this_project_are_read_with_and_without_protocol() {
        let old = json!({
            "chair_i": 0.25, "chair_s": null, "recall": 0.5, "captions": 3,
            "rules": "strict", "vocabulary_sha256": "v", "image_ids_sha256": "i",
        });
        let [report] = &read_other_report(&old).unwrap()[..] else { panic!("one report") };
        assert_eq!((report.chair_i, report.chair_s), (Some(0.25), None));
        assert!(report.missing_protocol);
        assert_eq!(report.protocol.rules.as_deref(), Some("strict"));
        let mut new = old.clone();
        new["protocol"] = json!({ "rules": "reference", "seed": 3 });
        new["name"] = "llava".into();
        let several = json!({ "mean": {}, "files": [new, old] });
        let reports = read_other_report(&several).unwrap();
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].name.as_deref(), Some("llava"));
        assert_eq!(reports[0].protocol.seed, Some(3));
        assert!(!reports[0].missing_protocol);
    }

    #[test]
    fn other_json_is_no_report() {
        for other in [json!([]), json!({ "accuracy": 1 }), json!({ "files": [{}] }), json!(null)] {
            assert_eq!(read_other_report(&other), Err(NoReport), "{other}");
        }
        let broken = json!({ "chair_i": 0.2, "chair_s": 0.1, "protocol": { "images": "many" } });
        assert_eq!(read_other_report(&broken), Err(NoReport));
    }
}
