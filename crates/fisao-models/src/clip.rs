//! CLIP: an image tower and a text tower with projections into one space.
//!
//! Paper: Radford et al. 2021, arXiv 2103.00020. Reference: transformers' `CLIPModel`; tensor names
//! mirror it (including the spelling `pre_layrnorm`).

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::attention::bias_where;
use crate::encoder::{Encoder, EncoderConfig};
use crate::linear::{EMBEDDING_STD, Embedding, Linear};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters, from_floats};
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

/// Sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipTextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Longest text, tokens.
    pub max_position_embeddings: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
    /// First token of every text.
    pub bos_token_id: u32,
    /// Last token of every text; its final state is the text's embedding.
    pub eos_token_id: u32,
    /// Padding.
    pub pad_token_id: u32,
}

impl ClipTextConfig {
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

/// Sizes of a whole CLIP model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// Text tower.
    pub text: ClipTextConfig,
    /// Image tower.
    pub vision: ClipVisionConfig,
    /// Width of the shared space.
    pub projection_dim: usize,
    /// Initial logarithm of the contrastive temperature's inverse.
    pub logit_scale_init_value: f64,
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
        let x = self.encoder.forward(x, batch, None, depth);
        x.reshape([batch, self.config.patches() + 1, width])
    }

    /// The class token's final state after the last norm: `[batch, 3, h, w]` → `[batch, hidden]`.
    pub fn pooled(&self, pixels: Tensor<4>) -> Tensor<2> {
        let batch = pixels.dims()[0];
        let states = self.hidden_states(pixels, self.encoder.depth());
        let class = states.slice([0..batch, 0..1]).reshape([batch, self.config.hidden_size]);
        self.post_layernorm.forward(class)
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
        let embedded =
            patches.matmul(kernel.transpose()).reshape([batch, side * side, width]);
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

/// The text tower.
#[derive(Debug, Clone)]
pub struct ClipTextTower {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

impl ClipTextTower {
    fn load(
        config: ClipTextConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let mut embedding = |part: &str, count| {
            Embedding::load(
                weights,
                &format!("text_model.embeddings.{part}"),
                [count, width],
                device,
            )
        };
        let token_embedding = embedding("token_embedding", config.vocab_size)?;
        let position_embedding =
            embedding("position_embedding", config.max_position_embeddings)?;
        let encoder = Encoder::load(&config.encoder(), weights, "text_model.encoder", device)?;
        let final_layer_norm = LayerNorm::load(
            weights,
            "text_model.final_layer_norm",
            width,
            config.layer_norm_eps,
            device,
        )?;
        Ok(Self { config, token_embedding, position_embedding, encoder, final_layer_norm })
    }

    /// Final state of each text's last token.
    ///
    /// Texts are padded on the right; the causal mask keeps padding from reaching the last token.
    /// A text longer than the tower's positions is cut, its last token kept.
    ///
    /// # Shapes
    /// `batch` lists of ids (BOS first, EOS last) → `[batch, hidden]`.
    fn pooled(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let device = self.token_embedding.weight.device();
        let width = self.config.hidden_size;
        let longest = self.config.max_position_embeddings;
        let length = ids.iter().map(Vec::len).max().unwrap_or(0).min(longest);
        let mut tokens = Vec::with_capacity(ids.len() * length);
        let mut last = Vec::with_capacity(ids.len());
        for (row, text) in ids.iter().enumerate() {
            assert!(!text.is_empty(), "a text needs at least one token");
            let kept = text.len().min(length);
            tokens.extend(text[..kept - 1].iter().map(|&id| i64::from(id)));
            tokens.push(i64::from(*text.last().expect("not empty")));
            tokens.resize((row + 1) * length, i64::from(self.config.pad_token_id));
            last.push((row * length + kept - 1) as i64);
        }
        let x = self.token_embedding.forward(int_tensor(tokens, &device));
        let positions = self.position_embedding.weight.clone().slice([0..length]).unsqueeze();
        let x = x.reshape([ids.len(), length, width]) + positions;
        let causal = bias_where([1, length, length], &device, |_, query, key| key <= query);
        let x = self.encoder.forward(
            x.reshape([ids.len() * length, width]),
            ids.len(),
            Some(&causal),
            self.encoder.depth(),
        );
        self.final_layer_norm.forward(x.select(0, int_tensor(last, &device)))
    }
}

impl Parameters for ClipTextTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let embeddings = format!("{prefix}.embeddings");
        self.token_embedding.visit_mut(&format!("{embeddings}.token_embedding"), visitor);
        self.position_embedding.visit_mut(&format!("{embeddings}.position_embedding"), visitor);
        self.encoder.visit_mut(&format!("{prefix}.encoder"), visitor);
        self.final_layer_norm.visit_mut(&format!("{prefix}.final_layer_norm"), visitor);
    }
}

/// Both towers with their projections.
#[derive(Debug, Clone)]
pub struct Clip {
    config: ClipConfig,
    /// Image tower.
    pub vision: ClipVisionTower,
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
        let vision = ClipVisionTower::load(config.vision.clone(), weights, "vision_model", device)?;
        let dim = config.projection_dim;
        let visual = [config.vision.hidden_size, dim];
        let visual_projection = Linear::load(weights, "visual_projection", visual, false, device)?;
        let textual = [config.text.hidden_size, dim];
        let text_projection = Linear::load(weights, "text_projection", textual, false, device)?;
        let init = Init::Constant(config.logit_scale_init_value);
        let scale = weights.tensor("logit_scale", &[], init)?;
        let scale = scale.try_into_vec_as::<f32>().map_err(|e| WeightError::Other(format!("tensor `logit_scale`: {e:?}")))?;
        let logit_scale = from_floats(scale, [1], device);
        Ok(Self { config, vision, text, visual_projection, text_projection, logit_scale })
    }

    /// Sizes.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Unit image embeddings `f_v`: `[batch, 3, h, w]` → `[batch, dim]`.
    pub fn embed_images(&self, pixels: Tensor<4>) -> Tensor<2> {
        unit(self.visual_projection.forward(self.vision.pooled(pixels)))
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
fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().square().sum_dim(1).sqrt();
    x / norm
}

/// A vector of indices on `device`.
pub(crate) fn int_tensor(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &device.clone().inner())
}
