//! SmolVLM and SmolVLM2: a SigLIP image tower, a pixel shuffle with one linear layer, and a Llama decoder.
//!
//! Paper: Marafioti et al. 2025, arXiv 2504.05299, after Idefics3 (Laurençon et al. 2024, arXiv 2408.12637). Reference:
//! transformers' `SmolVLMForConditionalGeneration`. An image is shown as tiles, row by row, and then whole; special tokens in the
//! prompt say which is which. Video is not read.

mod tiling;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use super::family::{FamilyConfig, ImageEncoder, TokenIds, WholeImageGrid};
use super::images::{ImageBatch, ImageFeatures, TILES};
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::image::{ImageProcessor, ProcessorMismatch, TileLayout};
use crate::linear::{Linear, LinearVisitor};
use crate::llama::LlamaConfig;
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::projector_card::ProjectorCard;
use crate::text::TextError;
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

pub use tiling::{SplitImage, TileTokens};

/// Canonical names of the image tower and of the connector's layer.
const TOWER: &str = "vision_tower.vision_model";
const CONNECTOR: &str = "connector.modality_projection.proj";

/// Sizes and token ids of a SmolVLM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmolVlmConfig {
    /// Decoder.
    pub text: LlamaConfig,
    /// Image tower.
    pub vision: VisionConfig,
    /// Patches along each side that become one token together.
    pub scale_factor: usize,
    /// How images are cut.
    pub split: SplitImage,
    /// Tokens that tell tiles apart in a prompt.
    pub tile_tokens: TileTokens,
    /// Token ids.
    #[serde(flatten)]
    pub tokens: TokenIds,
}

impl SmolVlmConfig {
    /// Tokens of a tile, and of the whole image.
    fn tokens_of_tile(&self) -> usize {
        (self.vision.side() / self.scale_factor).pow(2)
    }
}

impl FamilyConfig for SmolVlmConfig {
    fn model_type(&self) -> &'static str {
        "smolvlm"
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
        let (rows, columns) = self.split.grid(image);
        (rows * columns + 1) * self.tokens_of_tile()
    }

    /// The whole image stands behind its tiles.
    fn whole_image_grid(&self, image: (u32, u32)) -> Option<WholeImageGrid> {
        let side = self.vision.side() / self.scale_factor;
        let first = self.image_tokens(image) - side * side;
        Some(WholeImageGrid { first, rows: side, columns: side })
    }

    fn shows_several_images(&self) -> bool {
        true
    }

    fn vision(&self) -> Option<&VisionConfig> {
        Some(&self.vision)
    }

    fn image_description(&self) -> String {
        let each = self.tokens_of_tile();
        let SplitImage { tile, longest_side, splits } = self.split;
        if !splits {
            return format!("{each} image tokens");
        }
        format!(
            "{each} image tokens of the whole and of each tile of {tile} px, for images brought to {longest_side} px"
        )
    }

    fn check_processor(&self, processor: &ImageProcessor) -> Result<(), ProcessorMismatch> {
        processor.check_size(self.vision.image_size as u32)?;
        let own: Arc<dyn TileLayout> = Arc::new(self.split);
        if processor.tiles.as_ref() == Some(&own) { Ok(()) } else { Err(ProcessorMismatch::Tiles) }
    }

    fn load_image_encoder(
        &self,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Box<dyn ImageEncoder>, WeightError> {
        let tower = VisionTower::load(self.vision.clone(), weights, TOWER, device)?;
        let size = [self.vision.hidden_size * self.scale_factor.pow(2), self.text.hidden_size];
        let connector = Linear::load(weights, CONNECTOR, size, false, device)?;
        let (scale_factor, card) = (self.scale_factor, ProjectorCard::default());
        Ok(Box::new(SmolVlmImageEncoder { scale_factor, tower, connector, card }))
    }

    /// The tiles with their names, row by row, and the whole image behind them.
    fn image_prompt(&self, image: (u32, u32)) -> Result<Vec<u32>, TextError> {
        let shown = vec![self.tokens.image; self.tokens_of_tile()];
        self.tile_tokens.around(self.split.grid(image), &shown)
    }
}

/// Image tower and connector.
#[derive(Debug, Clone)]
struct SmolVlmImageEncoder {
    scale_factor: usize,
    tower: VisionTower,
    connector: Linear,
    card: ProjectorCard,
}

impl SmolVlmImageEncoder {
    /// Puts the patches of squares together, `scale_factor` along each side, and brings them into the decoder's space.
    ///
    /// # Shapes
    /// `[tiles, patches, width]` → `[tiles · tokens, hidden]`
    fn connect(&self, states: Tensor<3>) -> Result<Tensor<2>, CudaError> {
        let [tiles, patches, width] = states.dims();
        let (factor, side) = (self.scale_factor, patches.isqrt());
        let tokens = side / factor;
        let shuffled = states
            .reshape([tiles, tokens, factor, tokens, factor, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([tiles * tokens * tokens, factor * factor * width]);
        let projected = self.card.forward(&[&self.connector], None, &shuffled)?;
        Ok(projected.unwrap_or_else(|| self.connector.forward(shuffled)))
    }
}

impl ImageEncoder for SmolVlmImageEncoder {
    fn boxed_clone(&self) -> Box<dyn ImageEncoder> {
        Box::new(self.clone())
    }

    fn encode(
        &self,
        images: ImageBatch,
        output: bool,
    ) -> Result<(ImageFeatures, Option<VisionOutput>), CudaError> {
        let depth = self.tower.config().num_hidden_layers;
        let connect = |states, _: Range<usize>| {
            self.connect(self.tower.normed_states(VisionOutput { states, depth })?)
        };
        let (tokens, output) = images.through_tower(&self.tower, depth, output, connect)?;
        let count: usize = images.tiles.iter().sum();
        let each = tokens.dims()[0] / count;
        // Images come whole first, and are read whole last.
        let (mut order, mut counts, mut first) = (Vec::new(), Vec::new(), 0);
        for &tiles in &images.tiles {
            let shown = (first + 1..first + tiles).chain([first]);
            order.extend(shown.flat_map(|tile| tile * each..(tile + 1) * each).map(|at| at as i64));
            counts.push(tiles * each);
            first += tiles;
        }
        let device = tokens.device();
        let features = ImageFeatures::new(tokens.select(0, indices(order, &device)), counts);
        Ok((features, output))
    }

    fn tower(&self) -> Option<&VisionTower> {
        Some(&self.tower)
    }

    fn use_card(&mut self, driver: &SharedDriver) -> Result<Vec<LeftOnCpu>, CudaError> {
        let mut left = Vec::new();
        LeftOnCpu::unless(self.tower.use_card(driver), "the image tower", &mut left)?;
        let card = ProjectorCard::copy(driver, &[&self.connector], None);
        self.card = LeftOnCpu::unless(card, "the connector", &mut left)?.unwrap_or_default();
        Ok(left)
    }

    fn card_memory(&self, tiles: usize, _instruction: usize) -> ImageMemory {
        let tiles = tiles.min(TILES);
        let tokens = self.tower.config().patches() / self.scale_factor.pow(2);
        self.tower.card_memory(tiles).and(self.card.memory(tiles * tokens))
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
        self.connector.visit_mut(&format!("{prefix}{CONNECTOR}"), visitor);
    }

    fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.tower.visit_linears_mut(TOWER, visitor);
        visitor(CONNECTOR, &mut self.connector);
    }
}
