//! Captions of images with their scores, and the calibration on them.

use std::collections::BTreeSet;

use fisao_align::calibrate::{Supervision, calibrate};
use fisao_align::captions::describe_all_with;
use fisao_align::features::FeatureCache;
use fisao_align::grounding::{Captions, GroundedNames, LEAST_TEXTS, grounded_names, image_drops};
use fisao_align::mention_views::MentionViews;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::run_control::ResponseStore;
use fisao_align::signals::decoder_views;
use fisao_align::tasks::{Task, TaskSource};
use fisao_align::team::Team;
use fisao_align::{AlignError, RunControl, StopFlag};
use fisao_formats::digest::sha256_parts;
use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;
use fisao_verifier::calibration::Calibration;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::regions::ImageEmbedding;

use crate::reporter::Reporter;

/// How images are captioned.
#[derive(Clone, Copy)]
pub(crate) struct Captioning<'a> {
    /// The model.
    pub model: &'a VisionLanguageModel,
    /// The images under their prompts.
    pub source: &'a dyn TaskSource,
    /// How captions are sampled.
    pub sampling: &'a Sampling,
    /// Longest prompt with its image and longest response, tokens.
    pub length: usize,
    /// Most megabytes of what the image encoders made of images that are kept in memory.
    pub cache_mb: usize,
    /// Where responses are kept until the work is done.
    pub kept: Option<&'a dyn ResponseStore>,
    /// Ends the work with [`AlignError::Stopped`].
    pub stop: &'a StopFlag,
    /// How the work is shared.
    pub team: Option<Team<'a>>,
    /// What is told on the way.
    pub reporter: &'a Reporter,
}

/// Captions with what the verifier made of each image, and the images' digests.
pub(crate) struct ScoredCaptions {
    pub captions: Vec<ScoredResponse>,
    embeddings: Vec<ImageEmbedding>,
    pub images: Vec<String>,
    /// What the encoders made of the images, as far as it is kept.
    features: FeatureCache,
}

impl Captioning<'_> {
    fn control<'b>(&'b self, advance: &'b (dyn Fn(usize) + Sync)) -> RunControl<'b> {
        RunControl {
            kept: self.kept,
            ..RunControl::new(advance).until(self.stop).shared(self.team)
        }
    }

    /// Captions all images and scores their mentions, under a progress bar of this name.
    pub(crate) fn captions(
        &self,
        phase: &str,
        scorer: &mut MentionScorer,
    ) -> Result<ScoredCaptions, AlignError> {
        let Self { model, source, sampling, length, reporter, .. } = *self;
        let progress = reporter.phase(phase, source.count() as u64);
        let advance = |done| progress.advance(done as u64);
        let control = self.control(&advance);
        let mut images = Vec::with_capacity(source.count());
        let mut note = |task: &Task| images.push(image_digest(task));
        let mut features = FeatureCache::in_memory(self.cache_mb);
        let seen = (scorer, &mut features);
        let (captions, embeddings) =
            describe_all_with(model, seen, source, length, sampling, control, &mut note)?;
        progress.finish();
        Ok(ScoredCaptions { captions, embeddings, images, features })
    }

    /// Calibrates on captions of annotated images, or on those of all images by what the model's other captions say of their
    /// mentions.
    pub(crate) fn calibrate(
        &self,
        scored: &mut ScoredCaptions,
        truth: Option<&[BTreeSet<String>]>,
        scorer: &mut MentionScorer,
    ) -> Result<Calibration, AlignError> {
        let views;
        let supervision = if let Some(truth) = truth {
            Supervision::Annotations(truth)
        } else {
            views = self.label_free_views(scorer, scored)?;
            Supervision::None(&views)
        };
        calibrate(&scored.captions, &scored.embeddings, scorer, supervision)
    }

    /// The names that captions use, and what encoder and decoder say of each.
    pub(crate) fn grounded_names(
        &self,
        scored: &ScoredCaptions,
        scorer: &MentionScorer,
    ) -> anyhow::Result<GroundedNames> {
        let Self { model, source, reporter, .. } = *self;
        let ScoredCaptions { captions, embeddings, features, .. } = scored;
        let texts: Vec<&str> = captions.iter().map(|caption| caption.text.as_str()).collect();
        let images_of: Vec<usize> = captions.iter().map(|caption| caption.task).collect();
        let shown = Captions { texts: &texts, images_of: &images_of, images: embeddings };
        let mut names = grounded_names(shown, &scorer.verifier, LEAST_TEXTS)?;
        if !names.names.is_empty() {
            let entries = names.names.iter().map(|it| (it.name.name.clone(), Vec::new()));
            let mut reader = scorer.clone();
            reader.vocabulary = ObjectVocabulary::new(entries.collect())?;
            reader.verifier.set_centres(None);
            let read = read_again(captions, embeddings, &mut reader)?;
            let progress = reporter.phase("look for objects", captions.len() as u64);
            let advance = |done| progress.advance(done as u64);
            let views =
                decoder_views(model, source, (&read, features), &[], self.control(&advance))?;
            progress.finish();
            let named = read.iter().map(|caption| caption.mentions.iter().map(|it| it.category));
            let named: Vec<Vec<usize>> = named.map(Iterator::collect).collect();
            let drops = image_drops(names.names.len(), &named, &views);
            for (name, drop) in names.names.iter_mut().zip(drops) {
                name.drop = drop;
            }
        }
        Ok(names)
    }

    /// What the decoder says of mentions where no annotations do, with a progress bar.
    fn label_free_views(
        &self,
        scorer: &MentionScorer,
        scored: &mut ScoredCaptions,
    ) -> Result<MentionViews, AlignError> {
        let Self { model, source, sampling, length, reporter, .. } = *self;
        let passes = source.count() * MentionViews::PASSES;
        let progress = reporter.phase("look without labels", passes as u64);
        let advance = |done| progress.advance(done as u64);
        // What it learns on the way is not to change the last bits of what follows.
        let mut others = scorer.clone();
        let ScoredCaptions { captions, features, .. } = scored;
        let (seen, control) = ((&mut others, features), self.control(&advance));
        let views = MentionViews::of(model, seen, source, captions, length, sampling, control)?;
        progress.finish();
        Ok(views)
    }
}

impl ScoredCaptions {
    /// The same captions with the mentions that another vocabulary or verifier finds.
    pub(crate) fn read_again(&mut self, scorer: &mut MentionScorer) -> Result<(), AlignError> {
        self.captions = read_again(&self.captions, &self.embeddings, scorer)?;
        Ok(())
    }

    /// Those of annotated images, numbered anew, with their objects.
    pub(crate) fn annotated(
        &self,
        truth: &[Option<BTreeSet<String>>],
    ) -> (Self, Vec<BTreeSet<String>>) {
        let mut kept = Self {
            captions: Vec::new(),
            embeddings: Vec::new(),
            images: Vec::new(),
            features: FeatureCache::none(),
        };
        let mut objects = Vec::new();
        for (at, truth) in truth.iter().enumerate() {
            let Some(truth) = truth else { continue };
            kept.captions.push(ScoredResponse { task: objects.len(), ..self.captions[at].clone() });
            kept.embeddings.push(self.embeddings[at].clone());
            kept.images.push(self.images[at].clone());
            objects.push(truth.clone());
        }
        (kept, objects)
    }
}

/// Captions with the mentions that a scorer finds; `images[task]` is what its verifier makes of each image.
fn read_again(
    captions: &[ScoredResponse],
    images: &[ImageEmbedding],
    scorer: &mut MentionScorer,
) -> Result<Vec<ScoredResponse>, AlignError> {
    let read = |caption: &ScoredResponse| {
        scorer.read(caption.task, caption.response(), &images[caption.task])
    };
    captions.iter().map(read).collect()
}

/// Digest of one image, by its name and the pixels that the model takes.
fn image_digest(task: &Task) -> String {
    let pixels: Vec<u8> = task.image.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    sha256_parts([task.id.as_bytes(), &pixels])
}
