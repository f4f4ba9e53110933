//! Responses that are written one step at a time.

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Draw};
use fisao_kernels::{exponentials, highest};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Clock, FinishReason, Generated, LaidOut, Prompt, Sampling};
use crate::llama::{DecodingSession, Sequences};
use crate::parameters::{floats, indices};
use crate::random::Purpose;
use crate::vision_language::{ImageFeatures, VisionLanguageModel};

/// Responses being written, one token each a step.
///
/// A response has a slot, `prompt · samples + sample`. Each has the settings of its own prompt, so some end before others. Where the driver
/// of a card has failed, responses stay as they are and no more is written.
pub struct Decoding<'a> {
    model: &'a VisionLanguageModel,
    responses: Vec<Generated>,
    /// Longest response of each slot, tokens.
    limits: Vec<usize>,
    samples: usize,
    /// The state at each prompt's last token, `[prompts, hidden size]`.
    prompts: Option<Tensor<2>>,
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
    /// What its next token must not be.
    banned: Vec<u32>,
}

impl Row {
    /// What its next token is chosen by.
    fn draw(&mut self) -> Draw {
        let temperature = self.temperature;
        // Greedy decoding draws nothing.
        let uniform = if temperature > 0.0 { self.rng.random() } else { 0.0 };
        Draw { temperature, uniform }
    }
}

impl VisionLanguageModel {
    /// Reads the prompts and samples the first token of each of `samples` responses to every prompt. `sampling` has an entry for each
    /// prompt.
    ///
    /// On the CPU, [`with_awake_workers`](Self::with_awake_workers) around this and the steps makes those of a large model quicker.
    ///
    /// # Errors
    /// Those of the driver of the model's card.
    ///
    /// # Panics
    /// When `sampling` has another length than `prompts`.
    pub fn start_decoding(
        &self,
        prompts: &[Prompt],
        features: &ImageFeatures,
        samples: usize,
        sampling: &[Sampling],
    ) -> Result<Decoding<'_>, CudaError> {
        assert_eq!(prompts.len(), sampling.len(), "every prompt has its settings");
        let settings = sampling.iter().flat_map(|sampling| std::iter::repeat_n(sampling, samples));
        let limits: Vec<usize> = settings.map(|sampling| sampling.max_new_tokens).collect();
        let mut decoding = Decoding {
            model: self,
            responses: limits.iter().map(|&limit| Generated::empty(limit)).collect(),
            limits,
            samples,
            prompts: None,
            rows: rows(prompts, samples, sampling),
            session: None,
            sampler: Sampler { weights: Vec::new(), left: Vec::new() },
            tokens: Vec::new(),
            clock: Clock::start(),
        };
        if !decoding.rows.is_empty() {
            decoding.read(prompts, features)?;
        }
        Ok(decoding)
    }
}

impl Decoding<'_> {
    /// Runs the prompts and samples each row's first token.
    fn read(&mut self, prompts: &[Prompt], features: &ImageFeatures) -> Result<(), CudaError> {
        let model = self.model;
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let LaidOut { inputs, padding, lag } = model.lay_out_prompts(prompts, longest, features);
        let of: Vec<usize> = self.rows.iter().map(|row| row.slot / self.samples).collect();
        let states = indices(of.iter().map(|&prompt| prompt as i64).collect(), &model.device());
        let lag = of.iter().map(|&prompt| lag[prompt]).collect();
        let more = self.limits.iter().copied().max().unwrap_or(0);
        let sequences = Sequences { of, lag, more };
        let (session, hidden) =
            DecodingSession::read(model.language_model(), &inputs.batch(&padding), sequences)?;
        self.session = Some(session);
        let logits = model.language_model().logits(hidden.clone().select(0, states));
        self.prompts = Some(hidden);
        self.tokens.reserve(self.rows.len());
        let Self { rows, responses, sampler, .. } = self;
        sampler.sample(model, &floats(&logits), rows, responses);
        self.clock.tell("prompts read", prompts.len() * longest);
        Ok(())
    }

    /// Slots of the responses that are still being written, in no particular order.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().map(|row| row.slot).filter(|&slot| self.is_open(slot))
    }

    /// Whether a response is still being written.
    pub fn is_open(&self, slot: usize) -> bool {
        let response = &self.responses[slot];
        response.finish != FinishReason::Stop && response.tokens.len() < self.limits[slot]
    }

    /// A response, as far as it is written.
    pub fn response(&self, slot: usize) -> &Generated {
        &self.responses[slot]
    }

    /// Samples one more token of each response that is being written. Whether there was any.
    ///
    /// # Errors
    /// Those of the driver of the model's card.
    pub fn step(&mut self) -> Result<bool, CudaError> {
        for row in (0..self.rows.len()).rev() {
            if !self.is_open(self.rows[row].slot) {
                self.remove(row)?;
            }
        }
        let Self { model, responses, rows, session, sampler, tokens, .. } = self;
        let Some(session) = session.as_mut().filter(|_| !rows.is_empty()) else { return Ok(false) };
        tokens.clear();
        // An open response has a token: the first is sampled when its prompt is read.
        tokens.extend(rows.iter().filter_map(|row| responses[row.slot].tokens.last()));
        let card = session.on_card().filter(|_| rows.iter().all(|row| row.banned.is_empty()));
        if let Some(card) = card {
            let draws: Vec<Draw> = rows.iter_mut().map(Row::draw).collect();
            let chosen = card.step_sampled(tokens, &draws)?;
            for (row, choice) in rows.iter().zip(chosen) {
                record(model, choice, &mut responses[row.slot]);
            }
            return Ok(true);
        }
        sampler.sample(model, session.step(tokens)?, rows, responses);
        Ok(true)
    }

    /// Ends a response where it is, as if its token budget were used up. Nothing happens to one that has ended.
    ///
    /// # Errors
    /// Those of the driver of the model's card.
    pub fn close(&mut self, slot: usize) -> Result<(), CudaError> {
        self.limits[slot] = self.limits[slot].min(self.responses[slot].tokens.len());
        let row = self.rows.iter().position(|row| row.slot == slot);
        row.map_or(Ok(()), |row| self.remove(row))
    }

    /// Takes a response back to its first `tokens` tokens, from where the next step goes on. The token sampled there is none of
    /// `banned`: it is drawn from the distribution renormalised over all others, which is what its log-probability is of. Tokens
    /// after it may be anything again. A response that has ended is being written again; its random stream goes on where it is.
    ///
    /// Back at nothing, the first token is sampled at once.
    ///
    /// # Panics
    /// When the response was closed or had ended before the last step, has no more than `tokens` tokens, or every token is banned.
    pub fn rewind(&mut self, slot: usize, tokens: usize, banned: &[u32]) {
        let row = self.rows.iter().position(|row| row.slot == slot);
        let row = row.expect("a response is rewound before the step after its end");
        let vocabulary = self.model.language_model().config().vocab_size;
        assert!(banned.len() < vocabulary, "every token is banned");
        let response = &mut self.responses[slot];
        let written = response.tokens.len();
        assert!(
            tokens < written,
            "a response of {written} tokens cannot be taken back to {tokens}"
        );
        response.tokens.truncate(tokens);
        response.logprobs.truncate(tokens);
        response.finish = FinishReason::Length;
        self.rows[row].banned.extend_from_slice(banned);
        if let Some(session) = &mut self.session {
            // The last token has not been read, and the last one that is left will be read again.
            session.rewind(row, written - tokens.max(1));
        }
        if tokens == 0 {
            self.sample_first(row);
        }
    }

    /// Samples the first token of a row's response.
    fn sample_first(&mut self, row: usize) {
        let Self { model, responses, rows, sampler, prompts, samples, .. } = self;
        let prompts = prompts.clone().expect("a row has a prompt that was read");
        let logits = model.language_model().logits(prompts.narrow(0, rows[row].slot / *samples, 1));
        sampler.sample(model, &floats(&logits), &mut rows[row..=row], responses);
    }

    /// Drops a row; the last one takes its place.
    fn remove(&mut self, row: usize) -> Result<(), CudaError> {
        self.rows.swap_remove(row);
        self.session.as_mut().map_or(Ok(()), |session| session.swap_remove(row))
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
                banned: Vec::new(),
            }
        })
        .collect()
}

/// Picks the next token of every row, in memory that is kept.
struct Sampler {
    /// Unnormalised probabilities of one row.
    weights: Vec<f64>,
    /// Logits of a row some of whose tokens are banned.
    left: Vec<f32>,
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
            let Self { weights, left } = self;
            let logits = if row.banned.is_empty() {
                logits
            } else {
                left.clear();
                left.extend_from_slice(logits);
                for banned in row.banned.drain(..) {
                    left[banned as usize] = f32::NEG_INFINITY;
                }
                left
            };
            let choice = sample_token(logits, row.draw(), weights);
            record(model, choice, &mut responses[row.slot]);
        }
    }
}

/// Appends a token with its log-probability to a response, which may end there.
fn record(model: &VisionLanguageModel, (token, logprob): (u32, f32), response: &mut Generated) {
    response.tokens.push(token);
    response.logprobs.push(logprob);
    // What follows a choice by logits that are not finite is of no use.
    if model.tokens().ends(token) || !logprob.is_finite() {
        response.finish = FinishReason::Stop;
    }
}

/// A token and its log-probability: the most likely one at temperature 0, else a draw. `sample.cu` has the same rule.
fn sample_token(logits: &[f32], draw: Draw, weights: &mut Vec<f64>) -> (u32, f32) {
    let Draw { temperature, uniform } = draw;
    let scale = if temperature > 0.0 { 1.0 / temperature } else { 1.0 };
    let highest = highest(logits);
    let total = exponentials(weights, logits, highest, scale);
    let chosen = if temperature > 0.0 {
        let mut left = uniform * total;
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            // Rounding may leave something; a banned token has no weight.
            .or_else(|| weights.iter().rposition(|&weight| weight > 0.0))
            .unwrap_or(logits.len() - 1)
    } else {
        logits.iter().position(|&logit| logit >= highest).unwrap_or(0)
    };
    let logprob = f64::from(logits[chosen] - highest) * scale - total.ln();
    (chosen as u32, logprob as f32)
}
