//! The Llama decoder: RMS norm, rotary positions, grouped-query attention, SwiGLU.
//!
//! Paper: Touvron et al. 2023, arXiv 2302.13971. Reference: transformers' `LlamaModel`; tensor names
//! mirror it. Rotary halves follow the "rotate half" convention of Hugging Face checkpoints.

use burn::tensor::{Device, Int, Tensor, activation};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::attention::{attend, merge_heads, split_heads};
use crate::linear::{Embedding, Linear};
use crate::lora::{LoraConfig, LowRank};
use crate::norm::RmsNorm;
use crate::parameters::{ParameterMut, Parameters, from_floats};
use crate::weights::{WeightError, WeightSource};

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Model width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence, tokens.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
}

/// Keys and values of the positions seen so far, one pair per layer.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    filled: usize,
}

impl KvCache {
    /// Room for `capacity` positions of `batch` sequences.
    pub fn new(config: &LlamaConfig, batch: usize, capacity: usize, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let layers = (0..config.num_hidden_layers)
            .map(|_| (Tensor::zeros(shape, device), Tensor::zeros(shape, device)))
            .collect();
        Self { layers, filled: 0 }
    }

    /// How many positions are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Keeps the sequences at `rows`, in that order.
    #[must_use]
    pub fn select(self, rows: &Tensor<1, Int>) -> Self {
        let layers = self
            .layers
            .into_iter()
            .map(|(k, v)| (k.select(0, rows.clone()), v.select(0, rows.clone())))
            .collect();
        Self { layers, filled: self.filled }
    }

    /// Appends to one layer and returns everything it holds.
    fn extend(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = k.dims();
        let end = self.filled + new;
        let slot = [0..batch, 0..heads, self.filled..end, 0..width];
        let store = |old: &mut Tensor<4>, fresh: Tensor<4>| {
            old.inplace(|tensor| tensor.slice_assign(slot.clone(), fresh));
            old.clone().slice([0..batch, 0..heads, 0..end])
        };
        let (keys, values) = &mut self.layers[layer];
        (store(keys, k), store(values, v))
    }
}

/// Rotary angles of every position: cos and sin, `[positions, head_dim / 2]`.
#[derive(Debug, Clone)]
struct Rotary {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rotary {
    fn new(config: &LlamaConfig, device: &Device) -> Self {
        let half = config.head_dim / 2;
        let positions = config.max_position_embeddings;
        let angles: Vec<f64> = (0..positions)
            .flat_map(|position| {
                (0..half).map(move |index| {
                    let exponent = 2.0 * index as f64 / config.head_dim as f64;
                    position as f64 / config.rope_theta.powf(exponent)
                })
            })
            .collect();
        let table = |f: fn(f64) -> f64| {
            from_floats(angles.iter().map(|&a| f(a) as f32).collect(), [positions, half], device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Angles at the given positions: `[batch · length]` → two of `[batch, 1, length, half]`.
    fn at(&self, positions: &Tensor<1, Int>, batch: usize) -> (Tensor<4>, Tensor<4>) {
        let half = self.cos.dims()[1];
        let length = positions.dims()[0] / batch;
        let pick = |table: &Tensor<2>| {
            table.clone().select(0, positions.clone()).reshape([batch, 1, length, half])
        };
        (pick(&self.cos), pick(&self.sin))
    }
}

/// `(x₁, x₂) ↦ (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` on the two halves of the last dimension.
fn rotate(x: Tensor<4>, (cos, sin): &(Tensor<4>, Tensor<4>)) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    let low = first.clone() * cos.clone() - second.clone() * sin.clone();
    let high = second * cos.clone() + first * sin.clone();
    Tensor::cat(vec![low, high], 3)
}

#[derive(Debug, Clone)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: usize,
    key_value_heads: usize,
}

impl DecoderLayer {
    fn load(
        config: &LlamaConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let inner = config.intermediate_size;
        let mut linear = |part: &str, size| {
            Linear::load(weights, &format!("{name}.{part}"), size, false, device)
        };
        let q_proj = linear("self_attn.q_proj", [width, queries])?;
        let k_proj = linear("self_attn.k_proj", [width, keys])?;
        let v_proj = linear("self_attn.v_proj", [width, keys])?;
        let o_proj = linear("self_attn.o_proj", [queries, width])?;
        let gate_proj = linear("mlp.gate_proj", [width, inner])?;
        let up_proj = linear("mlp.up_proj", [width, inner])?;
        let down_proj = linear("mlp.down_proj", [inner, width])?;
        let mut norm = |part: &str| {
            RmsNorm::load(weights, &format!("{name}.{part}"), width, config.rms_norm_eps, device)
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
        })
    }

    /// The adaptable maps with their names inside the layer.
    fn maps_mut(&mut self) -> [(&'static str, &mut Linear); 7] {
        [
            ("self_attn.q_proj", &mut self.q_proj),
            ("self_attn.k_proj", &mut self.k_proj),
            ("self_attn.v_proj", &mut self.v_proj),
            ("self_attn.o_proj", &mut self.o_proj),
            ("mlp.gate_proj", &mut self.gate_proj),
            ("mlp.up_proj", &mut self.up_proj),
            ("mlp.down_proj", &mut self.down_proj),
        ]
    }

    /// `x`: `[batch · length, width]`.
    fn forward(
        &self,
        x: Tensor<2>,
        context: &Context<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let batch = context.batch;
        let length = x.dims()[0] / batch;
        let normed = self.input_layernorm.forward(x.clone());
        let q = split_heads(self.q_proj.forward(normed.clone()), batch, length, self.heads);
        let keys = self.k_proj.forward(normed.clone());
        let k = split_heads(keys, batch, length, self.key_value_heads);
        let v = split_heads(self.v_proj.forward(normed), batch, length, self.key_value_heads);
        let q = rotate(q, &context.angles);
        let k = rotate(k, &context.angles);
        let (k, v) = match cache {
            Some((cache, layer)) => cache.extend(layer, k, v),
            None => (k, v),
        };
        let group = self.heads / self.key_value_heads;
        let mixed =
            attend(q, repeat_heads(k, group), repeat_heads(v, group), Some(context.bias.clone()));
        let x = x + self.o_proj.forward(merge_heads(mixed));
        let normed = self.post_attention_layernorm.forward(x.clone());
        let gate = self.gate_proj.forward(normed.clone());
        let gate = gate.clone() * activation::sigmoid(gate);
        x + self.down_proj.forward(gate * self.up_proj.forward(normed))
    }
}

/// Repeats each key/value head for its group of query heads: `[b, h, t, d]` → `[b, h · group, t, d]`.
fn repeat_heads(x: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return x;
    }
    let [batch, heads, length, width] = x.dims();
    let wide = x.unsqueeze_dim::<5>(2).repeat_dim(2, group);
    wide.reshape([batch, heads * group, length, width])
}

impl Parameters for DecoderLayer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (name, map) in self.maps_mut() {
            map.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.input_layernorm.visit_mut(&format!("{prefix}.input_layernorm"), visitor);
        self.post_attention_layernorm
            .visit_mut(&format!("{prefix}.post_attention_layernorm"), visitor);
    }
}

/// What all layers of one pass share.
struct Context<'a> {
    batch: usize,
    angles: (Tensor<4>, Tensor<4>),
    bias: &'a Tensor<4>,
}

/// The decoder with its embedding table and output matrix.
#[derive(Debug, Clone)]
pub struct Llama {
    config: LlamaConfig,
    embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// `None` when tied to the embedding table.
    lm_head: Option<Linear>,
    rotary: Rotary,
}

impl Llama {
    /// Loads `{name}.model.*` and `{name}.lm_head.weight`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        config: LlamaConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let table = [config.vocab_size, config.hidden_size];
        let embed_tokens =
            Embedding::load(weights, &format!("{name}.model.embed_tokens"), table, device)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                DecoderLayer::load(
                    &config,
                    weights,
                    &format!("{name}.model.layers.{index}"),
                    device,
                )
            })
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(
            weights,
            &format!("{name}.model.norm"),
            config.hidden_size,
            config.rms_norm_eps,
            device,
        )?;
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            let size = [config.hidden_size, config.vocab_size];
            Some(Linear::load(weights, &format!("{name}.lm_head"), size, false, device)?)
        };
        let rotary = Rotary::new(&config, device);
        Ok(Self { config, embed_tokens, layers, norm, lm_head, rotary })
    }

    /// Sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the decoder's weights live.
    pub fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    /// Token embeddings: `[n]` → `[n, hidden]`.
    pub fn embed(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        self.embed_tokens.forward(ids)
    }

    /// Final hidden states, normed, of a batch of equally long sequences.
    ///
    /// With a cache, `x` continues the cached positions and its keys and values are appended.
    ///
    /// # Shapes
    /// * `x`: `[batch · length, hidden]`, `positions`: `[batch · length]`
    /// * `bias`: `[batch or 1, 1, length, keys]`, keys = cached + length
    /// * result: `[batch · length, hidden]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        positions: &Tensor<1, Int>,
        bias: &Tensor<4>,
        batch: usize,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        let length = x.dims()[0] / batch;
        let context = Context { batch, angles: self.rotary.at(positions, batch), bias };
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &context, cache.as_deref_mut().map(|cache| (cache, index)));
        }
        if let Some(cache) = cache {
            cache.filled += length;
        }
        self.norm.forward(x)
    }

    /// Unnormalised log-probabilities of the next token: `[rows, hidden]` → `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => hidden.matmul(self.embed_tokens.weight.clone().transpose()),
        }
    }

    /// Attaches fresh adapters to the maps named in `config`; returns how many matrices that adds.
    pub(crate) fn attach(&mut self, config: &LoraConfig, rng: &mut ChaCha8Rng) -> usize {
        let device = self.device().inner();
        let mut count = 0;
        for layer in &mut self.layers {
            for (name, map) in layer.maps_mut() {
                let short = name.rsplit('.').next().unwrap_or(name);
                if config.target_modules.iter().any(|target| target == short) {
                    map.adapter = Some(LowRank::new(config, map.size(), rng, &device));
                    count += 2;
                }
            }
        }
        count
    }

    /// Removes all adapters.
    pub(crate) fn detach(&mut self) {
        for layer in &mut self.layers {
            for (_, map) in layer.maps_mut() {
                map.adapter = None;
            }
        }
    }

    /// Adds every adapter's product to its frozen weight, then removes the adapters.
    pub(crate) fn merge(&mut self) {
        for layer in &mut self.layers {
            for (_, map) in layer.maps_mut() {
                if let Some(adapter) = map.adapter.take() {
                    let product = adapter.b.inner().matmul(adapter.a.inner()) * adapter.scale;
                    map.weight = map.weight.clone().inner() + product;
                }
            }
        }
    }

    pub(crate) fn visit_lora_mut(
        &mut self,
        prefix: &str,
        visitor: &mut dyn FnMut(&str, ParameterMut<'_>),
    ) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (name, map) in layer.maps_mut() {
                if let Some(adapter) = &mut map.adapter {
                    adapter.visit_mut(&format!("{prefix}.model.layers.{index}.{name}"), visitor);
                }
            }
        }
    }
}

impl Parameters for Llama {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.embed_tokens.visit_mut(&format!("{prefix}.model.embed_tokens"), visitor);
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_mut(&format!("{prefix}.model.layers.{index}"), visitor);
        }
        self.norm.visit_mut(&format!("{prefix}.model.norm"), visitor);
        if let Some(head) = &mut self.lm_head {
            head.visit_mut(&format!("{prefix}.lm_head"), visitor);
        }
    }
}
