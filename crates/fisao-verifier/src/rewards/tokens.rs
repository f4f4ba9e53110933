//! From the mentions of a response to one reward per token.

use std::collections::BTreeSet;
use std::ops::Range;

use super::formula::Formula;
use super::{Placement, RewardRule};
use crate::mentions::TokenMention;

/// A mention with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredMention {
    /// Index of its category.
    pub category: usize,
    /// Tokens that spell it; not empty.
    pub tokens: Range<usize>,
    /// s, on the calibration's scale (centred if the calibration is); cosine.
    pub score: f64,
}

impl ScoredMention {
    /// Gives a mention its score. Negated mentions claim nothing and must be left out before.
    pub fn new(mention: &TokenMention, score: f64) -> Self {
        debug_assert!(!mention.negated, "'{}' is negated and takes no score", mention.text);
        Self { category: mention.category, tokens: mention.tokens.clone(), score }
    }
}

/// A response as far as its rewards go.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Scored mentions, in any order.
    pub mentions: &'a [ScoredMention],
    /// T, tokens of the response, padding not counted (but harmless unless it was truncated).
    pub token_count: usize,
    /// Whether it ran into the length budget without ending.
    pub truncated: bool,
    /// Score of the whole response; needed when [`RewardRule::needs_sentence_score`].
    pub sentence_score: Option<f64>,
}

impl RewardRule {
    /// One reward per token, `[T]`:
    ///
    /// ```text
    /// r_t = Σ_u [t carries u] · { r(s_u)          u is the first of its category
    ///                           { min(r(s_u), −ρ) otherwise, ρ the penalty of repetition (−ρ in the corrected form,
    ///                                             where a minimum over noise would be a bias)
    ///       − [truncated, t = T−1] · penalty
    /// ```
    ///
    /// where the last token of u carries `r(s_u)`, or each of its n tokens `r(s_u)/n`.
    ///
    /// # Panics
    /// If a mention has no tokens or ends after the response, a score is not finite, or the sentence
    /// score is missing where it is needed.
    pub fn token_rewards(&self, response: &Response<'_>) -> Vec<f32> {
        let mut rewards = vec![0.0_f64; response.token_count];
        let mut mentions: Vec<&ScoredMention> = response.mentions.iter().collect();
        mentions
            .sort_by_key(|mention| (mention.tokens.start, mention.tokens.end, mention.category));
        let mut named = BTreeSet::new();
        for mention in mentions {
            Self::check_mention(mention, response.token_count);
            let reward = self.mention_reward(mention.score);
            let first = named.insert(mention.category);
            // Under the sentence form mentions earn nothing, first or not.
            let reward = match self.formula {
                Formula::Sentence { .. } => reward,
                _ if first => reward,
                // A repeated mention brings no further object, right or wrong: what its score happens to be says nothing.
                Formula::Corrected { .. } => -self.repetition_penalty,
                _ => reward.min(-self.repetition_penalty),
            };
            self.place(reward, &mention.tokens, &mut rewards);
        }
        if let Some(last) = rewards.last_mut() {
            *last += self.sentence_reward(response.sentence_score);
            if response.truncated {
                *last -= self.truncated_penalty;
            }
        }
        rewards.into_iter().map(|reward| reward as f32).collect()
    }

    fn check_mention(mention: &ScoredMention, token_count: usize) {
        let tokens = &mention.tokens;
        assert!(
            tokens.start < tokens.end && tokens.end <= token_count,
            "a mention spans tokens {tokens:?} of a response of {token_count}"
        );
        assert!(
            mention.score.is_finite(),
            "the mention at tokens {tokens:?} scores {}",
            mention.score
        );
    }

    fn place(&self, reward: f64, tokens: &Range<usize>, rewards: &mut [f64]) {
        match self.placement {
            Placement::Last => rewards[tokens.end - 1] += reward,
            Placement::Spread => {
                let part = reward / tokens.len() as f64;
                rewards[tokens.clone()].iter_mut().for_each(|token| *token += part);
            }
        }
    }

    fn sentence_reward(&self, score: Option<f64>) -> f64 {
        let Formula::Sentence { scale, max } = self.formula else {
            return 0.0;
        };
        let score = score.expect("the sentence form needs the score of the whole response");
        assert!(score.is_finite(), "the response scores {score}");
        ((score - scale.mean) / scale.deviation).clamp(-max, max)
    }
}
