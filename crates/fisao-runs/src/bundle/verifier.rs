//! The verifier with everything that goes with it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use burn::tensor::Device;
use fisao_align::team::{Processes, Team};
use fisao_formats::FormatError;
use fisao_formats::checkpoint::{Checkpoint, Loaded};
use fisao_formats::digest::sha256_parts;
use fisao_formats::weights::LoadDtype;
use fisao_models::image::{ImageProcessor, PixelValues};
use fisao_scenes::WorldKind;
use fisao_verifier::calibration::{Calibration, ModelIdentity, VerifierIdentity};
use fisao_verifier::regions::{Regions, ScoreConfig, ScoreHead, Window, Wording, crop_windows};
use fisao_verifier::scorer::{DecoderReader, Verifier, VerifierError};
use fisao_verifier::templates::Templates;
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{
    ModelSource, Origin, Pair, PairSource, Policy, Wanted, check_size, embedded, title,
    warn_of_unused,
};
use crate::device::{OpenDevice, check_precision};
use crate::failure::Refusal;
use crate::model_location::{LocatedModel, ModelLocation, Role};
use crate::processes::Opening;
use crate::prompt::EncodedPrompt;
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;
use crate::verifier_choice::{Grade, VerifierSource};

/// Images that the drift of a tuned vision tower is measured on.
const DRIFT_IMAGES: usize = 32;

/// A verifier with how it wants its images prepared.
#[derive(Clone)]
pub struct LoadedVerifier {
    /// Scores names.
    pub verifier: Verifier,
    /// How it sees images.
    pub views: Views,
    /// The folder it came from, or what it was asked for by.
    pub name: String,
    /// How its image encoder is related to the model's: exact until a model is [beside](Self::views_beside) it.
    pub grade: Grade,
    /// Where its content can be looked up.
    origin: Origin,
    /// The model whose vision tower it has taken over, and itself before that.
    tuned: Option<Tuned>,
    /// Those that have opened the same verifier.
    processes: Option<Arc<Processes>>,
}

/// A model that has the verifier's vision tower, tuned.
#[derive(Clone)]
struct Tuned {
    /// What the model was asked for by.
    name: String,
    /// Where the model's content can be looked up.
    origin: Origin,
    /// The verifier with the tower it was published with.
    published: Box<Verifier>,
}

/// What a verifier sees of an image: the whole, and its crops where it looks at those.
#[derive(Clone, Debug)]
pub struct Views {
    processor: ImageProcessor,
    /// Crops along each side; none where only the whole is looked at.
    crops: Option<u32>,
    /// Factor by which images lose resolution first, for studies of weaker encoders; 1 leaves them as they are.
    coarseness: f64,
}

impl Views {
    fn new(processor: ImageProcessor, score: ScoreConfig) -> Self {
        let crops = (score.regions == Regions::Crops).then_some(score.crops);
        Self { processor, crops, coarseness: 1.0 }
    }

    /// Whether the model's own pixels are all there is to see.
    fn sees_like(&self, model: &ImageProcessor) -> bool {
        let whole = ImageProcessor { tiles: None, ..model.clone() };
        self.crops.is_none() && ImageProcessor { tiles: None, ..self.processor.clone() } == whole
    }

    /// The same of images that lose resolution first, by this factor in width and height.
    #[must_use]
    pub fn coarsened(&self, coarseness: f64) -> Self {
        Self { coarseness, ..self.clone() }
    }

    /// The views of an image, the whole of it first.
    pub fn of(&self, image: &RgbImage) -> Vec<PixelValues> {
        let coarse = (self.coarseness > 1.0).then(|| coarse(image, self.coarseness));
        let image = coarse.as_ref().unwrap_or(image);
        let mut views = vec![self.processor.process(image)];
        for window in self.crops.iter().flat_map(|&crops| crop_windows(image.dimensions(), crops)) {
            let Window { x, y, width, height } = window;
            let crop = imageops::crop_imm(image, x, y, width, height).to_image();
            views.push(self.processor.process(&crop));
        }
        views
    }

    /// The part of an image of this size that is seen; see [`ImageProcessor::region`].
    pub fn region(&self, size: (u32, u32)) -> [f64; 4] {
        self.processor.region(size)
    }

    /// The image that the encoder takes, from what was made of it.
    pub fn shown(&self, pixels: &PixelValues) -> RgbImage {
        self.processor.image(pixels)
    }
}

/// An image of the same size with less to see.
fn coarse(image: &RgbImage, factor: f64) -> RgbImage {
    let (width, height) = image.dimensions();
    let smaller = |length: u32| ((f64::from(length) / factor).round() as u32).max(1);
    let filter = FilterType::Triangle;
    let small = imageops::resize(image, smaller(width), smaller(height), filter);
    imageops::resize(&small, width, height, filter)
}

/// Loads a CLIP, SigLIP or BLIP-2 checkpoint folder as a verifier.
pub fn load_verifier(
    folder: &Path,
    settings: ScoreSettings,
    dtype: LoadDtype,
    device: &Device,
    reporter: &Reporter,
) -> anyhow::Result<LoadedVerifier> {
    let ScoreSettings { templates, score } = settings;
    templates.validate()?;
    score.validate()?;
    let checkpoint = Checkpoint::open(folder)?;
    let vision = checkpoint.contrastive_vision()?;
    let processor = checkpoint.image_processor()?;
    check_size(folder, &processor, vision)?;
    check_precision(&checkpoint, dtype, device, reporter)?;
    let tokenizer = Arc::new(checkpoint.tokenizer()?);
    let Loaded { model, unused } = checkpoint.load_contrastive(dtype, device)?;
    warn_of_unused(folder, &unused, reporter);
    let verifier = Verifier::new(model, tokenizer, templates, score);
    verifier.check_head().with_context(|| folder.display().to_string())?;
    let (name, origin) = (folder.display().to_string(), Origin::of(folder));
    let (views, grade) = (Views::new(processor, score), Grade::Exact);
    Ok(LoadedVerifier { verifier, views, name, grade, origin, tuned: None, processes: None })
}

impl LoadedVerifier {
    /// The decoder of a model as its verifier, without the adapter that may be on the model.
    ///
    /// # Errors
    /// A setting of the score has no meaning for a decoder.
    pub fn of_decoder(policy: &Policy, settings: ScoreSettings) -> anyhow::Result<Self> {
        let ScoreSettings { templates, score } = settings;
        check_decoder_settings(&templates, score)?;
        let EncodedPrompt { ids, instruction } = policy.prompt(READING_PROMPT)?;
        let tokenizer = Arc::clone(&policy.tokenizer);
        let reader = DecoderReader::new(&policy.model, tokenizer, ids, instruction);
        Ok(Self {
            verifier: Verifier::of_decoder(reader, score),
            views: Views::new(policy.processor.clone(), score),
            name: format!("the decoder of {}", policy.name),
            grade: Grade::Decoder,
            origin: policy.origin.clone(),
            tuned: None,
            processes: None,
        })
    }

    /// How work with it is shared; see [`Team::of`].
    pub fn team(&self, exact: bool) -> Option<Team<'_>> {
        Team::of(self.processes.as_deref(), exact)
    }

    /// Uses the model's own image tower for both, if the two are the same or the model's is a tuned copy.
    fn share_tower(
        &mut self,
        policy: &Policy,
        allow_foreign: bool,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let Some(tower) = policy.model.vision_tower() else {
            bail!(
                Refusal::new(format!(
                    "the image tower of {} is one that no contrastive model has, so that {} cannot share it",
                    policy.name, self.name
                ))
                .hint(
                    "--verifier decoder scores with the model's own decoder; with --allow-mismatched-verifier any CLIP, SigLIP \
                     or BLIP-2 scores with its own image tower; see the AUC that `fisao calibrate` measures before aligning with it"
                )
            )
        };
        match self.verifier.share_tower(tower) {
            Err(VerifierError::EncoderWeightsMismatch { tensor, difference }) if !allow_foreign => {
                self.adopt_tower(policy);
                reporter.note(format!(
                    "{}: its vision tower was tuned in {} (`{tensor}` differs by up to {difference:.1e}); the model's own tower \
                     is used with the verifier's head, and calibration decides whether that is good enough",
                    self.name, policy.name
                ));
                Ok(())
            }
            shared => Ok(shared?),
        }
    }

    /// Copies the image tower to the card, if there is one; the model's own, if that is what it is, has one copy. What tower it is has
    /// to be settled before.
    ///
    /// # Errors
    /// As [`OpenDevice::copy_contrastive`].
    pub fn use_card(
        &mut self,
        beside: Option<&Policy>,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let beside = beside.and_then(|policy| policy.model.vision_tower());
        match self.verifier.contrastive_mut() {
            Some(model) => opened.copy_contrastive(model, beside, reporter),
            None => Ok(()),
        }
    }

    /// Puts the model's own tower, without whatever adapter is on it, in the place of the verifier's.
    fn adopt_tower(&mut self, policy: &Policy) {
        let published = Box::new(self.verifier.clone());
        self.verifier.adopt_tower(&policy.model);
        let (name, origin) = (policy.name.clone(), policy.origin.clone());
        self.tuned = Some(Tuned { name, origin, published });
        self.grade = Grade::Near;
    }

    /// What the verifier needs of images besides the model's own pixels: nothing where its encoder is the model's, looks
    /// at whole images, and has them prepared alike, or where the model's decoder is the verifier.
    ///
    /// # Errors
    /// The encoder is another one, and that was not allowed.
    pub fn views_beside(
        &mut self,
        policy: &Policy,
        allow_foreign: bool,
        reporter: &Reporter,
    ) -> anyhow::Result<Option<Views>> {
        if self.grade == Grade::Decoder {
            return Ok(None);
        }
        match self.share_tower(policy, allow_foreign, reporter) {
            // Pixels are shared where both prepare images alike; else each keeps to its own processing.
            Ok(()) if self.views.sees_like(&policy.processor) => Ok(None),
            Ok(()) => Ok(Some(self.views.clone())),
            Err(error) if allow_foreign => {
                self.grade = Grade::Mismatched;
                reporter.warn(error, Some("it gets its own images (--allow-mismatched-verifier)"));
                Ok(Some(self.views.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Says how far tuning has moved the model's vision tower from the published one that the verifier has, by the first of `count`
    /// images: mean cosine of their pooled embeddings by the two. Nothing is said where the two are one. `views` gives an image as
    /// the verifier takes it.
    ///
    /// # Errors
    /// An image cannot be read, or an embedding is not finite.
    pub fn report_drift(
        &self,
        count: usize,
        views: &dyn Fn(usize) -> anyhow::Result<Vec<PixelValues>>,
        reporter: &Reporter,
    ) -> anyhow::Result<()> {
        let Some(Tuned { published, .. }) = self.tuned.as_ref().filter(|_| count > 0) else {
            return Ok(());
        };
        let images = (0..count.min(DRIFT_IMAGES)).map(views).collect::<anyhow::Result<Vec<_>>>()?;
        let (own, before) = (self.verifier.embed_views(&images)?, published.embed_views(&images)?);
        let cosines = own.iter().zip(&before).map(|(own, before)| own.mean_cosine(before));
        let cosine = cosines.sum::<f64>() / images.len() as f64;
        reporter.note(format!(
            "drift of the vision tower: pooled embeddings of {} images by the model's own and by the published tower have a mean \
             cosine of {cosine:.3}",
            images.len()
        ));
        Ok(())
    }

    /// Refuses a verifier whose scores tell too little of correct from hallucinated mentions, where it is not the model's own encoder
    /// as it was trained with its text head: calibration decides about those. `least` is `guards.verifier-auc`.
    ///
    /// # Errors
    /// The calibration's AUC is below the least one.
    pub fn check_auc(&self, calibration: &Calibration, least: f64) -> anyhow::Result<()> {
        let weak = matches!(self.grade, Grade::Near | Grade::Decoder) && calibration.auc < least;
        if !weak {
            return Ok(());
        }
        bail!(
            Refusal::new(format!(
                "{} tells correct from hallucinated mentions with an AUC of {:.3} only; guards.verifier-auc asks for {least}",
                self.name, calibration.auc
            ))
            .hint(match self.grade {
                Grade::Decoder => {
                    "try --set score.reading-layers=1 or 0.1 in calibration, or a contrastive verifier; --set \
                     guards.verifier-auc=0.5 aligns with it all the same"
                }
                _ => "try --verifier decoder, or --set guards.verifier-auc=0.5 to align with it all the same",
            })
        )
    }

    /// The model under other settings.
    #[must_use]
    pub fn with_settings(&self, settings: ScoreSettings) -> Self {
        let views = Views::new(self.views.processor.clone(), settings.score);
        let verifier = self.verifier.with_settings(settings.templates, settings.score);
        Self { verifier, views, ..self.clone() }
    }

    /// Everything that moves the scale of its scores.
    pub fn identity(&self, reporter: &Reporter) -> anyhow::Result<VerifierIdentity> {
        Ok(VerifierIdentity {
            model: self.model_identity(reporter)?,
            templates: self.verifier.templates().clone(),
            score: *self.verifier.score_config(),
        })
    }

    /// The model whose decoder reads, with what it is shown images in; else the checkpoint, with the model whose tower it has taken.
    fn model_identity(&self, reporter: &Reporter) -> anyhow::Result<ModelIdentity> {
        let own = self.origin.identity(Some(&self.name), reporter)?;
        if let Some(reader) = self.verifier.decoder() {
            let context: Vec<u8> =
                reader.context().iter().flat_map(|id| id.to_le_bytes()).collect();
            let parts = [b"decoder reading".as_slice(), own.sha256.as_bytes(), &context];
            return Ok(ModelIdentity { sha256: sha256_parts(parts), ..own });
        }
        let Some(Tuned { name, origin, .. }) = &self.tuned else { return Ok(own) };
        let model = origin.identity(Some(name), reporter)?;
        let parts = [b"tuned tower".as_slice(), own.sha256.as_bytes(), model.sha256.as_bytes()];
        let name = format!("{} with the vision tower of {name}", own.name);
        Ok(ModelIdentity { name, sha256: sha256_parts(parts) })
    }

    /// Digest that tells the checkpoint from another, of its settings and of a sample of its weights.
    pub fn sample(&self) -> Result<String, FormatError> {
        self.origin.sample()
    }

    /// The same under another name, from a temporary folder.
    pub(super) fn unpacked(self, name: &str, folder: &Arc<TempDir>) -> Self {
        Self { name: name.to_owned(), origin: self.origin.unpacked(folder), ..self }
    }
}

/// What an image is shown to a decoder in. What stands behind the image plays no part, but for image encoders that read instructions.
const READING_PROMPT: &str = "Describe the image.";

/// Refuses what a decoder would ignore.
fn check_decoder_settings(templates: &Templates, score: ScoreConfig) -> anyhow::Result<()> {
    score.validate()?;
    if !matches!(score.regions, Regions::Auto | Regions::Whole) {
        bail!(
            Refusal::new(
                "score.regions names parts of an image, which only a contrastive verifier looks at one by one"
            )
            .hint("leave it out: the decoder reads every position of the image")
        );
    }
    if score.head == ScoreHead::Matching {
        bail!(
            Refusal::new("score.head = \"matching\" is for BLIP-2 verifiers, and --verifier decoder has no such head")
                .hint("leave it out")
        );
    }
    if score.wording == Wording::Phrase || score.contrast > 0 {
        bail!(
            Refusal::new(
                "score.wording = \"phrase\" and score.contrast are for a text encoder, which --verifier decoder has not"
            )
            .hint("leave them out: the decoder reads names, each by its first token")
        );
    }
    if *templates != Templates::default() {
        bail!(
            Refusal::new(
                "templates are sentences for a text encoder, which --verifier decoder has not"
            )
            .hint("leave them out: the decoder reads names as they stand in a sentence")
        );
    }
    Ok(())
}

/// A verifier for captions that are there already: of its own, or of the model that it goes with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AloneSource {
    /// The verifier; without a model the embedded one if there is none.
    pub verifier: Option<VerifierSource>,
    /// The model whose decoder reads, or whose own vision tower is used.
    pub model: Option<ModelLocation>,
    /// Whose embedded models are meant.
    pub world: WorldKind,
}

impl AloneSource {
    /// Whether it is one of those that come with the command.
    pub fn is_embedded(&self) -> bool {
        let checkpoint = matches!(self.verifier, Some(VerifierSource::Checkpoint(_)));
        self.model.is_none() && !checkpoint
    }

    /// Loads it, also in the other processes of the command.
    pub fn open(
        &self,
        settings: ScoreSettings,
        opened: &OpenDevice,
        reporter: &Reporter,
    ) -> anyhow::Result<LoadedVerifier> {
        let (location, world) = match (&self.verifier, &self.model) {
            (None, None) => (None, self.world),
            (Some(VerifierSource::Checkpoint(location)), None) => (Some(location), self.world),
            (verifier, model) => {
                let model = ModelSource { model: model.clone(), ..ModelSource::default() };
                let pair = PairSource {
                    model,
                    verifier: verifier.clone(),
                    allow_mismatched_verifier: false,
                    world: self.world,
                };
                // Nothing is decoded.
                let opened = opened.without_decoders();
                let Pair { policy, verifier, .. } = Pair::open(&pair, settings, &opened, reporter)?;
                return Ok(LoadedVerifier { processes: policy.processes, ..verifier });
            }
        };
        let opening = Opening::begin(&Wanted::Verifier(self.clone(), settings.clone()), opened)?;
        let mut verifier =
            verifier_or_embedded(location, world, settings, &opened.device, reporter)?;
        verifier.use_card(None, opened, reporter)?;
        Ok(LoadedVerifier { processes: opening.finish()?, ..verifier })
    }
}

/// Loads the contrastive verifier that was named, or the embedded one.
pub fn verifier_or_embedded(
    verifier: Option<&ModelLocation>,
    world: WorldKind,
    settings: ScoreSettings,
    device: &Device,
    reporter: &Reporter,
) -> anyhow::Result<LoadedVerifier> {
    if let Some(verifier) = verifier {
        let LocatedModel { folder, name } = verifier.locate(Role::Verifier, reporter)?;
        let dtype = LoadDtype::AsStored;
        let loaded = load_verifier(&folder, settings, dtype, device, reporter)?;
        return Ok(LoadedVerifier { name, ..loaded });
    }
    let title = title(world);
    reporter.note(format_args!("no --verifier given: using the {title}'s small verifier"));
    embedded(world)?.verifier(settings, device, reporter)
}
