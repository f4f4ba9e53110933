//! Options of `fisao eval seed-bench` and `fisao eval mmbench`.

use clap::{Args, ValueEnum};

use crate::arguments::BenchmarkArguments;

#[derive(Debug, Args)]
pub(crate) struct OptionsArguments {
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArguments,
    /// How the option is found that an answer means; likelihood takes rows of {"question_id": …,
    /// "log_likelihoods": […]} for answers, and has a model say how likely it finds each option
    #[arg(long, value_name = "RULES")]
    pub(crate) rules: Option<OptionRules>,
}

/// How an option is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptionRules {
    /// The letter and nothing else, as LLaVA (default of seed-bench)
    Exact,
    /// The first character, as lmms-eval
    FirstCharacter,
    /// A letter that stands alone, else the text of an option, as VLMEvalKit (default of mmbench)
    Infer,
    /// The most likely option, by the mean over its tokens, as SEED-Bench itself
    Likelihood,
}

pub(in crate::commands::eval) const SEED_BENCH_FILES: &str = "\
Looked for in --data, unless it is the file: SEED-Bench.json, and the images in SEED-Bench-image. A model is \
asked the questions about images, not about videos";

pub(in crate::commands::eval) const MMBENCH_FILES: &str = "\
Looked for in --data, unless it is the file: the only .tsv there, which holds the images too";
