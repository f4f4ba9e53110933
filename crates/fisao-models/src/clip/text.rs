//! CLIP's text tower.

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::attention::Mask;
use crate::encoder::EncoderConfig;
use crate::parameters::{ParameterMut, Parameters};
use crate::text_encoder::TextEncoder;
use crate::weights::{WeightError, WeightSource};

/// What `eos_token_id` says in configurations older than transformers 4.31, whatever the end token is.
const UNSET_EOS: u32 = 2;

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
    /// Position in `text` whose state stands for the text, by transformers' rule: the first end token,
    /// or the first of the largest ids where the configuration does not say what the end token is.
    ///
    /// A text without an end token is read at its last position; transformers reads it at its first,
    /// which sees nothing of the text.
    fn pooled_position(&self, text: &[u32]) -> usize {
        let end = if self.eos_token_id == UNSET_EOS {
            text.iter().max().copied()
        } else {
            Some(self.eos_token_id)
        };
        text.iter().position(|&id| Some(id) == end).unwrap_or(text.len().saturating_sub(1))
    }

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
pub(crate) struct ClipTextTower {
    config: ClipTextConfig,
    encoder: TextEncoder,
}

impl ClipTextTower {
    pub(crate) fn load(
        config: ClipTextConfig,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let sizes = [config.vocab_size, config.max_position_embeddings];
        let encoder = TextEncoder::load(&config.encoder(), sizes, weights, device)?;
        Ok(Self { config, encoder })
    }

    /// Final state of each text's end token.
    ///
    /// Texts are padded on the right; the causal mask keeps padding from reaching the end token.
    /// A text longer than the tower's positions is cut, its last token kept.
    ///
    /// # Shapes
    /// `batch` lists of ids (BOS first, EOS last) → `[batch, hidden]`.
    pub(crate) fn pooled(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let longest = self.config.max_position_embeddings;
        let length = ids.iter().map(Vec::len).max().unwrap_or(0).min(longest);
        let mut tokens = Vec::with_capacity(ids.len() * length);
        let mut pooled = Vec::with_capacity(ids.len());
        for (row, text) in ids.iter().enumerate() {
            let (&last, before) = text.split_last().expect("a text needs at least one token");
            let kept = [&before[..before.len().min(length - 1)], &[last]].concat();
            pooled.push((row * length + self.config.pooled_position(&kept)) as i64);
            tokens.extend(kept.into_iter().map(i64::from));
            tokens.resize((row + 1) * length, i64::from(self.config.pad_token_id));
        }
        self.encoder.states(tokens, length, &Mask::causal(), pooled)
    }
}

impl Parameters for ClipTextTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.encoder.visit_mut(prefix, visitor);
    }
}
