//! Scoring given responses: hidden states and log-probabilities of response tokens only.
//!
//! Rows are a prompt with the responses to it one behind the other, padded on the right: what responses have in common is computed
//! once, forward and backward. A response sees the prompt and itself, at the positions that it would have right behind the prompt, so
//! that gradients are those of a row for each response (Liu et al. 2025, *Prefix Grouper*, arXiv 2506.05433). No real position sees
//! padding, and states are gathered at response positions, so prompt, image and padding never reach a loss or a statistic.

use std::sync::Arc;

use burn::tensor::{Tensor, activation};
use fisao_kernels::{Operation, is_fused, is_fused_weight, one, two};

use crate::attention::{Mask, SharedPrefix};
use crate::llama::{LayerInputs, Pass};
use crate::parameters::indices;
use crate::vision_language::{DecoderInputs, ImageFeatures, PromptRows, VisionLanguageModel};

/// A prompt about one image with a response to score.
#[derive(Debug, Clone)]
pub struct Example<'a> {
    /// Prompt ids, image placeholder already expanded.
    pub prompt: &'a [u32],
    /// Which row of the image features it shows.
    pub image: usize,
    /// Response ids, with the end token if the response has ended.
    pub response: &'a [u32],
}

/// Decoder states from which each response token was predicted.
#[derive(Debug, Clone)]
pub struct ResponseStates {
    /// `[tokens, hidden]`, the responses one after the other.
    pub hidden: Tensor<2>,
    /// The token predicted from each state.
    pub targets: Vec<u32>,
}

/// A batch of rows, padded on the right.
struct SequenceLayout {
    inputs: DecoderInputs,
    rows: usize,
    mask: Mask,
    /// Where the states are that predict a token of a response.
    kept: Vec<i64>,
    /// Those tokens.
    targets: Vec<u32>,
}

impl SequenceLayout {
    /// The pass of these rows in which states are wanted that predict a token of a response.
    fn pass(&self) -> Pass<'_> {
        let DecoderInputs { x, positions, deep, .. } = &self.inputs;
        let wanted = Some(indices(self.kept.clone(), &x.device()));
        Pass { batch: self.rows, positions, mask: &self.mask, wanted, deep }
    }
}

impl VisionLanguageModel {
    /// Runs the decoder over prompts and responses and gathers the states that predict the responses. A prompt about one image that
    /// several examples in a row have in common is read once for all of them.
    ///
    /// # Panics
    /// A response has no token.
    ///
    /// # Shapes
    /// The result holds Σ response lengths rows.
    pub fn response_states(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
    ) -> ResponseStates {
        let layout = self.lay_out(examples, features);
        let pass = layout.pass();
        let hidden = self.language_model().forward(layout.inputs.x.clone(), &pass, None);
        ResponseStates { hidden, targets: layout.targets }
    }

    /// The same of a model that trains, and the inputs of its layers, which are recomputed in the backward pass. `frozen` is the same
    /// model, not training; what comes before the layers has to be constant.
    pub(crate) fn checkpointed_states(
        &self,
        frozen: &Self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
    ) -> (ResponseStates, LayerInputs) {
        let layout = frozen.lay_out(examples, features);
        let inputs = frozen.language_model().layer_inputs(layout.inputs.x.clone(), &layout.pass());
        let hidden = self.language_model().finish(&inputs);
        (ResponseStates { hidden, targets: layout.targets }, inputs)
    }

    /// Prompts and responses as one batch of rows.
    fn lay_out(&self, examples: &[Example<'_>], features: &ImageFeatures) -> SequenceLayout {
        assert!(examples.iter().all(|one| !one.response.is_empty()), "a response has a token");
        let groups = self.sharing_a_row(examples);
        let length = groups.iter().map(|group| row_length(group)).max().unwrap_or(0);
        let mut rows = Vec::with_capacity(groups.len());
        let (mut kept, mut targets) = (Vec::new(), Vec::new());
        let (mut prefixes, mut places) = (Vec::new(), Vec::new());
        for (index, group) in groups.iter().enumerate() {
            let (first, prompt) = (index * length, group[0].prompt);
            let mut row = prompt.to_vec();
            places.extend(first..first + prompt.len());
            let mut ends = Vec::with_capacity(group.len());
            for Example { response, .. } in *group {
                // The last token of a response predicts nothing that is scored, so it is left out.
                let own = &response[..response.len() - 1];
                let of_own = (0..own.len()).map(|at| (first + row.len() + at) as i64);
                kept.push((first + prompt.len() - 1) as i64);
                kept.extend(of_own);
                targets.extend_from_slice(response);
                places.extend((0..own.len()).map(|at| first + prompt.len() + at));
                row.extend_from_slice(own);
                ends.push(row.len());
            }
            places.extend(first + row.len()..first + length);
            row.resize(length, self.tokens().pad);
            rows.push(row);
            prefixes.push(SharedPrefix { prefix: prompt.len(), ends });
        }
        let images: Vec<usize> = groups.iter().map(|group| group[0].image).collect();
        let of_rows = PromptRows { rows: &rows, images: &images, padding: &[] };
        let mut inputs = self.decoder_inputs(of_rows, features);
        let mut mask = Mask::causal();
        if groups.len() < examples.len() {
            inputs.positions = inputs.positions.select(&places);
            mask = Mask::SharedPrefix { rows: prefixes.into() };
        }
        SequenceLayout { inputs, rows: rows.len(), mask, kept, targets }
    }

    /// Examples in a row that share a prompt and an image, to be laid out in one row; each on its own where a sliding window hides the
    /// beginning of the longest.
    fn sharing_a_row<'a>(&self, examples: &'a [Example<'a>]) -> Vec<&'a [Example<'a>]> {
        let longest = examples.chunks(1).map(row_length).max().unwrap_or(0);
        if self.language_model().config().sliding_window.is_some_and(|window| window < longest) {
            return examples.chunks(1).collect();
        }
        by_prompt(examples).collect()
    }

    /// Log-probabilities of the states' targets at a temperature, and the entropy of each
    /// prediction, nats.
    ///
    /// # Shapes
    /// two of `[tokens]`.
    pub fn log_probabilities(
        &self,
        states: &ResponseStates,
        temperature: f64,
    ) -> (Tensor<1>, Tensor<1>) {
        let count = states.targets.len();
        let hidden = states.hidden.clone();
        let matrix = self.language_model().output_matrix();
        let both: Tensor<2> = if is_fused(&hidden) {
            let targets = Arc::new(states.targets.clone());
            let temperature = temperature as f32;
            if let Some(matrix) = matrix.filter(|matrix| is_fused_weight(matrix)) {
                two(hidden, matrix.clone(), Operation::HeadLogProbs { targets, temperature })
            } else {
                let logits = self.language_model().logits(hidden);
                one(logits, Operation::TokenLogProbs { targets, temperature })
            }
        } else {
            let logits = self.language_model().logits(hidden);
            composed(logits, &states.targets, temperature)
        };
        let column = |at: usize| both.clone().narrow(1, at, 1).reshape([count]);
        (column(0), column(1))
    }

    /// Log-probabilities of all tokens: `[tokens, vocabulary]`.
    pub fn log_distribution(&self, states: &ResponseStates, temperature: f64) -> Tensor<2> {
        let logits = self.language_model().logits(states.hidden.clone());
        activation::log_softmax(logits / temperature, 1)
    }
}

/// Examples in a row that share a prompt and an image.
pub(crate) fn by_prompt<'a>(
    examples: &'a [Example<'a>],
) -> impl Iterator<Item = &'a [Example<'a>]> {
    examples.chunk_by(|a, b| a.image == b.image && a.prompt == b.prompt)
}

/// Places of a row that begins with a prompt and goes on with all responses to it.
fn row_length(group: &[Example<'_>]) -> usize {
    let responses: usize = group.iter().map(|one| one.response.len() - 1).sum();
    group[0].prompt.len() + responses
}

/// Log-probabilities and entropies from single operations: `[tokens, vocabulary]` → `[tokens, 2]`.
pub(crate) fn composed(logits: Tensor<2>, targets: &[u32], temperature: f64) -> Tensor<2> {
    let device = logits.device();
    let distribution = activation::log_softmax(logits / temperature, 1);
    let targets = indices(targets.iter().map(|&id| i64::from(id)).collect(), &device);
    let chosen = distribution.clone().gather(1, targets.unsqueeze_dim(1));
    let entropy = (distribution.clone().exp() * distribution).sum_dim(1).neg();
    Tensor::cat(vec![chosen, entropy], 1)
}
