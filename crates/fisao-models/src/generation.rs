//! Sampling and greedy decoding with a key–value cache.
//!
//! Prompts of one batch are padded on the left; padding is masked and positions count real tokens
//! only, so a response does not depend on what else is in the batch. The random stream of a response
//! depends on the seed and on its own stream number only.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use fisao_kernels::{exponentials, highest, is_cpu};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::attention::Mask;
use crate::llama::{DecodingSession, KvCache, Pass, PrefillState};
use crate::parallel::{spinning_workers, workers_on};
use crate::parameters::{floats, indices};
use crate::random::Purpose;
use crate::vision_language::{DecoderInputs, ImageFeatures, PromptRows, VisionLanguageModel};

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
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

    /// Makes room for a response of so many tokens.
    fn reserve(&mut self, tokens: usize) {
        self.tokens.reserve(tokens);
        self.logprobs.reserve(tokens);
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

/// Prompts that were read.
pub(crate) struct Prefilled {
    pub(crate) cache: KvCache,
    /// The state at each prompt's last token.
    pub(crate) hidden: Tensor<2>,
    /// Padding before each prompt.
    pub(crate) padding: Vec<usize>,
    /// How far the position behind each prompt is behind its place in the cache.
    pub(crate) lag: Vec<usize>,
}

/// A response being written.
struct Open {
    /// Index in the result.
    slot: usize,
    rng: ChaCha8Rng,
}

/// Bytes of matrices up to which each core has room for them in a cache.
const CACHED: usize = 32 << 20;

impl VisionLanguageModel {
    /// How many workers decode a batch best. A small model is quickest with a part for each core of the CPU; the
    /// matrices of a large one are read from memory in every step, and had better be read once for the whole batch, by
    /// all cores.
    pub fn decoding_workers(&self) -> usize {
        let small = self.language_model().matrix_bytes() <= CACHED;
        if small { workers_on(&self.device()) } else { 1 }
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
    pub fn generate(
        &self,
        prompts: &[Prompt],
        features: &ImageFeatures,
        samples: usize,
        sampling: &Sampling,
    ) -> Vec<Generated> {
        let mut results = vec![
            Generated {
                tokens: Vec::new(),
                logprobs: Vec::new(),
                finish: FinishReason::Length
            };
            prompts.len() * samples
        ];
        if results.is_empty() || sampling.max_new_tokens == 0 {
            return results;
        }
        if is_cpu(&self.device()) {
            spinning_workers(|| self.write(prompts, features, samples, sampling, &mut results));
        } else {
            self.write(prompts, features, samples, sampling, &mut results);
        }
        results
    }

    /// Fills `results`, which are empty.
    fn write(
        &self,
        prompts: &[Prompt],
        features: &ImageFeatures,
        samples: usize,
        sampling: &Sampling,
        results: &mut [Generated],
    ) {
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let mut clock = Clock::start();
        let Prefilled { cache, hidden, padding, lag } = self.prefill(prompts, longest, features);
        let rows = (0..prompts.len()).flat_map(|row| std::iter::repeat_n(row, samples));
        let rows: Vec<usize> = rows.collect();
        let states = indices(rows.iter().map(|&row| row as i64).collect(), &self.device());
        let mut open: Vec<Open> = open_rows(prompts, samples, sampling.seed);
        let mut sampler = Sampler::new(self, sampling, open.len());
        for result in results.iter_mut() {
            result.reserve(sampling.max_new_tokens);
        }
        let logits = self.language_model().logits(hidden.select(0, states));
        sampler.sample(&floats(&logits), &mut open, results);
        drop(logits);
        clock.tell("prompts read", prompts.len() * longest);
        let of_prompt = |all: &[usize]| rows.iter().map(|&row| all[row]).collect();
        let (padding, lag) = (of_prompt(&padding), of_prompt(&lag));
        let prefill = PrefillState { cache, of: rows, padding, lag, more: sampling.max_new_tokens };
        let mut session = DecodingSession::new(self.language_model(), prefill);
        for _ in 1..sampling.max_new_tokens {
            for row in (0..open.len()).rev() {
                if results[open[row].slot].finish == FinishReason::Stop {
                    open.swap_remove(row);
                    sampler.tokens.swap_remove(row);
                    session.swap_remove(row);
                }
            }
            if open.is_empty() {
                break;
            }
            let logits = session.step(&sampler.tokens);
            sampler.sample(logits, &mut open, results);
        }
        results.iter_mut().for_each(Generated::shrink);
        // The first token of each response comes from reading its prompt.
        clock.tell("responses written", results.iter().map(|result| result.tokens.len() - 1).sum());
    }

    /// Runs the prompts.
    pub(crate) fn prefill(
        &self,
        prompts: &[Prompt],
        longest: usize,
        features: &ImageFeatures,
    ) -> Prefilled {
        let device = self.device();
        let batch = prompts.len();
        let pad = self.tokens().pad;
        let padding: Vec<usize> = prompts.iter().map(|p| longest - p.ids.len()).collect();
        let rows: Vec<Vec<u32>> = prompts
            .iter()
            .zip(&padding)
            .map(|(prompt, &padding)| [vec![pad; padding], prompt.ids.clone()].concat())
            .collect();
        let images: Vec<usize> = prompts.iter().map(|prompt| prompt.image).collect();
        let rows = PromptRows { rows: &rows, images: &images, padding: &padding };
        let DecoderInputs { x, positions, deep, next } = self.decoder_inputs(rows, features);
        let mask = Mask::Causal { first: Arc::from(&*padding) };
        let config = self.language_model().config();
        let mut cache = KvCache::new(config, batch, longest, &device);
        let last = (0..batch).map(|row| (row * longest + longest - 1) as i64).collect();
        let wanted = Some(indices(last, &device));
        let pass = Pass { batch, positions: &positions, mask: &mask, wanted, deep: &deep };
        let hidden = self.language_model().forward(x, &pass, Some(&mut cache));
        let lag = next.into_iter().map(|next| longest - next).collect();
        Prefilled { cache, hidden, padding, lag }
    }
}

/// Picks the next token of every open row, in memory that is kept.
struct Sampler<'a> {
    model: &'a VisionLanguageModel,
    temperature: f64,
    /// The last one of each row.
    tokens: Vec<u32>,
    /// Unnormalised probabilities of one row.
    weights: Vec<f64>,
}

impl<'a> Sampler<'a> {
    fn new(model: &'a VisionLanguageModel, sampling: &Sampling, rows: usize) -> Self {
        let tokens = Vec::with_capacity(rows);
        Self { model, temperature: sampling.temperature, tokens, weights: Vec::new() }
    }

    /// Picks by unnormalised log-probabilities, `[open rows, vocabulary]`, and records it.
    fn sample(&mut self, logits: &[f32], open: &mut [Open], results: &mut [Generated]) {
        let vocabulary = self.model.language_model().config().vocab_size;
        self.tokens.clear();
        for (row, logits) in open.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            let (token, logprob) =
                sample_token(logits, self.temperature, &mut row.rng, &mut self.weights);
            let result = &mut results[row.slot];
            result.tokens.push(token);
            result.logprobs.push(logprob);
            // What follows a choice by logits that are not finite is of no use.
            if self.model.tokens().ends(token) || !logprob.is_finite() {
                result.finish = FinishReason::Stop;
            }
            self.tokens.push(token);
        }
    }
}

fn open_rows(prompts: &[Prompt], samples: usize, seed: u64) -> Vec<Open> {
    prompts
        .iter()
        .flat_map(|prompt| (0..samples as u64).map(move |sample| (prompt, sample)))
        .enumerate()
        .map(|(slot, (prompt, sample))| {
            let response = prompt.stream.wrapping_mul(samples as u64).wrapping_add(sample);
            let rng = Purpose::Responses.stream(seed, response);
            Open { slot, rng }
        })
        .collect()
}

/// A token and its log-probability: the most likely one at temperature 0, else a draw.
fn sample_token(
    logits: &[f32],
    temperature: f64,
    rng: &mut ChaCha8Rng,
    weights: &mut Vec<f64>,
) -> (u32, f32) {
    let scale = if temperature > 0.0 { 1.0 / temperature } else { 1.0 };
    let highest = highest(logits);
    let total = exponentials(weights, logits, highest, scale);
    let chosen = if temperature > 0.0 {
        let mut left = rng.random::<f64>() * total;
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            .unwrap_or(logits.len() - 1)
    } else {
        logits.iter().position(|&logit| logit >= highest).unwrap_or(0)
    };
    let logprob = f64::from(logits[chosen] - highest) * scale - total.ln();
    (chosen as u32, logprob as f32)
}
