//! Benchmarks of questions whose files their makers publish.

use std::path::PathBuf;

use clap::Args;

use super::{AnswerFieldArguments, AnswererArguments, ReportArguments};

/// What all of them take.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["answers", "output"])))]
pub(crate) struct BenchmarkArguments {
    /// The benchmark's folder, or its file where it is one; below is what is looked for in it
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Answers to score, JSON or JSON lines: {"question_id": …, "text": "…"}; several files, of seeds for
    /// instance, are averaged
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) answers: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) field: AnswerFieldArguments,
    #[command(flatten)]
    pub(crate) answering: BenchmarkAnswering,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

/// A model that answers a benchmark's questions now.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchmarkAnswering {
    /// Let a model answer now, and write the answers into this folder; the same command resumes where it was
    /// interrupted
    #[arg(long, value_name = "DIR", conflicts_with = "answers")]
    pub(crate) output: Option<PathBuf>,
    /// Folder of the images [default: where the benchmark has them]
    #[arg(long, alias = "image", value_name = "DIR", requires = "output")]
    pub(crate) images: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) answerer: AnswererArguments,
}
