//! Captions of held-out images with what annotations say about them.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use fisao_align::captions::describe_all_with;
use fisao_align::features::FeatureCache;
use fisao_align::mentions::{MentionScorer, ScoredResponse, mean_length};
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
    /// What `chair` calls them: by these names, or by their numbers where two have one name.
    names: Vec<String>,
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
    pub config: &'a AlignConfig,
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
        let Self { models, model, config, images, sampling, output, stop, reporter } = self;
        let tasks = images.tasks;
        let (kept, longest) = models.response_file(output, (model, tasks), sampling, reporter)?;
        let control = RunControl {
            kept: Some(&kept),
            ..RunControl::new(advance).until(stop).shared(models.policy.team(config.align.exact))
        };
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
        let names = unique_names(&ids);
        let chair = truth.map(|truth| chair_of(&names, &captions, truth, models)).transpose()?;
        let (sampling, mean_length) = (sampling.clone(), mean_length(&captions));
        Ok(EvaluatedCaptions { ids, names, captions, chair, sampling, mean_length })
    }
}

/// The images' names, or their numbers where two have one name.
fn unique_names(ids: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    if ids.iter().all(|id| seen.insert(id)) {
        return ids.to_vec();
    }
    (0..ids.len()).map(|at| at.to_string()).collect()
}

/// CHAIR of the captions of annotated images under these names.
fn chair_of(
    names: &[String],
    captions: &[ScoredResponse],
    truth: &[Option<BTreeSet<String>>],
    models: &Models<'_>,
) -> anyhow::Result<ChairReport> {
    let annotated = names.iter().zip(truth);
    let annotated = annotated.filter_map(|(name, truth)| Some((name.clone(), truth.clone()?)));
    let ground_truth: chair::GroundTruth = annotated.collect();
    let inputs = captions.iter().filter(|caption| truth[caption.task].is_some());
    let inputs = inputs.map(|caption| ChairInput {
        image_id: names[caption.task].clone(),
        caption: caption.text.clone(),
    });
    let vocabulary =
        models.measured_words.for_chair().or_internal("a vocabulary that was read before")?;
    Ok(chair::evaluate(inputs.collect(), &ground_truth, &vocabulary, &ChairOptions::default())?)
}

impl EvaluatedCaptions {
    /// What annotations say of an image's caption, where it has any.
    pub(crate) fn verdict(&self, index: usize) -> Option<&ImageVerdict> {
        let verdicts = &self.chair.as_ref()?.per_image;
        let is_of = |verdict: &&ImageVerdict| verdict.image_id == self.names[index];
        // In their order, and all of them where all images are annotated.
        verdicts.get(index).filter(is_of).or_else(|| verdicts.iter().find(is_of))
    }

    /// What the rates of annotated images depend on, but for the model.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        let chair = self.chair.as_ref()?;
        let mut protocol = Protocol::of(chair);
        if self.names != self.ids {
            // Of numbers that stand for names.
            (protocol.image_ids_sha256, protocol.ground_truth_sha256) = (None, None);
        }
        if chair.captions == self.captions.len() {
            let is_cut = |caption: &&ScoredResponse| caption.finish == FinishReason::Length;
            let tokens: Vec<usize> =
                self.captions.iter().map(|caption| caption.text_tokens().len()).collect();
            protocol.tokens = Lengths::of(&tokens);
            protocol.cut_off = Some(self.captions.iter().filter(is_cut).count());
        }
        protocol.temperature = Some(self.sampling.temperature);
        protocol.seed = Some(self.sampling.seed);
        protocol.max_new_tokens = Some(self.sampling.max_new_tokens as u64);
        Some(protocol)
    }
}

#[cfg(test)]
mod tests {
    use fisao_eval::chair::{GroundTruth, ObjectVocabulary};

    use super::*;

    /// Images 0 and 3 of four are annotated, and the name of each is the number of the other.
    #[test]
    fn verdict_is_that_of_the_image_whatever_numbers_are_names() {
        let ids: Vec<String> = ["3", "x", "y", "0"].map(str::to_owned).into();
        let annotated = |name: &str, object: &str| (name.to_owned(), [object.to_owned()].into());
        let truth: GroundTruth =
            [annotated("3", "dog"), annotated("0", "cat")].into_iter().collect();
        let input = |name: &str| ChairInput { image_id: name.to_owned(), caption: "A dog.".into() };
        let inputs = vec![input("3"), input("0")];
        let vocabulary = ObjectVocabulary::coco();
        let chair = chair::evaluate(inputs, &truth, &vocabulary, &ChairOptions::default()).unwrap();
        let evaluated = EvaluatedCaptions {
            names: unique_names(&ids),
            ids,
            captions: Vec::new(),
            chair: Some(chair),
            sampling: Sampling { max_new_tokens: 8, temperature: 0.0, seed: 0 },
            mean_length: 0.0,
        };
        let hallucinated = |at: usize| Some(evaluated.verdict(at)?.mentions[0].hallucinated);
        assert_eq!([0, 1, 2, 3].map(hallucinated), [Some(false), None, None, Some(true)]);
        let twice = ["a", "a"].map(str::to_owned);
        assert_eq!(unique_names(&twice), ["0", "1"]);
    }
}
