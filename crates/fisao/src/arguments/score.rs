//! `fisao score`.

use std::path::PathBuf;

use clap::Args;

use super::{
    DamagedArguments, DeviceArguments, Format, ScoringArguments, VerifierArguments,
    VocabularyArguments,
};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["texts", "captions"])))]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) verifier: VerifierArguments,
    /// Image file, or folder of images; may be repeated
    #[arg(long, short, visible_alias = "image", required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) images: Vec<PathBuf>,
    /// Name to score; may be repeated
    #[arg(long = "text", short, value_name = "NAME")]
    pub(crate) texts: Vec<String>,
    /// Caption whose object mentions to score; may be repeated
    #[arg(long = "caption", short, value_name = "TEXT")]
    pub(crate) captions: Vec<String>,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    /// Calibration that turns scores into probabilities, and takes from them each name's centre
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// How to print the scores; json prints one object per image
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}
