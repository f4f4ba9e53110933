//! What a run will take of a card: memory and time.

use std::time::Instant;

use burn::tensor::Tensor;
use fisao_cuda::{CudaError, Plan, TrainingPlan};

use super::card::PREFILL_POSITIONS;
use super::card_scoring::{CardBatch, CardScoring, LOGIT_ROWS};
use super::{Llama, Positions};
use crate::card_part::ImageMemory;

/// How often a pass is timed; the quickest counts.
const TRIES: usize = 3;

/// The largest batches of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardBatches {
    /// Length of a prompt with its image, tokens.
    pub prompt: usize,
    /// Longest response, tokens.
    pub response: usize,
    /// Responses to a prompt.
    pub samples: usize,
    /// Responses that are written at a time.
    pub written: usize,
    /// Responses that are differentiated at a time.
    pub differentiated: usize,
    /// Numbers in the adapter.
    pub adapter: usize,
    /// Encoders of images on the same card.
    pub images: ImageMemory,
}

/// Memory of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardMemory {
    /// What a run will take at its peak, bytes.
    pub needed: usize,
    /// What there is, bytes.
    pub total: usize,
}

impl Llama {
    /// What a run will take of the card's memory: all weights, the adapter, and the largest of what images are encoded in, a batch that is
    /// written, and one that is differentiated. Nothing without a card.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn card_memory(&self, batches: CardBatches) -> Result<Option<CardMemory>, CudaError> {
        let Some(card) = self.card.as_deref() else { return Ok(None) };
        let CardBatches { prompt, response, samples, written, differentiated, adapter, images } =
            batches;
        let groups = |responses: usize| responses.div_ceil(samples.max(1));
        let session = Plan {
            prompts: groups(written),
            prompt_length: prompt,
            rows: written,
            new_tokens: response,
            prefill_positions: PREFILL_POSITIONS,
        };
        let targets = differentiated * response;
        let update = TrainingPlan {
            sequences: groups(differentiated),
            length: prompt + samples.min(differentiated) * response,
            targets,
            logit_rows: targets.min(LOGIT_ROWS),
            backward: true,
        };
        let gradients = adapter * size_of::<f32>();
        card.lock().memory(|decoder| {
            let copy = adapter * decoder.config().storage.bytes();
            let decoding = session.bytes(decoder);
            let training = update.bytes(decoder) + gradients;
            copy + images.weights + decoding.max(training).max(images.work)
        })
    }

    /// The most memory of the card that was taken so far, by others as well, bytes. Nothing without a card.
    pub fn card_peak(&self) -> Option<usize> {
        self.card.as_deref().map(|card| card.lock().peak())
    }

    /// Seconds of a pass of one sequence of so many rows through all layers on the card. Nothing without a card.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn seconds_on_card(&self, rows: usize) -> Result<Option<f64>, CudaError> {
        let mut quickest: Option<f64> = None;
        for _ in 0..TRIES {
            let batch = CardBatch {
                x: Tensor::zeros([rows, self.config.hidden_size], &self.device()),
                positions: Positions::Single((0..rows).collect()),
                padding: vec![0],
                deep: Vec::new(),
                segments: None,
                rows: vec![rows - 1],
                targets: vec![0],
                temperature: 1.0,
            };
            let started = Instant::now();
            if CardScoring::forward(self, &batch, false)?.is_none() {
                return Ok(None);
            }
            let seconds = started.elapsed().as_secs_f64();
            quickest = Some(quickest.map_or(seconds, |quickest| quickest.min(seconds)));
        }
        Ok(quickest)
    }
}
