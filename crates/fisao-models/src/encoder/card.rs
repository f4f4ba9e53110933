//! An encoder's copy on an NVIDIA card.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use fisao_cuda::{
    CudaError, Driver, Encoder as CardEncoder, EncoderConfig as CardConfig, EncoderPlan,
    EncoderSession, PatchConfig, Storage,
};

use super::{Encoder, QueryKeyValue};
use crate::card_copy::{NamedTensors, storage};
use crate::card_part::{AT_ONCE, ImageMemory, NAME, PartCard, SharedDriver, first_layer, gelu};
use crate::linear::is_adapted;
use crate::parameters::{floats, from_floats};

/// A card with a copy of an encoder.
pub(super) type Card = PartCard<CardEncoder>;

/// What embeds patches before the layers of an encoder. Nothing of it learns.
pub(crate) struct PatchTensors {
    pub(crate) matrix: Tensor<2>,
    /// `[positions, width]`
    pub(crate) positions: Tensor<2>,
    pub(crate) class: Option<Tensor<1>>,
    pub(crate) bias: Option<Tensor<1>>,
    /// Weight and bias.
    pub(crate) norm: Option<[Tensor<1>; 2]>,
}

impl PatchTensors {
    fn config(&self) -> PatchConfig {
        PatchConfig {
            inputs: self.matrix.dims()[1],
            positions: self.positions.dims()[0],
            class_token: self.class.is_some(),
            bias: self.bias.is_some(),
            norm: self.norm.is_some(),
        }
    }

    fn put(&self, all: &mut NamedTensors) {
        let name = |part: &str| format!("{NAME}.{part}");
        all.put(name("patches"), &self.matrix);
        all.put(name("positions"), &self.positions);
        let [weight, bias] = match &self.norm {
            Some([weight, bias]) => [Some(weight), Some(bias)],
            None => [None, None],
        };
        for (part, vector) in [
            ("class", self.class.as_ref()),
            ("patch_bias", self.bias.as_ref()),
            ("norm.weight", weight),
            ("norm.bias", bias),
        ] {
            if let Some(vector) = vector {
                all.put(name(part), vector);
            }
        }
    }
}

/// Copies an encoder, and with it what embeds patches.
pub(super) fn copy(
    encoder: &Encoder,
    patches: Option<&PatchTensors>,
    driver: &SharedDriver,
) -> Result<Card, CudaError> {
    Card::new(driver, config(encoder, patches)?, weights(encoder, patches).0)
}

/// Whether two encoders have the same sizes and tensors, so that a copy of one is a copy of the other.
pub(super) fn are_same(
    (a, patches): (&Encoder, Option<&PatchTensors>),
    (b, other_patches): (&Encoder, Option<&PatchTensors>),
) -> bool {
    let sizes = [config(a, patches), config(b, other_patches)];
    let [Ok(one), Ok(other)] = sizes else { return false };
    let ((a, frozen), (b, other_frozen)) = (weights(a, patches), weights(b, other_patches));
    frozen && other_frozen && one == other && a.are(&b)
}

/// Runs some of the layers, all positions seen. Nothing where the card cannot: that is logged.
///
/// # Errors
/// Those of the driver.
pub(super) fn forward(
    card: &Card,
    (encoder, patches): (&Encoder, Option<&PatchTensors>),
    x: &Tensor<2>,
    batch: usize,
    layers: Range<usize>,
) -> Result<Option<Tensor<2>>, CudaError> {
    let (weights, frozen) = weights(encoder, patches);
    if batch == 0 || x.is_tracked() || !frozen {
        return Ok(None);
    }
    let [rows, width] = x.dims();
    let (length, values) = (rows / batch, floats(x));
    let copied = (config(encoder, patches), weights);
    let states = run(card, copied, batch, length, |driver, on_card, session| {
        let parts = values.chunks(AT_ONCE * length * width).map(|x| {
            let sizes = [x.len() / width / length, length];
            session.forward(driver, on_card, x, sizes, false, layers.clone())
        });
        parts.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(states.map(|states| from_floats(states.concat(), [rows, width], &x.device())))
}

/// Embeds patches and runs the first layers: `[images · patches, inputs]` → `[images · positions, width]`. Nothing where the card cannot.
///
/// # Errors
/// Those of the driver.
pub(super) fn encode_patches(
    card: &Card,
    (encoder, patches): (&Encoder, &PatchTensors),
    x: &Tensor<2>,
    images: usize,
    depth: usize,
) -> Result<Option<Tensor<2>>, CudaError> {
    let (weights, frozen) = weights(encoder, Some(patches));
    if images == 0 || x.is_tracked() || !frozen {
        return Ok(None);
    }
    let ([positions, width], values) = (patches.positions.dims(), floats(x));
    let copied = (config(encoder, Some(patches)), weights);
    let states = run(card, copied, images, positions, |driver, on_card, session| {
        let parts = values
            .chunks(AT_ONCE * values.len() / images)
            .map(|x| session.encode_patches(driver, on_card, x, depth));
        parts.collect::<Result<Vec<_>, _>>()
    })?;
    let shape = [images * positions, width];
    Ok(states.map(|states| from_floats(states.concat(), shape, &x.device())))
}

/// Calls `work` with the copy and memory for a batch.
fn run<T>(
    card: &Card,
    (config, weights): (Result<CardConfig, CudaError>, NamedTensors),
    batch: usize,
    length: usize,
    work: impl FnOnce(&mut dyn Driver, &CardEncoder, &EncoderSession) -> Result<T, CudaError>,
) -> Result<Option<T>, CudaError> {
    card.run(config, weights, |driver, on_card| {
        let plan = EncoderPlan { sequences: batch.min(AT_ONCE), length };
        let session = EncoderSession::open(driver, on_card, plan)?;
        let done = work(driver, on_card, &session);
        // Whatever failed, the memory is given back; of two errors the first says more.
        let closed = session.close(driver);
        let done = done?;
        closed.map(|()| done)
    })
}

/// What it takes of the card to run so many sequences.
pub(super) fn memory(card: &Card, sequences: usize, length: usize) -> ImageMemory {
    let plan = EncoderPlan { sequences: sequences.min(AT_ONCE), length };
    card.memory(|on_card| plan.bytes(on_card.config()))
}

/// The element type of an encoder's matrices on a card.
pub(super) fn storage_of(encoder: &Encoder) -> Storage {
    let first = encoder.layers.first();
    storage(first.map_or(DType::F32, |layer| layer.fc1.weight.dtype()))
}

fn config(encoder: &Encoder, patches: Option<&PatchTensors>) -> Result<CardConfig, CudaError> {
    let first = first_layer(&encoder.layers)?;
    let [intermediate, hidden] = first.fc1.weight.dims();
    let activation = gelu(first.activation)?;
    Ok(CardConfig {
        storage: storage_of(encoder),
        hidden,
        intermediate,
        layers: encoder.layers.len(),
        heads: first.heads,
        epsilon: first.layer_norm1.epsilon as f32,
        activation,
        fused_query_key_value: matches!(first.query_key_value, QueryKeyValue::Fused(_)),
        patches: patches.map(PatchTensors::config),
    })
}

/// All tensors of the copy, and whether nothing of the encoder learns or is adapted, which the card has no means for.
fn weights(encoder: &Encoder, patches: Option<&PatchTensors>) -> (NamedTensors, bool) {
    let (mut all, frozen) = NamedTensors::of(encoder, NAME);
    if let Some(patches) = patches {
        patches.put(&mut all);
    }
    let adapted = is_adapted(|visitor| encoder.clone().visit_linears_mut(NAME, visitor));
    (all, frozen && !adapted)
}
