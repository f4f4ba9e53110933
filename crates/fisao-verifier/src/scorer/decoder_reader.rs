//! Scores without a text encoder: what the model's own decoder reads at the positions of an image.
//!
//! For a name whose first token in the middle of a sentence is w,
//!
//! ```text
//! s(v, u) = max over image positions i and layers l of log softmax(W_U · norm(h_{l,i}))[w]      nats
//! ```
//!
//! Paper: Jiang et al. 2024, arXiv 2410.02762, who take the probability of the same. One prefill of the image through the model
//! without its adapter; no second checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use fisao_models::image::PixelValues;
use fisao_models::scoring::CudaError;
use fisao_models::text::{TextError, Tokenizer};
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};

use super::{HeatMap, HeatMapUnit, VerifierError};
use crate::regions::ImageEmbedding;

/// What a name stands behind when its first token is looked up.
const BEFORE: &str = "a ";
/// Image tokens that are read at once; more only of a single image.
const POSITIONS: usize = 4096;

/// A vision-language model as its own verifier.
#[derive(Clone)]
pub struct DecoderReader {
    /// The model without its adapter.
    model: VisionLanguageModel,
    tokenizer: Arc<dyn Tokenizer>,
    /// Ids that an image is shown in, with one placeholder.
    prompt: Vec<u32>,
    /// What an image encoder that reads instructions looks for.
    instruction: Vec<u32>,
    /// Whether image features of the policy are this model's own.
    shares_features: bool,
    /// First tokens of names.
    tokens: BTreeMap<String, u32>,
}

impl DecoderReader {
    /// Reads with a model without whatever adapter is on it; no tensor is copied.
    ///
    /// * `prompt` — ids with one placeholder for the image, of which what stands behind the image plays no part;
    /// * `instruction` — the same text for an image encoder that reads it, else empty.
    pub fn new(
        model: &VisionLanguageModel,
        tokenizer: Arc<dyn Tokenizer>,
        prompt: Vec<u32>,
        instruction: Vec<u32>,
    ) -> Self {
        let shares_features = !model.has_adapted_image_encoder();
        let (model, tokens) = (model.without_lora(), BTreeMap::new());
        Self { model, tokenizer, prompt, instruction, shares_features, tokens }
    }

    /// The same with no name known yet.
    pub(super) fn fresh(&self) -> Self {
        Self { tokens: BTreeMap::new(), ..self.clone() }
    }

    /// The model without its adapter.
    pub fn model(&self) -> &VisionLanguageModel {
        &self.model
    }

    /// Ids that decide about the scores besides the model: what stands before the image, and the instruction.
    pub fn context(&self) -> Vec<u32> {
        let placeholder = self.model.tokens().image;
        let before = self.prompt.iter().take_while(|&&id| id != placeholder);
        before.chain([&placeholder]).chain(&self.instruction).copied().collect()
    }

    pub(super) fn device(&self) -> Device {
        self.model.device()
    }

    /// Whether image features that the policy computed for an instruction are those that are read.
    pub(super) fn reads_features_for(&self, instruction: &[u32]) -> bool {
        self.shares_features && self.instruction == instruction
    }

    /// How many layers a fraction of them stands for, at least one.
    fn depth(&self, fraction: f64) -> usize {
        let layers = self.model.language_model().config().num_hidden_layers;
        ((layers as f64 * fraction).ceil() as usize).clamp(1, layers)
    }

    /// Image features as this model has them.
    fn features(&self, images: ImageBatch) -> Result<ImageFeatures, CudaError> {
        let count = images.sizes().len();
        self.model.image_features(images.with_instructions(vec![self.instruction.clone(); count]))
    }

    /// Reads images: the highest log-probability of every token of the vocabulary.
    pub(super) fn read(
        &self,
        images: ImageBatch,
        fraction: f64,
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        let sizes = images.sizes().to_vec();
        self.read_features(&self.features(images)?, &sizes, fraction)
    }

    /// The same of images `(width, height)` whose features are known.
    pub(super) fn read_features(
        &self,
        features: &ImageFeatures,
        sizes: &[(u32, u32)],
        fraction: f64,
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        let depth = self.depth(fraction);
        let prompts = sizes.iter().map(|&size| self.expanded(size));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let most = features.counts().iter().copied().max().unwrap_or(0).max(1);
        let at_once = (POSITIONS / most).max(1);
        let mut embeddings = Vec::with_capacity(sizes.len());
        for (prompts, features) in prompts.chunks(at_once).zip(features.split().chunks(at_once)) {
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let features = ImageFeatures::cat(features.to_vec());
            let peaks = self.model.peak_log_probabilities(&prompts, &features, depth);
            embeddings
                .extend(peaks.into_iter().map(|whole| ImageEmbedding { whole, parts: Vec::new() }));
        }
        Ok(embeddings)
    }

    fn expanded(&self, size: (u32, u32)) -> Result<Vec<u32>, TextError> {
        self.model.config().family().expand_image_token(&self.prompt, size)
    }

    /// Looks up the first token of a name, if it is not known.
    pub(super) fn learn(&mut self, name: &str) -> Result<(), VerifierError> {
        if !self.tokens.contains_key(name) {
            let token = first_token(self.tokenizer.as_ref(), name)?;
            let token = token.ok_or_else(|| VerifierError::Unspelled { name: name.to_owned() })?;
            self.tokens.insert(name.to_owned(), token);
        }
        Ok(())
    }

    /// Score of a known name, nats.
    pub(super) fn score(&self, image: &ImageEmbedding, name: &str) -> f64 {
        f64::from(image.whole[self.token(name) as usize])
    }

    /// Score of a whole response, nats: mean of the readings of its tokens.
    pub(super) fn score_sentence(
        &self,
        image: &ImageEmbedding,
        sentence: &str,
    ) -> Result<f64, VerifierError> {
        let ids = self.tokenizer.encode(sentence, false)?;
        let readings = ids.iter().map(|&id| f64::from(image.whole[id as usize]));
        Ok(readings.sum::<f64>() / ids.len().max(1) as f64)
    }

    fn token(&self, name: &str) -> u32 {
        *self.tokens.get(name).expect("names are learned before they are scored")
    }

    /// Known names by their first token, where several have one.
    pub(super) fn names_by_token(&self) -> BTreeMap<u32, Vec<&str>> {
        let mut names: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (name, &token) in &self.tokens {
            names.entry(token).or_default().push(name);
        }
        names.retain(|_, names| names.len() > 1);
        names
    }

    /// Where some known names are read in an image; `None` of a family whose image tokens have no place in the image.
    pub(super) fn heat_maps(
        &self,
        image: &PixelValues,
        names: &[&str],
        fraction: f64,
    ) -> Result<Option<Vec<HeatMap>>, VerifierError> {
        let size = image.original_size;
        let Some(grid) = self.model.config().family().whole_image_grid(size) else {
            return Ok(None);
        };
        let features = self.features(ImageBatch::new([image], &self.device()))?;
        let tokens: Vec<u32> = names.iter().map(|name| self.token(name)).collect();
        let (prompt, depth) = (self.expanded(size)?, self.depth(fraction));
        let read = self.model.position_log_probabilities(&prompt, &features, &tokens, depth);
        let map = |of_token: Vec<f64>| {
            let whole = &of_token[grid.first..][..grid.rows * grid.columns];
            let (unit, rows, columns) = (HeatMapUnit::Probability, grid.rows, grid.columns);
            HeatMap { unit, rows, columns, values: whole.iter().map(|x| x.exp()).collect() }
        };
        Ok(Some(read.into_iter().map(map).collect()))
    }
}

/// The first token that spells any of a name in the middle of a sentence: with the space before it, where the tokenizer puts both into
/// one token. `None` where the tokenizer drops the name.
fn first_token(tokenizer: &dyn Tokenizer, name: &str) -> Result<Option<u32>, TextError> {
    let ids = tokenizer.encode(&format!("{BEFORE}{name}"), false)?;
    let decoded = tokenizer.decode(&ids)?;
    // Tokenizers that drop spaces leave the word before them, and of a name that they drop nothing.
    let word = BEFORE.trim_end().len();
    let before = decoded.text.find(char::is_whitespace).map_or(word, |space| space + 1);
    let token = ids.iter().zip(&decoded.spans).find(|(_, span)| span.end > before);
    Ok(token.map(|(&id, _)| id))
}
