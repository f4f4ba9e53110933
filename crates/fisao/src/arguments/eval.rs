//! `fisao eval`.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

mod benchmark;
mod captions;
mod chair;
mod diff;
mod judged;
mod mme;
mod pope;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use benchmark::{
    AmberArguments, AmberPart, AmberPlurals, BenchmarkAnswering, BenchmarkArguments, GqaArguments,
    GqaRules, OptionRules, OptionsArguments, ScienceQaArguments,
};
pub(crate) use captions::CaptionMetricsArguments;
pub(crate) use chair::{ChairArguments, ChairRules, TruthArguments, WorldSplit};
pub(crate) use diff::DiffArguments;
pub(crate) use judged::JudgedArguments;
pub(crate) use mme::{MmeArguments, MmeReading};
pub(crate) use pope::{NegativeKind, PopeArguments, PopeBuildArguments, PopeCommand};

use super::{DamagedArguments, ModelArguments, SamplingArguments, WorldKindArguments};

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
    /// Ask whether objects are in the image: POPE
    Pope(PopeArguments),
    /// Measure how like people's captions a model's are: BLEU, ROUGE-L, CIDEr
    Captions(CaptionMetricsArguments),
    /// Compare two models image by image
    Diff(DiffArguments),
    /// Two yes-or-no questions about each image, of 14 kinds: MME
    Mme(MmeArguments),
    /// Objects described, and asked about, without a judge: AMBER
    #[command(after_help = AMBER)]
    Amber(AmberArguments),
    /// School questions with options: ScienceQA
    #[command(name = "science-qa", after_help = SCIENCE_QA)]
    ScienceQa(ScienceQaArguments),
    /// Questions about scenes, answered in a word: GQA
    #[command(after_help = GQA)]
    Gqa(GqaArguments),
    /// Questions with four options: SEED-Bench
    #[command(name = "seed-bench", after_help = SEED_BENCH)]
    SeedBench(OptionsArguments),
    /// Questions with options, in all their rotations: MMBench
    #[command(name = "mmbench", after_help = MMBENCH)]
    Mmbench(OptionsArguments),
    /// Open questions that a judge grades: MM-Vet
    #[command(name = "mm-vet", after_help = MM_VET)]
    MmVet(JudgedArguments),
    /// Open questions whose answers a judge rates for what they make up: MMHal-Bench
    #[command(name = "mm-hal", after_help = MM_HAL)]
    MmHal(JudgedArguments),
}

const AMBER: &str = "\
Looked for in --data, or in its folders data and query: annotations.json, relation.json, safe_words.txt, \
metrics.txt where there is one, query_all.json or query_generative.json and query_discriminative.json, \
and the images in image";
const SCIENCE_QA: &str = "\
Looked for in --data: problems.json, pid_splits.json, and the images in images/SPLIT/PROBLEM. A model is \
asked the problems that have an image";
const GQA: &str = "\
Looked for in --data, unless it is the file: testdev_balanced_questions.json, and the images in images";
const SEED_BENCH: &str = "\
Looked for in --data, unless it is the file: SEED-Bench.json, and the images in SEED-Bench-image. A model is \
asked the questions about images, not about videos";
const MMBENCH: &str = "\
Looked for in --data, unless it is the file: the only .tsv there, which holds the images too";
const MM_VET: &str = "\
Looked for in --data, unless it is the file: mm-vet.json, and the images in images. First answers become requests \
for a judge, whom this program does not call; then the judge's words are given with --verdicts";
const MM_HAL: &str = "\
Looked for in --data, unless it is the file: response_template.json, and in images the images, by the name in \
their address or by their id. First answers become requests for a judge, whom this program does not call; then the \
judge's words are given with --verdicts";

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
    #[arg(long, value_name = "DIR", requires = "output")]
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
}
