//! `fisao eval`.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use fisao_scenes::Split;

use super::{Format, ModelArguments, SamplingArguments, VocabularyArguments};

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Count hallucinated objects in captions: those of a file, or of a model on the embedded world
    Chair(ChairArguments),
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["captions", "world"])))]
pub(crate) struct ChairArguments {
    /// Captions, JSON or JSON lines: {"image_id": …, "caption": "…"}
    #[arg(long, value_name = "FILE", requires = "ground_truth")]
    pub(crate) captions: Option<PathBuf>,
    /// Objects of the images, JSON or JSON lines: {"image_id": …, "objects": ["…"]}
    #[arg(long, value_name = "FILE", requires = "captions")]
    pub(crate) ground_truth: Option<PathBuf>,
    /// Caption this split of the embedded world and measure that
    #[arg(long, value_name = "SPLIT")]
    pub(crate) world: Option<WorldSplit>,
    /// Scenes to caption
    #[arg(long, value_name = "N", default_value_t = 500, conflicts_with = "captions")]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    /// Print the verdict on every caption as well (json only)
    #[arg(long)]
    pub(crate) per_image: bool,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}

/// A split of the embedded world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorldSplit {
    /// Scenes the models were trained on
    Train,
    /// Scenes for choosing between settings
    Validation,
    /// Scenes from which rewards are calibrated
    Calibration,
    /// Scenes that are only ever measured on
    Test,
}

impl From<WorldSplit> for Split {
    fn from(split: WorldSplit) -> Self {
        match split {
            WorldSplit::Train => Self::Train,
            WorldSplit::Validation => Self::Validation,
            WorldSplit::Calibration => Self::Calibration,
            WorldSplit::Test => Self::Test,
        }
    }
}
