//! The objects that responses name, with their scores.

use std::collections::BTreeSet;
use std::sync::Arc;

use fisao_models::generation::{FinishReason, Generated};
use fisao_models::text::Tokenizer;
use fisao_verifier::mentions::{ObjectVocabulary, TokenMention};
use fisao_verifier::regions::ImageEmbedding;
use fisao_verifier::scorer::Verifier;

use crate::error::AlignError;

/// Finds the mentions of responses and scores them.
#[derive(Clone)]
pub struct MentionScorer {
    /// The policy's tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Objects that are looked for.
    pub vocabulary: ObjectVocabulary,
    /// Scores them.
    pub verifier: Verifier,
}

impl MentionScorer {
    /// Reads responses and finds nothing in them: for those whose objects are not known yet.
    pub fn of_nothing(tokenizer: Arc<dyn Tokenizer>, verifier: Verifier) -> Self {
        Self { tokenizer, vocabulary: ObjectVocabulary::nothing(), verifier }
    }

    /// Decodes a response, finds what it names and scores it against the image.
    ///
    /// # Errors
    /// [`AlignError::Text`] when the response cannot be decoded, [`AlignError::Verifier`] when a name cannot be scored.
    pub fn read(
        &mut self,
        task: usize,
        response: Generated,
        image: &ImageEmbedding,
    ) -> Result<ScoredResponse, AlignError> {
        let decoded = self.tokenizer.decode(&response.tokens)?;
        let all = self.vocabulary.token_mentions(&decoded.text, &decoded.spans);
        let found = all.len();
        let mut mentions: Vec<TokenMention> =
            all.into_iter().filter(|mention| !mention.negated).collect();
        self.verifier.describe(&decoded.text, &mut mentions);
        self.verifier.embed_names(mentions.iter().map(|mention| mention.form.as_str()))?;
        let mut score = |mention: &TokenMention| {
            self.verifier.embed_mention(mention)?;
            self.verifier.score_mention(image, mention)
        };
        let scores = mentions.iter().map(&mut score).collect::<Result<_, _>>()?;
        Ok(ScoredResponse {
            task,
            tokens: response.tokens,
            logprobs: response.logprobs,
            finish: response.finish,
            text: decoded.text,
            negated: found - mentions.len(),
            mentions,
            scores,
        })
    }

    /// [Reads](Self::read) responses, `samples` adjacent ones to each task; `images` holds an embedding for every task.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn read_all(
        &mut self,
        responses: Vec<Generated>,
        samples: usize,
        images: &[ImageEmbedding],
    ) -> Result<Vec<ScoredResponse>, AlignError> {
        let numbered = responses.into_iter().enumerate();
        numbered
            .map(|(at, response)| self.read(at / samples, response, &images[at / samples]))
            .collect()
    }
}

/// A response with its scored mentions.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredResponse {
    /// Position of its task.
    pub task: usize,
    /// Ids, the end token last if the response stopped.
    pub tokens: Vec<u32>,
    /// Log-probability of each token when it was chosen.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// The text.
    pub text: String,
    /// Objects it says are there; negated mentions are left out.
    pub mentions: Vec<TokenMention>,
    /// Score of each mention.
    pub scores: Vec<f64>,
    /// How many mentions were left out because the text denies them.
    pub negated: usize,
}

/// Mean number of tokens of the texts, 0 of none.
pub fn mean_length(captions: &[ScoredResponse]) -> f64 {
    let tokens: usize = captions.iter().map(|caption| caption.text_tokens().len()).sum();
    tokens as f64 / captions.len().max(1) as f64
}

impl ScoredResponse {
    /// The response as it was written.
    pub fn response(&self) -> Generated {
        let Self { tokens, logprobs, finish, .. } = self;
        Generated { tokens: tokens.clone(), logprobs: logprobs.clone(), finish: *finish }
    }

    /// The tokens of the text: all but the end token.
    pub fn text_tokens(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - usize::from(self.finish == FinishReason::Stop)]
    }

    /// Mentions whose category the response had named before.
    pub fn repeated(&self) -> usize {
        let named: BTreeSet<usize> = self.mentions.iter().map(|mention| mention.category).collect();
        self.mentions.len() - named.len()
    }
}
