//! The command line as a whole: every command, and what all of them take.

use clap::{Parser, Subcommand, ValueEnum};

use crate::arguments::{
    AlignArguments, BenchArguments, CalibrateArguments, CaptionArguments, CompareArguments,
    ConfigArguments, DemoArguments, InspectArguments, MergeArguments, PretrainArguments,
    RunsArguments, ScoreArguments, ServeArguments, StudyArguments, VerifyArguments,
};
use crate::commands::completions::{self, CompletionsArguments};
use crate::commands::eval::EvalArguments;
use crate::commands::man::ManArguments;
use crate::commands::scenes::ScenesArguments;
use crate::version;

/// Heading of the options that every command takes.
const GLOBAL: &str = "Global options";

/// Make a vision-language model stop describing what is not in the image, using nothing but the
/// model itself.
#[derive(Debug, Parser)]
#[command(name = "fisao", version, long_version = version::long(), max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more; give it twice for debug output
    #[arg(
        short,
        long,
        global = true,
        help_heading = GLOBAL,
        action = clap::ArgAction::Count,
        conflicts_with = "quiet"
    )]
    pub(crate) verbose: u8,
    /// Show no progress, only warnings and errors
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    /// Whether to use colours
    #[arg(
        long = "color",
        visible_alias = "colour",
        global = true,
        help_heading = GLOBAL,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) colour: Colour,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Describe images
    Caption(CaptionArguments),
    /// Score object names against images
    Score(ScoreArguments),
    /// Find hallucinated object mentions in captions
    Verify(VerifyArguments),
    /// Measure how well a verifier separates correct from hallucinated mentions
    Calibrate(CalibrateArguments),
    /// Train an adapter with token rewards
    Align(AlignArguments),
    /// Train several methods with equal budgets on the built-in synthetic dataset and set them side by side
    Compare(CompareArguments),
    /// Study the method: how well the verifier detects hallucinations, and at what cost
    Study(StudyArguments),
    /// Measure hallucination and quality: captions, and answers to benchmarks
    Eval(EvalArguments),
    /// List and explain the settings of a training run, or check a file of them
    Config(ConfigArguments),
    /// List the runs of folders, or compare them
    Runs(RunsArguments),
    /// Measure how fast this machine decodes, trains, verifies and aligns
    Bench(BenchArguments),
    /// Show what is in a checkpoint or adapter, and what it can be used for
    Inspect(InspectArguments),
    /// Keep model and verifier loaded and answer requests
    Serve(ServeArguments),
    /// Fold an adapter into a model's weights
    Merge(MergeArguments),
    /// Build the demo's model and verifier from nothing
    Pretrain(PretrainArguments),
    /// Write the built-in synthetic dataset as images with COCO annotations
    Scenes(ScenesArguments),
    /// Calibrate, align and evaluate on the built-in synthetic dataset, with a report
    Demo(DemoArguments),
    /// Write a manual page for every command
    Man(ManArguments),
    /// Print a script that makes a shell complete commands and options
    #[command(after_help = completions::DYNAMIC)]
    Completions(CompletionsArguments),
}

impl Command {
    /// Whether several processes can share its work.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Align(_)
            | Self::Demo(_)
            | Self::Compare(_)
            | Self::Calibrate(_)
            | Self::Caption(_)
            | Self::Verify(_) => true,
            Self::Eval(arguments) => arguments.command.is_shared(),
            _ => false,
        }
    }
}

/// When to use colours: on a terminal that shows them, always, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

impl Colour {
    /// Makes it the choice for everything that is printed.
    pub(crate) fn apply(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}
