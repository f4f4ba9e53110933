//! BLIP-2's image–text model: EVA's image tower and a Q-Former that reads images through learned queries and texts as a BERT does.
//!
//! Paper: Li et al. 2023, arXiv 2301.12597, §3.2. Reference: transformers' `Blip2ForImageTextRetrieval`. An image has one embedding for
//! each query, and its contrastive score with a text is that of the best; the matching head reads image and text together. No
//! temperature is applied, as in the reference.

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, Storage};
use serde::{Deserialize, Serialize};

use crate::card_part::{ImageMemory, SharedDriver};
use crate::clip::unit;
use crate::linear::Linear;
use crate::parameters::{ParameterMut, Parameters};
use crate::qformer::{QFormerConfig, QueryReader, ReaderNames};
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{WeightError, WeightSource};

/// Where the reader of images and texts is kept.
const READER: ReaderNames =
    ReaderNames { embeddings: "embeddings", norm: "qformer.layernorm", layers: "qformer" };

/// Patches that queries read one by one at a time.
const PATCHES: usize = 64;

/// Sizes of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blip2Config {
    /// Image tower.
    pub vision: VisionConfig,
    /// What reads images and texts.
    pub qformer: QFormerConfig,
    /// Queries, each of which gives an image one embedding.
    pub query_tokens: usize,
    /// Width of the shared space.
    pub projection_dim: usize,
}

/// The model.
#[derive(Debug, Clone)]
pub struct Blip2 {
    config: Blip2Config,
    vision: VisionTower,
    reader: QueryReader,
    vision_projection: Linear,
    text_projection: Linear,
    matching_head: Linear,
}

impl Blip2 {
    /// Loads a model under the names of transformers' `Blip2ForImageTextRetrieval`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: Blip2Config,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.qformer.hidden_size;
        let mut head = |name, size| Linear::load(weights, name, [width, size], true, device);
        let vision_projection = head("vision_projection", config.projection_dim)?;
        let text_projection = head("text_projection", config.projection_dim)?;
        let matching_head = head("itm_head", 2)?;
        let queries = config.query_tokens;
        Ok(Self {
            vision: VisionTower::load(config.vision.clone(), weights, "vision_model", device)?,
            reader: QueryReader::load(&config.qformer, queries, READER, weights, device)?,
            vision_projection,
            text_projection,
            matching_head,
            config,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &Blip2Config {
        &self.config
    }

    /// The image tower. Its last norm is not the one of a model that shares its layers.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Mutable [`vision`](Self::vision).
    pub fn vision_mut(&mut self) -> &mut VisionTower {
        &mut self.vision
    }

    /// The type of the Q-Former's matrices.
    pub(crate) fn reader_storage(&self) -> Storage {
        self.reader.storage()
    }

    /// What the copy of the Q-Former on a card takes of it, with so many images at work.
    pub(crate) fn reader_memory(&self, images: usize) -> ImageMemory {
        self.reader.card_memory(images, 0, self.vision.config().positions())
    }

    /// Copies the Q-Former to a card, where it runs from then on.
    pub(crate) fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        self.reader.use_card(driver)
    }

    /// Unit embeddings of images, those of an image's queries one after the other.
    ///
    /// # Shapes
    /// `[batch, queries · dim]`
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    pub fn embed_vision_output(&self, output: VisionOutput) -> Result<Tensor<2>, CudaError> {
        self.embed_states(&self.vision.normed_states(output)?)
    }

    /// The same, and those of each patch: what the queries make of the patch's final state alone. That costs as much as there are patches.
    ///
    /// # Shapes
    /// `[batch, queries · dim]`, `[batch, patches, queries · dim]`
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    pub fn embed_patches(&self, output: VisionOutput) -> Result<(Tensor<2>, Tensor<3>), CudaError> {
        let states = self.vision.normed_states(output)?;
        let [batch, positions, hidden] = states.dims();
        let patches = positions - 1;
        let each = states.clone().narrow(1, 1, patches).reshape([batch * patches, 1, hidden]);
        let parts = (0..batch * patches).step_by(PATCHES).map(|first| {
            let count = PATCHES.min(batch * patches - first);
            self.embed_states(&each.clone().narrow(0, first, count))
        });
        let parts = Tensor::cat(parts.collect::<Result<_, _>>()?, 0);
        let width = parts.dims()[1];
        Ok((self.embed_states(&states)?, parts.reshape([batch, patches, width])))
    }

    /// `[batch, positions, hidden]` → `[batch, queries · dim]`
    fn embed_states(&self, states: &Tensor<3>) -> Result<Tensor<2>, CudaError> {
        let Blip2Config { query_tokens, projection_dim, .. } = self.config;
        let embedded = unit(self.vision_projection.forward(self.reader.read(states)?));
        Ok(embedded.reshape([states.dims()[0], query_tokens * projection_dim]))
    }

    /// Unit embeddings of texts: ids with their first and last special token → `[batch, dim]`.
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    pub fn embed_text(&self, ids: &[Vec<u32>]) -> Result<Tensor<2>, CudaError> {
        Ok(unit(self.text_projection.forward(self.reader.read_texts(ids)?)))
    }

    /// How well each text matches its image: the mean over queries of the matching head's logits.
    ///
    /// # Shapes
    /// `output` of as many images as `ids` has texts → `[batch, 2]`: no match, match
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    ///
    /// # Panics
    /// Images and texts differ in number.
    pub fn matching_logits(
        &self,
        output: VisionOutput,
        ids: &[Vec<u32>],
    ) -> Result<Tensor<2>, CudaError> {
        self.matching_logits_of_states(&self.states(output)?, ids)
    }

    /// What the matching head reads of images: the tower's normed states, to be read beside any number of texts.
    ///
    /// # Shapes
    /// `[batch, positions, hidden]`
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    pub fn states(&self, output: VisionOutput) -> Result<Tensor<3>, CudaError> {
        self.vision.normed_states(output)
    }

    /// [`matching_logits`](Self::matching_logits) of [`states`](Self::states).
    ///
    /// # Errors
    /// Those of the driver of the [card](crate::contrastive::ContrastiveModel::use_card).
    ///
    /// # Panics
    /// Images and texts differ in number.
    pub fn matching_logits_of_states(
        &self,
        states: &Tensor<3>,
        ids: &[Vec<u32>],
    ) -> Result<Tensor<2>, CudaError> {
        assert!(states.dims()[0] == ids.len(), "an image for each of {} texts", ids.len());
        let count = self.config.query_tokens;
        self.reader.read_each(states, ids, |read| {
            let batch = read.dims()[0] / count;
            let logits = self.matching_head.forward(read).reshape([batch, count, 2]);
            Ok(logits.mean_dim(1).reshape([batch, 2]))
        })
    }
}

impl Parameters for Blip2 {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.vision.visit_mut(&format!("{prefix}vision_model"), visitor);
        self.reader.visit_mut(prefix, visitor);
        self.vision_projection.visit_mut(&format!("{prefix}vision_projection"), visitor);
        self.text_projection.visit_mut(&format!("{prefix}text_projection"), visitor);
        self.matching_head.visit_mut(&format!("{prefix}itm_head"), visitor);
    }
}
