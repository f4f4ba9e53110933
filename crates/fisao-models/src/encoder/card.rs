//! An encoder's copy on an NVIDIA card.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use fisao_cuda::{
    CudaError, Driver, Encoder as CardEncoder, EncoderConfig as CardConfig, EncoderPlan,
    EncoderSession, PatchConfig, Storage, WeightSource,
};
use fisao_kernels::attention::Mask;

use super::{Encoder, QueryKeyValue};
use crate::card_copy::{NamedTensors, storage};
use crate::card_part::{OnCard, PartCard, SharedDriver, gelu};
use crate::parameters::{floats, from_floats};

/// What the copy's tensors are named by.
const NAME: &str = "encoder";

/// Images that are on the card at a time.
const AT_ONCE: usize = 64;

/// A card with a copy of an encoder.
pub(super) type Card = PartCard<CardEncoder>;

impl OnCard for CardEncoder {
    type Config = CardConfig;

    fn load(
        driver: &mut dyn Driver,
        config: CardConfig,
        source: &mut dyn WeightSource,
    ) -> Result<Self, CudaError> {
        Self::load(driver, config, source, NAME)
    }

    fn unload(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        Self::unload(self, driver)
    }
}

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
    Card::new(driver, config(encoder, patches)?, weights(encoder, patches))
}

/// Whether two encoders have the same sizes and tensors, so that a copy of one is a copy of the other.
pub(super) fn are_same(
    (a, patches): (&Encoder, Option<&PatchTensors>),
    (b, other_patches): (&Encoder, Option<&PatchTensors>),
) -> bool {
    let sizes = [config(a, patches), config(b, other_patches)];
    let [Ok(one), Ok(other)] = sizes else { return false };
    let frozen = is_frozen(a) && is_frozen(b);
    frozen && one == other && weights(a, patches).are(&weights(b, other_patches))
}

/// Runs some of the layers. Nothing where the card cannot: that is logged.
///
/// # Panics
/// The driver fails.
pub(super) fn forward(
    card: &Card,
    (encoder, patches): (&Encoder, Option<&PatchTensors>),
    x: &Tensor<2>,
    batch: usize,
    mask: &Mask,
    layers: Range<usize>,
) -> Option<Tensor<2>> {
    let causal = match mask {
        Mask::Full => false,
        Mask::Causal { first } if first.is_empty() => true,
        _ => return None,
    };
    if batch == 0 || x.is_tracked() || !is_frozen(encoder) {
        return None;
    }
    let [rows, width] = x.dims();
    let (length, values) = (rows / batch, floats(x));
    let states = run(card, (encoder, patches), batch, length, |driver, on_card, session| {
        let parts = values.chunks(AT_ONCE * length * width).map(|x| {
            let sizes = [x.len() / width / length, length];
            session.forward(driver, on_card, x, sizes, causal, layers.clone())
        });
        parts.collect::<Result<Vec<_>, _>>()
    })?;
    Some(from_floats(states.concat(), [rows, width], &x.device()))
}

/// Embeds patches and runs the first layers: `[images · patches, inputs]` → `[images · positions, width]`. Nothing where the card cannot.
///
/// # Panics
/// The driver fails.
pub(super) fn encode_patches(
    card: &Card,
    (encoder, patches): (&Encoder, &PatchTensors),
    x: &Tensor<2>,
    images: usize,
    depth: usize,
) -> Option<Tensor<2>> {
    if images == 0 || x.is_tracked() || !is_frozen(encoder) {
        return None;
    }
    let ([positions, width], values) = (patches.positions.dims(), floats(x));
    let states =
        run(card, (encoder, Some(patches)), images, positions, |driver, on_card, session| {
            let parts = values
                .chunks(AT_ONCE * values.len() / images)
                .map(|x| session.encode_patches(driver, on_card, x, depth));
            parts.collect::<Result<Vec<_>, _>>()
        })?;
    Some(from_floats(states.concat(), [images * positions, width], &x.device()))
}

/// Calls `work` with the copy and memory for a batch.
fn run<T>(
    card: &Card,
    (encoder, patches): (&Encoder, Option<&PatchTensors>),
    batch: usize,
    length: usize,
    work: impl FnOnce(&mut dyn Driver, &CardEncoder, &EncoderSession) -> Result<T, CudaError>,
) -> Option<T> {
    card.run(config(encoder, patches), weights(encoder, patches), |driver, on_card| {
        let plan = EncoderPlan { sequences: batch.min(AT_ONCE), length };
        let session = EncoderSession::open(driver, on_card, plan)?;
        let done = work(driver, on_card, &session);
        // Whatever failed, the memory is given back.
        session.close(driver)?;
        done
    })
}

/// Whether nothing of an encoder learns or is adapted, which the card has no means for.
fn is_frozen(encoder: &Encoder) -> bool {
    encoder.layers.iter().all(|layer| {
        layer.linears().iter().all(|(_, linear)| linear.adapter.is_none() && !linear.learns())
            && [&layer.layer_norm1, &layer.layer_norm2]
                .iter()
                .all(|norm| !norm.weight.is_require_grad() && !norm.bias.is_require_grad())
    })
}

/// The element type of an encoder's matrices on a card.
pub(super) fn storage_of(encoder: &Encoder) -> Storage {
    let first = encoder.layers.first();
    storage(first.map_or(DType::F32, |layer| layer.fc1.weight.dtype()))
}

fn config(encoder: &Encoder, patches: Option<&PatchTensors>) -> Result<CardConfig, CudaError> {
    let first = encoder.layers.first().ok_or_else(|| CudaError::Unsupported {
        what: "the number of layers",
        found: "0".to_owned(),
        supported: "1 and more",
    })?;
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

fn weights(encoder: &Encoder, patches: Option<&PatchTensors>) -> NamedTensors {
    let mut all = NamedTensors::default();
    if let Some(patches) = patches {
        patches.put(&mut all);
    }
    for (index, layer) in encoder.layers.iter().enumerate() {
        let name = |part: &str, kind: &str| format!("{NAME}.layers.{index}.{part}.{kind}");
        for (part, linear) in layer.linears() {
            all.put(name(part, "weight"), &linear.weight);
            if let Some(bias) = &linear.bias {
                all.put(name(part, "bias"), bias);
            }
        }
        for (part, norm) in
            [("layer_norm1", &layer.layer_norm1), ("layer_norm2", &layer.layer_norm2)]
        {
            all.put(name(part, "weight"), &norm.weight);
            all.put(name(part, "bias"), &norm.bias);
        }
    }
    all
}
