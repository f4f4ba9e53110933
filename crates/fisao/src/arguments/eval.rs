//! What several measures of `fisao eval` take; each has its own options beside its code.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

mod benchmark;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(crate) use benchmark::{BenchmarkAnswering, BenchmarkArguments};

use super::{
    ChoosingArguments, DamagedArguments, ModelArguments, SamplingArguments, SharingArguments,
    WorldKindArguments,
};

/// How results are written: columns for people, JSON for programs, tables for papers and spreadsheets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    #[default]
    #[value(alias = "text")]
    Table,
    Json,
    Markdown,
    Csv,
}

/// How to print a report.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArguments {
    /// Print the verdict on every caption or question as well (json only)
    #[arg(long, visible_alias = "per-question")]
    pub(crate) per_image: bool,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ReportFormat,
}

/// A model that answers now, where no file of answers is given.
#[derive(Clone, Debug, Args)]
pub(crate) struct AnsweringArguments {
    /// Folder of the images, for a model that is to answer now
    #[arg(long, alias = "image", value_name = "DIR", requires = "output")]
    pub(crate) images: Option<PathBuf>,
    /// Folder of a data set, for a model that is to answer now: its images, in images where there is such a
    /// folder, and beside them the files that answers are compared with, unless they are named
    #[arg(long, value_name = "DIR", requires = "output")]
    pub(crate) data: Option<PathBuf>,
    /// Folder for the answers; the same command resumes where it was interrupted
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) answerer: AnswererArguments,
}

/// Where in files of answers the answer stands.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AnswerFieldArguments {
    /// Field of a file of answers that holds what the model wrote [default: what can only be a prediction, such as prediction or
    /// response, else text or answer]
    #[arg(long, value_name = "FIELD")]
    pub(crate) answer_field: Option<String>,
}

/// Which model answers, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct AnswererArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) world: WorldKindArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) choosing: ChoosingArguments,
    #[command(flatten)]
    pub(crate) sharing: SharingArguments,
}
