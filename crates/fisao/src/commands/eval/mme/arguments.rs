//! `fisao eval mme`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::arguments::{AnsweringArguments, ReportArguments};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["answers", "images", "data"])))]
pub(crate) struct MmeArguments {
    /// Folder of answered tasks, a TASK.txt each: image, question, ground truth and answer between tabs;
    /// several folders, of seeds for instance, are averaged
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "output")]
    pub(crate) answers: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) answering: AnsweringArguments,
    /// How answers are read
    #[arg(long, value_name = "RULES", default_value = "official")]
    pub(crate) rules: MmeReading,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

/// How answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MmeReading {
    /// As the official calculation.py
    Official,
    /// As lmms-eval
    LmmsEval,
}
