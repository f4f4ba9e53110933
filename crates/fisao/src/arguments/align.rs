//! `fisao align`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArguments, SettingsArguments, VocabularyArguments};
use crate::model_location::ModelLocation;

#[derive(Debug, Args)]
pub(crate) struct AlignArguments {
    /// LLaVA checkpoint: a folder in Hugging Face layout, or a name on the Hub
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: ModelLocation,
    /// CLIP checkpoint the model's vision tower comes from, folder or name
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) verifier: ModelLocation,
    /// Use a verifier whose vision tower is not the model's own
    #[arg(long)]
    pub(crate) allow_foreign_verifier: bool,
    /// Calibration made by `fisao calibrate`
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: PathBuf,
    /// Folder of images to train on
    #[arg(long, value_name = "FOLDER")]
    pub(crate) images: PathBuf,
    /// What to ask about each image
    #[arg(long, value_name = "TEXT", default_value = fisao_scenes::PROMPTS[0])]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    /// Folder for the adapter and everything else
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Go on with the run that the output folder holds
    #[arg(long)]
    pub(crate) resume: bool,
}
