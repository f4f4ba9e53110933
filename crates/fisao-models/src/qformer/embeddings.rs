//! Embedded texts, which a Q-Former reads beside its queries or alone.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fisao_cuda::CudaError;

use super::QFormerConfig;
use crate::linear::Embedding;
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::weights::{WeightError, WeightSource};

/// Embeddings of tokens and of their positions in the text; queries have no position.
#[derive(Debug, Clone)]
pub(super) struct TextEmbeddings {
    word: Embedding,
    position: Embedding,
}

impl TextEmbeddings {
    /// Loads `{name}.word_embeddings` and `{name}.position_embeddings`.
    pub(super) fn load(
        config: &QFormerConfig,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let mut table = |part: &str, count| {
            Embedding::load(weights, &format!("{name}.{part}"), [count, width], device)
        };
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
        })
    }

    /// Embeds texts of one length, which are cut to the positions there are: `[batch, length, hidden]`.
    pub(super) fn forward(&self, texts: &[&[u32]]) -> Tensor<3> {
        let device = self.word.weight.device();
        let [positions, width] = self.position.weight.dims();
        let length = texts.first().map_or(0, |text| text.len()).min(positions);
        let ids = texts.iter().flat_map(|text| text[..length].iter().map(|&id| i64::from(id)));
        let words = self.word.forward(indices(ids.collect(), &device));
        let places = self.position.forward(indices((0..length as i64).collect(), &device));
        words.reshape([texts.len(), length, width]) + places.unsqueeze()
    }
}

impl Parameters for TextEmbeddings {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.word.visit_mut(&format!("{prefix}.word_embeddings"), visitor);
        self.position.visit_mut(&format!("{prefix}.position_embeddings"), visitor);
    }
}

/// What `compute` makes of the texts of one length at a time, which need no padding: as many rows for each text, in the order of all.
///
/// # Errors
/// Those of `compute`.
pub(super) fn each_length(
    texts: &[Vec<u32>],
    compute: impl Fn(&[usize], &[&[u32]]) -> Result<Tensor<2>, CudaError>,
) -> Result<Tensor<2>, CudaError> {
    let mut groups = BTreeMap::<usize, Vec<usize>>::new();
    for (at, text) in texts.iter().enumerate() {
        groups.entry(text.len()).or_default().push(at);
    }
    let parts = groups.values().map(|group| {
        let own: Vec<&[u32]> = group.iter().map(|&at| texts[at].as_slice()).collect();
        compute(group, &own)
    });
    let mut parts: Vec<Tensor<2>> = parts.collect::<Result<_, _>>()?;
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    let all = Tensor::cat(parts, 0);
    let each = all.dims()[0] / texts.len();
    let mut order = vec![0; texts.len() * each];
    for (place, &at) in groups.values().flatten().enumerate() {
        for row in 0..each {
            order[at * each + row] = (place * each + row) as i64;
        }
    }
    let device = all.device();
    Ok(all.select(0, indices(order, &device)))
}
