//! How a verifier helps while captions and answers are written.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use fisao_runs::verifier_choice::VerifierSource;

use super::shared::{MOST_OF_BEST, from_to};

/// Choosing among several captions, and taking doubtful words back.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("verified").args(["best_of", "guided"]).multiple(true)))]
pub(crate) struct ChoosingArguments {
    /// Sample so many captions or answers for each image and take the one whose words the verifier finds most surely in it; no
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
}
