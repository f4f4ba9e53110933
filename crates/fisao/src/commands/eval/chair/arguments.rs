//! `fisao eval chair`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{
    AnsweringArguments, MOST, ReportArguments, TruthArguments, WorldSplit, from_to,
};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["captions", "images", "data", "world"])))]
pub(crate) struct ChairArguments {
    /// Captions, JSON or JSON lines: {"image_id": …, "caption": "…"}; several files, of seeds for instance,
    /// are averaged
    #[arg(long, alias = "answers", value_name = "FILE", num_args = 1.., requires = "ground_truth", conflicts_with = "output")]
    pub(crate) captions: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) truth: TruthArguments,
    /// Measure these images only, and require a caption for each: chair-500 for the fixed list of 500 images of COCO, or a
    /// file of ids, one a line or a JSON list
    #[arg(long, value_name = "LIST", conflicts_with = "world")]
    pub(crate) ids: Option<String>,
    /// Compare with another report of the same or another model and say why the numbers may differ: JSON of `fisao eval
    /// chair`, or lmms-eval's results of coco_cap_chair; exit code 3 where they cannot be compared
    #[arg(long, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
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
