//! A decoder's copy on an NVIDIA card.
//!
//! The model's own tensors stay on the CPU. The card has a copy of them, which is made again when they are no longer those that it was
//! made of, and one adapter: that of the model which was last run.

use fisao_cuda::kernels::Heads;
use fisao_cuda::{
    AdapterTarget, AdapterWeights, CudaError, Decoder, DecoderConfig, Driver, Plan, Storage,
};
use fisao_kernels::held_tensor::HeldTensor;

use super::card_outlook::CardMemory;
use super::layer::DecoderLayer;
use super::{DecoderFamily, Llama, PositionScheme};
use crate::card_copy::{self, NamedTensors};
use crate::linear::{Linear, LowRank};
use crate::norm::RmsNorm;

/// Positions that go through the layers at a time when prompts are read.
pub(super) const PREFILL_POSITIONS: usize = 2048;

/// What the copy's tensors are named by.
const NAME: &str = "decoder";

/// A card with a copy of a decoder.
pub(super) type Card = card_copy::Card<CardState>;

/// What lies on the card.
pub(super) struct CardState {
    driver: Box<dyn Driver + Send>,
    /// Nothing where it could not be copied again.
    decoder: Option<Decoder>,
    /// What the decoder is a copy of.
    weights: NamedTensors,
    /// The adapter on the card.
    adapter: Vec<AdapterPath>,
    /// Sessions that are open, and those of them that go through the adapter.
    sessions: [usize; 2],
    /// The most memory that was taken, bytes.
    peak: usize,
    /// Batches that the CPU computed instead.
    left: usize,
}

/// The low-rank path of one linear layer.
#[derive(Debug, Clone)]
struct AdapterPath {
    layer: usize,
    target: AdapterTarget,
    a: HeldTensor,
    b: HeldTensor,
    scale: f32,
}

impl AdapterPath {
    fn is(&self, other: &Self) -> bool {
        (self.layer, self.target, self.scale.to_bits())
            == (other.layer, other.target, other.scale.to_bits())
            && self.a.is(&other.a)
            && self.b.is(&other.b)
    }
}

impl Card {
    /// Copies a decoder.
    pub(super) fn new(
        model: &Llama,
        mut driver: Box<dyn Driver + Send>,
    ) -> Result<Self, CudaError> {
        let weights = weights(model);
        let decoder = upload(&mut *driver, model, &weights)?;
        let name = driver.name();
        let (decoder, adapter) = (Some(decoder), Vec::new());
        let state =
            CardState { driver, decoder, weights, adapter, sessions: [0; 2], peak: 0, left: 0 };
        Ok(Self::of(name, state))
    }
}

impl CardState {
    /// Makes the copy that of this model, its adapter among it. Whether it is: a session that is open goes on with the weights and the
    /// adapter it was opened with, and a model with others has to wait.
    pub(super) fn prepare(&mut self, model: &Llama) -> Result<bool, CudaError> {
        let weights = weights(model);
        let [open, adapted] = self.sessions;
        let unchanged = self.decoder.is_some() && weights.are(&self.weights);
        if !unchanged {
            if open > 0 {
                return Ok(false);
            }
            // There may be no room for both.
            if let Some(before) = self.decoder.take() {
                before.unload(&mut *self.driver)?;
            }
            self.decoder = Some(upload(&mut *self.driver, model, &weights)?);
            (self.weights, self.adapter) = (weights, Vec::new());
        }
        let adapter = adapter(model);
        let same = adapter.len() == self.adapter.len()
            && adapter.iter().zip(&self.adapter).all(|(a, b)| a.is(b));
        if same || adapter.is_empty() {
            return Ok(true);
        }
        if adapted > 0 {
            return Ok(false);
        }
        let values: Vec<[Vec<f32>; 2]> =
            adapter.iter().map(|path| [&path.a, &path.b].map(floats)).collect();
        let paths = adapter.iter().zip(&values).map(|(path, [a, b])| AdapterWeights {
            layer: path.layer,
            target: path.target,
            a,
            b,
            scale: path.scale,
        });
        let paths: Vec<_> = paths.collect();
        let decoder = self.decoder.as_mut().expect("it was copied");
        // What is on the card is of no use where this fails half-way.
        self.adapter.clear();
        decoder.set_adapter(&mut *self.driver, &paths)?;
        self.adapter = adapter;
        Ok(true)
    }

    /// The driver and the decoder, going through the adapter or not.
    pub(super) fn run(&mut self, adapted: bool) -> (&mut dyn Driver, &Decoder) {
        let decoder = self.decoder.as_mut().expect("a decoder stays while sessions are open");
        decoder.set_adapter_enabled(adapted);
        (&mut *self.driver, decoder)
    }

    /// See [`Llama::rows_on_card`].
    pub(super) fn rows(&mut self, length: usize, most: usize, beside: usize) -> usize {
        let (Ok(memory), Some(decoder)) = (self.driver.memory(), &self.decoder) else { return 1 };
        let weights = Decoder::weight_bytes(decoder.config()) + beside;
        // The driver and its libraries take some as well.
        let room = (memory.total - memory.total / 16).saturating_sub(weights);
        let fits = |&rows: &usize| {
            let plan = Plan {
                prompts: rows,
                prompt_length: length,
                rows,
                new_tokens: 1,
                prefill_positions: PREFILL_POSITIONS,
            };
            plan.bytes(decoder) <= room
        };
        std::iter::successors(Some(most), |rows| Some(rows / 2).filter(|&rows| rows > 0))
            .find(fits)
            .unwrap_or(1)
    }

    /// The decoder's memory with so much more, and the card's.
    pub(super) fn memory(
        &self,
        more: impl FnOnce(&Decoder) -> usize,
    ) -> Result<Option<CardMemory>, CudaError> {
        let Some(decoder) = &self.decoder else { return Ok(None) };
        let needed = Decoder::weight_bytes(decoder.config()) + more(decoder);
        Ok(Some(CardMemory { needed, total: self.driver.memory()?.total }))
    }

    /// The most memory of the card that was taken when a batch was opened, by others as well, bytes.
    pub(super) fn peak(&self) -> usize {
        self.peak
    }

    /// Batches that the CPU computed instead.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Counts one of them.
    pub(super) fn leave(&mut self) {
        self.left += 1;
    }

    /// Counts a session that is opened.
    pub(super) fn opened(&mut self, adapted: bool) {
        if let Ok(memory) = self.driver.memory() {
            self.peak = self.peak.max(memory.total - memory.free);
        }
        self.sessions[0] += 1;
        self.sessions[1] += usize::from(adapted);
    }

    /// Counts one that is closed.
    pub(super) fn closed(&mut self, adapted: bool) {
        self.sessions[0] -= 1;
        self.sessions[1] -= usize::from(adapted);
    }
}

/// Whether a model's decoder is one that the card computes: an adapter on the linear layer to the vocabulary is not.
pub(super) fn is_supported(model: &Llama) -> bool {
    model.output_matrix().is_some()
}

/// Whether a model has an adapter.
pub(super) fn is_adapted(model: &Llama) -> bool {
    model.layers.iter().any(|layer| linears(layer).iter().any(|(_, of)| of.adapter.is_some()))
}

/// Whether any weight of a model trains that is not its adapter's.
pub(super) fn weights_train(model: &Llama) -> bool {
    let norm_trains = |norm: &RmsNorm| norm.weight.is_require_grad();
    model.embed_tokens.weight.is_require_grad()
        || norm_trains(&model.norm)
        || model.lm_head.as_ref().is_some_and(Linear::learns)
        || model.layers.iter().any(|layer| {
            linears(layer).iter().any(|(_, linear)| linear.learns())
                || [&layer.input_layernorm, &layer.post_attention_layernorm]
                    .into_iter()
                    .chain(layer.head_norms.iter().flatten())
                    .any(norm_trains)
        })
}

/// The adapter of a linear layer.
pub(super) fn adapter_of(model: &Llama, layer: usize, target: AdapterTarget) -> Option<&LowRank> {
    let all = linears(model.layers.get(layer)?);
    all.into_iter().find(|(of, _)| *of == target)?.1.adapter.as_ref()
}

fn upload(
    driver: &mut dyn Driver,
    model: &Llama,
    weights: &NamedTensors,
) -> Result<Decoder, CudaError> {
    Decoder::load(driver, config(model), &mut &*weights, NAME)
}

/// The element type of a decoder's matrices.
pub(super) fn storage(model: &Llama) -> Storage {
    card_copy::storage(model.embed_tokens.weight.dtype())
}

fn config(model: &Llama) -> DecoderConfig {
    let config = &model.config;
    let qwen3 = config.family == DecoderFamily::Qwen3;
    let axes = match config.positions {
        PositionScheme::Sequential => Vec::new(),
        PositionScheme::Multimodal { .. } => model.rotary.axes().to_vec(),
    };
    DecoderConfig {
        storage: storage(model),
        vocabulary: config.vocab_size,
        hidden: config.hidden_size,
        intermediate: config.intermediate_size,
        layers: config.num_hidden_layers,
        heads: Heads {
            heads: config.num_attention_heads,
            key_heads: config.num_key_value_heads,
            size: config.head_dim,
        },
        epsilon: config.rms_norm_eps as f32,
        frequencies: model.rotary.frequencies().to_vec(),
        position_axes: axes,
        sliding_window: config.sliding_window,
        query_key_value_bias: config.family == DecoderFamily::Qwen2,
        head_norms: qwen3,
        // Of the decoders here, Qwen3's only is given states behind its layers.
        deep_layers: if qwen3 { config.num_hidden_layers } else { 0 },
        tied: config.tie_word_embeddings,
    }
}

/// The linear layers of a layer that may have an adapter.
fn linears(layer: &DecoderLayer) -> [(AdapterTarget, &Linear); 7] {
    [
        (AdapterTarget::Query, &layer.q_proj),
        (AdapterTarget::Key, &layer.k_proj),
        (AdapterTarget::Value, &layer.v_proj),
        (AdapterTarget::Output, &layer.o_proj),
        (AdapterTarget::Gate, &layer.gate_proj),
        (AdapterTarget::Up, &layer.up_proj),
        (AdapterTarget::Down, &layer.down_proj),
    ]
}

/// All weights but the adapter's.
fn weights(model: &Llama) -> NamedTensors {
    let mut all = NamedTensors::default();
    all.put(format!("{NAME}.model.embed_tokens.weight"), &model.embed_tokens.weight);
    for (index, layer) in model.layers.iter().enumerate() {
        let name = |part: &str| format!("{NAME}.model.layers.{index}.{part}");
        for (target, linear) in linears(layer) {
            let part = part(target);
            all.put(name(&format!("{part}.weight")), &linear.weight);
            if let Some(bias) = &linear.bias {
                all.put(name(&format!("{part}.bias")), bias);
            }
        }
        all.put(name("input_layernorm.weight"), &layer.input_layernorm.weight);
        all.put(name("post_attention_layernorm.weight"), &layer.post_attention_layernorm.weight);
        if let Some([queries, keys]) = &layer.head_norms {
            all.put(name("self_attn.q_norm.weight"), &queries.weight);
            all.put(name("self_attn.k_norm.weight"), &keys.weight);
        }
    }
    all.put(format!("{NAME}.model.norm.weight"), &model.norm.weight);
    if let Some(head) = &model.lm_head {
        all.put(format!("{NAME}.lm_head.weight"), &head.weight);
    }
    all
}

fn part(target: AdapterTarget) -> &'static str {
    match target {
        AdapterTarget::Query => "self_attn.q_proj",
        AdapterTarget::Key => "self_attn.k_proj",
        AdapterTarget::Value => "self_attn.v_proj",
        AdapterTarget::Output => "self_attn.o_proj",
        AdapterTarget::Gate => "mlp.gate_proj",
        AdapterTarget::Up => "mlp.up_proj",
        AdapterTarget::Down => "mlp.down_proj",
    }
}

fn adapter(model: &Llama) -> Vec<AdapterPath> {
    let layers = model.layers.iter().enumerate();
    let paths = layers.flat_map(|(layer, of)| {
        linears(of).into_iter().filter_map(move |(target, linear)| {
            let adapter = linear.adapter.as_ref()?;
            let (a, b) = (HeldTensor::new(&adapter.a), HeldTensor::new(&adapter.b));
            Some(AdapterPath { layer, target, a, b, scale: adapter.scale as f32 })
        })
    });
    paths.collect()
}

fn floats(tensor: &HeldTensor) -> Vec<f32> {
    card_copy::storage(tensor.dtype()).widened(&tensor.bytes())
}
