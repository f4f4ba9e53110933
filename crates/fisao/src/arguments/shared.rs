//! Options that several commands take.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use fisao_formats::adapter::VisionAdapter;
use fisao_formats::weights::LoadDtype;
use fisao_models::generation::Sampling;
use fisao_models::linear::ActivationDtype;
use fisao_runs::bundle::{AloneSource, ModelSource, PairSource};
use fisao_runs::device::{DeviceChoice, OpenDevice};
use fisao_runs::model_location::ModelLocation;
use fisao_runs::score_settings::{ScoreChoice, ScoreSettings};
use fisao_runs::settings::SettingsChanges;
use fisao_runs::settings_reference::{SETTINGS, Setting, Word};
use fisao_runs::tasks::DamagedImages;
use fisao_runs::verifier_choice::VerifierSource;
use fisao_runs::{Refusal, Reporter};
use fisao_verifier::calibration::Calibration;
use fisao_verifier::regions::{Regions, ScoreHead, Wording};

use super::WorldArguments;

/// The model that generates.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ModelArguments {
    /// Vision-language checkpoint: a folder in Hugging Face layout, or a name on the Hub [default: the built-in
    /// synthetic dataset's small model]
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) model: Option<ModelLocation>,
    /// LoRA adapter in PEFT layout to put on the model, folder or name
    #[arg(long, value_name = "FOLDER|ID")]
    pub(crate) adapter: Option<ModelLocation>,
    /// Apply an adapter to the model's vision tower, too; the verifier's stays as it is
    #[arg(long, requires = "adapter")]
    pub(crate) allow_vision_adapter: bool,
    /// Precision in which the model's weights are held; adapters and sums are always f32
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(crate) dtype: Dtype,
    /// What is multiplied with weights held in bf16: activations as they are, or rounded to bf16 as most programs do, up to
    /// twice as fast where the processor multiplies bf16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub(crate) activation_dtype: Activations,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
}

impl ModelArguments {
    /// The model that was named, or the embedded one.
    pub(crate) fn source(&self) -> ModelSource {
        ModelSource {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            vision_adapter: vision_adapter(self.allow_vision_adapter),
            dtype: self.dtype.into(),
            activation_dtype: self.activation_dtype.into(),
        }
    }
}

/// How work is shared among processes and threads.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct SharingArguments {
    /// The same answers to the bit for any number of processes and threads, with eight threads at most
    #[arg(long, conflicts_with = "guided")]
    pub(crate) exact: bool,
}

/// Model and verifier.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PairArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// CLIP, SigLIP or BLIP-2 checkpoint the model's vision tower comes from, folder or name; or decoder, for what the
    /// model's own decoder reads in the image [default: the built-in synthetic dataset's; with --model the one known to go
    /// with its vision tower, else decoder]
    #[arg(long, value_name = "FOLDER|ID|decoder")]
    pub(crate) verifier: Option<VerifierSource>,
    /// Use a verifier whose vision tower is not the model's own
    #[arg(long, alias = "allow-foreign-verifier")]
    pub(crate) allow_mismatched_verifier: bool,
    #[command(flatten)]
    pub(crate) world: WorldArguments,
}

impl PairArguments {
    /// The two that were named, or the embedded ones.
    pub(crate) fn source(&self) -> PairSource {
        PairSource {
            model: self.model.source(),
            verifier: self.verifier.clone(),
            allow_mismatched_verifier: self.allow_mismatched_verifier,
            world: self.world.kind(),
        }
    }
}

/// Where models run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DeviceArguments {
    /// Where to compute: cpu, vulkan, cuda or metal, where this build has them, or auto for the first
    /// graphics card there is; of several, vulkan:1 is the second [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceChoice>,
}

impl DeviceArguments {
    /// Opens the device.
    pub(crate) fn open(&self, reporter: &Reporter) -> anyhow::Result<OpenDevice> {
        self.device.unwrap_or_default().open(reporter)
    }
}

/// What `--allow-vision-adapter` stands for.
pub(crate) fn vision_adapter(allowed: bool) -> VisionAdapter {
    if allowed { VisionAdapter::Apply } else { VisionAdapter::Refuse }
}

/// Precision of weights: as the checkpoint stores them, or converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for LoadDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::AsStored,
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

/// What activations are multiplied as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Activations {
    #[default]
    F32,
    Bf16,
}

impl From<Activations> for ActivationDtype {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::F32 => Self::F32,
            Activations::Bf16 => Self::Bf16,
        }
    }
}

/// Most tokens of a response that can be asked for; the model's positions may leave room for fewer.
pub(crate) const MOST_NEW_TOKENS: u64 = 1 << 20;
/// Most things of a kind, such as scenes or images, that can be asked for.
pub(crate) const MOST: u64 = 1 << 20;
/// Most seeds that can be asked for.
pub(crate) const MOST_SEEDS: u64 = 10_000;
/// Most captions or responses of which the best can be chosen.
pub(crate) const MOST_OF_BEST: u64 = 1_024;

/// Reads a count and refuses one outside of its range.
pub(crate) fn from_to<T: TryFrom<u64>>(least: u64, most: u64) -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(least..=most)
}

/// How tokens are chosen.
#[derive(Clone, Debug, Args)]
pub(crate) struct SamplingArguments {
    /// Longest caption or answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = from_to::<usize>(1, MOST_NEW_TOKENS))]
    pub(crate) max_new_tokens: usize,
    /// Sample at this temperature instead of taking the most likely token
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Take the most likely token (the default)
    #[arg(long, conflicts_with = "temperature")]
    pub(crate) greedy: bool,
    /// Seed of sampling, and of the scenes where there are any
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl SamplingArguments {
    /// The settings, checked against their ranges.
    pub(crate) fn resolve(&self) -> anyhow::Result<Sampling> {
        let temperature = self.temperature.unwrap_or(0.0);
        if temperature != 0.0 && !(0.01..=100.0).contains(&temperature) {
            bail!(Refusal::new(format!(
                "--temperature is {temperature}, but must be 0 or from 0.01 to 100"
            )));
        }
        Ok(Sampling { max_new_tokens: self.max_new_tokens, temperature, seed: self.seed })
    }
}

/// What verifies texts that are there.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifierArguments {
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
}

impl VerifierArguments {
    /// What verifies.
    pub(crate) fn source(&self) -> AloneSource {
        let (verifier, model) = (self.verifier.clone(), self.model.clone());
        AloneSource { verifier, model, world: self.world.kind() }
    }
}

/// Where the settings of an alignment run come from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsArguments {
    /// Settings in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Change one setting, for instance objective.clip-range=0.1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", add = ArgValueCompleter::new(settings_that_begin))]
    pub(crate) set: Vec<String>,
}

impl SettingsArguments {
    /// As the library takes them.
    pub(crate) fn changes(&self) -> SettingsChanges {
        SettingsChanges { config: self.config.clone(), set: self.set.clone() }
    }
}

/// Settings that a shell offers for what has been typed: keys, and behind `=` the words that a setting may be.
fn settings_that_begin(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let offered = |setting: &Setting| -> Vec<CompletionCandidate> {
        let help = Some(setting.summary().to_owned().into());
        match typed.split_once('=') {
            None => vec![CompletionCandidate::new(format!("{}=", setting.key)).help(help)],
            Some((key, _)) if key == setting.key => {
                let word = |word: &Word| {
                    let candidate = CompletionCandidate::new(format!("{key}={}", word.name));
                    candidate.help(Some(word.doc.clone().into()))
                };
                setting.values.iter().map(word).collect()
            }
            Some(_) => Vec::new(),
        }
    };
    let mut candidates: Vec<CompletionCandidate> = SETTINGS.iter().flat_map(offered).collect();
    candidates
        .retain(|candidate| candidate.get_value().to_str().is_some_and(|it| it.starts_with(typed)));
    candidates.sort_by(|a, b| a.get_value().cmp(b.get_value()));
    candidates.dedup_by(|a, b| a.get_value() == b.get_value());
    candidates
}

/// Which words name objects.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct VocabularyArguments {
    /// Object names: coco for COCO's 80, everyday for about 800 common things, world for those of the built-in synthetic dataset, or a
    /// file: {"category": ["form", …], …} as JSON, or one category and its synonyms a line, with commas between; auto: what the
    /// captions at hand name and the verifier sees (verify, calibrate, align and study verifier), written to a file that can be edited
    /// [default: the calibration's if it is one of these lists; else world for the embedded models, everyday for others]
    #[arg(long, value_name = "FILE")]
    pub(crate) vocabulary: Option<PathBuf>,
}

impl VocabularyArguments {
    /// The file or list that was named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.vocabulary.as_deref()
    }
}

/// How words are scored.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ScoringArguments {
    /// Sentence in which names are scored, with {} in the name's place; several are averaged
    /// [default: the calibration's, else "a photo of a {}."]
    #[arg(long = "template", value_name = "TEXT")]
    pub(crate) templates: Vec<String>,
    /// Where in an image a name is looked for [default: the calibration's, else whole]
    #[arg(long, value_name = "REGIONS")]
    pub(crate) regions: Option<RegionsChoice>,
    /// What a BLIP-2 verifier scores with [default: the calibration's, else contrastive]
    #[arg(long, value_name = "HEAD")]
    pub(crate) head: Option<HeadChoice>,
    /// What of a mention is scored [default: the calibration's, else name]
    #[arg(long, value_name = "WORDING")]
    pub(crate) wording: Option<WordingChoice>,
    /// Contrast a name with this many names of other objects, the nearest to it, 0 to 16; half their mean score is taken from the name's
    /// [default: the calibration's, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub(crate) contrast: Option<u32>,
}

/// What of a mention is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WordingChoice {
    /// The object's name: "dog"
    Name,
    /// The name with what the caption says of it: "small brown dog"
    Phrase,
}

/// What a BLIP-2 verifier scores with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadChoice {
    /// Cosine of image and text (ITC)
    Contrastive,
    /// Log-odds of the head that reads both together (ITM); slower, each pair of image and name takes a pass
    Matching,
}

/// Where in an image a name is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RegionsChoice {
    /// In the whole of it
    Whole,
    /// In its patches, too
    Patches,
    /// In overlapping crops, too; for small objects, at five times the cost
    Crops,
}

impl ScoringArguments {
    /// What was asked for; where nothing was, what a calibration was made with, or the usual.
    pub(crate) fn resolve(&self, calibration: Option<&Calibration>) -> ScoreSettings {
        ScoreSettings::chosen(&self.choice(), calibration)
    }

    /// The same in the library's words.
    pub(crate) fn choice(&self) -> ScoreChoice {
        let Self { templates, regions, head, wording, contrast } = self;
        ScoreChoice {
            templates: templates.clone(),
            regions: regions.map(|regions| match regions {
                RegionsChoice::Whole => Regions::Whole,
                RegionsChoice::Patches => Regions::Patches,
                RegionsChoice::Crops => Regions::Crops,
            }),
            head: head.map(|head| match head {
                HeadChoice::Contrastive => ScoreHead::Contrastive,
                HeadChoice::Matching => ScoreHead::Matching,
            }),
            wording: wording.map(|wording| match wording {
                WordingChoice::Name => Wording::Name,
                WordingChoice::Phrase => Wording::Phrase,
            }),
            contrast: *contrast,
        }
    }
}

/// What is done about images that cannot be used.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DamagedArguments {
    /// Skip images that are damaged, too large or of a format that is not read, and name them, instead of stopping
    #[arg(long)]
    pub(crate) skip_damaged: bool,
}

impl DamagedArguments {
    /// The same in the library's words.
    pub(crate) fn images(&self) -> DamagedImages {
        DamagedImages::skipped(self.skip_damaged)
    }
}

/// How results are written: for people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    #[value(alias = "jsonl")]
    Json,
}
