//! `fisao calibrate`.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::PathBuf;

use clap::Args;

use super::{
    DamagedArguments, PairArguments, SamplingArguments, SettingsArguments, VocabularyArguments,
};

#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    /// Folder of images to caption
    #[arg(long, alias = "image", value_name = "FOLDER")]
    pub(crate) images: PathBuf,
    /// Objects of the images, JSON or JSON lines: {"image_id": …, "objects": ["…"]}, or COCO's instances_*.json or
    /// captions_*.json; without it the calibration is estimated from unlabelled scores
    #[arg(long, visible_alias = "ground-truth", value_name = "FILE")]
    pub(crate) annotations: Option<PathBuf>,
    /// What to ask about each image
    #[arg(long, value_name = "TEXT", default_value = fisao_scenes::PROMPTS[0])]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    /// File for the calibration, JSON
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
