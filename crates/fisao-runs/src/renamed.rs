//! Former names of settings and of their values, which are read as well as the present ones: the one table of them.

use toml::Value;

use crate::reporter::Reporter;

/// A former key and the present one, dotted.
const KEYS: [(&str, &str); 22] = [
    ("check-every", "validation-every"),
    ("align.recompute-layers", "align.gradient-checkpointing"),
    ("guards.entropy-share", "guards.entropy-fraction"),
    ("guards.neutral-share", "guards.neutral-fraction"),
    ("guards.shortest", "guards.min-length-ratio"),
    ("guards.longest", "guards.max-length-ratio"),
    ("recall.least", "recall.min-break-even"),
    ("recall.most", "recall.max-break-even"),
    ("objective.least-gap", "objective.min-gap"),
    ("vocabulary-share", "vocabulary-fraction"),
    // The table `ppo` once held the settings of the loop and of PPO together.
    ("ppo.iterations", "align.iterations"),
    ("ppo.images-per-iteration", "align.images-per-iteration"),
    ("ppo.samples-per-image", "align.samples-per-image"),
    ("ppo.epochs", "align.epochs"),
    ("ppo.minibatches", "align.minibatches"),
    ("ppo.learning-rate", "align.learning-rate"),
    ("ppo.warmup-iterations", "align.warmup-iterations"),
    ("ppo.schedule", "align.schedule"),
    ("ppo.weight-decay", "align.weight-decay"),
    ("ppo.max-grad-norm", "align.max-grad-norm"),
    ("ppo.temperature", "align.temperature"),
    ("ppo.target-kl", "align.target-kl"),
];

/// A former table and the present one, for keys that [`KEYS`] does not name.
const TABLES: [(&str, &str); 1] = [("ppo", "objective")];

/// A key, a former value of it and the present one.
const VALUES: [(&str, &str, &str); 2] = [
    ("checkpoint.best", "watched-reward", "validation-reward"),
    ("checkpoint.best", "watched-recall", "validation-recall"),
];

/// The present name of a key; the user is told of it once.
pub fn present_key(key: &str, reporter: &Reporter) -> String {
    let present = renamed_key(key);
    if present != key {
        reporter.note_once(format!("note: the setting `{key}` has been renamed to `{present}`"));
    }
    present
}

/// The present name of a value; the user is told of it once.
pub(crate) fn present_value(key: &str, value: Value, reporter: &Reporter) -> Value {
    let former = VALUES.iter().find(|(of, former, _)| *of == key && value.as_str() == Some(former));
    let Some((_, former, present)) = former else { return value };
    reporter.note_once(format!(
        "note: the value \"{former}\" of `{key}` has been renamed to \"{present}\""
    ));
    Value::String((*present).to_owned())
}

/// Whether a dotted key is a former name.
pub(crate) fn is_former(key: &str) -> bool {
    renamed_key(key) != key
}

/// Tables that are no more.
pub(crate) fn former_tables() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().map(|(former, _)| former)
}

/// The present name of a key, without a note.
pub(crate) fn renamed_key(key: &str) -> String {
    if let Some((_, present)) = KEYS.iter().find(|(former, _)| *former == key) {
        return (*present).to_owned();
    }
    let moved = TABLES.iter().find_map(|(former, present)| {
        let rest = key.strip_prefix(former)?.strip_prefix('.')?;
        Some(format!("{present}.{rest}"))
    });
    moved.unwrap_or_else(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fisao_align::objective::DpoConfig;
    use fisao_align::{AlignConfig, Objective};
    use serde::Deserialize as _;
    use toml::Table;

    use super::*;

    /// The defaults, with the value of one key under another name, or `None` where there is no such key.
    fn with_former_name(config: &AlignConfig, former: &str, present: &str) -> Option<Table> {
        let mut settings = Table::try_from(config).expect("settings are TOML");
        let (table, name) = match present.rsplit_once('.') {
            Some((table, name)) => (settings.get_mut(table)?.as_table_mut()?, name),
            None => (&mut settings, present),
        };
        let value = table.remove(name)?;
        table.insert(former.rsplit('.').next()?.to_owned(), value);
        Some(settings)
    }

    #[test]
    fn run_settings_are_read_under_former_names() {
        let renamed = KEYS.iter().filter(|(former, _)| !former.starts_with("ppo."));
        let dpo = Objective::Dpo(DpoConfig::default());
        let configs =
            [AlignConfig::default(), AlignConfig { objective: dpo, ..AlignConfig::default() }];
        let mut read = BTreeSet::new();
        for (former, present) in renamed {
            for expected in &configs {
                let Some(settings) = with_former_name(expected, former, present) else { continue };
                let config = AlignConfig::deserialize(Value::Table(settings));
                assert_eq!(config.as_ref().ok(), Some(expected), "{former}");
                read.insert(former);
            }
        }
        assert_eq!(read.len(), 9, "keys of AlignConfig among those renamed: {read:?}");
        for (key, former, present) in VALUES {
            let config = |value: &str| {
                let text = format!("{key} = \"{value}\"");
                toml::from_str::<AlignConfig>(&text).expect("settings")
            };
            assert_eq!(config(former), config(present), "{former}");
        }
    }

    #[test]
    fn current_names_are_not_former_names() {
        for (former, present) in KEYS {
            assert_eq!(renamed_key(former), present);
            assert_eq!(renamed_key(present), present, "{present} is both");
        }
    }
}
