//! The image towers of CLIP and SigLIP, which are LLaVA's as well, and of EVA-CLIP, which BLIP-2 and InstructBLIP have.
//!
//! Papers: Radford et al. 2021, arXiv 2103.00020; Zhai et al. 2023, arXiv 2303.15343; Fang et al. 2022, arXiv 2211.07636. Reference:
//! transformers' `CLIPVisionModel`, `SiglipVisionModel` and `InstructBlipVisionModel`. SigLIP's has no class token, no norm before
//! the first layer, and a bias on its patches; EVA's has the class token and the bias, no norm before the first layer, and one matrix
//! for queries, keys and values.

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, Storage};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::card_part::{ImageMemory, SharedDriver};
use crate::encoder::{Encoder, EncoderConfig, PatchTensors};
use crate::linear::{
    ActivationDtype, BatchEmbedding, EMBEDDING_STD, Embedding, LinearVisitor, is_adapted, product,
};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{Init, WeightError, WeightSource, widened};

/// Which tower it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisionFamily {
    /// Class token first, norm before the first layer.
    #[default]
    Clip,
    /// Patches only.
    Siglip,
    /// Class token first, no norm before the first layer, fused queries, keys and values.
    Eva,
}

impl VisionFamily {
    fn has_class_token(self) -> bool {
        self != Self::Siglip
    }

    /// Whether patches are embedded with a bias.
    fn has_patch_bias(self) -> bool {
        self != Self::Clip
    }
}

/// Sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Which tower.
    #[serde(default)]
    pub family: VisionFamily,
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
    /// Side of a square patch, pixels; what is left over at the right and bottom edges is not seen.
    pub patch_size: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Non-linearity of the feed-forward part.
    pub hidden_act: Activation,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of patches of one image (the class token not counted).
    pub fn patches(&self) -> usize {
        self.side().pow(2)
    }

    /// Number of positions of one image, the class token included where there is one.
    pub fn positions(&self) -> usize {
        self.patches() + usize::from(self.family.has_class_token())
    }

    fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: self.hidden_act,
            fused_qkv: self.family == VisionFamily::Eva,
        }
    }
}

/// An embedding of a tower, in the shape that it is stored in.
#[derive(Debug, Clone)]
enum TowerEmbedding {
    /// `[width]`: CLIP's class token.
    Vector(Tensor<1>),
    /// `[positions, width]`: CLIP's and SigLIP's positions, called `NAME.weight`.
    Table(Embedding),
    /// `[1, positions, width]`: EVA's.
    Batch(BatchEmbedding),
}

impl TowerEmbedding {
    /// `[1, positions, width]`
    fn batch(&self) -> Tensor<3> {
        match self {
            Self::Vector(vector) => vector.clone().unsqueeze(),
            Self::Table(table) => table.weight.clone().unsqueeze(),
            Self::Batch(batch) => batch.whole(),
        }
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        match self {
            Self::Vector(vector) => visitor(name, ParameterMut::Vector(vector)),
            Self::Table(table) => table.visit_mut(name, visitor),
            Self::Batch(batch) => batch.visit_mut(name, visitor),
        }
    }
}

/// The image tower.
#[derive(Debug, Clone)]
pub struct VisionTower {
    config: VisionConfig,
    /// All but SigLIP's.
    class_embedding: Option<TowerEmbedding>,
    patch_embedding: Tensor<4>,
    /// All but CLIP's.
    patch_bias: Option<Tensor<1>>,
    position_embedding: TowerEmbedding,
    /// CLIP's only.
    pre_layrnorm: Option<LayerNorm>,
    encoder: Encoder,
    post_layernorm: LayerNorm,
}

/// Hidden states of images after some layers of a vision tower: where two models share a tower, the second continues from the
/// states of the first.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// `[batch, positions, hidden]`, before the last norm.
    pub states: Tensor<3>,
    /// Layers gone through.
    pub depth: usize,
}

impl VisionTower {
    /// Loads `{name}.embeddings.*`, `{name}.encoder.*`, `{name}.pre_layrnorm`, `{name}.post_layernorm`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: VisionConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let patch = config.patch_size;
        let epsilon = config.layer_norm_eps;
        let embeddings = format!("{name}.embeddings");
        let class_embedding = class_embedding(&config, weights, &embeddings, device)?;
        let kernel = weights.tensor(
            &format!("{embeddings}.patch_embedding.weight"),
            &[width, 3, patch, patch],
            Init::Normal { std: (3.0 * (patch * patch) as f64).sqrt().recip() },
        )?;
        let patch_bias = if config.family.has_patch_bias() {
            let bias = format!("{embeddings}.patch_embedding.bias");
            Some(widened(weights.tensor(&bias, &[width], Init::Zeros)?, device))
        } else {
            None
        };
        let (positions, size) =
            (format!("{embeddings}.position_embedding"), [config.positions(), width]);
        let position_embedding = if config.family == VisionFamily::Eva {
            TowerEmbedding::Batch(BatchEmbedding::load(weights, &positions, size, device)?)
        } else {
            TowerEmbedding::Table(Embedding::load_widened(weights, &positions, size, device)?)
        };
        let mut norm = |part: &str| {
            LayerNorm::load(weights, &format!("{name}.{part}"), width, epsilon, device)
        };
        let clip = config.family == VisionFamily::Clip;
        let pre_layrnorm = clip.then(|| norm("pre_layrnorm")).transpose()?;
        let post_layernorm = norm("post_layernorm")?;
        let encoder =
            Encoder::load(&config.encoder(), weights, &format!("{name}.encoder"), device)?;
        Ok(Self {
            class_embedding,
            patch_embedding: widened(kernel, device),
            patch_bias,
            position_embedding,
            pre_layrnorm,
            encoder,
            post_layernorm,
            config,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Where the tower's weights live.
    pub fn device(&self) -> Device {
        self.patch_embedding.device()
    }

    /// Copies patch embeddings and layers to a card, where they run from then on, for this tower and all its clones; the last norm and
    /// what learns or is adapted stay on the CPU.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, [`CudaError::Unsupported`] for what no kernel is made for, and those of the
    /// driver. The tower runs on the CPU as before then.
    pub fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        let patches = self.patch_tensors();
        self.encoder.use_card(patches.as_ref(), driver)
    }

    /// Takes another tower's copy on a card, if it has one of the very same tensors. Returns whether it does.
    pub fn share_card(&mut self, other: &Self) -> bool {
        let [own, others] = [self.patch_tensors(), other.patch_tensors()];
        self.encoder.share_card(own.as_ref(), (&other.encoder, others.as_ref()))
    }

    /// What embeds patches, to be copied to a card; nothing where any of it learns.
    fn patch_tensors(&self) -> Option<PatchTensors> {
        let [width, channels, height, across] = self.patch_embedding.dims();
        let embedding = &self.patch_embedding;
        let norm = self.pre_layrnorm.as_ref().map(|norm| [norm.weight.clone(), norm.bias.clone()]);
        let positions = self.position_embedding.batch();
        let class = self.class_embedding.as_ref().map(TowerEmbedding::batch);
        let learns = embedding.is_tracked()
            || positions.is_tracked()
            || class.as_ref().is_some_and(Tensor::is_tracked)
            || self.patch_bias.as_ref().is_some_and(Tensor::is_tracked)
            || norm.iter().flatten().any(Tensor::is_tracked);
        (!learns).then(|| PatchTensors {
            matrix: embedding.clone().reshape([width, channels * height * across]),
            positions: positions.reshape([self.config.positions(), width]),
            class: class.map(|class| class.reshape([width])),
            bias: self.patch_bias.clone(),
            norm,
        })
    }

    /// The type of the layers' matrices, which a card has to have kernels for.
    pub fn storage(&self) -> Storage {
        self.encoder.storage()
    }

    /// Whether an adapter changes what the tower computes.
    pub fn is_adapted(&self) -> bool {
        is_adapted(|visitor| self.clone().visit_linears_mut("", visitor))
    }

    /// Sets what the layers' linear layers multiply.
    pub fn set_activation_dtype(&mut self, dtype: ActivationDtype) {
        self.visit_linears_mut("", &mut |_, linear| linear.activations = dtype);
    }

    /// Visits every linear layer under `{prefix}.encoder.layers.N.…`.
    pub(crate) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        self.encoder.visit_linears_mut(&format!("{prefix}.encoder"), visitor);
    }

    /// Hidden states after the first `depth` layers (0 = what enters the first one).
    ///
    /// # Shapes
    /// `pixels`: `[batch, 3, height, width]` → `[batch, positions, hidden]`, the class token first.
    ///
    /// # Errors
    /// Those of the driver of the tower's [card](Self::use_card).
    pub fn hidden_states(&self, pixels: Tensor<4>, depth: usize) -> Result<Tensor<3>, CudaError> {
        let batch = pixels.dims()[0];
        let patches = self.patches(pixels);
        let tensors = self.card_patches();
        let encoded = match &tensors {
            Some(tensors) => self.encoder.encode_patches(tensors, &patches, batch, depth)?,
            None => None,
        };
        let x = if let Some(x) = encoded {
            x
        } else {
            let x = self.embed(patches, batch);
            let x = match &self.pre_layrnorm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            self.encoder.run_layers(tensors.as_ref(), x, batch, 0..depth)?
        };
        Ok(x.reshape([batch, self.config.positions(), self.config.hidden_size]))
    }

    /// Output of all layers for images `[batch, 3, h, w]`.
    ///
    /// # Errors
    /// As [`hidden_states`](Self::hidden_states).
    pub fn encode(&self, pixels: Tensor<4>) -> Result<VisionOutput, CudaError> {
        let depth = self.encoder.depth();
        Ok(VisionOutput { states: self.hidden_states(pixels, depth)?, depth })
    }

    /// Runs the layers that an output has not gone through yet: `[batch, positions, hidden]`.
    fn finish(&self, VisionOutput { states, depth }: VisionOutput) -> Result<Tensor<3>, CudaError> {
        let [batch, positions, hidden] = states.dims();
        let x = states.reshape([batch * positions, hidden]);
        let layers = depth..self.encoder.depth();
        let x = self.encoder.run_layers(self.card_patches().as_ref(), x, batch, layers)?;
        Ok(x.reshape([batch, positions, hidden]))
    }

    /// What the copy on a card takes of it, with so many images at work.
    pub(crate) fn card_memory(&self, images: usize) -> ImageMemory {
        self.encoder.card_memory(images, self.config.positions())
    }

    /// Whether the copy on a card is that of another tower.
    pub(crate) fn shares_card(&self, other: &Self) -> bool {
        self.encoder.shares_card(&other.encoder)
    }

    /// What embeds patches, where there is a card.
    fn card_patches(&self) -> Option<PatchTensors> {
        self.encoder.has_card().then(|| self.patch_tensors()).flatten()
    }

    /// The first position's final state after the last norm, which is CLIP's class token: `[batch, hidden]`.
    ///
    /// # Errors
    /// As [`hidden_states`](Self::hidden_states).
    pub(crate) fn pooled(&self, output: VisionOutput) -> Result<Tensor<2>, CudaError> {
        let states = self.finish(output)?;
        let batch = states.dims()[0];
        let class = states.slice([0..batch, 0..1]).reshape([batch, self.config.hidden_size]);
        Ok(self.post_layernorm.forward(class))
    }

    /// Final states of all positions after the last norm: `[batch, positions, hidden]`.
    ///
    /// # Errors
    /// As [`hidden_states`](Self::hidden_states).
    pub(crate) fn normed_states(&self, output: VisionOutput) -> Result<Tensor<3>, CudaError> {
        let states = self.finish(output)?;
        let [batch, positions, hidden] = states.dims();
        let normed = self.post_layernorm.forward(states.reshape([batch * positions, hidden]));
        Ok(normed.reshape([batch, positions, hidden]))
    }

    /// Cut-out patches, row by row: `[batch · patches, 3 · patch · patch]`.
    fn patches(&self, pixels: Tensor<4>) -> Tensor<2> {
        let VisionConfig { image_size, patch_size: patch, .. } = self.config;
        let [batch, channels, height, image_width] = pixels.dims();
        assert!(
            channels == 3 && height == image_size && image_width == image_size,
            "the image tower takes [batch, 3, {image_size}, {image_size}] pixels, got {:?}",
            pixels.dims()
        );
        let side = self.config.side();
        let seen = side * patch;
        pixels
            .slice([0..batch, 0..3, 0..seen, 0..seen])
            .reshape([batch, 3, side, patch, side, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * side * side, 3 * patch * patch])
    }

    /// Patch, class and position embeddings of patches: `[batch · positions, hidden]`.
    ///
    /// The patch convolution has stride = kernel, so it is a matrix product over cut-out patches.
    fn embed(&self, patches: Tensor<2>, batch: usize) -> Tensor<2> {
        let VisionConfig { hidden_size: width, patch_size: patch, .. } = self.config;
        let side = self.config.side();
        let kernel = self.patch_embedding.clone().reshape([width, 3 * patch * patch]);
        let embedded = product(patches, &kernel);
        let embedded = match &self.patch_bias {
            Some(bias) => embedded + bias.clone().unsqueeze(),
            None => embedded,
        };
        let embedded = embedded.reshape([batch, side * side, width]);
        let x = match &self.class_embedding {
            Some(class) => Tensor::cat(vec![class.batch().repeat_dim(0, batch), embedded], 1),
            None => embedded,
        };
        let x = x + self.position_embedding.batch();
        x.reshape([batch * self.config.positions(), width])
    }
}

/// The embedding of the class token, where the tower has one.
fn class_embedding(
    config: &VisionConfig,
    weights: &mut dyn WeightSource,
    embeddings: &str,
    device: &Device,
) -> Result<Option<TowerEmbedding>, WeightError> {
    let (name, width) = (format!("{embeddings}.class_embedding"), config.hidden_size);
    match config.family {
        VisionFamily::Siglip => Ok(None),
        VisionFamily::Eva => {
            let class = BatchEmbedding::load(weights, &name, [1, width], device)?;
            Ok(Some(TowerEmbedding::Batch(class)))
        }
        VisionFamily::Clip => {
            let init = Init::Normal { std: EMBEDDING_STD };
            let values = weights.tensor(&name, &[width], init)?;
            Ok(Some(TowerEmbedding::Vector(widened(values, device))))
        }
    }
}

impl Parameters for VisionTower {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let embeddings = format!("{prefix}.embeddings");
        if let Some(class) = &mut self.class_embedding {
            class.visit_mut(&format!("{embeddings}.class_embedding"), visitor);
        }
        visitor(
            &format!("{embeddings}.patch_embedding.weight"),
            ParameterMut::Kernel(&mut self.patch_embedding),
        );
        if let Some(bias) = &mut self.patch_bias {
            let name = format!("{embeddings}.patch_embedding.bias");
            visitor(&name, ParameterMut::Vector(bias));
        }
        self.position_embedding.visit_mut(&format!("{embeddings}.position_embedding"), visitor);
        if let Some(norm) = &mut self.pre_layrnorm {
            norm.visit_mut(&format!("{prefix}.pre_layrnorm"), visitor);
        }
        self.encoder.visit_mut(&format!("{prefix}.encoder"), visitor);
        self.post_layernorm.visit_mut(&format!("{prefix}.post_layernorm"), visitor);
    }
}
