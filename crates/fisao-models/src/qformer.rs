//! The Q-Former: a BERT whose first positions are learned queries that read an image by cross-attention.
//!
//! Paper: Li et al. 2023, arXiv 2301.12597 (BLIP-2); Dai et al. 2023, arXiv 2305.06500 (InstructBLIP: queries and instruction attend to
//! each other). Reference: transformers' `InstructBlipQFormerModel` and `Blip2QFormerModel`. Layers are post-norm. Texts of a batch are
//! equally long, so no mask is needed; callers group them by length.

mod card;
mod embeddings;
mod layer;
mod reader;

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, QFormerBatch, Storage};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::card_part::{AT_ONCE, ImageMemory, SharedDriver};
use crate::linear::{ActivationDtype, LinearVisitor};
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

use card::Card;
use layer::Layer;
pub(crate) use reader::{QueryReader, ReaderNames};

/// Sizes of a Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QFormerConfig {
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
    /// Every so many layers one attends to the image, the first of them included.
    pub cross_attention_frequency: usize,
    /// Width of the image's states.
    pub encoder_hidden_size: usize,
    /// Longest text, tokens.
    pub max_position_embeddings: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
}

/// The layers, without embeddings.
#[derive(Debug, Clone)]
pub struct QFormer {
    layers: Vec<Layer>,
    /// Where they run, if not on the tensors' device.
    card: Option<Arc<Card>>,
}

impl QFormer {
    /// Loads `{name}.encoder.layer.N.*`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: &QFormerConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let layers = (0..config.num_hidden_layers).map(|index| {
            let crosses = index % config.cross_attention_frequency == 0;
            Layer::load(config, crosses, weights, &format!("{name}.encoder.layer.{index}"), device)
        });
        Ok(Self { layers: layers.collect::<Result<_, _>>()?, card: None })
    }

    /// Runs all layers. Of the positions, the first `queries` are queries; the rest are a text.
    ///
    /// # Shapes
    /// * `x`: `[batch, queries + text, hidden]`, embedded and normed
    /// * `image`: `[batch, positions, encoder_hidden]`; not read where there are no queries
    /// * result: as `x`
    ///
    /// # Errors
    /// Those of the card's driver.
    pub fn forward(
        &self,
        x: Tensor<3>,
        queries: usize,
        image: Option<&Tensor<3>>,
    ) -> Result<Tensor<3>, CudaError> {
        if let Some(card) = &self.card
            && let Some(states) = card::forward(card, self, &x, queries, image)?
        {
            return Ok(states);
        }
        Ok(self.layers.iter().fold(x, |x, layer| layer.forward(x, queries, image)))
    }

    /// Copies the layers to a card, where they run from then on, for this Q-Former and all its clones. What learns or is adapted stays
    /// on the CPU.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, [`CudaError::Unsupported`] for what no kernel is made for, and those of the
    /// driver. The Q-Former runs on the CPU as before then.
    pub fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        self.card = Some(card::copy(self, driver)?);
        Ok(())
    }

    /// What the copy on a card takes of it, with so large a batch at work.
    pub(crate) fn card_memory(&self, batch: &QFormerBatch) -> ImageMemory {
        let batch = QFormerBatch { batch: batch.batch.min(AT_ONCE), ..*batch };
        let card = self.card.as_ref();
        card.map_or_else(ImageMemory::default, |card| {
            card.memory(|part| part.config().bytes(&batch))
        })
    }

    /// The type of the layers' matrices.
    pub(crate) fn storage(&self) -> Storage {
        card::storage_of(self)
    }

    /// What activations are multiplied as with weights held in bf16.
    pub fn set_activation_dtype(&mut self, dtype: ActivationDtype) {
        self.visit_linears_mut("", &mut |_, linear| linear.activations = dtype);
    }

    /// Visits every linear layer under `{prefix}.encoder.layer.N.…`.
    pub(crate) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_linears_mut(&format!("{prefix}.encoder.layer.{index}"), visitor);
        }
    }
}

impl Parameters for QFormer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_mut(&format!("{prefix}.encoder.layer.{index}"), visitor);
        }
    }
}
