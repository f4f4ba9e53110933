//! The settings of an alignment run: defaults, then a TOML file, then `--set key.path=value`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_align::config::LARGEST_SEED;
use fisao_formats::FormatError;
use fisao_formats::documents::read_toml;
use fisao_formats::run_folder::RunFolder;
use serde::de::DeserializeOwned;
use strsim::levenshtein;
use toml::{Table, Value};

use crate::failure::{InternalError, OrInternal as _, Refusal};
use crate::renamed;
use crate::reporter::Reporter;

/// The key that tells which of several sets of keys a table holds.
const KIND: &str = "kind";
/// Most edits between an unknown key and one that is offered instead.
const MOST_EDITS: usize = 3;

/// What settings are changed by: a file, then single settings.
#[derive(Clone, Debug, Default)]
pub struct SettingsChanges {
    /// Settings in TOML.
    pub config: Option<PathBuf>,
    /// One setting each, as `key.path=value`.
    pub set: Vec<String>,
}

/// Settings as the table that a file of them holds.
pub fn as_table(config: &AlignConfig) -> Result<Table, InternalError> {
    Table::try_from(config).or_internal("the settings are not TOML")
}

/// Settings as a file of them, with all tables.
pub fn as_toml(config: &AlignConfig) -> Result<String, InternalError> {
    toml::to_string_pretty(config).or_internal("the settings are not TOML")
}

/// Writes settings into a run's folder.
pub fn write(folder: &RunFolder, config: &AlignConfig) -> Result<(), FormatError> {
    folder.write_toml(RunFolder::CONFIG, config)
}

/// `base`, changed by what the command line names, and checked.
pub fn resolve(
    base: &AlignConfig,
    changes: &SettingsChanges,
    reporter: &Reporter,
) -> anyhow::Result<AlignConfig> {
    let file = match &changes.config {
        Some(path) => renamed(read_toml::<Table>("configuration", path)?, reporter)?,
        None => Table::new(),
    };
    let mut set = Table::new();
    for setting in &changes.set {
        let (key, value) = key_and_value(setting)?;
        let key = renamed::present_key(key, reporter);
        let value = renamed::present_value(&key, value, reporter);
        insert(&mut set, &key, value)?;
    }
    // A seed of the command line, which TOML could not write.
    if base.seed > LARGEST_SEED {
        base.validate()?;
    }
    let mut settings = as_table(base)?;
    merge(&mut settings, file.clone());
    merge(&mut settings, set.clone());
    let config: AlignConfig =
        parse(&settings, &[(changes.config.as_deref(), &file), (None, &set)])?;
    config.validate()?;
    Ok(config)
}

/// A file's settings under their present names.
fn renamed(mut file: Table, reporter: &Reporter) -> anyhow::Result<Table> {
    let mut settings = Table::new();
    for former in leaves(&file, "").into_iter().filter(|key| renamed::is_former(key)) {
        if let Some(value) = value_of(&file, &former) {
            remove(&mut file, &former);
            insert(&mut settings, &renamed::present_key(&former, reporter), value)?;
        }
    }
    for table in renamed::former_tables() {
        if file.get(table).and_then(Value::as_table).is_some_and(|rest| leaves(rest, "").is_empty())
        {
            file.remove(table);
        }
    }
    // What is written under the present names counts.
    merge(&mut settings, file);
    for key in leaves(&settings, "") {
        if let Some(value) = value_of(&settings, &key) {
            insert(&mut settings, &key, renamed::present_value(&key, value, reporter))?;
        }
    }
    Ok(settings)
}

/// The value of a dotted key.
pub fn value_of(table: &Table, key: &str) -> Option<Value> {
    match key.split_once('.') {
        None => table.get(key).cloned(),
        Some((first, rest)) => value_of(table.get(first)?.as_table()?, rest),
    }
}

/// The settings a run was begun with. What the command line names must agree with them, but for the number of iterations: with
/// another one the run is extended or shortened.
pub fn of_run(
    folder: &RunFolder,
    changes: &SettingsChanges,
    reporter: &Reporter,
) -> anyhow::Result<AlignConfig> {
    let begun: AlignConfig = read_toml("configuration", &folder.path(RunFolder::CONFIG))?;
    begun.validate()?;
    let asked = resolve(&begun, changes, reporter)?;
    let (before, after) = (begun.align.iterations, asked.align.iterations);
    let mut begun = begun;
    begun.align.iterations = after;
    let changed = differences(&as_table(&begun)?, &as_table(&asked)?, "");
    if !changed.is_empty() {
        bail!(
            Refusal::new(format!(
                "{} was started with other settings: {}",
                folder.root().display(),
                changed.join(", ")
            ))
            .hint(
                "leave them out to resume the run, or start another in a new folder; align.iterations alone may change"
            )
        );
    }
    if before != after {
        reporter.note(format!(
            "{after} iterations instead of {before}: from here on learning rates are those of a run of {after}"
        ));
    }
    Ok(begun)
}

/// Dotted keys whose values differ, with both.
pub fn differences(begun: &Table, asked: &Table, prefix: &str) -> Vec<String> {
    let mut keys: Vec<&String> = begun.keys().chain(asked.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let shown = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    keys.into_iter()
        .flat_map(|key| match (begun.get(key), asked.get(key)) {
            (Some(Value::Table(begun)), Some(Value::Table(asked))) => {
                differences(begun, asked, &format!("{prefix}{key}."))
            }
            (before, after) if before != after => {
                vec![format!("`{prefix}{key}` = {}, not {}", shown(before), shown(after))]
            }
            _ => Vec::new(),
        })
        .collect()
}

/// The parts of `key=value`, the value read as TOML or, where that fails, taken as it stands.
pub fn key_and_value(setting: &str) -> anyhow::Result<(&str, Value)> {
    let Some((key, value)) = setting.split_once('=') else {
        bail!(
            Refusal::new(format!("--set {setting} gives no value"))
                .hint(format!("write --set {setting}=VALUE"))
        );
    };
    let (key, value) = (key.trim(), value.trim());
    if key.split('.').any(str::is_empty) {
        bail!(
            Refusal::new(format!("`{key}` in --set {setting} is not a key"))
                .hint("write it as in the configuration file, for instance objective.clip-range")
        );
    }
    let parsed = toml::from_str::<Table>(&format!("value = {value}"));
    // A value with a line break could smuggle in further keys.
    let parsed = parsed.ok().filter(|table| table.len() == 1).and_then(|mut t| t.remove("value"));
    if parsed.is_none() && is_integer(value) {
        let message =
            format!("`{key}` = {value} is out of range: whole numbers reach from -2⁶³ to 2⁶³ - 1");
        bail!(Refusal::new(message));
    }
    Ok((key, parsed.unwrap_or_else(|| Value::String(value.to_owned()))))
}

/// Whether a text is a whole number, however long.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

/// Puts a value where its dotted key says.
fn insert(table: &mut Table, key: &str, value: Value) -> anyhow::Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else {
                bail!(Refusal::new(format!("--set gives `{first}` a value and keys below it")));
            };
            insert(inner, rest, value)
        }
    }
}

/// Lays one table over another. A table of another kind replaces the one below it, whose keys would
/// mean nothing there.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) if same_kind(below, &above) => {
                merge(below, above);
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn same_kind(below: &Table, above: &Table) -> bool {
    above.get(KIND).is_none_or(|kind| below.get(KIND) == Some(kind))
}

/// Reads the merged settings; `sources` are the parts they came from, for the error.
fn parse<T: DeserializeOwned>(
    settings: &Table,
    sources: &[(Option<&Path>, &Table)],
) -> anyhow::Result<T> {
    T::deserialize(Value::Table(settings.clone())).map_err(|error: toml::de::Error| {
        let text = error.to_string();
        let (reason, place) = text.trim_end().split_once("\nin `").unwrap_or((text.trim_end(), ""));
        let Some((unknown, known)) = unknown_key(reason) else {
            // Of a table that is told apart by its kind the error names no key.
            let culprit = culprit::<T>(settings, sources);
            let place = culprit.as_deref().unwrap_or(place.trim_end_matches('`'));
            return Refusal::new(format!("the setting `{place}` cannot be used: {reason}")).into();
        };
        let found =
            sources.iter().rev().find_map(|(path, table)| Some((path, path_of(table, unknown)?)));
        let (path, key) = found.unwrap_or((&None, unknown.to_owned()));
        let origin = path.map_or_else(|| "--set".to_owned(), |path| path.display().to_string());
        let refusal = Refusal::new(format!("{origin}: `{key}` is not a setting"));
        refusal.hint(suggestion(&key, unknown, &known)).into()
    })
}

/// The setting of one of the sources without which the rest can be read; `None` if there is no such one.
fn culprit<T: DeserializeOwned>(
    settings: &Table,
    sources: &[(Option<&Path>, &Table)],
) -> Option<String> {
    let given = sources.iter().rev().flat_map(|(_, table)| leaves(table, ""));
    given.into_iter().find(|key| {
        let mut rest = settings.clone();
        remove(&mut rest, key);
        T::deserialize(Value::Table(rest)).is_ok()
    })
}

/// Dotted keys of all values that are no tables.
fn leaves(table: &Table, prefix: &str) -> Vec<String> {
    let of = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => leaves(inner, &format!("{prefix}{key}.")),
        _ => vec![format!("{prefix}{key}")],
    };
    table.iter().flat_map(of).collect()
}

/// Takes a dotted key away.
fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => drop(table.remove(key)),
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// The unknown key, and the keys known in its place, of serde's message about it.
fn unknown_key(reason: &str) -> Option<(&str, Vec<&str>)> {
    let rest = reason.trim_end().strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    Some((unknown, rest.split('`').skip(1).step_by(2).collect()))
}

/// The dotted path of a key somewhere in a table.
fn path_of(table: &Table, key: &str) -> Option<String> {
    if table.contains_key(key) {
        return Some(key.to_owned());
    }
    table.iter().find_map(|(name, value)| match value {
        Value::Table(inner) => path_of(inner, key).map(|rest| format!("{name}.{rest}")),
        _ => None,
    })
}

/// "Did you mean", or what there is.
pub fn suggestion(path: &str, unknown: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| levenshtein(unknown, candidate));
    match nearest {
        Some(nearest) if levenshtein(unknown, nearest) <= MOST_EDITS => {
            let parent = path.strip_suffix(unknown).unwrap_or_default();
            format!("did you mean `{parent}{nearest}`?")
        }
        _ => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fisao_align::config::LoopConfig;
    use fisao_align::objective::Objective;
    use fisao_verifier::rewards::RewardForm;

    fn with(set: &[&str]) -> anyhow::Result<AlignConfig> {
        let set = set.iter().map(ToString::to_string).collect();
        resolve(
            &AlignConfig::default(),
            &SettingsChanges { config: None, set },
            &Reporter::silent(),
        )
    }

    fn refused(set: &[&str]) -> String {
        with(set).expect_err("the setting is wrong").to_string()
    }

    #[test]
    fn values_are_parsed_as_toml_or_plain_strings() {
        let value = |setting| key_and_value(setting).unwrap().1;
        assert_eq!(value("a=1"), Value::Integer(1));
        assert_eq!(value("a = 1e-3"), Value::Float(1e-3));
        assert_eq!(value("a=true"), Value::Boolean(true));
        assert_eq!(value("a=balanced"), Value::String("balanced".into()));
        assert_eq!(value("a=\"1\""), Value::String("1".into()));
        assert_eq!(value("a=[\"x\"]"), Value::Array(vec![Value::String("x".into())]));
        assert_eq!(value("a=1\nb=2"), Value::String("1\nb=2".into()));
    }

    #[test]
    fn settings_are_applied_to_their_keys() {
        let set = ["objective.clip-range=0.1", "seed=7", "objective.kl.controller=adaptive"];
        let config = with(&set).unwrap();
        let Objective::Ppo(ppo) = &config.objective else { panic!("{config:?}") };
        assert!((ppo.clip_range - 0.1).abs() < f64::EPSILON);
        assert_eq!(config.seed, 7);
        assert_eq!(ppo.kl.controller, fisao_align::ppo::KlControllerKind::Adaptive);
    }

    #[test]
    fn settings_are_read_under_former_names() {
        let former =
            ["ppo.epochs=3", "ppo.kl.coefficient=0.3", "ppo.target-kl=0.1", "ppo.gamma=0.9"];
        let present = [
            "align.epochs=3",
            "objective.kl.coefficient=0.3",
            "align.target-kl=0.1",
            "objective.gamma=0.9",
        ];
        assert_eq!(with(&former).unwrap(), with(&present).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[ppo]\nepochs = 3\ntarget-kl = 0.1\ngamma = 0.9\nkl.coefficient = 0.3\n";
        std::fs::write(file.path(), text).unwrap();
        let arguments = SettingsChanges { config: Some(file.path().to_owned()), set: Vec::new() };
        let read = resolve(&AlignConfig::default(), &arguments, &Reporter::silent()).unwrap();
        assert_eq!(read, with(&present).unwrap());
    }

    #[test]
    fn objective_kind_determines_the_valid_keys() {
        let set = ["objective.kind=dpo", "objective.beta=0.2", "align.samples-per-image=4"];
        let Objective::Dpo(dpo) = with(&set).unwrap().objective else { panic!("not dpo") };
        assert!((dpo.beta - 0.2).abs() < f64::EPSILON);
        let text = refused(&["objective.kind=sft", "objective.clip-range=0.1"]);
        assert_eq!(text, "--set: `objective.clip-range` is not a setting");
        let text = refused(&["objective.kind=reinforce"]);
        assert!(text.contains("`reinforce`") && text.contains("`group-relative`"), "{text}");
    }

    #[test]
    fn kind_of_a_table_replaces_its_defaults_in_any_order() {
        let expected = RewardForm::Threshold { margin: 0.01, max: 3.0 };
        for set in [
            ["reward.form.kind=threshold", "reward.form.margin=0.01"],
            ["reward.form.margin=0.01", "reward.form.kind=threshold"],
        ] {
            assert_eq!(with(&set).unwrap().reward.form, expected, "{set:?}");
        }
    }

    #[test]
    fn config_file_overrides_defaults_and_cli_overrides_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "seed = 3\n[align]\niterations = 5\nepochs = 1\n").unwrap();
        let arguments = SettingsChanges {
            config: Some(file.path().to_owned()),
            set: vec!["align.iterations=6".into()],
        };
        let config = resolve(&AlignConfig::default(), &arguments, &Reporter::silent()).unwrap();
        assert_eq!((config.seed, config.align.iterations, config.align.epochs), (3, 6, 1));
        let written = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<AlignConfig>(&written).unwrap(), config);
    }

    #[test]
    fn resumed_run_keeps_its_settings_except_iterations() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let begun = with(&["align.iterations=7", "seed=3"]).unwrap();
        folder.write_toml(RunFolder::CONFIG, &begun).unwrap();
        let go_on = |set: &[&str]| {
            let set = set.iter().map(ToString::to_string).collect();
            of_run(&folder, &SettingsChanges { config: None, set }, &Reporter::silent())
        };
        assert_eq!(go_on(&[]).unwrap(), begun);
        assert_eq!(go_on(&["align.iterations=7"]).unwrap(), begun);
        assert_eq!(go_on(&["align.iterations=9"]).unwrap().align.iterations, 9);
        let refusal = go_on(&["align.iterations=8", "reward.placement=spread"]).unwrap_err();
        let text = refusal.to_string();
        assert!(!text.contains("align.iterations"), "{text}");
        assert!(text.contains("`reward.placement` = \"last\", not \"spread\""), "{text}");
    }

    #[test]
    fn unknown_key_is_reported_with_its_full_path() {
        let error = with(&["objective.clip-rnge=0.1"]).unwrap_err();
        assert_eq!(error.to_string(), "--set: `objective.clip-rnge` is not a setting");
        let text = crate::failure::hint_of(&*error).unwrap();
        assert!(text.contains("did you mean `objective.clip-range`?"), "{text}");
        assert_eq!(refused(&["reward.form.knd=1"]), "--set: `reward.form.knd` is not a setting");
    }

    /// Every number of every kind of objective and reward, taken to where no number makes sense: it is refused by name, or
    /// what the run computes from it before it begins still holds.
    #[test]
    fn every_number_is_accepted_or_refused_by_name() {
        const KINDS: [&[&str]; 7] = [
            &["align.target-kl=0.1", "align.learning-rate=1e-4", "objective.dual-clip=3"],
            &[
                "objective.kind=group-relative",
                "align.samples-per-image=4",
                "objective.dual-clip=3",
            ],
            &["objective.kind=dpo", "align.samples-per-image=4"],
            &["objective.kind=sft"],
            &["reward.form.kind=threshold", "reward.penalty-weight=2"],
            &["reward.form.kind=log-odds", "score.regions=crops"],
            &["reward.form.kind=sentence"],
        ];
        const EXTREMES: [&str; 12] = [
            "0",
            "-1",
            "-5.0",
            "1e-300",
            "1e300",
            "nan",
            "inf",
            "-inf",
            "4294967296",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
        ];
        let mut tried = 0;
        for kind in KINDS {
            let base = Table::try_from(with(kind).unwrap()).unwrap();
            for key in leaves(&base, "") {
                let value = key
                    .split('.')
                    .try_fold(&Value::Table(base.clone()), |at, part| at.get(part))
                    .cloned();
                if !matches!(value, Some(Value::Integer(_) | Value::Float(_))) {
                    continue;
                }
                for extreme in EXTREMES {
                    tried += 1;
                    let setting = format!("{key}={extreme}");
                    match with(&[kind, &[setting.as_str()]].concat()) {
                        Err(error) => {
                            let text = error.to_string();
                            assert!(text.contains(&key), "{setting}: {text}");
                        }
                        Ok(config) => {
                            let LoopConfig { iterations, images_per_iteration, .. } = config.align;
                            let draws = iterations.checked_mul(images_per_iteration).unwrap();
                            assert!((draws as u64) < 1 << 56, "{setting}");
                            let responses = config.responses_per_iteration();
                            assert!(
                                responses <= 1 << 20 && config.max_new_tokens <= 1 << 20,
                                "{setting}"
                            );
                            for at in [0, iterations - 1] {
                                let rates = config.learning_rates(at);
                                assert!(
                                    rates.policy.is_finite() && rates.value.is_finite(),
                                    "{setting}"
                                );
                            }
                            assert!(config.lora.scale().is_finite(), "{setting}");
                            toml::to_string(&config)
                                .unwrap_or_else(|error| panic!("{setting}: {error}"));
                        }
                    }
                }
            }
        }
        assert!(tried > 2000, "{tried}");
    }

    #[test]
    fn seed_beyond_the_toml_range_is_rejected_with_the_range() {
        let base = AlignConfig { seed: u64::MAX, ..AlignConfig::default() };
        let error = resolve(&base, &SettingsChanges::default(), &Reporter::silent())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`seed` = 18446744073709551615")
                && error.contains("9223372036854775807"),
            "{error}"
        );
    }

    #[test]
    fn invalid_value_in_a_tagged_table_is_reported_by_key() {
        let text = refused(&["objective.critic-warmup-iterations=-1"]);
        assert!(text.contains("`objective.critic-warmup-iterations`"), "{text}");
        assert!(refused(&["reward.form.scale=big"]).contains("`reward.form.scale`"));
    }

    #[test]
    fn value_of_the_wrong_type_is_reported_by_key() {
        let text = refused(&["align.iterations=many"]);
        assert!(text.contains("align.iterations`") && text.contains("\"many\""), "{text}");
        assert!(refused(&["align=1", "align.iterations=2"]).contains("`align`"));
        assert!(
            refused(&["align.iterations=0"]).contains("`align.iterations` = 0 is out of range")
        );
        assert!(refused(&["align"]).contains("no value"));
        assert!(refused(&["align..x=1"]).contains("not a key"));
    }
}
