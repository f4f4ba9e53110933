//! `fisao config`: every setting with its value, unit, range and what it does; and whether a file can be used.

use anyhow::bail;
use fisao_align::AlignConfig;
use fisao_runs::demo_config::demo_config;
use fisao_runs::settings::{self, as_table, as_toml, differences, value_of};
use fisao_runs::settings_reference::{SETTINGS, Setting};
use fisao_runs::{Refusal, Reporter, renamed};
use owo_colors::OwoColorize;
use serde_json::json;
use toml::{Table, Value};

use crate::arguments::{ConfigArguments, ConfigFormat};
use crate::output;

/// Width of the column of keys and values.
const COLUMN: usize = 52;

pub(crate) fn run(arguments: &ConfigArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let base = if arguments.demo { demo_config(0, false) } else { AlignConfig::default() };
    let config = settings::resolve(&base, &arguments.settings.changes(), reporter)?;
    let resolved = as_table(&config)?;
    if let Some(path) = &arguments.settings.config {
        let changed = differences(&as_table(&base)?, &resolved, "").len();
        let settings = if changed == 1 { "setting differs" } else { "settings differ" };
        reporter.note(format!(
            "{} can be used: {changed} {settings} from the defaults",
            path.display()
        ));
    }
    let chosen = chosen(&arguments.keys, &resolved, reporter)?;
    match arguments.format {
        ConfigFormat::Toml => output::line(as_toml(&config)?.trim_end()),
        ConfigFormat::Json => {
            let row = |setting: &Setting| {
                let mut row = json!(setting);
                row["value"] = json!(value_of(&resolved, &setting.key));
                row["in_force"] = in_force(setting, &resolved).into();
                row
            };
            output::json(&chosen.iter().map(|setting| row(setting)).collect::<Vec<_>>())
        }
        ConfigFormat::Text if arguments.keys.is_empty() => list(&chosen, &resolved),
        ConfigFormat::Text => {
            let explained: Vec<String> =
                chosen.iter().map(|setting| explained(setting, &resolved)).collect();
            output::line(explained.join("\n\n"))
        }
    }
}

/// Settings by key or table; those of the kinds in force first.
fn chosen(
    keys: &[String],
    resolved: &Table,
    reporter: &Reporter,
) -> anyhow::Result<Vec<&'static Setting>> {
    if keys.is_empty() {
        return Ok(SETTINGS.iter().filter(|setting| in_force(setting, resolved)).collect());
    }
    let mut chosen = Vec::new();
    for key in keys {
        let key = renamed::present_key(key, reporter);
        let below = format!("{key}.");
        let of = |setting: &&Setting| {
            let own = setting.key.replace("[]", "");
            own == key || own.starts_with(&below)
        };
        let mut found: Vec<&Setting> = SETTINGS.iter().filter(of).collect();
        if found.is_empty() {
            bail!(Refusal::new(format!("`{key}` is not a setting")).hint(nearest(&key)));
        }
        found.sort_by_key(|setting| !in_force(setting, resolved));
        chosen.extend(found);
    }
    Ok(chosen)
}

/// Which setting could have been meant, or what there is in its table.
fn nearest(key: &str) -> String {
    let table = key.split_once('.').map(|(table, _)| format!("{table}."));
    let of_table =
        |setting: &&Setting| table.as_ref().is_some_and(|table| setting.key.starts_with(table));
    let mut known: Vec<&str> =
        SETTINGS.iter().filter(of_table).map(|setting| setting.key.as_str()).collect();
    if known.is_empty() {
        known = SETTINGS
            .iter()
            .map(|setting| setting.key.split_once('.').map_or(&*setting.key, |(table, _)| table))
            .collect();
    }
    known.dedup();
    settings::suggestion(key, key, &known)
}

/// Whether a setting exists beside the others that were chosen.
fn in_force(setting: &Setting, resolved: &Table) -> bool {
    setting.when.as_ref().is_none_or(|when| {
        let Some((key, value)) = when.split_once(" = ") else { return true };
        value_of(resolved, key).is_some_and(|found| found.to_string() == value)
    })
}

/// A line for each setting, under its table.
fn list(settings: &[&Setting], resolved: &Table) -> anyhow::Result<()> {
    let mut table = "";
    for setting in settings {
        let own = setting.key.split_once('.').map_or("", |(table, _)| table);
        if own != table {
            output::line(format!("\n{}", format!("[{}]", own.trim_end_matches("[]")).bold()))?;
            table = own;
        }
        let left = format!("{} = {}", setting.key, shown(setting, resolved));
        let left = format!("{left:<COLUMN$}");
        output::line(format!("{left}  {}", shortened(setting.summary()).dimmed()))?;
    }
    Ok(())
}

/// The beginning of a summary that would not fit into a line.
fn shortened(summary: &str) -> String {
    const LONGEST: usize = 90;
    let mut words = String::new();
    for word in summary.split(' ') {
        if words.chars().count() + word.chars().count() > LONGEST {
            return words.trim_end_matches([',', ':', ';', ' ']).to_owned() + " …";
        }
        words.push_str(word);
        words.push(' ');
    }
    words.trim_end().to_owned()
}

/// All there is to say about a setting.
fn explained(setting: &Setting, resolved: &Table) -> String {
    let mut lines = vec![if in_force(setting, resolved) {
        format!("{} = {}", setting.key.bold(), shown(setting, resolved))
    } else {
        format!("{} (with {})", setting.key.bold(), setting.when.as_deref().unwrap_or_default())
    }];
    let optional = if setting.optional { ", or absent" } else { "" };
    lines.push(format!("  {}{optional}", setting.kind.dimmed()));
    lines.extend(textwrap::wrap(&setting.doc, 98).iter().map(|line| format!("  {line}")));
    for word in &setting.values {
        lines.push(format!("    {}  {}", word.name.cyan(), word.doc));
    }
    lines.join("\n")
}

/// The value of a setting as it is written in a file.
fn shown(setting: &Setting, resolved: &Table) -> String {
    value_of(resolved, &setting.key).map_or_else(
        || "(absent)".to_owned(),
        |value| match value {
            Value::Float(number) => number.to_string(),
            value => value.to_string(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dotted keys of all values.
    fn keys(table: &Table, prefix: &str) -> Vec<String> {
        let of = |(key, value): (&String, &Value)| match value {
            Value::Table(inner) => keys(inner, &format!("{prefix}{key}.")),
            _ => vec![format!("{prefix}{key}")],
        };
        table.iter().flat_map(of).collect()
    }

    #[test]
    fn every_setting_of_every_objective_and_reward_is_documented() {
        for kind in ["ppo", "group-relative", "dpo", "sft"] {
            for form in ["threshold", "log-odds", "corrected", "sentence"] {
                let text = format!(
                    "[align]\nsamples-per-image = 2\n[objective]\nkind = \"{kind}\"\n[reward.form]\nkind = \"{form}\""
                );
                let config: AlignConfig = toml::from_str(&text).unwrap();
                let resolved = Table::try_from(&config).unwrap();
                for key in keys(&resolved, "") {
                    let known = SETTINGS
                        .iter()
                        .any(|setting| setting.key == key && in_force(setting, &resolved));
                    assert!(known, "{key} of {kind} and {form}");
                }
            }
        }
    }

    #[test]
    fn tables_and_settings_are_found_by_key() {
        let resolved = Table::try_from(AlignConfig::default()).unwrap();
        let found = |key: &str| {
            chosen(&[key.to_owned()], &resolved, &Reporter::silent()).map(|found| found.len())
        };
        assert_eq!(found("align.learning-rate").unwrap(), 1);
        assert!(found("guards").unwrap() > 10);
        assert_eq!(found("objective.clip-range").unwrap(), 2, "of either objective that has it");
        assert_eq!(found("ppo.epochs").unwrap(), 1, "former names are understood");
        let error = found("align.leaning-rate").unwrap_err();
        assert_eq!(error.to_string(), "`align.leaning-rate` is not a setting");
    }
}
