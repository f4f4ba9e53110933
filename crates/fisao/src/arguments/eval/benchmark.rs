//! Benchmarks of questions whose files their makers publish.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
    #[arg(long, value_name = "DIR", requires = "output")]
    pub(crate) images: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) answerer: AnswererArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AmberArguments {
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArguments,
    /// Which queries a model is asked
    #[arg(long, value_name = "PART", default_value = "all", requires = "output")]
    pub(crate) part: AmberPart,
    /// Which plurals count as their words
    #[arg(long, value_name = "RULES", default_value = "official")]
    pub(crate) plurals: AmberPlurals,
}

/// Which queries are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AmberPart {
    /// Both
    All,
    /// Requests to describe
    Generative,
    /// Questions to be answered by yes or no
    Discriminative,
}

/// Which plurals count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AmberPlurals {
    /// Those that WordNet's lemmatizer brings back, as in the official script
    Official,
    /// All, and words with a capital
    All,
}

#[derive(Debug, Args)]
pub(crate) struct ScienceQaArguments {
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArguments,
    /// Which problems: the name of a list in pid_splits.json
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub(crate) split: String,
}

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
