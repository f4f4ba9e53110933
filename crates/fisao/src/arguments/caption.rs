//! `fisao caption`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use fisao_runs::verifier_choice::VerifierSource;

use super::shared::{MOST_OF_BEST, from_to};
use super::{
    DamagedArguments, Format, ModelArguments, SamplingArguments, VocabularyArguments,
    WorldArguments,
};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("verified").args(["best_of", "guided"]).multiple(true)))]
pub(crate) struct CaptionArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
    /// Image file, or folder of images; may be repeated
    #[arg(long, short, visible_alias = "image", required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) images: Vec<PathBuf>,
    /// What to ask; a prompt that holds `<image>` is passed on verbatim, any other is put into
    /// a conversation by the model's chat template
    #[arg(long, value_name = "TEXT", default_value = fisao_scenes::PROMPTS[0])]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    /// Sample so many captions of each image and print the one whose words the verifier finds most surely in it; no
    /// training, but so many times the work
    #[arg(
        long,
        value_name = "N",
        requires = "calibration",
        requires = "temperature",
        value_parser = from_to::<usize>(1, MOST_OF_BEST)
    )]
    pub(crate) best_of: Option<usize>,
    /// Take a word back, while the caption is being written, that is in the image with a probability below this, from 0 to 1, by
    /// the verifier, and go on with another; no training, and a little more work
    #[arg(long, value_name = "PRECISION", requires = "calibration")]
    pub(crate) guided: Option<f64>,
    /// Calibration made by `fisao calibrate`, for --best-of and --guided
    #[arg(long, value_name = "FILE", requires = "verified")]
    pub(crate) calibration: Option<PathBuf>,
    /// CLIP, SigLIP or BLIP-2 checkpoint the model's vision tower comes from, for --best-of and --guided, folder or name; or decoder, for
    /// what the model's own decoder reads in the image [default: the built-in synthetic dataset's; with --model the one known
    /// to go with its vision tower, else decoder]
    #[arg(long, value_name = "FOLDER|ID|decoder", requires = "verified")]
    pub(crate) verifier: Option<VerifierSource>,
    /// Use a verifier whose vision tower is not the model's own
    #[arg(long, alias = "allow-foreign-verifier", requires = "verified")]
    pub(crate) allow_mismatched_verifier: bool,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    /// How to print the captions; json prints one object per image
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}
