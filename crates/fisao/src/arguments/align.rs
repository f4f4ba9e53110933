//! `fisao align`.

use std::path::PathBuf;

use clap::Args;
use fisao_runs::model_location::ModelLocation;
use fisao_runs::verifier_choice::VerifierSource;

use super::demo::LabelSource;
use super::shared::{MOST, from_to};
use super::{
    DamagedArguments, DeviceArguments, SettingsArguments, VocabularyArguments, WorldChoice,
};

#[derive(Debug, Args)]
pub(crate) struct AlignArguments {
    #[command(flatten)]
    pub(crate) source: AlignSource,
    /// Seed of the run; the same as --set seed=N
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) settings: SettingsArguments,
    /// Folder for the adapter and everything else
    #[arg(long, short, value_name = "FOLDER", required_unless_present_any = ["resume", "dry_run"])]
    pub(crate) output: Option<PathBuf>,
    /// Resume the run in this folder (or in that of --output), with its own settings and data
    #[arg(long, value_name = "FOLDER", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be absent, bare, or with a folder")]
    pub(crate) resume: Option<Option<PathBuf>>,
    /// Check everything, make one step, report the time and memory the run would take, and write nothing
    #[arg(long, conflicts_with = "resume")]
    pub(crate) dry_run: bool,
    /// Begin without asking; without a terminal nothing is asked
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Model, verifier and prompts.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AlignSource {
    /// Take model, verifier, prompts and calibration from the built-in synthetic dataset
    #[arg(
        long,
        conflicts_with_all = [
            "model", "verifier", "allow_mismatched_verifier", "calibration", "images", "prompts", "prompt",
            "vocabulary", "validation_fraction", "allow_outside_images", "skip_damaged", "annotations",
            "calibration_images", "test_images", "merge",
        ]
    )]
    pub(crate) demo: bool,
    /// What the built-in synthetic dataset's calibration knows of its images [default: annotations]
    #[arg(long, value_enum, value_name = "LABELS", requires = "demo")]
    pub(crate) labels: Option<LabelSource>,
    /// Which built-in synthetic dataset; the hard one's verifier is often wrong [default: clear]
    #[arg(long, value_enum, value_name = "WORLD", requires = "demo")]
    pub(crate) world: Option<WorldChoice>,
    /// Vision-language checkpoint: a folder in Hugging Face layout, or a name on the Hub
    #[arg(long, value_name = "FOLDER|ID", required_unless_present_any = ["demo", "resume"])]
    pub(crate) model: Option<ModelLocation>,
    /// CLIP, SigLIP or BLIP-2 checkpoint the model's vision tower comes from, folder or name; or decoder, for what the
    /// model's own decoder reads in the image [default: the one known to go with the model's vision tower, else decoder]
    #[arg(long, value_name = "FOLDER|ID|decoder")]
    pub(crate) verifier: Option<VerifierSource>,
    /// Use a verifier whose vision tower is not the model's own
    #[arg(long, alias = "allow-foreign-verifier")]
    pub(crate) allow_mismatched_verifier: bool,
    /// Calibration made by `fisao calibrate` [default: the run calibrates itself on some of the images]
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Objects of the images, as `fisao calibrate` takes them, for the run's calibration and for measuring it; images that are not
    /// listed are calibrated and measured without
    #[arg(long, visible_alias = "ground-truth", value_name = "FILE")]
    pub(crate) annotations: Option<PathBuf>,
    /// Images to calibrate on [default: a third, at most 256]
    #[arg(long, value_name = "N", value_parser = from_to::<usize>(1, MOST), conflicts_with = "calibration")]
    pub(crate) calibration_images: Option<usize>,
    /// Images that are captioned before and after training, for the report; 0 for none [default: a fifth, at most 100; 0 with
    /// --calibration]
    #[arg(long, value_name = "N", value_parser = from_to::<usize>(0, MOST))]
    pub(crate) test_images: Option<usize>,
    /// Also write the model with the adapter in its weights, as `fisao merge` does
    #[arg(long, value_name = "FOLDER")]
    pub(crate) merge: Option<PathBuf>,
    /// Prompts to train on: JSON lines, a JSON list such as LLaVA-Instruct, or Parquet (file or folder), with images by name
    /// or inside [default: the images of --images]
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(crate) prompts: Option<PathBuf>,
    /// Folder of images: those to train on, or with --prompts where the images are that it names [default: the folder of
    /// --prompts]
    #[arg(long, alias = "image", value_name = "FOLDER", required_unless_present_any = ["demo", "resume", "prompts"])]
    pub(crate) images: Option<PathBuf>,
    /// Read images, too, that --prompts names outside the folder of images, by .. or by absolute paths
    #[arg(long, requires = "prompts")]
    pub(crate) allow_outside_images: bool,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    /// What to ask about images that have no prompt of their own [default: Describe the image.]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Fraction of the images that is held out for validation instead of trained on [default: 0]
    #[arg(long, alias = "validation-share", value_name = "FRACTION")]
    pub(crate) validation_fraction: Option<f64>,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
}

impl AlignSource {
    /// Whether anything was said about it.
    pub(crate) fn is_given(&self) -> bool {
        self.demo
            || self.model.is_some()
            || self.verifier.is_some()
            || self.images.is_some()
            || self.prompts.is_some()
    }
}
