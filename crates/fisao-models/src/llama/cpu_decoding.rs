//! A step of decoding on the CPU in memory that is kept: keys, values and everything a step computes have their places from the
//! beginning, and steps allocate nothing. To the bit what the same step on tensors gives.

use std::sync::Arc;

use super::continuation::Beginning;
use super::layer::DecoderLayer;
use super::{Llama, LlamaConfig};
use crate::attention::Mask;
use crate::fused::maps::{Heads, Map, Norm, Table};
use crate::fused::rotary::{self, Angles};
use crate::fused::view::View;
use crate::fused::{accumulate, attention, swiglu};

/// Several sequences behind their prompts, a decoder's weights, and room for their steps.
pub(crate) struct CpuDecoding {
    table: Table,
    layers: Vec<Layer>,
    norm: Norm,
    head: Map,
    sizes: Sizes,
    /// The turn at every position there can be.
    angles: Angles,
    /// Positions of the prompts, padding counted, and those filled behind them.
    prompt: usize,
    filled: usize,
    /// The prompt of each sequence.
    of: Vec<usize>,
    /// Padding before each sequence's prompt.
    padding: Arc<[usize]>,
    room: Room,
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
    input_layernorm: Norm,
    queries_keys_values: [Map; 3],
    o_proj: Map,
    post_attention_layernorm: Norm,
    gate_and_up: [Map; 2],
    down_proj: Map,
    of_prompts: [Heads; 2],
    own: [Vec<f32>; 2],
}

/// Places for what a step computes, for as many rows as there are at the beginning.
struct Room {
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

impl Room {
    fn new(config: &LlamaConfig, rows: usize) -> Self {
        let room = |width: usize| vec![0.0; rows * width];
        let hidden = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        Self {
            positions: vec![0; rows],
            x: room(hidden),
            normed: room(hidden),
            queries_keys_values: [queries, keys, keys].map(room),
            mixed: room(queries),
            gate_and_up: [config.intermediate_size; 2].map(room),
            added: room(hidden),
            logits: room(config.vocab_size),
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
    fn new(layer: &DecoderLayer, of_prompts: [Heads; 2], numbers: usize) -> Self {
        Self {
            input_layernorm: Norm::new(&layer.input_layernorm),
            queries_keys_values: [&layer.q_proj, &layer.k_proj, &layer.v_proj].map(Map::new),
            o_proj: Map::new(&layer.o_proj),
            post_attention_layernorm: Norm::new(&layer.post_attention_layernorm),
            gate_and_up: [&layer.gate_proj, &layer.up_proj].map(Map::new),
            down_proj: Map::new(&layer.down_proj),
            of_prompts,
            own: [numbers; 2].map(|numbers| vec![0.0; numbers]),
        }
    }

    /// Appends rows of keys and of values, `[sequences, key heads · width]`, behind those that are filled.
    fn append(&mut self, new: [&[f32]; 2], sizes: Sizes, filled: usize) {
        for (own, new) in self.own.iter_mut().zip(new) {
            let places = own.chunks_exact_mut(sizes.positions * sizes.width);
            for (place, new) in places.zip(new.chunks_exact(sizes.width)) {
                place[filled * sizes.width..][..sizes.width].copy_from_slice(new);
            }
        }
    }
}

impl CpuDecoding {
    pub(super) fn new(model: &Llama, beginning: Beginning) -> Self {
        let Beginning { cache, of, padding, more } = beginning;
        let sizes = Sizes::new(model.config(), more);
        let prompt = cache.filled();
        let numbers = of.len() * sizes.keys();
        let layers =
            model.layers.iter().zip(cache.seen()).map(|(layer, (k, v))| {
                Layer::new(layer, [Heads::new(&k), Heads::new(&v)], numbers)
            });
        Self {
            table: Table::new(&model.embed_tokens),
            layers: layers.collect(),
            norm: Norm::new(&model.norm),
            head: match &model.lm_head {
                Some(head) => Map::new(head),
                None => Map::of_weight(&model.embed_tokens.weight),
            },
            sizes,
            angles: model.rotary.angles(0..prompt + more),
            prompt,
            filled: 0,
            room: Room::new(model.config(), of.len()),
            of,
            padding: padding.into(),
        }
    }

    /// See [`Continuation::step`](super::continuation::Continuation::step).
    pub(super) fn step(&mut self, tokens: &[u32]) -> &[f32] {
        let Self { sizes, room, filled, .. } = self;
        assert_eq!(tokens.len(), self.of.len(), "every sequence goes on by a token");
        assert!(*filled < sizes.positions, "sequences go on no further than was said");
        let at = self.prompt + *filled;
        for (position, padding) in room.positions.iter_mut().zip(&*self.padding) {
            *position = at - padding;
        }
        let mask = Mask::Causal { first: Arc::clone(&self.padding) };
        self.table.fill(&mut room.x, tokens);
        for layer in &mut self.layers {
            layer.input_layernorm.fill(&mut room.normed, &room.x);
            for (out, map) in room.queries_keys_values.iter_mut().zip(&layer.queries_keys_values) {
                map.fill(out, &room.normed);
            }
            let [q, k, v] = &mut room.queries_keys_values;
            for (x, heads) in [(&mut *q, sizes.heads), (&mut *k, sizes.key_heads)] {
                rotary::turn(x, heads * sizes.width, &self.angles, &room.positions);
            }
            layer.append([k, v], *sizes, *filled);
            let own = layer.own.each_ref().map(|own| sizes.view(own, tokens.len(), *filled + 1));
            let [k, v] = layer.of_prompts.each_ref().map(Heads::view);
            let before = attention::Prompts { k, v, of: &self.of };
            let q = sizes.queries(q, tokens.len());
            attention::fill(&mut room.mixed, q, Some(before), own, &mask);
            layer.o_proj.fill(&mut room.added, &room.mixed);
            accumulate(&mut room.x, &room.added);
            layer.post_attention_layernorm.fill(&mut room.normed, &room.x);
            for (out, map) in room.gate_and_up.iter_mut().zip(&layer.gate_and_up) {
                map.fill(out, &room.normed);
            }
            let [gate, up] = &mut room.gate_and_up;
            swiglu::apply(gate, up);
            layer.down_proj.fill(&mut room.added, gate);
            accumulate(&mut room.x, &room.added);
        }
        self.norm.fill(&mut room.normed, &room.x);
        self.head.fill(&mut room.logits, &room.normed);
        *filled += 1;
        &room.logits
    }

    /// See [`Continuation::swap_remove`](super::continuation::Continuation::swap_remove).
    pub(super) fn swap_remove(&mut self, row: usize) {
        let Self { sizes, .. } = *self;
        self.of.swap_remove(row);
        let last = self.of.len();
        Arc::make_mut(&mut self.padding).swap(row, last);
        if row != last {
            let (head, filled) = (sizes.positions * sizes.width, self.filled * sizes.width);
            for own in self.layers.iter_mut().flat_map(|layer| &mut layer.own) {
                for index in 0..sizes.key_heads {
                    let from = last * sizes.keys() + index * head;
                    own.copy_within(from..from + filled, row * sizes.keys() + index * head);
                }
            }
        }
        self.room.pop();
    }
}
