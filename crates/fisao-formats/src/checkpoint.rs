//! A model folder in Hugging Face layout: what it is, and how to load it.

mod companion_files;
mod config;
mod config_writer;
mod family_format;
mod writer;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fisao_models::blip2::{Blip2, Blip2Config};
use fisao_models::clip::{Clip, ClipConfig};
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::image::ImageProcessor;
use fisao_models::llama::LlamaConfig;
use fisao_models::siglip::{Siglip, SiglipConfig};
use fisao_models::vision::VisionConfig;
use fisao_models::vision_language::{ImagePlace, VisionLanguageConfig, VisionLanguageModel};
use fisao_models::weights::WeightError;

pub use config::llava::LAYOUT as LLAVA_LAYOUT;
pub use config_writer::{clip_config_json, llava_config_json};
pub use writer::{
    SpecialTokens, named_tensors, write_checkpoint, write_clip, write_clip_processing, write_llava,
    write_llava_processing,
};

use crate::FormatError;
use crate::processor::read_image_processor_of;
use crate::tokenizer::HfTokenizer;
use crate::weights::{Layout, LoadDtype, SafetensorsSource};
pub(crate) use family_format::{FamilyFormat, Naming};

/// The model configuration's file name.
pub const CONFIG_FILE: &str = "config.json";
/// What generation is to do by default.
const GENERATION_CONFIG_FILE: &str = "generation_config.json";

pub use crate::tokenizer::TOKENIZER_FILE;

/// What a checkpoint's `config.json` says, by `model_type`.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a checkpoint, not many")]
pub enum ModelConfig {
    /// A model that writes text about images, of any family.
    VisionLanguage(VisionLanguageConfig),
    /// `blip-2`: an image tower, and a Q-Former that reads images and texts into a shared space.
    Blip2(Blip2Config),
    /// `clip`: an image and a text tower with a shared space.
    Clip(ClipConfig),
    /// `siglip`: the same, trained with another loss.
    Siglip(SiglipConfig),
}

impl ModelConfig {
    /// The `model_type` it stands for.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::VisionLanguage(config) => config.family().model_type(),
            Self::Blip2(_) => "blip-2",
            Self::Clip(_) => "clip",
            Self::Siglip(_) => "siglip",
        }
    }

    /// Parts of the model, for people, each with the beginnings of its tensors' canonical names; the last has what is left.
    pub fn parts(&self) -> &'static [(&'static [&'static str], &'static str)] {
        match self {
            Self::VisionLanguage(config) => FamilyFormat::of(config).parts,
            Self::Blip2(_) => {
                &[(&["vision_model."], "image tower"), (&[""], "Q-Former and projections")]
            }
            Self::Clip(_) | Self::Siglip(_) => &[
                (&["vision_model."], "image tower"),
                (&["text_model."], "text tower"),
                (&[""], "projections"),
            ],
        }
    }

    /// The family of names its weights are stored under.
    pub fn layout(&self) -> Layout {
        match self {
            Self::VisionLanguage(config) => FamilyFormat::of(config).layout,
            Self::Blip2(_) => Layout::BLIP2,
            Self::Clip(_) | Self::Siglip(_) => Layout::CONTRASTIVE,
        }
    }
}

/// Whether the embedding table is the output matrix too: the configuration says so, and the weights hold no output matrix
/// of their own. transformers 5 does not tie what is stored separately either.
pub(crate) fn ties_embeddings(config: &LlamaConfig, weights: &SafetensorsSource) -> bool {
    config.tie_word_embeddings && !weights.contains("language_model.lm_head.weight")
}

/// A model folder whose configuration has been read; weights are opened when they are asked for.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: ModelConfig,
}

/// A model, and the tensors of its checkpoint that it had no use for.
#[derive(Clone, Debug)]
pub struct Loaded<M> {
    /// The model.
    pub model: M,
    /// Keys of the checkpoint that were not read, sorted; normally none.
    pub unused: Vec<String>,
}

impl Checkpoint {
    /// Reads a folder's `config.json`, as transformers 4 or 5 wrote it.
    ///
    /// # Errors
    /// The folder or file is absent; the model is of an unknown type, lacks a field, or asks for
    /// something that is not supported.
    pub fn open(folder: &Path) -> Result<Self, FormatError> {
        if !folder.is_dir() {
            return Err(FormatError::NotFound { what: "checkpoint folder", path: folder.into() });
        }
        Ok(Self { folder: folder.to_owned(), config: config::read(folder)? })
    }

    /// Settings of its `generation_config.json` that change what transformers writes, and that responses here do not follow:
    /// penalties, forced and forbidden tokens, beams; each as `name = value`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn unheeded_generation(&self) -> Result<Vec<String>, FormatError> {
        config::unheeded_generation(&self.folder.join(GENERATION_CONFIG_FILE))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the folder holds.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The configuration of a vision-language model.
    ///
    /// # Errors
    /// It is of another type.
    pub fn vision_language_config(&self) -> Result<&VisionLanguageConfig, FormatError> {
        match &self.config {
            ModelConfig::VisionLanguage(config) => Ok(config),
            ModelConfig::Blip2(_) | ModelConfig::Clip(_) | ModelConfig::Siglip(_) => {
                Err(self.wrong_type("llava"))
            }
        }
    }

    /// The configuration of a CLIP checkpoint.
    ///
    /// # Errors
    /// It is of another type.
    pub fn clip_config(&self) -> Result<&ClipConfig, FormatError> {
        match &self.config {
            ModelConfig::Clip(config) => Ok(config),
            _ => Err(self.wrong_type("clip")),
        }
    }

    /// The image tower of a checkpoint that can be a verifier.
    ///
    /// # Errors
    /// It is neither CLIP nor SigLIP nor BLIP-2.
    pub fn contrastive_vision(&self) -> Result<&VisionConfig, FormatError> {
        match &self.config {
            ModelConfig::Blip2(config) => Ok(&config.vision),
            ModelConfig::Clip(config) => Ok(&config.vision),
            ModelConfig::Siglip(config) => Ok(&config.vision),
            ModelConfig::VisionLanguage(_) => {
                Err(self.wrong_type("clip`, a `siglip` or a `blip-2"))
            }
        }
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// See [`SafetensorsSource::open`].
    pub fn weights(&self, dtype: LoadDtype) -> Result<SafetensorsSource, FormatError> {
        SafetensorsSource::open(&self.folder, self.config.layout(), dtype)
    }

    /// Loads a vision-language model.
    ///
    /// # Errors
    /// The checkpoint is of another type, or a tensor is missing, misshapen or damaged.
    pub fn load_vision_language(
        &self,
        dtype: LoadDtype,
        device: &Device,
    ) -> Result<Loaded<VisionLanguageModel>, FormatError> {
        let mut config = self.vision_language_config()?.clone();
        self.load(dtype, |weights| {
            let decoder = config.family_mut().decoder_mut();
            decoder.tie_word_embeddings = ties_embeddings(decoder, weights);
            VisionLanguageModel::load(config, weights, device)
        })
    }

    /// Loads a CLIP model.
    ///
    /// # Errors
    /// The checkpoint is of another type, or a tensor is missing, misshapen or damaged.
    pub fn load_clip(
        &self,
        dtype: LoadDtype,
        device: &Device,
    ) -> Result<Loaded<Clip>, FormatError> {
        let config = self.clip_config()?.clone();
        self.load(dtype, |weights| Clip::load(config, weights, device))
    }

    /// Loads a CLIP, SigLIP or BLIP-2 model.
    ///
    /// # Errors
    /// The checkpoint is of another type, or a tensor is missing, misshapen or damaged.
    pub fn load_contrastive(
        &self,
        dtype: LoadDtype,
        device: &Device,
    ) -> Result<Loaded<ContrastiveModel>, FormatError> {
        self.contrastive_vision()?;
        match self.config.clone() {
            ModelConfig::Siglip(config) => {
                self.load(dtype, |weights| Siglip::load(config, weights, device).map(Into::into))
            }
            ModelConfig::Blip2(config) => {
                self.load(dtype, |weights| Blip2::load(config, weights, device).map(Into::into))
            }
            ModelConfig::Clip(_) | ModelConfig::VisionLanguage(_) => {
                let Loaded { model, unused } = self.load_clip(dtype, device)?;
                Ok(Loaded { model: model.into(), unused })
            }
        }
    }

    fn load<M>(
        &self,
        dtype: LoadDtype,
        build: impl FnOnce(&mut SafetensorsSource) -> Result<M, WeightError>,
    ) -> Result<Loaded<M>, FormatError> {
        let mut weights = self.weights(dtype)?;
        match build(&mut weights) {
            Ok(model) => Ok(Loaded { model, unused: weights.finish() }),
            Err(error) => Err(weights.explain(error)),
        }
    }

    /// Opens the tokenizer.
    ///
    /// # Errors
    /// `tokenizer.json` is absent or unusable, has tokens that the model has no embedding for, or lacks
    /// the image placeholder.
    pub fn tokenizer(&self) -> Result<HfTokenizer, FormatError> {
        let path = self.folder.join(TOKENIZER_FILE);
        let tokenizer = HfTokenizer::open(&path)?;
        let (embeddings, image) = match &self.config {
            ModelConfig::VisionLanguage(config) => {
                let family = config.family();
                let in_text = family.image_place() == ImagePlace::InText;
                (family.decoder().vocab_size, in_text.then(|| family.tokens().image))
            }
            ModelConfig::Blip2(config) => (config.qformer.vocab_size, None),
            ModelConfig::Clip(config) => (config.text.vocab_size, None),
            ModelConfig::Siglip(config) => (config.text.vocab_size, None),
        };
        match tokenizer.largest_id() {
            Some(largest) if largest as usize >= embeddings => {
                return Err(FormatError::TokenizerTooLarge { path, largest, embeddings });
            }
            _ => {}
        }
        match image.filter(|&id| tokenizer.token(id).is_none()) {
            Some(id) => Err(FormatError::NoImageToken { path, id }),
            None => Ok(tokenizer),
        }
    }

    /// Opens the tokenizer of an image encoder that reads instructions; `None` of a model that has no such encoder.
    ///
    /// # Errors
    /// It is absent or unusable.
    pub fn instruction_tokenizer(&self) -> Result<Option<HfTokenizer>, FormatError> {
        let file = self.instruction_tokenizer_file();
        file.map(|file| HfTokenizer::open(&self.folder.join(file))).transpose()
    }

    /// Where that tokenizer lies within the folder.
    pub(crate) fn instruction_tokenizer_file(&self) -> Option<String> {
        match &self.config {
            ModelConfig::VisionLanguage(config) => {
                FamilyFormat::of(config).instruction_tokenizer_file()
            }
            ModelConfig::Blip2(_) | ModelConfig::Clip(_) | ModelConfig::Siglip(_) => None,
        }
    }

    /// Reads how images are prepared.
    ///
    /// # Errors
    /// Neither processor file is there, or it asks for something that is not supported.
    pub fn image_processor(&self) -> Result<ImageProcessor, FormatError> {
        let own: Vec<_> = FamilyFormat::all_image_processors().collect();
        read_image_processor_of(&self.folder, &own)
    }

    fn wrong_type(&self, expected: &'static str) -> FormatError {
        FormatError::WrongModelType {
            path: self.folder.clone(),
            expected,
            found: self.config.model_type(),
        }
    }
}
