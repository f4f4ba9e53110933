//! What a comparison of a detector with labels comes to.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::pairing::{PairedTextsBy, Unmatched};
use super::predictions::Orientation;
use super::problems::Skipped;
use super::score::Tokenization;
use crate::detection::{RiskPoint, Threshold};
use crate::statistics::Interval;

/// A number and how sure it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// `None` where it is undefined.
    pub value: Option<f64>,
    /// 95 % bootstrap interval over images.
    pub interval: Option<Interval>,
    /// Why it is undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undefined: Option<&'static str>,
}

/// Numbers by name, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures(pub Vec<(&'static str, Measured)>);

impl Measures {
    /// A number by its name.
    pub fn get(&self, name: &str) -> Option<&Measured> {
        self.0.iter().find(|(of, _)| *of == name).map(|(_, measured)| measured)
    }

    /// The value of a number by its name; `None` where it is undefined too.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.get(name)?.value
    }
}

impl Serialize for Measures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, measured) in &self.0 {
            map.serialize_entry(name, measured)?;
        }
        map.end()
    }
}

/// Numbers of one type of hallucination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeMeasures {
    /// Its name.
    pub name: String,
    /// Tokens that are hallucinated in this type.
    pub tokens: usize,
    /// Labelled spans.
    pub spans: usize,
    /// `recall` of tokens, `roc_auc` of its tokens against those that are not hallucinated, `span_recall` by
    /// overlap, and the fraction of its tokens `without_opinion`.
    pub measures: Measures,
}

/// What was counted in one text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextRow {
    /// What the labels call it.
    pub id: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that are hallucinated.
    pub hallucinated: usize,
    /// Tokens that the detector flags; `None` where it does not decide.
    pub flagged: Option<usize>,
    /// Hallucinated tokens that it flags; `None` where it does not decide.
    pub found: Option<usize>,
    /// Hallucinated tokens that it has no opinion on.
    pub without_opinion: usize,
}

/// A detector against labels. Positive is hallucinated. Numbers of tokens, spans and types are micro: counts of all texts are summed
/// first; `macro` has means over types.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocalizationReport {
    /// Texts with labels and predictions.
    pub texts: usize,
    /// Images they are about; texts without an image are one each.
    pub images: usize,
    /// What tokens are.
    pub tokenization: Tokenization,
    /// Where scores come from.
    pub orientation: Option<Orientation>,
    /// Score from which a token or span is flagged, where one was given; otherwise the detector's own verdicts count.
    pub threshold: Option<f64>,
    /// Tokens, those left out not counted.
    pub tokens: usize,
    /// Tokens that are hallucinated.
    pub hallucinated: usize,
    /// Tokens left out, as their label says neither.
    pub ignored: usize,
    /// Tokens that the detector has no opinion on.
    pub without_opinion: usize,
    /// Hallucinated tokens that it has no opinion on.
    pub hallucinated_without_opinion: usize,
    /// Labelled spans, different ones of a text.
    pub labelled_spans: usize,
    /// Spans that the detector flags, different ones of a text; `None` where it does not decide.
    pub flagged_spans: Option<usize>,
    /// Numbers of tokens.
    pub token_measures: Measures,
    /// The threshold with the highest F1 of tokens, chosen with these labels.
    pub best_threshold: Option<Threshold>,
    /// Numbers of spans.
    pub span_measures: Measures,
    /// Numbers by type of hallucination.
    pub types: Vec<TypeMeasures>,
    /// Means over the types that occur.
    #[serde(rename = "macro")]
    pub over_types: Measures,
    /// Fraction hallucinated among the tokens kept, those least suspected first; tokens with an opinion only.
    pub risk_coverage: Vec<RiskPoint>,
    /// How predictions were brought together with labels.
    pub paired_by: PairedTextsBy,
    /// Texts that only one file has.
    pub unmatched: Unmatched,
    /// Texts left out because a label does not fit.
    pub skipped_labels: Skipped,
    /// Texts left out because a prediction does not fit.
    pub skipped_predictions: Skipped,
    /// Each text.
    pub per_text: Vec<TextRow>,
}
