//! A decoder's matrices in int8, for sampling on the CPU.

use std::array::from_fn;
use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_kernels::int8::Int8Matrix;
use fisao_kernels::is_cpu;
use fisao_kernels::layer_weights::LinearWeights;

use super::Llama;
use super::layer::{DecoderLayer, LINEARS};
use crate::linear::{Linear, in_int8};

/// The matrices of every layer and of the output, in the order of [`DecoderLayer::linears`].
#[derive(Debug)]
pub(super) struct Int8Decoder {
    pub(super) layers: Vec<[Arc<Int8Matrix>; LINEARS]>,
    pub(super) head: Arc<Int8Matrix>,
}

impl Int8Decoder {
    fn new(model: &Llama) -> Self {
        let of_layer = |layer: &DecoderLayer| {
            layer.linears().map(|linear| Arc::new(Int8Matrix::new(&linear.weight)))
        };
        Self {
            layers: model.layers.iter().map(of_layer).collect(),
            head: Arc::new(Int8Matrix::new(model.head_matrix())),
        }
    }
}

impl Llama {
    /// The same decoder, whose decoding steps on the CPU read int8 copies of its matrices; adapters, norms and everything else are as
    /// they were. The copies are made once, and kept for all of the model's clones.
    ///
    /// # Panics
    /// A weight is not on the CPU.
    pub(crate) fn decoding_in_int8(&self) -> Self {
        self.rounded.get_or_init(|| Int8Decoder::new(self));
        Self { decodes_in_int8: true, ..self.clone() }
    }

    /// Whether decoding steps are the CPU's.
    pub(crate) fn decodes_on_cpu(&self) -> bool {
        self.card.is_none() && is_cpu(&self.device())
    }

    /// Whether decoding steps read rounded matrices.
    pub(crate) fn decodes_in_int8(&self) -> bool {
        self.decodes_in_int8
    }

    /// The rounded matrices, where decoding steps read them.
    pub(super) fn in_int8(&self) -> Option<&Int8Decoder> {
        self.rounded.get().filter(|_| self.decodes_in_int8)
    }

    /// The output layer as kernels read it.
    pub(super) fn head_weights(&self) -> LinearWeights {
        let rounded = self.in_int8().map(|rounded| &rounded.head);
        if let Some(head) = &self.lm_head {
            return head.kernel_weights(rounded);
        }
        let table = self.head_matrix();
        in_int8(LinearWeights::of_weight(table), table, rounded)
    }

    /// The output layer's matrix, `[vocabulary, hidden]`.
    fn head_matrix(&self) -> &Tensor<2> {
        self.lm_head.as_ref().map_or(&self.embed_tokens.weight, |head| &head.weight)
    }

    /// Memory that the rounded matrices take.
    pub(crate) fn int8_bytes(&self) -> usize {
        let linears = self.layers.iter().flat_map(DecoderLayer::linears);
        let weights = linears.map(|linear| &linear.weight).chain([self.head_matrix()]);
        weights.map(|weight| Int8Matrix::bytes_of(weight.dims())).sum()
    }
}

impl DecoderLayer {
    /// Its linear layers: those of queries, keys and values, of attention's output, gate, up and down.
    pub(super) fn linears(&self) -> [&Linear; LINEARS] {
        let Self { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, .. } = self;
        [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
    }

    /// The same as kernels read them.
    pub(super) fn kernel_weights(
        &self,
        rounded: Option<&[Arc<Int8Matrix>; LINEARS]>,
    ) -> [LinearWeights; LINEARS] {
        let linears = self.linears();
        from_fn(|at| linears[at].kernel_weights(rounded.map(|rounded| &rounded[at])))
    }
}
