//! What is in the images, for measures of captions.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_eval::chair::Rules;

/// What is really in the images, and which words stand for it.
#[derive(Clone, Debug, Args)]
pub(crate) struct TruthArguments {
    /// Objects of the images: COCO's instances_*.json and captions_*.json, or {"image_id": …, "objects":
    /// ["…"]} as JSON or JSON lines; gzipped or not, several files are put together
    #[arg(long = "annotations", visible_alias = "ground-truth", value_name = "FILE", num_args = 1..)]
    pub(crate) ground_truth: Vec<PathBuf>,
    /// Object names: coco for COCO's 80, or a file: {"category": ["form", …], …} as JSON, or one category
    /// and its synonyms a line, with commas between [default: coco; the synthetic dataset's with --world]
    #[arg(long, value_name = "FILE")]
    pub(crate) vocabulary: Option<PathBuf>,
    /// How words are taken for objects: strict, or bug-for-bug compatible with the published scorers, for numbers
    /// to be put beside a paper's
    #[arg(long, value_name = "RULES", default_value = "strict")]
    pub(crate) rules: ChairRules,
    /// Leave out captions of images without ground truth, and count them, instead of refusing them
    #[arg(long)]
    pub(crate) skip_unknown_images: bool,
}

/// How words are taken for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChairRules {
    /// Whole words, the longest name first, with their plurals
    Strict,
    /// As the published scorers
    Reference,
}

impl From<ChairRules> for Rules {
    fn from(rules: ChairRules) -> Self {
        match rules {
            ChairRules::Strict => Self::Strict,
            ChairRules::Reference => Self::Reference,
        }
    }
}
