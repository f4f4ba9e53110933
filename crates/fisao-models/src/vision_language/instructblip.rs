//! InstructBLIP: EVA's image tower, a Q-Former that reads the image for what is asked, one linear layer, and a Llama decoder.
//!
//! Paper: Dai et al. 2023, arXiv 2305.06500. Reference: transformers' `InstructBlipForConditionalGeneration`. All positions of the tower
//! go through its last norm to the Q-Former; the decoder's prompt begins with the image, before its first special token.

use std::ops::Range;

use burn::tensor::Device;
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use super::family::{FamilyConfig, ImageEncoder, ImagePlace, TokenIds, WholeImageGrid};
use super::images::{ImageBatch, ImageFeatures, TILES};
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::image::{ImageProcessor, ProcessorMismatch};
use crate::linear::{Linear, LinearVisitor};
use crate::llama::LlamaConfig;
use crate::parameters::{ParameterMut, Parameters};
use crate::projector_card::ProjectorCard;
use crate::qformer::{QFormerConfig, QueryReader, ReaderNames};
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

/// Canonical names of the parts.
const TOWER: &str = "vision_tower.vision_model";
const READER: ReaderNames = ReaderNames {
    embeddings: "qformer.embeddings",
    norm: "qformer.embeddings.layernorm",
    layers: "qformer",
};
const PROJECTION: &str = "language_projection";

/// Sizes and token ids of an InstructBLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstructBlipConfig {
    /// Decoder.
    pub text: LlamaConfig,
    /// Image tower.
    pub vision: VisionConfig,
    /// What reads the image for the instruction.
    pub qformer: QFormerConfig,
    /// Queries, which are the image's tokens.
    pub query_tokens: usize,
    /// Token ids.
    #[serde(flatten)]
    pub tokens: TokenIds,
}

impl FamilyConfig for InstructBlipConfig {
    fn model_type(&self) -> &'static str {
        "instructblip"
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

    fn image_tokens(&self, _image: (u32, u32)) -> usize {
        self.query_tokens
    }

    /// Queries of the Q-Former see all of the image.
    fn whole_image_grid(&self, _image: (u32, u32)) -> Option<WholeImageGrid> {
        None
    }

    fn vision(&self) -> Option<&VisionConfig> {
        Some(&self.vision)
    }

    fn image_description(&self) -> String {
        format!("{} image tokens of a Q-Former that reads the instruction", self.query_tokens)
    }

    fn check_processor(&self, processor: &ImageProcessor) -> Result<(), ProcessorMismatch> {
        processor.check_size(self.vision.image_size as u32)?;
        if processor.tiles.is_none() { Ok(()) } else { Err(ProcessorMismatch::Tiles) }
    }

    fn load_image_encoder(
        &self,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Box<dyn ImageEncoder>, WeightError> {
        let (qformer, queries) = (&self.qformer, self.query_tokens);
        let size = [qformer.hidden_size, self.text.hidden_size];
        Ok(Box::new(InstructBlipImageEncoder {
            tower: VisionTower::load(self.vision.clone(), weights, TOWER, device)?,
            reader: QueryReader::load(qformer, queries, READER, weights, device)?,
            projection: Linear::load(weights, PROJECTION, size, true, device)?,
            card: ProjectorCard::default(),
        }))
    }

    fn image_place(&self) -> ImagePlace {
        ImagePlace::BeforeText
    }
}

/// Image tower, Q-Former and the layer into the decoder's space.
#[derive(Debug, Clone)]
struct InstructBlipImageEncoder {
    tower: VisionTower,
    reader: QueryReader,
    projection: Linear,
    card: ProjectorCard,
}

impl ImageEncoder for InstructBlipImageEncoder {
    fn boxed_clone(&self) -> Box<dyn ImageEncoder> {
        Box::new(self.clone())
    }

    fn encode(
        &self,
        images: ImageBatch,
        output: bool,
    ) -> Result<(ImageFeatures, Option<VisionOutput>), CudaError> {
        let ImageBatch { tiles, instructions, .. } = &images;
        assert!(tiles.iter().all(|&tiles| tiles == 1), "this model sees images whole");
        assert!(
            instructions.len() == tiles.len() && instructions.iter().all(|text| !text.is_empty()),
            "the image encoder reads the instruction, and an image has none"
        );
        let depth = self.tower.config().num_hidden_layers;
        let connect = |states, range: Range<usize>| {
            let states = self.tower.normed_states(VisionOutput { states, depth })?;
            self.reader.read_each(&states, &instructions[range], |x| {
                let projected = self.card.forward(&[&self.projection], None, &x)?;
                Ok(projected.unwrap_or_else(|| self.projection.forward(x)))
            })
        };
        let (tokens, output) = images.through_tower(&self.tower, depth, output, connect)?;
        let each = tokens.dims()[0] / tiles.len();
        Ok((ImageFeatures::new(tokens, vec![each; tiles.len()]), output))
    }

    fn tower(&self) -> Option<&VisionTower> {
        Some(&self.tower)
    }

    fn use_card(&mut self, driver: &SharedDriver) -> Result<Vec<LeftOnCpu>, CudaError> {
        let mut left = Vec::new();
        LeftOnCpu::unless(self.tower.use_card(driver), "the image tower", &mut left)?;
        LeftOnCpu::unless(self.reader.use_card(driver), "the Q-Former", &mut left)?;
        let card = ProjectorCard::copy(driver, &[&self.projection], None);
        self.card = LeftOnCpu::unless(card, "the projection", &mut left)?.unwrap_or_default();
        Ok(left)
    }

    fn card_memory(&self, tiles: usize, instruction: usize) -> ImageMemory {
        let (tiles, positions) = (tiles.min(TILES), self.tower.config().positions());
        let queries = self.reader.queries();
        self.tower
            .card_memory(tiles)
            .and(self.reader.card_memory(tiles, instruction, positions))
            .and(self.card.memory(tiles * queries))
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
        self.reader.visit_mut(prefix, visitor);
        self.projection.visit_mut(&format!("{prefix}{PROJECTION}"), visitor);
    }

    fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.tower.visit_linears_mut(TOWER, visitor);
        self.reader.visit_linears_mut(visitor);
        visitor(PROJECTION, &mut self.projection);
    }
}
