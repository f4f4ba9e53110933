//! From scored mentions to one reward per token.
//!
//! The verifier's reward of mentions is a [`RewardRule`]. Whatever else is to earn or cost something (a regular expression, a
//! detector, a model that reads the whole response) is a [`TokenReward`] that is added to it.

mod additional;
mod pattern;
mod token_reward;

use fisao_models::generation::FinishReason;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::{Response, RewardRule, ScoredMention};

pub use additional::{AdditionalReward, AdditionalRewards};
pub use pattern::PatternReward;
pub use token_reward::{RewardInputs, TokenReward};

use crate::encoding::EncodedImages;
use crate::error::AlignError;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::tasks::Task;

/// The verifier's reward of mentions.
impl TokenReward for RewardRule {
    fn token_rewards(&self, inputs: &RewardInputs<'_>) -> Result<Vec<f32>, AlignError> {
        let RewardInputs { response, image, scorer, .. } = *inputs;
        let mentions: Vec<ScoredMention> = response
            .mentions
            .iter()
            .zip(&response.scores)
            .map(|(mention, &score)| ScoredMention::new(mention, score))
            .collect();
        let sentence_score = if self.needs_sentence_score() {
            Some(sentence_score(response, image, scorer)?)
        } else {
            None
        };
        Ok(Self::token_rewards(
            self,
            &Response {
                mentions: &mentions,
                token_count: response.tokens.len(),
                truncated: response.finish == FinishReason::Length,
                sentence_score,
            },
        ))
    }
}

/// Token rewards of responses, `[responses][T]`: those of their mentions under a rule, and the additional ones.
///
/// # Errors
/// [`AlignError::Verifier`] when the sentence form cannot encode a response; what an additional reward reports.
pub fn token_rewards(
    rule: &RewardRule,
    additional: &AdditionalRewards,
    (scorer, tasks, encoded): (&MentionScorer, &[Task], &EncodedImages),
    responses: &[ScoredResponse],
) -> Result<Vec<Vec<f32>>, AlignError> {
    let of = |response: &ScoredResponse| {
        let (task, image) = (&tasks[response.task], &encoded.embeddings[response.task]);
        let inputs = RewardInputs { task, response, image, scorer };
        let mut rewards = TokenReward::token_rewards(rule, &inputs)?;
        additional.add_to(&mut rewards, &inputs)?;
        Ok(rewards)
    };
    responses.iter().map(of).collect()
}

/// What a response earns in all, reward units.
///
/// * `rewards` — of its tokens, `[T]`.
pub fn response_reward(rewards: &[f32]) -> f64 {
    rewards.iter().map(|&reward| f64::from(reward)).sum()
}

/// Score of a whole response against its image.
///
/// # Errors
/// [`AlignError::Verifier`] when the text cannot be encoded.
pub fn sentence_score(
    response: &ScoredResponse,
    image: &ImageEmbedding,
    scorer: &MentionScorer,
) -> Result<f64, AlignError> {
    Ok(scorer.verifier.score_sentence(image, &response.text)?)
}
