//! The recipe's settings, and the folder that belongs to one set of them.

use std::path::Path;

use anyhow::bail;
use fisao_formats::FormatError;
use fisao_formats::documents::{read_toml, write_toml};
use fisao_runs::Refusal;
use fisao_runs::settings::{key_and_value, suggestion};
use fisao_scenes::WorldKind;
use fisao_scenes::recipe::RecipeConfig;
use serde::{Deserialize, Serialize};
use toml::Value;

/// The recipe a folder of models is made by.
const RECIPE_FILE: &str = "recipe.toml";

/// What of the recipe can be changed, as it is kept beside the models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RecipeSettings {
    /// Folders made before there was a choice hold the clear world's.
    #[serde(default)]
    world: WorldKind,
    seed: u64,
    clip_steps: u64,
    clip_batch: usize,
    clip_learning_rate: f64,
    clip_matrix_learning_rate: f64,
    /// Folders made before there was a choice name everything.
    #[serde(default)]
    clip_least_prominence: f64,
    #[serde(default)]
    clip_companion_rate: f64,
    caption_steps: u64,
    caption_batch: usize,
    caption_learning_rate: f64,
    caption_matrix_learning_rate: f64,
    companion_rate: f64,
    other_rate: f64,
}

/// Most updates of a stage: a saved state counts them in f32.
const MOST_STEPS: u64 = 1 << 24;
/// Most examples of an update.
const MOST_IN_BATCH: u64 = 1 << 16;
/// Largest amount without a range of its own.
const LARGEST: f64 = 1e9;

/// Keys of `--set`.
const KEYS: [&str; 12] = [
    "clip-steps",
    "clip-batch",
    "clip-learning-rate",
    "clip-matrix-learning-rate",
    "clip-least-prominence",
    "clip-companion-rate",
    "caption-steps",
    "caption-batch",
    "caption-learning-rate",
    "caption-matrix-learning-rate",
    "companion-rate",
    "other-rate",
];

/// The recipe of a world with what `--set` changes.
pub(super) fn resolve(world: WorldKind, seed: u64, set: &[String]) -> anyhow::Result<RecipeConfig> {
    let mut config = RecipeConfig { seed, ..RecipeConfig::of(world) };
    for setting in set {
        let (key, value) = key_and_value(setting)?;
        match key {
            "clip-steps" => config.contrastive.steps = count(key, &value, MOST_STEPS)?,
            "clip-batch" => config.contrastive.batch = count(key, &value, MOST_IN_BATCH)? as usize,
            "clip-learning-rate" => config.contrastive.learning_rate = rate(key, &value)?,
            "clip-matrix-learning-rate" => {
                config.contrastive.matrix_learning_rate = rate(key, &value)?;
            }
            "clip-least-prominence" => config.least_prominence = amount(key, &value)?,
            "clip-companion-rate" => {
                config.image_insertion.companion_rate = probability(key, &value)?;
            }
            "caption-steps" => config.captioning.steps = count(key, &value, MOST_STEPS)?,
            "caption-batch" => {
                config.captioning.batch = count(key, &value, MOST_IN_BATCH)? as usize;
            }
            "caption-learning-rate" => config.captioning.learning_rate = rate(key, &value)?,
            "caption-matrix-learning-rate" => {
                config.captioning.matrix_learning_rate = rate(key, &value)?;
            }
            "companion-rate" => config.insertion.companion_rate = probability(key, &value)?,
            "other-rate" => config.insertion.other_rate = probability(key, &value)?,
            _ => bail!(
                Refusal::new(format!("--set: `{key}` is not a setting of the recipe"))
                    .hint(suggestion(key, key, &KEYS))
            ),
        }
    }
    for stage in [&mut config.contrastive, &mut config.captioning] {
        // A short trial run would otherwise end before its learning rate has risen.
        stage.warmup = stage.warmup.min(stage.steps / 10);
    }
    Ok(config)
}

/// Makes the output folder, or checks that this very recipe was begun in it.
pub(super) fn claim_folder(folder: &Path, config: &RecipeConfig) -> anyhow::Result<()> {
    let settings = RecipeSettings::of(config);
    let path = folder.join(RECIPE_FILE);
    if path.exists() {
        let begun: RecipeSettings = read_toml("recipe", &path)?;
        if begun != settings {
            bail!(
                Refusal::new(format!("{} was started with another recipe", folder.display()))
                    .hint(format!("see {RECIPE_FILE} in it, or choose another output folder"))
            );
        }
        return Ok(());
    }
    if let Some(Ok(entry)) = std::fs::read_dir(folder).ok().and_then(|mut entries| entries.next()) {
        let file = entry.file_name().to_string_lossy().into_owned();
        return Err(FormatError::FolderNotEmpty { path: folder.to_owned(), file }.into());
    }
    Ok(write_toml(&path, &settings)?)
}

impl RecipeSettings {
    fn of(config: &RecipeConfig) -> Self {
        Self {
            world: config.world,
            seed: config.seed,
            clip_steps: config.contrastive.steps,
            clip_batch: config.contrastive.batch,
            clip_learning_rate: config.contrastive.learning_rate,
            clip_matrix_learning_rate: config.contrastive.matrix_learning_rate,
            clip_least_prominence: config.least_prominence,
            clip_companion_rate: config.image_insertion.companion_rate,
            caption_steps: config.captioning.steps,
            caption_batch: config.captioning.batch,
            caption_learning_rate: config.captioning.learning_rate,
            caption_matrix_learning_rate: config.captioning.matrix_learning_rate,
            companion_rate: config.insertion.companion_rate,
            other_rate: config.insertion.other_rate,
        }
    }
}

fn count(key: &str, value: &Value, most: u64) -> anyhow::Result<u64> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| refusal(key, value, &format!("a whole number from 1 to {most}")))
}

fn rate(key: &str, value: &Value) -> anyhow::Result<f64> {
    let usable = |number: &f64| *number > 0.0 && *number <= 1.0;
    number(value).filter(usable).ok_or_else(|| refusal(key, value, "above 0, at most 1"))
}

fn amount(key: &str, value: &Value) -> anyhow::Result<f64> {
    let usable = |number: &f64| (0.0..=LARGEST).contains(number);
    number(value).filter(usable).ok_or_else(|| refusal(key, value, "from 0 to 1e9"))
}

fn probability(key: &str, value: &Value) -> anyhow::Result<f64> {
    let usable = |number: &f64| (0.0..=1.0).contains(number);
    number(value).filter(usable).ok_or_else(|| refusal(key, value, "from 0 to 1"))
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

fn refusal(key: &str, value: &Value, allowed: &str) -> anyhow::Error {
    Refusal::new(format!("`{key}` = {value} cannot be used: it must be {allowed}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_key_takes_effect() {
        let default = RecipeSettings::of(&resolve(WorldKind::Clear, 0, &[]).unwrap());
        for key in KEYS {
            let value = if key.ends_with("-rate") { "0.25" } else { "200" };
            let changed = resolve(WorldKind::Clear, 0, &[format!("{key}={value}")]).unwrap();
            assert_ne!(RecipeSettings::of(&changed), default, "{key}");
        }
        assert_ne!(RecipeSettings::of(&resolve(WorldKind::Clear, 1, &[]).unwrap()), default);
    }

    #[test]
    fn recipe_without_a_dataset_choice_means_the_clear_one() {
        let settings = RecipeSettings::of(&resolve(WorldKind::Clear, 0, &[]).unwrap());
        let text = toml::to_string(&settings).unwrap();
        let newer = |line: &&str| {
            !["world", "clip-least-prominence", "clip-companion-rate"]
                .iter()
                .any(|key| line.starts_with(key))
        };
        let old = text.lines().filter(newer).collect::<Vec<_>>().join("\n");
        assert_eq!(old.lines().count() + 3, text.lines().count(), "{text}");
        assert_eq!(toml::from_str::<RecipeSettings>(&old).unwrap(), settings);
        let hard = RecipeSettings::of(&resolve(WorldKind::Hard, 0, &[]).unwrap());
        assert_ne!(hard, settings);
    }

    /// Whatever the number: it is accepted, or refused by name.
    #[test]
    fn every_number_is_accepted_or_refused_by_name() {
        for key in KEYS {
            for value in [
                "0",
                "-1",
                "1e-300",
                "1e300",
                "nan",
                "inf",
                "9223372036854775807",
                "18446744073709551615",
            ] {
                match resolve(WorldKind::Clear, 0, &[format!("{key}={value}")]) {
                    Err(error) => {
                        assert!(error.to_string().contains(key), "{key}={value}: {error}");
                    }
                    Ok(config) => {
                        assert!(
                            config.contrastive.batch <= 1 << 16
                                && config.captioning.batch <= 1 << 16
                        );
                        toml::to_string(&RecipeSettings::of(&config)).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn out_of_range_recipe_values_are_rejected() {
        for setting in [
            "clip-least-prominence=-1",
            "clip-steps=0",
            "clip-batch=-1",
            "clip-steps=1.5",
            "other-rate=2",
        ] {
            assert!(resolve(WorldKind::Clear, 0, &[setting.to_owned()]).is_err(), "{setting}");
        }
        let error = resolve(WorldKind::Clear, 0, &["clip-step=1".to_owned()]).unwrap_err();
        let text = fisao_runs::failure::hint_of(&*error).unwrap();
        assert!(text.contains("did you mean `clip-steps`?"), "{text}");
    }
}
