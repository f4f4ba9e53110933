//! Qwen2.5-VL and Qwen3-VL: an image tower for images of any size, a merger of patches, and a Qwen2 or Qwen3 decoder with
//! multimodal rotary positions. In Qwen3-VL features of some of the tower's layers are added behind the decoder's first layers
//! (DeepStack).
//!
//! Papers: Bai et al. 2025, arXiv 2502.13923; Bai et al. 2025, arXiv 2511.21631. Reference: transformers'
//! `Qwen2_5_VLForConditionalGeneration` and `Qwen3VLForConditionalGeneration`. Videos and mixtures of experts are not read.

mod block;
mod merger;
mod patches;
mod tower;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use super::family::{FamilyConfig, ImageEncoder, TokenIds, WholeImageGrid};
use super::images::{ImageBatch, ImageFeatures};
use crate::activation::Activation;
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::image::{ImageProcessor, PixelBudget, ProcessorMismatch, Resize};
use crate::linear::LinearVisitor;
use crate::llama::LlamaConfig;
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

use merger::Merger;
use tower::{Tower, TowerOutput};

/// Canonical names of the parts.
const TOWER: &str = "vision_tower";
const MERGER: &str = "merger";
const DEEP_MERGERS: &str = "deepstack_merger_list";

/// What the generations of image towers differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QwenGeneration {
    /// Qwen2.5-VL: RMS norms, SwiGLU, attention in windows.
    Qwen2_5 {
        /// Side of a window, pixels.
        window_size: usize,
        /// Layers in which every patch sees all others.
        full_layers: Vec<usize>,
    },
    /// Qwen3-VL: layer norms, learned positions, deep features.
    Qwen3 {
        /// Entries along each side of the table of positions.
        position_side: usize,
        /// Layers whose states the decoder gets besides the last one's, in order.
        deep_layers: Vec<usize>,
        /// Non-linearity of the feed-forward part.
        hidden_act: Activation,
    },
}

/// Sizes of an image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QwenVisionConfig {
    /// Which it is.
    pub generation: QwenGeneration,
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Frames of a patch; an image is repeated.
    pub frames: usize,
    /// Patches along each side that become one token together.
    pub merge_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// Sizes and token ids of a Qwen2.5-VL or Qwen3-VL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QwenVlConfig {
    /// Decoder.
    pub text: LlamaConfig,
    /// Image tower.
    pub vision: QwenVisionConfig,
    /// What images are brought to.
    pub budget: PixelBudget,
    /// Token ids.
    #[serde(flatten)]
    pub tokens: TokenIds,
}

impl FamilyConfig for QwenVlConfig {
    fn model_type(&self) -> &'static str {
        match self.vision.generation {
            QwenGeneration::Qwen2_5 { .. } => "qwen2_5_vl",
            QwenGeneration::Qwen3 { .. } => "qwen3_vl",
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

    fn image_tokens(&self, image: (u32, u32)) -> usize {
        let (width, height) = self.budget.size(image);
        let square = u64::from(self.budget.factor);
        ((width / square) * (height / square)) as usize
    }

    fn whole_image_grid(&self, image: (u32, u32)) -> Option<WholeImageGrid> {
        let (width, height) = self.budget.size(image);
        let along = |length: u64| (length / u64::from(self.budget.factor)) as usize;
        Some(WholeImageGrid { first: 0, rows: along(height), columns: along(width) })
    }

    fn shows_several_images(&self) -> bool {
        true
    }

    fn vision(&self) -> Option<&VisionConfig> {
        None
    }

    fn image_description(&self) -> String {
        let QwenVisionConfig { num_hidden_layers, hidden_size, .. } = self.vision;
        let PixelBudget { factor, least, most } = self.budget;
        format!(
            "image tower of {num_hidden_layers} layers, {hidden_size} wide; an image token for every {factor}×{factor} pixels of \
             images of {least} to {most} pixels"
        )
    }

    fn check_processor(&self, processor: &ImageProcessor) -> Result<(), ProcessorMismatch> {
        let own = Some(Resize::Budget(self.budget));
        let whole = processor.crop.is_none() && processor.pad.is_none();
        match processor.tiles {
            None if whole && processor.resize == own => Ok(()),
            None => Err(ProcessorMismatch::Budget { expected: self.budget }),
            Some(_) => Err(ProcessorMismatch::Tiles),
        }
    }

    fn load_image_encoder(
        &self,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Box<dyn ImageEncoder>, WeightError> {
        let (vision, hidden) = (&self.vision, self.text.hidden_size);
        let deep = match &vision.generation {
            QwenGeneration::Qwen2_5 { .. } => 0,
            QwenGeneration::Qwen3 { deep_layers, .. } => deep_layers.len(),
        };
        let tower = Tower::load(vision, weights, TOWER, device)?;
        let merger = Merger::load(vision, (false, hidden), weights, MERGER, device)?;
        let deep = (0..deep).map(|index| {
            let name = format!("{DEEP_MERGERS}.{index}");
            Merger::load(vision, (true, hidden), weights, &name, device)
        });
        let deep_mergers = deep.collect::<Result<_, _>>()?;
        Ok(Box::new(QwenImageEncoder { tower, merger, deep_mergers }))
    }
}

/// Image tower and mergers.
#[derive(Debug, Clone)]
struct QwenImageEncoder {
    tower: Tower,
    merger: Merger,
    deep_mergers: Vec<Merger>,
}

impl QwenImageEncoder {
    /// Features of one image, `[1, 3, height, width]`.
    fn features(&self, pixels: Tensor<4>) -> ImageFeatures {
        let TowerOutput { grid, states, deep, tokens } = self.tower.forward(pixels);
        let order: Vec<i64> = tokens.into_iter().map(|at| at as i64).collect();
        let order = indices(order, &states.device());
        let merge = |merger: &Merger, states| merger.forward(states).select(0, order.clone());
        let [rows, columns] = grid.tokens();
        let deep = self.deep_mergers.iter().zip(deep).map(|(merger, states)| merge(merger, states));
        ImageFeatures::new(merge(&self.merger, states), vec![rows * columns])
            .with_grids(vec![[rows, columns]])
            .with_deep(deep.collect())
    }
}

impl ImageEncoder for QwenImageEncoder {
    fn boxed_clone(&self) -> Box<dyn ImageEncoder> {
        Box::new(self.clone())
    }

    fn encode(
        &self,
        images: ImageBatch,
        output: bool,
    ) -> Result<(ImageFeatures, Option<VisionOutput>), CudaError> {
        assert!(!output, "this image tower is not one that a contrastive model has");
        let features = images.each().into_iter().map(|pixels| self.features(pixels));
        Ok((ImageFeatures::cat(features.collect()), None))
    }

    fn tower(&self) -> Option<&VisionTower> {
        None
    }

    fn use_card(&mut self, _driver: &SharedDriver) -> Result<Vec<LeftOnCpu>, CudaError> {
        let reason = CudaError::Unsupported {
            what: "the image tower",
            found: "Qwen-VL's".to_owned(),
            supported: "CLIP's, SigLIP's and EVA's",
        };
        Ok(vec![LeftOnCpu { part: "the image encoder", reason }])
    }

    fn card_memory(&self, _tiles: usize, _instruction: usize) -> ImageMemory {
        ImageMemory::default()
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
        self.merger.visit_mut(&format!("{prefix}{MERGER}"), visitor);
        for (index, merger) in self.deep_mergers.iter_mut().enumerate() {
            merger.visit_mut(&format!("{prefix}{DEEP_MERGERS}.{index}"), visitor);
        }
    }

    fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.tower.visit_linears_mut(TOWER, visitor);
        self.merger.visit_linears_mut(MERGER, visitor);
        for (index, merger) in self.deep_mergers.iter_mut().enumerate() {
            merger.visit_linears_mut(&format!("{DEEP_MERGERS}.{index}"), visitor);
        }
    }
}
