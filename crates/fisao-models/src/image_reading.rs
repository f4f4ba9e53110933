//! What the decoder's own head reads at the positions of an image.
//!
//! Paper: Jiang et al. 2024, *Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations*,
//! arXiv 2410.02762, after the logit lens: the hidden states at image positions go through final norm and output matrix as
//! if the next token were to be predicted there, and a word that is in the image stands out somewhere.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::attention::Mask;
use crate::llama::Pass;
use crate::parameters::{floats, indices};
use crate::sequences::Example;
use crate::vision_language::{DecoderInputs, ImageFeatures, PromptRows, VisionLanguageModel};

/// Rows whose logits over the vocabulary are held at once.
const ROWS: usize = 64;

impl VisionLanguageModel {
    /// For the prompt of each example and each of some tokens the highest log-probability, nats, that the head gives the token at any
    /// position of the image, behind any of the last `depth` layers:
    ///
    /// ```text
    /// reading(w) = max over layers l and image positions i of log softmax(W_U · norm(h_{l,i}))[w]
    /// ```
    ///
    /// What follows the image, responses included, takes no part. Result: `[examples][tokens]`.
    ///
    /// # Panics
    /// A prompt holds another number of placeholders than its image has features.
    pub fn read_images(
        &self,
        examples: &[Example<'_>],
        features: &ImageFeatures,
        tokens: &[u32],
        depth: usize,
    ) -> Vec<Vec<f64>> {
        let mut best = vec![vec![f64::NEG_INFINITY; tokens.len()]; examples.len()];
        if tokens.is_empty() {
            return best;
        }
        let prompts: Vec<&[u32]> = examples.iter().map(|shown| shown.prompt).collect();
        let images: Vec<usize> = examples.iter().map(|shown| shown.image).collect();
        self.each_image_state((&prompts, &images), features, depth, &mut |example, states| {
            let found = self.highest(&states, tokens);
            best[example].iter_mut().zip(found).for_each(|(best, found)| *best = best.max(found));
        });
        best
    }

    /// The same [reading](Self::read_images) of every token of the vocabulary: `prompts[i]` is about image `i` of `features`.
    /// Result: `[images][vocabulary]`.
    ///
    /// Never more than the states of one layer and the logits of some of its rows are held.
    ///
    /// # Panics
    /// A prompt holds another number of placeholders than its image has features.
    pub fn peak_log_probabilities(
        &self,
        prompts: &[&[u32]],
        features: &ImageFeatures,
        depth: usize,
    ) -> Vec<Vec<f32>> {
        let images: Vec<usize> = (0..prompts.len()).collect();
        let mut best: Vec<Option<Tensor<2>>> = vec![None; prompts.len()];
        self.each_image_state((prompts, &images), features, depth, &mut |image, states| {
            for part in self.log_probability_blocks(&states) {
                let peaks = part.max_dim(0);
                best[image] = Some(match best[image].take() {
                    Some(best) => best.max_pair(peaks),
                    None => peaks,
                });
            }
        });
        best.iter().map(|best| best.as_ref().map_or_else(Vec::new, floats)).collect()
    }

    /// Where in one image some tokens are read: for each the highest log-probability, nats, that the head gives it behind any of the
    /// last `depth` layers, at each position of the image. Result: `[tokens][positions]`.
    ///
    /// # Panics
    /// The prompt holds another number of placeholders than the image has features.
    pub fn position_log_probabilities(
        &self,
        prompt: &[u32],
        features: &ImageFeatures,
        tokens: &[u32],
        depth: usize,
    ) -> Vec<Vec<f64>> {
        let positions = features.counts()[0];
        let mut best = vec![vec![f64::NEG_INFINITY; positions]; tokens.len()];
        if tokens.is_empty() {
            return best;
        }
        let columns = indices(tokens.iter().map(|&id| i64::from(id)).collect(), &self.device());
        self.each_image_state((&[prompt], &[0]), features, depth, &mut |_, states| {
            let mut position = 0;
            for part in self.log_probability_blocks(&states) {
                let rows = floats(&part.select(1, columns.clone()));
                for row in rows.chunks_exact(tokens.len()) {
                    for (best, &found) in best.iter_mut().zip(row) {
                        best[position] = best[position].max(f64::from(found));
                    }
                    position += 1;
                }
            }
        });
        best
    }

    /// Shows `visit` the normed states at the image's positions, `[positions, hidden]`, behind each of the last `depth` layers, of
    /// each of some prompts: its index, and the states. `images[i]` is which image prompt `i` is about.
    fn each_image_state(
        &self,
        (prompts, images): (&[&[u32]], &[usize]),
        features: &ImageFeatures,
        depth: usize,
        visit: &mut dyn FnMut(usize, Tensor<2>),
    ) {
        let placeholder = self.tokens().image;
        // What comes behind the image is not seen from it.
        let cut = |prompt: &&[u32]| {
            let end = prompt.iter().rposition(|&id| id == placeholder).map_or(0, |at| at + 1);
            prompt[..end].to_vec()
        };
        let mut rows: Vec<Vec<u32>> = prompts.iter().map(cut).collect();
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        if length == 0 {
            return;
        }
        let mut wanted = Vec::new();
        for (index, row) in rows.iter_mut().enumerate() {
            let count = features.counts()[images[index]];
            let own = (0..row.len()).filter(|&at| row[at] == placeholder).take(count);
            wanted.extend(own.map(|at| (index * length + at) as i64));
            row.resize(length, self.tokens().pad);
        }
        let (batch, mask) = (rows.len(), Mask::causal());
        let rows = PromptRows { rows: &rows, images, padding: &[] };
        let DecoderInputs { x, positions, deep, .. } = self.decoder_inputs(rows, features);
        let wanted = Some(indices(wanted, &self.device()));
        let pass = Pass { batch, positions: &positions, mask: &mask, wanted, deep: &deep };
        self.language_model().each_layer_state(x, &pass, depth.max(1), &mut |states| {
            let mut first = 0;
            for (index, &image) in images.iter().enumerate() {
                let count = features.counts()[image];
                visit(index, states.clone().narrow(0, first, count));
                first += count;
            }
        });
    }

    /// Log-probabilities of all tokens at rows of normed states `[rows, hidden]`, some rows at a time: `[≤ ROWS, vocabulary]` each.
    fn log_probability_blocks<'a>(
        &'a self,
        states: &'a Tensor<2>,
    ) -> impl Iterator<Item = Tensor<2>> + 'a {
        let rows = states.dims()[0];
        (0..rows).step_by(ROWS).map(move |first| {
            let part = states.clone().narrow(0, first, ROWS.min(rows - first));
            log_softmax(self.language_model().logits(part), 1)
        })
    }

    /// Highest log-probability of each of some tokens over rows of normed states, `[rows, hidden]`; never more logits than
    /// those of [`ROWS`] rows are held.
    fn highest(&self, states: &Tensor<2>, tokens: &[u32]) -> Vec<f64> {
        let [rows, _] = states.dims();
        let columns = indices(tokens.iter().map(|&id| i64::from(id)).collect(), &states.device());
        let mut best = vec![f64::NEG_INFINITY; tokens.len()];
        for first in (0..rows).step_by(ROWS) {
            let part = states.clone().narrow(0, first, ROWS.min(rows - first));
            let logits = self.language_model().logits(part);
            let most = logits.clone().max_dim(1);
            let sums = (logits.clone() - most.clone()).exp().sum_dim(1).log() + most;
            let found = floats(&(logits.select(1, columns.clone()) - sums).max_dim(0));
            best.iter_mut().zip(found).for_each(|(best, x)| *best = best.max(f64::from(x)));
        }
        best
    }
}
