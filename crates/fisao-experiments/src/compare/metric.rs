//! What is measured of each method, and how it is written.

use serde::{Deserialize, Serialize};

use fisao_report::html::number;
use fisao_report::table::NONE;

/// A number that is measured of every method and seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Hallucinated mentions over all mentions.
    ChairI,
    /// Captions with a hallucinated mention over all captions.
    ChairS,
    /// Objects named over objects present.
    Recall,
    /// Tokens of a caption.
    MeanLength,
    /// F1 of adversarial POPE questions **read from captions** (see [`fisao_runs::world_pope`]); not comparable with
    /// POPE of a model that answers.
    PopeF1,
    /// Fraction of the same questions that were answered rightly.
    PopeAccuracy,
    /// BLEU-4 against truthful captions of the world.
    #[serde(rename = "bleu_4")]
    Bleu4,
    /// ROUGE-L against the same.
    RougeL,
    /// CIDEr-D against the same, from 0 to 10.
    Cider,
    /// Wall time of training, or of choosing captions where nothing is trained.
    Seconds,
    /// Tokens the model wrote for that.
    SampledTokens,
}

/// Which way a number is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The lower, the better.
    Low,
    /// The higher, the better.
    High,
    /// Neither way is better in itself.
    Neither,
}

impl Metric {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 11] = [
        Self::ChairI,
        Self::ChairS,
        Self::Recall,
        Self::MeanLength,
        Self::PopeF1,
        Self::PopeAccuracy,
        Self::Bleu4,
        Self::RougeL,
        Self::Cider,
        Self::Seconds,
        Self::SampledTokens,
    ];

    /// Those of the captions rather than of what they cost.
    pub(crate) fn of_captions() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|metric| !matches!(metric, Self::Seconds | Self::SampledTokens))
    }

    /// Name in headings, with the unit that [`Self::text`] writes in.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ChairI => "CHAIR_I %",
            Self::ChairS => "CHAIR_S %",
            Self::Recall => "recall %",
            Self::MeanLength => "length",
            Self::PopeF1 => "caption POPE F1 %",
            Self::PopeAccuracy => "caption POPE accuracy %",
            Self::Bleu4 => "BLEU-4",
            Self::RougeL => "ROUGE-L",
            Self::Cider => "CIDEr",
            Self::Seconds => "seconds",
            Self::SampledTokens => "sampled tokens, k",
        }
    }

    /// Which way it is to go.
    pub(crate) fn wanted(self) -> Wanted {
        match self {
            Self::ChairI | Self::ChairS => Wanted::Low,
            Self::MeanLength | Self::Seconds | Self::SampledTokens => Wanted::Neither,
            _ => Wanted::High,
        }
    }

    /// What a value is multiplied by to be written.
    pub(crate) fn scale(self) -> f64 {
        match self {
            Self::ChairI | Self::ChairS | Self::Recall | Self::PopeF1 | Self::PopeAccuracy => 100.0,
            Self::SampledTokens => 1e-3,
            _ => 1.0,
        }
    }

    /// Decimals a value is written with.
    pub(crate) fn decimals(self) -> usize {
        match self {
            Self::Bleu4 | Self::RougeL | Self::Cider => 3,
            Self::Seconds | Self::SampledTokens => 0,
            _ => 1,
        }
    }

    /// A value as it is written.
    pub(crate) fn text(self, value: Option<f64>) -> String {
        value.map_or_else(|| NONE.to_owned(), |value| number(value * self.scale(), self.decimals()))
    }
}
