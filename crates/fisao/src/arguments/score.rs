//! `fisao score`.

use std::path::PathBuf;

use clap::Args;
use fisao_runs::bundle::AloneSource;
use fisao_runs::model_location::ModelLocation;
use fisao_runs::verifier_choice::VerifierSource;

use super::{
    DamagedArguments, DeviceArguments, Format, ScoringArguments, VocabularyArguments,
    WorldArguments,
};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["texts", "captions"])))]
pub(crate) struct ScoreArguments {
    /// CLIP, SigLIP or BLIP-2 checkpoint: a folder in Hugging Face layout, or a name on the Hub; or decoder, for what the
    /// decoder of --model reads in the image [default: the built-in synthetic dataset's small verifier; with --model the
    /// one known to go with its vision tower, else decoder]
    #[arg(long, value_name = "FOLDER|ID|decoder")]
    pub(crate) verifier: Option<VerifierSource>,
    /// Vision-language checkpoint whose decoder reads, or whose own vision tower the verifier takes where it was tuned:
    /// folder or name [default: with --verifier decoder the built-in synthetic dataset's small model]
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: Option<ModelLocation>,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
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

impl ScoreArguments {
    /// What verifies.
    pub(crate) fn verifier(&self) -> AloneSource {
        let (verifier, model) = (self.verifier.clone(), self.model.clone());
        AloneSource { verifier, model, world: self.world.kind() }
    }
}
