//! Options of `fisao eval science-qa`.

use clap::Args;

use crate::arguments::BenchmarkArguments;

#[derive(Debug, Args)]
pub(crate) struct ScienceQaArguments {
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArguments,
    /// Which problems: the name of a list in pid_splits.json
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub(crate) split: String,
}

pub(in crate::commands::eval) const SCIENCE_QA_FILES: &str = "\
Looked for in --data: problems.json, pid_splits.json, and the images in images/SPLIT/PROBLEM. A model is \
asked the problems that have an image";
