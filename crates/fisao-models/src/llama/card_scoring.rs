//! Scores of given tokens on a card, and the gradients of an adapter with respect to them.

use burn::tensor::{Gradients, Tensor};
use fisao_cuda::kernels::Segments;
use fisao_cuda::{
    AdapterGradient, CudaError, Scored, Tokens, Training, TrainingBatch, TrainingPlan,
};

use super::card;
use super::card_session::CardSession;
use super::{Llama, Positions};
use crate::parameters::{floats, from_floats};

/// Rows of logits that are on the card at a time.
pub(super) const LOGIT_ROWS: usize = 1024;

/// Sequences of equal length, shorter ones padded on the left, and the tokens of them that are scored.
#[derive(Debug)]
pub(crate) struct CardBatch {
    /// Embeddings, `[sequences · length, hidden]`.
    pub(crate) x: Tensor<2>,
    /// `[sequences · length]`
    pub(crate) positions: Positions,
    /// Positions of padding before each sequence.
    pub(crate) padding: Vec<usize>,
    /// See [`Pass::deep`](super::Pass::deep).
    pub(crate) deep: Vec<Tensor<2>>,
    /// Where a sequence is a prompt with several responses behind it.
    pub(crate) segments: Option<Segments>,
    /// Rows of `x` whose states predict a token.
    pub(crate) rows: Vec<usize>,
    /// The token that each of them predicts.
    pub(crate) targets: Vec<u32>,
    /// Divides the logits.
    pub(crate) temperature: f32,
}

/// A batch that was scored on a card, as long as gradients are wanted of it.
#[derive(Debug)]
pub(crate) struct CardScoring(CardSession<Training>);

impl CardScoring {
    /// Scores a batch. Nothing where the model has no card, or one that does not compute it: that is logged.
    pub(crate) fn forward(
        model: &Llama,
        batch: &CardBatch,
        backward: bool,
    ) -> Result<Option<(Self, Scored)>, CudaError> {
        let (sequences, targets) = (batch.padding.len(), batch.targets.len());
        let plan = TrainingPlan {
            sequences,
            length: batch.x.dims()[0] / sequences.max(1),
            targets,
            logit_rows: targets.min(LOGIT_ROWS),
            backward,
        };
        let opened = CardSession::open(model, batch.deep.len(), |driver, decoder| {
            Training::open(driver, decoder, plan).map(Some)
        })?;
        let Some(mut session) = opened else { return Ok(None) };
        let x = floats(&batch.x);
        let deep: Vec<Vec<f32>> = batch.deep.iter().map(floats).collect();
        let deep: Vec<&[f32]> = deep.iter().map(Vec::as_slice).collect();
        let batch = TrainingBatch {
            tokens: Tokens::Embeddings(&x),
            positions: &batch.positions.for_card(model.config.positions),
            padding: &batch.padding,
            segments: batch.segments,
            deep: &deep,
            rows: &batch.rows,
            targets: &batch.targets,
            temperature: batch.temperature,
        };
        let scored =
            session.run(|training, driver, decoder| training.forward(driver, decoder, &batch))?;
        Ok(Some((Self(session), scored)))
    }

    /// The gradients of the adapter, from those of log-probabilities and entropies, `[targets]` each, and of the states, `[targets,
    /// hidden]` or empty.
    pub(crate) fn backward(
        mut self,
        gradients: [&[f32]; 3],
    ) -> Result<Vec<AdapterGradient>, CudaError> {
        self.0.run(|training, driver, decoder| {
            training.backward(driver, decoder, gradients)?;
            training.gradients(driver, decoder)
        })
    }
}

impl Llama {
    /// Whether no weight of the decoder trains but adapters of layers, whose gradients a card computes.
    pub(crate) fn trains_nothing_but_adapters(&self) -> bool {
        card::is_supported(self) && !card::weights_train(self)
    }

    /// Puts gradients of the adapter among others.
    pub(crate) fn put_adapter_gradients(
        &self,
        gradients: &mut Gradients,
        found: Vec<AdapterGradient>,
    ) {
        let device = self.device();
        for AdapterGradient { layer, target, a, b } in found {
            let adapter = card::adapter_of(self, layer, target).expect("the adapter on the card");
            for (matrix, values) in [(&adapter.a, a), (&adapter.b, b)] {
                if matrix.is_require_grad() {
                    matrix.grad_replace(gradients, from_floats(values, matrix.dims(), &device));
                }
            }
        }
    }
}
