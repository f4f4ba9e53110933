use std::collections::BTreeSet;

use fisao_align::AlignConfig;
use fisao_align::AlignError;
use fisao_align::group::GroupRelativeConfig;
use fisao_align::objective::{DpoConfig, Objective, SftConfig};
use fisao_align::ppo::{PpoConfig, Schedule};
use toml::{Table, Value};

use crate::assert_close;

/// Values just outside the range of every numeric key of the loop and of its objectives.
const OUT_OF_RANGE: &[(&str, &str, &[&str])] = &[
    ("ppo", "align.iterations", &["0", "100000001"]),
    ("ppo", "align.feature-cache-mb", &["1000000001"]),
    ("ppo", "align.feature-cache-disk-mb", &["1000000001"]),
    ("ppo", "align.images-per-iteration", &["0", "65537"]),
    ("ppo", "align.samples-per-image", &["0", "1025"]),
    ("ppo", "align.epochs", &["0", "1001"]),
    ("ppo", "align.minibatches", &["0", "65"]),
    ("ppo", "align.micro-batch", &["0"]),
    ("ppo", "align.learning-rate", &["0.0", "-1e-5", "1.1", "nan", "inf"]),
    ("ppo", "align.warmup-iterations", &["40"]),
    ("ppo", "align.weight-decay", &["-0.1", "101.0", "nan"]),
    ("ppo", "align.max-grad-norm", &["0.0", "-1.0", "1e300", "nan"]),
    ("ppo", "align.temperature", &["0.0", "1e-3", "101.0", "-1.0", "inf"]),
    ("ppo", "align.target-kl", &["0.0", "-1.0", "nan"]),
    ("ppo", "recall.every", &["0"]),
    ("ppo", "recall.margin", &["-1.0", "1.0", "nan"]),
    ("ppo", "recall.gain", &["-0.1", "nan"]),
    ("ppo", "recall.damping", &["-0.1", "inf"]),
    ("ppo", "recall.min-break-even", &["0.0", "1.0", "nan"]),
    ("ppo", "recall.max-break-even", &["0.1", "1.0", "nan"]),
    ("ppo", "length.min-ratio", &["0.0", "1.1", "nan"]),
    ("ppo", "length.max-ratio", &["0.9", "101.0", "nan"]),
    ("ppo", "length.gain", &["-0.1", "nan"]),
    ("ppo", "length.damping", &["-0.1", "inf"]),
    ("ppo", "length.max-bonus", &["0.0", "nan"]),
    ("ppo", "checkpoint.every", &["0"]),
    ("ppo", "checkpoint.keep", &["0"]),
    ("ppo", "objective.value-learning-rate", &["0.0", "-1.0", "nan"]),
    ("ppo", "objective.critic-warmup-iterations", &["40"]),
    ("ppo", "objective.clip-range", &["0.0", "1.0", "-0.2", "nan"]),
    ("ppo", "objective.value-clip-range", &["0.0", "-1.0", "inf"]),
    ("ppo", "objective.dual-clip", &["1.2", "1.0", "inf"]),
    ("ppo", "objective.gamma", &["-0.1", "1.1", "nan"]),
    ("ppo", "objective.lambda", &["-0.1", "1.1", "nan"]),
    ("ppo", "objective.entropy-coefficient", &["-0.1", "nan"]),
    ("ppo", "objective.kl.coefficient", &["-0.1", "nan"]),
    ("ppo", "objective.kl.target", &["0.0", "-1.0"]),
    ("ppo", "objective.kl.horizon", &["0.0", "-1.0"]),
    ("group-relative", "align.samples-per-image", &["1"]),
    ("group-relative", "objective.clip-range", &["0.0", "1.0", "nan"]),
    ("group-relative", "objective.dual-clip", &["1.2"]),
    ("group-relative", "objective.gamma", &["-0.1", "1.1"]),
    ("group-relative", "objective.entropy-coefficient", &["-0.1"]),
    ("group-relative", "objective.kl.coefficient", &["-0.1"]),
    ("group-relative", "objective.kl.target", &["0.0"]),
    ("group-relative", "objective.kl.horizon", &["0.0"]),
    ("dpo", "align.samples-per-image", &["1"]),
    ("dpo", "objective.beta", &["0.0", "-0.1", "inf"]),
    ("dpo", "objective.min-gap", &["-0.1", "nan"]),
    ("dpo", "objective.chosen-weight", &["-0.1", "inf"]),
];

/// Keys whose values are words, or numbers of which none is wrong: checked while parsing.
const WORDS: &[(&str, &str)] = &[
    ("ppo", "align.activation-dtype"),
    ("ppo", "align.gradient-checkpointing"),
    ("ppo", "align.exact"),
    ("ppo", "align.int8-sampling"),
    ("ppo", "align.schedule"),
    ("ppo", "checkpoint.best"),
    ("ppo", "recall.constraint"),
    ("ppo", "length.constraint"),
    ("ppo", "objective.kind"),
    ("ppo", "objective.whiten"),
    ("ppo", "objective.kl.controller"),
    ("group-relative", "objective.kind"),
    ("group-relative", "objective.baseline"),
    ("group-relative", "objective.whiten"),
    ("group-relative", "objective.kl.controller"),
    ("dpo", "objective.kind"),
    ("dpo", "objective.pairs"),
    ("sft", "objective.kind"),
];

/// Keys that are absent unless given.
const OPTIONAL: [(&str, &str); 4] = [
    ("ppo", "align.learning-rate"),
    ("ppo", "align.target-kl"),
    ("ppo", "objective.dual-clip"),
    ("group-relative", "objective.dual-clip"),
];

fn of(kind: &str) -> AlignConfig {
    let objective = match kind {
        "ppo" => Objective::Ppo(PpoConfig::default()),
        "group-relative" => Objective::GroupRelative(GroupRelativeConfig::default()),
        "dpo" => Objective::Dpo(DpoConfig::default()),
        _ => Objective::Sft(SftConfig::default()),
    };
    let mut config = AlignConfig { objective, ..AlignConfig::default() };
    if config.objective.definition().compares_responses() {
        config.align.samples_per_image = 4;
    }
    config
}

/// The configuration of a kind with one key set to what TOML reads.
fn with(kind: &str, key: &str, value: &str) -> Result<AlignConfig, String> {
    let mut table = Table::try_from(of(kind)).expect("serialise");
    let value = toml::from_str::<Table>(&format!("x = {value}")).expect("a value")["x"].clone();
    let mut place = &mut table;
    let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
    for part in path.split('.').filter(|part| !part.is_empty()) {
        place = place.get_mut(part).and_then(Value::as_table_mut).expect("a table");
    }
    place.insert(last.to_owned(), value);
    table.try_into().map_err(|error: toml::de::Error| error.to_string())
}

/// Every key of the tables `align`, `objective`, `recall`, `length` and `checkpoint`, dotted.
fn all_keys(kind: &str) -> BTreeSet<String> {
    fn collect(table: &Table, prefix: &str, keys: &mut BTreeSet<String>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => collect(inner, &format!("{prefix}{key}."), keys),
                _ => drop(keys.insert(format!("{prefix}{key}"))),
            }
        }
    }
    let (mut keys, table) = (BTreeSet::new(), Table::try_from(of(kind)).expect("serialise"));
    for name in ["align", "objective", "recall", "length", "checkpoint"] {
        collect(table[name].as_table().expect("a table"), &format!("{name}."), &mut keys);
    }
    let absent = OPTIONAL.iter().filter(|(of, key)| *of == kind || key.starts_with("align."));
    keys.extend(absent.map(|(_, key)| (*key).to_owned()));
    keys
}

const KINDS: [&str; 4] = ["ppo", "group-relative", "dpo", "sft"];

#[test]
fn defaults_are_valid_and_survive_a_round_trip() {
    for kind in KINDS {
        let config = of(kind);
        config.validate().unwrap_or_else(|error| panic!("{kind}: {error}"));
        let text = toml::to_string(&config).expect("serialise");
        assert_eq!(toml::from_str::<AlignConfig>(&text).expect("parse"), config);
    }
    assert_eq!(toml::from_str::<AlignConfig>("").expect("empty"), AlignConfig::default());
}

#[test]
fn every_config_key_is_validated() {
    for kind in KINDS {
        let own =
            |of: &str, key: &str| of == kind || (of == "ppo" && !key.starts_with("objective"));
        let numbers = OUT_OF_RANGE.iter().map(|(of, key, _)| (*of, *key));
        let checked: BTreeSet<String> = numbers
            .chain(WORDS.iter().copied())
            .filter(|(of, key)| own(of, key))
            .map(|(_, key)| key.to_owned())
            .collect();
        assert_eq!(all_keys(kind), checked, "{kind}");
    }
    for (kind, key, values) in OUT_OF_RANGE {
        for value in *values {
            let config = with(kind, key, value).expect("parses");
            let error = config.validate().expect_err(&format!("{key} = {value} was accepted"));
            let AlignError::OutOfRange { key: named, allowed, .. } = &error else {
                panic!("{key} = {value}: {error}");
            };
            assert_eq!(named, key, "{key} = {value}");
            assert!(error.to_string().contains(allowed.as_str()));
        }
    }
    for (kind, key) in WORDS {
        assert!(with(kind, key, "\"sideways\"").is_err(), "{key}");
    }
}

#[test]
fn every_config_key_takes_effect() {
    for kind in KINDS {
        for key in all_keys(kind) {
            let value = match key.as_str() {
                "objective.kind" => continue,
                // Refused where nothing is sampled.
                "align.int8-sampling" if ["dpo", "sft"].contains(&kind) => continue,
                "align.gradient-checkpointing" | "align.exact" | "align.int8-sampling" => "true",
                "recall.constraint" | "length.constraint" => "false",
                "align.activation-dtype" => "\"bf16\"",
                "align.schedule" => "\"cosine\"",
                "checkpoint.best" => "\"reward\"",
                "objective.whiten" => "\"mean-and-scale\"",
                "objective.kl.controller" => "\"adaptive\"",
                "objective.baseline" => "\"none\"",
                "objective.pairs" => "\"data\"",
                _ => "3",
            };
            let config = with(kind, &key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_ne!(config, of(kind), "{key} has no effect");
        }
    }
}

#[test]
fn keys_of_another_objective_are_rejected() {
    for (kind, key) in [
        ("ppo", "objective.beta"),
        ("dpo", "objective.clip-range"),
        ("sft", "objective.kl"),
        ("group-relative", "objective.lambda"),
        ("ppo", "align.learning-rates"),
        ("ppo", "checkpoint.evry"),
    ] {
        let error = with(kind, key, "1").expect_err(key);
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn range_error_names_key_value_range_and_remedy() {
    let error = with("ppo", "objective.clip-range", "1.5").unwrap().validate().expect_err("1.5");
    assert_eq!(
        error.to_string(),
        "`objective.clip-range` = 1.5 is out of range: it must be between 0 and 1, both excluded"
    );
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("--set objective.clip-range="), "{hint}");
}

#[test]
fn schedule_factors_match_hand_computed_values() {
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
fn the_learning_rate_is_that_of_the_decoders_size() {
    let chosen = |elements: usize| {
        AlignConfig::default().for_decoder(elements).align.learning_rate.expect("one is chosen")
    };
    // The demo's decoder, SmolVLM 256M, Qwen2 0.5B, LLaVA-1.5 7B and 13B; smaller ones as the demo's.
    for (elements, rate) in [
        (100_000, 6e-4),
        (1_963_200, 6e-4),
        (134_400_000, 1.3e-4),
        (494_000_000, 7.8e-5),
        (6_607_000_000, 3e-5),
        (12_900_000_000, 3e-5),
    ] {
        assert_close(chosen(elements), rate, 0.0);
    }
    let mut config = AlignConfig::default();
    config.align.learning_rate = Some(1e-3);
    assert_eq!(config.clone().for_decoder(1).align.learning_rate, Some(1e-3));
    let written = toml::to_string(&AlignConfig::default()).expect("settings are TOML");
    assert!(!written.contains("learning-rate = 3e"), "{written}");
}

#[test]
fn policy_schedule_starts_after_critic_warmup() {
    let mut config = AlignConfig::default();
    config.align.iterations = 6;
    config.align.learning_rate = Some(1.0);
    config.objective = Objective::Ppo(PpoConfig {
        critic_warmup_iterations: 2,
        value_learning_rate: 1.0,
        ..PpoConfig::default()
    });
    // Linear over 4 and over 6 iterations.
    let policy: Vec<f64> = (0..6).map(|i| config.learning_rates(i).policy).collect();
    assert_eq!(policy, [0.0, 0.0, 1.0, 0.75, 0.5, 0.25]);
    assert_close(config.learning_rates(0).value, 1.0, 0.0);
    assert_close(config.learning_rates(3).value, 0.5, 1e-12);
}
