//! Steps of decoding on a card.

use burn::tensor::Tensor;
use fisao_cuda::{Continuation, CudaError, Decoder, Draw, Driver, Plan, Prompts, Session, Tokens};

use super::Llama;
use super::card::PREFILL_POSITIONS;
use super::card_session::CardSession;
use super::decoding_session::{PromptBatch, Sequences};
use crate::parameters::{floats, from_floats};

/// Several sequences behind their prompts, all of which lie on a card.
#[derive(Debug)]
pub(crate) struct CardDecoding(CardSession<Session>);

impl CardDecoding {
    /// Reads prompts; the sequences that continue them, and the state at each prompt's last token, normed, `[prompts, hidden]`. Nothing
    /// where the model has no card, or where it has one that cannot take this batch: that is logged, and the CPU does it.
    ///
    /// # Errors
    /// Those of the driver.
    pub(super) fn read(
        model: &Llama,
        prompts: &PromptBatch<'_>,
        sequences: &Sequences,
    ) -> Result<Option<(Self, Tensor<2>)>, CudaError> {
        let plan = Plan {
            prompts: prompts.padding.len(),
            prompt_length: prompts.length(),
            rows: sequences.of.len(),
            new_tokens: sequences.more,
            prefill_positions: PREFILL_POSITIONS,
        };
        let open =
            |driver: &mut dyn Driver, decoder: &Decoder| match Session::open(driver, decoder, plan)
            {
                Err(error @ CudaError::Memory { .. }) => {
                    tracing::warn!(%error, "the CPU decodes this batch");
                    Ok(None)
                }
                opened => opened.map(Some),
            };
        let Some(session) = CardSession::open(model, prompts.deep.len(), open)? else {
            return Ok(None);
        };
        let mut decoding = Self(session);
        let hidden = decoding.prefill(model, prompts, sequences)?;
        let shape = [prompts.padding.len(), model.config.hidden_size];
        Ok(Some((decoding, from_floats(hidden, shape, &model.device()))))
    }

    fn prefill(
        &mut self,
        model: &Llama,
        prompts: &PromptBatch<'_>,
        sequences: &Sequences,
    ) -> Result<Vec<f32>, CudaError> {
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
        let continuation = Continuation { of: sequences.of.clone(), lag: sequences.lag.clone() };
        self.0.run(|session, driver, decoder| {
            let hidden = session.prefill(driver, decoder, &read)?;
            session.begin(continuation)?;
            Ok(hidden)
        })
    }

    /// See [`DecodingSession::step`](super::decoding_session::DecodingSession::step).
    pub(super) fn step(&mut self, tokens: &[u32]) -> Result<&[f32], CudaError> {
        self.0.run(|session, driver, decoder| session.step(driver, decoder, tokens))
    }

    /// The same, but the next token of each sequence and its log-probability, which are chosen on the card: by the same rule as on the CPU,
    /// and without copying a number for each token of the vocabulary.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn step_sampled(
        &mut self,
        tokens: &[u32],
        draws: &[Draw],
    ) -> Result<Vec<(u32, f32)>, CudaError> {
        self.0.run(|session, driver, decoder| session.step_sampled(driver, decoder, tokens, draws))
    }

    /// See [`DecodingSession::rewind`](super::decoding_session::DecodingSession::rewind).
    pub(super) fn rewind(&mut self, row: usize, positions: usize) {
        self.0.run(|session, _, _| session.rewind(row, positions));
    }

    /// See [`DecodingSession::swap_remove`](super::decoding_session::DecodingSession::swap_remove).
    pub(super) fn swap_remove(&mut self, row: usize) -> Result<(), CudaError> {
        self.0.run(|session, driver, decoder| session.swap_remove(driver, decoder, row))
    }
}
