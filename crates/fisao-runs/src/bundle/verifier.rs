//! The verifier with everything that goes with it.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use burn::tensor::Device;
use fisao_formats::FormatError;
use fisao_formats::checkpoint::{Checkpoint, Loaded};
use fisao_formats::weights::LoadDtype;
use fisao_models::image::{ImageProcessor, PixelValues};
use fisao_scenes::WorldKind;
use fisao_verifier::calibration::VerifierIdentity;
use fisao_verifier::regions::{Regions, ScoreConfig, Window, crop_windows};
use fisao_verifier::scorer::Verifier;
use image::RgbImage;
use image::imageops::{self, FilterType};
use tempfile::TempDir;

use super::{Origin, Policy, check_size, embedded, title, warn_of_unused};
use crate::device::check_precision;
use crate::failure::Refusal;
use crate::model_location::{LocatedModel, ModelLocation, Role};
use crate::reporter::Reporter;
use crate::score_settings::ScoreSettings;

/// A verifier with how it wants its images prepared.
#[derive(Clone)]
pub struct LoadedVerifier {
    /// Scores names.
    pub verifier: Verifier,
    /// How it sees images.
    pub views: Views,
    /// The folder it came from, or what it was asked for by.
    pub name: String,
    /// Where its content can be looked up.
    origin: Origin,
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
    let (name, origin) = (folder.display().to_string(), Origin::of(folder));
    Ok(LoadedVerifier { verifier, views: Views::new(processor, score), name, origin })
}

impl LoadedVerifier {
    /// Uses the model's own image tower for both, if the two are the same.
    fn share_tower(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let Some(tower) = policy.model.vision_tower() else {
            bail!(
                Refusal::new(format!(
                    "the image tower of {} is one that no contrastive model has, so that {} cannot share it",
                    policy.name, self.name
                ))
                .hint(
                    "with --allow-mismatched-verifier any CLIP, SigLIP or BLIP-2 scores with its own image tower; see the \
                     AUC that `fisao calibrate` measures before aligning with it"
                )
            )
        };
        Ok(self.verifier.share_tower(tower)?)
    }

    /// What the verifier needs of images besides the model's own pixels: nothing where its encoder is the model's, looks
    /// at whole images, and has them prepared alike.
    ///
    /// # Errors
    /// The encoder is another one, and that was not allowed.
    pub fn views_beside(
        &mut self,
        policy: &Policy,
        allow_foreign: bool,
        reporter: &Reporter,
    ) -> anyhow::Result<Option<Views>> {
        match self.share_tower(policy) {
            // Pixels are shared where both prepare images alike; else each keeps to its own processing.
            Ok(()) if self.views.sees_like(&policy.processor) => Ok(None),
            Ok(()) => Ok(Some(self.views.clone())),
            Err(error) if allow_foreign => {
                reporter.warn(error, Some("it gets its own images (--allow-mismatched-verifier)"));
                Ok(Some(self.views.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// The model under other settings.
    #[must_use]
    pub fn with_settings(&self, settings: ScoreSettings) -> Self {
        let views = Views::new(self.views.processor.clone(), settings.score);
        let verifier = self.verifier.with_settings(settings.templates, settings.score);
        Self { verifier, views, name: self.name.clone(), origin: self.origin.clone() }
    }

    /// Everything that moves the scale of its scores.
    pub fn identity(&self, reporter: &Reporter) -> anyhow::Result<VerifierIdentity> {
        Ok(VerifierIdentity {
            model: self.origin.identity(Some(&self.name), reporter)?,
            templates: self.verifier.templates().clone(),
            score: *self.verifier.score_config(),
        })
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

/// Loads the verifier that was named, or the embedded one.
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
