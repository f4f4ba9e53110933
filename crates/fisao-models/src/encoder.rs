//! The pre-norm transformer encoder of CLIP's and SigLIP's towers and of EVA's image tower.
//!
//! Ported from transformers' `CLIPEncoder` and `InstructBlipEncoder`; no dropout, since it is off in their configurations.

mod card;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, Storage};

use crate::activation::Activation;
use crate::attention::{Mask, Shown, attend, merge_heads, split_heads};
use crate::card_part::{ImageMemory, SharedDriver};
use crate::linear::{Linear, LinearVisitor};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

use card::Card;
pub(crate) use card::PatchTensors;

/// Sizes of one encoder.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
    /// Whether queries, keys and values come from one matrix, as in EVA's tower.
    pub fused_qkv: bool,
}

/// What makes queries, keys and values.
#[derive(Debug, Clone)]
enum QueryKeyValue {
    /// A matrix each.
    Separate(Box<[Linear; 3]>),
    /// One matrix, `[3 · width, width]`: queries, keys and values below each other.
    Fused(Box<Linear>),
}

/// Names of the three matrices.
const SEPARATE: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
/// Name of the one.
const FUSED: &str = "self_attn.qkv";

impl QueryKeyValue {
    fn load(
        fused: bool,
        mut linear: impl FnMut(&str, [usize; 2]) -> Result<Linear, WeightError>,
        width: usize,
    ) -> Result<Self, WeightError> {
        if fused {
            return Ok(Self::Fused(Box::new(linear(FUSED, [width, 3 * width])?)));
        }
        let [q, k, v] = SEPARATE.map(|name| linear(name, [width, width]));
        Ok(Self::Separate(Box::new([q?, k?, v?])))
    }

    /// `[rows, width]` → three of `[rows, width]`.
    fn forward(&self, x: Tensor<2>) -> [Tensor<2>; 3] {
        match self {
            Self::Separate(projections) => {
                projections.each_ref().map(|projection| projection.forward(x.clone()))
            }
            Self::Fused(projection) => {
                let width = x.dims()[1];
                let all = projection.forward(x);
                [0, 1, 2].map(|part| all.clone().narrow(1, part * width, width))
            }
        }
    }

    fn linears_mut(&mut self) -> Vec<(&'static str, &mut Linear)> {
        match self {
            Self::Separate(projections) => {
                SEPARATE.into_iter().zip(projections.iter_mut()).collect()
            }
            Self::Fused(projection) => vec![(FUSED, projection)],
        }
    }

    /// What the model calls the matrix behind the attention.
    fn output_name(&self) -> &'static str {
        match self {
            Self::Separate(_) => "self_attn.out_proj",
            Self::Fused(_) => "self_attn.projection",
        }
    }
}

#[derive(Debug, Clone)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    query_key_value: QueryKeyValue,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl EncoderLayer {
    fn load(
        config: &EncoderConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let epsilon = config.layer_norm_eps;
        let mut linear =
            |part: &str, size| Linear::load(weights, &format!("{name}.{part}"), size, true, device);
        let query_key_value = QueryKeyValue::load(config.fused_qkv, &mut linear, width)?;
        let out_proj = linear(query_key_value.output_name(), [width, width])?;
        let fc1 = linear("mlp.fc1", [width, config.intermediate_size])?;
        let fc2 = linear("mlp.fc2", [config.intermediate_size, width])?;
        let mut norm = |part: &str| {
            LayerNorm::load(weights, &format!("{name}.{part}"), width, epsilon, device)
        };
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            layer_norm2: norm("layer_norm2")?,
            query_key_value,
            out_proj,
            fc1,
            fc2,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// The linear layers with their names inside the layer.
    fn linears_mut(&mut self) -> Vec<(&'static str, &mut Linear)> {
        let output = self.query_key_value.output_name();
        let mut linears = self.query_key_value.linears_mut();
        linears.extend([
            (output, &mut self.out_proj),
            ("mlp.fc1", &mut self.fc1),
            ("mlp.fc2", &mut self.fc2),
        ]);
        linears
    }

    /// `x`: `[batch · length, width]`.
    fn forward(&self, x: Tensor<2>, batch: usize, shown: &Shown) -> Tensor<2> {
        let length = x.dims()[0] / batch;
        let normed = self.layer_norm1.forward(x.clone());
        let [q, k, v] = self
            .query_key_value
            .forward(normed)
            .map(|projected| split_heads(projected, batch, length, self.heads));
        let mixed = attend(q, k, v, shown);
        let x = x + self.out_proj.forward(merge_heads(mixed));
        let hidden = self.fc1.forward(self.layer_norm2.forward(x.clone()));
        x + self.fc2.forward(self.activation.forward(hidden))
    }
}

impl Parameters for EncoderLayer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let output = self.query_key_value.output_name();
        for (name, linear) in self.query_key_value.linears_mut() {
            linear.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.out_proj.visit_mut(&format!("{prefix}.{output}"), visitor);
        self.layer_norm1.visit_mut(&format!("{prefix}.layer_norm1"), visitor);
        self.fc1.visit_mut(&format!("{prefix}.mlp.fc1"), visitor);
        self.fc2.visit_mut(&format!("{prefix}.mlp.fc2"), visitor);
        self.layer_norm2.visit_mut(&format!("{prefix}.layer_norm2"), visitor);
    }
}

/// A stack of encoder layers.
#[derive(Debug, Clone)]
pub struct Encoder {
    layers: Vec<EncoderLayer>,
    /// Where layers run, if not on the tensors' device.
    card: Option<Arc<Card>>,
}

impl Encoder {
    /// Loads `{name}.layers.N.*`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: &EncoderConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                EncoderLayer::load(config, weights, &format!("{name}.layers.{index}"), device)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { layers, card: None })
    }

    /// Number of layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Runs the first `depth` layers, on the tensors' device.
    ///
    /// # Shapes
    /// `x`: `[batch · length, width]`.
    pub fn forward(&self, x: Tensor<2>, batch: usize, mask: &Mask, depth: usize) -> Tensor<2> {
        self.fold(x, batch, mask, 0..depth)
    }

    /// Runs some of the layers, all positions seen, on the card if there is one.
    ///
    /// * `patches` — what embeds patches, if the card [has](Self::use_card) it
    ///
    /// # Errors
    /// Those of the card's driver.
    ///
    /// # Shapes
    /// `x`: `[batch · length, width]`.
    pub(crate) fn run_layers(
        &self,
        patches: Option<&PatchTensors>,
        x: Tensor<2>,
        batch: usize,
        layers: Range<usize>,
    ) -> Result<Tensor<2>, CudaError> {
        if let (Some(card), false) = (&self.card, layers.is_empty())
            && let Some(states) = card::forward(card, (self, patches), &x, batch, layers.clone())?
        {
            return Ok(states);
        }
        Ok(self.fold(x, batch, &Mask::Full, layers))
    }

    /// Embeds patches and runs the first `depth` layers; nothing where no card does that.
    ///
    /// # Errors
    /// Those of the card's driver.
    ///
    /// # Shapes
    /// `[images · patches, inputs]` → `[images · positions, width]`
    pub(crate) fn encode_patches(
        &self,
        patches: &PatchTensors,
        x: &Tensor<2>,
        images: usize,
        depth: usize,
    ) -> Result<Option<Tensor<2>>, CudaError> {
        let Some(card) = &self.card else { return Ok(None) };
        card::encode_patches(card, (self, patches), x, images, depth)
    }

    fn fold(&self, x: Tensor<2>, batch: usize, mask: &Mask, layers: Range<usize>) -> Tensor<2> {
        let shown = Shown::by(mask);
        self.layers[layers].iter().fold(x, |x, layer| layer.forward(x, batch, &shown))
    }

    /// What the copy on a card takes of it, with so many sequences at work.
    pub(crate) fn card_memory(&self, sequences: usize, length: usize) -> ImageMemory {
        let card = self.card.as_ref();
        card.map_or_else(ImageMemory::default, |card| card::memory(card, sequences, length))
    }

    /// Whether the copy on a card is that of another encoder.
    pub(crate) fn shares_card(&self, other: &Self) -> bool {
        let both = self.card.as_ref().zip(other.card.as_ref());
        both.is_some_and(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// Whether there is a copy on a card.
    pub(crate) fn has_card(&self) -> bool {
        self.card.is_some()
    }

    /// Copies the layers, and what embeds patches before them, to a card. From then on they run there, for this encoder and all its
    /// clones; layers that learn or are adapted stay on the CPU. A copy whose weights are replaced is made again.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, [`CudaError::Unsupported`] for heads of a width that no kernel has, and those
    /// of the driver. The encoder runs on the CPU as before then.
    pub(crate) fn use_card(
        &mut self,
        patches: Option<&PatchTensors>,
        driver: &SharedDriver,
    ) -> Result<(), CudaError> {
        self.card = Some(Arc::new(card::copy(self, patches, driver)?));
        Ok(())
    }

    /// Takes another encoder's copy on a card, if it has one of the very same tensors. Returns whether it does.
    pub(crate) fn share_card(
        &mut self,
        patches: Option<&PatchTensors>,
        (other, other_patches): (&Self, Option<&PatchTensors>),
    ) -> bool {
        let same = card::are_same((self, patches), (other, other_patches));
        if same {
            self.card.clone_from(&other.card);
        }
        same && self.card.is_some()
    }

    /// The type of the layers' matrices, which a card has to have kernels for.
    pub(crate) fn storage(&self) -> Storage {
        card::storage_of(self)
    }

    /// Visits every linear layer under `{prefix}.layers.N.…`.
    pub(crate) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (name, linear) in layer.linears_mut() {
                visitor(&format!("{prefix}.layers.{index}.{name}"), linear);
            }
        }
    }
}

impl Parameters for Encoder {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_mut(&format!("{prefix}.layers.{index}"), visitor);
        }
    }
}
