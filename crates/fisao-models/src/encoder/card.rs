//! An encoder's copy on an NVIDIA card.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use fisao_cuda::kernels::Gelu;
use fisao_cuda::{
    CudaError, Driver, Encoder as CardEncoder, EncoderConfig as CardConfig, EncoderPlan,
    EncoderSession, Storage,
};
use fisao_kernels::attention::Mask;

use super::{Encoder, QueryKeyValue};
use crate::activation::Activation;
use crate::card_copy::{self, NamedTensors, storage};
use crate::parameters::{floats, from_floats};

/// What the copy's tensors are named by.
const NAME: &str = "encoder";

/// Images that are on the card at a time.
const AT_ONCE: usize = 64;

/// A card with a copy of an encoder.
pub(super) type Card = card_copy::Card<State>;

/// What lies on the card.
pub(super) struct State {
    driver: Box<dyn Driver + Send>,
    /// Nothing where it could not be copied again.
    encoder: Option<CardEncoder>,
    /// What the encoder is a copy of.
    weights: NamedTensors,
}

impl Card {
    /// Copies an encoder.
    pub(super) fn new(
        encoder: &Encoder,
        mut driver: Box<dyn Driver + Send>,
    ) -> Result<Self, CudaError> {
        let weights = weights(encoder);
        let name = driver.name();
        let copy = CardEncoder::load(&mut *driver, config(encoder)?, &mut &weights, NAME)?;
        Ok(Self::of(name, State { driver, encoder: Some(copy), weights }))
    }

    /// Runs some of the layers. Nothing where the card cannot: that is logged.
    ///
    /// # Panics
    /// The driver fails.
    pub(super) fn forward(
        &self,
        encoder: &Encoder,
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
        match self.lock().forward(encoder, &floats(x), batch, causal, layers) {
            Ok(states) => Some(from_floats(states, x.dims(), &x.device())),
            Err(error @ CudaError::Memory { .. }) => {
                tracing::warn!(%error, "the CPU encodes these images");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl State {
    fn forward(
        &mut self,
        encoder: &Encoder,
        x: &[f32],
        batch: usize,
        causal: bool,
        layers: Range<usize>,
    ) -> Result<Vec<f32>, CudaError> {
        let driver = &mut *self.driver;
        let weights = weights(encoder);
        if self.encoder.is_none() || !weights.are(&self.weights) {
            // There may be no room for both.
            if let Some(before) = self.encoder.take() {
                before.unload(driver)?;
            }
            let copy = CardEncoder::load(driver, config(encoder)?, &mut &weights, NAME)?;
            (self.encoder, self.weights) = (Some(copy), weights);
        }
        let on_card = self.encoder.as_ref().expect("it was copied");
        let length = x.len() / batch / on_card.config().hidden;
        let plan = EncoderPlan { sequences: batch.min(AT_ONCE), length };
        let session = EncoderSession::open(driver, on_card, plan)?;
        let parts = x.chunks(AT_ONCE * x.len() / batch).map(|x| {
            let sizes = [x.len() / on_card.config().hidden / length, length];
            session.forward(driver, on_card, x, sizes, causal, layers.clone())
        });
        let states = parts.collect::<Result<Vec<_>, _>>();
        // Whatever failed, the memory is given back.
        session.close(driver)?;
        Ok(states?.concat())
    }
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

fn config(encoder: &Encoder) -> Result<CardConfig, CudaError> {
    let unsupported = |what, found: &str, supported| CudaError::Unsupported {
        what,
        found: found.to_owned(),
        supported,
    };
    let first = encoder.layers.first();
    let first = first.ok_or_else(|| unsupported("the number of layers", "0", "1 and more"))?;
    let [intermediate, hidden] = first.fc1.weight.dims();
    let activation = match first.activation {
        Activation::QuickGelu => Gelu::Quick,
        Activation::Gelu => Gelu::Erf,
        Activation::GeluTanh => Gelu::Tanh,
        Activation::Silu => {
            return Err(unsupported("an encoder's activation", "SiLU", "forms of GELU"));
        }
    };
    Ok(CardConfig {
        storage: storage_of(encoder),
        hidden,
        intermediate,
        layers: encoder.layers.len(),
        heads: first.heads,
        epsilon: first.layer_norm1.epsilon as f32,
        activation,
        fused_query_key_value: matches!(first.query_key_value, QueryKeyValue::Fused(_)),
    })
}

fn weights(encoder: &Encoder) -> NamedTensors {
    let mut all = NamedTensors::default();
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
