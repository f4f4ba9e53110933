//! Image encoders over many images: the policy's features and the verifier's embeddings.

use burn::tensor::Device;
use fisao_models::image::PixelValues;
use fisao_models::parallel::{parallel_chunks, workers_on};
use fisao_models::vision_language::{ImageBatch, ImageFeatures, VisionLanguageModel};
use fisao_verifier::regions::{ImageEmbedding, RegionWeights};
use fisao_verifier::scorer::Verifier;
use serde::{Deserialize, Serialize};

use crate::error::AlignError;
use crate::run_control::RunControl;
use crate::sharing::{
    Kind, PackedEmbedding, PackedFeatures, PackedPixels, PackedTask, Work, WorkModels, in_parts,
    perform,
};
use crate::tasks::{Task, TaskSource};

/// Most images encoded together by one core.
pub const IMAGES_AT_ONCE: usize = 32;

/// Image features of some tasks.
#[derive(Debug, Clone)]
pub struct EncodedImages {
    /// Per task, projected image tokens.
    pub features: Vec<ImageFeatures>,
    /// Per task, the verifier's embedding of its image.
    pub embeddings: Vec<ImageEmbedding>,
}

/// The images of some tasks, at least one, with what is asked about each.
pub fn image_batch(tasks: &[Task], device: &Device) -> ImageBatch {
    let shown = |task: &Task| 1 + task.further_images.len();
    let images =
        tasks.iter().flat_map(|task| [&task.image].into_iter().chain(&task.further_images));
    let asked = tasks.iter().flat_map(|task| vec![task.instruction.clone(); shown(task)]);
    let images = ImageBatch::new(images, device).with_instructions(asked.collect());
    if tasks.iter().all(|task| task.further_images.is_empty()) {
        return images;
    }
    images.shown_together(tasks.iter().map(shown).collect())
}

/// Runs the image encoders over all tasks, on all cores of the CPU; an encoder that policy and verifier
/// [share](Verifier::share_tower) runs once, and so does one whose features a decoder
/// [reads](Verifier::reads_features_for). Either all tasks have pixels of their own for the
/// verifier, or none has.
///
/// # Errors
/// [`AlignError::Verifier`] when an embedding is not finite, [`AlignError::Card`] when the card fails.
///
/// # Panics
/// A task shows several images: words are verified against one.
pub fn encode(
    policy: &VisionLanguageModel,
    verifier: &Verifier,
    tasks: &[Task],
) -> Result<EncodedImages, AlignError> {
    encode_on(policy, verifier, tasks, RunControl::new(&|_| {}))
}

/// The same, which can be shared, and stopped before a batch.
///
/// # Errors
/// See [`encode`]; [`AlignError::Stopped`] when that was asked for.
pub fn encode_on(
    policy: &VisionLanguageModel,
    verifier: &Verifier,
    tasks: &[Task],
    control: RunControl<'_>,
) -> Result<EncodedImages, AlignError> {
    let one_each = tasks.iter().all(|task| task.further_images.is_empty());
    assert!(one_each, "words are verified against one image");
    let Some(team) = control.team else { return encode_here(policy, verifier, tasks, control) };
    let parts: Vec<&[Task]> = in_parts(tasks, team.parts()).collect();
    let work = |at: usize| Encode {
        tasks: parts[at].iter().map(PackedTask::of).collect(),
        weights: verifier.weights(),
    };
    let models = WorkModels::new(Some(policy), Some(verifier), None);
    let device = policy.device();
    let images = perform(team, models, parts.len(), work, control)?.into_iter().flatten();
    let unpacked = |(features, embedding): (PackedFeatures, PackedEmbedding)| {
        (features.on(&device), embedding.unpacked())
    };
    let (features, embeddings) = images.map(unpacked).unzip();
    Ok(EncodedImages { features, embeddings })
}

/// A part of [`encode_on`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Encode {
    tasks: Vec<PackedTask>,
    /// On which it depends whether parts of images are embedded.
    weights: Option<RegionWeights>,
}

impl Work for Encode {
    const KIND: Kind = Kind::Encode;
    type Answer = Vec<(PackedFeatures, PackedEmbedding)>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let verifier = models.verifier().clone().with_weights(self.weights);
        let tasks: Vec<Task> = self.tasks.iter().map(PackedTask::unpacked).collect();
        let EncodedImages { features, embeddings } =
            encode_here(models.policy(), &verifier, &tasks, control)?;
        let packed = features.iter().zip(&embeddings).map(|(features, embedding)| {
            (PackedFeatures::of(features), PackedEmbedding::of(embedding))
        });
        Ok(packed.collect())
    }
}

/// The same by this process alone.
fn encode_here(
    policy: &VisionLanguageModel,
    verifier: &Verifier,
    tasks: &[Task],
    control: RunControl<'_>,
) -> Result<EncodedImages, AlignError> {
    let chunks = parallel_chunks(tasks, workers_on(&policy.device()), |chunk| {
        let mut encoded = EncodedImages { features: Vec::new(), embeddings: Vec::new() };
        for batch in chunk.chunks(IMAGES_AT_ONCE) {
            control.check()?;
            let images = image_batch(batch, &policy.device());
            let same_pixels = batch.iter().all(|task| task.verifier_images.is_empty());
            let reads = |task: &Task| verifier.reads_features_for(&task.instruction);
            if same_pixels && verifier.shares_tower() {
                let (features, output) = policy.image_features_and_vision_output(images)?;
                encoded.features.extend(features.split());
                encoded.embeddings.extend(verifier.embed_vision_output(output)?);
            } else if same_pixels && batch.iter().all(reads) {
                let sizes = images.sizes().to_vec();
                let features = policy.image_features(images)?;
                encoded.embeddings.extend(verifier.embed_features(&features, &sizes)?);
                encoded.features.extend(features.split());
            } else {
                encoded.embeddings.extend(encode_images(verifier, batch)?);
                encoded.features.extend(policy.image_features(images)?.split());
            }
        }
        Ok(encoded)
    });
    let mut all = EncodedImages { features: Vec::new(), embeddings: Vec::new() };
    for chunk in chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()? {
        all.features.extend(chunk.features);
        all.embeddings.extend(chunk.embeddings);
    }
    Ok(all)
}

/// The verifier's embeddings of the tasks' images, at least one.
///
/// # Errors
/// [`AlignError::Verifier`] when an embedding is not finite.
pub fn encode_images(
    verifier: &Verifier,
    tasks: &[Task],
) -> Result<Vec<ImageEmbedding>, AlignError> {
    if tasks.iter().all(|task| task.verifier_images.is_empty()) {
        return Ok(verifier.embed_images(image_batch(tasks, &verifier.device()))?);
    }
    let views: Vec<&[PixelValues]> =
        tasks.iter().map(|task| task.verifier_images.as_slice()).collect();
    Ok(verifier.embed_views(&views)?)
}

/// The verifier's embeddings of images that each come with their views, on all cores of the CPU; shared where `control` says so, and
/// stopped before a batch.
///
/// # Errors
/// [`AlignError::Verifier`] when an embedding is not finite, [`AlignError::Stopped`] when that was asked for.
///
/// # Panics
/// See [`Verifier::embed_views`].
pub fn embed_views(
    verifier: &Verifier,
    images: &[Vec<PixelValues>],
    control: RunControl<'_>,
) -> Result<Vec<ImageEmbedding>, AlignError> {
    let Some(team) = control.team else { return embed_views_here(verifier, images, control) };
    let parts: Vec<&[Vec<PixelValues>]> = in_parts(images, team.parts()).collect();
    let packed = |views: &Vec<PixelValues>| views.iter().map(PackedPixels::of).collect();
    let work = |at: usize| EmbedViews {
        images: parts[at].iter().map(packed).collect(),
        weights: verifier.weights(),
    };
    let models = WorkModels::new(None, Some(verifier), None);
    let embeddings = perform(team, models, parts.len(), work, control)?.into_iter().flatten();
    Ok(embeddings.map(|embedding| embedding.unpacked()).collect())
}

/// A part of [`embed_views`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EmbedViews {
    images: Vec<Vec<PackedPixels>>,
    /// As of [`Encode`].
    weights: Option<RegionWeights>,
}

impl Work for EmbedViews {
    const KIND: Kind = Kind::EmbedViews;
    type Answer = Vec<PackedEmbedding>;

    fn done(
        &self,
        models: WorkModels<'_>,
        control: RunControl<'_>,
    ) -> Result<Self::Answer, AlignError> {
        let verifier = models.verifier().clone().with_weights(self.weights);
        let unpacked =
            |views: &Vec<PackedPixels>| views.iter().map(PackedPixels::unpacked).collect();
        let images: Vec<Vec<PixelValues>> = self.images.iter().map(unpacked).collect();
        let embeddings = embed_views_here(&verifier, &images, control)?;
        Ok(embeddings.iter().map(PackedEmbedding::of).collect())
    }
}

/// The same by this process alone.
fn embed_views_here(
    verifier: &Verifier,
    images: &[Vec<PixelValues>],
    control: RunControl<'_>,
) -> Result<Vec<ImageEmbedding>, AlignError> {
    let chunks = parallel_chunks(images, workers_on(&verifier.device()), |chunk| {
        let mut embeddings = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(IMAGES_AT_ONCE) {
            control.check()?;
            embeddings.extend(verifier.embed_views(batch)?);
        }
        Ok(embeddings)
    });
    Ok(chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?.concat())
}

/// The verifier's embeddings of all images of a source, on all cores of the CPU, without keeping their pixels.
///
/// # Errors
/// What the source reports about a task; see [`encode_images`].
pub fn encode_all_images(
    verifier: &Verifier,
    source: &dyn TaskSource,
) -> Result<Vec<ImageEmbedding>, AlignError> {
    let indices: Vec<usize> = (0..source.count()).collect();
    let chunks = parallel_chunks(&indices, workers_on(&verifier.device()), |chunk| {
        let mut embeddings = Vec::with_capacity(chunk.len());
        for batch in chunk.chunks(IMAGES_AT_ONCE) {
            let tasks = batch.iter().map(|&at| source.task(at)).collect::<Result<Vec<_>, _>>()?;
            embeddings.extend(encode_images(verifier, &tasks)?);
        }
        Ok(embeddings)
    });
    Ok(chunks.into_iter().collect::<Result<Vec<_>, AlignError>>()?.concat())
}
