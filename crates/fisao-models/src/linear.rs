//! Linear layers and embeddings, with weights laid out as in checkpoints (`[out, in]`).
//!
//! Their matrices are nearly all of a model, so they stay in the type they are loaded in, 16 bits for
//! most checkpoints. Everything else, and everything that is computed, is f32.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor};
use fisao_kernels::int8::Int8Matrix;
use fisao_kernels::layer_weights::{AdapterParts, EmbeddingWeights, LinearWeights};
use fisao_kernels::{Operation, adapted, is_fused, is_fused_weight, three, two};

use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{Init, WeightError, WeightSource, as_stored, widened};

pub use fisao_kernels::ActivationDtype;

/// Standard deviation of freshly drawn embeddings.
pub const EMBEDDING_STD: f64 = 0.1;

/// Numbers of a matrix up to which it lies by columns. A larger one comes from memory, and would be read there in pieces.
const BY_COLUMNS: usize = 1 << 19;

/// Called with every linear layer of a model and its canonical name.
pub type LinearVisitor<'a> = dyn FnMut(&str, &mut Linear) + 'a;

/// Whether any linear layer that `visit` shows has an adapter.
pub(crate) fn is_adapted(visit: impl FnOnce(&mut LinearVisitor<'_>)) -> bool {
    let mut adapted = false;
    visit(&mut |_, linear| adapted |= linear.adapter.is_some());
    adapted
}

/// `y = x Wᵀ + b`, plus a low-rank term where an adapter is attached.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, f32 or, while it is frozen, of 16 bits.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// Low-rank update; its path is added to the output, the weight is never changed.
    pub adapter: Option<LowRank>,
    /// What `x` is multiplied as.
    pub activations: ActivationDtype,
}

/// The low-rank term of one linear layer.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// Factor on the path.
    pub scale: f64,
}

impl Linear {
    /// Whether weight or bias trains; an adapter is not asked about.
    pub(crate) fn learns(&self) -> bool {
        self.weight.is_require_grad() || self.bias.as_ref().is_some_and(Tensor::is_require_grad)
    }
}

impl LowRank {
    /// The path alone from single operations: `[rows, in]` → `[rows, out]`.
    pub(crate) fn composed(&self, x: Tensor<2>) -> Tensor<2> {
        let low = x.matmul(self.a.clone().transpose()) * self.scale;
        low.matmul(self.b.clone().transpose())
    }

    /// Visits `{prefix}.lora_A.weight` and `{prefix}.lora_B.weight`.
    pub fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.lora_A.weight"), ParameterMut::Matrix(&mut self.a));
        visitor(&format!("{prefix}.lora_B.weight"), ParameterMut::Matrix(&mut self.b));
    }
}

impl Linear {
    /// A layer without an adapter that multiplies what it is given.
    pub(crate) fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        let weight = by_columns(weight);
        Self { weight, bias, adapter: None, activations: ActivationDtype::F32 }
    }

    /// Loads `{name}.weight` and, with `bias`, `{name}.bias`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        weights: &mut dyn WeightSource,
        name: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        device: &Device,
    ) -> Result<Self, WeightError> {
        // LeCun's choice keeps the variance of activations at every width; a fixed 0.02 leaves narrow
        // models without signal for hundreds of updates.
        let init = Init::Normal { std: (inputs as f64).sqrt().recip() };
        let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs], init)?;
        let bias = if bias {
            let data = weights.tensor(&format!("{name}.bias"), &[outputs], Init::Zeros)?;
            Some(widened(data, device))
        } else {
            None
        };
        Ok(Self::new(as_stored(weight, device), bias))
    }

    /// Number of inputs and outputs.
    pub fn size(&self) -> [usize; 2] {
        let [outputs, inputs] = self.weight.dims();
        [inputs, outputs]
    }

    /// # Shapes
    /// `x`: `[rows, in]` → `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if !is_fused(&x) || !is_fused_weight(&self.weight) {
            return self.composed(x);
        }
        let (weight, bias) = (self.weight.clone(), self.bias.clone());
        match (&self.adapter, bias) {
            (Some(LowRank { a, b, scale }), bias) => {
                let (scale, activations) = (*scale as f32, self.activations);
                let operation = Operation::LowRankLinear { scale, activations };
                adapted(x, [weight, a.clone(), b.clone()], bias, operation)
            }
            (None, Some(bias)) => three(x, weight, bias, Operation::Linear(self.activations)),
            (None, None) => two(x, weight, Operation::Linear(self.activations)),
        }
    }

    /// What a decoding step on the CPU reads: its weight, or the same in int8.
    pub(crate) fn kernel_weights(&self, rounded: Option<&Arc<Int8Matrix>>) -> LinearWeights {
        let adapter = self.adapter.as_ref();
        let adapter = adapter.map(|LowRank { a, b, scale }| AdapterParts { a, b, scale: *scale });
        let (bias, activations) = (self.bias.as_ref(), self.activations);
        in_int8(LinearWeights::new(&self.weight, bias, adapter, activations), &self.weight, rounded)
    }

    /// Whether inputs are rounded.
    pub(crate) fn rounds(&self) -> bool {
        self.activations.rounds(self.weight.dtype())
    }

    /// The same from single operations.
    pub(crate) fn composed(&self, x: Tensor<2>) -> Tensor<2> {
        let low_rank = self.adapter.as_ref().map(|adapter| adapter.composed(x.clone()));
        let x = if self.rounds() { x.cast(DType::BF16).cast(DType::F32) } else { x };
        let y = composed_product(x, &self.weight);
        let y = match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        };
        match low_rank {
            Some(term) => y + term,
            None => y,
        }
    }
}

/// The same matrix, laid out by columns where it is a small one of f32 and the kernels are our own: products of a few rows are
/// half as quick again with it.
pub(crate) fn by_columns(weight: Tensor<2>) -> Tensor<2> {
    let small = weight.shape().num_elements() <= BY_COLUMNS;
    if !small || !is_fused(&weight) {
        return weight;
    }
    let device = weight.device();
    Tensor::from_data(weight.transpose().into_data(), &device).transpose()
}

/// The same with the weight in int8, where it is given.
pub(crate) fn in_int8(
    weights: LinearWeights,
    weight: &Tensor<2>,
    rounded: Option<&Arc<Int8Matrix>>,
) -> LinearWeights {
    let Some(rounded) = rounded else { return weights };
    assert!(rounded.is_of(weight), "the weight has changed since it was quantised");
    weights.in_int8(rounded)
}

/// `x Wᵀ`, by a kernel of our own where there is one: `[rows, in]`, `[out, in]` → `[rows, out]`.
pub(crate) fn product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    if is_fused(&x) && is_fused_weight(weight) {
        return two(x, weight.clone(), Operation::Linear(ActivationDtype::F32));
    }
    composed_product(x, weight)
}

/// `x Wᵀ` from single operations. A weight of 16 bits is widened for the product, as the kernels do it:
/// an f16 product would round activations, and lose gradients below 6e-8.
fn composed_product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight = weight.clone();
    let wide = if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) };
    x.matmul(wide.transpose())
}

impl Parameters for Linear {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.weight"), ParameterMut::Matrix(&mut self.weight));
        if let Some(bias) = &mut self.bias {
            visitor(&format!("{prefix}.bias"), ParameterMut::Vector(bias));
        }
    }
}

/// A table of row vectors, one per index.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[count, width]`, f32 or, while it is frozen, of 16 bits.
    pub weight: Tensor<2>,
}

impl Embedding {
    /// Loads `{name}.weight` of shape `[count, width]`.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load(
        weights: &mut dyn WeightSource,
        name: &str,
        [count, width]: [usize; 2],
        device: &Device,
    ) -> Result<Self, WeightError> {
        let init = Init::Normal { std: EMBEDDING_STD };
        let weight = weights.tensor(&format!("{name}.weight"), &[count, width], init)?;
        Ok(Self { weight: as_stored(weight, device) })
    }

    /// The same in f32, for a table that is used as a whole.
    ///
    /// # Errors
    /// [`WeightError`] from the source.
    pub fn load_widened(
        weights: &mut dyn WeightSource,
        name: &str,
        size: [usize; 2],
        device: &Device,
    ) -> Result<Self, WeightError> {
        let table = Self::load(weights, name, size, device)?;
        Ok(Self { weight: table.weight.cast(DType::F32) })
    }

    /// Rows at `indices`: `[n]` → `[n, width]`.
    pub fn forward(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        let rows = self.weight.clone().select(0, indices);
        if rows.dtype() == DType::F32 { rows } else { rows.cast(DType::F32) }
    }

    /// What a decoding step on the CPU reads.
    pub(crate) fn kernel_weights(&self) -> EmbeddingWeights {
        EmbeddingWeights::new(&self.weight)
    }
}

impl Parameters for Embedding {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(&format!("{prefix}.weight"), ParameterMut::Matrix(&mut self.weight));
    }
}

/// Embeddings that are used as a whole and stored as a batch of one: EVA's class token and positions, a Q-Former's queries.
#[derive(Debug, Clone)]
pub(crate) struct BatchEmbedding(Tensor<3>);

impl BatchEmbedding {
    /// Loads `{name}` of shape `[1, count, width]`.
    pub(crate) fn load(
        weights: &mut dyn WeightSource,
        name: &str,
        [count, width]: [usize; 2],
        device: &Device,
    ) -> Result<Self, WeightError> {
        let init = Init::Normal { std: EMBEDDING_STD };
        Ok(Self(widened(weights.tensor(name, &[1, count, width], init)?, device)))
    }

    /// `[1, count, width]`
    pub(crate) fn whole(&self) -> Tensor<3> {
        self.0.clone()
    }
}

impl Parameters for BatchEmbedding {
    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        visitor(name, ParameterMut::Batch(&mut self.0));
    }
}
