//! `fisao eval chair`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_scenes::Split;

use super::{AnsweringArguments, ReportArguments};
use crate::arguments::shared::{MOST, from_to};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["captions", "images", "data", "world"])))]
pub(crate) struct ChairArguments {
    /// Captions, JSON or JSON lines: {"image_id": …, "caption": "…"}; several files, of seeds for instance,
    /// are averaged
    #[arg(long, alias = "answers", value_name = "FILE", num_args = 1.., requires = "ground_truth", conflicts_with = "output")]
    pub(crate) captions: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) truth: TruthArguments,
    /// What to ask of a model that captions now
    #[arg(long, value_name = "TEXT", default_value = "Describe the image.")]
    pub(crate) prompt: String,
    /// Caption this split of the built-in synthetic dataset and measure that
    #[arg(long, value_name = "SPLIT", conflicts_with_all = ["ground_truth", "output"])]
    pub(crate) world: Option<WorldSplit>,
    /// Scenes of the built-in synthetic dataset to caption
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = from_to::<usize>(1, MOST), conflicts_with = "captions")]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) answering: AnsweringArguments,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

/// What is really in the images, and which words stand for it.
#[derive(Clone, Debug, Args)]
pub(crate) struct TruthArguments {
    /// Objects of the images: COCO's instances_*.json and captions_*.json, or {"image_id": …, "objects":
    /// ["…"]} as JSON or JSON lines; gzipped or not, several files are put together
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) ground_truth: Vec<PathBuf>,
    /// Object names: coco for COCO's 80, or a file: {"category": ["form", …], …} as JSON, or one category
    /// and its synonyms a line, with commas between [default: coco; the synthetic dataset's with --world]
    #[arg(long, value_name = "FILE")]
    pub(crate) vocabulary: Option<PathBuf>,
    /// How words are taken for objects: strict, or bug-for-bug compatible with the published scorers, for numbers
    /// to be put beside a paper's
    #[arg(long, value_name = "RULES", default_value = "strict")]
    pub(crate) rules: ChairRules,
    /// Leave out captions of images without ground truth, and count them, instead of refusing them
    #[arg(long)]
    pub(crate) skip_unknown_images: bool,
}

/// How words are taken for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChairRules {
    /// Whole words, the longest name first, with their plurals
    Strict,
    /// As the published scorers
    Reference,
}

/// A split of the built-in synthetic dataset.
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
