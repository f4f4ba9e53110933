//! How much memory a run takes, and where everything lies in it.

use crate::kernels::DecodingCache;
use crate::{Arena, Buffer, Decoder, DecoderConfig};

/// The largest sizes of a session. One arena is reserved for them; nothing is reserved later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Prompts that are read together.
    pub prompts: usize,
    /// Longest prompt, positions, padding among them.
    pub prompt_length: usize,
    /// Sequences that are decoded together.
    pub rows: usize,
    /// Longest response, tokens.
    pub new_tokens: usize,
    /// Positions that go through the layers at a time when prompts are read; at least one prompt does.
    pub prefill_positions: usize,
}

impl Plan {
    /// Bytes of the arena of a session with this decoder.
    pub fn bytes(&self, decoder: &Decoder) -> usize {
        let mut arena = Arena::counting();
        SessionMemory::take(&mut arena, decoder.config(), self, decoder.ranks());
        arena.used()
    }

    /// Prompts of `length` positions that are read at a time.
    pub(crate) fn chunk(&self, length: usize) -> usize {
        (self.prefill_positions / length.max(1)).max(1)
    }

    /// Most rows that go through the layers at a time.
    fn activation_rows(&self) -> usize {
        let longest = self.prefill_positions.max(self.prompt_length);
        longest.min(self.prompts * self.prompt_length).max(self.rows)
    }
}

/// What a step reads of its sequences, uploaded in one piece. All i32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    pub(crate) whole: Buffer,
    /// `[rows]`
    pub(crate) tokens: Buffer,
    /// `[rows, axes]`
    pub(crate) positions: Buffer,
    /// `[rows]`
    pub(crate) filled: Buffer,
    /// `[rows]`
    pub(crate) padding: Buffer,
    /// `[rows]`
    pub(crate) members: Buffer,
    /// `[prompts + 1]`
    pub(crate) groups: Buffer,
    /// `[1]`
    pub(crate) prompt_length: Buffer,
}

impl Control {
    fn take(arena: &mut Arena, rows: usize, prompts: usize, axes: usize) -> Self {
        let counts = [rows, rows * axes, rows, rows, rows, prompts + 1, 1];
        let whole = arena.take(counts.iter().sum::<usize>() * size_of::<i32>());
        let mut first = 0;
        let [tokens, positions, filled, padding, members, groups, prompt_length] =
            counts.map(|count| {
                let part = whole.slice(first, count * size_of::<i32>());
                first += part.bytes();
                part
            });
        Self { whole, tokens, positions, filled, padding, members, groups, prompt_length }
    }
}

/// What the layers compute, for the rows that go through them at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activations {
    /// The residual stream, `[rows, hidden]` f32.
    pub(crate) x: Buffer,
    /// `[rows, hidden]`
    pub(crate) normed: Buffer,
    /// `[rows, (heads + 2 · key heads) · size]`
    pub(crate) query_key_value: Buffer,
    /// `[rows, heads · size]`
    pub(crate) queries: Buffer,
    /// `[rows, heads · size]`
    pub(crate) mixed: Buffer,
    /// `[rows, 2 · intermediate]`
    pub(crate) gate_up: Buffer,
    /// `[rows, intermediate]`
    pub(crate) inner: Buffer,
    /// `[rows, Σ rank]`
    pub(crate) low: Buffer,
}

impl Activations {
    pub(crate) fn take(
        arena: &mut Arena,
        config: &DecoderConfig,
        rows: usize,
        ranks: usize,
    ) -> Self {
        let x = arena.take(rows * config.hidden * size_of::<f32>());
        let mut take = |width: usize| arena.take(rows * width * config.storage.bytes());
        Self {
            x,
            normed: take(config.hidden),
            query_key_value: take(config.heads.fused()),
            queries: take(config.heads.queries()),
            mixed: take(config.heads.queries()),
            gate_up: take(2 * config.intermediate),
            inner: take(config.intermediate),
            low: take(ranks),
        }
    }
}

/// Bytes of the states that are added behind a layer, of so many rows.
pub(crate) fn deep_bytes(config: &DecoderConfig, rows: usize) -> usize {
    if config.deep_layers == 0 { 0 } else { rows * config.hidden * size_of::<f32>() }
}

/// Everything a session needs.
#[derive(Debug, Clone)]
pub(crate) struct SessionMemory {
    /// Cosine and sine, `[positions, size / 2, 2]` f32.
    pub(crate) angles: Buffer,
    /// `[size / 2]` i32, or null.
    pub(crate) axes: Buffer,
    pub(crate) control: Control,
    /// `[prompts]` i32
    pub(crate) prompt_padding: Buffer,
    /// Ids of the prompts that are read at a time, i32.
    pub(crate) prompt_tokens: Buffer,
    /// Their positions, `[rows, axes]` i32.
    pub(crate) prompt_positions: Buffer,
    /// States that are added behind a layer, `[rows, hidden]` f32.
    pub(crate) deep: Buffer,
    /// `[layers, prompts, key heads, prompt length, size]`: keys, values.
    pub(crate) prompt_cache: [Buffer; 2],
    /// `[layers, rows, key heads, new tokens, size]`: keys, values.
    pub(crate) own_cache: [Buffer; 2],
    pub(crate) activations: Activations,
    /// Partial sums of attention.
    pub(crate) partial: Buffer,
    /// State at each prompt's last token, normed, `[prompts, hidden]` f32.
    pub(crate) last: Buffer,
    /// `[max(rows, prompts), hidden]`
    pub(crate) head_inputs: Buffer,
    /// `[max(rows, prompts), vocabulary]` f32
    pub(crate) logits: Buffer,
    /// What sampled tokens depend on, `[rows, 2]` f64.
    pub(crate) draws: Buffer,
    /// Sampled tokens and their log-probabilities, `[2, rows]`.
    pub(crate) sampled: Buffer,
}

impl SessionMemory {
    pub(crate) fn take(
        arena: &mut Arena,
        config: &DecoderConfig,
        plan: &Plan,
        ranks: usize,
    ) -> Self {
        let (int, element) = (size_of::<i32>(), config.storage.bytes());
        let Plan { prompts, prompt_length, rows, new_tokens, .. } = *plan;
        let (heads, axes) = (config.heads, config.axes());
        let positions = prompt_length + new_tokens;
        let at_a_time = plan.activation_rows();
        let keys = config.layers * heads.keys() * element;
        let outputs = rows.max(prompts);
        let room = [prompt_length, new_tokens];
        Self {
            angles: arena.take(positions * heads.size * size_of::<f32>()),
            axes: if axes == 1 { Buffer::NULL } else { arena.take(heads.size / 2 * int) },
            control: Control::take(arena, rows, prompts, axes),
            prompt_padding: arena.take(prompts * int),
            prompt_tokens: arena.take(at_a_time * int),
            prompt_positions: arena.take(at_a_time * axes * int),
            deep: arena.take(deep_bytes(config, at_a_time)),
            prompt_cache: [(); 2].map(|()| arena.take(keys * prompts * prompt_length)),
            own_cache: [(); 2].map(|()| arena.take(keys * rows * new_tokens)),
            activations: Activations::take(arena, config, at_a_time, ranks),
            partial: arena.take(DecodingCache::partial_bytes(rows, heads, room)),
            last: arena.take(prompts * config.hidden * size_of::<f32>()),
            head_inputs: arena.take(outputs * config.hidden * element),
            logits: arena.take(outputs * config.vocabulary * size_of::<f32>()),
            draws: arena.take(2 * rows * size_of::<f64>()),
            sampled: arena.take(2 * rows * int),
        }
    }
}
