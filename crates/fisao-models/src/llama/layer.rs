//! One layer of the decoder.

use burn::tensor::{Device, Tensor, activation};

use super::rotary::rotate;
use super::{KvCache, LlamaConfig};
use crate::attention::{attend, merge_heads, split_heads};
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// Attention and feed-forward part, each behind a norm and added to its input.
#[derive(Debug, Clone)]
pub(super) struct DecoderLayer {
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
    pub(super) fn maps_mut(&mut self) -> [(&'static str, &mut Linear); 7] {
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
    pub(super) fn forward(
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
pub(super) struct Context<'a> {
    /// Number of sequences.
    pub(super) batch: usize,
    /// cos and sin at every position, `[batch, 1, length, head_dim / 2]`.
    pub(super) angles: (Tensor<4>, Tensor<4>),
    /// `[batch or 1, 1, length, keys]`.
    pub(super) bias: &'a Tensor<4>,
}
