//! Benchmarks whose answers a judge grades.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{AnswerFieldArguments, BenchmarkAnswering, ReportArguments};

#[derive(Debug, Args)]
#[command(group(
    clap::ArgGroup::new("source").required(true).args(["answers", "output", "verdicts"])
))]
pub(crate) struct JudgedArguments {
    /// The benchmark's folder, or its file of questions; below is what is looked for in it
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Answers to be put to the judge: {"question_id": …, "text": "…"} as JSON or JSON lines, or the
    /// benchmark's own form
    #[arg(long, value_name = "FILE", requires = "requests")]
    pub(crate) answers: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) field: AnswerFieldArguments,
    /// Where to write what the judge is to be asked, a row {"question_id": …, "prompt": "…"} each
    /// [default: requests.jsonl beside a model's answers]
    #[arg(long, value_name = "FILE")]
    pub(crate) requests: Option<PathBuf>,
    /// The judge's prompt with its places in braces; the official one for numbers to be put beside published
    /// ones [default: one in this program's own words]
    #[arg(long, value_name = "FILE", conflicts_with = "verdicts")]
    pub(crate) judge_prompt: Option<PathBuf>,
    /// What the judge said, to be summed up: {"question_id": …, "text": "…"} as JSON or JSON lines, or the
    /// benchmark's own form; several files, of seeds for instance, are averaged
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["requests", "answers"])]
    pub(crate) verdicts: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) answering: BenchmarkAnswering,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

pub(in crate::commands::eval) const MM_VET_FILES: &str = "\
Looked for in --data, unless it is the file: mm-vet.json, and the images in images. First answers become requests \
for a judge, whom this program does not call; then the judge's words are given with --verdicts";
pub(in crate::commands::eval) const MM_HAL_FILES: &str = "\
Looked for in --data, unless it is the file: response_template.json, and in images the images, by the name in \
their address or by their id. First answers become requests for a judge, whom this program does not call; then the \
judge's words are given with --verdicts";
