//! From scored mentions to one reward per token.

use fisao_models::generation::FinishReason;
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::rewards::{Response, RewardRule, ScoredMention};

use crate::encoding::EncodedImages;
use crate::error::AlignError;
use crate::mentions::{MentionScorer, ScoredResponse};

/// Token rewards of one response under a rule.
///
/// # Errors
/// [`AlignError::Verifier`] when the sentence form cannot encode the response.
pub fn token_rewards(
    rule: &RewardRule,
    scorer: &MentionScorer,
    encoded: &EncodedImages,
    caption: &ScoredResponse,
) -> Result<Vec<f32>, AlignError> {
    let mentions: Vec<ScoredMention> = caption
        .mentions
        .iter()
        .zip(&caption.scores)
        .map(|(mention, &score)| ScoredMention::new(mention, score))
        .collect();
    let sentence_score = if rule.needs_sentence_score() {
        Some(sentence_score(caption, &encoded.embeddings, scorer)?)
    } else {
        None
    };
    Ok(rule.token_rewards(&Response {
        mentions: &mentions,
        token_count: caption.tokens.len(),
        truncated: caption.finish == FinishReason::Length,
        sentence_score,
    }))
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
    caption: &ScoredResponse,
    images: &[ImageEmbedding],
    scorer: &MentionScorer,
) -> Result<f64, AlignError> {
    let text = scorer.verifier.embed_text(std::slice::from_ref(&caption.text))?;
    Ok(scorer.verifier.score_text(&images[caption.task], &text))
}
