//! A model's own captions of one part of the images, with the truth about their words.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use fisao_align::captions::{Captioned, Judge, generate, look_at_all};
use fisao_models::generation::Sampling;
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::scorer::{ImageEmbedding, Verifier};

use super::source::{Part, Source};
use crate::bundle::{Policy, Views};
use crate::reporter::Reporter;

/// Captions of a part with their mentions, and how long the steps took.
pub(super) struct Sample {
    /// One for each image, in order.
    pub(super) captions: Vec<Captioned>,
    /// Categories in each image.
    pub(super) truth: Vec<BTreeSet<String>>,
    /// Names of the images.
    pub(super) ids: Vec<String>,
    /// What the verifier made of the whole of each image.
    pub(super) images: Vec<ImageEmbedding>,
    /// How long it took.
    pub(super) seconds: Seconds,
}

/// Seconds that the steps took for all captions of a sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seconds {
    /// Finding the words and scoring them, their embeddings being known.
    pub(super) words: f64,
    /// Embedding the captions and scoring them as a whole.
    pub(super) sentences: f64,
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

/// Everything that writes and judges captions.
pub(super) struct Setup<'a> {
    pub(super) policy: &'a Policy,
    pub(super) source: &'a Source<'a>,
    /// Scores whole images; knows all names.
    pub(super) verifier: &'a Verifier,
    pub(super) vocabulary: &'a ObjectVocabulary,
    /// What the verifier sees besides the model's own pixels.
    pub(super) views: Option<&'a Views>,
    pub(super) sampling: Sampling,
    pub(super) reporter: &'a Reporter,
}

impl Setup<'_> {
    /// Lets the model caption a part of the images.
    pub(super) fn sample(&self, part: Part, seed: u64) -> anyhow::Result<Sample> {
        let tasks = self.source.tasks(part, seed, self.views);
        let count = tasks.count();
        let length = self.source.longest_prompt()? + self.sampling.max_new_tokens;
        let sampling = Sampling { seed, ..self.sampling.clone() };
        let name =
            if part == Part::Calibration { "caption (calibration)" } else { "caption (test)" };
        let progress = self.reporter.phase(name, count as u64);
        let advance = |done| progress.advance(done as u64);
        let model = &self.policy.model;
        let written = generate(model, tasks.as_ref(), 0..count, length, &sampling, &advance)?;
        progress.finish();
        let images = look_at_all(self.verifier, tasks.as_ref())?;

        let mut judge = Judge {
            tokenizer: Arc::clone(&self.policy.tokenizer),
            vocabulary: self.vocabulary.clone(),
            verifier: self.verifier.clone(),
        };
        let started = Instant::now();
        let captions = written.into_iter().zip(&images).enumerate();
        let captions = captions
            .map(|(task, (response, image))| judge.read(task, response, image))
            .collect::<Result<Vec<_>, _>>()?;
        let words = started.elapsed().as_secs_f64();

        let ids = (0..count).map(|index| Ok(tasks.task(index)?.id));
        let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
        let truth = self.source.truth(part, seed);
        let seconds = Seconds { words, sentences: 0.0 };
        Ok(Sample { captions, truth, ids, images, seconds })
    }
}

impl Sample {
    /// Every mention with its score by a verifier that knows its name, and `images` as that verifier sees them.
    pub(super) fn mentions(
        &self,
        verifier: &Verifier,
        images: &[ImageEmbedding],
        vocabulary: &ObjectVocabulary,
    ) -> Vec<Mention> {
        let of_caption = |(index, caption): (usize, &Captioned)| {
            let truth = &self.truth[caption.task];
            let image = &images[caption.task];
            let mention = |unit: &fisao_verifier::mentions::Unit| Mention {
                caption: index,
                category: unit.category,
                score: verifier.score(image, &unit.form),
                correct: truth.contains(vocabulary.category(unit.category)),
            };
            caption.units.iter().map(mention).collect::<Vec<_>>()
        };
        self.captions.iter().enumerate().flat_map(of_caption).collect()
    }

    /// Share of hallucinated mentions of each caption; `None` of one that names nothing.
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
