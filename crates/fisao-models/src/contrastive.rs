//! A model that places images and texts in one space: CLIP, SigLIP or BLIP-2.

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Driver, Storage};

use crate::blip2::Blip2;
use crate::card_part::{ImageMemory, LeftOnCpu, SharedDriver};
use crate::clip::Clip;
use crate::parameters::{ParameterMut, Parameters};
use crate::siglip::Siglip;
use crate::vision::{VisionOutput, VisionTower};

/// One of the families. An image has one embedding, or several of which the best counts.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a process, not many")]
#[non_exhaustive]
pub enum ContrastiveModel {
    /// BLIP-2.
    Blip2(Box<Blip2>),
    /// CLIP.
    Clip(Clip),
    /// SigLIP.
    Siglip(Siglip),
}

impl From<Blip2> for ContrastiveModel {
    fn from(model: Blip2) -> Self {
        Self::Blip2(Box::new(model))
    }
}

impl From<Clip> for ContrastiveModel {
    fn from(model: Clip) -> Self {
        Self::Clip(model)
    }
}

impl From<Siglip> for ContrastiveModel {
    fn from(model: Siglip) -> Self {
        Self::Siglip(model)
    }
}

impl ContrastiveModel {
    /// The image tower.
    pub fn vision(&self) -> &VisionTower {
        match self {
            Self::Blip2(model) => model.vision(),
            Self::Clip(model) => &model.vision,
            Self::Siglip(model) => model.vision(),
        }
    }

    /// Mutable [`vision`](Self::vision).
    pub fn vision_mut(&mut self) -> &mut VisionTower {
        match self {
            Self::Blip2(model) => model.vision_mut(),
            Self::Clip(model) => &mut model.vision,
            Self::Siglip(model) => model.vision_mut(),
        }
    }

    /// Copies the image tower, BLIP-2's Q-Former and SigLIP's pooling to a card, where they run from then on, for this model and all its clones. What
    /// the card does not compute stays on the CPU and is returned.
    ///
    /// * `beside` — a tower whose copy is shared, if it is of the same tensors
    ///
    /// # Errors
    /// As [`VisionTower::use_card`] but for what is unsupported.
    pub fn use_card(
        &mut self,
        driver: Box<dyn Driver + Send>,
        beside: Option<&VisionTower>,
    ) -> Result<Vec<LeftOnCpu>, CudaError> {
        let driver = SharedDriver::new(driver);
        let (mut left, tower) = (Vec::new(), self.vision_mut());
        if !beside.is_some_and(|other| tower.share_card(other)) {
            let copied = tower.use_card(&driver);
            LeftOnCpu::unless(copied, "the image tower", &mut left)?;
        }
        match self {
            Self::Blip2(model) => {
                LeftOnCpu::unless(model.use_card(&driver), "the Q-Former", &mut left)?;
            }
            Self::Siglip(model) => {
                LeftOnCpu::unless(model.use_card(&driver), "the pooling", &mut left)?;
            }
            Self::Clip(_) => {}
        }
        Ok(left)
    }

    /// What the copies on a card take of it, with so many images at work. A tower whose copy is that of the one `beside` it takes nothing.
    pub fn image_memory(&self, images: usize, beside: Option<&VisionTower>) -> ImageMemory {
        let tower = self.vision();
        let own = if beside.is_some_and(|other| tower.shares_card(other)) {
            ImageMemory::default()
        } else {
            tower.card_memory(images)
        };
        match self {
            Self::Blip2(model) => own.and(model.reader_memory(images)),
            Self::Siglip(model) => own.and(model.head_memory(images)),
            Self::Clip(_) => own,
        }
    }

    /// The types of the matrices that a card [computes with](Self::use_card), which it has to have kernels for.
    pub fn image_storages(&self) -> Vec<Storage> {
        let mut all = vec![self.vision().storage()];
        match self {
            Self::Blip2(model) => all.push(model.reader_storage()),
            Self::Siglip(model) => all.push(model.head_storage()),
            Self::Clip(_) => {}
        }
        all.dedup();
        all
    }

    /// Width of the shared space.
    pub fn dim(&self) -> usize {
        match self {
            Self::Blip2(model) => model.config().projection_dim,
            Self::Clip(model) => model.config().projection_dim,
            Self::Siglip(model) => model.config().text.projection_size,
        }
    }

    /// Number of embeddings that an image has.
    pub fn image_vectors(&self) -> usize {
        match self {
            Self::Blip2(model) => model.config().query_tokens,
            Self::Clip(_) | Self::Siglip(_) => 1,
        }
    }

    /// Whether embeddings of patches come with that of the image at next to no cost.
    pub fn has_cheap_patches(&self) -> bool {
        !matches!(self, Self::Blip2(_))
    }

    /// Whether the last norm of the image tower is this model's own, and not part of what it shares with others.
    pub fn owns_post_layernorm(&self) -> bool {
        matches!(self, Self::Blip2(_))
    }

    /// Unit image embeddings `f_v`: `[batch, 3, h, w]` → `[batch, vectors · dim]`.
    ///
    /// # Errors
    /// Those of the driver of the model's [card](Self::use_card).
    pub fn embed_images(&self, pixels: Tensor<4>) -> Result<Tensor<2>, CudaError> {
        self.embed_vision_output(self.vision().encode(pixels)?)
    }

    /// The same of images on their way through this model's image tower, or through another one with the same
    /// weights.
    ///
    /// # Errors
    /// Those of the driver of the model's [card](Self::use_card).
    pub fn embed_vision_output(&self, output: VisionOutput) -> Result<Tensor<2>, CudaError> {
        match self {
            Self::Blip2(model) => model.embed_vision_output(output),
            Self::Clip(model) => model.embed_vision_output(output),
            Self::Siglip(model) => model.embed_vision_output(output),
        }
    }

    /// Unit embeddings of images, as [`embed_vision_output`](Self::embed_vision_output) gives them, and of each of their
    /// patches: what the pooling makes of the patch's final state alone.
    ///
    /// # Shapes
    /// `[batch, vectors · dim]`, `[batch, patches, vectors · dim]`
    ///
    /// # Errors
    /// Those of the driver of the model's [card](Self::use_card).
    pub fn embed_patches(&self, output: VisionOutput) -> Result<(Tensor<2>, Tensor<3>), CudaError> {
        match self {
            Self::Blip2(model) => model.embed_patches(output),
            Self::Clip(model) => model.embed_patches(output),
            Self::Siglip(model) => model.embed_patches(output),
        }
    }

    /// Unit text embeddings `f_t`: ids as the model's tokenizer gives them → `[batch, dim]`.
    ///
    /// # Errors
    /// Those of the driver of the model's [card](Self::use_card).
    pub fn embed_text(&self, ids: &[Vec<u32>]) -> Result<Tensor<2>, CudaError> {
        match self {
            Self::Blip2(model) => model.embed_text(ids),
            Self::Clip(model) => Ok(model.embed_text(ids)),
            Self::Siglip(model) => Ok(model.embed_text(ids)),
        }
    }
}

impl Parameters for ContrastiveModel {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        match self {
            Self::Blip2(model) => model.visit_mut(prefix, visitor),
            Self::Clip(model) => model.visit_mut(prefix, visitor),
            Self::Siglip(model) => model.visit_mut(prefix, visitor),
        }
    }
}
