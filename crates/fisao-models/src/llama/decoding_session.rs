//! Decoding sessions: sequences that grow by one token per step.

use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_cuda::CudaError;
use fisao_kernels::is_cpu;

use super::card_decoding::CardDecoding;
use super::cpu_decoding::CpuDecoding;
use super::{KvCache, Llama, Pass, Positions};
use crate::attention::Mask;
use crate::parameters::{floats, indices};

/// Several sequences behind their prompts.
pub(crate) enum DecodingSession<'a> {
    /// On the CPU, in memory that is kept from step to step.
    Cpu(Box<CpuDecoding>),
    /// On any device, by operations on tensors.
    Tensors(Composed<'a>),
    /// On an NVIDIA card.
    Card(Box<CardDecoding>),
}

/// Prompts of equal length, shorter ones padded on the left.
pub(crate) struct PromptBatch<'a> {
    /// Embeddings, `[prompts · length, hidden]`.
    pub(crate) x: Tensor<2>,
    /// `[prompts · length]`.
    pub(crate) positions: &'a Positions,
    /// See [`Pass::deep`].
    pub(crate) deep: &'a [Tensor<2>],
    /// Positions of padding before each prompt.
    pub(crate) padding: &'a [usize],
}

/// Sequences that are to continue prompts.
pub(crate) struct Sequences {
    /// The prompt of each sequence.
    pub(crate) of: Vec<usize>,
    /// See [`PrefillState::lag`].
    pub(crate) lag: Vec<usize>,
    /// See [`PrefillState::more`].
    pub(crate) more: usize,
}

/// The state after prefill: which prompt each sequence continues, and how far.
pub(super) struct PrefillState {
    /// Keys and values of the prompts.
    pub(super) cache: KvCache,
    /// The prompt of each sequence.
    pub(super) of: Vec<usize>,
    /// Padding before each sequence's prompt.
    pub(super) padding: Vec<usize>,
    /// How far each sequence's positions are behind its places in the cache: by the padding, and by what an image has fewer positions than
    /// tokens.
    pub(super) lag: Vec<usize>,
    /// Most positions that a sequence takes after its prompt: the capacity of its own KV cache.
    pub(super) more: usize,
}

/// What is needed to run the decoder on tensors.
pub(crate) struct Composed<'a> {
    model: &'a Llama,
    cache: KvCache,
    padding: Vec<usize>,
    lag: Vec<usize>,
    logits: Vec<f32>,
}

impl PromptBatch<'_> {
    /// Positions of a prompt, padding among them.
    pub(crate) fn length(&self) -> usize {
        self.x.dims()[0] / self.padding.len()
    }
}

impl Llama {
    /// Reads prompts into a cache; the state at each prompt's last token, normed, `[prompts, hidden]`.
    pub(crate) fn prefill(&self, prompts: &PromptBatch<'_>) -> (KvCache, Tensor<2>) {
        let (device, batch, length) = (self.device(), prompts.padding.len(), prompts.length());
        let mask = Mask::Causal { first: Arc::from(prompts.padding) };
        let mut cache = KvCache::new(self.config(), batch, length, &device);
        let last = (1..=batch).map(|end| (end * length) as i64 - 1).collect();
        let wanted = Some(indices(last, &device));
        let (positions, deep) = (prompts.positions, prompts.deep);
        let pass = Pass { batch, positions, mask: &mask, wanted, deep };
        let hidden = self.forward(prompts.x.clone(), &pass, Some(&mut cache));
        (cache, hidden)
    }
}

impl<'a> DecodingSession<'a> {
    /// Reads prompts; the sequences that continue them, and the state at each prompt's last token, normed, `[prompts, hidden]`.
    ///
    /// # Errors
    /// Those of a card's driver.
    pub(crate) fn read(
        model: &'a Llama,
        prompts: &PromptBatch<'_>,
        sequences: Sequences,
    ) -> Result<(Self, Tensor<2>), CudaError> {
        if let Some((decoding, hidden)) = CardDecoding::read(model, prompts, &sequences)? {
            return Ok((Self::Card(Box::new(decoding)), hidden));
        }
        let (cache, hidden) = model.prefill(prompts);
        let Sequences { of, lag, more } = sequences;
        let padding = of.iter().map(|&prompt| prompts.padding[prompt]).collect();
        Ok((Self::new(model, PrefillState { cache, of, padding, lag, more }), hidden))
    }

    fn new(model: &'a Llama, prefill: PrefillState) -> Self {
        if is_cpu(&model.device()) {
            return Self::Cpu(Box::new(CpuDecoding::new(model, prefill)));
        }
        Self::composed(model, prefill)
    }

    pub(super) fn composed(model: &'a Llama, prefill: PrefillState) -> Self {
        let PrefillState { cache, of, padding, lag, more } = prefill;
        let cache = cache.spread(of, more);
        Self::Tensors(Composed { model, cache, padding, lag, logits: Vec::new() })
    }

    /// Appends one token to each sequence; unnormalised log-probabilities of the tokens that follow, `[sequences, vocabulary]`.
    ///
    /// # Errors
    /// Those of a card's driver.
    pub(crate) fn step(&mut self, tokens: &[u32]) -> Result<&[f32], CudaError> {
        match self {
            Self::Cpu(decoding) => Ok(decoding.step(tokens)),
            Self::Tensors(composed) => Ok(composed.step(tokens)),
            Self::Card(decoding) => decoding.step(tokens),
        }
    }

    /// Where the sequences lie, if that is a card: tokens can be chosen there.
    pub(crate) fn on_card(&mut self) -> Option<&mut CardDecoding> {
        match self {
            Self::Card(decoding) => Some(decoding),
            Self::Cpu(_) | Self::Tensors(_) => None,
        }
    }

    /// Takes the last `positions` of its own from the sequence at `row`; the others stay as long as they are.
    pub(crate) fn rewind(&mut self, row: usize, positions: usize) {
        match self {
            Self::Cpu(decoding) => decoding.rewind(row, positions),
            Self::Card(decoding) => decoding.rewind(row, positions),
            // Sequences end at one position of the cache, so what is left of this one begins later.
            Self::Tensors(Composed { cache, padding, lag, .. }) => {
                cache.rewind(row, positions);
                padding[row] += positions;
                lag[row] += positions;
            }
        }
    }

    /// Drops the sequence at `row`; the last one takes its place.
    ///
    /// # Errors
    /// Those of a card's driver.
    pub(crate) fn swap_remove(&mut self, row: usize) -> Result<(), CudaError> {
        match self {
            Self::Cpu(decoding) => decoding.swap_remove(row),
            Self::Card(decoding) => return decoding.swap_remove(row),
            Self::Tensors(Composed { cache, padding, lag, .. }) => {
                padding.swap_remove(row);
                lag.swap_remove(row);
                cache.swap_remove(row);
            }
        }
        Ok(())
    }
}

impl Composed<'_> {
    fn step(&mut self, tokens: &[u32]) -> &[f32] {
        let Self { model, cache, padding, lag, logits } = self;
        let filled = cache.filled();
        let ids = tokens.iter().map(|&id| i64::from(id)).collect();
        let x = model.embed(indices(ids, &model.device()));
        let positions = Positions::Single(lag.iter().map(|lag| filled - lag).collect());
        let mask = Mask::Causal { first: Arc::from(&**padding) };
        let batch = tokens.len();
        let pass = Pass { batch, positions: &positions, mask: &mask, wanted: None, deep: &[] };
        let hidden = model.forward(x, &pass, Some(cache));
        *logits = floats(&model.logits(hidden));
        logits
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;
    use crate::linear::ActivationDtype;
    use crate::llama::{DecoderFamily, LlamaConfig, PositionScheme, RopeScaling};
    use crate::lora::LowRank;
    use crate::parameters::from_floats;
    use crate::weights::{Init, RandomWeights, WeightError, WeightSource};

    /// Draws weights, none of them a constant, and rounds them to a type.
    struct Rounded(RandomWeights, DType);

    impl WeightSource for Rounded {
        fn tensor(
            &mut self,
            name: &str,
            shape: &[usize],
            init: Init,
        ) -> Result<TensorData, WeightError> {
            let init = match init {
                Init::Zeros | Init::Ones => Init::Normal { std: 0.5 },
                init => init,
            };
            Ok(self.0.tensor(name, shape, init)?.convert_dtype(self.1))
        }
    }

    fn model(family: DecoderFamily, dtype: DType, tied: bool) -> Llama {
        let config = LlamaConfig {
            family,
            vocab_size: 3000,
            hidden_size: 48,
            intermediate_size: 70,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 18,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 100.0,
            rope_scaling: RopeScaling::Default,
            sliding_window: (family == DecoderFamily::Mistral).then_some(4),
            positions: PositionScheme::Sequential,
            tie_word_embeddings: tied,
        };
        let mut weights = Rounded(RandomWeights::new(3), dtype);
        Llama::load(config, &mut weights, "model", &Device::flex()).expect("any weights")
    }

    fn adapted(mut model: Llama) -> Llama {
        let mut seed = 0.0;
        let mut values = |shape: [usize; 2]| {
            seed += 1.0_f32;
            let value = |at: usize| (at as f32 * 0.7 + seed).sin() * 0.1;
            let values = (0..shape[0] * shape[1]).map(value).collect();
            from_floats(values, shape, &Device::flex())
        };
        model.visit_linears_mut("model", &mut |_, linear| {
            let [inputs, outputs] = linear.size();
            linear.adapter =
                Some(LowRank { a: values([5, inputs]), b: values([outputs, 5]), scale: 0.7 });
        });
        model
    }

    /// Two prompts of five positions, one of them behind two of padding, and three sequences.
    fn prefill(model: &Llama) -> PrefillState {
        let padding = [0, 2];
        let device = model.device();
        let ids = (0..10).map(|at| 7 * at + 1).collect();
        let x = model.embed(indices(ids, &device));
        let positions: Vec<usize> = padding
            .iter()
            .flat_map(|&padding| (0..5).map(move |at: usize| at.saturating_sub(padding)))
            .collect();
        let positions = positions.into();
        let mask = Mask::Causal { first: Arc::new(padding) };
        let mut cache = KvCache::new(model.config(), 2, 5, &device);
        let pass = Pass { batch: 2, positions: &positions, mask: &mask, wanted: None, deep: &[] };
        model.forward(x, &pass, Some(&mut cache));
        // The second prompt's positions end one earlier than its tokens.
        let (padding, lag) = (vec![0, 2, 0], vec![0, 3, 0]);
        PrefillState { cache, of: vec![0, 1, 0], padding, lag, more: 9 }
    }

    /// Logits of eight steps, in the middle of which the first sequence ends, then the last.
    fn decoded(mut session: DecodingSession<'_>) -> Vec<Vec<f32>> {
        let mut tokens: Vec<u32> = vec![3, 4, 5];
        let mut found = Vec::new();
        for step in 0..8 {
            let ended = match step {
                3 => Some(0),
                5 => Some(1),
                _ => None,
            };
            if let Some(row) = ended {
                session.swap_remove(row).expect("no card");
                tokens.swap_remove(row);
            }
            found.push(session.step(&tokens).expect("no card").to_vec());
            tokens.iter_mut().enumerate().for_each(|(at, id)| *id = (*id * 31 + at as u32) % 3000);
        }
        found
    }

    fn check(what: &str, model: &Llama) {
        let expected = decoded(DecodingSession::composed(model, prefill(model)));
        let found = decoded(DecodingSession::new(model, prefill(model)));
        assert!(found.iter().flatten().all(|logit| logit.is_finite()), "{what}");
        let lengths = |all: &[Vec<f32>]| all.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&found), lengths(&expected), "{what}");
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(found) == bits(expected), "{what}: step {step}");
        }
    }

    #[test]
    fn cpu_decoding_equals_tensor_decoding_bitwise() {
        use DecoderFamily::{Llama, Mistral, Qwen2, Qwen3};
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            check(&format!("{dtype:?}"), &model(Llama, dtype, false));
            check(&format!("{dtype:?} with biases, tied"), &model(Qwen2, dtype, true));
            check(&format!("{dtype:?} in a window"), &model(Mistral, dtype, false));
            check(&format!("{dtype:?} with an adapter"), &adapted(model(Qwen2, dtype, false)));
            check(&format!("{dtype:?} with normed heads"), &adapted(model(Qwen3, dtype, true)));
        }
        let mut rounding = adapted(model(Llama, DType::BF16, false));
        rounding.visit_linears_mut("model", &mut |_, linear| {
            linear.activations = ActivationDtype::Bf16;
        });
        check("rounded", &rounding);
    }

    #[test]
    fn decoding_with_trainable_adapter_gives_the_same_logits() {
        let mut training = adapted(model(DecoderFamily::Llama, DType::F32, false));
        training.visit_linears_mut("model", &mut |_, linear| {
            let adapter = linear.adapter.as_mut().expect("an adapted map");
            adapter.a = adapter.a.clone().autodiff().require_grad();
        });
        let found = decoded(DecodingSession::new(&training, prefill(&training)));
        let still = adapted(model(DecoderFamily::Llama, DType::F32, false));
        assert!(found == decoded(DecodingSession::new(&still, prefill(&still))), "other logits");
    }

    /// Logits of steps of three sequences of which two are rewound: one twice, by two positions and by all it has.
    fn rewound(mut session: DecodingSession<'_>) -> Vec<Vec<f32>> {
        let mut found = Vec::new();
        for tokens in [[3, 4, 5], [6, 7, 8], [9, 10, 11]] {
            found.push(session.step(&tokens).expect("no card").to_vec());
        }
        session.rewind(1, 2);
        found.push(session.step(&[12, 7, 14]).expect("no card").to_vec());
        session.rewind(0, 1);
        session.rewind(1, 2);
        found.push(session.step(&[12, 4, 15]).expect("no card").to_vec());
        found.push(session.step(&[16, 7, 17]).expect("no card").to_vec());
        session.swap_remove(0).expect("no card");
        found.push(session.step(&[18, 10]).expect("no card").to_vec());
        // More steps than a sequence has positions.
        for back in [3, 1, 4] {
            session.rewind(0, back);
            for step in 0..back as u32 {
                found.push(session.step(&[step, step + 1]).expect("no card").to_vec());
                session.rewind(1, 1);
            }
        }
        found
    }

    #[test]
    fn rewound_cpu_decoding_equals_tensor_decoding_bitwise() {
        use DecoderFamily::{Llama, Mistral, Qwen3};
        let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for family in [Llama, Mistral, Qwen3] {
            let model = model(family, DType::F32, false);
            let expected = rewound(DecodingSession::composed(&model, prefill(&model)));
            let found = rewound(DecodingSession::new(&model, prefill(&model)));
            assert_eq!(found.len(), expected.len());
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(bits(found) == bits(expected), "{family:?}: step {step}");
            }
            // The second sequence has read 4 again, then 7, then 10: what it read at first.
            let second = |step: usize, row: usize| bits(&found[step][row * 3000..][..3000]);
            assert!(second(4, 1) == second(0, 1), "{family:?}: the same tokens, other logits");
            assert!(second(5, 1) == second(1, 1), "{family:?}: the same tokens, other logits");
            assert!(second(6, 1) == second(2, 1), "{family:?}: the same tokens, other logits");
            assert!(second(3, 1) == second(1, 1), "{family:?}: the same tokens, other logits");
            assert!(second(4, 1) != second(1, 1), "{family:?}: other tokens, the same logits");
        }
    }

    #[test]
    #[should_panic(expected = "cache is full")]
    fn decoding_stops_at_cache_capacity() {
        let model = model(DecoderFamily::Llama, DType::F32, false);
        let mut session = DecodingSession::new(&model, prefill(&model));
        for _ in 0..10 {
            session.step(&[3, 4, 5]).expect("no card");
        }
    }
}
