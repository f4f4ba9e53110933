//! Whatever matches a regular expression earns or costs something: stock phrases, hedging, a format that is asked for.

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::token_reward::{RewardInputs, TokenReward};
use crate::error::AlignError;
use crate::ranges::{LARGEST, real};

/// An `[[additional-rewards]]` entry of kind `pattern`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PatternReward {
    /// Regular expression, in the syntax of the `regex` crate, that is looked for in the text of a response: `(?i)\bperhaps\b`.
    pub pattern: String,
    /// What the last token of every match earns; negative numbers cost. From -1e9 to 1e9. Unit: reward.
    pub reward: f64,
}

impl PatternReward {
    pub(super) fn build(&self, table: &str) -> Result<Pattern, AlignError> {
        let range = |x: f64| (-LARGEST..=LARGEST).contains(&x);
        real(&format!("{table}.reward"), self.reward, range, "from -1e9 to 1e9")?;
        let regex = Regex::new(&self.pattern).map_err(|error| AlignError::OutOfRange {
            key: format!("{table}.pattern"),
            found: format!("{:?}", self.pattern),
            // The last line of the message says what is wrong; those above draw where.
            allowed: format!(
                "a regular expression ({})",
                error.to_string().lines().last().unwrap_or_default().trim()
            ),
        })?;
        Ok(Pattern { regex, reward: self.reward as f32 })
    }
}

/// The compiled reward.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    reward: f32,
}

impl TokenReward for Pattern {
    fn token_rewards(&self, inputs: &RewardInputs<'_>) -> Result<Vec<f32>, AlignError> {
        let mut rewards = vec![0.0; inputs.response.tokens.len()];
        let decoded = inputs.scorer.tokenizer.decode(&inputs.response.tokens)?;
        for found in self.regex.find_iter(&decoded.text) {
            // An empty match spells nothing, so that no token could be said to have earned it.
            let spelled = decoded
                .spans
                .iter()
                .rposition(|span| span.start < found.end() && span.end > found.start());
            if let Some(last) = spelled.filter(|_| !found.is_empty()) {
                rewards[last] += self.reward;
            }
        }
        Ok(rewards)
    }
}
