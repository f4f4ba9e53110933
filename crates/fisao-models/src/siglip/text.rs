//! SigLIP's text tower.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::attention::Mask;
use crate::encoder::EncoderConfig;
use crate::linear::Linear;
use crate::parameters::{ParameterMut, Parameters};
use crate::text_encoder::TextEncoder;
use crate::weights::{WeightError, WeightSource};

/// Sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiglipTextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Model width.
    pub hidden_size: usize,
    /// Width of the shared space.
    pub projection_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Length of every text, tokens: shorter ones are padded, and the padding is seen.
    pub max_position_embeddings: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
    /// Padding.
    pub pad_token_id: u32,
}

impl SiglipTextConfig {
    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: self.hidden_act,
            fused_qkv: false,
        }
    }
}

/// The text tower.
#[derive(Debug, Clone)]
pub(super) struct SiglipTextTower {
    config: SiglipTextConfig,
    encoder: TextEncoder,
    head: Linear,
}

impl SiglipTextTower {
    pub(super) fn load(
        config: SiglipTextConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let sizes = [config.vocab_size, config.max_position_embeddings];
        let encoder = TextEncoder::load(&config.encoder(), sizes, weights, device)?;
        let size = [config.hidden_size, config.projection_size];
        let head = Linear::load(weights, "text_model.head", size, true, device)?;
        Ok(Self { config, encoder, head })
    }

    /// The last position's final state, projected.
    ///
    /// Every text is padded to the tower's length, as it was in training; one that is longer is cut, its
    /// last token kept.
    ///
    /// # Shapes
    /// `batch` lists of ids → `[batch, projection]`.
    pub(super) fn pooled(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let length = self.config.max_position_embeddings;
        let mut tokens = Vec::with_capacity(ids.len() * length);
        for (row, text) in ids.iter().enumerate() {
            let (&last, before) = text.split_last().expect("a text needs at least one token");
            let kept = &before[..before.len().min(length - 1)];
            tokens.extend(kept.iter().chain([&last]).map(|&id| i64::from(id)));
            tokens.resize((row + 1) * length, i64::from(self.config.pad_token_id));
        }
        let last = (1..=ids.len()).map(|row| (row * length - 1) as i64).collect();
        self.head.forward(self.encoder.states(tokens, length, &Mask::Full, last))
    }
}

impl Parameters for SiglipTextTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.encoder.visit_mut(prefix, visitor);
        self.head.visit_mut(&format!("{prefix}.head"), visitor);
    }
}
