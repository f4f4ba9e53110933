//! Scores: how well a name fits an image, by the policy's own image encoder, or by its own decoder.
//!
//! `s(v, u) = f_v(v) · f_t(template(u))`, both unit vectors; several templates are averaged and scaled
//! back to length 1 (Radford et al. 2021, §3.1.4). [`ScoreConfig`] says where in the image a name is looked for and
//! whether scores are centred. Where no contrastive model has the policy's image encoder, a [`DecoderReader`] scores.

mod alternatives;
mod decoder_reader;
mod heat_map;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fisao_models::blip2::Blip2;
use fisao_models::contrastive::ContrastiveModel;
use fisao_models::image::PixelValues;
use fisao_models::parameters::{Parameters, floats, from_floats};
use fisao_models::scoring::CudaError;
use fisao_models::text::{TextError, Tokenizer};
use fisao_models::vision::{VisionConfig, VisionOutput, VisionTower};
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};

use crate::calibration::{Calibration, Centres};
use crate::mentions::{ObjectVocabulary, TokenMention, describe, descriptions};
use crate::regions::{
    ImageEmbedding, RegionWeights, Regions, ScoreConfig, ScoreHead, ScoreUnit, Wording, best_cosine,
};
use crate::templates::Templates;

use alternatives::Alternatives;
pub use decoder_reader::DecoderReader;
pub use heat_map::{HeatMap, HeatMapUnit};

/// Largest relative difference at which two copies of a tower's tensor count as the same weights: one
/// of them may have been rounded to bf16, whose relative step is 2⁻⁸.
const SAME_WEIGHT: f32 = 1.0 / 128.0;

/// What is taken of the mean score of a name's alternatives. All of it costs more than it gains (AUC on the hard world 0.945 → 0.912, and
/// 0.835 → 0.820 where the verifier is blurred): alternatives may be in the image, too, and bring noise of their own.
const CONTRAST_WEIGHT: f64 = 0.5;

/// Sentences embedded at once.
const TEXT_BATCH: usize = 64;

/// Why a verifier could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// The verifier's image tower is built differently from the policy's.
    #[error(
        "the verifier's vision tower is not the model's own: the configurations differ \
         (model {policy}, verifier {verifier})"
    )]
    EncoderConfigMismatch {
        /// The policy's tower.
        policy: String,
        /// The verifier's tower.
        verifier: String,
    },
    /// The verifier's image tower has other weights than the policy's.
    #[error(
        "the verifier's vision tower is not the model's own: `{tensor}` differs by up to {difference:.3e}"
    )]
    EncoderWeightsMismatch {
        /// First tensor that differs.
        tensor: String,
        /// Largest absolute difference in it.
        difference: f32,
    },
    /// The card that the verifier runs on failed.
    #[error("{0}")]
    Card(#[from] CudaError),
    /// A name could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A name that the verifier's tokenizer drops altogether.
    #[error("the verifier's tokenizer makes no token of '{name}', so no score could depend on it")]
    Unspelled {
        /// The name.
        name: String,
    },
    /// A name whose scores cannot be brought to the calibration's scale.
    #[error(
        "the calibration knows nothing about the scores of '{name}': calibrate with an object vocabulary that holds it, \
         or leave the calibration out"
    )]
    Uncentred {
        /// The name.
        name: String,
    },
    /// A matching head was asked for, and the verifier has none.
    #[error(
        "score.head = \"matching\" asks for a matching head, which BLIP-2 checkpoints have; this verifier has none"
    )]
    NoMatchingHead,
    /// Text that only a text encoder can embed.
    #[error(
        "the decoder's reading has no text encoder: it scores names, and has no embedding of them"
    )]
    NoTextEncoder,
    /// The encoder computed something that is not a number.
    #[error(
        "the verifier's embedding of {what} is not finite: its weights, or what it was given, are damaged"
    )]
    NotFinite {
        /// What was embedded.
        what: String,
    },
}

impl VerifierError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::EncoderConfigMismatch { .. } | Self::EncoderWeightsMismatch { .. } => Some(
                "give the CLIP checkpoint that the model's vision tower was taken from, or pass \
                 --allow-mismatched-verifier to use another encoder knowingly"
                    .to_owned(),
            ),
            Self::Unspelled { .. } => Some("take the name out of the object vocabulary".to_owned()),
            Self::NoMatchingHead => {
                Some("leave score.head out, or name a BLIP-2 checkpoint with --verifier".to_owned())
            }
            Self::NoTextEncoder => {
                Some("name a CLIP, SigLIP or BLIP-2 checkpoint as the verifier".to_owned())
            }
            Self::Card(_) | Self::Text(_) | Self::Uncentred { .. } | Self::NotFinite { .. } => None,
        }
    }
}

/// What a verifier scores by.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few of them in a process")]
enum ScoringModel {
    /// A CLIP, SigLIP or BLIP-2 model with its tokenizer.
    Contrastive(ContrastiveModel, Arc<dyn Tokenizer>),
    /// A vision-language model's own decoder.
    Decoder(DecoderReader),
}

/// Scores names against images, by a CLIP, SigLIP or BLIP-2 model or by a vision-language model's own decoder.
#[derive(Clone)]
pub struct Verifier {
    model: ScoringModel,
    templates: Templates,
    score: ScoreConfig,
    /// Unit text embeddings by name: a cache.
    names: BTreeMap<String, Vec<f32>>,
    /// Ids of each name's sentences, where a matching head reads them.
    sentences: BTreeMap<String, Vec<Vec<u32>>>,
    /// What is taken from the scores of each name, where scores are centred.
    centres: Option<Arc<Centres>>,
    /// What is taken besides from the scores of phrases that describe what they name.
    described: f64,
    /// What names are contrasted with.
    alternatives: Alternatives,
    /// Fractions of regions that are weighted; `None` until they are known.
    weights: Option<RegionWeights>,
    /// Whether the policy's image tower is known to be this model's own.
    shares_tower: bool,
}

impl Verifier {
    /// A verifier with nothing embedded yet, and scores as they are: centres come with a calibration.
    pub fn new(
        model: impl Into<ContrastiveModel>,
        tokenizer: Arc<dyn Tokenizer>,
        templates: Templates,
        score: ScoreConfig,
    ) -> Self {
        Self::of(ScoringModel::Contrastive(model.into(), tokenizer), templates, score)
    }

    /// A verifier that scores by what a vision-language model's own decoder reads in an image.
    pub fn of_decoder(reader: DecoderReader, score: ScoreConfig) -> Self {
        Self::of(ScoringModel::Decoder(reader), Templates::default(), score)
    }

    fn of(model: ScoringModel, templates: Templates, score: ScoreConfig) -> Self {
        Self {
            model,
            templates,
            score,
            names: BTreeMap::new(),
            sentences: BTreeMap::new(),
            centres: None,
            described: 0.0,
            alternatives: Alternatives::default(),
            weights: None,
            shares_tower: false,
        }
    }

    /// The same model under other settings, with nothing embedded yet.
    #[must_use]
    pub fn with_settings(&self, templates: Templates, score: ScoreConfig) -> Self {
        let shares_tower = self.shares_tower;
        let model = match &self.model {
            ScoringModel::Decoder(reader) => ScoringModel::Decoder(reader.fresh()),
            contrastive @ ScoringModel::Contrastive(..) => contrastive.clone(),
        };
        let fresh = Self::of(model, templates, score);
        Self { shares_tower, ..fresh }
    }

    /// The contrastive model, where it scores by one.
    pub fn contrastive(&self) -> Option<&ContrastiveModel> {
        match &self.model {
            ScoringModel::Contrastive(model, _) => Some(model),
            ScoringModel::Decoder(_) => None,
        }
    }

    /// Mutable [`contrastive`](Self::contrastive), to [give it a card](ContrastiveModel::use_card).
    pub fn contrastive_mut(&mut self) -> Option<&mut ContrastiveModel> {
        match &mut self.model {
            ScoringModel::Contrastive(model, _) => Some(model),
            ScoringModel::Decoder(_) => None,
        }
    }

    /// The decoder that reads, where it scores by one.
    pub fn decoder(&self) -> Option<&DecoderReader> {
        match &self.model {
            ScoringModel::Contrastive(..) => None,
            ScoringModel::Decoder(reader) => Some(reader),
        }
    }

    /// Where the model's weights live.
    pub fn device(&self) -> Device {
        match &self.model {
            ScoringModel::Contrastive(model, _) => model.vision().device(),
            ScoringModel::Decoder(reader) => reader.device(),
        }
    }

    /// The contrastive model, for whoever knows that there is one.
    fn encoder(&self) -> Result<(&ContrastiveModel, &dyn Tokenizer), VerifierError> {
        match &self.model {
            ScoringModel::Contrastive(model, tokenizer) => Ok((model, tokenizer.as_ref())),
            ScoringModel::Decoder(_) => Err(VerifierError::NoTextEncoder),
        }
    }

    /// The model whose matching head scores, or `None` where another head does.
    fn matching(&self) -> Result<Option<(&Blip2, &dyn Tokenizer)>, VerifierError> {
        match (self.score.head, &self.model) {
            (ScoreHead::Contrastive, _) => Ok(None),
            (_, ScoringModel::Contrastive(ContrastiveModel::Blip2(model), tokenizer)) => {
                Ok(Some((model, tokenizer.as_ref())))
            }
            _ => Err(VerifierError::NoMatchingHead),
        }
    }

    /// Checks that the verifier has the head that its settings name.
    ///
    /// # Errors
    /// [`VerifierError::NoMatchingHead`].
    pub fn check_head(&self) -> Result<(), VerifierError> {
        self.matching().map(|_| ())
    }

    /// What the scores are.
    pub fn unit(&self) -> ScoreUnit {
        match (&self.model, self.score.head) {
            (ScoringModel::Decoder(_), _) => ScoreUnit::LogProbability,
            (_, ScoreHead::Matching) => ScoreUnit::LogOdds,
            (_, ScoreHead::Contrastive) => ScoreUnit::Cosine,
        }
    }

    /// Sentences in which names are scored.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Where names are looked for.
    pub fn score_config(&self) -> &ScoreConfig {
        &self.score
    }

    /// Scores on a calibration's scale from now on: with its region weights, less its centres.
    pub fn apply_calibration(&mut self, calibration: &Calibration) {
        self.set_centres(calibration.centres.clone());
        self.described = calibration.described.unwrap_or_default();
        self.set_weights(calibration.weights.unwrap_or_default());
    }

    /// The same verifier without the [noise](ScoreConfig::noise) that its scores may be given.
    #[must_use]
    pub fn without_noise(&self) -> Self {
        Self { score: ScoreConfig { noise: 0.0, ..self.score }, ..self.clone() }
    }

    /// Weights regions so from now on, where they are weighted at all. Until then the whole image counts alone, but patches
    /// are embedded, so that weights can be found.
    pub fn set_weights(&mut self, weights: RegionWeights) {
        self.weights = Some(weights);
    }

    /// What was [set](Self::set_weights), if anything was.
    pub fn weights(&self) -> Option<RegionWeights> {
        self.weights
    }

    /// The same verifier with these weights, or none, as another one has them.
    #[must_use]
    pub fn with_weights(self, weights: Option<RegionWeights>) -> Self {
        Self { weights, ..self }
    }

    /// From now on takes these centres from its scores, or none; nothing besides from those of phrases.
    pub fn set_centres(&mut self, centres: Option<Centres>) {
        self.centres = centres.map(Arc::new);
        self.described = 0.0;
    }

    /// From now on takes this, besides the name's centre, from the scores of phrases that describe what they name.
    pub fn set_described(&mut self, centre: f64) {
        self.described = centre;
    }

    /// Continues from the output of the policy's vision tower from now on, as it is this model's own. Where an adapter changes
    /// the policy's, each keeps to its own: a verifier is never trained.
    ///
    /// # Errors
    /// See [`check_own_encoder`](Self::check_own_encoder); the towers are not shared then.
    pub fn share_tower(&mut self, policy: &VisionTower) -> Result<(), VerifierError> {
        self.check_own_encoder(policy)?;
        self.shares_tower = !policy.is_adapted();
        Ok(())
    }

    /// Takes the policy's own vision tower in the place of this model's, without whatever adapter is on it: for a tower that was tuned.
    /// No tensor is copied.
    /// Of a tower whose last layers the policy has left out this model's own stay. The towers are shared then.
    ///
    /// # Panics
    /// The verifier is a decoder, or the towers are built differently.
    pub fn adopt_tower(&mut self, policy: &VisionLanguageModel) {
        let base = policy.without_lora();
        let own = base.vision_tower().expect("a model with a tower that can be shared");
        let mut tensors = BTreeMap::new();
        own.clone().visit_mut("vision_model", &mut |name, parameter| {
            tensors.insert(name.to_owned(), parameter.share());
        });
        let ScoringModel::Contrastive(model, _) = &mut self.model else {
            panic!("a decoder has no tower of its own")
        };
        let apart = model.owns_post_layernorm();
        model.vision_mut().visit_mut("vision_model", &mut |name, mut parameter| {
            let shared = !(apart && name.starts_with("vision_model.post_layernorm."));
            if let Some(own) = tensors.remove(name).filter(|_| shared) {
                parameter.hold(own);
            }
        });
        let adapted = policy.vision_tower().is_some_and(VisionTower::is_adapted);
        self.shares_tower = !adapted;
    }

    /// Whether [`embed_vision_output`](Self::embed_vision_output) can be used with the policy's vision outputs.
    pub fn shares_tower(&self) -> bool {
        self.shares_tower && self.score.regions != Regions::Crops
    }

    /// Checks that the verifier's image tower is the policy's own: same sizes, same weights up to
    /// rounding of their storage type. The policy may have left out the tower's last layers, as models do
    /// that use the features of an earlier one.
    ///
    /// # Errors
    /// [`VerifierError::EncoderConfigMismatch`] or [`VerifierError::EncoderWeightsMismatch`].
    pub fn check_own_encoder(&self, policy: &VisionTower) -> Result<(), VerifierError> {
        let (model, _) = self.encoder()?;
        let own = policy.config();
        let verifier = model.vision().config();
        let layers = own.num_hidden_layers.min(verifier.num_hidden_layers);
        let cut = VisionConfig { num_hidden_layers: layers, ..verifier.clone() };
        if *own != cut {
            return Err(VerifierError::EncoderConfigMismatch {
                policy: format!("{own:?}"),
                verifier: format!("{verifier:?}"),
            });
        }
        let mut own = BTreeMap::new();
        policy.clone().visit_mut("vision_model", &mut |name, parameter| {
            own.insert(name.to_owned(), parameter.values());
        });
        let mut mismatch = None;
        let apart = model.owns_post_layernorm();
        model.vision().clone().visit_mut("vision_model", &mut |name, parameter| {
            let shared = !(apart && name.starts_with("vision_model.post_layernorm."));
            let Some(own) = own.get(name).filter(|_| shared && mismatch.is_none()) else { return };
            if let Some(difference) = largest_difference(own, &parameter.values()) {
                mismatch = Some(VerifierError::EncoderWeightsMismatch {
                    tensor: name.to_owned(),
                    difference,
                });
            }
        });
        mismatch.map_or(Ok(()), Err)
    }

    /// Embeds images: `[images · views, 3, h, w]` → one embedding per image, where
    /// [`ScoreConfig::views`] images show one image, its whole first. A decoder reads images that are seen whole.
    ///
    /// # Errors
    /// [`VerifierError::NotFinite`].
    ///
    /// # Panics
    /// The images are not a multiple of the views.
    pub fn embed_images(
        &self,
        images: impl Into<ImageBatch>,
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        let images = images.into();
        match &self.model {
            ScoringModel::Contrastive(model, _) => {
                self.embed_vision_output(model.vision().encode(images.whole())?)
            }
            ScoringModel::Decoder(reader) => {
                finite(reader.read(images, self.score.reading_layers)?)
            }
        }
    }

    /// Whether [`embed_features`](Self::embed_features) can be used with what the policy made of images for an instruction.
    pub fn reads_features_for(&self, instruction: &[u32]) -> bool {
        self.decoder().is_some_and(|reader| reader.reads_features_for(instruction))
    }

    /// What a decoder reads in images `(width, height)` of which the policy has made image features.
    ///
    /// # Errors
    /// [`VerifierError::NotFinite`].
    ///
    /// # Panics
    /// The verifier is a contrastive model.
    pub fn embed_features(
        &self,
        features: &ImageFeatures,
        sizes: &[(u32, u32)],
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        let reader = self.decoder().expect("image features are read by a decoder");
        finite(reader.read_features(features, sizes, self.score.reading_layers)?)
    }

    /// The same of images of which each comes with its views, on this model's device; as many images go through at once
    /// as there are images, however many views each has.
    ///
    /// # Errors
    /// [`VerifierError::NotFinite`].
    ///
    /// # Panics
    /// An image has not [`ScoreConfig::views`] images.
    pub fn embed_views<Views: AsRef<[PixelValues]>>(
        &self,
        images: &[Views],
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        let device = self.device();
        let at_once = (images.len() / self.score.views()).max(1);
        let mut embeddings = Vec::with_capacity(images.len());
        for batch in images.chunks(at_once) {
            let images = ImageBatch::new(batch.iter().flat_map(AsRef::as_ref), &device);
            embeddings.extend(self.embed_images(images)?);
        }
        Ok(embeddings)
    }

    /// The same of images on their way through this model's image tower, or through the policy's where the two
    /// [share](Self::share_tower) it.
    ///
    /// # Errors
    /// [`VerifierError::NotFinite`].
    ///
    /// # Panics
    /// The images are not a multiple of the views.
    pub fn embed_vision_output(
        &self,
        output: VisionOutput,
    ) -> Result<Vec<ImageEmbedding>, VerifierError> {
        if let Some((model, _)) = self.matching()? {
            let states = model.states(output)?;
            let [_, positions, hidden] = states.dims();
            let images = floats(&states);
            let whole = images.chunks_exact(positions * hidden);
            return finite(
                whole
                    .map(|whole| ImageEmbedding { whole: whole.to_vec(), parts: Vec::new() })
                    .collect(),
            );
        }
        let (model, _) = self.encoder()?;
        let dim = model.dim() * model.image_vectors();
        let rows = |tensor: &Tensor<2>| -> Vec<Vec<f32>> {
            floats(tensor).chunks_exact(dim).map(<[f32]>::to_vec).collect()
        };
        let embeddings = if self.uses_patches(model) {
            let (whole, patches) = model.embed_patches(output)?;
            let [images, patch_count, _] = patches.dims();
            let patches = rows(&patches.reshape([images * patch_count, dim]));
            let parts = patches.chunks_exact(patch_count).map(<[Vec<f32>]>::to_vec);
            rows(&whole)
                .into_iter()
                .zip(parts)
                .map(|(whole, parts)| ImageEmbedding { whole, parts })
                .collect()
        } else {
            let views = self.score.views();
            let images = rows(&model.embed_vision_output(output)?);
            assert!(images.len() % views == 0, "{} images, {views} an image", images.len());
            images.chunks_exact(views).map(ImageEmbedding::of_views).collect::<Vec<_>>()
        };
        finite(embeddings)
    }

    fn uses_patches(&self, model: &ContrastiveModel) -> bool {
        match self.score.regions {
            Regions::Auto if !model.has_cheap_patches() => false,
            Regions::Auto => self.weights.is_none_or(|weights| weights.patches > 0.0),
            Regions::Patches => true,
            Regions::Whole | Regions::Crops => false,
        }
    }

    /// Embeds the names that have no embedding yet; a decoder looks up their first tokens.
    ///
    /// # Errors
    /// [`VerifierError::Text`] when a name cannot be encoded, [`VerifierError::Unspelled`] when nothing is left of
    /// it, [`VerifierError::Uncentred`] when scores are centred and the name's are not.
    pub fn embed_names<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), VerifierError> {
        let names: Vec<&str> = names.into_iter().collect();
        names.iter().try_for_each(|name| self.check_centre(name))?;
        self.embed(&names)?;
        self.alternatives.find(&names, &self.names, self.score.contrast);
        Ok(())
    }

    /// Embeds every name of a vocabulary, and finds what each is [contrasted](ScoreConfig::contrast) with.
    ///
    /// # Errors
    /// See [`embed_names`](Self::embed_names).
    pub fn learn(&mut self, vocabulary: &ObjectVocabulary) -> Result<(), VerifierError> {
        self.embed_names(vocabulary.forms().map(|(form, _)| form))?;
        if self.score.contrast > 0 {
            self.alternatives.choose_from(vocabulary, &self.names, self.score.contrast);
        }
        Ok(())
    }

    /// Names that a name is contrasted with, the nearest first; none before a vocabulary has been [learned](Self::learn).
    pub fn alternatives(&self, name: &str) -> &[String] {
        self.alternatives.of(name)
    }

    /// How a text describes what it names, where [phrases](Wording::Phrase) are scored: for each mention, by its bytes, the phrase around
    /// it with `{}` in the name's place.
    pub fn descriptions(&self, text: &str, mentions: &[Range<usize>]) -> Vec<Option<String>> {
        match self.score.wording {
            Wording::Name => vec![None; mentions.len()],
            Wording::Phrase => descriptions(text, mentions),
        }
    }

    /// Says of mentions how the text describes them, where that is scored.
    pub fn describe(&self, text: &str, mentions: &mut [TokenMention]) {
        if self.score.wording == Wording::Phrase {
            describe(text, mentions);
        }
    }

    /// Embeds a name and, where it is described, the phrase; so that [`score_described`](Self::score_described) can score it.
    ///
    /// # Errors
    /// See [`embed_names`](Self::embed_names).
    pub fn embed_described(
        &mut self,
        name: &str,
        description: Option<&str>,
    ) -> Result<(), VerifierError> {
        self.embed_names([name])?;
        let Some(description) = description else { return Ok(()) };
        let names = std::iter::once(name.to_owned());
        let names: Vec<String> = names.chain(self.alternatives(name).to_vec()).collect();
        // Each by itself: its last bits are not to depend on what else is embedded.
        names.iter().try_for_each(|name| self.embed(&[&worded(name, Some(description))]))
    }

    /// Embeds a mention as it is [worded](Wording); so that [`score_mention`](Self::score_mention) can score it.
    ///
    /// # Errors
    /// See [`embed_names`](Self::embed_names).
    pub fn embed_mention(&mut self, mention: &TokenMention) -> Result<(), VerifierError> {
        self.embed_described(&mention.form, self.wording_of(mention))
    }

    /// Embeds texts that have no embedding yet.
    fn embed(&mut self, texts: &[&str]) -> Result<(), VerifierError> {
        let mut fresh: Vec<&str> = Vec::new();
        for &name in texts {
            if let ScoringModel::Decoder(reader) = &mut self.model {
                reader.learn(name)?;
                continue;
            }
            if !self.names.contains_key(name) {
                fresh.push(name);
            }
            if !self.sentences.contains_key(name)
                && let Some((_, tokenizer)) = self.matching()?
            {
                let texts = self.templates.render(name).into_iter();
                let ids =
                    texts.map(|text| tokenizer.encode(&text, true)).collect::<Result<_, _>>()?;
                self.sentences.insert(name.to_owned(), ids);
            }
        }
        fresh.sort_unstable();
        fresh.dedup();
        let sentences = self.templates.prompts.len().max(1);
        for part in fresh.chunks((TEXT_BATCH / sentences).max(1)) {
            for name in part {
                if self.encoder()?.1.encode(name, false)?.is_empty() {
                    return Err(VerifierError::Unspelled { name: (*name).to_owned() });
                }
            }
            let texts: Vec<String> =
                part.iter().flat_map(|name| self.templates.render(name)).collect();
            let embeddings = self.embed_texts(&texts)?;
            for (name, sentences) in part.iter().zip(embeddings.chunks(sentences)) {
                self.names.insert((*name).to_owned(), common(name, sentences)?);
            }
        }
        Ok(())
    }

    /// Checks that the scores of a name can be brought to the calibration's scale.
    ///
    /// # Errors
    /// [`VerifierError::Uncentred`] when scores are centred and the name's are not.
    pub fn check_centre(&self, name: &str) -> Result<(), VerifierError> {
        match &self.centres {
            Some(centres) if !centres.contains_key(name) => {
                Err(VerifierError::Uncentred { name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Text embeddings computed so far, by name: what a cache keeps.
    pub fn embeddings(&self) -> &BTreeMap<String, Vec<f32>> {
        &self.names
    }

    /// Inserts text embeddings that a verifier of the same model and templates computed earlier.
    ///
    /// # Panics
    /// If an embedding has another width than the model's.
    pub fn insert_embeddings(&mut self, names: impl IntoIterator<Item = (String, Vec<f32>)>) {
        for (name, embedding) in names {
            let dim = self.contrastive().map_or(0, ContrastiveModel::dim);
            assert_eq!(embedding.len(), dim, "the embedding of '{name}'");
            self.names.insert(name, embedding);
        }
    }

    /// Takes over the text embeddings of a verifier of the same model and templates.
    pub fn learn_from(&mut self, other: &Self) {
        for (name, embedding) in &other.names {
            self.names.entry(name.clone()).or_insert_with(|| embedding.clone());
        }
    }

    /// Unit embedding of what several texts have in common: their mean, scaled to length 1.
    ///
    /// # Errors
    /// [`VerifierError::Text`] when a text cannot be encoded.
    pub fn embed_text(&self, texts: &[String]) -> Result<Vec<f32>, VerifierError> {
        let what = texts.first().map_or("no text", String::as_str);
        common(what, &self.embed_texts(texts)?)
    }

    /// Unit embeddings of texts, each by itself.
    ///
    /// # Errors
    /// [`VerifierError::Text`] when a text cannot be encoded.
    pub fn embed_texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, VerifierError> {
        let (model, tokenizer) = self.encoder()?;
        let ids =
            texts.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<Vec<_>, _>>()?;
        let embeddings = floats(&model.embed_text(&ids)?);
        Ok(embeddings.chunks_exact(model.dim()).map(<[f32]>::to_vec).collect())
    }

    /// Known names that share their first token with another, by that token: a decoder cannot tell them apart. None of a contrastive
    /// verifier.
    pub fn names_of_one_token(&self) -> Vec<Vec<&str>> {
        let names = self.decoder().map(DecoderReader::names_by_token).unwrap_or_default();
        names.into_values().collect()
    }

    /// Score of a known name with an image: cosine with the best [region](Regions), log-odds of a matching head, nats, or what a
    /// decoder reads, nats; less half the mean of its [alternatives](Self::alternatives), and less the name's centre where scores are centred.
    ///
    /// # Errors
    /// [`VerifierError::Card`] when a matching head's card fails.
    ///
    /// # Panics
    /// When the name has not been [embedded](Self::embed_names).
    pub fn score(&self, image: &ImageEmbedding, name: &str) -> Result<f64, VerifierError> {
        self.score_described(image, name, None)
    }

    /// Score of a mention as it is [worded](Wording).
    ///
    /// # Errors
    /// See [`score`](Self::score).
    ///
    /// # Panics
    /// When it has not been [embedded](Self::embed_mention).
    pub fn score_mention(
        &self,
        image: &ImageEmbedding,
        mention: &TokenMention,
    ) -> Result<f64, VerifierError> {
        self.score_described(image, &mention.form, self.wording_of(mention))
    }

    /// The description that a mention is scored with.
    fn wording_of<'m>(&self, mention: &'m TokenMention) -> Option<&'m str> {
        match self.score.wording {
            Wording::Name => None,
            Wording::Phrase => mention.description.as_deref(),
        }
    }

    /// [Score](Self::score) of a known name as a description has it: "small brown dog", contrasted with "small brown cat" where dogs are
    /// contrasted with cats.
    ///
    /// # Errors
    /// See [`score`](Self::score).
    ///
    /// # Panics
    /// When it has not been [embedded](Self::embed_described).
    pub fn score_described(
        &self,
        image: &ImageEmbedding,
        name: &str,
        description: Option<&str>,
    ) -> Result<f64, VerifierError> {
        let centre = self.centres.as_ref().map_or(0.0, |centres| centres[name]);
        let described = if description.is_some() { self.described } else { 0.0 };
        let text = worded(name, description);
        let score = self.fit(image, &text)?;
        let others = self.alternatives(name);
        let other = |other: &String| self.fit(image, &worded(other, description));
        let contrast = others.iter().map(other).sum::<Result<f64, _>>()?;
        let contrast = CONTRAST_WEIGHT * contrast / others.len().max(1) as f64;
        Ok(score - contrast - centre - described + self.noise_of(image, &text))
    }

    /// How well a known text fits an image.
    fn fit(&self, image: &ImageEmbedding, text: &str) -> Result<f64, VerifierError> {
        Ok(match &self.model {
            ScoringModel::Decoder(reader) => reader.score(image, text),
            ScoringModel::Contrastive(..) if self.score.head == ScoreHead::Matching => {
                let sentences = self.sentences.get(text);
                self.log_odds(image, sentences.expect("names are learned before they are scored"))?
            }
            ScoringModel::Contrastive(..) => {
                let text = self.names.get(text).expect("names are learned before they are scored");
                image.score(text, self.score.regions, self.weights.unwrap_or_default())
            }
        })
    }

    /// Mean log-odds, nats, by the matching head that some sentences match an image: logit of a match less that of none.
    fn log_odds(
        &self,
        image: &ImageEmbedding,
        sentences: &[Vec<u32>],
    ) -> Result<f64, VerifierError> {
        let matching = self.matching()?;
        let (model, _) = matching.expect("asked of a matching head only");
        let hidden = model.vision().config().hidden_size;
        let shape = [1, image.whole.len() / hidden, hidden];
        let states = from_floats(image.whole.clone(), shape, &self.device());
        let logits =
            model.matching_logits_of_states(&states.repeat_dim(0, sentences.len()), sentences)?;
        let odds = floats(&logits)
            .chunks_exact(2)
            .map(|pair| f64::from(pair[1]) - f64::from(pair[0]))
            .sum::<f64>();
        Ok(odds / sentences.len() as f64)
    }

    /// What [`ScoreConfig::noise`] adds to the score of a text with an image.
    fn noise_of(&self, image: &ImageEmbedding, text: &str) -> f64 {
        if self.score.noise > 0.0 { self.score.noise * noise(image, text) } else { 0.0 }
    }

    /// The sentence-level score: the cosine of a whole response with the whole of an image, a matching head's log-odds of it, or the mean
    /// of what a decoder reads of its tokens; never centred, with as much noise as mentions have.
    ///
    /// # Errors
    /// [`VerifierError`] when the text cannot be encoded.
    pub fn score_sentence(
        &self,
        image: &ImageEmbedding,
        sentence: &str,
    ) -> Result<f64, VerifierError> {
        let score = match &self.model {
            ScoringModel::Decoder(reader) => reader.score_sentence(image, sentence)?,
            ScoringModel::Contrastive(_, tokenizer) if self.score.head == ScoreHead::Matching => {
                self.log_odds(image, &[tokenizer.encode(sentence, true)?])?
            }
            ScoringModel::Contrastive(..) => {
                self.score_text(image, &self.embed_text(&[sentence.to_owned()])?)
            }
        };
        Ok(score + self.noise_of(image, sentence))
    }

    /// Cosine of a text of any length with the whole of an image: neither centred nor noisy.
    pub fn score_text(&self, image: &ImageEmbedding, text: &[f32]) -> f64 {
        best_cosine(&image.whole, text)
    }

    /// Where in one image each of some known names is seen: cosines of the image's patches (also where a matching head scores, which
    /// reads the whole image only), or probabilities that a decoder reads at the
    /// image's tokens. `None` where image tokens have no place in the image.
    ///
    /// # Errors
    /// The image cannot be shown to the decoder.
    ///
    /// # Panics
    /// When a name has not been [embedded](Self::embed_names).
    pub fn heat_maps(
        &self,
        image: &PixelValues,
        names: &[&str],
    ) -> Result<Option<Vec<HeatMap>>, VerifierError> {
        let model = match &self.model {
            ScoringModel::Contrastive(model, _) => model,
            ScoringModel::Decoder(reader) => {
                return reader.heat_maps(image, names, self.score.reading_layers);
            }
        };
        let dim = model.dim() * model.image_vectors();
        let pixels = ImageBatch::new([image], &self.device()).whole();
        let output = model.vision().encode(pixels)?;
        let patches = floats(&model.embed_patches(output)?.1);
        let side = model.vision().config().side();
        let of_name = |name: &&str| {
            let text = self.names.get(*name).expect("names are learned before they are looked for");
            let patches = patches.chunks_exact(dim);
            let values = patches.map(|patch| best_cosine(patch, text)).collect();
            HeatMap { unit: HeatMapUnit::Cosine, rows: side, columns: side, values }
        };
        Ok(Some(names.iter().map(of_name).collect()))
    }
}

/// A name as a description has it.
fn worded<'a>(name: &'a str, description: Option<&str>) -> Cow<'a, str> {
    description.map_or(Cow::Borrowed(name), |phrase| Cow::Owned(phrase.replacen("{}", name, 1)))
}

/// Embeddings that are numbers.
fn finite(embeddings: Vec<ImageEmbedding>) -> Result<Vec<ImageEmbedding>, VerifierError> {
    match embeddings.iter().position(|embedding| !embedding.is_finite()) {
        Some(index) => Err(VerifierError::NotFinite { what: format!("image {index}") }),
        None => Ok(embeddings),
    }
}

/// Mean of unit vectors, scaled to length 1.
fn common(what: &str, embeddings: &[Vec<f32>]) -> Result<Vec<f32>, VerifierError> {
    let dim = embeddings.first().map_or(0, Vec::len);
    let mut sum = vec![0.0_f32; dim];
    for embedding in embeddings {
        sum.iter_mut().zip(embedding).for_each(|(sum, value)| *sum += value);
    }
    let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        Ok(sum.into_iter().map(|x| x / norm).collect())
    } else {
        Err(VerifierError::NotFinite { what: format!("'{what}'") })
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> Option<f32> {
    // NaN differs from everything, and `max` would ignore it.
    let largest = |most: f32, x: f32| if most >= x.abs() || most.is_nan() { most } else { x.abs() };
    let scale = a.iter().copied().fold(0.0, largest);
    let difference = a.iter().zip(b).map(|(x, y)| x - y).fold(0.0, largest);
    let same = difference.is_finite() && difference <= SAME_WEIGHT * scale;
    (!same).then_some(difference)
}

/// A number of the standard normal distribution that depends on the image and the name alone.
fn noise(image: &ImageEmbedding, name: &str) -> f64 {
    let pixels = image.whole.iter().flat_map(|value| value.to_bits().to_le_bytes());
    // FNV-1a, then two finishing rounds of SplitMix64.
    let hash = pixels.chain(name.bytes()).fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    let uniform = |step: u64| {
        let mut mixed = hash.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    // Box and Muller; 1 − u is never 0.
    (-2.0 * (1.0 - uniform(1)).ln()).sqrt() * (std::f64::consts::TAU * uniform(2)).cos()
}

#[cfg(test)]
mod tests {
    use super::largest_difference;

    #[test]
    fn weights_that_are_not_finite_never_compare_equal() {
        assert_eq!(largest_difference(&[1.0, -2.0], &[1.0, -2.0]), None);
        assert_eq!(largest_difference(&[1.0, -2.0], &[1.0, -1.0]), Some(1.0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (own, mismatch) in
                [([1.0, bad], [1.0, 2.0]), ([1.0, 2.0], [1.0, bad]), ([1.0, bad], [1.0, bad])]
            {
                assert!(largest_difference(&own, &mismatch).is_some(), "{own:?} {mismatch:?}");
            }
        }
    }
}
