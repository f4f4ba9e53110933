//! Reward and recall on tasks that are not trained on.

use std::collections::BTreeSet;
use std::ops::Range;

use fisao_verifier::calibration::{Correctness, auc};

use super::{Trainer, control};
use crate::captions::answer;
use crate::error::AlignError;
use crate::events::AlignEvent;
use crate::guards::{SplitHealth, check_recall_estimate, check_split};
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::recall::{expected_correct, standard_error};
use crate::tasks::Task;
use crate::token_rewards::{response_reward, token_rewards};

/// The validation set: tasks on which reward is measured, and recall where they are labelled. Training never sees the labels.
#[derive(Debug, Clone)]
pub struct ValidationSet {
    /// Tasks that are not trained on.
    pub tasks: Vec<Task>,
    /// Categories in each image, where they are known.
    pub truth: Option<Vec<BTreeSet<String>>>,
}

/// Result of a validation.
#[derive(Debug, Clone)]
pub struct ValidationResult {
    /// In numbers.
    pub health: SplitHealth,
    /// The policy's greedy responses, one to each task.
    pub captions: Vec<ScoredResponse>,
}

/// A mention in a response with its score and reward.
#[derive(Debug, Clone, PartialEq)]
pub struct WordVerdict {
    /// Where it stands in the text, bytes.
    pub span: Range<usize>,
    /// What it names.
    pub category: String,
    /// The verifier's score.
    pub score: f64,
    /// Its reward, for the first mention of its category.
    pub reward: f64,
}

impl Trainer<'_> {
    /// The validation tasks.
    pub fn validation_tasks(&self) -> &[Task] {
        self.validation.as_ref().map_or(&[], |validation| &validation.tasks)
    }

    /// The object mentions of a response.
    pub fn verdicts(&self, caption: &ScoredResponse) -> Vec<WordVerdict> {
        let words = caption.mentions.iter().zip(&caption.scores);
        words
            .map(|(mention, &score)| WordVerdict {
                span: mention.span.clone(),
                category: self.scorer.vocabulary.category(mention.category).to_owned(),
                score,
                reward: self.rule.mention_reward(score),
            })
            .collect()
    }

    /// Reward and recall on the validation tasks, greedily captioned; warnings go to `emit`.
    ///
    /// # Errors
    /// See [`caption`](crate::captions::caption).
    pub fn run_validation(
        &mut self,
        emit: &mut dyn FnMut(AlignEvent),
    ) -> Result<Option<ValidationResult>, AlignError> {
        let Some(validation) = self.validation.clone() else { return Ok(None) };
        // Numbers behind those of the tasks that are trained on.
        let first = self.tasks.count();
        let sampling = self.sampling(0.0);
        let Self { learner, scorer, features, stop, processes, config, .. } = self;
        let control = control(stop, processes.as_deref(), config.align.exact);
        let numbered = (validation.tasks.as_slice(), first);
        let encoded = features.encode_from(&learner.policy, &scorer.verifier, numbered, control)?;
        let tasks = (validation.tasks.as_slice(), 0);
        let captions = answer(&learner.policy, scorer, tasks, &encoded, &sampling, control)?;
        let of = (&self.scorer, validation.tasks.as_slice(), &encoded);
        let rewards = token_rewards(&self.rule, &self.additional, of, &captions)?;
        let mut reward = rewards.iter().map(|row| response_reward(row)).sum::<f64>();
        reward /= captions.len().max(1) as f64;
        let recall = validation.truth.as_ref().map(|truth| recall(&captions, truth, &self.scorer));
        if self.base_recall.is_none() {
            self.base_recall = recall;
        }
        let expected = self.correctness.as_ref().map(|correctness| {
            let counts = captions.iter().map(|caption| expected_correct(caption, correctness));
            counts.sum::<f64>() / captions.len().max(1) as f64
        });
        if self.base_correct.is_none() {
            self.base_correct = expected;
        }
        let (mut correct, mut wrong) = (Vec::new(), Vec::new());
        for caption in &captions {
            let Some(truth) = &validation.truth else { break };
            if self.rule.needs_sentence_score() {
                break;
            }
            for (mention, &score) in caption.mentions.iter().zip(&caption.scores) {
                let name = self.scorer.vocabulary.category(mention.category);
                let reward = self.rule.mention_reward(score);
                if truth[caption.task].contains(name) {
                    correct.push(reward);
                } else {
                    wrong.push(reward);
                }
            }
        }
        let mean = |rewards: &[f64]| {
            (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64)
        };
        let both = !correct.is_empty() && !wrong.is_empty();
        let reward_auc = both.then(|| auc(&correct, &wrong));
        let fewest = correct.len().min(wrong.len()).max(1) as f64;
        let health = SplitHealth {
            reward,
            recall,
            base_recall: self.base_recall,
            expected_correct: expected,
            base_expected_correct: self.base_correct,
            reward_auc,
            reward_correct: mean(&correct),
            reward_hallucinated: mean(&wrong),
            reward_auc_error: reward_auc.map_or(0.0, |auc| (auc * (1.0 - auc) / fewest).sqrt()),
            reward_correct_error: standard_error(&correct),
            reward_hallucinated_error: standard_error(&wrong),
        };
        let noise = self.correctness.as_ref().map_or(0.0, Correctness::noise);
        let mut warnings = check_split(&health, &self.config.guards);
        if self.recall.is_some() {
            warnings.extend(check_recall_estimate(&health, &self.config.guards, noise));
        }
        for warning in warnings {
            emit(AlignEvent::Warning(warning));
        }
        Ok(Some(ValidationResult { health, captions }))
    }
}

/// Fraction of the objects present that the captions name.
fn recall(captions: &[ScoredResponse], truth: &[BTreeSet<String>], scorer: &MentionScorer) -> f64 {
    let (mut named, mut present) = (0, 0);
    for caption in captions {
        let said: BTreeSet<&str> = caption
            .mentions
            .iter()
            .map(|mention| scorer.vocabulary.category(mention.category))
            .collect();
        let truth = &truth[caption.task];
        present += truth.len();
        named += truth.iter().filter(|name| said.contains(name.as_str())).count();
    }
    named as f64 / present.max(1) as f64
}
