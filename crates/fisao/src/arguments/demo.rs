//! `fisao demo`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_runs::demo::DemoOptions as Options;
use fisao_verifier::calibration::Labels;

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

/// What a run of the demo is asked for.
#[derive(Clone, Copy, Debug, Args)]
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
    pub(crate) world: WorldChoice,
}

impl From<DemoOptions> for Options {
    fn from(options: DemoOptions) -> Self {
        let DemoOptions { seed, quick, labels, world } = options;
        Self { seed, quick, labels: labels.into(), world: world.into() }
    }
}

/// Where the split into correct and hallucinated mentions comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
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
