//! `fisao pretrain`.

use std::path::PathBuf;

use clap::Args;
use fisao_align::config::LARGEST_SEED;

use super::WorldChoice;
use super::shared::from_to;

#[derive(Debug, Args)]
pub(crate) struct PretrainArguments {
    /// Folder for the models, clip/ and llava/; a folder in which this command was interrupted is
    /// resumed
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Which world's models; those of the hard world begin with the embedded ones of the clear world
    #[arg(long, value_enum, value_name = "WORLD", default_value_t)]
    pub(crate) world: WorldChoice,
    /// Seed of weights, scenes and captions
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = from_to::<u64>(0, LARGEST_SEED))]
    pub(crate) seed: u64,
    /// Change one number of the recipe, for instance clip-steps=100; may be repeated. Keys:
    /// clip-steps, clip-batch, clip-learning-rate, clip-matrix-learning-rate, clip-least-prominence,
    /// clip-companion-rate,
    /// caption-steps, caption-batch, caption-learning-rate, caption-matrix-learning-rate,
    /// companion-rate, other-rate
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Do not measure the models when they are done
    #[arg(long)]
    pub(crate) no_measure: bool,
}
