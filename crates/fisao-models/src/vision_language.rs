//! Vision-language models: an image encoder of one of several families, and a decoder that reads its image tokens among those
//! of a prompt.
//!
//! What families differ in is behind [`FamilyConfig`] and [`ImageEncoder`]; each is a module of its own. Generation, scoring and
//! adapters are the same for all of them.

mod family;
mod images;
pub mod instructblip;
mod linear_layers;
pub mod llava;
mod prompt_rows;
pub mod qwen_vl;
pub mod smolvlm;

use burn::tensor::Device;
use fisao_cuda::{CudaError, Driver, Storage};

use crate::card_copy::storage;
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::linear::is_adapted;
use crate::llama::Llama;
use crate::parameters::{ParameterMut, Parameters};
use crate::vision::{VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

pub use family::{FamilyConfig, ImageEncoder, ImagePlace, TokenIds, WholeImageGrid};
pub use images::{ImageBatch, ImageFeatures};
pub(crate) use prompt_rows::{DecoderInputs, PromptRows};

use instructblip::InstructBlipConfig;
use llava::LlavaConfig;
use qwen_vl::QwenVlConfig;
use smolvlm::SmolVlmConfig;

/// What the decoder's names begin with.
const DECODER: &str = "language_model";

/// Configuration of a model of any family.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum VisionLanguageConfig {
    /// InstructBLIP with a Vicuna decoder.
    InstructBlip(InstructBlipConfig),
    /// LLaVA, LLaVA-NeXT and LLaVA-OneVision.
    Llava(LlavaConfig),
    /// Qwen2.5-VL and Qwen3-VL.
    QwenVl(QwenVlConfig),
    /// SmolVLM and SmolVLM2.
    SmolVlm(SmolVlmConfig),
}

impl From<InstructBlipConfig> for VisionLanguageConfig {
    fn from(config: InstructBlipConfig) -> Self {
        Self::InstructBlip(config)
    }
}

impl From<LlavaConfig> for VisionLanguageConfig {
    fn from(config: LlavaConfig) -> Self {
        Self::Llava(config)
    }
}

impl From<QwenVlConfig> for VisionLanguageConfig {
    fn from(config: QwenVlConfig) -> Self {
        Self::QwenVl(config)
    }
}

impl From<SmolVlmConfig> for VisionLanguageConfig {
    fn from(config: SmolVlmConfig) -> Self {
        Self::SmolVlm(config)
    }
}

impl VisionLanguageConfig {
    /// What it tells the rest of the program.
    pub fn family(&self) -> &dyn FamilyConfig {
        match self {
            Self::InstructBlip(config) => config,
            Self::Llava(config) => config,
            Self::QwenVl(config) => config,
            Self::SmolVlm(config) => config,
        }
    }

    /// Mutable [`family`](Self::family).
    pub fn family_mut(&mut self) -> &mut dyn FamilyConfig {
        match self {
            Self::InstructBlip(config) => config,
            Self::Llava(config) => config,
            Self::QwenVl(config) => config,
            Self::SmolVlm(config) => config,
        }
    }
}

/// The model.
#[derive(Debug, Clone)]
pub struct VisionLanguageModel {
    config: VisionLanguageConfig,
    image_encoder: Box<dyn ImageEncoder>,
    language_model: Llama,
}

impl VisionLanguageModel {
    /// Loads a model under the canonical names of its family.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: impl Into<VisionLanguageConfig>,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let config = config.into();
        let image_encoder = config.family().load_image_encoder(weights, device)?;
        Self::with_image_encoder(config, image_encoder, weights, device)
    }

    /// Loads the decoder behind an image encoder that is given.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn with_image_encoder(
        config: impl Into<VisionLanguageConfig>,
        image_encoder: Box<dyn ImageEncoder>,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let config = config.into();
        let decoder = config.family().decoder().clone();
        let language_model = Llama::load(decoder, weights, DECODER, device)?;
        Ok(Self { config, image_encoder, language_model })
    }

    /// Sizes and layout.
    pub fn config(&self) -> &VisionLanguageConfig {
        &self.config
    }

    /// Token ids.
    pub fn tokens(&self) -> &TokenIds {
        self.config.family().tokens()
    }

    /// The decoder.
    pub fn language_model(&self) -> &Llama {
        &self.language_model
    }

    /// The decoder, to [give it a card](Llama::use_card).
    pub fn language_model_mut(&mut self) -> &mut Llama {
        &mut self.language_model
    }

    /// The image tower, where it is one that a contrastive model may share; frozen.
    pub fn vision_tower(&self) -> Option<&VisionTower> {
        self.image_encoder.tower()
    }

    /// Copies what makes image tokens to a card, where it runs from then on, for this model and all its clones. What learns or is adapted
    /// stays on the CPU, and so does what is returned, which the card does not compute.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, and those of the driver. What was not copied runs on the CPU as before then.
    pub fn use_card_for_images(
        &mut self,
        driver: Box<dyn Driver + Send>,
    ) -> Result<Vec<LeftOnCpu>, CudaError> {
        self.image_encoder.use_card(&SharedDriver::new(driver))
    }

    /// What the copies of what makes image tokens take of a card, with so many tiles at work, whose instructions have so many tokens at
    /// most.
    pub fn image_memory(&self, tiles: usize, instruction: usize) -> ImageMemory {
        self.image_encoder.card_memory(tiles, instruction)
    }

    /// As [`Llama::rows_on_card`], beside this model's image encoder.
    pub fn rows_on_card(&self, length: usize, most: usize) -> Option<usize> {
        let ImageMemory { weights, .. } = self.image_memory(0, 0);
        self.language_model.rows_on_card(length, most, weights)
    }

    /// The types of the matrices that make image tokens, which a card has to have kernels for.
    pub fn image_storages(&self) -> Vec<Storage> {
        let mut all = Vec::new();
        self.image_encoder.clone().visit_linears_mut(&mut |_, linear| {
            let storage = storage(linear.weight.dtype());
            if !all.contains(&storage) {
                all.push(storage);
            }
        });
        all
    }

    /// Whether an adapter is on anything that makes image tokens.
    pub fn has_adapted_image_encoder(&self) -> bool {
        is_adapted(|visitor| self.image_encoder.clone().visit_linears_mut(visitor))
    }

    /// Where the decoder's weights live.
    pub fn device(&self) -> Device {
        self.language_model.device()
    }

    /// Image tokens of images, which the model sees whole or in tiles; those [shown together](ImageBatch::shown_together) stand for one
    /// image.
    ///
    /// # Errors
    /// Those of the driver of the encoder's [card](Self::use_card_for_images).
    ///
    /// # Panics
    /// The images have not as many tiles as the model looks at.
    pub fn image_features(
        &self,
        images: impl Into<ImageBatch>,
    ) -> Result<ImageFeatures, CudaError> {
        let mut images = images.into();
        let shown = std::mem::take(&mut images.shown);
        let features = self.image_encoder.encode(images, false)?.0;
        Ok(if shown.is_empty() { features } else { features.shown_together(&shown) })
    }

    /// Image tokens of images, and how far the whole of each has come through the [image tower](Self::vision_tower): to the
    /// layer whose states the model takes.
    ///
    /// # Errors
    /// As [`image_features`](Self::image_features).
    ///
    /// # Panics
    /// The images have not as many tiles as the model looks at, some are shown together, or the model has no image tower that can be
    /// shared.
    pub fn image_features_and_vision_output(
        &self,
        images: impl Into<ImageBatch>,
    ) -> Result<(ImageFeatures, VisionOutput), CudaError> {
        let images = images.into();
        assert!(images.shown.is_empty(), "each image is looked at on its own");
        let (features, output) = self.image_encoder.encode(images, true)?;
        Ok((features, output.expect("an encoder whose tower is shared gives its output")))
    }

    /// Visits everything but the image tower.
    pub fn visit_text_side_mut(&mut self, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.image_encoder.visit_connector_mut("", visitor);
        self.language_model.visit_mut(DECODER, visitor);
    }
}

impl Parameters for VisionLanguageModel {
    /// Visits the base weights; the adapter is visited by [`VisionLanguageModel::visit_lora_mut`].
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.image_encoder.visit_mut(prefix, visitor);
        self.language_model.visit_mut(&format!("{prefix}{DECODER}"), visitor);
    }
}
