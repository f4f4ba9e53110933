//! What the decoder says of mentions beside their scores: the views that calibrate a weak verifier without labels.

use fisao_models::generation::Sampling;
use fisao_models::vision_language::VisionLanguageModel;

use crate::error::AlignError;
use crate::features::FeatureCache;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::run_control::RunControl;
use crate::signals::{agreement, categories_of_others, decoder_views};
use crate::tasks::TaskSource;

/// Two signals of every mention beside its score, each higher for correct mentions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MentionViews {
    /// By how much the log-probability of its tokens falls when the image is replaced by a blank one, nats.
    pub image_drops: Vec<f64>,
    /// Fraction of other captions of the image that name its category, `[0, 1]`.
    pub agreements: Vec<f64>,
}

impl MentionViews {
    /// Passes over captions that the [course](Self::of) is told of, per caption.
    pub const PASSES: usize = 1 + crate::signals::OTHER_CAPTIONS;

    /// Computes both for the mentions of `captions`, in order: two passes over each caption and its image, and four other
    /// captions of every image. `captions[i]` is about task `i` of the source, and was written with `sampling`; `length` is that
    /// of the longest prompt and response together, tokens. The cache may hold what the encoders made of the tasks' images.
    /// `control` is told how many more captions are done.
    ///
    /// # Errors
    /// What the source reports about a task; see [`caption`](crate::captions::caption).
    pub fn of(
        policy: &VisionLanguageModel,
        (scorer, cache): (&mut MentionScorer, &mut FeatureCache),
        source: &dyn TaskSource,
        captions: &[ScoredResponse],
        length: usize,
        sampling: &Sampling,
        control: RunControl<'_>,
    ) -> Result<Self, AlignError> {
        // The longer work first: what it writes is kept.
        let others =
            categories_of_others(policy, (scorer, cache), source, length, sampling, control)?;
        let signals = decoder_views(policy, source, (captions, cache), &[], control)?;
        let mut views = Self::default();
        for (caption, signal) in captions.iter().zip(&signals) {
            let seen = signal.log_probabilities.iter().zip(&signal.blank_log_probabilities);
            views.image_drops.extend(seen.map(|(seen, blank)| seen - blank));
            let agreements =
                caption.mentions.iter().map(|mention| agreement(mention, &others[caption.task]));
            views.agreements.extend(agreements);
        }
        Ok(views)
    }
}
