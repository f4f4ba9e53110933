//! Tensors, images and tasks as they are sent.

use burn::tensor::{Device, Tensor};
use fisao_models::image::PixelValues;
use fisao_models::parameters::{floats, from_floats};
use fisao_models::vision_language::ImageFeatures;
use fisao_verifier::regions::ImageEmbedding;
use serde::{Deserialize, Serialize};

use crate::link::as_bytes;
use crate::tasks::{Answer, Task};

/// A matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Matrix {
    pub(super) size: [usize; 2],
    /// Row by row.
    #[serde(with = "as_bytes")]
    pub(super) values: Vec<f32>,
}

impl Matrix {
    pub(super) fn of(tensor: &Tensor<2>) -> Self {
        Self { size: tensor.dims(), values: floats(tensor) }
    }

    pub(super) fn on(&self, device: &Device) -> Tensor<2> {
        from_floats(self.values.clone(), self.size, device)
    }
}

/// Image features of one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedFeatures {
    tokens: Matrix,
    counts: Vec<usize>,
    grids: Vec<[usize; 2]>,
    deep: Vec<Matrix>,
}

impl PackedFeatures {
    pub(crate) fn of(features: &ImageFeatures) -> Self {
        Self {
            tokens: Matrix::of(features.tokens()),
            counts: features.counts().to_vec(),
            grids: features.grids(0).to_vec(),
            deep: features.deep().iter().map(Matrix::of).collect(),
        }
    }

    pub(crate) fn on(&self, device: &Device) -> ImageFeatures {
        let deep = self.deep.iter().map(|deep| deep.on(device)).collect();
        ImageFeatures::new(self.tokens.on(device), self.counts.clone())
            .with_grids(self.grids.clone())
            .with_deep(deep)
    }
}

/// A task without what the data answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedTask {
    id: String,
    image: PackedPixels,
    further_images: Vec<PackedPixels>,
    verifier_images: Vec<PackedPixels>,
    prompt: Vec<u32>,
    instruction: Vec<u32>,
}

/// See [`PixelValues`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedPixels {
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
    tile_size: (u32, u32),
    original_size: (u32, u32),
}

impl PackedPixels {
    pub(crate) fn of(pixels: &PixelValues) -> Self {
        let PixelValues { values, tile_size, original_size } = pixels.clone();
        Self { values, tile_size, original_size }
    }

    pub(crate) fn unpacked(&self) -> PixelValues {
        let Self { values, tile_size, original_size } = self.clone();
        PixelValues { values, tile_size, original_size }
    }
}

impl PackedTask {
    pub(crate) fn of(task: &Task) -> Self {
        Self {
            id: task.id.clone(),
            image: PackedPixels::of(&task.image),
            further_images: task.further_images.iter().map(PackedPixels::of).collect(),
            verifier_images: task.verifier_images.iter().map(PackedPixels::of).collect(),
            prompt: task.prompt.clone(),
            instruction: task.instruction.clone(),
        }
    }

    pub(crate) fn unpacked(&self) -> Task {
        Task {
            id: self.id.clone(),
            image: self.image.unpacked(),
            further_images: self.further_images.iter().map(PackedPixels::unpacked).collect(),
            verifier_images: self.verifier_images.iter().map(PackedPixels::unpacked).collect(),
            prompt: self.prompt.clone(),
            instruction: self.instruction.clone(),
            answer: Answer::None,
        }
    }
}

/// See [`ImageEmbedding`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedEmbedding {
    /// The whole, and behind it the parts.
    #[serde(with = "as_bytes")]
    values: Vec<f32>,
    whole: usize,
    parts: usize,
}

impl PackedEmbedding {
    pub(crate) fn of(ImageEmbedding { whole, parts }: &ImageEmbedding) -> Self {
        let values = whole.iter().chain(parts.iter().flatten()).copied().collect();
        Self { values, whole: whole.len(), parts: parts.len() }
    }

    pub(crate) fn unpacked(&self) -> ImageEmbedding {
        let (whole, parts) = self.values.split_at(self.whole);
        let width = parts.len() / self.parts.max(1);
        ImageEmbedding {
            whole: whole.to_vec(),
            parts: parts.chunks(width.max(1)).map(<[f32]>::to_vec).collect(),
        }
    }
}
