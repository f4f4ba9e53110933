//! `fisao verify`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fisao_runs::verify::{CaptionsToVerify, VerifyRequest};

use super::shared::{MOST, from_to};
use super::{
    DamagedArguments, DeviceArguments, ScoringArguments, VerifierArguments, VocabularyArguments,
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
    /// With --vocabulary auto: write the list that is found, with what is known of every name, to be edited and named again
    #[arg(long, value_name = "FILE")]
    pub(crate) found_vocabulary: Option<PathBuf>,
    /// From this probability of being hallucinated on a mention counts as hallucinated
    #[arg(long, value_name = "P", default_value_t = THRESHOLD, requires = "calibration")]
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
    /// The same verdicts to the bit for any number of processes and threads, with eight threads at most
    #[arg(long)]
    pub(crate) exact: bool,
    /// How to print the verdicts
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: VerifyFormat,
}

/// What verifies captions that are there.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyingArguments {
    #[command(flatten)]
    pub(crate) verifier: VerifierArguments,
    /// Calibration that turns scores into probabilities, as `fisao calibrate` writes it, and takes from them each name's
    /// centre; without it names get cosines only, and no decision
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) scoring: ScoringArguments,
}

/// Probability of being hallucinated from which a mention counts as that, where nothing else is asked for.
const THRESHOLD: f64 = 0.5;

impl VerifyingArguments {
    /// What is asked about captions, without heat maps and a page.
    pub(crate) fn request(
        &self,
        captions: CaptionsToVerify,
        images: &Path,
        damaged: &DamagedArguments,
        device: &DeviceArguments,
    ) -> VerifyRequest {
        VerifyRequest {
            captions,
            images: images.to_owned(),
            damaged: damaged.images(),
            verifier: self.verifier.source(),
            calibration: self.calibration.clone(),
            vocabulary: self.vocabulary.vocabulary.clone(),
            found_vocabulary: None,
            scoring: self.scoring.choice(),
            threshold: THRESHOLD,
            heat_maps: false,
            page: None,
            device: device.device.unwrap_or_default(),
            exact: false,
        }
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
