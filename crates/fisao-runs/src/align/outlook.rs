//! How long a run takes on this machine and how much memory, before its first step is made: from the speed of one matrix product.
//!
//! Almost all of a run's arithmetic is products with the decoder's matrices: a forward pass over T tokens multiplies and adds each of
//! its E elements T times. The output matrix is one of them, and its product with a few states and with many is timed: a step of
//! decoding reads every matrix for a few tokens, prefill and training read it for many. What is left out: attention, the image
//! encoder, and that machines slow down. The first iteration is timed as a whole and told when it is done.

use std::time::Instant;

use anyhow::bail;
use burn::tensor::{Tensor, TensorData};
use fisao_align::AlignConfig;
use fisao_align::sampling::tasks_at_once;
use fisao_models::llama::{CardBatches, CardMemory, KvCache, Llama};
use fisao_models::scoring::CudaError;

use super::splitting::Counts;
use crate::bundle::Policy;
use crate::duration::duration;
use crate::failure::Refusal;

/// Rows of a product that stands for prefill and training.
const MANY: usize = 64;
/// The same on a card, which needs more of them to be busy.
const MANY_ON_CARD: usize = 2048;
/// How often a product is timed; the quickest counts.
const TRIES: usize = 3;
/// Captions of each calibration image: the one that is calibrated on and those that may agree with it.
const CALIBRATION_CAPTIONS: usize = 5;
/// Ways of decoding and models that a held-out image is captioned in.
const TEST_CAPTIONS: usize = 4;
/// Captions of an image in an iteration: sampled, and two greedy ones where recall is kept.
const GREEDY_CAPTIONS: usize = 2;
/// States per layer and token that the backward pass needs, in multiples of the model's width and of its inner width.
const STATES: (usize, usize) = (10, 4);

/// Seconds and bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outlook {
    calibrate: f64,
    train: f64,
    evaluate: f64,
    /// Bytes.
    memory: f64,
    /// Bytes that the machine has left, where the system tells.
    available: Option<f64>,
    /// Memory of the card that the decoder is on.
    card: Option<CardMemory>,
}

/// Seconds of the products of some rows with all of a decoder's matrices.
struct Speed<'a> {
    decoder: &'a Llama,
}

impl Speed<'_> {
    /// Seconds of a pass over so many rows at once: on a card a whole one, else scaled up from the output matrix.
    fn pass(&self, rows: usize) -> Result<f64, CudaError> {
        if let Some(seconds) = self.decoder.seconds_on_card(rows)? {
            return Ok(seconds);
        }
        let config = self.decoder.config();
        let shape = [rows, config.hidden_size];
        let values: Vec<f32> =
            (0..rows * config.hidden_size).map(|at| (at as f32 * 0.37).sin()).collect();
        let states: Tensor<2> =
            Tensor::from_data(TensorData::new(values, shape), &self.decoder.device());
        let product = || {
            let started = Instant::now();
            // Its values are read so that they are there.
            let _ = self.decoder.logits(states.clone()).into_data();
            started.elapsed().as_secs_f64()
        };
        let quickest = (0..TRIES).map(|_| product()).fold(f64::INFINITY, f64::min);
        let part = (config.hidden_size * config.vocab_size) as f64;
        Ok(quickest * config.matrix_elements() as f64 / part)
    }
}

/// The sizes that seconds follow from.
struct Work {
    /// Length of a prompt with its image, tokens.
    prompt: usize,
    /// Longest response, tokens.
    response: usize,
    /// Captions that are written at once.
    at_once: usize,
    /// Seconds of a step of decoding.
    step: f64,
    /// Seconds of a token in a pass over many.
    token: f64,
}

impl Work {
    /// Seconds of so many captions, as long as they may be.
    fn captions(&self, count: usize) -> f64 {
        let batches = count as f64 / self.at_once as f64;
        (count * self.prompt) as f64 * self.token + batches * self.response as f64 * self.step
    }

    /// Seconds of an iteration: captions, the policy's and the reference's log-probabilities, and the update, whose backward
    /// pass takes as long as a forward pass as the matrices are frozen.
    fn iteration(&self, config: &AlignConfig) -> f64 {
        let responses = config.responses_per_iteration();
        let greedy = if config.constrains_recall() { GREEDY_CAPTIONS } else { 0 };
        let captions = responses + greedy * config.align.images_per_iteration;
        let passes = if config.align.gradient_checkpointing { 3 } else { 2 };
        let tokens = responses * (self.prompt + self.response);
        let passes = 2 + passes * config.align.epochs;
        self.captions(captions) + (passes * tokens) as f64 * self.token
    }
}

impl Outlook {
    /// Times a product and works out the rest; `prompt` is the length of a prompt with its image, tokens.
    ///
    /// # Errors
    /// A card's driver fails, or the run does not fit a card.
    pub(super) fn of(
        policy: &Policy,
        prompt: usize,
        counts: Counts,
        config: &AlignConfig,
    ) -> anyhow::Result<Self> {
        let model = &policy.model;
        let decoder = model.language_model();
        let response = config.max_new_tokens;
        let at_once = tasks_at_once(model, prompt + response).max(1);
        let speed = Speed { decoder };
        let many = if decoder.card_name().is_some() { MANY_ON_CARD } else { MANY };
        let (step, token) = (speed.pass(at_once.min(MANY))?, speed.pass(many)? / many as f64);
        let work = Work { prompt, response, at_once, step, token };
        let positions = prompt + response;
        let samples = config.align.samples_per_image;
        let card = decoder.card_memory(CardBatches {
            prompt,
            response,
            samples,
            written: at_once.min(config.responses_per_iteration()),
            differentiated: config.align.micro_batch.max(samples),
            adapter: config.lora.parameters(decoder.config()),
        })?;
        if let Some(CardMemory { needed, total }) = card.filter(|card| card.needed > card.total) {
            let gigabytes = |bytes: usize| bytes as f64 / 1e9;
            bail!(
                Refusal::new(format!(
                    "the run takes {:.1} GB of the card's memory, which has {:.1} GB",
                    gigabytes(needed),
                    gigabytes(total)
                ))
                .hint(
                    "--set align.micro-batch=1, a smaller max-new-tokens, or --dtype bf16 take less"
                )
            );
        }
        Ok(Self {
            calibrate: work.captions(CALIBRATION_CAPTIONS * counts.calibration)
                + (counts.calibration * positions) as f64 * token,
            train: work.iteration(config) * config.align.iterations as f64,
            evaluate: work.captions(TEST_CAPTIONS * counts.test),
            memory: memory(policy, (positions, at_once), config),
            available: available(),
            card,
        })
    }

    /// In words: how long, and how much memory.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { calibrate, train, evaluate, memory, available, card } = *self;
        let gigabytes = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
        let time = format!(
            "about {}, by the speed of one {}: {} to calibrate, {} to train, {} for captions before and after; the first iteration \
             tells more",
            duration(calibrate + train + evaluate),
            if card.is_some() { "pass on the card" } else { "matrix product" },
            duration(calibrate),
            duration(train),
            duration(evaluate),
        );
        let free =
            available.map_or_else(String::new, |free| format!(" of {} free", gigabytes(free)));
        let memory = format!("about {}{free}", gigabytes(memory));
        let mut lines = vec![("time", time), ("memory", memory)];
        if let Some(CardMemory { needed, total }) = card {
            let [needed, total] = [needed, total].map(|bytes| gigabytes(bytes as f64));
            lines.push(("card", format!("{needed} of its memory, which is {total}")));
        }
        lines
    }

    /// What to do where the memory is not enough.
    pub(super) fn warning(&self) -> Option<(String, &'static str)> {
        let free = self.available.filter(|free| self.memory > *free)?;
        Some((
            format!(
                "the run takes about {:.1} GB of memory, and {:.1} GB are free",
                self.memory / 1e9,
                free / 1e9
            ),
            "set --set align.micro-batch=1 and --set align.gradient-checkpointing=true, or a smaller max-new-tokens",
        ))
    }
}

/// Bytes: the weights, and the larger of the keys and values of captions that are written at once and of the states of responses
/// that are differentiated at once.
fn memory(policy: &Policy, (positions, at_once): (usize, usize), config: &AlignConfig) -> f64 {
    let decoder = policy.model.language_model();
    let sizes = decoder.config();
    let (layers, hidden) = (sizes.num_hidden_layers, sizes.hidden_size);
    let layer = STATES.0 * hidden + STATES.1 * sizes.intermediate_size;
    let kept =
        if config.align.gradient_checkpointing { layers * hidden + layer } else { layers * layer };
    let logits = 2 * config.max_new_tokens * sizes.vocab_size;
    let at_work = config.align.micro_batch * policy.model.decoding_workers();
    let training = (at_work * (positions * kept + logits) * size_of::<f32>()) as f64;
    let sampling = KvCache::bytes(sizes, positions * at_once) as f64;
    let embedding = (hidden * sizes.vocab_size * 2) as f64;
    decoder.matrix_bytes() as f64 + embedding + training.max(sampling)
}

/// Bytes of memory that the system says are left; `None` where it does not.
fn available() -> Option<f64> {
    let known = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = known.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook() -> Outlook {
        Outlook {
            calibrate: 600.0,
            train: 9000.0,
            evaluate: 300.0,
            memory: 17e9,
            available: Some(16e9),
            card: None,
        }
    }

    #[test]
    fn outlook_is_told_in_the_units_one_would_say_it_in() {
        let lines = outlook().lines();
        let [(_, time), (_, memory)] = &lines[..] else { panic!("{lines:?}") };
        assert!(
            time.starts_with("about 2.8 h, ") && time.contains("10 min to calibrate"),
            "{time}"
        );
        assert_eq!(memory, "about 17.0 GB of 16.0 GB free");
        let card = Some(CardMemory { needed: 20_600_000_000, total: 24_000_000_000 });
        let lines = Outlook { card, ..outlook() }.lines();
        assert_eq!(lines[2], ("card", "20.6 GB of its memory, which is 24.0 GB".to_owned()));
    }

    #[test]
    fn too_little_memory_is_warned_of() {
        let (text, hint) = outlook().warning().unwrap();
        assert!(text.contains("17.0 GB") && hint.contains("micro-batch=1"), "{text}");
        assert_eq!(Outlook { available: Some(18e9), ..outlook() }.warning(), None);
        assert_eq!(Outlook { available: None, ..outlook() }.warning(), None);
    }

    #[test]
    fn captions_take_their_prompts_and_their_steps() {
        let work = Work { prompt: 100, response: 10, at_once: 4, step: 0.5, token: 0.01 };
        // Eight prompts of a second each, and two batches of ten steps.
        assert!((work.captions(8) - 18.0).abs() < 1e-9);
    }
}
