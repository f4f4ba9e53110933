//! `compare.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metric::Metric;
use super::summary::Summary;

/// Layout of the file.
const SCHEMA: u32 = 1;

/// Several methods, each trained and measured with the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// Layout of this file.
    pub(crate) schema: u32,
    /// Version of FiSAO.
    pub(crate) fisao: String,
    /// What was asked for.
    pub(crate) settings: Settings,
    /// What the reader must know before believing the numbers.
    pub(crate) warnings: Vec<String>,
    /// What follows from the methods' rows.
    pub(crate) summary: Summary,
    /// The methods, in the order they are shown in.
    pub(crate) methods: Vec<Method>,
}

impl Document {
    /// A document with its summary, computed from the methods' rows.
    pub(crate) fn summarise(
        settings: Settings,
        methods: Vec<Method>,
        warnings: Vec<String>,
    ) -> Self {
        let summary = Summary::of(&settings, &methods);
        let fisao = env!("CARGO_PKG_VERSION").to_owned();
        Self { schema: SCHEMA, fisao, settings, warnings, summary, methods }
    }

    /// Warnings of single rows, with method and seed before them.
    pub(crate) fn run_warnings(&self) -> Vec<String> {
        let of_row = |(method, row): (&Method, &SeedRow)| {
            let place = format!("{}, seed {}", method.label, row.seed);
            row.warnings.iter().map(|warning| format!("{place}: {warning}")).collect::<Vec<_>>()
        };
        let rows = self
            .methods
            .iter()
            .flat_map(|method| method.seeds.iter().map(move |row| (method, row)));
        rows.flat_map(of_row).collect()
    }

    /// The method of a key.
    pub(crate) fn method(&self, key: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.key == key)
    }

    /// Label of the method the others are tested against, if there is such a method.
    pub(crate) fn against(&self) -> Option<&str> {
        Some(self.method(self.settings.against.as_deref()?)?.label.as_str())
    }
}

/// What a comparison was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The model all methods start from.
    pub(crate) model: String,
    /// Seeds, each of which every method was run with.
    pub(crate) seeds: Vec<u64>,
    /// Scenes the captions of which are measured, per seed.
    pub(crate) scenes: usize,
    /// Key of the method that changes are relative to.
    pub(crate) base: Option<String>,
    /// Key of the method that all others are tested against.
    pub(crate) against: Option<String>,
    /// Images each method trains on, where it has a budget of [`Budget::Prompts`].
    pub(crate) prompts: usize,
    /// Seconds each method trains for, where it has a budget of [`Budget::WallTime`]; `None` where that is as long
    /// as [`Self::against`] took.
    pub(crate) seconds: Option<f64>,
    /// All other settings by their names, as they were resolved.
    pub(crate) resolved: Value,
}

/// What is held equal between methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Budget {
    /// The number of images a method trains on.
    Prompts,
    /// The time it trains for.
    WallTime,
}

impl Budget {
    /// As tables and JSON have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::WallTime => "wall-time",
        }
    }
}

/// One method with what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Method {
    /// Name by which settings and tests speak of it, such as `fisao`, or `fisao[margin=0.01]` in an ablation.
    pub(crate) key: String,
    /// Name for people.
    pub(crate) label: String,
    /// What it does, in a sentence; may be empty.
    pub(crate) description: String,
    /// Whether it learns from captions or preferences that are not the model's own.
    pub(crate) uses_external_data: bool,
    /// What is held equal; `None` of a method that trains nothing.
    pub(crate) budget: Option<Budget>,
    /// What each seed gave.
    pub(crate) seeds: Vec<SeedRow>,
}

impl Method {
    /// The row of a seed.
    pub(crate) fn seed(&self, seed: u64) -> Option<&SeedRow> {
        self.seeds.iter().find(|row| row.seed == seed)
    }

    /// Name and value of the setting that the key names, where the value is a number: `fisao[margin=0.01]` has
    /// `("margin", 0.01)`.
    pub(crate) fn setting(&self) -> Option<(&str, f64)> {
        let (_, setting) = self.key.strip_suffix(']')?.split_once('[')?;
        let (name, value) = setting.split_once('=')?;
        Some((name, value.parse().ok()?))
    }
}

/// How captions were decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decoding {
    /// The likeliest token each time.
    Greedy,
    /// Drawn at temperature 1.
    Sampled,
}

/// What one method gave with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeedRow {
    /// The seed.
    pub(crate) seed: u64,
    /// Of greedily decoded captions.
    #[serde(flatten)]
    pub(crate) greedy: Measurements,
    /// Seconds of training, or of choosing captions where nothing is trained.
    pub(crate) seconds: f64,
    /// Tokens the model wrote for that.
    pub(crate) sampled_tokens: u64,
    /// The same of captions drawn at temperature 1, where there are any.
    pub(crate) sampled: Option<Measurements>,
    /// What happened on the way.
    pub(crate) warnings: Vec<String>,
}

impl SeedRow {
    /// What was measured by one way of decoding. What a method cost stands with its greedy captions.
    pub(crate) fn value(&self, decoding: Decoding, metric: Metric) -> Option<f64> {
        match (decoding, metric) {
            (Decoding::Greedy, Metric::Seconds) => Some(self.seconds),
            (Decoding::Greedy, Metric::SampledTokens) => Some(self.sampled_tokens as f64),
            (Decoding::Greedy, _) => self.greedy.value(metric),
            (Decoding::Sampled, _) => self.sampled.as_ref()?.value(metric),
        }
    }
}

/// What was measured of a set of captions. A rate over nothing is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurements {
    /// Hallucinated mentions over all mentions.
    pub(crate) chair_i: Option<f64>,
    /// Captions with a hallucinated mention over all captions.
    pub(crate) chair_s: Option<f64>,
    /// Objects named over objects present.
    pub(crate) recall: Option<f64>,
    /// Tokens of a caption, the end token not counted.
    pub(crate) mean_length: f64,
    /// F1 of adversarial POPE questions **read from captions**: yes, if the caption names the object asked for.
    /// Compares captioners of the same scenes, but not with POPE of a model that answers.
    pub pope_f1: Option<f64>,
    /// Fraction of the same questions that were answered rightly.
    pub(crate) pope_accuracy: Option<f64>,
    /// BLEU-4 against truthful captions of the world.
    pub bleu_4: f64,
    /// ROUGE-L against the same.
    pub(crate) rouge_l: f64,
    /// CIDEr-D against the same, from 0 to 10.
    pub(crate) cider: f64,
}

impl Measurements {
    /// A metric of captions.
    fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::ChairI => self.chair_i,
            Metric::ChairS => self.chair_s,
            Metric::Recall => self.recall,
            Metric::MeanLength => Some(self.mean_length),
            Metric::PopeF1 => self.pope_f1,
            Metric::PopeAccuracy => self.pope_accuracy,
            Metric::Bleu4 => Some(self.bleu_4),
            Metric::RougeL => Some(self.rouge_l),
            Metric::Cider => Some(self.cider),
            Metric::Seconds | Metric::SampledTokens => None,
        }
    }
}
