//! Reward settings.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::calibration::{ProbabilityModel, Statistic};

/// How scores become token rewards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RewardConfig {
    /// Formula and its parameters. Default: corrected, with a break-even precision of 0.5.
    pub form: RewardForm,
    /// Which tokens of a mention carry its reward. Default: last.
    pub placement: Placement,
    /// κ₋, factor on the negative rewards of mentions: a number ≥ 0 or "balanced". No unit. Default:
    /// balanced, which is 1 for the corrected form: there the break-even precision says what an error costs.
    pub penalty_weight: PenaltyWeight,
    /// Taken from a mention of a category that the response has named before, instead of its reward
    /// where that is positive; in units of reward, ≥ 0. Default: 1.0. At 0 a repeated true word costs
    /// nothing, and a policy that must not guess fills its sentences with them.
    pub repetition_penalty: f64,
    /// Taken from the last token of a response that ran into its length budget; in units of
    /// reward, ≥ 0. Default: 1.0.
    pub truncated_penalty: f64,
}

/// Formula of a mention's reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    deny_unknown_fields,
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum RewardForm {
    /// Distance from the thresholds, in pooled standard deviations.
    Threshold {
        /// λ ≥ 0, how far the thresholds lie inside the two means; in the unit of the scores
        /// (cosine). Default: 0.0.
        #[serde(default)]
        margin: f64,
        /// `r_max` > 0, bound on |r| before κ₋; pooled standard deviations. Default: 3.0.
        #[serde(default = "default_max")]
        max: f64,
    },
    /// Log-odds of being correct over the log-odds of the target precision.
    LogOdds {
        /// p* ∈ [0.5, 1): naming an object pays exactly when it is more likely right than this. A
        /// probability. Default: 0.9.
        #[serde(default = "default_target_precision")]
        target_precision: f64,
        /// `r_max` > 0, bound on |r| before κ₋; nats. Default: 3.0.
        #[serde(default = "default_max")]
        max: f64,
        /// Where p(s) comes from. Default: gaussians.
        #[serde(default)]
        probability: ProbabilityModel,
    },
    /// Estimated correctness of the mention, corrected for the verifier's errors, less the break-even precision.
    Corrected {
        /// q* ∈ (0, 1), at the start where recall is a constraint: naming an object pays exactly when the policy's own
        /// probability of being right exceeds this, however weak the verifier. A probability. Default: 0.5.
        #[serde(default = "default_break_even")]
        break_even: f64,
        /// What a correct mention is worth more than a hallucinated one, > 0; reward units. Default: 6.0.
        #[serde(default = "default_scale")]
        scale: f64,
        /// What of the score is averaged. Default: posterior.
        #[serde(default)]
        statistic: Statistic,
    },
    /// One reward for the whole response: the coarse baseline.
    Sentence {
        /// `r_max` > 0, bound on |r|; standard deviations of response scores. Default: 3.0.
        #[serde(default = "default_max")]
        max: f64,
    },
}

/// Which tokens of a mention carry its reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The last token, where the name is complete.
    #[default]
    Last,
    /// Every token, in equal parts.
    Spread,
}

/// κ₋, factor on the negative rewards of mentions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum PenaltyWeight {
    /// The least factor ≥ 1 at which a mention that is as likely wrong as right does not pay; 1 for the corrected form.
    #[default]
    Balanced,
    /// This factor.
    Fixed(f64),
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            form: RewardForm::default(),
            placement: Placement::default(),
            penalty_weight: PenaltyWeight::default(),
            repetition_penalty: 1.0,
            truncated_penalty: 1.0,
        }
    }
}

impl RewardForm {
    /// What of the score the form estimates correctness from; `None` for forms that do not estimate it.
    pub fn statistic(&self) -> Option<Statistic> {
        match *self {
            Self::Corrected { statistic, .. } => Some(statistic),
            Self::Threshold { .. } | Self::LogOdds { .. } | Self::Sentence { .. } => None,
        }
    }
}

impl Default for RewardForm {
    fn default() -> Self {
        Self::Corrected {
            break_even: default_break_even(),
            scale: default_scale(),
            statistic: Statistic::default(),
        }
    }
}

fn default_break_even() -> f64 {
    0.5
}

fn default_scale() -> f64 {
    6.0
}

fn default_target_precision() -> f64 {
    0.9
}

fn default_max() -> f64 {
    3.0
}

/// What a file may say for a [`PenaltyWeight`] in a word.
const BALANCED: &str = "balanced";

impl Serialize for PenaltyWeight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => serializer.serialize_str(BALANCED),
            Self::Fixed(weight) => serializer.serialize_f64(*weight),
        }
    }
}

impl<'de> Deserialize<'de> for PenaltyWeight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenWeight)
    }
}

/// Reads the weight as it stands in a file, and says what else stands there.
struct WrittenWeight;

impl Visitor<'_> for WrittenWeight {
    type Value = PenaltyWeight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number or \"{BALANCED}\" for penalty-weight")
    }

    fn visit_f64<E: Error>(self, weight: f64) -> Result<PenaltyWeight, E> {
        Ok(PenaltyWeight::Fixed(weight))
    }

    fn visit_i64<E: Error>(self, weight: i64) -> Result<PenaltyWeight, E> {
        Ok(PenaltyWeight::Fixed(weight as f64))
    }

    fn visit_u64<E: Error>(self, weight: u64) -> Result<PenaltyWeight, E> {
        Ok(PenaltyWeight::Fixed(weight as f64))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<PenaltyWeight, E> {
        if word == BALANCED {
            return Ok(PenaltyWeight::Balanced);
        }
        Err(E::custom(format!("penalty-weight is \"{word}\"; give a number or \"{BALANCED}\"")))
    }
}
