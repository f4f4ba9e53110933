//! What the decoder's own head reads at the positions of an image.
//!
//! Paper: Jiang et al. 2024, *Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations*,
//! arXiv 2410.02762, after the logit lens: the hidden states at image positions go through final norm and output matrix as
//! if the next token were to be predicted there, and a word that is in the image stands out somewhere.

use burn::tensor::Tensor;

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
        let placeholder = self.tokens().image;
        // What comes behind the image is not seen from it.
        let cut = |shown: &Example<'_>| {
            let end = shown.prompt.iter().rposition(|&id| id == placeholder).map_or(0, |at| at + 1);
            shown.prompt[..end].to_vec()
        };
        let mut rows: Vec<Vec<u32>> = examples.iter().map(cut).collect();
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        if tokens.is_empty() || length == 0 {
            return vec![vec![f64::NEG_INFINITY; tokens.len()]; examples.len()];
        }
        let mut wanted = Vec::new();
        for (index, row) in rows.iter_mut().enumerate() {
            let count = features.counts()[examples[index].image];
            let own = (0..row.len()).filter(|&at| row[at] == placeholder).take(count);
            wanted.extend(own.map(|at| (index * length + at) as i64));
            row.resize(length, self.tokens().pad);
        }
        let images: Vec<usize> = examples.iter().map(|shown| shown.image).collect();
        let (batch, mask) = (rows.len(), Mask::causal());
        let rows = PromptRows { rows: &rows, images: &images, padding: &[] };
        let DecoderInputs { x, positions, deep, .. } = self.decoder_inputs(rows, features);
        let wanted = Some(indices(wanted, &self.device()));
        let pass = Pass { batch, positions: &positions, mask: &mask, wanted, deep: &deep };
        let states = self.language_model().layer_states(x, &pass, depth.max(1));
        let mut best = vec![vec![f64::NEG_INFINITY; tokens.len()]; examples.len()];
        for states in states {
            let mut first = 0;
            for (best, &image) in best.iter_mut().zip(&images) {
                let count = features.counts()[image];
                let own = states.clone().narrow(0, first, count);
                let found = self.highest(&own, tokens);
                best.iter_mut().zip(found).for_each(|(best, found)| *best = best.max(found));
                first += count;
            }
        }
        best
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
