//! Options of `fisao eval amber`.

use clap::{Args, ValueEnum};

use crate::arguments::BenchmarkArguments;

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

pub(in crate::commands::eval) const AMBER_FILES: &str = "\
Looked for in --data, or in its folders data and query: annotations.json, relation.json, safe_words.txt, \
metrics.txt where there is one, query_all.json or query_generative.json and query_discriminative.json, \
and the images in image";
