//! Methods side by side, on little of everything.

use std::fs;

use serde_json::Value;

use crate::fixture::Workplace;

const QUICK: [&str; 9] = [
    "compare",
    "--quick",
    "--seeds",
    "1",
    "--output",
    "compared",
    "--set",
    "align.iterations=1",
    "--methods",
];

fn compare(place: &Workplace, more: &[&str]) -> String {
    place.succeed(&[&QUICK[..], more].concat())
}

fn document(place: &Workplace) -> Value {
    serde_json::from_str(&fs::read_to_string(place.path("compared/compare.json")).unwrap()).unwrap()
}

#[test]
fn measured_methods_are_reused_and_later_ones_are_added() {
    let place = Workplace::new();
    let table = compare(&place, &["best-of-n,self-dpo,sft"]);
    for label in ["base model", "FiSAO (PPO)", "best of 8", "self-rewarding DPO", "SFT"] {
        assert!(table.contains(label), "{table}");
    }
    let first = document(&place);
    for method in first["methods"].as_array().unwrap() {
        let (key, row) = (&method["key"], &method["seeds"][0]);
        for number in ["chair_i", "chair_s", "recall", "mean_length", "pope_f1", "seconds"] {
            assert!(row[number].is_number(), "{key}: {number}: {row}");
        }
        let own = !["base", "sft"].iter().any(|given| key == given);
        assert_eq!(row["sampled_tokens"].as_u64() > Some(0), own, "{key}");
    }
    let ppo = place.path("compared/runs/fisao/seed-0/result.json");
    let written = fs::metadata(&ppo).unwrap().modified().unwrap();
    // What only calibration knows is asked, too: the run with annotations is not gone on with.
    compare(&place, &["base", "--labels", "none"]);
    assert!(fs::metadata(&ppo).unwrap().modified().unwrap() > written, "not trained again");
    let calibration = fs::read_to_string(place.path("compared/runs/fisao/seed-0/calibration.json"));
    assert!(calibration.unwrap().contains("\"mode\": \"none\""));
    // Nothing that took its time is removed.
    let earlier = place.path("compared/runs/fisao/seed-0.earlier-1");
    let calibration = fs::read_to_string(earlier.join("calibration.json")).unwrap();
    assert!(calibration.contains("\"mode\": \"annotations\""));
    assert!(earlier.join("result.json").is_file());
    compare(&place, &["base"]);
    assert!(place.path("compared/runs/fisao/seed-0.earlier-2").is_dir());
    fs::write(place.path("compared/runs/base/seed-0/result.json"), "{").unwrap();
    compare(&place, &["base"]);
    assert!(place.path("compared/runs/base/seed-0.earlier-1").is_dir(), "of what cannot be read");
    let written = fs::metadata(&ppo).unwrap().modified().unwrap();
    compare(&place, &["base", "--vary", "lora.rank=2"]);
    assert_eq!(fs::metadata(&ppo).unwrap().modified().unwrap(), written, "trained again");
    let keys: Vec<String> = document(&place)["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|method| method["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["base", "fisao", "fisao[rank=2]"]);
    for name in ["compare.md", "compare.html"] {
        assert!(place.path("compared").join(name).is_file(), "{name}");
    }
}

#[test]
fn invalid_comparisons_are_rejected_before_training() {
    let place = Workplace::new();
    let refuse = |more: &[&str]| place.refuse(&[&QUICK[..], more].concat());
    let error = refuse(&["base", "--vary", "lora.rnk=2"]);
    assert!(error.contains("`lora.rnk` is not a setting"), "{error}");
    let error = refuse(&["base", "--vary", "lora.rank"]);
    assert!(error.contains("gives no values"), "{error}");
    let error = refuse(&["base", "--vary", "vocabulary-fraction=1.5"]);
    assert!(error.contains("fractions above 0, at most 1"), "{error}");
    let error = refuse(&["base", "--vary", "align.learning-rate=0"]);
    assert!(error.contains("`align.learning-rate` = 0 is out of range"), "{error}");
}
