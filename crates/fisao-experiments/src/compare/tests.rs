use serde_json::json;

use super::document::{Budget, Decoding, Document, Measurements, Method, SeedRow, Settings};
use super::metric::Metric;
use super::{page, publish, tables};

const ROUNDING: f64 = 1e-9;

/// One seed; what is not given follows from CHAIR and recall in made-up ways.
fn row(seed: u64, chair_i: f64, recall: f64, length: f64) -> SeedRow {
    let greedy = Measurements {
        chair_i: Some(chair_i),
        chair_s: Some(3.0 * chair_i),
        recall: Some(recall),
        mean_length: length,
        pope_f1: Some(recall - chair_i),
        pope_accuracy: Some(0.9 - chair_i / 2.0),
        bleu_4: 0.2,
        rouge_l: 0.45 - chair_i,
        cider: 0.6 - chair_i,
    };
    let sampled =
        Measurements { chair_i: Some(1.5 * chair_i), chair_s: Some(4.0 * chair_i), ..greedy };
    let (seconds, sampled_tokens) = (300.0 + seed as f64, 120_000 + seed);
    let warnings = Vec::new();
    SeedRow { seed, greedy, seconds, sampled_tokens, sampled: Some(sampled), warnings }
}

/// A method with `CHAIR_I`, recall and length of each seed.
fn method(key: &str, label: &str, seeds: &[(f64, f64, f64)]) -> Method {
    let seed = |(seed, &(chair_i, recall, length))| row(seed, chair_i, recall, length);
    Method {
        key: key.to_owned(),
        label: label.to_owned(),
        description: String::new(),
        uses_external_data: false,
        budget: Some(Budget::Prompts),
        seeds: (0_u64..).zip(seeds).map(seed).collect(),
    }
}

fn settings(seeds: u64) -> Settings {
    Settings {
        model: "embedded".to_owned(),
        seeds: (0..seeds).collect(),
        scenes: 500,
        base: Some("base".to_owned()),
        against: Some("fisao".to_owned()),
        prompts: 3840,
        seconds: None,
        resolved: json!({ "max-new-tokens": 48, "fisao": { "kl": 0.1 } }),
    }
}

/// All methods, with numbers that nobody measured.
fn sample() -> Document {
    let base =
        method("base", "base model", &[(0.20, 0.80, 20.0), (0.22, 0.79, 20.5), (0.21, 0.80, 20.2)]);
    let sft = method("sft", "SFT", &[(0.10, 0.78, 19.0), (0.11, 0.77, 19.4), (0.108, 0.78, 19.1)]);
    let dpo = method(
        "dpo",
        "DPO, external pairs",
        &[(0.06, 0.74, 16.0), (0.09, 0.75, 17.0), (0.07, 0.73, 16.1)],
    );
    let own = method(
        "dpo-self",
        "self-rewarding DPO",
        &[(0.12, 0.79, 22.0), (0.10, 0.78, 21.0), (0.14, 0.79, 23.0)],
    );
    let sentence = method(
        "ppo-sentence",
        "sentence-level PPO",
        &[(0.09, 0.70, 14.0), (0.08, 0.71, 14.4), (0.095, 0.72, 14.8)],
    );
    let mut fisao = method(
        "fisao",
        "FiSAO (PPO)",
        &[(0.03, 0.80, 20.0), (0.04, 0.79, 20.1), (0.05, 0.81, 20.4)],
    );
    fisao.description = "PPO with a reward on every object mention.".to_owned();
    let free = method(
        "fisao-critic-free",
        "FiSAO (critic-free)",
        &[(0.04, 0.80, 20.0), (0.04, 0.80, 20.3), (0.049, 0.80, 20.5)],
    );
    let mut best = method(
        "best-of-n",
        "best of 8",
        &[(0.05, 0.81, 21.0), (0.052, 0.80, 21.0), (0.06, 0.81, 21.2)],
    );
    (best.budget, best.seeds[1].warnings) = (None, vec!["took long".to_owned()]);
    let untrained = Method { budget: None, ..base };
    let external = |method| Method { uses_external_data: true, ..method };
    let methods = vec![untrained, external(sft), external(dpo), own, sentence, fisao, free, best];
    Document::summarise(settings(3), methods, vec!["numbers are made up".to_owned()])
}

/// Three values of a setting.
fn ablation() -> Document {
    let mut methods = sample().methods;
    methods.truncate(1);
    for (value, chair_i) in [(0.1, 0.05), (0.01, 0.03), (0.5, 0.1)] {
        let key = format!("fisao[margin={value}]");
        methods.push(method(&key, &key, &[(chair_i, 0.8, 20.0), (chair_i + 0.01, 0.79, 20.0)]));
    }
    let against = Some("fisao[margin=0.1]".to_owned());
    Document::summarise(Settings { against, ..settings(2) }, methods, Vec::new())
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < ROUNDING, "{found} is not {expected}");
}

#[test]
fn mean_intervals_match_the_t_distribution() {
    let summary = sample().summary;
    let mean = summary.method("fisao").unwrap().mean(Decoding::Greedy, Metric::ChairI).unwrap();
    // 0.04 ± 4.302653 · 0.01 / √3
    assert_close(mean.spread.mean, 0.04);
    assert!((mean.interval.unwrap().high - 0.04 - 0.024_841_4).abs() < 1e-7);
    let sampled = summary.method("fisao").unwrap().mean(Decoding::Sampled, Metric::ChairI);
    assert_close(sampled.unwrap().spread.mean, 0.06);
    let cost = summary.method("fisao").unwrap();
    assert_close(cost.mean(Decoding::Greedy, Metric::Seconds).unwrap().spread.mean, 301.0);
    assert!(cost.mean(Decoding::Sampled, Metric::Seconds).is_none());
}

#[test]
fn relative_changes_are_computed_per_seed() {
    let summary = sample().summary;
    let found = summary.method("fisao").unwrap();
    let chair_i = found.chair_i_change.as_ref().unwrap();
    let expected = [0.03 / 0.20 - 1.0, 0.04 / 0.22 - 1.0, 0.05 / 0.21 - 1.0];
    for (&(_, found), expected) in chair_i.seeds.iter().zip(expected) {
        assert_close(found, expected);
    }
    assert_close(chair_i.mean, expected.iter().sum::<f64>() / 3.0);
    assert_close(chair_i.worst, 0.05 / 0.21 - 1.0);
    let recall = found.recall_change.as_ref().unwrap();
    assert_close(recall.mean, 0.01 / 3.0);
    assert_close(recall.worst, 0.0);
    let length = summary.method("ppo-sentence").unwrap().length_change.as_ref().unwrap();
    assert_close(length.worst, 14.0 / 20.0 - 1.0);
    assert_eq!(summary.method("base").unwrap().chair_i_change, None);
}

#[test]
fn tests_pair_seeds_and_holm_corrects_within_each_metric() {
    let summary = sample().summary;
    let test = summary.test(Decoding::Greedy, Metric::ChairI, "best-of-n").unwrap();
    // 0.02, 0.012, 0.01: mean 0.014, sd 0.0052915, t = 4.58258; by scipy's ttest_1samp:
    assert_close(test.difference, 0.014);
    assert!((test.p.unwrap() - 0.044_467).abs() < 1e-6, "{:?}", test.p);
    assert_eq!((test.seeds, test.sign_test_p), (3, None));
    let family = summary.tests.iter().filter(|test| {
        test.decoding == Decoding::Greedy && test.metric == Metric::ChairI && test.p.is_some()
    });
    let (count, smallest) = family.fold((0, f64::INFINITY), |(count, smallest), test| {
        assert!(test.p_holm >= test.p);
        (count + 1, test.p.unwrap().min(smallest))
    });
    assert_eq!(count, 7);
    let least = summary
        .tests
        .iter()
        .filter(|test| test.decoding == Decoding::Greedy && test.metric == Metric::ChairI);
    let least = least.filter_map(|test| test.p_holm).fold(f64::INFINITY, f64::min);
    assert_close(least, 7.0 * smallest);
    // BLEU is equal throughout: there is nothing to test.
    let bleu = summary.test(Decoding::Greedy, Metric::Bleu4, "sft").unwrap();
    assert_eq!((bleu.p, bleu.p_holm), (None, None));
    assert!(summary.test(Decoding::Greedy, Metric::ChairI, "fisao").is_none());
}

#[test]
fn sign_test_is_reported_with_enough_seeds() {
    let six = |offset: f64| [0.1, 0.12, 0.11, 0.13, 0.1, 0.12].map(|at| (at + offset, 0.8, 20.0));
    let methods = vec![method("fisao", "FiSAO", &six(0.0)), method("sft", "SFT", &six(0.05))];
    let document = Document::summarise(Settings { base: None, ..settings(6) }, methods, Vec::new());
    let test = document.summary.test(Decoding::Greedy, Metric::ChairI, "sft").unwrap();
    assert_close(test.sign_test_p.unwrap(), 2.0 / 64.0);
    let table = tables::tests(&document, Decoding::Greedy, Metric::ChairI).markdown();
    assert!(table.contains("sign test") && table.contains("0.031"), "{table}");
}

#[test]
fn metric_missing_for_a_seed_has_no_mean() {
    let mut methods = sample().methods;
    methods[1].seeds[2].greedy.chair_i = None;
    methods[1].seeds[0].sampled = None;
    methods[2].seeds.pop();
    let document = Document::summarise(settings(3), methods, Vec::new());
    let sft = document.summary.method("sft").unwrap();
    assert!(sft.mean(Decoding::Greedy, Metric::ChairI).is_none());
    assert!(sft.mean(Decoding::Greedy, Metric::Recall).is_some());
    assert!(sft.sampled.is_empty());
    // Tests take the seeds that both have.
    let test = document.summary.test(Decoding::Greedy, Metric::ChairI, "dpo").unwrap();
    assert_eq!(test.seeds, 2);
}

#[test]
fn numeric_settings_are_parsed_from_method_keys() {
    let of =
        |key: &str| method(key, "", &[]).setting().map(|(name, value)| (name.to_owned(), value));
    assert_eq!(of("fisao[margin=0.01]"), Some(("margin".to_owned(), 0.01)));
    assert_eq!(of("fisao[ppo.kl.coefficient=1e-1]"), Some(("ppo.kl.coefficient".to_owned(), 0.1)));
    assert_eq!(of("fisao[form=log-odds]"), None);
    assert_eq!(of("fisao"), None);
}

#[test]
fn comparison_round_trips_through_json() {
    let document = sample();
    let text = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["methods"][0]["seeds"][1]["chair_i"], 0.22);
    assert_eq!(value["methods"][1]["budget"], "prompts");
    assert!(value["summary"]["methods"][5]["greedy"]["bleu_4"]["mean"].is_number());
    assert_eq!(value["summary"]["methods"][5]["greedy"]["chair_i"]["runs"], 3);
}

#[test]
fn markdown_report_matches_the_snapshot() {
    insta::assert_snapshot!(tables::markdown(&sample()));
}

#[test]
fn terminal_summary_matches_the_snapshot() {
    insta::assert_snapshot!(tables::summary(&sample()));
}

#[test]
fn all_files_are_written_and_the_page_is_self_contained() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("run");
    publish(&sample(), &inner).unwrap();
    for name in [super::JSON, super::MARKDOWN, super::PAGE] {
        assert!(inner.join(name).exists(), "{name}");
    }
    let html = std::fs::read_to_string(inner.join(super::PAGE)).unwrap();
    for outside in ["src=", "href=", "url(", "@import", "{{"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("best of 8, seed 1: took long"));
    assert!(!html.contains("NaN"));
}

#[test]
fn page_plots_metrics_over_a_varied_setting() {
    assert!(!page::render(&sample()).contains("over margin"));
    let html = page::render(&ablation());
    assert!(html.contains("fisao over margin") && html.contains("seed 1"));
}

#[test]
fn comparison_of_a_single_method_can_be_rendered() {
    let nothing = Settings { base: None, against: None, ..settings(1) };
    let alone = method("fisao", "FiSAO", &[(0.0, 0.8, 20.0)]);
    let document = Document::summarise(nothing, vec![alone], Vec::new());
    assert!(document.summary.tests.is_empty());
    let markdown = tables::markdown(&document);
    assert!(!markdown.contains('†') && !markdown.contains("NaN"), "{markdown}");
    let html = page::render(&document);
    assert!(html.contains("FiSAO") && html.contains(" · 1 seed · "), "{html}");
    page::render(&Document::summarise(settings(0), Vec::new(), Vec::new()));
}
