//! `fisao demo`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_verifier::calibration::Labels;
use serde::{Deserialize, Serialize};

use super::{DeviceArguments, SettingsArguments, WorldChoice};

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Folder for the report and everything else; must not hold a run yet
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) options: DemoOptions,
    /// Resume the run that the output folder holds, with its own options and settings
    #[arg(long, conflicts_with_all = ["seed", "quick", "labels", "world", "config", "set"])]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
}

/// What a run of the demo is asked for; kept beside it, so that it can be resumed.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DemoOptions {
    /// Seed of the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// A shorter and rougher run
    #[arg(long)]
    pub(crate) quick: bool,
    /// What the calibration knows of its images
    #[arg(long, value_enum, value_name = "LABELS", default_value_t)]
    pub(crate) labels: LabelSource,
    /// Which built-in synthetic dataset; the hard one's verifier is often wrong
    #[arg(long, value_enum, value_name = "WORLD", default_value_t)]
    #[serde(default)]
    pub(crate) world: WorldChoice,
}

/// Where the split into correct and hallucinated mentions comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelSource {
    /// What is in each image, as in the paper
    #[default]
    Annotations,
    /// Nothing: the split is estimated from the scores, and from the decoder's view of each word
    None,
}

impl From<LabelSource> for Labels {
    fn from(source: LabelSource) -> Self {
        match source {
            LabelSource::Annotations => Self::Annotations,
            LabelSource::None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_run_begun_before_there_was_a_choice_are_of_the_clear_world() {
        let old = "seed = 3\nquick = true\nlabels = \"none\"\n";
        let options: DemoOptions = toml::from_str(old).unwrap();
        assert_eq!((options.seed, options.world), (3, WorldChoice::Clear));
    }

    #[test]
    fn the_world_of_a_run_is_kept() {
        let (labels, world) = (LabelSource::None, WorldChoice::Hard);
        let options = DemoOptions { seed: 1, quick: false, labels, world };
        let text = toml::to_string(&options).unwrap();
        let read: DemoOptions = toml::from_str(&text).unwrap();
        assert_eq!(read.world, WorldChoice::Hard, "{text}");
    }
}
