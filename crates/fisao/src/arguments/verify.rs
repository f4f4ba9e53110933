//! `fisao verify`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_runs::bundle::AloneSource;
use fisao_runs::model_location::ModelLocation;
use fisao_runs::verifier_choice::VerifierSource;

use super::shared::{MOST, from_to};
use super::{
    DamagedArguments, DeviceArguments, ScoringArguments, VocabularyArguments, WorldArguments,
};

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Captions, JSON or JSON lines: {"image_id": …, "caption": "…"}; gzipped or not
    #[arg(long, value_name = "FILE")]
    pub(crate) captions: PathBuf,
    /// Folder of the images
    #[arg(long, alias = "image", value_name = "DIR")]
    pub(crate) images: PathBuf,
    #[command(flatten)]
    pub(crate) verifying: VerifyingArguments,
    /// From this probability of being hallucinated on a mention counts as hallucinated
    #[arg(long, value_name = "P", default_value_t = 0.5, requires = "calibration")]
    pub(crate) threshold: f64,
    /// End with exit code 3 if more than this fraction of the words, from 0 to 1, counts as hallucinated
    #[arg(long, value_name = "SHARE", requires = "calibration")]
    pub(crate) fail_above: Option<f64>,
    /// Add to each word where in the image it is seen: its cosine with every patch (jsonl)
    #[arg(long)]
    pub(crate) heat_maps: bool,
    /// Also write a page to look at: images, captions with coloured words, and where each word is seen; the most
    /// doubtful captions first
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Most captions on that page
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = from_to::<usize>(0, MOST), requires = "html")]
    pub(crate) html_captions: usize,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// How to print the verdicts
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: VerifyFormat,
}

/// What verifies captions that are there.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyingArguments {
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
    /// Calibration that turns scores into probabilities, as `fisao calibrate` writes it, and takes from them each name's
    /// centre; without it names get cosines only, and no decision
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
}

impl VerifyingArguments {
    /// What verifies.
    pub(crate) fn verifier(&self) -> AloneSource {
        let (verifier, model) = (self.verifier.clone(), self.model.clone());
        AloneSource { verifier, model, world: self.world.kind() }
    }
}

/// How verdicts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyFormat {
    /// Captions with coloured words
    Text,
    /// One object for each caption
    #[value(alias = "jsonl")]
    Json,
}
