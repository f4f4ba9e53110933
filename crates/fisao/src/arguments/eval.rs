//! `fisao eval`.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

mod captions;
mod chair;
mod diff;
mod mme;
mod pope;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use captions::CaptionMetricsArguments;
pub(crate) use chair::{ChairArguments, ChairRules, TruthArguments, WorldSplit};
pub(crate) use diff::DiffArguments;
pub(crate) use mme::{MmeArguments, MmeReading};
pub(crate) use pope::{NegativeKind, PopeArguments, PopeBuildArguments, PopeCommand};

use super::{ModelArguments, SamplingArguments};

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Count hallucinated objects in captions: those of a file, or of a model
    Chair(ChairArguments),
    /// Ask whether objects are in the picture: POPE
    Pope(PopeArguments),
    /// Measure how like people's captions a model's are: BLEU, ROUGE-L, CIDEr
    Captions(CaptionMetricsArguments),
    /// Compare two models image by image
    Diff(DiffArguments),
    /// Two yes-or-no questions about each picture, of 14 kinds: MME
    Mme(MmeArguments),
}

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
    /// Folder of the pictures, for a model that is to answer now
    #[arg(long, visible_alias = "data", value_name = "DIR", requires = "output")]
    pub(crate) images: Option<PathBuf>,
    /// Folder for the answers; the same command goes on where it was interrupted
    #[arg(long, value_name = "DIR", requires = "images")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
}
