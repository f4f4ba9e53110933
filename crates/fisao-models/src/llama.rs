//! The Llama decoder: RMS norm, rotary positions, grouped-query attention, SwiGLU. Qwen2's only adds biases to queries, keys and
//! values, Qwen3's only norms of queries and keys; Mistral's only limits attention to a sliding window, where its configuration has one.
//!
//! Papers: Touvron et al. 2023, arXiv 2302.13971; Jiang et al. 2023, arXiv 2310.06825. Reference: transformers' `LlamaModel`,
//! `Qwen2Model` and `MistralModel`; tensor names mirror them. Rotary halves follow the "rotate half" convention of Hugging Face checkpoints.

mod cache;
mod card;
mod card_decoding;
mod card_outlook;
mod card_scoring;
mod card_session;
mod cpu_decoding;
mod decoding_session;
mod gradient_checkpointing;
mod int8_decoder;
mod layer;
mod positions;
pub(crate) mod rotary;

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Int, Tensor};
use fisao_cuda::{CudaError, Driver, Storage};
use fisao_kernels::is_cpu;
use serde::{Deserialize, Serialize};

use crate::attention::{Mask, Shown};
use crate::linear::{Embedding, Linear, LinearVisitor, product};
use crate::norm::RmsNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

pub use cache::KvCache;
use card::Card;
pub use card_outlook::{CardBatches, CardMemory};
pub(crate) use card_scoring::{CardBatch, CardScoring};
pub(crate) use decoding_session::{DecodingSession, PromptBatch, Sequences};
pub use gradient_checkpointing::LayerInputs;
use int8_decoder::Int8Decoder;
pub(crate) use layer::swiglu;
use layer::{Context, DecoderLayer};
pub use positions::{PositionScheme, Positions};
pub use rotary::RopeScaling;
use rotary::RotaryEmbedding;

/// Which decoder it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderFamily {
    /// Llama, Vicuna: no biases.
    #[default]
    Llama,
    /// Biases on queries, keys and values.
    Qwen2,
    /// As Llama; attention may be limited to a sliding window.
    Mistral,
    /// No biases; an RMS norm on every head's queries and keys.
    Qwen3,
}

impl DecoderFamily {
    /// What configurations call it, as their `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Mistral => "mistral",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Sizes of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Which decoder.
    #[serde(default)]
    pub family: DecoderFamily,
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
    /// How these are scaled.
    #[serde(default)]
    pub rope_scaling: RopeScaling,
    /// Positions that attention reaches back to, its own among them, where they are limited; at least 1.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// What positions they are at.
    #[serde(default, skip_serializing_if = "PositionScheme::is_sequential")]
    pub positions: PositionScheme,
    /// Whether the output matrix is the embedding table.
    pub tie_word_embeddings: bool,
}

impl LlamaConfig {
    /// Numbers in the matrices that a step reads whole: all but the embedding table, unless that is the output
    /// matrix as well.
    pub fn matrix_elements(&self) -> usize {
        let hidden = self.hidden_size;
        let attention = self.num_attention_heads + self.num_key_value_heads;
        let attention = 2 * hidden * attention * self.head_dim;
        let feed_forward = 3 * hidden * self.intermediate_size;
        self.num_hidden_layers * (attention + feed_forward) + hidden * self.vocab_size
    }
}

/// A batch of equally long sequences on their way through the decoder.
#[derive(Debug, Clone)]
pub struct Pass<'a> {
    /// Number of sequences.
    pub batch: usize,
    /// Position of every row in its sequence, `[batch · length]`.
    pub positions: &'a Positions,
    /// Over cached and new keys.
    pub mask: &'a Mask,
    /// Rows whose final states are wanted, in this order, if not all are: behind the last attention nothing else is computed.
    pub wanted: Option<Tensor<1, Int>>,
    /// What is added to the states behind the first layers, `[batch · length, hidden]` for each of them: image features of layers of
    /// the image tower, at the image's positions (DeepStack, Meng et al. 2024, arXiv 2406.04334). Empty in most models.
    pub deep: &'a [Tensor<2>],
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
    rotary: RotaryEmbedding,
    /// Where the decoder runs, if not on the tensors' device.
    card: Option<Arc<Card>>,
    /// The matrices of all clones in int8, once that was asked for.
    rounded: Arc<OnceLock<Int8Decoder>>,
    /// Whether decoding steps on the CPU read these.
    decodes_in_int8: bool,
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
        let rotary = RotaryEmbedding::new(&config);
        Ok(Self {
            config,
            embed_tokens,
            layers,
            norm,
            lm_head,
            rotary,
            card: None,
            rounded: Arc::default(),
            decodes_in_int8: false,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of the matrices that every step of decoding reads.
    pub fn matrix_bytes(&self) -> usize {
        let each = self.layers.first().map_or(0, DecoderLayer::element_bytes);
        self.config.matrix_elements() * each
    }

    /// Where the decoder's weights live.
    pub fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    /// Copies the decoder to a card. From then on prompts are read there, and responses are written, scored and differentiated with respect
    /// to the adapter, by this model and all its clones, with the adapter that each has; everything else stays on the CPU. A copy whose
    /// weights are replaced is made again.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where the card has no room, [`CudaError::Unsupported`] for heads of a width that no kernel has, and those
    /// of the driver. The model runs on the CPU as before then.
    ///
    /// # Panics
    /// The model is not on the CPU.
    pub fn use_card(&mut self, driver: Box<dyn Driver + Send>) -> Result<(), CudaError> {
        assert!(is_cpu(&self.device()), "a card is given a copy of a model on the CPU");
        self.card = Some(Arc::new(Card::new(self, driver)?));
        Ok(())
    }

    /// What the card calls itself that responses are written on.
    pub fn card_name(&self) -> Option<&str> {
        self.card.as_deref().map(Card::name)
    }

    /// Batches that the CPU computed although the decoder has a card: it had no room for them beside what others took, was at work with other
    /// weights, or does not compute this decoder. Of all clones together; 0 without a card.
    pub fn batches_left_to_cpu(&self) -> usize {
        self.card.as_deref().map_or(0, |card| card.lock().left())
    }

    /// How many sequences of `length` positions each are decoded together at most, if that is on a card: as many as its memory has room
    /// for beside the weights, however much of it others use, so that it is the same number each time. `beside` are bytes
    /// that other weights take.
    pub fn rows_on_card(&self, length: usize, most: usize, beside: usize) -> Option<usize> {
        let card = self.card.as_deref()?;
        Some(card.lock().rows(length, most, beside))
    }

    /// The type of the decoder's matrices, which a card has to have kernels for.
    pub fn storage(&self) -> Storage {
        card::storage(self)
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
    /// * `x`: `[batch · length, hidden]`
    /// * result: `[batch · length, hidden]`, or a row for each that is wanted
    pub fn forward(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        let length = x.dims()[0] / pass.batch;
        let context = self.context(&x, pass);
        let mut x = x;
        for index in 0..self.layers.len() {
            let cache = cache.as_deref_mut().map(|cache| (cache, index));
            x = self.layer_output(index, x, &context, pass, cache);
        }
        if let Some(cache) = cache {
            cache.advance(length);
        }
        self.norm.forward(x)
    }

    /// What one layer makes of its input, and what is added behind it; of the last layer the rows that are wanted.
    fn layer_output(
        &self,
        index: usize,
        x: Tensor<2>,
        context: &Context,
        pass: &Pass<'_>,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<2> {
        let wanted = pass.wanted.as_ref().filter(|_| self.is_last(index));
        let output = self.layers[index].forward(x, context, wanted, cache);
        match (pass.deep.get(index), wanted) {
            (None, _) => output,
            (Some(deep), None) => output + deep.clone(),
            (Some(deep), Some(rows)) => output + deep.clone().select(0, rows.clone()),
        }
    }

    /// Shows `visit` the states behind each of the last `depth` layers, each through the final norm, at the rows that are wanted: what
    /// the head reads of a layer (logit lens). Under the causal mask, without a cache. States of one layer are held at a time.
    ///
    /// # Panics
    /// The pass says of no rows that they are wanted.
    ///
    /// # Shapes
    /// * `x`: `[batch · length, hidden]`
    /// * `visit`: for each layer `[wanted, hidden]`, the last layer last
    pub(crate) fn each_layer_state(
        &self,
        x: Tensor<2>,
        pass: &Pass<'_>,
        depth: usize,
        visit: &mut dyn FnMut(Tensor<2>),
    ) {
        let wanted = pass.wanted.as_ref().expect("rows that are wanted");
        let context = self.context(&x, pass);
        let unread = self.layers.len().saturating_sub(depth);
        let mut x = x;
        for index in 0..self.layers.len() {
            x = self.layer_output(index, x, &context, pass, None);
            if self.is_last(index) {
                visit(self.norm.forward(x.clone()));
            } else if index >= unread {
                visit(self.norm.forward(x.clone().select(0, wanted.clone())));
            }
        }
    }

    /// What all layers of a pass share. Its mask is limited to the decoder's sliding window: keys of a sequence lie one behind the
    /// other, so they are as far apart as their positions.
    fn context(&self, x: &Tensor<2>, pass: &Pass<'_>) -> Context {
        let rotary = self.rotary.at(pass.positions, pass.batch, &x.device());
        let mask = pass.mask.clone().within(self.config.sliding_window);
        Context { batch: pass.batch, rotary, shown: Shown::by(&mask) }
    }

    /// Whether nothing but the final norm comes behind this layer.
    fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.layers.len()
    }

    /// Unnormalised log-probabilities of the next token: `[rows, hidden]` → `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => product(hidden, &self.embed_tokens.weight),
        }
    }

    /// The output matrix, `[vocabulary, hidden]`, where logits are its product with the state and nothing else.
    pub(crate) fn output_matrix(&self) -> Option<&Tensor<2>> {
        match &self.lm_head {
            Some(Linear { weight, bias: None, adapter: None, .. }) => Some(weight),
            Some(_) => None,
            None => Some(&self.embed_tokens.weight),
        }
    }

    /// Visits every linear layer under `{prefix}.model.layers.N.…`, then `{prefix}.lm_head`.
    pub fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            for (name, linear) in layer.linears_mut() {
                visitor(&format!("{prefix}.model.layers.{index}.{name}"), linear);
            }
        }
        if let Some(head) = &mut self.lm_head {
            visitor(&format!("{prefix}.lm_head"), head);
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
