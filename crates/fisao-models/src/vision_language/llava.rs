//! LLaVA: a CLIP or SigLIP image tower, a two-layer projector and a Llama, Mistral or Qwen2 decoder.
//! LLaVA-NeXT (LLaVA 1.6) and LLaVA-OneVision are the same with tiles of the image beside the whole of it; they differ in how
//! many tokens these may take.
//!
//! Papers: Liu et al. 2023, arXiv 2310.03744; Li et al. 2024, arXiv 2408.03326. Reference: transformers'
//! `LlavaForConditionalGeneration`, `LlavaNextForConditionalGeneration` and `LlavaOnevisionForConditionalGeneration`; tensor names
//! mirror the layout of its published checkpoints.

mod tiling;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use super::VisionLanguageModel;
use super::family::{FamilyConfig, ImageEncoder, TokenIds, WholeImageGrid};
use super::images::{ImageBatch, ImageFeatures, TILES};
use crate::activation::Activation;
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::image::{ImageProcessor, ProcessorMismatch};
use crate::linear::{Linear, LinearVisitor};
use crate::llama::LlamaConfig;
use crate::parameters::{ParameterMut, Parameters};
use crate::projector_card::ProjectorCard;
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{Init, WeightError, WeightSource, widened};

pub use tiling::TilingConfig;
use tiling::TokenGrid;

/// Canonical names of the image tower and of the projector's layers.
const TOWER: &str = "vision_tower.vision_model";
const PROJECTOR: [&str; 2] = ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"];
/// Name of the vector that ends a row of tokens.
const IMAGE_NEWLINE: &str = "image_newline";

/// Which of the tower's positions become image tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureSelect {
    /// All but the first, which is CLIP's class token.
    Default,
    /// All.
    Full,
}

/// Sizes and token ids of a LLaVA model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlavaConfig {
    /// Decoder.
    pub text: LlamaConfig,
    /// Image tower.
    pub vision: VisionConfig,
    /// Token ids.
    #[serde(flatten)]
    pub tokens: TokenIds,
    /// Which hidden state of the tower is used; negative counts from the end, −2 is the one before
    /// the last layer.
    pub vision_feature_layer: i64,
    /// Which positions of it.
    pub vision_feature_select_strategy: FeatureSelect,
    /// Non-linearity between the projector's layers.
    pub projector_hidden_act: Activation,
    /// How images are cut into tiles, for a model that sees more than the whole of them.
    #[serde(default)]
    pub tiling: Option<TilingConfig>,
}

impl LlavaConfig {
    /// Number of tokens that a tile takes before anything is left out.
    pub fn tile_tokens(&self) -> usize {
        match self.vision_feature_select_strategy {
            FeatureSelect::Default => self.vision.positions() - 1,
            FeatureSelect::Full => self.vision.positions(),
        }
    }

    fn grid(&self, image: (u32, u32)) -> Option<TokenGrid> {
        let pixels = self.vision.image_size;
        let side = pixels / self.vision.patch_size;
        self.tiling.as_ref().map(|tiling| tiling.grid(pixels, side, image))
    }

    /// How many layers of the tower are run.
    fn vision_depth(&self) -> usize {
        let layers = self.vision.num_hidden_layers as i64;
        let depth = if self.vision_feature_layer < 0 {
            layers + 1 + self.vision_feature_layer
        } else {
            self.vision_feature_layer
        };
        assert!(
            (0..=layers).contains(&depth),
            "vision_feature_layer {} is outside a tower of {layers} layers",
            self.vision_feature_layer
        );
        depth as usize
    }
}

impl FamilyConfig for LlavaConfig {
    fn model_type(&self) -> &'static str {
        match &self.tiling {
            None => "llava",
            Some(TilingConfig { max_tiles: None, .. }) => "llava_next",
            Some(TilingConfig { max_tiles: Some(_), .. }) => "llava_onevision",
        }
    }

    fn decoder(&self) -> &LlamaConfig {
        &self.text
    }

    fn decoder_mut(&mut self) -> &mut LlamaConfig {
        &mut self.text
    }

    fn tokens(&self) -> &TokenIds {
        &self.tokens
    }

    /// The size of an image matters only to models with [`tiling`](LlavaConfig::tiling).
    fn image_tokens(&self, image: (u32, u32)) -> usize {
        self.grid(image).map_or_else(|| self.tile_tokens(), |grid| grid.tokens())
    }

    fn reads_original_size(&self) -> bool {
        self.tiling.is_some()
    }

    /// Patches of the whole image, before those of tiles; behind the class token where that is kept.
    fn whole_image_grid(&self, _image: (u32, u32)) -> Option<WholeImageGrid> {
        let side = self.vision.side();
        let first = self.tile_tokens().checked_sub(side * side)?;
        Some(WholeImageGrid { first, rows: side, columns: side })
    }

    fn vision(&self) -> Option<&VisionConfig> {
        Some(&self.vision)
    }

    fn image_description(&self) -> String {
        let whole =
            format!("{} image tokens of layer {}", self.tile_tokens(), self.vision_feature_layer);
        match &self.tiling {
            None => whole,
            Some(tiling) => {
                let most = tiling.most_tiles(self.vision.image_size);
                format!("{whole} and those of up to {most} tiles")
            }
        }
    }

    fn check_processor(&self, processor: &ImageProcessor) -> Result<(), ProcessorMismatch> {
        processor.check_size(self.vision.image_size as u32)?;
        let own = self.tiling.as_ref().map(|tiling| tiling.resolutions.as_slice());
        let prepared = processor.tiles.as_ref().map(|layout| layout.resolutions());
        match (prepared, own) {
            (prepared, own) if prepared == own.map(Some) => Ok(()),
            (None, Some(_)) => Err(ProcessorMismatch::Whole),
            _ => Err(ProcessorMismatch::Tiles),
        }
    }

    fn load_image_encoder(
        &self,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Box<dyn ImageEncoder>, WeightError> {
        let vision = self.vision.clone();
        let tower = VisionTower::load(vision, weights, TOWER, device)?;
        Ok(Box::new(LlavaImageEncoder::with_tower(self, tower, weights, device)?))
    }
}

/// Loads everything but the image tower, which is given.
///
/// # Errors
/// [`WeightError`] from the source.
pub fn with_vision_tower(
    config: LlavaConfig,
    vision_tower: VisionTower,
    weights: &mut dyn WeightSource,
    device: &Device,
) -> Result<VisionLanguageModel, WeightError> {
    let encoder = LlavaImageEncoder::with_tower(&config, vision_tower, weights, device)?;
    VisionLanguageModel::with_image_encoder(config, Box::new(encoder), weights, device)
}

/// Image tower and projector.
#[derive(Debug, Clone)]
struct LlavaImageEncoder {
    config: LlavaConfig,
    tower: VisionTower,
    linear_1: Linear,
    linear_2: Linear,
    /// Ends a row of tiles' tokens, where there are tiles.
    image_newline: Option<Tensor<1>>,
    card: ProjectorCard,
}

impl LlavaImageEncoder {
    fn with_tower(
        config: &LlavaConfig,
        tower: VisionTower,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let hidden = config.text.hidden_size;
        let mut linear = |name: &str, size| Linear::load(weights, name, size, true, device);
        let linear_1 = linear(PROJECTOR[0], [config.vision.hidden_size, hidden])?;
        let linear_2 = linear(PROJECTOR[1], [hidden, hidden])?;
        let image_newline = if config.tiling.is_some() {
            let init = Init::Normal { std: (hidden as f64).sqrt().recip() };
            Some(widened(weights.tensor(IMAGE_NEWLINE, &[hidden], init)?, device))
        } else {
            None
        };
        let (config, card) = (config.clone(), ProjectorCard::default());
        Ok(Self { config, tower, linear_1, linear_2, image_newline, card })
    }

    /// Image tokens of tiles `[tiles · tokens, hidden]`, packed for each image.
    fn pack(&self, tokens: Tensor<2>, images: &ImageBatch) -> ImageFeatures {
        let ImageBatch { tiles, sizes, .. } = images;
        let each = self.config.tile_tokens();
        let Some(newline) = &self.image_newline else {
            assert!(tiles.iter().all(|&tiles| tiles == 1), "this model sees images whole");
            return ImageFeatures::new(tokens, vec![each; tiles.len()]);
        };
        let (mut first, mut packed, mut counts) = (0, Vec::new(), Vec::new());
        for (&size, &tiles) in sizes.iter().zip(tiles) {
            let grid = self.config.grid(size).expect("a model with a newline has tiles");
            assert!(
                tiles == grid.tiles(),
                "an image of {size:?} pixels has {tiles} tiles, but the model looks at {}",
                grid.tiles()
            );
            let own = tokens.clone().narrow(0, first * each, tiles * each);
            packed.push(grid.pack(own, newline));
            counts.push(grid.tokens());
            first += tiles;
        }
        ImageFeatures::new(Tensor::cat(packed, 0), counts)
    }

    /// Runs the projector: the tower's states `[tiles, positions, width]` → `[tiles · tokens, hidden]`.
    fn project(&self, states: Tensor<3>) -> Result<Tensor<2>, CudaError> {
        let [tiles, _, width] = states.dims();
        let kept = self.config.tile_tokens();
        let states = match self.config.vision_feature_select_strategy {
            FeatureSelect::Full => states,
            FeatureSelect::Default => states.narrow(1, 1, kept),
        };
        let (x, activation) =
            (states.reshape([tiles * kept, width]), self.config.projector_hidden_act);
        let layers = [&self.linear_1, &self.linear_2];
        let projected = self.card.forward(&layers, Some(activation), &x)?;
        Ok(projected
            .unwrap_or_else(|| self.linear_2.forward(activation.forward(self.linear_1.forward(x)))))
    }
}

impl ImageEncoder for LlavaImageEncoder {
    fn boxed_clone(&self) -> Box<dyn ImageEncoder> {
        Box::new(self.clone())
    }

    fn encode(
        &self,
        images: ImageBatch,
        output: bool,
    ) -> Result<(ImageFeatures, Option<VisionOutput>), CudaError> {
        let depth = self.config.vision_depth();
        let (tokens, output) =
            images.through_tower(&self.tower, depth, output, |states, _| self.project(states))?;
        Ok((self.pack(tokens, &images), output))
    }

    fn tower(&self) -> Option<&VisionTower> {
        Some(&self.tower)
    }

    fn use_card(&mut self, driver: &SharedDriver) -> Result<Vec<LeftOnCpu>, CudaError> {
        let mut left = Vec::new();
        LeftOnCpu::unless(self.tower.use_card(driver), "the image tower", &mut left)?;
        let layers = [&self.linear_1, &self.linear_2];
        let activation = Some(self.config.projector_hidden_act);
        let card = ProjectorCard::copy(driver, &layers, activation);
        self.card = LeftOnCpu::unless(card, "the projector", &mut left)?.unwrap_or_default();
        Ok(left)
    }

    fn card_memory(&self, tiles: usize, _instruction: usize) -> ImageMemory {
        let tiles = tiles.min(TILES);
        self.tower.card_memory(tiles).and(self.card.memory(tiles * self.config.tile_tokens()))
    }

    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.tower.visit_mut(&format!("{prefix}{TOWER}"), visitor);
        self.visit_connector_mut(prefix, visitor);
    }

    fn visit_connector_mut(
        &mut self,
        prefix: &str,
        visitor: &mut dyn FnMut(&str, ParameterMut<'_>),
    ) {
        self.linear_1.visit_mut(&format!("{prefix}{}", PROJECTOR[0]), visitor);
        self.linear_2.visit_mut(&format!("{prefix}{}", PROJECTOR[1]), visitor);
        if let Some(newline) = &mut self.image_newline {
            visitor(&format!("{prefix}{IMAGE_NEWLINE}"), ParameterMut::Vector(newline));
        }
    }

    fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.tower.visit_linears_mut(TOWER, visitor);
        visitor(PROJECTOR[0], &mut self.linear_1);
        visitor(PROJECTOR[1], &mut self.linear_2);
    }
}
