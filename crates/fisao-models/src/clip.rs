//! CLIP: an image tower and a text tower with projections into one space.
//!
//! Paper: Radford et al. 2021, arXiv 2103.00020. Reference: transformers' `CLIPModel`; tensor names
//! mirror it (including the spelling `pre_layrnorm`).

mod text;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;
use serde::{Deserialize, Serialize};

use crate::linear::Linear;
use crate::parameters::{ParameterMut, Parameters, from_floats};
use crate::vision::{VisionConfig, VisionOutput, VisionTower};
use crate::weights::{Init, WeightError, WeightSource};

pub use text::ClipTextConfig;
use text::ClipTextTower;

/// Sizes of a whole CLIP model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// Text tower.
    pub text: ClipTextConfig,
    /// Image tower.
    pub vision: VisionConfig,
    /// Width of the shared space.
    pub projection_dim: usize,
    /// Initial logarithm of the contrastive temperature's inverse.
    pub logit_scale_init_value: f64,
}

/// Both towers with their projections.
#[derive(Debug, Clone)]
pub struct Clip {
    config: ClipConfig,
    /// Image tower.
    pub vision: VisionTower,
    text: ClipTextTower,
    visual_projection: Linear,
    text_projection: Linear,
    logit_scale: Tensor<1>,
}

impl Clip {
    /// Loads a model under the names of transformers' `CLIPModel`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: ClipConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let text = ClipTextTower::load(config.text.clone(), weights, device)?;
        let vision = VisionTower::load(config.vision.clone(), weights, "vision_model", device)?;
        let dim = config.projection_dim;
        let visual = [config.vision.hidden_size, dim];
        let visual_projection = Linear::load(weights, "visual_projection", visual, false, device)?;
        let textual = [config.text.hidden_size, dim];
        let text_projection = Linear::load(weights, "text_projection", textual, false, device)?;
        let init = Init::Constant(config.logit_scale_init_value);
        let scale = weights.tensor("logit_scale", &[], init)?;
        let scale = scale
            .try_into_vec_as::<f32>()
            .map_err(|e| WeightError::Other(format!("tensor `logit_scale`: {e:?}")))?;
        let logit_scale = from_floats(scale, [1], device);
        Ok(Self { config, vision, text, visual_projection, text_projection, logit_scale })
    }

    /// Sizes.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Unit image embeddings `f_v`: `[batch, 3, h, w]` → `[batch, dim]`.
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
        Ok(unit(self.visual_projection.forward(self.vision.pooled(output)?)))
    }

    /// Unit embeddings of images, as [`embed_vision_output`](Self::embed_vision_output) gives them, and of each of
    /// their patches: the patch's final state through the norm and projection of the class token's.
    ///
    /// # Shapes
    /// `[batch, dim]`, `[batch, patches, dim]`
    ///
    /// # Errors
    /// As [`embed_images`](Self::embed_images).
    pub fn embed_patches(&self, output: VisionOutput) -> Result<(Tensor<2>, Tensor<3>), CudaError> {
        let dim = self.config.projection_dim;
        let states = self.vision.normed_states(output)?;
        let [batch, positions, hidden] = states.dims();
        let all = states.reshape([batch * positions, hidden]);
        let all = unit(self.visual_projection.forward(all)).reshape([batch, positions, dim]);
        let images = all.clone().narrow(1, 0, 1).reshape([batch, dim]);
        Ok((images, all.narrow(1, 1, positions - 1)))
    }

    /// Unit text embeddings `f_t`: ids with BOS and EOS → `[batch, dim]`.
    pub fn embed_text(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        unit(self.text_projection.forward(self.text.pooled(ids)))
    }

    /// The factor `exp(logit_scale)` on cosines in the contrastive loss, `[1]`.
    pub fn scale(&self) -> Tensor<1> {
        self.logit_scale.clone().exp()
    }
}

impl Parameters for Clip {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.text.visit_mut(&format!("{prefix}text_model"), visitor);
        self.vision.visit_mut(&format!("{prefix}vision_model"), visitor);
        self.visual_projection.visit_mut(&format!("{prefix}visual_projection"), visitor);
        self.text_projection.visit_mut(&format!("{prefix}text_projection"), visitor);
        visitor(&format!("{prefix}logit_scale"), ParameterMut::Scalar(&mut self.logit_scale));
    }
}

/// Rows scaled to length 1: `[n, d]` → `[n, d]`.
pub(crate) fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().square().sum_dim(1).sqrt();
    x / norm
}
