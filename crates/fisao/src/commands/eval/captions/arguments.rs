//! `fisao eval captions`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{AnsweringArguments, ReportArguments};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["captions", "images", "data"])))]
pub(crate) struct CaptionMetricsArguments {
    /// Captions, JSON or JSON lines: {"image_id": …, "caption": "…"}; several files, of seeds for instance,
    /// are averaged
    #[arg(long, alias = "answers", value_name = "FILE", num_args = 1.., conflicts_with = "output")]
    pub(crate) captions: Vec<PathBuf>,
    /// What people wrote about the images: COCO's captions_*.json, or {"image_id": …, "captions": ["…"]} as
    /// JSON or JSON lines; gzipped or not
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    pub(crate) references: Option<PathBuf>,
    /// What METEOR 1.5 brings along, as its archive is unpacked: function/english.words,
    /// synonym/english.exceptions, synonym/english.synsets and paraphrase-en.gz; without it METEOR knows
    /// no synonyms and is not comparable with published values
    #[arg(long, value_name = "DIR")]
    pub(crate) meteor_data: Option<PathBuf>,
    /// What to ask of a model that captions now
    #[arg(long, value_name = "TEXT", default_value = "Describe the image.")]
    pub(crate) prompt: String,
    /// Leave out captions of images without references, and count them, instead of refusing them
    #[arg(long)]
    pub(crate) skip_unknown_images: bool,
    /// Print the tokens of captions and references as well (json with --per-image only)
    #[arg(long)]
    pub(crate) tokens: bool,
    #[command(flatten)]
    pub(crate) answering: AnsweringArguments,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}
