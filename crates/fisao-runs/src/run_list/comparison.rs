//! Runs beside each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::listing::measures;
use super::run::Run;
use fisao_report::table::{NONE, Table};

/// Values of one setting in the order of the runs; `None` where a run does not have it.
pub type Differences<'a> = BTreeMap<&'a str, Vec<Option<&'a toml::Value>>>;

/// The settings in which not all runs are equal, by their dotted keys.
pub fn differences(runs: &[Run]) -> Differences<'_> {
    let keys: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.settings.keys().map(String::as_str)).collect();
    let values = |key: &str| runs.iter().map(|run| run.settings.get(key)).collect::<Vec<_>>();
    let all = keys.into_iter().map(|key| (key, values(key)));
    all.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

/// The same for programs; `null` where a run does not have a setting.
pub fn as_json(settings: Differences<'_>) -> Map<String, Value> {
    let value = |value: Option<&toml::Value>| serde_json::to_value(value).unwrap_or_default();
    let values = |values: Vec<Option<&toml::Value>>| values.into_iter().map(value).collect();
    settings.into_iter().map(|(key, of_runs)| (key.to_owned(), values(of_runs))).collect()
}

/// A column for each run: first the settings, then what was measured.
pub fn table(runs: &[Run], settings: &Differences<'_>) -> Table {
    let paths = runs.iter().map(|run| run.path.as_str());
    let mut table = Table::new(&std::iter::once("").chain(paths).collect::<Vec<_>>());
    let mut row = |name: &str, values: Vec<String>| {
        table.row(std::iter::once(name.to_owned()).chain(values));
    };
    for (key, values) in settings {
        let shown = |value: Option<&toml::Value>| {
            value.map_or_else(|| NONE.to_owned(), ToString::to_string)
        };
        row(key, values.iter().copied().map(shown).collect());
    }
    row("state", runs.iter().map(|run| run.state.name().to_owned()).collect());
    for measure in measures(runs) {
        row(measure.name, runs.iter().map(measure.shown).collect());
    }
    table
}
