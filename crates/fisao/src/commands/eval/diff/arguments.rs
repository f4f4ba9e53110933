//! `fisao eval diff`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{AnswerFieldArguments, MOST, ReportArguments, TruthArguments, from_to};

#[derive(Debug, Args)]
#[command(group(
    clap::ArgGroup::new("truth").required(true).args(["ground_truth", "questions", "references"])
))]
pub(crate) struct DiffArguments {
    /// Captions or answers of the first model, as the other measures of `fisao eval` read them
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// Those of the second
    #[arg(value_name = "B")]
    pub(crate) second: PathBuf,
    #[command(flatten)]
    pub(crate) truth: TruthArguments,
    /// Compare these images only, and require a caption of each model for each: chair-500 for the fixed list of 500 images of
    /// COCO, or a file of ids, one a line or a JSON list
    #[arg(long, value_name = "LIST", conflicts_with_all = ["questions", "references"])]
    pub(crate) ids: Option<String>,
    /// Compare answers to these questions of POPE
    #[arg(long, value_name = "FILE")]
    pub(crate) questions: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) field: AnswerFieldArguments,
    /// Compare captions by their likeness to these references
    #[arg(long, value_name = "FILE")]
    pub(crate) references: Option<PathBuf>,
    /// Resamples of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = from_to::<usize>(1, MOST))]
    pub(crate) resamples: usize,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}
