//! `fisao eval detection`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fisao_eval::localization::{LabelOptions, Offsets, Tokenization};

use crate::arguments::{DamagedArguments, DeviceArguments, ReportArguments, VerifyingArguments};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["predictions", "images"])))]
pub(crate) struct DetectionArguments {
    /// Texts whose hallucinated parts are labelled, JSON or JSON lines; below are the layouts; gzipped or not
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: PathBuf,
    /// What a detector says of the same texts, JSON or JSON lines: the output of `fisao verify --format json`, or
    /// {"image": …, "text": "…", "spans": [{"start": …, "end": …, "score": …}]}, where a higher score means more likely
    /// hallucinated; gzipped or not
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "verifier", "model", "world", "calibration", "vocabulary", "templates", "regions", "head", "wording", "contrast", "skip_damaged", "device",
    ])]
    pub(crate) predictions: Option<PathBuf>,
    /// Folder of the images, for a verifier that is to look at the texts now, as `fisao verify` does
    #[arg(long, alias = "image", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) verifying: VerifyingArguments,
    /// From this score on a word or span is flagged [default: the detector's own verdicts; of a verifier that looks now,
    /// p_hallucinated of 0.5]
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub(crate) threshold: Option<f64>,
    /// What offsets of spans count; those of HalLoc's char_index and of `fisao verify` are characters always
    #[arg(long, value_name = "UNIT", default_value = "characters")]
    pub(crate) offsets: OffsetUnit,
    /// What to measure by: words, or the tokens that the labels give (tokens, tokenized_text)
    #[arg(long, value_name = "WHICH", default_value = "words")]
    pub(crate) tokens: TokenChoice,
    /// Field of the labels that holds the text [default: the first there is of hallucinated_text, response, caption,
    /// model_output_text, output, text, answer]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
    /// Labels of spans that are not hallucinated, in any case; every other label is a type of hallucination
    #[arg(long, value_name = "LABEL", num_args = 0.., default_values_t = LabelOptions::default().clean)]
    pub(crate) clean_labels: Vec<String>,
    /// Labels of spans whose words are left out of all measures, in any case
    #[arg(long, value_name = "LABEL", num_args = 0.., default_values_t = LabelOptions::default().ignored)]
    pub(crate) ignored_labels: Vec<String>,
    /// Leave out texts with a label or prediction that does not fit the text, and count them, instead of refusing them
    #[arg(long)]
    pub(crate) skip_broken: bool,
    /// Leave out texts that only one of the files has, and count them, instead of refusing them
    #[arg(long)]
    pub(crate) skip_unmatched: bool,
    /// Also write a page with the table and the risk-coverage curve
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) damaged: DamagedArguments,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
    #[command(flatten)]
    pub(crate) report: ReportArguments,
}

/// What offsets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OffsetUnit {
    /// Unicode scalar values, as Python counts
    Characters,
    /// Bytes of UTF-8
    Bytes,
}

impl From<OffsetUnit> for Offsets {
    fn from(unit: OffsetUnit) -> Self {
        match unit {
            OffsetUnit::Characters => Self::Characters,
            OffsetUnit::Bytes => Self::Bytes,
        }
    }
}

/// What tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenChoice {
    /// Runs of letters and digits, joined by single apostrophes and hyphens
    Words,
    /// Tokens that the labels give
    Labels,
}

impl From<TokenChoice> for Tokenization {
    fn from(choice: TokenChoice) -> Self {
        match choice {
            TokenChoice::Words => Self::Words,
            TokenChoice::Labels => Self::Labels,
        }
    }
}

pub(in crate::commands::eval) const DETECTION_FILES: &str = "\
Layouts of labels, told row by row:
  HalLoc       {\"image_id\", \"hallucinated_text\", \"annotations\": {\"object\": [{\"obj\": {\"name\", \"char_index\": \"start:end\"}}], …}}
  M-HalDetect  {\"response\", \"annotations\": [{\"start\", \"end\", \"text\", \"label\": \"INACCURATE\"}]}
  RAGTruth     {\"response\", \"labels\": [{\"start\", \"end\", \"text\", \"label_type\"}]}
  Mu-SHROOM    {\"model_output_text\", \"hard_labels\": [[start, end]]}
  spans        {\"image\", \"text\", \"spans\": [{\"start\", \"end\", \"type\"} or [start, end] or {\"text\", \"type\"}]}
  tokens       {\"image\", \"text\", \"tokens\": […], \"labels\": [0, 1, …] or BIO tags}
An end is past the last character. Predictions are joined by id, or by image and text.";
