//! `fisao eval pope`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::{
    AnswerFieldArguments, AnsweringArguments, MOST, ReportArguments, WorldKindArguments,
    WorldSplit, from_to,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct PopeArguments {
    #[command(subcommand)]
    pub(crate) command: Option<PopeCommand>,
    /// Questions, JSON or JSON lines: {"question_id": …, "image": "…", "text": "…", "label": "yes"}; a
    /// file for each split
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "data")]
    pub(crate) questions: Vec<PathBuf>,
    /// Answers, JSON or JSON lines: {"question_id": …, "text": "…"}; a file for each file of questions, in
    /// the same order, then those of the next seed, if there are several, and so on
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["images", "data", "output"])]
    pub(crate) answers: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) field: AnswerFieldArguments,
    #[command(flatten)]
    pub(crate) answering: AnsweringArguments,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PopeCommand {
    /// Make questions from the ground truth of any images, or of the built-in synthetic dataset
    Build(PopeBuildArguments),
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["ground_truth", "world"])))]
pub(crate) struct PopeBuildArguments {
    /// Objects of the images, JSON or JSON lines: {"image_id": …, "objects": ["…"]}, or COCO's instances_*.json
    #[arg(long = "annotations", visible_alias = "ground-truth", value_name = "FILE")]
    pub(crate) ground_truth: Option<PathBuf>,
    /// Ask about scenes of this split of the built-in synthetic dataset, and write their images too
    #[arg(long, value_name = "SPLIT")]
    pub(crate) world: Option<WorldSplit>,
    #[command(flatten)]
    pub(crate) kind: WorldKindArguments,
    /// Which absent objects to ask about
    #[arg(long, value_name = "KIND", default_value = "random")]
    pub(crate) negatives: NegativeKind,
    /// Images to ask about
    #[arg(
        long = "image-count",
        alias = "pictures",
        value_name = "N",
        default_value_t = 500,
        value_parser = from_to::<usize>(1, MOST)
    )]
    pub(crate) images: usize,
    /// Questions of each kind about an image; images with fewer objects are passed over
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = from_to::<usize>(1, MOST))]
    pub(crate) objects: usize,
    /// Seed of the selection
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// File for the questions; with --world, a folder for questions and images
    #[arg(long, value_name = "PATH")]
    pub(crate) output: PathBuf,
}

/// Which absent objects are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NegativeKind {
    /// Any
    Random,
    /// Those that are in most images
    Popular,
    /// Those that are most often beside the object that is there
    Adversarial,
}
