//! SigLIP: an image tower and a text tower into one space, trained with a sigmoid loss.
//!
//! Paper: Zhai et al. 2023, arXiv 2303.15343. Reference: transformers' `SiglipModel`; tensor names mirror
//! it. Both towers see all positions; the image is pooled by attention of one learned query, the text
//! is read at its last position, which is padding unless the text fills the tower.

mod card;
mod pooling;
mod text;

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, Storage};
use serde::{Deserialize, Serialize};

use crate::card_part::{ImageMemory, SharedDriver};
use crate::clip::unit;
use crate::parameters::{ParameterMut, Parameters};
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{Init, WeightError, WeightSource, widened};

use pooling::AttentionPooling;
pub use text::SiglipTextConfig;
use text::SiglipTextTower;

/// Sizes of a whole SigLIP model. The shared space is as wide as the image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiglipConfig {
    /// Text tower.
    pub text: SiglipTextConfig,
    /// Image tower.
    pub vision: VisionConfig,
}

/// Both towers with their poolings.
#[derive(Debug, Clone)]
pub struct Siglip {
    config: SiglipConfig,
    vision: VisionTower,
    head: AttentionPooling,
    text: SiglipTextTower,
    /// Scale and offset of the loss; cosines do not need them.
    logit_scale: Tensor<1>,
    logit_bias: Tensor<1>,
}

impl Siglip {
    /// Loads a model under the names of transformers' `SiglipModel`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: SiglipConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let text = SiglipTextTower::load(config.text.clone(), weights, device)?;
        let vision = VisionTower::load(config.vision.clone(), weights, "vision_model", device)?;
        let head = AttentionPooling::load(&config.vision, weights, "vision_model.head", device)?;
        let logit_scale = weights.tensor("logit_scale", &[1], Init::Zeros)?;
        let logit_bias = weights.tensor("logit_bias", &[1], Init::Zeros)?;
        Ok(Self {
            config,
            vision,
            head,
            text,
            logit_scale: widened(logit_scale, device),
            logit_bias: widened(logit_bias, device),
        })
    }

    /// Sizes.
    pub fn config(&self) -> &SiglipConfig {
        &self.config
    }

    /// Image tower.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// Mutable [`vision`](Self::vision).
    pub fn vision_mut(&mut self) -> &mut VisionTower {
        &mut self.vision
    }

    /// The type of the pooling's matrices.
    pub(crate) fn head_storage(&self) -> Storage {
        card::storage_of(&self.head)
    }

    /// Copies the pooling to a card, where it runs from then on.
    pub(crate) fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        self.head.use_card(driver)
    }

    /// What the copy of the pooling on a card takes of it, with so many images at work.
    pub(crate) fn head_memory(&self, images: usize) -> ImageMemory {
        self.head.card_memory(images, self.vision.config().positions())
    }

    /// Unit image embeddings: `[batch, 3, h, w]` → `[batch, hidden]`.
    ///
    /// # Errors
    /// Those of the driver of the image tower's [card](VisionTower::use_card).
    pub fn embed_images(&self, pixels: Tensor<4>) -> Result<Tensor<2>, CudaError> {
        self.embed_vision_output(self.vision.encode(pixels)?)
    }

    /// The same of images on their way through this tower.
    ///
    /// # Errors
    /// As [`embed_images`](Self::embed_images).
    pub fn embed_vision_output(&self, output: VisionOutput) -> Result<Tensor<2>, CudaError> {
        Ok(unit(self.head.forward(self.vision.normed_states(output)?)?))
    }

    /// Unit embeddings of images, as [`embed_vision_output`](Self::embed_vision_output) gives them, and of each of their
    /// patches: the pooling's query then has that patch alone to look at.
    ///
    /// # Shapes
    /// `[batch, hidden]`, `[batch, patches, hidden]`
    ///
    /// # Errors
    /// As [`embed_images`](Self::embed_images).
    pub fn embed_patches(&self, output: VisionOutput) -> Result<(Tensor<2>, Tensor<3>), CudaError> {
        let states = self.vision.normed_states(output)?;
        let [batch, patches, hidden] = states.dims();
        let images = unit(self.head.forward(states.clone())?);
        let each = states.reshape([batch * patches, 1, hidden]);
        Ok((images, unit(self.head.forward(each)?).reshape([batch, patches, hidden])))
    }

    /// Unit text embeddings: ids as the tokenizer gives them → `[batch, hidden]`.
    pub fn embed_text(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        unit(self.text.pooled(ids))
    }
}

impl Parameters for Siglip {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.text.visit_mut(&format!("{prefix}text_model"), visitor);
        self.vision.visit_mut(&format!("{prefix}vision_model"), visitor);
        self.head.visit_mut(&format!("{prefix}vision_model.head"), visitor);
        visitor(&format!("{prefix}logit_scale"), ParameterMut::Vector(&mut self.logit_scale));
        visitor(&format!("{prefix}logit_bias"), ParameterMut::Vector(&mut self.logit_bias));
    }
}
