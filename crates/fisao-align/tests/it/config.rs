use std::collections::BTreeSet;

use fisao_align::AlignError;
use fisao_align::ppo::{PpoConfig, Schedule};

use crate::assert_close;

/// Values just outside every numeric key's range.
const OUT_OF_RANGE: &[(&str, &[&str])] = &[
    ("iterations", &["0"]),
    ("images-per-iteration", &["0"]),
    ("samples-per-image", &["0"]),
    ("epochs", &["0"]),
    ("minibatches", &["0", "65"]),
    ("learning-rate", &["0.0", "-1e-5", "nan", "inf"]),
    ("value-learning-rate", &["0.0", "-1.0", "nan"]),
    ("warmup-iterations", &["40"]),
    ("critic-warmup-iterations", &["40"]),
    ("clip-range", &["0.0", "1.0", "-0.2", "nan"]),
    ("value-clip-range", &["0.0", "-1.0", "inf"]),
    ("dual-clip", &["1.2", "1.0", "inf"]),
    ("gamma", &["-0.1", "1.1", "nan"]),
    ("lambda", &["-0.1", "1.1", "nan"]),
    ("entropy-coefficient", &["-0.1", "nan"]),
    ("weight-decay", &["-0.1", "nan"]),
    ("max-grad-norm", &["0.0", "-1.0", "nan"]),
    ("temperature", &["0.0", "-1.0", "inf"]),
    ("target-kl", &["0.0", "-1.0", "nan"]),
    ("kl.coefficient", &["-0.1", "nan"]),
    ("kl.target", &["0.0", "-1.0"]),
    ("kl.horizon", &["0.0", "-1.0"]),
];

/// Keys whose values are words, checked while parsing.
const WORDS: &[&str] = &["schedule", "whiten", "kl.controller"];

/// Every key of the table, nested ones dotted.
fn all_keys() -> BTreeSet<String> {
    // Keys that are absent by default have to be there to be listed.
    let config = PpoConfig { dual_clip: Some(3.0), target_kl: Some(0.1), ..PpoConfig::default() };
    let table = toml::Table::try_from(config).expect("serialise");
    let mut keys = BTreeSet::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => keys.extend(inner.keys().map(|k| format!("{key}.{k}"))),
            _ => _ = keys.insert(key),
        }
    }
    keys
}

fn parse(text: &str) -> Result<PpoConfig, toml::de::Error> {
    toml::from_str(text)
}

#[test]
fn defaults_are_valid_and_survive_a_round_trip() {
    let config = PpoConfig::default();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(parse("").expect("empty table"), config);
    assert_eq!(parse(&toml::to_string(&config).expect("serialise")).expect("parse"), config);
}

#[test]
fn every_key_is_checked() {
    let checked: BTreeSet<String> = OUT_OF_RANGE
        .iter()
        .map(|(key, _)| *key)
        .chain(WORDS.iter().copied())
        .map(str::to_owned)
        .collect();
    assert_eq!(all_keys(), checked);
    for (key, values) in OUT_OF_RANGE {
        for value in *values {
            let config = parse(&format!("{key} = {value}")).expect("parses");
            let error = config.validate().expect_err(&format!("{key} = {value} was accepted"));
            let AlignError::OutOfRange { key: named, allowed, .. } = &error else {
                panic!("{key} = {value}: {error}");
            };
            assert_eq!(named, &format!("ppo.{key}"), "{key} = {value}");
            assert!(error.to_string().contains(allowed.as_str()));
        }
    }
    for key in WORDS {
        assert!(parse(&format!("{key} = \"sideways\"")).is_err(), "{key}");
    }
}

#[test]
fn every_key_is_read() {
    for key in all_keys() {
        let value = match key.as_str() {
            "schedule" => "\"cosine\"",
            "whiten" => "\"mean-and-scale\"",
            "kl.controller" => "\"adaptive\"",
            _ => "3",
        };
        let config = parse(&format!("{key} = {value}")).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_ne!(config, PpoConfig::default(), "{key} has no effect");
    }
}

#[test]
fn unknown_keys_are_rejected() {
    for text in ["clip_range = 0.1", "kl.beta = 0.1", "learning-rates = 1e-4"] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn the_message_names_key_value_range_and_way_out() {
    let error = PpoConfig { clip_range: 1.5, ..PpoConfig::default() }.validate().expect_err("1.5");
    assert_eq!(
        error.to_string(),
        "`ppo.clip-range` = 1.5 is out of range: it must be between 0 and 1, both excluded"
    );
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("--set ppo.clip-range="), "{hint}");
}

#[test]
fn schedules_on_paper() {
    // 4 warm-up steps of 12: (1, 2, 3, 4)/5, then u = (step − 4)/8.
    for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
        assert_close(schedule.factor(0, 12, 4), 0.2, 1e-12);
        assert_close(schedule.factor(3, 12, 4), 0.8, 1e-12);
        assert_close(schedule.factor(4, 12, 4), 1.0, 1e-12);
    }
    assert_close(Schedule::Constant.factor(11, 12, 4), 1.0, 1e-12);
    assert_close(Schedule::Linear.factor(6, 12, 4), 0.75, 1e-12);
    assert_close(Schedule::Linear.factor(11, 12, 4), 0.125, 1e-12);
    // ½ (1 + cos π/4) and ½ (1 + cos π/2).
    assert_close(Schedule::Cosine.factor(6, 12, 4), 0.5 + 0.125f64.sqrt(), 1e-12);
    assert_close(Schedule::Cosine.factor(8, 12, 4), 0.5, 1e-12);
    assert_close(Schedule::Linear.factor(99, 12, 4), 0.125, 1e-12);
}

#[test]
fn the_critic_starts_alone_and_the_policy_gets_its_whole_schedule() {
    let config = PpoConfig {
        iterations: 6,
        critic_warmup_iterations: 2,
        learning_rate: 1.0,
        value_learning_rate: 1.0,
        ..PpoConfig::default()
    };
    // Linear over 4 and over 6 iterations.
    let policy: Vec<f64> = (0..6).map(|i| config.learning_rates(i).policy).collect();
    assert_eq!(policy, [0.0, 0.0, 1.0, 0.75, 0.5, 0.25]);
    assert_close(config.learning_rates(0).value, 1.0, 0.0);
    assert_close(config.learning_rates(3).value, 0.5, 1e-12);
}
