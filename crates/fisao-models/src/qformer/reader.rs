//! A Q-Former with what enters it: learned queries and embedded texts, normed together.

use burn::tensor::{Device, Tensor};
use fisao_cuda::{CudaError, QFormerBatch, Storage};

use super::embeddings::{TextEmbeddings, each_length};
use super::{QFormer, QFormerConfig};
use crate::card_part::{ImageMemory, SharedDriver};
use crate::linear::{BatchEmbedding, LinearVisitor};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters, indices};
use crate::weights::{WeightError, WeightSource};

/// Where a family keeps the parts of a reader. Queries are `query_tokens` in all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderNames {
    /// Tables of words and positions.
    pub(crate) embeddings: &'static str,
    /// Norm of all that enters.
    pub(crate) norm: &'static str,
    /// The layers.
    pub(crate) layers: &'static str,
}

const QUERIES: &str = "query_tokens";

/// Reads images through learned queries, beside a text or not, and texts alone.
#[derive(Debug, Clone)]
pub(crate) struct QueryReader {
    names: ReaderNames,
    queries: BatchEmbedding,
    embeddings: TextEmbeddings,
    norm: LayerNorm,
    qformer: QFormer,
}

impl QueryReader {
    /// Loads a reader of so many queries.
    pub(crate) fn load(
        config: &QFormerConfig,
        queries: usize,
        names: ReaderNames,
        weights: &mut dyn WeightSource,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let QFormerConfig { hidden_size: width, layer_norm_eps: epsilon, .. } = *config;
        Ok(Self {
            names,
            queries: BatchEmbedding::load(weights, QUERIES, [queries, width], device)?,
            embeddings: TextEmbeddings::load(config, weights, names.embeddings, device)?,
            norm: LayerNorm::load(weights, names.norm, width, epsilon, device)?,
            qformer: QFormer::load(config, weights, names.layers, device)?,
        })
    }

    /// What the queries read of images: `[batch, positions, encoder_hidden]` → `[batch · queries, hidden]`
    ///
    /// # Errors
    /// Those of the card's driver.
    pub(crate) fn read(&self, states: &Tensor<3>) -> Result<Tensor<2>, CudaError> {
        self.read_beside(states, None)
    }

    /// What the queries read of each image beside a text of its own, and what `then` makes of it, as many rows for each image.
    ///
    /// # Shapes
    /// `[images, positions, encoder_hidden]`; `then`: `[some · queries, hidden]` → `[some · rows, width]`
    ///
    /// # Errors
    /// Those of the card's driver, and of `then`.
    pub(crate) fn read_each(
        &self,
        states: &Tensor<3>,
        texts: &[Vec<u32>],
        then: impl Fn(Tensor<2>) -> Result<Tensor<2>, CudaError>,
    ) -> Result<Tensor<2>, CudaError> {
        each_length(texts, |rows, own| {
            if rows.len() == texts.len() {
                return then(self.read_beside(states, Some(own))?);
            }
            let rows = indices(rows.iter().map(|&at| at as i64).collect(), &states.device());
            then(self.read_beside(&states.clone().select(0, rows), Some(own))?)
        })
    }

    /// The first position's state of each text, read alone: `[texts, hidden]`
    ///
    /// # Errors
    /// Those of the card's driver.
    pub(crate) fn read_texts(&self, texts: &[Vec<u32>]) -> Result<Tensor<2>, CudaError> {
        each_length(texts, |_, own| {
            let x = self.qformer.forward(self.normed(self.embeddings.forward(own)), 0, None)?;
            let [batch, _, width] = x.dims();
            Ok(x.narrow(1, 0, 1).reshape([batch, width]))
        })
    }

    /// Texts of one length → `[batch · queries, hidden]`
    fn read_beside(
        &self,
        states: &Tensor<3>,
        texts: Option<&[&[u32]]>,
    ) -> Result<Tensor<2>, CudaError> {
        let batch = states.dims()[0];
        let queries = self.queries.whole().repeat_dim(0, batch);
        let [_, count, width] = queries.dims();
        let x = match texts {
            Some(texts) => Tensor::cat(vec![queries, self.embeddings.forward(texts)], 1),
            None => queries,
        };
        let x = self.qformer.forward(self.normed(x), count, Some(states))?;
        Ok(x.narrow(1, 0, count).reshape([batch * count, width]))
    }

    /// The type of the layers' matrices.
    pub(crate) fn storage(&self) -> Storage {
        self.qformer.storage()
    }

    /// Number of queries.
    pub(crate) fn queries(&self) -> usize {
        self.queries.whole().dims()[1]
    }

    /// What the copy on a card takes of it, with so many images at work, each beside a text of so many tokens.
    pub(crate) fn card_memory(&self, images: usize, text: usize, positions: usize) -> ImageMemory {
        let queries = self.queries();
        self.qformer.card_memory(&QFormerBatch { batch: images, queries, text, positions })
    }

    /// As [`QFormer::use_card`].
    pub(crate) fn use_card(&mut self, driver: &SharedDriver) -> Result<(), CudaError> {
        self.qformer.use_card(driver)
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        self.norm.forward(x.reshape([batch * length, width])).reshape([batch, length, width])
    }

    /// Visits every linear layer under `{layers}.encoder.layer.N.…`.
    pub(crate) fn visit_linears_mut(&mut self, visitor: &mut LinearVisitor<'_>) {
        self.qformer.visit_linears_mut(self.names.layers, visitor);
    }
}

impl Parameters for QueryReader {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        let ReaderNames { embeddings, norm, layers } = self.names;
        self.queries.visit_mut(&format!("{prefix}{QUERIES}"), visitor);
        self.embeddings.visit_mut(&format!("{prefix}{embeddings}"), visitor);
        self.norm.visit_mut(&format!("{prefix}{norm}"), visitor);
        self.qformer.visit_mut(&format!("{prefix}{layers}"), visitor);
    }
}
