//! Options of `fisao eval gqa`.

use clap::{Args, ValueEnum};

use crate::arguments::BenchmarkArguments;

#[derive(Debug, Args)]
pub(crate) struct GqaArguments {
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArguments,
    /// What is done to an answer before it is compared
    #[arg(long, value_name = "RULES", default_value = "llava")]
    pub(crate) rules: GqaRules,
}

/// What is done to an answer before it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GqaRules {
    /// Full stops at the end and case go
    Llava,
    /// Case and punctuation go, from the expected answer too
    LmmsEval,
}

pub(in crate::commands::eval) const GQA_FILES: &str = "\
Looked for in --data, unless it is the file: testdev_balanced_questions.json, and the images in images";
