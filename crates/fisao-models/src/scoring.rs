//! What a model says of given responses, on the device that it runs on, and the backward pass from that.
//!
//! A model with a card scores there what the card computes: log-probabilities and entropies without a tensor of the size of the
//! vocabulary, and gradients of the adapter with the layers recomputed. All else is computed by operations on tensors.

use burn::tensor::{Gradients, Tensor};
use fisao_cuda::Scored;
use fisao_cuda::kernels::Segments;

use crate::generation::{LaidOut, Prompt};
use crate::llama::{CardBatch, CardScoring, LayerInputs};
use crate::parallel::workers_on;
use crate::parameters::{floats, from_floats, indices};
use crate::sequences::{Example, by_prompt};
use crate::vision_language::{ImageFeatures, VisionLanguageModel};

pub use fisao_cuda::CudaError;

/// What a model says of the tokens of responses, one response after the other.
#[derive(Debug, Clone)]
pub struct ResponseScores {
    /// The state that predicts each token, normed, `[tokens, hidden]`.
    pub hidden: Tensor<2>,
    /// Log-probability of each token, nats, `[tokens]`.
    pub log_probs: Tensor<1>,
    /// Entropy of the distribution that each token is from, nats, `[tokens]`.
    pub entropies: Tensor<1>,
}

/// What the backward pass from [`VisionLanguageModel::training_scores`] needs besides the loss.
#[derive(Debug)]
pub struct BackwardPass(Kept);

#[derive(Debug)]
enum Kept {
    /// All of it is in the loss' graph.
    Nothing,
    /// The inputs of layers that are recomputed.
    LayerInputs(Box<LayerInputs>),
    /// What lies on a card, and the scores, from which the loss' graph begins.
    Card(Box<(CardScoring, ResponseScores)>),
}

impl ResponseScores {
    fn from_card(scored: Scored, model: &VisionLanguageModel) -> Self {
        let Scored { log_probs, entropies, states } = scored;
        let (device, count) = (model.device(), log_probs.len());
        let hidden = model.language_model().config().hidden_size;
        Self {
            hidden: from_floats(states, [count, hidden], &device),
            log_probs: from_floats(log_probs, [count], &device),
            entropies: from_floats(entropies, [count], &device),
        }
    }

    /// The same as leaves of a graph.
    fn tracked(self) -> Self {
        let Self { hidden, log_probs, entropies } = self;
        Self {
            hidden: hidden.autodiff().require_grad(),
            log_probs: log_probs.autodiff().require_grad(),
            entropies: entropies.autodiff().require_grad(),
        }
    }
}

impl VisionLanguageModel {
    /// How many workers score responses best: one for each core of the CPU, or one where another device computes.
    pub fn scoring_workers(&self) -> usize {
        if self.language_model().card_name().is_some() { 1 } else { workers_on(&self.device()) }
    }

    /// Scores responses by a model that does not train, at a temperature. A prompt about one image that several examples in a row have
    /// in common is read once for all of them, here and when it trains.
    ///
    /// # Errors
    /// [`CudaError`] of the model's card: [`CudaError::Memory`] where it has no room for the examples.
    pub fn response_scores(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
        temperature: f64,
    ) -> Result<ResponseScores, CudaError> {
        if let Some((_, scores)) = self.score_on_card((examples, features), temperature, false)? {
            return Ok(scores);
        }
        let states = self.response_states(examples, features);
        let (log_probs, entropies) = self.log_probabilities(&states, temperature);
        Ok(ResponseScores { hidden: states.hidden, log_probs, entropies })
    }

    /// The same of a model that trains, with what [`backward`](Self::backward) needs. With `recomputed`, which is the same model, not
    /// training, gradients are checkpointed: the inputs of layers are kept and their activations recomputed in the backward pass, in
    /// the memory of one layer; what comes before the layers has to be constant then. A card always does that.
    ///
    /// # Errors
    /// As [`response_scores`](Self::response_scores).
    pub fn training_scores(
        &self,
        recomputed: Option<&Self>,
        examples: &[Example<'_>],
        features: &ImageFeatures,
        temperature: f64,
    ) -> Result<(ResponseScores, BackwardPass), CudaError> {
        if let Some((scoring, scores)) =
            self.score_on_card((examples, features), temperature, true)?
        {
            let scores = scores.tracked();
            let kept = Kept::Card(Box::new((scoring, scores.clone())));
            return Ok((scores, BackwardPass(kept)));
        }
        let (states, kept) = match recomputed {
            None => (self.response_states(examples, features), Kept::Nothing),
            Some(frozen) => {
                let (states, inputs) = self.checkpointed_states(frozen, examples, features);
                (states, Kept::LayerInputs(Box::new(inputs)))
            }
        };
        let (log_probs, entropies) = self.log_probabilities(&states, temperature);
        Ok((ResponseScores { hidden: states.hidden, log_probs, entropies }, BackwardPass(kept)))
    }

    /// Backward pass from a loss of [`training_scores`](Self::training_scores): its gradients, and where layers are recomputed one
    /// set more for each of them.
    ///
    /// # Errors
    /// Those of the card's driver.
    pub fn backward(
        &self,
        pass: BackwardPass,
        loss: &Tensor<1>,
    ) -> Result<Vec<Gradients>, CudaError> {
        let mut gradients = loss.backward();
        match pass.0 {
            Kept::Nothing => Ok(vec![gradients]),
            Kept::LayerInputs(inputs) => Ok(self.language_model().backward(*inputs, gradients)),
            Kept::Card(kept) => {
                let (scoring, ResponseScores { hidden, log_probs, entropies }) = *kept;
                let of_column = |column: &Tensor<1>, gradients: &mut Gradients| {
                    let found = column.grad_remove(gradients);
                    found.map_or_else(|| vec![0.0; column.dims()[0]], |found| floats(&found))
                };
                let by_log_probs = of_column(&log_probs, &mut gradients);
                let by_entropies = of_column(&entropies, &mut gradients);
                let by_states = hidden.grad_remove(&mut gradients);
                let by_states = by_states.map(|found| floats(&found)).unwrap_or_default();
                let found = scoring.backward([&by_log_probs, &by_entropies, &by_states])?;
                self.language_model().put_adapter_gradients(&mut gradients, found);
                Ok(vec![gradients])
            }
        }
    }

    /// Scores on the card; nothing where the model has none, or one that does not compute this.
    fn score_on_card(
        &self,
        (examples, features): (&[Example<'_>], &ImageFeatures),
        temperature: f64,
        backward: bool,
    ) -> Result<Option<(CardScoring, ResponseScores)>, CudaError> {
        let decoder = self.language_model();
        if decoder.card_name().is_none() || (backward && !decoder.trains_nothing_but_adapters()) {
            return Ok(None);
        }
        let batch = self.card_batch(examples, features, temperature);
        if backward && batch.x.is_tracked() {
            return Ok(None);
        }
        let scored = CardScoring::forward(decoder, &batch, backward)?;
        Ok(scored.map(|(scoring, scored)| (scoring, ResponseScores::from_card(scored, self))))
    }

    /// Lays out prompts, padded on the left, each with the responses to it behind it, padded behind.
    fn card_batch(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
        temperature: f64,
    ) -> CardBatch {
        assert!(examples.iter().all(|one| !one.response.is_empty()), "a response has a token");
        let prompt = examples.iter().map(|one| one.prompt.len()).max().unwrap_or(0);
        // The last token of a response predicts nothing that is scored.
        let segment = examples.iter().map(|one| one.response.len() - 1).max().unwrap_or(0);
        let groups = groups(examples, [prompt, segment]);
        let behind = groups.iter().map(|group| group.len()).max().unwrap_or(0) * segment;
        let length = prompt + behind;
        let (mut ids, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (index, group) in groups.iter().enumerate() {
            for (place, example) in group.iter().enumerate() {
                let own = &example.response[..example.response.len() - 1];
                ids.extend(own.iter().map(|&id| i64::from(id)));
                ids.resize(index * behind + (place + 1) * segment, i64::from(self.tokens().pad));
                let first = index * length + prompt;
                rows.push(first - 1);
                rows.extend((0..own.len()).map(|at| first + place * segment + at));
                targets.extend_from_slice(example.response);
            }
            ids.resize((index + 1) * behind, i64::from(self.tokens().pad));
        }
        let prompts: Vec<Prompt> = groups
            .iter()
            .map(|group| Prompt { ids: group[0].prompt.to_vec(), image: group[0].image, stream: 0 })
            .collect();
        let LaidOut { inputs, padding, lag } = self.lay_out_prompts(&prompts, prompt, features);
        let responses = self.language_model().embed(indices(ids, &self.device()));
        let join = |before: Tensor<2>, responses: Tensor<2>| {
            if behind == 0 {
                return before;
            }
            let (count, width) = (groups.len(), before.dims()[1]);
            let [before, responses] = [(before, prompt), (responses, behind)]
                .map(|(part, length)| part.reshape([count, length, width]));
            Tensor::cat(vec![before, responses], 1).reshape([count * length, width])
        };
        let deep = inputs.deep.into_iter().map(|deep| join(deep, responses.zeros_like())).collect();
        let places = lag.iter().flat_map(|lag| {
            (0..behind).map(move |at| prompt - lag + at.checked_rem(segment).unwrap_or(0))
        });
        let places: Vec<usize> = places.collect();
        CardBatch {
            x: join(inputs.x, responses),
            positions: inputs.positions.with_behind(&places, groups.len()),
            padding,
            deep,
            segments: (behind > segment).then_some(Segments { prefix: prompt, length: segment }),
            rows,
            targets,
            temperature: temperature as f32,
        }
    }
}

/// Examples in a row that share a prompt and an image; each on its own where that is fewer rows, as groups are as long as the longest.
fn groups<'a>(
    examples: &'a [Example<'a>],
    [prompt, segment]: [usize; 2],
) -> Vec<&'a [Example<'a>]> {
    let shared: Vec<&[Example<'_>]> = by_prompt(examples).collect();
    let most = shared.iter().map(|group| group.len()).max().unwrap_or(0);
    if shared.len() * (prompt + most * segment) < examples.len() * (prompt + segment) {
        shared
    } else {
        examples.chunks(1).collect()
    }
}
