//! Rewards beside that of mentions: from the configuration, or given in code.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pattern::PatternReward;
use super::token_reward::{RewardInputs, TokenReward};
use crate::error::AlignError;

/// One entry of `[[additional-rewards]]`, told apart by its `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum AdditionalReward {
    /// What matches a regular expression earns or costs something.
    Pattern(PatternReward),
}

impl AdditionalReward {
    fn build(&self, table: &str) -> Result<Arc<dyn TokenReward>, AlignError> {
        Ok(match self {
            Self::Pattern(settings) => Arc::new(settings.build(table)?),
        })
    }
}

/// Rewards that are added to that of mentions.
#[derive(Clone, Default)]
pub struct AdditionalRewards(Vec<Arc<dyn TokenReward>>);

impl AdditionalRewards {
    /// Those of a configuration.
    ///
    /// # Errors
    /// [`AlignError`] naming the first setting that cannot be used.
    pub fn new(settings: &[AdditionalReward]) -> Result<Self, AlignError> {
        let built = settings.iter().enumerate().map(|(at, one)| one.build(&table(at)));
        built.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one that is written in code.
    pub fn push(&mut self, reward: Arc<dyn TokenReward>) {
        self.0.push(reward);
    }

    /// Adds them to the rewards of a response's tokens.
    ///
    /// # Errors
    /// What a reward reports, and [`AlignError::AdditionalReward`] where it is no finite number for every token.
    pub(super) fn add_to(
        &self,
        rewards: &mut [f32],
        inputs: &RewardInputs<'_>,
    ) -> Result<(), AlignError> {
        for (at, additional) in self.0.iter().enumerate() {
            let added = additional.token_rewards(inputs)?;
            let finite = added.iter().all(|reward| reward.is_finite());
            if added.len() != rewards.len() || !finite {
                return Err(AlignError::AdditionalReward {
                    reward: table(at),
                    id: inputs.task.id.clone(),
                    found: added.len(),
                    tokens: rewards.len(),
                });
            }
            rewards.iter_mut().zip(added).for_each(|(reward, added)| *reward += added);
        }
        Ok(())
    }
}

impl fmt::Debug for AdditionalRewards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} additional rewards", self.0.len())
    }
}

/// How an entry of the configuration is called in messages.
fn table(at: usize) -> String {
    format!("additional-rewards[{at}]")
}
