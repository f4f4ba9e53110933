//! Sampling and greedy decoding with a key–value cache.
//!
//! Prompts of one batch are padded on the left; padding is masked and positions count real tokens
//! only, so a response does not depend on what else is in the batch. The random stream of a response
//! depends on the seed and on its own stream number only.
//!
//! [`VisionLanguageModel::generate`] writes whole responses, [`VisionLanguageModel::start_decoding`] a token at a time.

use std::time::Instant;

use fisao_cuda::CudaError;
use fisao_kernels::is_cpu;
use serde::{Deserialize, Serialize};

use crate::parallel::{spinning_workers, workers_on};
use crate::vision_language::{DecoderInputs, ImageFeatures, PromptRows, VisionLanguageModel};

mod decoding;

pub use decoding::Decoding;

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Longest response, tokens (the end token counts).
    pub max_new_tokens: usize,
    /// Divides the logits before sampling; 0 takes the most likely token.
    pub temperature: f64,
    /// Seed of all random streams.
    pub seed: u64,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model emitted its end token.
    Stop,
    /// The token budget was used up.
    Length,
}

/// One prompt about one image.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Ids, image placeholder already expanded.
    pub ids: Vec<u32>,
    /// Which row of the image features it shows.
    pub image: usize,
    /// Number of this prompt's random streams; equal numbers with equal seeds repeat themselves.
    pub stream: u64,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// Ids, the end token last if the response stopped.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the distribution it was drawn from (temperature 1 when
    /// greedy), natural logarithm.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

impl Generated {
    /// Whether all log-probabilities are finite: a logit that is NaN or infinite makes that of the chosen token NaN.
    pub fn is_finite(&self) -> bool {
        self.logprobs.iter().all(|logprob| logprob.is_finite())
    }

    /// One without tokens, with room for so many.
    fn empty(capacity: usize) -> Self {
        let (tokens, logprobs) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        Self { tokens, logprobs, finish: FinishReason::Length }
    }

    /// Gives back the room it has not used.
    fn shrink(&mut self) {
        self.tokens.shrink_to_fit();
        self.logprobs.shrink_to_fit();
    }

    /// The ids without the end token.
    pub fn text_tokens(&self) -> &[u32] {
        match self.finish {
            FinishReason::Stop => &self.tokens[..self.tokens.len() - 1],
            FinishReason::Length => &self.tokens,
        }
    }
}

/// Tells the log how long the parts of generation took.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn tell(&mut self, what: &str, tokens: usize) {
        let seconds = self.0.elapsed().as_secs_f64();
        let rate = tokens as f64 / seconds;
        tracing::debug!(tokens, seconds, rate, "{what}");
        self.0 = Instant::now();
    }
}

/// Prompts that are to be read.
pub(crate) struct LaidOut {
    pub(crate) inputs: DecoderInputs,
    /// Padding before each prompt.
    pub(crate) padding: Vec<usize>,
    /// How far the position behind each prompt is behind its place.
    pub(crate) lag: Vec<usize>,
}

/// Bytes of matrices up to which each core has room for them in a cache.
const CACHED: usize = 32 << 20;

impl VisionLanguageModel {
    /// How many workers decode a batch best. A small model is quickest with a part for each core of the CPU; the
    /// matrices of a large one are read from memory in every step, and had better be read once for the whole batch, by
    /// all cores. A card takes one batch at a time.
    pub fn decoding_workers(&self) -> usize {
        let small = self.language_model().matrix_bytes() <= CACHED;
        let on_card = self.language_model().card_name().is_some();
        if small && !on_card { workers_on(&self.device()) } else { 1 }
    }

    /// Positions whose keys and values one of `samples` responses to a prompt takes room for: on the CPU its prompt's stand there
    /// once for all of them.
    pub fn cached_positions(&self, prompt: usize, response: usize, samples: usize) -> usize {
        let sharing = if is_cpu(&self.device()) { samples.max(1) } else { 1 };
        prompt.div_ceil(sharing) + response
    }

    /// Writes `samples` responses to every prompt; responses to one prompt are adjacent. One whose logits are NaN or infinite ends
    /// there, and [says so](Generated::is_finite).
    ///
    /// Which image a prompt is about is an index into `features`.
    ///
    /// # Errors
    /// Those of the driver of the model's card.
    pub fn generate(
        &self,
        prompts: &[Prompt],
        features: &ImageFeatures,
        samples: usize,
        sampling: &Sampling,
    ) -> Result<Vec<Generated>, CudaError> {
        let sampling = vec![sampling.clone(); prompts.len()];
        self.with_awake_workers(|| {
            let mut decoding = self.start_decoding(prompts, features, samples, &sampling)?;
            while decoding.step()? {}
            Ok(decoding.into_responses())
        })
    }

    /// Runs `work`, which decodes, with no worker of the CPU falling asleep between the short pieces of a step. What it decodes is
    /// the same without.
    pub fn with_awake_workers<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let on_cpu = is_cpu(&self.device()) && self.language_model().card_name().is_none();
        if on_cpu { spinning_workers(work) } else { work() }
    }

    /// Pads prompts on the left to a length, and embeds them.
    pub(crate) fn lay_out_prompts(
        &self,
        prompts: &[Prompt],
        longest: usize,
        features: &ImageFeatures,
    ) -> LaidOut {
        let pad = self.tokens().pad;
        let padding: Vec<usize> = prompts.iter().map(|p| longest - p.ids.len()).collect();
        let rows: Vec<Vec<u32>> = prompts
            .iter()
            .zip(&padding)
            .map(|(prompt, &padding)| [vec![pad; padding], prompt.ids.clone()].concat())
            .collect();
        let images: Vec<usize> = prompts.iter().map(|prompt| prompt.image).collect();
        let rows = PromptRows { rows: &rows, images: &images, padding: &padding };
        let inputs = self.decoder_inputs(rows, features);
        let lag = inputs.next.iter().map(|next| longest - next).collect();
        LaidOut { inputs, padding, lag }
    }
}
