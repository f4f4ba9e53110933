//! Responses that are written one step at a time.

use fisao_kernels::{exponentials, highest};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Clock, FinishReason, Generated, Prefilled, Prompt, Sampling};
use crate::llama::{DecodingSession, PrefillState};
use crate::parameters::{floats, indices};
use crate::random::Purpose;
use crate::vision_language::{ImageFeatures, VisionLanguageModel};

/// Responses being written, one token each a step.
///
/// A response has a slot, `prompt · samples + sample`. Each has the settings of its own prompt, so some end before others.
pub struct Decoding<'a> {
    model: &'a VisionLanguageModel,
    responses: Vec<Generated>,
    /// The rows of the session. One whose response has ended leaves at the beginning of the next step.
    rows: Vec<Row>,
    /// Nothing where there was nothing to write.
    session: Option<DecodingSession<'a>>,
    sampler: Sampler,
    /// The last token of each row.
    tokens: Vec<u32>,
    clock: Clock,
}

/// A response that is being written.
struct Row {
    slot: usize,
    rng: ChaCha8Rng,
    temperature: f64,
    /// Longest response, tokens.
    limit: usize,
}

impl VisionLanguageModel {
    /// Reads the prompts and samples the first token of each of `samples` responses to every prompt. `sampling` has an entry for each
    /// prompt.
    ///
    /// On the CPU, [`with_awake_workers`](Self::with_awake_workers) around this and the steps makes those of a large model quicker.
    ///
    /// # Panics
    /// When `sampling` has another length than `prompts`.
    pub fn start_decoding(
        &self,
        prompts: &[Prompt],
        features: &ImageFeatures,
        samples: usize,
        sampling: &[Sampling],
    ) -> Decoding<'_> {
        assert_eq!(prompts.len(), sampling.len(), "every prompt has its settings");
        let settings = sampling.iter().flat_map(|sampling| std::iter::repeat_n(sampling, samples));
        let responses = settings.map(|sampling| Generated::empty(sampling.max_new_tokens));
        let mut decoding = Decoding {
            model: self,
            responses: responses.collect(),
            rows: rows(prompts, samples, sampling),
            session: None,
            sampler: Sampler { weights: Vec::new() },
            tokens: Vec::new(),
            clock: Clock::start(),
        };
        if !decoding.rows.is_empty() {
            decoding.read(prompts, features, samples);
        }
        decoding
    }
}

impl Decoding<'_> {
    /// Runs the prompts and samples each row's first token.
    fn read(&mut self, prompts: &[Prompt], features: &ImageFeatures, samples: usize) {
        let model = self.model;
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let Prefilled { cache, hidden, padding, lag } = model.prefill(prompts, longest, features);
        let of: Vec<usize> = self.rows.iter().map(|row| row.slot / samples).collect();
        let states = indices(of.iter().map(|&prompt| prompt as i64).collect(), &model.device());
        let logits = model.language_model().logits(hidden.select(0, states));
        self.tokens.reserve(self.rows.len());
        let Self { rows, responses, sampler, .. } = self;
        sampler.sample(model, &floats(&logits), rows, responses);
        drop(logits);
        self.clock.tell("prompts read", prompts.len() * longest);
        let of_prompt = |all: &[usize]| of.iter().map(|&prompt| all[prompt]).collect();
        let (padding, lag) = (of_prompt(&padding), of_prompt(&lag));
        let more = self.rows.iter().map(|row| row.limit).max().unwrap_or(0);
        let prefill = PrefillState { cache, of, padding, lag, more };
        self.session = Some(DecodingSession::new(model.language_model(), prefill));
    }

    /// Slots of the responses that are still being written, in no particular order.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().filter(|row| row.is_open(&self.responses)).map(|row| row.slot)
    }

    /// A response, as far as it is written.
    pub fn response(&self, slot: usize) -> &Generated {
        &self.responses[slot]
    }

    /// Samples one more token of each response that is being written. Whether there was any.
    pub fn step(&mut self) -> bool {
        for row in (0..self.rows.len()).rev() {
            if !self.rows[row].is_open(&self.responses) {
                self.remove(row);
            }
        }
        let Self { model, responses, rows, session, sampler, tokens, .. } = self;
        let Some(session) = session.as_mut().filter(|_| !rows.is_empty()) else { return false };
        tokens.clear();
        // An open response has a token: the first is sampled when its prompt is read.
        tokens.extend(rows.iter().filter_map(|row| responses[row.slot].tokens.last()));
        let logits = session.step(tokens);
        sampler.sample(model, logits, rows, responses);
        true
    }

    /// Ends a response where it is, as if its token budget were used up. Nothing happens to one that has ended.
    pub fn close(&mut self, slot: usize) {
        if let Some(row) = self.rows.iter().position(|row| row.slot == slot) {
            self.remove(row);
        }
    }

    /// Drops a row; the last one takes its place.
    fn remove(&mut self, row: usize) {
        self.rows.swap_remove(row);
        if let Some(session) = &mut self.session {
            session.swap_remove(row);
        }
    }

    /// All responses, in the order of their slots. Those that are still being written end where they are.
    pub fn into_responses(mut self) -> Vec<Generated> {
        self.responses.iter_mut().for_each(Generated::shrink);
        // The first token of each response comes from reading its prompt.
        let tokens = self.responses.iter().map(|response| response.tokens.len().saturating_sub(1));
        self.clock.tell("responses written", tokens.sum());
        self.responses
    }
}

impl Row {
    /// Whether its response is still being written.
    fn is_open(&self, responses: &[Generated]) -> bool {
        let response = &responses[self.slot];
        response.finish != FinishReason::Stop && response.tokens.len() < self.limit
    }
}

/// A row for each response that may have tokens.
fn rows(prompts: &[Prompt], samples: usize, sampling: &[Sampling]) -> Vec<Row> {
    prompts
        .iter()
        .zip(sampling)
        .flat_map(|of_prompt| (0..samples as u64).map(move |sample| (of_prompt, sample)))
        .enumerate()
        .filter(|(_, ((_, sampling), _))| sampling.max_new_tokens > 0)
        .map(|(slot, ((prompt, sampling), sample))| {
            let response = prompt.stream.wrapping_mul(samples as u64).wrapping_add(sample);
            Row {
                slot,
                rng: Purpose::Responses.stream(sampling.seed, response),
                temperature: sampling.temperature,
                limit: sampling.max_new_tokens,
            }
        })
        .collect()
}

/// Picks the next token of every row, in memory that is kept.
struct Sampler {
    /// Unnormalised probabilities of one row.
    weights: Vec<f64>,
}

impl Sampler {
    /// Picks by unnormalised log-probabilities, `[rows, vocabulary]`, and records it.
    fn sample(
        &mut self,
        model: &VisionLanguageModel,
        logits: &[f32],
        rows: &mut [Row],
        responses: &mut [Generated],
    ) {
        let vocabulary = model.language_model().config().vocab_size;
        for (row, logits) in rows.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            let (token, logprob) =
                sample_token(logits, row.temperature, &mut row.rng, &mut self.weights);
            let response = &mut responses[row.slot];
            response.tokens.push(token);
            response.logprobs.push(logprob);
            // What follows a choice by logits that are not finite is of no use.
            if model.tokens().ends(token) || !logprob.is_finite() {
                response.finish = FinishReason::Stop;
            }
        }
    }
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
