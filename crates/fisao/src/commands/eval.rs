//! `fisao eval`: what a model wrote, measured.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "comments on options are the help text, where JSON is shown as it is written"
)]

mod accuracy;
mod amber;
mod captions;
mod chair;
mod detection;
mod diff;
mod gqa;
mod inputs;
mod judged;
mod mme;
mod options;
mod pope;
pub(crate) mod report;
mod runs;
mod science_qa;
mod world;

use clap::{Args, Subcommand};
use fisao_runs::Reporter;

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Count hallucinated objects in captions: those of a file, or of a model
    Chair(chair::ChairArguments),
    /// Ask whether objects are in the image: POPE
    Pope(pope::PopeArguments),
    /// Measure how like people's captions a model's are: BLEU, ROUGE-L, CIDEr
    Captions(captions::CaptionMetricsArguments),
    /// Score a detector of hallucinations against labels of words and spans: HalLoc, M-HalDetect, RAGTruth, one's own
    #[command(after_help = detection::DETECTION_FILES)]
    Detection(detection::DetectionArguments),
    /// Compare two models image by image
    Diff(diff::DiffArguments),
    /// Two yes-or-no questions about each image, of 14 kinds: MME
    Mme(mme::MmeArguments),
    /// Objects described, and asked about, without a judge: AMBER
    #[command(after_help = amber::AMBER_FILES)]
    Amber(amber::AmberArguments),
    /// School questions with options: ScienceQA
    #[command(name = "science-qa", after_help = science_qa::SCIENCE_QA_FILES)]
    ScienceQa(science_qa::ScienceQaArguments),
    /// Questions about scenes, answered in a word: GQA
    #[command(after_help = gqa::GQA_FILES)]
    Gqa(gqa::GqaArguments),
    /// Questions with four options: SEED-Bench
    #[command(name = "seed-bench", after_help = options::SEED_BENCH_FILES)]
    SeedBench(options::OptionsArguments),
    /// Questions with options, in all their rotations: MMBench
    #[command(name = "mmbench", after_help = options::MMBENCH_FILES)]
    Mmbench(options::OptionsArguments),
    /// Open questions that a judge grades: MM-Vet
    #[command(name = "mm-vet", after_help = judged::MM_VET_FILES)]
    MmVet(judged::JudgedArguments),
    /// Open questions whose answers a judge rates for what they make up: MMHal-Bench
    #[command(name = "mm-hal", after_help = judged::MM_HAL_FILES)]
    MmHal(judged::JudgedArguments),
}

impl EvalCommand {
    /// Whether several processes can share its work: that of a model which answers.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Detection(_) | Self::Diff(_))
    }
}

pub(crate) fn run(command: &EvalCommand, reporter: &Reporter) -> anyhow::Result<()> {
    match command {
        EvalCommand::Chair(arguments) => chair::run(arguments, reporter),
        EvalCommand::Pope(arguments) => pope::run(arguments, reporter),
        EvalCommand::Captions(arguments) => captions::run(arguments, reporter),
        EvalCommand::Detection(arguments) => detection::run(arguments, reporter),
        EvalCommand::Diff(arguments) => diff::run(arguments, reporter),
        EvalCommand::Mme(arguments) => mme::run(arguments, reporter),
        EvalCommand::Amber(arguments) => amber::run(arguments, reporter),
        EvalCommand::ScienceQa(arguments) => science_qa::run(arguments, reporter),
        EvalCommand::Gqa(arguments) => gqa::run(arguments, reporter),
        EvalCommand::SeedBench(arguments) => options::seed_bench(arguments, reporter),
        EvalCommand::Mmbench(arguments) => options::mmbench(arguments, reporter),
        EvalCommand::MmVet(arguments) => judged::mm_vet(arguments, reporter),
        EvalCommand::MmHal(arguments) => judged::mm_hal(arguments, reporter),
    }
}
