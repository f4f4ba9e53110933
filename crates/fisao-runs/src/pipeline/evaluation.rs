//! Captions of held-out images with what annotations say about them.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use fisao_align::captions::describe_all_with;
use fisao_align::features::FeatureCache;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_align::{AlignConfig, RunControl, StopFlag};
use fisao_eval::chair::{
    self, ChairInput, ChairOptions, ChairReport, ImageVerdict, Lengths, Protocol,
};
use fisao_models::generation::{FinishReason, Sampling};
use fisao_models::vision_language::VisionLanguageModel;

use crate::failure::OrInternal as _;
use crate::models::{ImageSet, Models};
use crate::reporter::Reporter;

/// How captions are decoded, and at which temperature.
pub(crate) const DECODINGS: [(&str, f64); 2] = [("greedy", 0.0), ("sampled", 1.0)];

/// Captions of one model by how they were decoded.
pub(crate) struct Decodings {
    pub greedy: EvaluatedCaptions,
    pub sampled: EvaluatedCaptions,
}

/// One caption for each of some images.
pub(crate) struct EvaluatedCaptions {
    /// Names of the images, in their order.
    pub ids: Vec<String>,
    /// The captions, in the same order.
    pub captions: Vec<ScoredResponse>,
    /// Of those of annotated images.
    pub chair: Option<ChairReport>,
    /// How they were decoded.
    pub sampling: Sampling,
    /// Tokens per caption, the end token not counted.
    pub mean_length: f64,
}

/// Settings of the sampler.
pub(crate) fn sampling(config: &AlignConfig, temperature: f64) -> Sampling {
    Sampling { max_new_tokens: config.max_new_tokens, temperature, seed: config.seed }
}

/// Captions that are to be written.
pub(crate) struct Work<'a> {
    pub models: &'a Models<'a>,
    /// The model, which may carry an adapter.
    pub model: &'a VisionLanguageModel,
    pub images: &'a ImageSet<'a>,
    pub sampling: Sampling,
    /// Responses are kept beside it.
    pub output: PathBuf,
    pub stop: &'a StopFlag,
    pub reporter: &'a Reporter,
}

impl Work<'_> {
    /// Captions the images, of which those in the cache are not encoded again, and scores the captions against what is known of the
    /// images; `advance` is told of more captions.
    pub(crate) fn captions(
        &self,
        (scorer, cache): (&mut MentionScorer, &mut FeatureCache),
        advance: &(dyn Fn(usize) + Sync),
    ) -> anyhow::Result<EvaluatedCaptions> {
        let Self { models, model, images, sampling, output, stop, reporter } = self;
        let tasks = images.tasks;
        let (kept, longest) = models.response_file(output, (model, tasks), sampling, reporter)?;
        let control = RunControl { kept: Some(&kept), ..RunControl::new(advance).until(stop) };
        let length = longest + sampling.max_new_tokens;
        let mut ids = Vec::with_capacity(tasks.count());
        let (captions, _) = describe_all_with(
            model,
            (scorer, cache),
            tasks,
            length,
            sampling,
            control,
            &mut |task| {
                ids.push(task.id.clone());
            },
        )?;
        let truth = images.truth.as_deref().filter(|_| images.annotated() > 0);
        let chair = truth.map(|truth| chair_of(&ids, &captions, truth, models)).transpose()?;
        let mean_length = mean_length(&captions);
        Ok(EvaluatedCaptions { ids, captions, chair, sampling: sampling.clone(), mean_length })
    }
}

/// Mean number of tokens, the end token not counted.
pub(crate) fn mean_length(captions: &[ScoredResponse]) -> f64 {
    let tokens: usize = captions.iter().map(length).sum();
    tokens as f64 / captions.len().max(1) as f64
}

/// Tokens of a caption, the end token not counted.
fn length(caption: &ScoredResponse) -> usize {
    caption.tokens.len() - usize::from(caption.finish == FinishReason::Stop)
}

/// Whether no two images have one name.
fn are_unique(ids: &[String]) -> bool {
    let mut seen = HashSet::new();
    ids.iter().all(|id| seen.insert(id))
}

/// CHAIR of the captions of annotated images, which are called by their numbers where their names are not unique.
fn chair_of(
    ids: &[String],
    captions: &[ScoredResponse],
    truth: &[Option<BTreeSet<String>>],
    models: &Models<'_>,
) -> anyhow::Result<ChairReport> {
    let unique = are_unique(ids);
    let name = |at: usize| if unique { ids[at].clone() } else { at.to_string() };
    let annotated = truth.iter().enumerate();
    let annotated = annotated.filter_map(|(at, truth)| Some((name(at), truth.clone()?)));
    let ground_truth: chair::GroundTruth = annotated.collect();
    let inputs = captions.iter().filter(|caption| truth[caption.task].is_some());
    let inputs = inputs
        .map(|caption| ChairInput { image_id: name(caption.task), caption: caption.text.clone() });
    let vocabulary = models.words.for_chair().or_internal("a vocabulary that was read before")?;
    Ok(chair::evaluate(inputs.collect(), &ground_truth, &vocabulary, &ChairOptions::default())?)
}

impl EvaluatedCaptions {
    /// What annotations say of an image's caption, where it has any.
    pub(crate) fn verdict(&self, index: usize) -> Option<&ImageVerdict> {
        let verdicts = &self.chair.as_ref()?.per_image;
        let number = index.to_string();
        let is_of = |verdict: &&ImageVerdict| {
            verdict.image_id == self.ids[index] || verdict.image_id == number
        };
        // In their order, and all of them where all images are annotated.
        verdicts.get(index).filter(is_of).or_else(|| verdicts.iter().find(is_of))
    }

    /// What the rates of annotated images depend on, but for the model.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        let chair = self.chair.as_ref()?;
        let mut protocol = Protocol::of(chair);
        if !are_unique(&self.ids) {
            // Of numbers that stand for names.
            (protocol.image_ids_sha256, protocol.ground_truth_sha256) = (None, None);
        }
        if chair.captions == self.captions.len() {
            let is_cut = |caption: &&ScoredResponse| caption.finish == FinishReason::Length;
            protocol.tokens = Lengths::of(&self.captions.iter().map(length).collect::<Vec<_>>());
            protocol.cut_off = Some(self.captions.iter().filter(is_cut).count());
        }
        protocol.temperature = Some(self.sampling.temperature);
        protocol.seed = Some(self.sampling.seed);
        protocol.max_new_tokens = Some(self.sampling.max_new_tokens as u64);
        Some(protocol)
    }
}
