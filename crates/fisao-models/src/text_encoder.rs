//! What the text towers of CLIP and SigLIP have in common: embeddings, a pre-norm encoder and a last norm.

use burn::tensor::{Device, Tensor};

use crate::attention::Mask;
use crate::encoder::{Encoder, EncoderConfig};
use crate::linear::Embedding;
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::weights::{WeightError, WeightSource};

/// A text tower up to its pooling.
#[derive(Debug, Clone)]
pub(crate) struct TextEncoder {
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

impl TextEncoder {
    /// Loads `text_model.*` for a number of token ids and of positions.
    pub(crate) fn load(
        config: &EncoderConfig,
        [tokens, positions]: [usize; 2],
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let name = "text_model.embeddings.token_embedding";
        let token_embedding = Embedding::load(weights, name, [tokens, width], device)?;
        let name = "text_model.embeddings.position_embedding";
        let position_embedding =
            Embedding::load_widened(weights, name, [positions, width], device)?;
        let encoder = Encoder::load(config, weights, "text_model.encoder", device)?;
        let (name, epsilon) = ("text_model.final_layer_norm", config.layer_norm_eps);
        let final_layer_norm = LayerNorm::load(weights, name, width, epsilon, device)?;
        Ok(Self { token_embedding, position_embedding, encoder, final_layer_norm })
    }

    /// Final normed states at some of all positions.
    ///
    /// # Shapes
    /// `tokens`: texts of `length` ids one after the other; `positions`: `[n]`, counted over all texts →
    /// `[n, hidden]`.
    pub(crate) fn states(
        &self,
        tokens: Vec<i64>,
        length: usize,
        mask: &Mask,
        positions: Vec<i64>,
    ) -> Tensor<2> {
        let device = self.token_embedding.weight.device();
        let width = self.token_embedding.weight.dims()[1];
        let (count, batch) = (tokens.len(), tokens.len() / length);
        let x = self.token_embedding.forward(indices(tokens, &device));
        let places = self.position_embedding.weight.clone().narrow(0, 0, length).unsqueeze();
        let x = x.reshape([batch, length, width]) + places;
        let x = x.reshape([count, width]);
        let x = self.encoder.forward(x, batch, mask, self.encoder.depth());
        self.final_layer_norm.forward(x.select(0, indices(positions, &device)))
    }
}

impl Parameters for TextEncoder {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let embeddings = format!("{prefix}.embeddings");
        self.token_embedding.visit_mut(&format!("{embeddings}.token_embedding"), visitor);
        self.position_embedding.visit_mut(&format!("{embeddings}.position_embedding"), visitor);
        self.encoder.visit_mut(&format!("{prefix}.encoder"), visitor);
        self.final_layer_norm.visit_mut(&format!("{prefix}.final_layer_norm"), visitor);
    }
}
