//! CLIP's image tower, which is LLaVA's as well.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::attention::Mask;
use crate::encoder::{Encoder, EncoderConfig};
use crate::fused::{Operation, is_fused, two};
use crate::linear::{EMBEDDING_STD, Embedding};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{Init, WeightError, WeightSource};

/// Sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipVisionConfig {
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input, pixels.
    pub image_size: usize,
    /// Side of a square patch, pixels.
    pub patch_size: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
}

impl ClipVisionConfig {
    /// Number of patches of one image (the class token not counted).
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: self.hidden_act,
        }
    }
}

/// The image tower.
#[derive(Debug, Clone)]
pub struct ClipVisionTower {
    config: ClipVisionConfig,
    class_embedding: Tensor<1>,
    patch_embedding: Tensor<4>,
    position_embedding: Embedding,
    pre_layrnorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
}

impl ClipVisionTower {
    /// Loads `{name}.embeddings.*`, `{name}.encoder.*`, `{name}.pre_layrnorm`, `{name}.post_layernorm`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: ClipVisionConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let patch = config.patch_size;
        let embeddings = format!("{name}.embeddings");
        let init = Init::Normal { std: EMBEDDING_STD };
        let class = weights.tensor(&format!("{embeddings}.class_embedding"), &[width], init)?;
        let kernel = weights.tensor(
            &format!("{embeddings}.patch_embedding.weight"),
            &[width, 3, patch, patch],
            Init::Normal { std: (3.0 * (patch * patch) as f64).sqrt().recip() },
        )?;
        let positions = [config.patches() + 1, width];
        let position_embedding = Embedding::load(
            weights,
            &format!("{embeddings}.position_embedding"),
            positions,
            device,
        )?;
        let epsilon = config.layer_norm_eps;
        let mut norm = |part: &str| {
            LayerNorm::load(weights, &format!("{name}.{part}"), width, epsilon, device)
        };
        let pre_layrnorm = norm("pre_layrnorm")?;
        let post_layernorm = norm("post_layernorm")?;
        let encoder =
            Encoder::load(&config.encoder(), weights, &format!("{name}.encoder"), device)?;
        Ok(Self {
            class_embedding: Tensor::from_data(class, device),
            patch_embedding: Tensor::from_data(kernel, device),
            position_embedding,
            pre_layrnorm,
            encoder,
            post_layernorm,
            config,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Where the tower's weights live.
    pub fn device(&self) -> Device {
        self.class_embedding.device()
    }

    /// Hidden states after the first `depth` layers (0 = after the embedding's norm).
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, height, width]` → `[batch, 1 + patches, hidden]`, class token first.
    pub fn hidden_states(&self, pixels: Tensor<4>, depth: usize) -> Tensor<3> {
        let batch = pixels.dims()[0];
        let width = self.config.hidden_size;
        let x = self.pre_layrnorm.forward(self.embed(pixels));
        let x = self.encoder.forward(x, batch, &Mask::Full, depth);
        x.reshape([batch, self.config.patches() + 1, width])
    }

    /// The class token's final state after the last norm: `[batch, 3, h, w]` → `[batch, hidden]`.
    pub fn pooled(&self, pixels: Tensor<4>) -> Tensor<2> {
        let batch = pixels.dims()[0];
        let states = self.hidden_states(pixels, self.encoder.depth());
        let class = states.slice([0..batch, 0..1]).reshape([batch, self.config.hidden_size]);
        self.post_layernorm.forward(class)
    }

    /// Final states of all positions after the last norm: `[batch, 3, h, w]` → `[batch, 1 + patches, hidden]`.
    pub(crate) fn normed_states(&self, pixels: Tensor<4>) -> Tensor<3> {
        let states = self.hidden_states(pixels, self.encoder.depth());
        let [batch, positions, hidden] = states.dims();
        let normed = self.post_layernorm.forward(states.reshape([batch * positions, hidden]));
        normed.reshape([batch, positions, hidden])
    }

    /// Patch, class and position embeddings: `[batch · (1 + patches), hidden]`.
    ///
    /// The patch convolution has stride = kernel, so it is a matrix product over cut-out patches.
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        let ClipVisionConfig { hidden_size: width, image_size, patch_size: patch, .. } =
            self.config;
        let [batch, channels, height, image_width] = pixels.dims();
        assert!(
            channels == 3 && height == image_size && image_width == image_size,
            "the image tower takes [batch, 3, {image_size}, {image_size}] pixels, got {:?}",
            pixels.dims()
        );
        let side = image_size / patch;
        let patches = pixels
            .reshape([batch, 3, side, patch, side, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * side * side, 3 * patch * patch]);
        let kernel = self.patch_embedding.clone().reshape([width, 3 * patch * patch]);
        let embedded = if is_fused(&patches) {
            two(patches, kernel, Operation::Linear)
        } else {
            patches.matmul(kernel.transpose())
        };
        let embedded = embedded.reshape([batch, side * side, width]);
        let class = self.class_embedding.clone().reshape([1, 1, width]).repeat_dim(0, batch);
        let x = Tensor::cat(vec![class, embedded], 1);
        let x = x + self.position_embedding.weight.clone().unsqueeze();
        x.reshape([batch * (side * side + 1), width])
    }
}

impl Parameters for ClipVisionTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let embeddings = format!("{prefix}.embeddings");
        visitor(
            &format!("{embeddings}.class_embedding"),
            ParameterMut::Vector(&mut self.class_embedding),
        );
        visitor(
            &format!("{embeddings}.patch_embedding.weight"),
            ParameterMut::Kernel(&mut self.patch_embedding),
        );
        self.position_embedding.visit_mut(&format!("{embeddings}.position_embedding"), visitor);
        self.pre_layrnorm.visit_mut(&format!("{prefix}.pre_layrnorm"), visitor);
        self.encoder.visit_mut(&format!("{prefix}.encoder"), visitor);
        self.post_layernorm.visit_mut(&format!("{prefix}.post_layernorm"), visitor);
    }
}
