//! The pooling's copy on an NVIDIA card.

use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Pooling, PoolingConfig, Storage};

use super::pooling::AttentionPooling;
use crate::card_copy::{NamedTensors, storage};
use crate::card_part::{ImageMemory, NAME, PartCard, SharedDriver, gelu};
use crate::linear::is_adapted;
use crate::parameters::{floats, from_floats};

/// A card with a copy of a pooling.
pub(super) type Card = PartCard<Pooling>;

/// Copies a pooling. One that learns is copied when it does not any more.
pub(super) fn copy(
    pooling: &AttentionPooling,
    driver: &SharedDriver,
) -> Result<Arc<Card>, CudaError> {
    let weights = weights(pooling).ok_or_else(|| CudaError::Unsupported {
        what: "a pooling",
        found: "one that learns".to_owned(),
        supported: "those that are frozen",
    })?;
    Ok(Arc::new(Card::new(driver, config(pooling)?, weights)?))
}

/// As [`AttentionPooling::forward`]. Nothing where the card cannot: that is logged.
///
/// # Errors
/// Those of the driver.
pub(super) fn forward(
    card: &Card,
    pooling: &AttentionPooling,
    states: &Tensor<3>,
) -> Result<Option<Tensor<2>>, CudaError> {
    let [images, positions, width] = states.dims();
    if images == 0 || states.is_tracked() {
        return Ok(None);
    }
    let Some(weights) = weights(pooling) else { return Ok(None) };
    let values = floats(states);
    let pooled = card
        .run(config(pooling), weights, |driver, part| part.forward(driver, &values, positions))?;
    Ok(pooled.map(|pooled| from_floats(pooled, [images, width], &states.device())))
}

/// What the copy takes of the card, with so many images at work, or with all their patches each alone.
pub(super) fn memory(card: &Card, images: usize, positions: usize) -> ImageMemory {
    card.memory(|part| {
        let bytes = |sizes| part.config().bytes(sizes);
        bytes([images, positions]).max(bytes([images * positions, 1]))
    })
}

/// The element type of a pooling's matrices on a card.
pub(super) fn storage_of(pooling: &AttentionPooling) -> Storage {
    storage(pooling.in_proj.weight.dtype())
}

fn config(pooling: &AttentionPooling) -> Result<PoolingConfig, CudaError> {
    let [hidden, intermediate] = pooling.fc1.size();
    Ok(PoolingConfig {
        storage: storage_of(pooling),
        hidden,
        intermediate,
        heads: pooling.heads,
        epsilon: pooling.layernorm.epsilon as f32,
        activation: gelu(pooling.activation)?,
    })
}

/// Nothing where anything learns or is adapted.
fn weights(pooling: &AttentionPooling) -> Option<NamedTensors> {
    let (all, frozen) = NamedTensors::of(pooling, NAME);
    let adapted = is_adapted(|visitor| pooling.clone().visit_linears_mut(visitor));
    (frozen && !adapted).then_some(all)
}
