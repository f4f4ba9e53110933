//! Steps of decoding on a card.

use std::sync::Arc;

use burn::tensor::Tensor;
use fisao_cuda::{Continuation, CudaError, Plan, Prompts, Session, Tokens};

use super::Llama;
use super::card::{self, Card, PREFILL_POSITIONS};
use super::decoding_session::{PromptBatch, Sequences};
use crate::parameters::{floats, from_floats};

/// Several sequences behind their prompts, all of which lie on a card.
#[derive(Debug)]
pub(crate) struct CardDecoding {
    card: Arc<Card>,
    /// Whether the model has an adapter.
    adapted: bool,
    /// Nothing once it is closed.
    session: Option<Session>,
}

/// What a driver's failure becomes: generation has no answer to it.
fn done<T>(result: Result<T, CudaError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

impl CardDecoding {
    /// Reads prompts; the sequences that continue them, and the state at each prompt's last token, normed, `[prompts, hidden]`. Nothing
    /// where the model has no card, or where it has one that cannot take this batch: that is logged, and the CPU does it.
    pub(super) fn read(
        model: &Llama,
        prompts: &PromptBatch<'_>,
        sequences: &Sequences,
    ) -> Option<(Self, Tensor<2>)> {
        let card = Arc::clone(model.card.as_ref()?);
        if !card::is_supported(model) || prompts.deep.len() > model.config.num_hidden_layers {
            tracing::warn!("the card does not compute this decoder: the CPU does");
            return None;
        }
        let adapted = card::is_adapted(model);
        let mut state = card.lock();
        if !done(state.prepare(model)) {
            tracing::warn!("the card is at work with other weights: the CPU decodes this batch");
            return None;
        }
        let plan = Plan {
            prompts: prompts.padding.len(),
            prompt_length: prompts.length(),
            rows: sequences.of.len(),
            new_tokens: sequences.more,
            prefill_positions: PREFILL_POSITIONS,
        };
        let (driver, decoder) = state.run(adapted);
        let session = match Session::open(driver, decoder, plan) {
            Err(error @ CudaError::Memory { .. }) => {
                tracing::warn!(%error, "the CPU decodes this batch");
                return None;
            }
            opened => done(opened),
        };
        state.opened(adapted);
        drop(state);
        // Whatever fails from here on, the session is closed.
        let mut decoding = Self { card, adapted, session: Some(session) };
        let hidden = decoding.prefill(model, prompts, sequences);
        let shape = [prompts.padding.len(), model.config.hidden_size];
        Some((decoding, from_floats(hidden, shape, &model.device())))
    }

    fn prefill(
        &mut self,
        model: &Llama,
        prompts: &PromptBatch<'_>,
        sequences: &Sequences,
    ) -> Vec<f32> {
        let x = floats(&prompts.x);
        let positions = prompts.positions.for_card(model.config.positions);
        let deep: Vec<Vec<f32>> = prompts.deep.iter().map(floats).collect();
        let deep: Vec<&[f32]> = deep.iter().map(Vec::as_slice).collect();
        let read = Prompts {
            tokens: Tokens::Embeddings(&x),
            positions: &positions,
            padding: prompts.padding,
            deep: &deep,
        };
        let session = self.session.as_mut().expect("an open session");
        let mut state = self.card.lock();
        let (driver, decoder) = state.run(self.adapted);
        let hidden = done(session.prefill(driver, decoder, &read));
        let continuation = Continuation { of: sequences.of.clone(), lag: sequences.lag.clone() };
        done(session.begin(continuation));
        hidden
    }

    /// See [`DecodingSession::step`](super::decoding_session::DecodingSession::step).
    pub(super) fn step(&mut self, tokens: &[u32]) -> &[f32] {
        let session = self.session.as_mut().expect("an open session");
        let mut state = self.card.lock();
        let (driver, decoder) = state.run(self.adapted);
        done(session.step(driver, decoder, tokens))
    }

    /// See [`DecodingSession::rewind`](super::decoding_session::DecodingSession::rewind).
    pub(super) fn rewind(&mut self, row: usize, positions: usize) {
        self.session.as_mut().expect("an open session").rewind(row, positions);
    }

    /// See [`DecodingSession::swap_remove`](super::decoding_session::DecodingSession::swap_remove).
    pub(super) fn swap_remove(&mut self, row: usize) {
        let session = self.session.as_mut().expect("an open session");
        let mut state = self.card.lock();
        let (driver, decoder) = state.run(self.adapted);
        done(session.swap_remove(driver, decoder, row));
    }
}

impl Drop for CardDecoding {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut state = self.card.lock();
        let (driver, _) = state.run(self.adapted);
        if let Err(error) = session.close(driver) {
            tracing::warn!(%error, "memory of a batch was not given back");
        }
        state.closed(self.adapted);
    }
}
