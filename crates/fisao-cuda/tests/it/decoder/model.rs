//! Small random decoders, the same on both sides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use fisao_cuda::kernels::Heads;
use fisao_cuda::{
    AdapterTarget, AdapterWeights, Decoder, DecoderConfig, Driver, Storage, WeightSource,
    WeightTensor,
};
use fisao_models::attention::Mask;
use fisao_models::linear::LowRank;
use fisao_models::llama::{
    DecoderFamily, Llama, LlamaConfig, Pass, PositionScheme, Positions, RopeScaling,
};
use fisao_models::weights::{Init, RandomWeights, WeightError};

use crate::device::values;

pub(crate) const VOCABULARY: usize = 301;

/// A decoder on the CPU, and what it was made from.
pub(crate) struct Model {
    pub(crate) llama: Llama,
    weights: Kept,
    adapter: Vec<Path>,
}

/// The low-rank path of one linear layer.
struct Path {
    layer: usize,
    target: AdapterTarget,
    a: Vec<f32>,
    b: Vec<f32>,
}

const SCALE: f32 = 0.7;
/// Of the adapters; key and value have other ones than the rest.
const RANK: usize = 6;

/// Draws weights, none of them a constant, rounds matrices to a type and keeps them.
pub(crate) struct Kept {
    random: RandomWeights,
    storage: Storage,
    tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Kept {
    pub(crate) fn new(seed: u64, storage: Storage) -> Self {
        Self { random: RandomWeights::new(seed), storage, tensors: HashMap::new() }
    }
}

impl WeightSource for Kept {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<WeightTensor<'_>, String> {
        let (found, bytes) = self.tensors.get(name).ok_or("it is missing")?;
        if found != shape {
            return Err(format!("shape {found:?} in the place of {shape:?}"));
        }
        Ok(WeightTensor { storage: self.storage, bytes: Cow::Borrowed(bytes) })
    }
}

impl fisao_models::weights::WeightSource for Kept {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<TensorData, WeightError> {
        let init = match init {
            Init::Zeros | Init::Ones => Init::Normal { std: 0.5 },
            init => init,
        };
        let data = self.random.tensor(name, shape, init)?;
        let drawn: Vec<f32> = data.try_to_vec().expect("f32");
        let bytes = self.storage.narrowed(&drawn);
        let rounded = self.storage.widened(&bytes);
        self.tensors.insert(name.to_owned(), (shape.to_vec(), bytes));
        Ok(TensorData::new(rounded, shape.to_vec()))
    }
}

impl Model {
    /// Three layers with heads of `head_size` elements.
    pub(crate) fn new(
        family: DecoderFamily,
        storage: Storage,
        head_size: usize,
        adapted: bool,
    ) -> Self {
        let config = LlamaConfig {
            family,
            vocab_size: VOCABULARY,
            hidden_size: 48,
            intermediate_size: 70,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: head_size,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 100.0,
            rope_scaling: RopeScaling::Default,
            sliding_window: (family == DecoderFamily::Mistral).then_some(4),
            positions: PositionScheme::Sequential,
            tie_word_embeddings: matches!(family, DecoderFamily::Qwen2 | DecoderFamily::Qwen3),
        };
        let mut weights = Kept::new(3, storage);
        let mut llama =
            Llama::load(config, &mut weights, "model", &Device::flex()).expect("any weights");
        let adapter = if adapted { attach(&mut llama, 50) } else { Vec::new() };
        Self { llama, weights, adapter }
    }

    pub(crate) fn config(&self) -> DecoderConfig {
        let config = self.llama.config();
        let size = config.head_dim;
        let frequency = |pair: usize| config.rope_theta.powf(-2.0 * pair as f64 / size as f64);
        DecoderConfig {
            storage: self.weights.storage,
            vocabulary: config.vocab_size,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: Heads {
                heads: config.num_attention_heads,
                key_heads: config.num_key_value_heads,
                size,
            },
            epsilon: config.rms_norm_eps as f32,
            frequencies: (0..size / 2).map(frequency).collect(),
            position_axes: Vec::new(),
            sliding_window: config.sliding_window,
            query_key_value_bias: config.family == DecoderFamily::Qwen2,
            head_norms: config.family == DecoderFamily::Qwen3,
            deep_layers: 2,
            tied: config.tie_word_embeddings,
        }
    }

    /// The same decoder on a card.
    pub(crate) fn on(&mut self, driver: &mut dyn Driver) -> Decoder {
        let config = self.config();
        let mut decoder =
            Decoder::load(driver, config, &mut self.weights, "model").expect("weights");
        decoder.set_adapter(driver, &self.paths()).expect("an adapter");
        decoder
    }

    /// Draws another adapter of the same shapes.
    pub(crate) fn adapt_anew(&mut self, seed: u64) {
        self.adapter = attach(&mut self.llama, seed);
    }

    /// The adapter.
    pub(crate) fn paths(&self) -> Vec<AdapterWeights<'_>> {
        self.adapter.iter().map(Path::weights).collect()
    }

    /// Logits of each of `ids` at its position, `[ids, vocabulary]`.
    pub(crate) fn logits(&self, ids: &[u32], positions: Vec<usize>) -> Vec<Vec<f32>> {
        self.logits_with(ids, positions, &[])
    }

    /// The same with states, `[ids, hidden]`, added behind the first layers.
    pub(crate) fn logits_with(
        &self,
        ids: &[u32],
        positions: Vec<usize>,
        deep: &[&[f32]],
    ) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let ids: Tensor<1, Int> = Tensor::from_data(&ids[..], &device);
        let x = self.llama.embed(ids.clone());
        let positions: Positions = positions.into();
        let mask = Mask::Causal { first: Arc::new([]) };
        let shape = [ids.dims()[0], self.llama.config().hidden_size];
        let deep: Vec<Tensor<2>> = deep
            .iter()
            .map(|states| Tensor::from_data(TensorData::new(states.to_vec(), shape), &device))
            .collect();
        let pass = Pass { batch: 1, positions: &positions, mask: &mask, wanted: None, deep: &deep };
        let hidden = self.llama.forward(x, &pass, None);
        let logits: Vec<f32> = self.llama.logits(hidden).into_data().try_to_vec().expect("f32");
        logits.chunks_exact(VOCABULARY).map(<[f32]>::to_vec).collect()
    }
}

/// Scored tokens of one sequence, and what their loss is made of.
pub(crate) struct ScoredSequence {
    pub(crate) ids: Vec<u32>,
    /// Places whose states predict a token.
    pub(crate) places: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    pub(crate) by_log_probs: Vec<f32>,
    pub(crate) by_entropies: Vec<f32>,
    /// `[places, hidden]`
    pub(crate) by_states: Vec<f32>,
}

/// What autodiff makes of sequences.
#[derive(Default)]
pub(crate) struct Differentiated {
    pub(crate) log_probs: Vec<f32>,
    pub(crate) entropies: Vec<f32>,
    pub(crate) states: Vec<f32>,
    /// By name of the linear layer: of A and B.
    pub(crate) gradients: HashMap<(usize, AdapterTarget), [Vec<f32>; 2]>,
}

fn floats<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().inner().into_data().try_to_vec().expect("f32")
}

impl Model {
    /// The loss of the sequences, each alone and without padding, by autodiff.
    pub(crate) fn differentiated(
        &self,
        sequences: &[ScoredSequence],
        temperature: f32,
    ) -> Differentiated {
        let device = Device::flex();
        let mut llama = self.llama.clone();
        let mut leaves = Vec::new();
        llama.visit_linears_mut("model", &mut |name, linear| {
            let Some(adapter) = &mut linear.adapter else { return };
            adapter.a = adapter.a.clone().autodiff().require_grad();
            adapter.b = adapter.b.clone().autodiff().require_grad();
            let layer = name.split('.').find_map(|part| part.parse::<usize>().ok());
            let key = (layer.expect("a layer"), target(name).expect("a target"));
            leaves.push((key, [adapter.a.clone(), adapter.b.clone()]));
        });
        let mut all = Differentiated::default();
        let mut loss: Option<Tensor<1>> = None;
        for sequence in sequences {
            let ids: Vec<i64> = sequence.ids.iter().map(|&id| i64::from(id)).collect();
            let positions: Positions = (0..ids.len()).collect::<Vec<_>>().into();
            let x = llama.embed(Tensor::from_data(&ids[..], &device));
            let mask = Mask::Causal { first: Arc::new([]) };
            let pass =
                Pass { batch: 1, positions: &positions, mask: &mask, wanted: None, deep: &[] };
            let hidden = llama.forward(x, &pass, None);
            let indices = |all: &[usize]| -> Tensor<1, Int> {
                let all: Vec<i64> = all.iter().map(|&at| at as i64).collect();
                Tensor::from_data(&all[..], &device)
            };
            let states = hidden.select(0, indices(&sequence.places));
            let logits = llama.logits(states.clone()) / temperature;
            let log_probs = log_softmax(logits, 1);
            let entropies = -(log_probs.clone() * log_probs.clone().exp()).sum_dim(1);
            let targets: Vec<usize> = sequence.targets.iter().map(|&id| id as usize).collect();
            let chosen = log_probs.gather(1, indices(&targets).unsqueeze_dim(1));
            let count = targets.len();
            let factor = |values: &[f32], width: usize| -> Tensor<2> {
                Tensor::from_data(TensorData::new(values.to_vec(), [count, width]), &device)
            };
            let width = sequence.by_states.len() / count;
            let of = (chosen.clone() * factor(&sequence.by_log_probs, 1)).sum()
                + (entropies.clone() * factor(&sequence.by_entropies, 1)).sum()
                + (states.clone() * factor(&sequence.by_states, width)).sum();
            loss = Some(loss.map_or(of.clone(), |loss| loss + of));
            all.log_probs.extend(floats(&chosen));
            all.entropies.extend(floats(&entropies));
            all.states.extend(floats(&states));
        }
        let gradients = loss.expect("a sequence").backward();
        let of = |leaf: &Tensor<2>| {
            let found = leaf.grad(&gradients).expect("a gradient");
            found.into_data().try_to_vec().expect("f32")
        };
        all.gradients = leaves.iter().map(|(key, [a, b])| (*key, [of(a), of(b)])).collect();
        all
    }
}

impl Path {
    fn weights(&self) -> AdapterWeights<'_> {
        let Self { layer, target, a, b } = self;
        AdapterWeights { layer: *layer, target: *target, a, b, scale: SCALE }
    }
}

/// Adapts every linear layer but the key projection of the second layer, the second layer's key with another rank.
fn attach(llama: &mut Llama, seed: u64) -> Vec<Path> {
    let mut paths = Vec::new();
    llama.visit_linears_mut("model", &mut |name, linear| {
        let Some(target) = target(name) else { return };
        let layer = name.split('.').find_map(|part| part.parse().ok()).expect("a layer");
        if layer == 1 && target == AdapterTarget::Key {
            return;
        }
        let [inputs, outputs] = linear.size();
        let rank = if target == AdapterTarget::Value { 2 * RANK } else { RANK };
        let seed = paths.len() as u64 + seed;
        let draw = |seed, count| -> Vec<f32> {
            values(seed, count).into_iter().map(|x| 0.15 * x).collect()
        };
        let (a, b) = (draw(seed, rank * inputs), draw(seed + 99, outputs * rank));
        let tensor = |values: &[f32], shape: [usize; 2]| {
            Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
        };
        linear.adapter = Some(LowRank {
            a: tensor(&a, [rank, inputs]),
            b: tensor(&b, [outputs, rank]),
            scale: f64::from(SCALE),
        });
        paths.push(Path { layer, target, a, b });
    });
    // In no particular order.
    paths.reverse();
    paths
}

fn target(name: &str) -> Option<AdapterTarget> {
    let (_, part) = name.rsplit_once('.')?;
    Some(match part {
        "q_proj" => AdapterTarget::Query,
        "k_proj" => AdapterTarget::Key,
        "v_proj" => AdapterTarget::Value,
        "o_proj" => AdapterTarget::Output,
        "gate_proj" => AdapterTarget::Gate,
        "up_proj" => AdapterTarget::Up,
        "down_proj" => AdapterTarget::Down,
        _ => return None,
    })
}
