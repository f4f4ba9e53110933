//! A Q-Former's copy on an NVIDIA card.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fisao_cuda::{
    CudaError, QFormer as CardQFormer, QFormerBatch, QFormerConfig as CardConfig, Storage,
};

use super::QFormer;
use super::layer::Layer;
use crate::card_copy::{NamedTensors, storage};
use crate::card_part::{AT_ONCE, NAME, PartCard, SharedDriver, first_layer, gelu};
use crate::linear::is_adapted;
use crate::parameters::{floats, from_floats};

/// A card with a copy of a Q-Former.
pub(super) type Card = PartCard<CardQFormer>;

/// Copies a Q-Former. One that learns is copied when it does not any more.
pub(super) fn copy(qformer: &QFormer, driver: &SharedDriver) -> Result<Arc<Card>, CudaError> {
    let weights = weights(qformer).ok_or_else(|| CudaError::Unsupported {
        what: "a Q-Former",
        found: "one that learns or is adapted".to_owned(),
        supported: "those that are frozen",
    })?;
    Ok(Arc::new(Card::new(driver, config(qformer)?, weights)?))
}

/// As [`QFormer::forward`]. Nothing where the card cannot: that is logged.
///
/// # Errors
/// Those of the driver.
pub(super) fn forward(
    card: &Card,
    qformer: &QFormer,
    x: &Tensor<3>,
    queries: usize,
    image: Option<&Tensor<3>>,
) -> Result<Option<Tensor<3>>, CudaError> {
    let [batch, length, width] = x.dims();
    let tracked = x.is_tracked() || image.is_some_and(Tensor::is_tracked);
    if batch == 0 || length == 0 || tracked {
        return Ok(None);
    }
    let Some(weights) = weights(qformer) else { return Ok(None) };
    let text = length - queries;
    let own = |first: usize, count: usize| {
        if count == 0 { Vec::new() } else { floats(&x.clone().narrow(1, first, count)) }
    };
    let parts = [own(0, queries), own(queries, text)];
    let (positions, image_width) = image.map_or((0, 0), |image| (image.dims()[1], image.dims()[2]));
    let states = image.filter(|_| queries > 0).map_or_else(Vec::new, floats);
    let found = card.run(config(qformer), weights, |driver, on_card| {
        let mut all = [Vec::new(), Vec::new()];
        for first in (0..batch).step_by(AT_ONCE) {
            let batch = AT_ONCE.min(batch - first);
            let of = QFormerBatch { batch, queries, text, positions };
            let part = |all: &'_ [f32], each: usize| {
                let each = if all.is_empty() { 0 } else { each };
                first * each..(first + batch) * each
            };
            let own = &parts[0][part(&parts[0], queries * width)];
            let texts = &parts[1][part(&parts[1], text * width)];
            let image = &states[part(&states, positions * image_width)];
            let found = on_card.forward(driver, [own, texts, image], &of)?;
            all.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
        }
        Ok(all)
    })?;
    let Some(found) = found else { return Ok(None) };
    let device = x.device();
    let parts = found.into_iter().zip([queries, text]).filter(|(_, length)| *length > 0);
    let parts = parts.map(|(found, length)| from_floats(found, [batch, length, width], &device));
    Ok(Some(Tensor::cat(parts.collect(), 1)))
}

/// The element type of a Q-Former's matrices on a card.
pub(super) fn storage_of(qformer: &QFormer) -> Storage {
    storage(qformer.layers.first().map_or(DType::F32, Layer::dtype))
}

fn config(qformer: &QFormer) -> Result<CardConfig, CudaError> {
    let layers = &qformer.layers;
    let first = first_layer(layers)?;
    let crossing = layers.iter().enumerate().filter(|(_, layer)| layer.image_width().is_some());
    let second = crossing.map(|(index, _)| index).nth(1);
    let (hidden, intermediate, heads, epsilon, activation) = first.sizes();
    Ok(CardConfig {
        storage: storage_of(qformer),
        hidden,
        intermediate,
        layers: layers.len(),
        heads,
        // With one layer that attends to the image there is no second.
        cross_attention_frequency: second.unwrap_or(layers.len()),
        image_width: first.image_width().unwrap_or(hidden),
        epsilon,
        activation: gelu(activation)?,
    })
}

/// Nothing where anything learns or is adapted.
fn weights(qformer: &QFormer) -> Option<NamedTensors> {
    let (all, frozen) = NamedTensors::of(qformer, NAME);
    let adapted = is_adapted(|visitor| qformer.clone().visit_linears_mut(NAME, visitor));
    (frozen && !adapted).then_some(all)
}
