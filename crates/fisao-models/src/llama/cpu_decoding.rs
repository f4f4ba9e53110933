//! A step of decoding on the CPU in memory that is kept: keys, values and everything a step computes have their places from the
//! beginning, and steps allocate nothing. To the bit what the same step on tensors gives.

use std::ops::Range;
use std::sync::Arc;

use fisao_kernels::int8::Int8Matrix;
use fisao_kernels::layer_weights::{CachedHeads, EmbeddingWeights, LinearWeights, NormWeights};
use fisao_kernels::rotary::{self, Angles};
use fisao_kernels::view::View;
use fisao_kernels::{accumulate, attention, swiglu};

use super::decoding_session::PrefillState;
use super::layer::{DecoderLayer, LINEARS};
use super::{Llama, LlamaConfig};
use crate::attention::Mask;
use crate::norm::RmsNorm;

/// Several sequences behind their prompts, a decoder's weights, and room for their steps.
pub(crate) struct CpuDecoding {
    table: EmbeddingWeights,
    layers: Vec<Layer>,
    norm: NormWeights,
    head: LinearWeights,
    sizes: Sizes,
    /// Rotary angles at every position there can be.
    angles: Angles,
    /// Positions of the prompts, padding counted.
    prompt: usize,
    /// Positions of each sequence's own that are filled.
    filled: Vec<usize>,
    /// The prompt of each sequence.
    of: Vec<usize>,
    /// Padding before each sequence's prompt.
    padding: Vec<usize>,
    /// What each sequence sees in a step, prompt and own positions together; room for as many as there are at the beginning.
    seen: Arc<[Range<usize>]>,
    /// See [`LlamaConfig::sliding_window`].
    window: Option<usize>,
    /// How far each sequence's positions are behind its places in the cache.
    lag: Vec<usize>,
    buffers: StepBuffers,
}

/// How queries and keys lie.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    key_heads: usize,
    /// Of a head.
    width: usize,
    /// Positions there is room for behind a prompt.
    positions: usize,
}

/// A layer's weights, what its attention sees of the prompts, and the keys and values of the sequences' own,
/// `[sequences, key heads, positions, width]`.
struct Layer {
    input_layernorm: NormWeights,
    queries_keys_values: [LinearWeights; 3],
    head_norms: Option<[NormWeights; 2]>,
    o_proj: LinearWeights,
    post_attention_layernorm: NormWeights,
    gate_and_up: [LinearWeights; 2],
    down_proj: LinearWeights,
    of_prompts: [CachedHeads; 2],
    own: [Vec<f32>; 2],
}

/// Places for what a step computes, for as many rows as there are at the beginning.
struct StepBuffers {
    positions: Vec<usize>,
    x: Vec<f32>,
    normed: Vec<f32>,
    queries_keys_values: [Vec<f32>; 3],
    mixed: Vec<f32>,
    gate_and_up: [Vec<f32>; 2],
    added: Vec<f32>,
    logits: Vec<f32>,
}

impl Sizes {
    fn new(config: &LlamaConfig, positions: usize) -> Self {
        Self {
            heads: config.num_attention_heads,
            key_heads: config.num_key_value_heads,
            width: config.head_dim,
            positions,
        }
    }

    /// Numbers of one sequence's keys.
    fn keys(&self) -> usize {
        self.key_heads * self.positions * self.width
    }

    /// Keys or values of sequences' own as attention reads them.
    fn view<'a>(&self, own: &'a [f32], sequences: usize, filled: usize) -> View<'a, 4> {
        View {
            data: own,
            shape: [sequences, self.key_heads, filled, self.width],
            strides: [self.keys(), self.positions * self.width, self.width, 1],
        }
    }

    /// Rows of queries as attention reads them.
    fn queries<'a>(&self, q: &'a [f32], sequences: usize) -> View<'a, 4> {
        let row = self.heads * self.width;
        View {
            data: q,
            shape: [sequences, self.heads, 1, self.width],
            strides: [row, self.width, row, 1],
        }
    }
}

impl StepBuffers {
    fn new(config: &LlamaConfig, rows: usize) -> Self {
        let buffers = |width: usize| vec![0.0; rows * width];
        let hidden = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        Self {
            positions: vec![0; rows],
            x: buffers(hidden),
            normed: buffers(hidden),
            queries_keys_values: [queries, keys, keys].map(buffers),
            mixed: buffers(queries),
            gate_and_up: [config.intermediate_size; 2].map(buffers),
            added: buffers(hidden),
            logits: buffers(config.vocab_size),
        }
    }

    /// Gives up the places of the last row.
    fn pop(&mut self) {
        let rows = self.positions.len();
        self.positions.pop();
        let Self { x, normed, queries_keys_values, mixed, gate_and_up, added, logits, .. } = self;
        let single = [x, normed, mixed, added, logits].into_iter();
        for place in single.chain(queries_keys_values).chain(gate_and_up) {
            place.truncate(place.len() / rows * (rows - 1));
        }
    }
}

impl Layer {
    fn new(
        layer: &DecoderLayer,
        rounded: Option<&[Arc<Int8Matrix>; LINEARS]>,
        of_prompts: [CachedHeads; 2],
        numbers: usize,
    ) -> Self {
        let [q, k, v, o_proj, gate, up, down_proj] = layer.kernel_weights(rounded);
        Self {
            input_layernorm: layer.input_layernorm.kernel_weights(),
            queries_keys_values: [q, k, v],
            head_norms: layer
                .head_norms
                .as_ref()
                .map(|norms| norms.each_ref().map(RmsNorm::kernel_weights)),
            o_proj,
            post_attention_layernorm: layer.post_attention_layernorm.kernel_weights(),
            gate_and_up: [gate, up],
            down_proj,
            of_prompts,
            own: [numbers; 2].map(|numbers| vec![0.0; numbers]),
        }
    }

    /// Appends rows of keys and of values, `[sequences, key heads · width]`, behind those that are filled.
    fn append(&mut self, new: [&[f32]; 2], sizes: Sizes, filled: &[usize]) {
        for (own, new) in self.own.iter_mut().zip(new) {
            let places = own.chunks_exact_mut(sizes.positions * sizes.width);
            let filled = filled.iter().flat_map(|&of| std::iter::repeat_n(of, sizes.key_heads));
            for ((place, new), filled) in places.zip(new.chunks_exact(sizes.width)).zip(filled) {
                place[filled * sizes.width..][..sizes.width].copy_from_slice(new);
            }
        }
    }
}

impl CpuDecoding {
    pub(super) fn new(model: &Llama, prefill: PrefillState) -> Self {
        let PrefillState { cache, of, padding, lag, more } = prefill;
        let sizes = Sizes::new(model.config(), more);
        let prompt = cache.filled();
        let numbers = of.len() * sizes.keys();
        let rounded = model.in_int8();
        let layers =
            model.layers.iter().zip(cache.seen()).enumerate().map(|(at, (layer, (k, v)))| {
                let rounded = rounded.map(|rounded| &rounded.layers[at]);
                Layer::new(layer, rounded, [CachedHeads::new(&k), CachedHeads::new(&v)], numbers)
            });
        Self {
            table: model.embed_tokens.kernel_weights(),
            layers: layers.collect(),
            norm: model.norm.kernel_weights(),
            head: model.head_weights(),
            sizes,
            angles: model.rotary.angles(0..prompt + more),
            prompt,
            filled: vec![0; of.len()],
            seen: vec![0..0; of.len()].into(),
            buffers: StepBuffers::new(model.config(), of.len()),
            of,
            padding,
            window: model.config().sliding_window,
            lag,
        }
    }

    /// See [`DecodingSession::step`](super::decoding_session::DecodingSession::step).
    pub(super) fn step(&mut self, tokens: &[u32]) -> &[f32] {
        let Self { sizes, buffers, filled, .. } = self;
        assert_eq!(tokens.len(), self.of.len(), "one token per sequence");
        let longest = filled.iter().copied().max().unwrap_or(0);
        assert!(longest < sizes.positions, "the KV cache is full");
        let seen = Arc::make_mut(&mut self.seen);
        for (row, &filled) in filled.iter().enumerate() {
            let at = self.prompt + filled;
            buffers.positions[row] = at - self.lag[row];
            let first = self.window.map_or(0, |window| (at + 1).saturating_sub(window));
            seen[row] = self.padding[row].max(first)..at + 1;
        }
        let mask = Mask::PerRow { seen: Arc::clone(&self.seen) };
        self.table.fill(&mut buffers.x, tokens);
        for layer in &mut self.layers {
            layer.input_layernorm.fill(&mut buffers.normed, &buffers.x);
            for (out, linear) in
                buffers.queries_keys_values.iter_mut().zip(&layer.queries_keys_values)
            {
                linear.fill(out, &buffers.normed);
            }
            let [q, k, v] = &mut buffers.queries_keys_values;
            for (norm, x) in layer.head_norms.iter().flatten().zip([&mut *q, &mut *k]) {
                // There is room for as many keys as queries where attention writes later.
                let normed = &mut buffers.mixed[..x.len()];
                norm.fill(normed, x);
                x.copy_from_slice(normed);
            }
            for (x, heads) in [(&mut *q, sizes.heads), (&mut *k, sizes.key_heads)] {
                rotary::apply_rotary_in_place(
                    x,
                    heads * sizes.width,
                    &self.angles,
                    &buffers.positions,
                );
            }
            layer.append([k, v], *sizes, filled);
            let own = layer.own.each_ref().map(|own| sizes.view(own, tokens.len(), longest + 1));
            let [k, v] = layer.of_prompts.each_ref().map(CachedHeads::view);
            let before = attention::Prompts { k, v, of: &self.of };
            let q = sizes.queries(q, tokens.len());
            attention::fill(&mut buffers.mixed, q, Some(before), own, &mask);
            layer.o_proj.fill(&mut buffers.added, &buffers.mixed);
            accumulate(&mut buffers.x, &buffers.added);
            layer.post_attention_layernorm.fill(&mut buffers.normed, &buffers.x);
            for (out, linear) in buffers.gate_and_up.iter_mut().zip(&layer.gate_and_up) {
                linear.fill(out, &buffers.normed);
            }
            let [gate, up] = &mut buffers.gate_and_up;
            swiglu::apply(gate, up);
            layer.down_proj.fill(&mut buffers.added, gate);
            accumulate(&mut buffers.x, &buffers.added);
        }
        self.norm.fill(&mut buffers.normed, &buffers.x);
        self.head.fill(&mut buffers.logits, &buffers.normed);
        for filled in filled.iter_mut() {
            *filled += 1;
        }
        &buffers.logits
    }

    /// See [`DecodingSession::rewind`](super::decoding_session::DecodingSession::rewind).
    pub(super) fn rewind(&mut self, row: usize, positions: usize) {
        self.filled[row] -= positions;
    }

    /// See [`DecodingSession::swap_remove`](super::decoding_session::DecodingSession::swap_remove).
    pub(super) fn swap_remove(&mut self, row: usize) {
        let Self { sizes, .. } = *self;
        self.of.swap_remove(row);
        self.lag.swap_remove(row);
        self.padding.swap_remove(row);
        let last = self.of.len();
        let filled = self.filled[last] * sizes.width;
        self.filled.swap_remove(row);
        if row != last {
            let head = sizes.positions * sizes.width;
            for own in self.layers.iter_mut().flat_map(|layer| &mut layer.own) {
                for index in 0..sizes.key_heads {
                    let from = last * sizes.keys() + index * head;
                    own.copy_within(from..from + filled, row * sizes.keys() + index * head);
                }
            }
        }
        self.buffers.pop();
    }
}
