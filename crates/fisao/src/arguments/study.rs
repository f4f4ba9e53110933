//! `fisao study`.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "these comments are the help text, where JSON is shown as it is written"
)]

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::shared::{MOST, MOST_NEW_TOKENS, MOST_SEEDS, from_to};
use super::{DamagedArguments, DeviceArguments, PairArguments, VocabularyArguments};

#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    #[command(subcommand)]
    pub(crate) command: StudyCommand,
}

/// What to study.
#[derive(Debug, Subcommand)]
pub(crate) enum StudyCommand {
    /// What the verifier's scores are worth: how well variants of them detect the words that a model makes up, how
    /// scores of words and of whole captions go with caption quality, what calibration needs, and what it all costs
    Verifier(Box<VerifierStudyArguments>),
    /// Closed forms of what feedback from the image, token rewards, a weak verifier and a KL penalty do, each beside a Monte
    /// Carlo estimate, and how much their assumptions matter
    Theory(TheoryArguments),
    /// Lists of objects that --vocabulary auto finds in captions of both built-in synthetic datasets, held against what is in
    /// their scenes: objects found and missed, other names, and whether attributes, counts and positions can be told
    Vocabulary(VocabularyStudyArguments),
}

#[derive(Debug, Args)]
pub(crate) struct VocabularyStudyArguments {
    /// Repeat with this many seeds, from 0 on, of scenes and of sampling
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = from_to::<u64>(1, MOST_SEEDS))]
    pub(crate) seeds: u64,
    /// Captions that each list is found in, and others that statements are judged in
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = from_to::<usize>(1, MOST))]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    /// Folder for vocabulary.json, vocabulary.html and the lists
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TheoryArguments {
    /// Seed of the simulations; the same seed gives the same theory.json
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder for theory.json and theory.html
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifierStudyArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,
    /// Folder of images to caption, which are shared out between calibration and test [default: scenes of the
    /// built-in synthetic dataset]
    #[arg(long, alias = "image", value_name = "FOLDER", requires = "annotations")]
    pub(crate) images: Option<PathBuf>,
    /// Objects of the images, JSON or JSON lines: {"image_id": …, "objects": ["…"]}, or COCO's instances_*.json or
    /// captions_*.json
    #[arg(long, visible_alias = "ground-truth", value_name = "FILE", requires = "images")]
    pub(crate) annotations: Option<PathBuf>,
    /// Captions of the images by people, as COCO has them, to compare with by BLEU, ROUGE and CIDEr
    #[arg(long, value_name = "FILE", requires = "images")]
    pub(crate) references: Option<PathBuf>,
    /// What to ask about each image
    #[arg(long, value_name = "TEXT", default_value = fisao_scenes::PROMPTS[0], requires = "images")]
    pub(crate) prompt: String,
    /// Longest caption, in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = from_to::<usize>(1, MOST_NEW_TOKENS))]
    pub(crate) max_new_tokens: usize,
    /// Temperature captions are sampled at; 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub(crate) temperature: f64,
    /// Repeat with this many seeds, from 0 on: of scenes, of sampling, and of the split of images
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = from_to::<u64>(1, MOST_SEEDS))]
    pub(crate) seeds: u64,
    /// Images to calibrate on
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = from_to::<usize>(1, MOST))]
    pub(crate) calibration: usize,
    /// Other images to measure on; with --images at most what calibration leaves
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = from_to::<usize>(1, MOST))]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) vocabulary: VocabularyArguments,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    /// Folder for study.json, study.md and study.html
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}
