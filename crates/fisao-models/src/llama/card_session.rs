//! What is open on a card for a model: a batch that is decoded, or one that is scored. Its memory is given back when it is dropped.

use std::sync::Arc;

use fisao_cuda::{CudaError, Decoder, Driver, Session, Training};

use super::Llama;
use super::card::{self, Card};

/// What reserves memory of a card.
pub(super) trait Reserved {
    /// Gives it back.
    fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError>;
}

impl Reserved for Session {
    fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        Self::close(self, driver)
    }
}

impl Reserved for Training {
    fn close(self, driver: &mut dyn Driver) -> Result<(), CudaError> {
        Self::close(self, driver)
    }
}

/// Something open on a card, and what it runs with.
#[derive(Debug)]
pub(super) struct CardSession<R: Reserved> {
    card: Arc<Card>,
    /// Whether the model has an adapter.
    adapted: bool,
    /// Nothing once it is closed.
    reserved: Option<R>,
}

impl<R: Reserved> CardSession<R> {
    /// Makes the card's copy that of a model, and opens something. Nothing where the model has no card, or one that does not compute it:
    /// that is logged. Nothing, too, where `open` opens nothing. What the card does not take is counted. `deep` is the number of layers that states are added behind.
    pub(super) fn open(
        model: &Llama,
        deep: usize,
        open: impl FnOnce(&mut dyn Driver, &Decoder) -> Result<Option<R>, CudaError>,
    ) -> Result<Option<Self>, CudaError> {
        let Some(card) = model.card.as_ref().map(Arc::clone) else { return Ok(None) };
        let mut state = card.lock();
        if !card::is_supported(model) || deep > model.config.num_hidden_layers {
            tracing::warn!("the card does not compute this decoder: the CPU does");
            state.leave();
            return Ok(None);
        }
        let adapted = card::is_adapted(model);
        if !state.prepare(model)? {
            tracing::warn!("the card is at work with other weights: the CPU does this batch");
            state.leave();
            return Ok(None);
        }
        let (driver, decoder) = state.run(adapted);
        let reserved = open(driver, decoder)?;
        if reserved.is_none() {
            state.leave();
            return Ok(None);
        }
        state.opened(adapted);
        drop(state);
        Ok(Some(Self { card, adapted, reserved }))
    }

    /// Works with what is open.
    pub(super) fn run<'a, T>(
        &'a mut self,
        work: impl FnOnce(&'a mut R, &mut dyn Driver, &Decoder) -> T,
    ) -> T {
        let reserved = self.reserved.as_mut().expect("it is closed when it is dropped");
        let mut state = self.card.lock();
        let (driver, decoder) = state.run(self.adapted);
        work(reserved, driver, decoder)
    }
}

impl<R: Reserved> Drop for CardSession<R> {
    fn drop(&mut self) {
        let Some(reserved) = self.reserved.take() else { return };
        let mut state = self.card.lock();
        let (driver, _) = state.run(self.adapted);
        if let Err(error) = reserved.close(driver) {
            tracing::warn!(%error, "memory of a batch was not given back");
        }
        state.closed(self.adapted);
    }
}
