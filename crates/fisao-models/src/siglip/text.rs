//! SigLIP's text tower.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::attention::Mask;
use crate::encoder::{Encoder, EncoderConfig};
use crate::linear::{Embedding, Linear};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters, indices};
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
        }
    }
}

/// The text tower.
#[derive(Debug, Clone)]
pub(super) struct SiglipTextTower {
    config: SiglipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    head: Linear,
}

impl SiglipTextTower {
    pub(super) fn load(
        config: SiglipTextConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let tokens = [config.vocab_size, width];
        let name = "text_model.embeddings.token_embedding";
        let token_embedding = Embedding::load(weights, name, tokens, device)?;
        let positions = [config.max_position_embeddings, width];
        let name = "text_model.embeddings.position_embedding";
        let position_embedding = Embedding::load_widened(weights, name, positions, device)?;
        let encoder = Encoder::load(&config.encoder(), weights, "text_model.encoder", device)?;
        let (name, epsilon) = ("text_model.final_layer_norm", config.layer_norm_eps);
        let final_layer_norm = LayerNorm::load(weights, name, width, epsilon, device)?;
        let size = [width, config.projection_size];
        let head = Linear::load(weights, "text_model.head", size, true, device)?;
        Ok(Self { config, token_embedding, position_embedding, encoder, final_layer_norm, head })
    }

    /// The last position's final state, projected.
    ///
    /// Every text is padded to the tower's length, as it was in training; one that is longer is cut, its
    /// last token kept.
    ///
    /// # Shapes
    /// `batch` lists of ids → `[batch, projection]`.
    pub(super) fn pooled(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let device = self.token_embedding.weight.device();
        let SiglipTextConfig { hidden_size: width, max_position_embeddings: length, .. } =
            self.config;
        let mut tokens = Vec::with_capacity(ids.len() * length);
        for (row, text) in ids.iter().enumerate() {
            let (&last, before) = text.split_last().expect("a text needs at least one token");
            let kept = &before[..before.len().min(length - 1)];
            tokens.extend(kept.iter().chain([&last]).map(|&id| i64::from(id)));
            tokens.resize((row + 1) * length, i64::from(self.config.pad_token_id));
        }
        let x = self.token_embedding.forward(indices(tokens, &device));
        let positions = self.position_embedding.weight.clone().unsqueeze();
        let x = x.reshape([ids.len(), length, width]) + positions;
        let x = x.reshape([ids.len() * length, width]);
        let x = self.encoder.forward(x, ids.len(), &Mask::Full, self.encoder.depth());
        let last = (1..=ids.len()).map(|row| (row * length - 1) as i64).collect();
        let pooled = self.final_layer_norm.forward(x.select(0, indices(last, &device)));
        self.head.forward(pooled)
    }
}

impl Parameters for SiglipTextTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let embeddings = format!("{prefix}.embeddings");
        self.token_embedding.visit_mut(&format!("{embeddings}.token_embedding"), visitor);
        self.position_embedding.visit_mut(&format!("{embeddings}.position_embedding"), visitor);
        self.encoder.visit_mut(&format!("{prefix}.encoder"), visitor);
        self.final_layer_norm.visit_mut(&format!("{prefix}.final_layer_norm"), visitor);
        self.head.visit_mut(&format!("{prefix}.head"), visitor);
    }
}
