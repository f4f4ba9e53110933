//! Captions against images: which words name objects, and how well each fits.

use std::ops::Range;

use fisao_align::AlignError;
use fisao_align::RunControl;
use fisao_align::encoding::embed_views;
use fisao_align::team::Team;
use fisao_models::image::PixelValues;
use fisao_models::parallel::{cores, parallel_chunks, workers_on};
use fisao_verifier::calibration::{Calibration, ProbabilityModel};
use fisao_verifier::mentions::{Mention, ObjectVocabulary, TokenMention};
use fisao_verifier::regions::{ImageEmbedding, RegionWeights};
use fisao_verifier::scorer::{HeatMap, Verifier, VerifierError};
use image::RgbImage;
use serde::Serialize;

use crate::bundle::{LoadedVerifier, Views};
use crate::calibrations::Setting;
use crate::reporter::Reporter;
use crate::text_cache;
use crate::vocabulary::Vocabulary;

/// A caption with its object mentions.
#[derive(Debug, Serialize)]
pub struct ScoredCaption {
    /// The caption.
    pub caption: String,
    /// What it names, in its order.
    pub mentions: Vec<ScoredMention>,
}

/// One object mention.
#[derive(Clone, Debug, Serialize)]
pub struct ScoredMention {
    /// First character in the caption, counted from 0.
    pub start: usize,
    /// Character after the last.
    pub end: usize,
    /// The same in bytes.
    #[serde(skip)]
    pub bytes: Range<usize>,
    /// What the caption says.
    pub text: String,
    /// The object.
    pub category: String,
    /// The name that was scored.
    pub form: String,
    /// How the caption describes it, with {} in the name's place, where that was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The names that it was contrasted with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contrasted: Vec<String>,
    /// Whether the caption says that the object is not there.
    pub negated: bool,
    /// On the calibration's scale, where there is one: less the name's centre if that takes them.
    pub score: f64,
    /// Probability that the object is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_hallucinated: Option<f64>,
}

/// An object mention with the tokens that spell it.
pub struct SpelledMention {
    /// The mention.
    pub mention: ScoredMention,
    /// Index of its category.
    pub category: usize,
    /// Tokens that spell it; not empty.
    pub tokens: Range<usize>,
}

/// A name that was asked for.
pub struct ScoredName {
    /// What was compared with the image.
    pub sentences: Vec<String>,
    /// As [`ScoredMention::score`].
    pub score: f64,
    /// As [`ScoredMention::p_hallucinated`].
    pub p_hallucinated: Option<f64>,
}

/// Images encoded at once by one core.
const BATCH: usize = 16;

/// Images that [`encode_images`] should be given at a time.
pub(crate) fn images_at_once(verifier: &Verifier, team: Option<Team<'_>>) -> usize {
    let workers = workers_on(&verifier.device());
    BATCH * team.map_or(workers, |team| team.parts_at_once(workers))
}

/// An image as a verifier sees it.
pub struct SeenImage {
    /// What the verifier makes of its views.
    pub embedding: ImageEmbedding,
    /// The whole of it, as the encoder takes it.
    pub whole: PixelValues,
}

/// Looks at images on all cores, shared where `control` says so; `open` reads one.
///
/// # Errors
/// The first that `open` reports; see [`embed_views`].
pub fn encode_images<T: Sync, E: From<AlignError> + Send>(
    verifier: &Verifier,
    views: &Views,
    images: &[T],
    open: impl Fn(&T) -> Result<RgbImage, E> + Sync,
    control: RunControl<'_>,
) -> Result<Vec<SeenImage>, E> {
    let seen = parallel_chunks(images, cores(), |part| {
        part.iter().map(|image| Ok(views.of(&open(image)?))).collect::<Result<Vec<_>, E>>()
    });
    let seen: Vec<Vec<_>> = seen.into_iter().collect::<Result<Vec<_>, E>>()?.concat();
    let embeddings = embed_views(verifier, &seen, control)?;
    let wholes = seen.into_iter().map(|mut views| views.swap_remove(0));
    let pairs = embeddings.into_iter().zip(wholes);
    Ok(pairs.map(|(embedding, whole)| SeenImage { embedding, whole }).collect())
}

/// What turns an image into scores.
pub struct Scorer {
    verifier: Verifier,
    vocabulary: ObjectVocabulary,
    calibration: Option<Calibration>,
}

impl Scorer {
    /// A scorer by a calibration that fits, or by none.
    ///
    /// # Errors
    /// The calibration was made with another verifier or other settings; the vocabulary cannot be used.
    pub fn new(
        loaded: &LoadedVerifier,
        words: &Vocabulary,
        calibration: Option<Calibration>,
        reporter: &Reporter,
    ) -> anyhow::Result<Self> {
        let vocabulary = words.for_mentions()?;
        let mut verifier = loaded.verifier.clone();
        if let Some(calibration) = &calibration {
            let setting = Setting { verifier: loaded, vocabulary: words };
            setting.check(calibration, None, reporter)?;
            verifier.apply_calibration(calibration);
            // Before any work, rather than at the first such word.
            vocabulary.forms().try_for_each(|(form, _)| verifier.check_centre(form))?;
        } else {
            verifier.set_weights(RegionWeights::default());
        }
        if verifier.decoder().is_some() {
            text_cache::look_up_tokens(&mut verifier, &vocabulary, reporter)?;
        } else if verifier.score_config().contrast > 0 {
            // What a name is contrasted with may be any other.
            text_cache::learn(loaded, &mut verifier, &vocabulary, reporter)?;
        }
        Ok(Self { verifier, vocabulary, calibration })
    }

    /// Reads the names' embeddings of an earlier run, if there are any; for whoever has many captions before him.
    ///
    /// # Errors
    /// The verifier's files cannot be read.
    pub fn recall(&mut self, loaded: &LoadedVerifier, reporter: &Reporter) -> anyhow::Result<()> {
        text_cache::recall_only(loaded, &mut self.verifier, &self.vocabulary, reporter)
    }

    /// What scores, as the calibration has it.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Whether scores become probabilities.
    pub fn is_calibrated(&self) -> bool {
        self.calibration.is_some()
    }

    /// What the verifier makes of one image's views.
    pub fn embed(&self, views: &[PixelValues]) -> anyhow::Result<ImageEmbedding> {
        Ok(self.verifier.embed_views(&[views])?.swap_remove(0))
    }

    /// What a verifier of the same model and settings has learned of names.
    pub fn learn(&mut self, other: &Verifier) {
        self.verifier.learn_from(other);
    }

    /// Score of a name with an image.
    pub fn name(&mut self, image: &ImageEmbedding, name: &str) -> anyhow::Result<ScoredName> {
        // "Dogs" is scored as captions' dogs are.
        let mention = self.vocabulary.mention_of(name);
        let form = mention.map_or_else(|| name.to_owned(), |mention| mention.form.to_owned());
        self.verifier.embed_names([form.as_str()])?;
        let score = self.verifier.score(image, &form)?;
        let sentences = match self.verifier.decoder() {
            Some(_) => vec![form.clone()],
            None => self.verifier.templates().render(&form),
        };
        Ok(ScoredName { sentences, score, p_hallucinated: self.p_hallucinated(score) })
    }

    /// Scores what a caption names against an image's embedding.
    pub fn caption(
        &mut self,
        image: &ImageEmbedding,
        caption: &str,
    ) -> anyhow::Result<ScoredCaption> {
        let found: Vec<Mention> = self.vocabulary.mentions(caption).collect();
        self.verifier.embed_names(found.iter().map(|mention| mention.form))?;
        let spans: Vec<Range<usize>> = found.iter().map(|mention| mention.span.clone()).collect();
        let descriptions = self.verifier.descriptions(caption, &spans);
        for (mention, description) in found.iter().zip(&descriptions) {
            self.verifier.embed_described(mention.form, description.as_deref())?;
        }
        let characters = |bytes: usize| caption[..bytes].chars().count();
        let scored = |(mention, description): (Mention, Option<String>)| {
            let Mention { category, form, span, negated } = mention;
            let score = self.verifier.score_described(image, form, description.as_deref())?;
            Ok(ScoredMention {
                start: characters(span.start),
                end: characters(span.end),
                text: caption[span.clone()].to_owned(),
                bytes: span,
                category: self.vocabulary.category(category).to_owned(),
                form: form.to_owned(),
                description,
                contrasted: self.verifier.alternatives(form).to_vec(),
                negated,
                score,
                p_hallucinated: self.p_hallucinated(score),
            })
        };
        let mentions = found.into_iter().zip(descriptions).map(scored);
        let mentions = mentions.collect::<Result<_, VerifierError>>()?;
        Ok(ScoredCaption { caption: caption.to_owned(), mentions })
    }

    /// Scores what a response names, with the tokens that spell it. `spans` are the bytes of the text that each token spells.
    ///
    /// # Errors
    /// A name cannot be scored.
    pub fn response(
        &mut self,
        image: &ImageEmbedding,
        text: &str,
        spans: &[Range<usize>],
    ) -> anyhow::Result<Vec<SpelledMention>> {
        let mut spelled = self.vocabulary.token_mentions(text, spans).into_iter().peekable();
        let of_caption = self.caption(image, text)?.mentions;
        let mut found = Vec::with_capacity(of_caption.len());
        // What no token spells is no mention of the response.
        for mention in of_caption {
            if let Some(same) = spelled.next_if(|same| same.span == mention.bytes) {
                let TokenMention { category, tokens, .. } = same;
                found.push(SpelledMention { mention, category, tokens });
            }
        }
        Ok(found)
    }

    /// Score of a whole response with an image.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn sentence(&self, image: &ImageEmbedding, text: &str) -> anyhow::Result<f64> {
        Ok(self.verifier.score_sentence(image, text)?)
    }

    /// Where in an image a caption's words are seen; `whole` is the image as the verifier takes it. `None` where its image tokens have
    /// no place in the image.
    ///
    /// # Errors
    /// The image cannot be shown to the decoder.
    pub fn heat_maps(
        &self,
        whole: &PixelValues,
        caption: &ScoredCaption,
    ) -> anyhow::Result<Option<Vec<HeatMap>>> {
        if caption.mentions.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let names: Vec<&str> =
            caption.mentions.iter().map(|mention| mention.form.as_str()).collect();
        Ok(self.verifier.heat_maps(whole, &names)?)
    }

    fn p_hallucinated(&self, score: f64) -> Option<f64> {
        let calibration = self.calibration.as_ref()?;
        Some(1.0 - calibration.probability(score, ProbabilityModel::default()))
    }
}

impl ScoredCaption {
    /// The caption with its object mentions as they are to be shown.
    pub fn marked(&self, mut word: impl FnMut(&ScoredMention) -> String) -> String {
        let mut text = String::new();
        let mut at = 0;
        for mention in &self.mentions {
            text.push_str(&self.caption[at..mention.bytes.start]);
            text.push_str(&word(mention));
            at = mention.bytes.end;
        }
        text + &self.caption[at..]
    }
}
