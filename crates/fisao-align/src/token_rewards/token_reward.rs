//! What a reward of tokens is.

use fisao_verifier::regions::ImageEmbedding;

use crate::error::AlignError;
use crate::mentions::{MentionScorer, ScoredResponse};
use crate::tasks::Task;

/// A response with all that a reward may depend on.
#[derive(Clone, Copy)]
pub struct RewardInputs<'a> {
    /// Image and prompt.
    pub task: &'a Task,
    /// Tokens, text and scored mentions.
    pub response: &'a ScoredResponse,
    /// What the verifier made of the image.
    pub image: &'a ImageEmbedding,
    /// Tokenizer, vocabulary and verifier.
    pub scorer: &'a MentionScorer,
}

/// A reward of tokens. It need not know of mentions; rewards of a whole response go to its last token.
pub trait TokenReward: Send + Sync {
    /// One reward for each token of the response, `[T]`, reward units.
    ///
    /// # Errors
    /// Whatever keeps the reward from being computed.
    fn token_rewards(&self, inputs: &RewardInputs<'_>) -> Result<Vec<f32>, AlignError>;
}
