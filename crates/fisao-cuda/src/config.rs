//! Sizes of a decoder.

use crate::kernels::Heads;
use crate::source::compiled_head_size;
use crate::{CudaError, Storage};

/// Sizes of a decoder: Llama, Mistral, Qwen2 or Qwen3.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Element type of matrices, activations and the KV cache. The residual stream is f32.
    pub storage: Storage,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Model width.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// How queries, keys and values lie.
    pub heads: Heads,
    /// ε of the norms.
    pub epsilon: f32,
    /// Rotary frequencies, radians a position, `[head size / 2]`.
    pub frequencies: Vec<f64>,
    /// Which of three positions each pair of dimensions reads, `[head size / 2]`; empty where tokens have one.
    pub position_axes: Vec<usize>,
    /// Positions that attention reaches back to, its own among them, where they are limited.
    pub sliding_window: Option<usize>,
    /// Whether queries, keys and values have biases (Qwen2).
    pub query_key_value_bias: bool,
    /// Whether every head's queries and keys have an RMS norm (Qwen3).
    pub head_norms: bool,
    /// Layers behind which states may be added to the residual stream: image features of layers of the image tower (DeepStack).
    pub deep_layers: usize,
    /// Whether the output matrix is the embedding table.
    pub tied: bool,
}

impl DecoderConfig {
    /// Positions that a token has: 1 or 3.
    pub fn axes(&self) -> usize {
        if self.position_axes.is_empty() { 1 } else { 3 }
    }

    /// Cosine and sine of every pair of dimensions at so many positions, `[positions, head size / 2, 2]`.
    pub(crate) fn angles(&self, positions: usize) -> Vec<f32> {
        let at = |position: usize| {
            self.frequencies.iter().flat_map(move |frequency| {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                [cos as f32, sin as f32]
            })
        };
        (0..positions).flat_map(at).collect()
    }

    /// Panics where lengths contradict each other.
    pub(crate) fn check(&self) -> Result<(), CudaError> {
        compiled_head_size(self.heads.size)?;
        let half = self.heads.size / 2;
        assert_eq!(self.frequencies.len(), half, "a frequency for each pair of dimensions");
        let axes = self.position_axes.len();
        assert!(axes == 0 || axes == half, "an axis for each pair of dimensions");
        let (heads, key_heads) = (self.heads.heads, self.heads.key_heads);
        assert!(heads.is_multiple_of(key_heads), "{key_heads} key heads divide {heads} heads");
        Ok(())
    }
}
