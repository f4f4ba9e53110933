//! The settings of an alignment run: defaults, then a TOML file, then `--set key.path=value`.

use std::path::Path;

use anyhow::{Context, bail};
use fisao_align::AlignConfig;
use fisao_formats::RunFolder;
use fisao_formats::documents::read_toml;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::arguments::SettingsArguments;
use crate::failure::Refusal;

/// The key that tells which of several sets of keys a table holds.
const KIND: &str = "kind";
/// Most edits between an unknown key and one that is offered instead.
const MOST_EDITS: usize = 3;

/// `base`, changed by what the command line names, and checked.
pub(crate) fn resolve(
    base: &AlignConfig,
    arguments: &SettingsArguments,
) -> anyhow::Result<AlignConfig> {
    let file = match &arguments.config {
        Some(path) => read_toml::<Table>("configuration", path)?,
        None => Table::new(),
    };
    let mut set = Table::new();
    for setting in &arguments.set {
        let (key, value) = key_and_value(setting)?;
        insert(&mut set, key, value)?;
    }
    let mut settings = Table::try_from(base).context("the default settings are not TOML")?;
    merge(&mut settings, file.clone());
    merge(&mut settings, set.clone());
    let config: AlignConfig =
        parse(settings, &[(arguments.config.as_deref(), &file), (None, &set)])?;
    config.validate()?;
    Ok(config)
}

/// The settings a run was begun with. What the command line names must agree with them.
pub(crate) fn of_run(
    folder: &RunFolder,
    arguments: &SettingsArguments,
) -> anyhow::Result<AlignConfig> {
    let begun: AlignConfig = read_toml("configuration", &folder.path(RunFolder::CONFIG))?;
    begun.validate()?;
    let asked = resolve(&begun, arguments)?;
    let table = |config| Table::try_from(config).context("the settings are not TOML");
    let changed = differences(&table(&begun)?, &table(&asked)?, "");
    if !changed.is_empty() {
        bail!(
            Refusal::new(format!(
                "{} was begun with other settings: {}",
                folder.root().display(),
                changed.join(", ")
            ))
            .hint("leave them out to go on with the run, or start another in a new folder")
        );
    }
    Ok(begun)
}

/// Dotted keys whose values differ, with both.
fn differences(begun: &Table, asked: &Table, prefix: &str) -> Vec<String> {
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
pub(crate) fn key_and_value(setting: &str) -> anyhow::Result<(&str, Value)> {
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
                .hint("write it as in the configuration file, for instance ppo.clip-range")
        );
    }
    let parsed = toml::from_str::<Table>(&format!("value = {value}"));
    // A value with a line break could smuggle in further keys.
    let parsed = parsed.ok().filter(|table| table.len() == 1).and_then(|mut t| t.remove("value"));
    Ok((key, parsed.unwrap_or_else(|| Value::String(value.to_owned()))))
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
    settings: Table,
    sources: &[(Option<&Path>, &Table)],
) -> anyhow::Result<T> {
    T::deserialize(Value::Table(settings)).map_err(|error: toml::de::Error| {
        let text = error.to_string();
        let (reason, place) = text.trim_end().split_once("\nin `").unwrap_or((text.trim_end(), ""));
        let Some((unknown, known)) = unknown_key(reason) else {
            let place = place.trim_end_matches('`');
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
pub(crate) fn suggestion(path: &str, unknown: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| edits(unknown, candidate));
    match nearest {
        Some(nearest) if edits(unknown, nearest) <= MOST_EDITS => {
            let parent = path.strip_suffix(unknown).unwrap_or_default();
            format!("did you mean `{parent}{nearest}`?")
        }
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(from != to)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use fisao_verifier::rewards::RewardForm;

    fn with(set: &[&str]) -> anyhow::Result<AlignConfig> {
        let set = set.iter().map(ToString::to_string).collect();
        resolve(&AlignConfig::default(), &SettingsArguments { config: None, set })
    }

    fn refused(set: &[&str]) -> String {
        with(set).expect_err("the setting is wrong").to_string()
    }

    #[test]
    fn values_are_toml_or_plain_words() {
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
    fn settings_reach_their_place() {
        let config = with(&["ppo.clip-range=0.1", "seed=7", "ppo.kl.controller=adaptive"]).unwrap();
        assert!((config.ppo.clip_range - 0.1).abs() < f64::EPSILON);
        assert_eq!(config.seed, 7);
        let adaptive = fisao_align::ppo::KlControllerKind::Adaptive;
        assert_eq!(config.ppo.kl.controller, adaptive);
    }

    #[test]
    fn another_kind_of_table_replaces_the_default_one_in_any_order() {
        let expected = RewardForm::Threshold { margin: 0.01, max: 3.0 };
        for set in [
            ["reward.form.kind=threshold", "reward.form.margin=0.01"],
            ["reward.form.margin=0.01", "reward.form.kind=threshold"],
        ] {
            assert_eq!(with(&set).unwrap().reward.form, expected, "{set:?}");
        }
    }

    #[test]
    fn a_file_lies_between_the_defaults_and_the_command_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "seed = 3\n[ppo]\niterations = 5\nepochs = 1\n").unwrap();
        let arguments = SettingsArguments {
            config: Some(file.path().to_owned()),
            set: vec!["ppo.iterations=6".into()],
        };
        let config = resolve(&AlignConfig::default(), &arguments).unwrap();
        assert_eq!((config.seed, config.ppo.iterations, config.ppo.epochs), (3, 6, 1));
        let written = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<AlignConfig>(&written).unwrap(), config);
    }

    #[test]
    fn a_run_goes_on_with_its_own_settings_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let begun = with(&["ppo.iterations=7", "seed=3"]).unwrap();
        folder.write_toml(RunFolder::CONFIG, &begun).unwrap();
        let go_on = |set: &[&str]| {
            let set = set.iter().map(ToString::to_string).collect();
            of_run(&folder, &SettingsArguments { config: None, set })
        };
        assert_eq!(go_on(&[]).unwrap(), begun);
        assert_eq!(go_on(&["ppo.iterations=7"]).unwrap(), begun);
        let refusal = go_on(&["ppo.iterations=8", "reward.placement=spread"]).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("`ppo.iterations` = 7, not 8"), "{text}");
        assert!(text.contains("`reward.placement` = \"last\", not \"spread\""), "{text}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_table() {
        let error = with(&["ppo.clip-rnge=0.1"]).unwrap_err();
        assert_eq!(error.to_string(), "--set: `ppo.clip-rnge` is not a setting");
        let text = crate::failure::describe(&error);
        assert!(text.contains("did you mean `ppo.clip-range`?"), "{text}");
        assert_eq!(refused(&["reward.form.knd=1"]), "--set: `reward.form.knd` is not a setting");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let text = refused(&["ppo.iterations=many"]);
        assert!(text.contains("`ppo.iterations`") && text.contains("\"many\""), "{text}");
        assert!(refused(&["ppo=1", "ppo.iterations=2"]).contains("`ppo`"));
        assert!(refused(&["ppo.iterations=0"]).contains("`ppo.iterations` = 0 is out of range"));
        assert!(refused(&["ppo"]).contains("no value"));
        assert!(refused(&["ppo..x=1"]).contains("not a key"));
    }
}
