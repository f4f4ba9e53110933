//! Projectors of image states on an NVIDIA card.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fisao_cuda::{CudaError, Projector, ProjectorConfig};

use crate::activation::Activation;
use crate::card_copy::{NamedTensors, storage};
use crate::card_part::{ImageMemory, NAME, PartCard, SharedDriver, gelu};
use crate::linear::Linear;
use crate::parameters::{floats, from_floats};

/// Where a projector runs, if not on the tensors' device. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProjectorCard(Option<Arc<PartCard<Projector>>>);

impl ProjectorCard {
    /// Copies linear layers, with an activation between them if there are several, to a card.
    pub(crate) fn copy(
        driver: &SharedDriver,
        layers: &[&Linear],
        activation: Option<Activation>,
    ) -> Result<Self, CudaError> {
        let card = PartCard::new(driver, config(layers, activation)?, weights(layers))?;
        Ok(Self(Some(Arc::new(card))))
    }

    /// What the copy takes of the card, with so many rows at work.
    pub(crate) fn memory(&self, rows: usize) -> ImageMemory {
        let card = self.0.as_ref();
        card.map_or_else(ImageMemory::default, |card| card.memory(|part| part.config().bytes(rows)))
    }

    /// `[rows, in]` → `[rows, out]`. Nothing where there is no card, where it has no room, or where something learns or is adapted.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn forward(
        &self,
        layers: &[&Linear],
        activation: Option<Activation>,
        x: &Tensor<2>,
    ) -> Result<Option<Tensor<2>>, CudaError> {
        let (Some(card), Some(last)) = (&self.0, layers.last()) else { return Ok(None) };
        let frozen = layers.iter().all(|layer| layer.adapter.is_none() && !layer.learns());
        if x.is_tracked() || !frozen {
            return Ok(None);
        }
        let [rows, _] = x.dims();
        let size = [rows, last.size()[1]];
        let values = floats(x);
        let projected = card.run(config(layers, activation), weights(layers), |driver, part| {
            part.forward(driver, &values)
        })?;
        Ok(projected.map(|projected| from_floats(projected, size, &x.device())))
    }
}

fn config(
    layers: &[&Linear],
    activation: Option<Activation>,
) -> Result<ProjectorConfig, CudaError> {
    let first = layers.first();
    Ok(ProjectorConfig {
        storage: storage(first.map_or(DType::F32, |layer| layer.weight.dtype())),
        input: first.map_or(0, |layer| layer.size()[0]),
        outputs: layers.iter().map(|layer| layer.size()[1]).collect(),
        bias: layers.iter().all(|layer| layer.bias.is_some()),
        activation: gelu(activation.unwrap_or(Activation::Gelu))?,
    })
}

fn weights(layers: &[&Linear]) -> NamedTensors {
    let mut all = NamedTensors::default();
    for (index, layer) in layers.iter().enumerate() {
        all.put(format!("{NAME}.{index}.weight"), &layer.weight);
        if let Some(bias) = &layer.bias {
            all.put(format!("{NAME}.{index}.bias"), bias);
        }
    }
    all
}
