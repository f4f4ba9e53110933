//! SigLIP's pooling of an image: attention of one learned query over all patches, and a feed-forward part.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;

use super::card::{self, Card};
use crate::activation::Activation;
use crate::attention::{Mask, Shown, attend, merge_heads, split_heads};
use crate::card_part::{ImageMemory, SharedDriver};
use crate::linear::{EMBEDDING_STD, Linear, LinearVisitor};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::vision::VisionConfig;
use crate::weights::{Init, WeightError, WeightSource, as_stored, widened};

/// The pooling.
#[derive(Debug, Clone)]
pub(super) struct AttentionPooling {
    /// The query before its projection, `[1, hidden]`.
    probe: Tensor<2>,
    /// Queries, keys and values one below the other, as PyTorch's multi-head attention keeps them:
    /// `[3 · hidden, hidden]`.
    pub(super) in_proj: Linear,
    out_proj: Linear,
    pub(super) layernorm: LayerNorm,
    pub(super) fc1: Linear,
    fc2: Linear,
    pub(super) activation: Activation,
    pub(super) heads: usize,
    /// Where it runs, if not on the tensors' device.
    card: Option<Arc<Card>>,
}

impl AttentionPooling {
    pub(super) fn load(
        config: &VisionConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let init = Init::Normal { std: EMBEDDING_STD };
        let probe = weights.tensor(&format!("{name}.probe"), &[1, 1, width], init)?;
        let probe: Tensor<3> = widened(probe, device);
        let init = Init::Normal { std: (width as f64).sqrt().recip() };
        let packed = format!("{name}.attention.in_proj");
        let weight = weights.tensor(&format!("{packed}_weight"), &[3 * width, width], init)?;
        let bias = weights.tensor(&format!("{packed}_bias"), &[3 * width], Init::Zeros)?;
        let in_proj = Linear::new(as_stored(weight, device), Some(widened(bias, device)));
        let layernorm = format!("{name}.layernorm");
        let layernorm = LayerNorm::load(weights, &layernorm, width, config.layer_norm_eps, device)?;
        let inner = config.intermediate_size;
        let mut linear =
            |part: &str, size| Linear::load(weights, &format!("{name}.{part}"), size, true, device);
        Ok(Self {
            probe: probe.reshape([1, width]),
            in_proj,
            out_proj: linear("attention.out_proj", [width, width])?,
            layernorm,
            fc1: linear("mlp.fc1", [width, inner])?,
            fc2: linear("mlp.fc2", [inner, width])?,
            activation: config.hidden_act,
            heads: config.num_attention_heads,
            card: None,
        })
    }

    /// One third of the packed projection: 0 for queries, 1 for keys, 2 for values.
    fn part(&self, index: usize) -> Linear {
        let width = self.probe.dims()[1];
        let bias = self.in_proj.bias.clone();
        Linear::new(
            self.in_proj.weight.clone().narrow(0, index * width, width),
            bias.map(|bias| bias.narrow(0, index * width, width)),
        )
    }

    /// Copies the pooling to a card, where it runs from then on.
    pub(super) fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        self.card = Some(card::copy(self, driver)?);
        Ok(())
    }

    /// What the copy on a card takes of it, with so many images at work.
    pub(super) fn card_memory(&self, images: usize, positions: usize) -> ImageMemory {
        let card = self.card.as_ref();
        card.map_or_else(ImageMemory::default, |card| card::memory(card, images, positions))
    }

    /// Visits its linear layers but the packed one.
    pub(super) fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        visitor("attention.out_proj", &mut self.out_proj);
        visitor("mlp.fc1", &mut self.fc1);
        visitor("mlp.fc2", &mut self.fc2);
    }

    /// `[batch, positions, hidden]` → `[batch, hidden]`.
    ///
    /// # Errors
    /// Those of the card's driver.
    pub(super) fn forward(&self, states: Tensor<3>) -> Result<Tensor<2>, CudaError> {
        if let Some(card) = &self.card
            && let Some(pooled) = card::forward(card, self, &states)?
        {
            return Ok(pooled);
        }
        Ok(self.composed(states))
    }

    fn composed(&self, states: Tensor<3>) -> Tensor<2> {
        let [batch, positions, width] = states.dims();
        let states = states.reshape([batch * positions, width]);
        let split = |x, length| split_heads(x, batch, length, self.heads);
        let query = self.part(0).forward(self.probe.clone()).repeat_dim(0, batch);
        let keys = self.part(1).forward(states.clone());
        let values = self.part(2).forward(states);
        let (keys, values) = (split(keys, positions), split(values, positions));
        let mixed = attend(split(query, 1), keys, values, &Shown::by(&Mask::Full));
        let x = self.out_proj.forward(merge_heads(mixed));
        let hidden = self.fc1.forward(self.layernorm.forward(x.clone()));
        x + self.fc2.forward(self.activation.forward(hidden))
    }
}

impl Parameters for AttentionPooling {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.probe"), ParameterMut::Matrix(&mut self.probe));
        let packed = format!("{prefix}.attention.in_proj");
        visitor(&format!("{packed}_weight"), ParameterMut::Matrix(&mut self.in_proj.weight));
        if let Some(bias) = &mut self.in_proj.bias {
            visitor(&format!("{packed}_bias"), ParameterMut::Vector(bias));
        }
        self.out_proj.visit_mut(&format!("{prefix}.attention.out_proj"), visitor);
        self.layernorm.visit_mut(&format!("{prefix}.layernorm"), visitor);
        self.fc1.visit_mut(&format!("{prefix}.mlp.fc1"), visitor);
        self.fc2.visit_mut(&format!("{prefix}.mlp.fc2"), visitor);
    }
}
