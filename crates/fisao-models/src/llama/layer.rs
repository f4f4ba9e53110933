//! One layer of the decoder.

use burn::tensor::{Device, Int, Tensor, activation};
use fisao_kernels::{Operation, is_fused, two};

use super::rotary::RotaryAngles;
use super::{DecoderFamily, KvCache, LlamaConfig};
use crate::attention::{Shown, attend, merge_heads, split_heads};
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// Linear layers of a layer.
pub(super) const LINEARS: usize = 7;

/// Names of the norms of queries and keys.
const HEAD_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// Attention and feed-forward part, each behind a norm and added to its input.
#[derive(Debug, Clone)]
pub(super) struct DecoderLayer {
    pub(super) input_layernorm: RmsNorm,
    pub(super) q_proj: Linear,
    pub(super) k_proj: Linear,
    pub(super) v_proj: Linear,
    /// Norms of every head's queries and keys, in Qwen3.
    pub(super) head_norms: Option<[RmsNorm; 2]>,
    pub(super) o_proj: Linear,
    pub(super) post_attention_layernorm: RmsNorm,
    pub(super) gate_proj: Linear,
    pub(super) up_proj: Linear,
    pub(super) down_proj: Linear,
    heads: usize,
    key_value_heads: usize,
}

impl DecoderLayer {
    pub(super) fn load(
        config: &LlamaConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let inner = config.intermediate_size;
        let biased = config.family == DecoderFamily::Qwen2;
        let mut linear = |part: &str, size, bias| {
            Linear::load(weights, &format!("{name}.{part}"), size, bias, device)
        };
        let q_proj = linear("self_attn.q_proj", [width, queries], biased)?;
        let k_proj = linear("self_attn.k_proj", [width, keys], biased)?;
        let v_proj = linear("self_attn.v_proj", [width, keys], biased)?;
        let mut linear = |part, size| linear(part, size, false);
        let o_proj = linear("self_attn.o_proj", [queries, width])?;
        let gate_proj = linear("mlp.gate_proj", [width, inner])?;
        let up_proj = linear("mlp.up_proj", [width, inner])?;
        let down_proj = linear("mlp.down_proj", [inner, width])?;
        let mut norm = |part: &str, width| {
            RmsNorm::load(weights, &format!("{name}.{part}"), width, config.rms_norm_eps, device)
        };
        let head_norms = if config.family == DecoderFamily::Qwen3 {
            let [queries, keys] = HEAD_NORMS.map(|part| norm(part, config.head_dim));
            Some([queries?, keys?])
        } else {
            None
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm", width)?,
            post_attention_layernorm: norm("post_attention_layernorm", width)?,
            q_proj,
            k_proj,
            v_proj,
            head_norms,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
        })
    }

    /// Bytes of one element of the layer's matrices.
    pub(super) fn element_bytes(&self) -> usize {
        self.q_proj.weight.dtype().size()
    }

    /// The adaptable linear layers with their names inside the layer.
    pub(super) fn linears_mut(&mut self) -> [(&'static str, &mut Linear); LINEARS] {
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

    /// `x`: `[batch · length, width]` → the same, or the rows that are wanted of it.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        context: &Context,
        wanted: Option<&Tensor<1, Int>>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let batch = context.batch;
        let length = x.dims()[0] / batch;
        let normed = self.input_layernorm.forward(x.clone());
        let [queries, keys] = self.normed_heads(
            [&self.q_proj, &self.k_proj].map(|linear| linear.forward(normed.clone())),
        );
        let q = split_heads(queries, batch, length, self.heads);
        let k = split_heads(keys, batch, length, self.key_value_heads);
        let v = split_heads(self.v_proj.forward(normed), batch, length, self.key_value_heads);
        let q = context.rotary.apply_rotary(q);
        let k = context.rotary.apply_rotary(k);
        let mixed = merge_heads(match cache {
            Some((cache, layer)) => cache.attend(layer, q, (k, v), &context.shown),
            None => attend(q, k, v, &context.shown),
        });
        let (x, mixed) = match wanted {
            Some(rows) => (x.select(0, rows.clone()), mixed.select(0, rows.clone())),
            None => (x, mixed),
        };
        let x = x + self.o_proj.forward(mixed);
        let normed = self.post_attention_layernorm.forward(x.clone());
        let gate = self.gate_proj.forward(normed.clone());
        x + self.down_proj.forward(swiglu(gate, self.up_proj.forward(normed)))
    }

    /// Queries and keys, `[rows, heads · d]`, each head behind its norm if there is one.
    fn normed_heads(&self, queries_and_keys: [Tensor<2>; 2]) -> [Tensor<2>; 2] {
        let Some(norms) = &self.head_norms else { return queries_and_keys };
        let mut norms = norms.iter();
        queries_and_keys.map(|x| {
            let [rows, width] = x.dims();
            let norm = norms.next().expect("a norm for each");
            let head = norm.weight.dims()[0];
            norm.forward(x.reshape([rows * width / head, head])).reshape([rows, width])
        })
    }
}

/// `gate · σ(gate) · up`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if is_fused(&gate) {
        return two(gate, up, Operation::SwiGlu);
    }
    gate.clone() * activation::sigmoid(gate) * up
}

impl Parameters for DecoderLayer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (name, linear) in self.linears_mut() {
            linear.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        for (name, norm) in HEAD_NORMS.iter().zip(self.head_norms.iter_mut().flatten()) {
            norm.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.input_layernorm.visit_mut(&format!("{prefix}.input_layernorm"), visitor);
        self.post_attention_layernorm
            .visit_mut(&format!("{prefix}.post_attention_layernorm"), visitor);
    }
}

/// What all layers of one pass share.
#[derive(Debug)]
pub(super) struct Context {
    /// Number of sequences.
    pub(super) batch: usize,
    /// Rotary angles at every position.
    pub(super) rotary: RotaryAngles,
    /// Which keys are seen.
    pub(super) shown: Shown,
}
