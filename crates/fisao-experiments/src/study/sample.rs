//! A model's own captions of one part of the images, with the truth about their words.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_align::RunControl;
use fisao_align::captions::describe_all;
use fisao_align::mentions::{MentionScorer, ScoredResponse};
use fisao_models::generation::Sampling;
use fisao_verifier::mentions::{ObjectVocabulary, describe};
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::{Verifier, VerifierError};

use super::seed::StudyRunner;
use super::source::Part;

/// Captions of a part with their mentions.
pub(super) struct Sample {
    /// One for each image, in order.
    pub(super) captions: Vec<ScoredResponse>,
    /// Categories in each image.
    pub(super) truth: Vec<BTreeSet<String>>,
    /// Names of the images.
    pub(super) ids: Vec<String>,
    /// What the verifier made of the whole of each image.
    pub(super) images: Vec<ImageEmbedding>,
}

/// Score of one mention, and whether the image holds what it names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mention {
    /// Position of the caption.
    pub(super) caption: usize,
    /// Index of the category.
    pub(super) category: usize,
    /// On the variant's scale.
    pub(super) score: f64,
    /// Whether the image holds it.
    pub(super) correct: bool,
}

impl StudyRunner<'_> {
    /// What turns responses into scored mentions, by the default settings but for centres.
    pub(super) fn scorer(&self) -> MentionScorer {
        MentionScorer {
            tokenizer: Arc::clone(&self.policy.tokenizer),
            vocabulary: self.vocabulary.clone(),
            verifier: self.verifier.clone(),
        }
    }

    /// Lets the model caption a part of the images.
    pub(super) fn sample(&self, part: Part, seed: u64) -> anyhow::Result<Sample> {
        let tasks = self.source.tasks(part, seed, self.views);
        let length = self.source.longest_prompt()? + self.sampling.max_new_tokens;
        let sampling = Sampling { seed, ..self.sampling.clone() };
        let name =
            if part == Part::Calibration { "caption (calibration)" } else { "caption (test)" };
        let progress = self.reporter.phase(name, tasks.count() as u64);
        let mut ids = Vec::with_capacity(tasks.count());
        let (mut captions, images) = describe_all(
            &self.policy.model,
            &mut self.scorer(),
            tasks.as_ref(),
            length,
            &sampling,
            RunControl::new(&|done| progress.advance(done as u64)),
            &mut |task| ids.push(task.id.clone()),
        )?;
        progress.finish();
        for caption in &mut captions {
            describe(&caption.text, &mut caption.mentions);
        }
        Ok(Sample { captions, truth: self.source.truth(part, seed), ids, images })
    }
}

impl Sample {
    /// Some of the images, by their positions, with all that belongs to them.
    pub(super) fn part(&self, chosen: &[usize]) -> Self {
        let renumbered =
            |(task, &at): (usize, &usize)| ScoredResponse { task, ..self.captions[at].clone() };
        Self {
            captions: chosen.iter().enumerate().map(renumbered).collect(),
            truth: chosen.iter().map(|&at| self.truth[at].clone()).collect(),
            ids: chosen.iter().map(|&at| self.ids[at].clone()).collect(),
            images: chosen.iter().map(|&at| self.images[at].clone()).collect(),
        }
    }

    /// Every mention with its score by a verifier that knows its name, and `images` as that verifier sees them.
    pub(super) fn mentions(
        &self,
        verifier: &Verifier,
        images: &[ImageEmbedding],
        vocabulary: &ObjectVocabulary,
    ) -> Result<Vec<Mention>, VerifierError> {
        let mut mentions = Vec::new();
        for (index, caption) in self.captions.iter().enumerate() {
            let truth = &self.truth[caption.task];
            let image = &images[caption.task];
            for mention in &caption.mentions {
                mentions.push(Mention {
                    caption: index,
                    category: mention.category,
                    score: verifier.score_mention(image, mention)?,
                    correct: truth.contains(vocabulary.category(mention.category)),
                });
            }
        }
        Ok(mentions)
    }

    /// Fraction of hallucinated mentions of each caption; `None` of one that names nothing.
    pub(super) fn hallucination_rates(&self, mentions: &[Mention]) -> Vec<Option<f64>> {
        let mut counts = vec![(0_usize, 0_usize); self.captions.len()];
        for mention in mentions {
            let (all, wrong) = &mut counts[mention.caption];
            *all += 1;
            *wrong += usize::from(!mention.correct);
        }
        let rate = |(all, wrong): (usize, usize)| (all > 0).then(|| wrong as f64 / all as f64);
        counts.into_iter().map(rate).collect()
    }
}

/// Scores of correct and of hallucinated mentions.
pub(super) fn split(mentions: &[Mention]) -> (Vec<f64>, Vec<f64>) {
    let of = |class: bool| {
        let mentions = mentions.iter().filter(|mention| mention.correct == class);
        mentions.map(|mention| mention.score).collect()
    };
    (of(true), of(false))
}
