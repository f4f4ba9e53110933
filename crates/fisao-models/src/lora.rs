//! Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685), as PEFT computes it.
//!
//! The low-rank path `scale · (x Aᵀ) Bᵀ` is added to the frozen layer's output; the sum of matrices is
//! never formed. `A` starts Kaiming-uniform with `a = √5`, `B` starts at zero, so a fresh adapter
//! changes nothing.

use burn::tensor::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::linear::{Linear, by_columns};
use crate::llama::LlamaConfig;
use crate::parameters::from_floats;
use crate::weights::{Init, draw};

/// Which linear layers get an adapter, and of what size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update. From 1 to 4096. Default 16.
    pub rank: usize,
    /// Numerator of the scale: `alpha / rank`, or `alpha / √rank` with `use_rslora`. Above 0, at most 1e6. Default 32.
    pub alpha: f64,
    /// Names of the decoder's linear layers to adapt, out of `q_proj`, `k_proj`, `v_proj`, `o_proj`,
    /// `gate_proj`, `up_proj`, `down_proj`. Default: all of them. Only the language model is ever
    /// adapted; the vision tower is the verifier and must not move.
    pub target_modules: Vec<String>,
    /// Rank-stabilised scale (Kalajdzievski 2023, arXiv 2312.03732). Default off.
    #[serde(alias = "use-rs-lora")]
    pub use_rslora: bool,
}

impl LoraConfig {
    /// Numbers in the adapter that a decoder gets.
    pub fn parameters(&self, decoder: &LlamaConfig) -> usize {
        let LlamaConfig { hidden_size: width, intermediate_size: inner, head_dim, .. } = *decoder;
        let (queries, keys) =
            (decoder.num_attention_heads * head_dim, decoder.num_key_value_heads * head_dim);
        let both = |target: &str| match target {
            "q_proj" | "o_proj" => width + queries,
            "k_proj" | "v_proj" => width + keys,
            _ => width + inner,
        };
        let each: usize = self.target_modules.iter().map(|target| both(target)).sum();
        decoder.num_hidden_layers * self.rank * each
    }
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            target_modules: TARGETS.iter().map(ToString::to_string).collect(),
            use_rslora: false,
        }
    }
}

/// The decoder's linear layers that can carry an adapter.
pub const TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl LoraConfig {
    /// Largest rank: that of a full matrix in a model of a usual size.
    pub const MOST_RANK: usize = 4096;

    /// The factor on the low-rank path.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Checks the values against their ranges.
    ///
    /// # Errors
    /// [`LoraError`] naming the offending value.
    pub fn validate(&self) -> Result<(), LoraError> {
        if !(1..=Self::MOST_RANK).contains(&self.rank) {
            return Err(LoraError::Rank { found: self.rank });
        }
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            return Err(LoraError::Alpha { found: self.alpha });
        }
        if self.target_modules.is_empty() {
            return Err(LoraError::NoTargets);
        }
        match self.target_modules.iter().find(|name| !TARGETS.contains(&name.as_str())) {
            Some(name) => Err(LoraError::UnknownTarget { name: name.clone() }),
            None => Ok(()),
        }
    }
}

pub use crate::linear::LowRank;

/// Why an adapter could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// Rank 0, or one that no linear layer has.
    #[error(
        "`lora.rank` = {found} is out of range: it must be from 1 to {}",
        LoraConfig::MOST_RANK
    )]
    Rank {
        /// The rank.
        found: usize,
    },
    /// A scale that is no finite number above 0.
    #[error("`lora.alpha` = {found} is out of range: it must be above 0, at most 1e6")]
    Alpha {
        /// The numerator.
        found: f64,
    },
    /// No target at all.
    #[error("lora.target-modules is empty: nothing would be trained")]
    NoTargets,
    /// A target that the decoder does not have.
    #[error(
        "lora.target-modules names `{name}`, which matches no linear layer of the language model; \
         possible are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )]
    UnknownTarget {
        /// The unmatched name.
        name: String,
    },
}

impl LowRank {
    /// A fresh term for a layer of the given size; it computes zero.
    pub fn new(
        config: &LoraConfig,
        [inputs, outputs]: [usize; 2],
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let a = draw(rng, config.rank * inputs, Init::KaimingUniform { fan_in: inputs });
        Self {
            a: from_floats(a, [config.rank, inputs], device),
            b: Tensor::zeros([outputs, config.rank], device),
            scale: config.scale(),
        }
    }
}

impl Linear {
    /// Puts another weight, `[out, in]`, in the place of the linear layer's own.
    pub fn set_weight(&mut self, weight: Tensor<2>) {
        assert!(
            weight.dims() == self.weight.dims(),
            "a weight of {:?} in the place of {:?}",
            weight.dims(),
            self.weight.dims()
        );
        self.weight = by_columns(weight);
    }

    /// Adds the adapter's product to the frozen weight, then removes the adapter.
    pub(crate) fn fold_adapter(&mut self) {
        if let Some(adapter) = self.adapter.take() {
            let product = adapter.b.inner().matmul(adapter.a.inner()) * adapter.scale;
            let dtype = self.weight.dtype();
            let weight = self.weight.clone().inner();
            // Added in f32 and rounded once.
            self.weight = by_columns((weight.cast(DType::F32) + product).cast(dtype));
        }
    }
}
