//! Scoring given responses: hidden states and log-probabilities of response tokens only.
//!
//! Rows are prompt + response, padded on the right. Under the causal mask no real position sees
//! padding, and states are gathered at response positions, so prompt, image and padding never reach
//! a loss or a statistic.

use std::sync::Arc;

use burn::tensor::{Tensor, activation};
use fisao_kernels::{Operation, is_fused, is_fused_weight, one, two};

use crate::attention::Mask;
use crate::generation::{Prefilled, Prompt};
use crate::llama::{LayerInputs, Pass, Positions};
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
    /// Where the states are that predict a token of a response.
    kept: Vec<i64>,
    /// Those tokens.
    targets: Vec<u32>,
}

impl SequenceLayout {
    /// The pass of these rows in which states are wanted that predict a token of a response.
    fn pass<'a>(&'a self, batch: usize, mask: &'a Mask) -> Pass<'a> {
        let DecoderInputs { x, positions, deep, .. } = &self.inputs;
        let wanted = Some(indices(self.kept.clone(), &x.device()));
        Pass { batch, positions, mask, wanted, deep }
    }
}

impl VisionLanguageModel {
    /// Runs the decoder over prompts and responses and gathers the states that predict the responses.
    ///
    /// # Shapes
    /// The result holds Σ response lengths rows.
    pub fn response_states(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
    ) -> ResponseStates {
        let (layout, mask) = (self.lay_out(examples, features), Mask::causal());
        let pass = layout.pass(examples.len(), &mask);
        let hidden = self.language_model().forward(layout.inputs.x.clone(), &pass, None);
        ResponseStates { hidden, targets: layout.targets }
    }

    /// The same of a model that does not train: a prompt about one image that several examples in a row have in common is
    /// read once for all of them.
    pub fn response_states_by_prompt(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
    ) -> ResponseStates {
        let groups: Vec<&[Example<'_>]> =
            examples.chunk_by(|a, b| a.image == b.image && a.prompt == b.prompt).collect();
        if groups.len() == examples.len() {
            return self.response_states(examples, features);
        }
        assert!(examples.iter().all(|one| !one.response.is_empty()), "a response has a token");
        let device = self.device();
        let prompts: Vec<Prompt> = groups
            .iter()
            .map(|group| Prompt { ids: group[0].prompt.to_vec(), image: group[0].image, stream: 0 })
            .collect();
        let longest = examples.iter().map(|example| example.prompt.len()).max().unwrap_or(0);
        // The last token of a response predicts nothing that is scored.
        let length = examples.iter().map(|example| example.response.len() - 1).max().unwrap_or(0);
        let Prefilled { cache, hidden: read, lag } = self.prefill(&prompts, longest, features);
        let group_of: Vec<usize> = groups
            .iter()
            .enumerate()
            .flat_map(|(group, examples)| std::iter::repeat_n(group, examples.len()))
            .collect();
        // Which states predict the responses: the prompt's last, and behind those of all prompts the responses' own.
        let (mut order, mut wanted, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (mut positions, mut padding, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (example, &group)) in examples.iter().zip(&group_of).enumerate() {
            let own = example.response.len() - 1;
            order.push(group as i64);
            order.extend((0..own).map(|at| (groups.len() + wanted.len() + at) as i64));
            wanted.extend((0..own).map(|at| (row * length + at) as i64));
            ids.extend(example.response[..own].iter().map(|&id| i64::from(id)));
            ids.resize((row + 1) * length, i64::from(self.tokens().pad));
            positions.extend((0..length).map(|at| longest - lag[group] + at));
            padding.push(longest - example.prompt.len());
            targets.extend_from_slice(example.response);
        }
        let mut states = vec![read];
        if !wanted.is_empty() {
            let mut cache = cache.spread(group_of, length);
            let wanted = Some(indices(wanted, &device));
            let mask = Mask::Causal { first: padding.into() };
            let (batch, positions) = (examples.len(), Positions::Single(positions));
            let pass = Pass { batch, positions: &positions, mask: &mask, wanted, deep: &[] };
            let x = self.language_model().embed(indices(ids, &device));
            states.push(self.language_model().forward(x, &pass, Some(&mut cache)));
        }
        let hidden = Tensor::cat(states, 0).select(0, indices(order, &device));
        ResponseStates { hidden, targets }
    }

    /// The same of a model that trains, and the inputs of its layers, which are recomputed in the backward pass. `frozen` is the same
    /// model, not training; what comes before the layers has to be constant.
    pub(crate) fn checkpointed_states(
        &self,
        frozen: &Self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
    ) -> (ResponseStates, LayerInputs) {
        let (layout, mask) = (frozen.lay_out(examples, features), Mask::causal());
        let pass = layout.pass(examples.len(), &mask);
        let inputs = frozen.language_model().layer_inputs(layout.inputs.x.clone(), &pass);
        let hidden = self.language_model().finish(&inputs);
        (ResponseStates { hidden, targets: layout.targets }, inputs)
    }

    /// Prompts and responses as one batch of rows.
    fn lay_out(&self, examples: &[Example<'_>], features: &ImageFeatures) -> SequenceLayout {
        let batch = examples.len();
        // The last token of a row predicts nothing that is scored, so it is left out.
        let lengths: Vec<usize> =
            examples.iter().map(|e| e.prompt.len() + e.response.len() - 1).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let mut rows = Vec::with_capacity(batch);
        let mut kept = Vec::new();
        let mut targets = Vec::new();
        for (index, example) in examples.iter().enumerate() {
            let mut row = [example.prompt, example.response].concat();
            row.pop();
            row.resize(length, self.tokens().pad);
            rows.push(row);
            let first = index * length + example.prompt.len() - 1;
            kept.extend((first..first + example.response.len()).map(|at| at as i64));
            targets.extend_from_slice(example.response);
        }
        let images: Vec<usize> = examples.iter().map(|example| example.image).collect();
        let rows = PromptRows { rows: &rows, images: &images, padding: &[] };
        SequenceLayout { inputs: self.decoder_inputs(rows, features), kept, targets }
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

/// Log-probabilities and entropies from single operations: `[tokens, vocabulary]` → `[tokens, 2]`.
pub(crate) fn composed(logits: Tensor<2>, targets: &[u32], temperature: f64) -> Tensor<2> {
    let device = logits.device();
    let distribution = activation::log_softmax(logits / temperature, 1);
    let targets = indices(targets.iter().map(|&id| i64::from(id)).collect(), &device);
    let chosen = distribution.clone().gather(1, targets.unsqueeze_dim(1));
    let entropy = (distribution.clone().exp() * distribution).sum_dim(1).neg();
    Tensor::cat(vec![chosen, entropy], 1)
}
