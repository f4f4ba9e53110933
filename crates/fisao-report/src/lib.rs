//! The self-contained HTML report of an alignment run.
//!
//! [`render`] turns a [`Report`] into one page that makes no request to anywhere: style, charts
//! (SVG) and images (PNG as data URIs) are inside it, and it follows the reader's light or dark
//! colour scheme. `fisao` prints the same [`Report`] for a terminal.
#![doc = include_str!("../README.md")]

mod axis;
mod curves;
pub mod detection;
pub mod escaping;
mod gallery;
mod histogram;
pub mod html;
pub mod plots;
pub mod prediction;
pub mod samples;
pub mod scatter;
mod scores;
pub mod table;
#[cfg(test)]
mod tests;
pub mod verdicts;

/// An image in memory as a PNG file.
pub fn png(pixels: &[u8], (width, height): (u32, u32), colours: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, width, height, colours)
        .expect("an image in memory can be encoded");
    bytes
}

/// Probability of being correct below which a mention is doubtful.
pub const DOUBTFUL: f64 = 0.5;

/// A JPEG file of an image in memory.
pub fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode_image(image)
        .expect("an image in memory can be encoded");
    bytes
}

/// A PNG or JPEG file as a URL that holds it.
fn data_url(file: &[u8]) -> String {
    // JPEG files begin with the start-of-image marker; everything else here is PNG.
    let kind = if file.starts_with(&[0xFF, 0xD8]) { "jpeg" } else { "png" };
    format!("data:image/{kind};base64,{}", STANDARD.encode(file))
}

/// Style of every page.
const STYLE: &str = include_str!("style.css");

pub use scores::{Judgement, Metric, headline};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fisao_eval::chair::{ChairChanges, Protocol};
use fisao_eval::statistics::Interval;
use fisao_verifier::scorer::HeatMap;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _, RgbImage};
use serde::Serialize;

/// Everything a report shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// Seed of the run.
    pub seed: u64,
    /// Scores before and after alignment, one row for each way of decoding; the first row is the
    /// one the headline speaks of.
    pub before_after: Vec<ReportRow>,
    /// How well the verifier tells correct from hallucinated mentions.
    pub verifier: VerifierFacts,
    /// What was recorded during training.
    pub curves: Vec<Curve>,
    /// Held-out images with their captions before and after.
    pub gallery: Vec<GalleryItem>,
    /// Name and value of whatever identifies the run: times, memory, versions.
    pub facts: Vec<(String, String)>,
    /// What the reader must know before believing the numbers.
    pub warnings: Vec<String>,
    /// Attribution of the images.
    pub attribution: String,
}

/// Scores of one way of decoding.
#[derive(Clone, Debug, Serialize)]
pub struct ReportRow {
    /// How captions were decoded, such as `greedy` or `sampled T=1`.
    pub decoding: String,
    /// The model before alignment.
    pub base: Scores,
    /// The same model with the trained adapter.
    pub aligned: Scores,
    /// How sure the changes are, where that is known.
    pub changes: ChairChanges,
    /// Whether the rates are the verifier's estimates instead of counts against annotations.
    pub estimated: bool,
    /// 95 % intervals of the rates before and after, where they are to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intervals: Option<[RateIntervals; 2]>,
    /// What the measured rates before and after depend on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Box<[Protocol; 2]>>,
}

/// Intervals of rates; `None` where a rate is of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RateIntervals {
    /// Of [`Scores::chair_i`].
    pub chair_i: Option<Interval>,
    /// Of [`Scores::chair_s`].
    pub chair_s: Option<Interval>,
    /// Of [`Scores::recall`].
    pub recall: Option<Interval>,
}

/// Caption scores over a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Hallucinated mentions over all mentions, a fraction.
    pub chair_i: f64,
    /// Captions with a hallucinated mention over all captions, a fraction.
    pub chair_s: f64,
    /// Objects mentioned over objects present, a fraction.
    pub recall: f64,
    /// Mean caption length in tokens.
    pub mean_length: f64,
    /// Number of captions.
    pub captions: usize,
}

/// What gives a verifier's scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoredBy {
    /// A contrastive model: cosines.
    #[default]
    Contrastive,
    /// The matching head of a contrastive model: log-odds, nats.
    Matching,
    /// The model's own decoder: log-probabilities, nats.
    Decoder,
}

impl ScoredBy {
    fn heading(self) -> &'static str {
        match self {
            Self::Contrastive | Self::Matching => "What the model’s own vision encoder can tell",
            Self::Decoder => "What the model’s own decoder can tell",
        }
    }

    /// Behind "scored against the image by".
    fn in_words(self) -> &'static str {
        match self {
            Self::Contrastive => "the contrastive head of the model’s own vision encoder",
            Self::Matching => "the matching head of the model’s own vision encoder",
            Self::Decoder => "what the model’s own decoder reads at the image’s positions",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Contrastive => "cosine",
            Self::Matching => "log-odds, nats",
            Self::Decoder => "log-probability, nats",
        }
    }
}

/// The verifier's scores on the base model's own mentions, from the calibration split.
#[derive(Clone, Debug, Serialize)]
pub struct VerifierFacts {
    /// What gives the scores.
    pub scored_by: ScoredBy,
    /// Probability that a correct mention outscores a hallucinated one.
    pub auc: f64,
    /// Mean score of correct mentions.
    pub mu_correct: f64,
    /// Standard deviation over correct mentions.
    pub sigma_correct: f64,
    /// Mean score of hallucinated mentions.
    pub mu_hallucinated: f64,
    /// Standard deviation over hallucinated mentions.
    pub sigma_hallucinated: f64,
    /// Score from which a mention is rewarded, where the reward has thresholds.
    pub tau_plus: Option<f64>,
    /// Score up to which a mention is penalised, where the reward has thresholds.
    pub tau_minus: Option<f64>,
    /// Score from which a mention earns the largest reward, where the reward rises steadily.
    pub full_reward: Option<f64>,
    /// Score up to which a mention pays the largest penalty, where the reward rises steadily.
    pub full_penalty: Option<f64>,
    /// Score at which the reward changes sign, where the reward has no thresholds.
    pub boundary: Option<f64>,
    /// Counts of correct mentions in bins of equal width over `hist_range`.
    pub correct_hist: Vec<usize>,
    /// Counts of hallucinated mentions in the same bins.
    pub hallucinated_hist: Vec<usize>,
    /// Lower and upper end of the histograms.
    pub hist_range: (f64, f64),
}

/// One quantity over training.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// Name shown above the chart.
    pub name: String,
    /// Unit of the values; may be empty.
    pub unit: String,
    /// Iteration, from 1, and value; at 0 what was measured before training.
    pub points: Vec<(f64, f64)>,
}

/// One image and what the model said about it.
#[derive(Clone, Debug, Serialize)]
pub struct GalleryItem {
    /// The image as a PNG or JPEG file.
    #[serde(skip)]
    pub image: Vec<u8>,
    /// The image as the verifier takes it, as a PNG or JPEG file, where words have heat maps.
    #[serde(skip)]
    pub verifier_view: Option<Vec<u8>>,
    /// Identifier of the image.
    pub image_id: String,
    /// Names of the objects that are in the image.
    pub truth: Vec<String>,
    /// Caption of the base model.
    pub before: ColouredCaption,
    /// Caption of the aligned model.
    pub after: ColouredCaption,
}

/// A caption with a verdict on each of its object mentions.
#[derive(Clone, Debug, Serialize)]
pub struct ColouredCaption {
    /// The caption.
    pub text: String,
    /// Verdicts in the order of the text.
    pub words: Vec<WordVerdict>,
}

/// What verifier and annotations say about one mention.
#[derive(Clone, Debug, Serialize)]
pub struct WordVerdict {
    /// First byte of the mention in the caption.
    pub start: usize,
    /// Byte after the mention.
    pub end: usize,
    /// Category the mention stands for.
    pub category: String,
    /// Verifier score, a cosine.
    pub score: f64,
    /// Calibrated probability that the mention is correct.
    pub probability: f64,
    /// Whether the annotations call it hallucinated; `None` where there are none.
    pub hallucinated: Option<bool>,
    /// Where in the image the verifier sees it, if that is to be shown.
    #[serde(skip)]
    pub heat_map: Option<HeatMap>,
}

/// Renders the report as one HTML page.
pub fn render(report: &Report) -> String {
    let facts = report
        .facts
        .iter()
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", html::escape(name), html::escape(value))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let main = html::fill(
        include_str!("main.html").trim_end(),
        &[
            ("title", &html::escape(&report.title)),
            ("seed", &report.seed.to_string()),
            ("headline", &html::escape(&headline(report))),
            ("warnings", &warnings(&report.warnings)),
            ("tiles", &scores::tiles(report)),
            ("table", &scores::table(report)),
            ("estimates", &scores::remark_on_estimates(report)),
            ("verifier", report.verifier.scored_by.heading()),
            ("scored_by", report.verifier.scored_by.in_words()),
            ("histogram", &histogram::render(&report.verifier)),
            ("verifier_facts", &histogram::facts(&report.verifier)),
            ("curves", &curves::render(&report.curves)),
            ("legend", &gallery::legend(&report.verifier)),
            ("gallery", &gallery::render(&report.gallery, &report.verifier)),
            ("facts", &facts),
            ("attribution", &html::escape(&report.attribution)),
        ],
    );
    html::page(&report.title, &main)
}

/// What the reader must know, in a box; nothing where there is nothing.
pub fn warnings(warnings: &[String]) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let items = warnings
        .iter()
        .map(|warning| format!("<li>{}</li>", html::escape(warning)))
        .collect::<Vec<_>>()
        .join("\n");
    format!(
        "<aside class=\"warnings\" aria-label=\"Warnings\">\n<h2>{}</h2>\n<ul>\n{items}\n</ul>\n\
         </aside>",
        if warnings.len() == 1 { "One warning" } else { "Warnings" }
    )
}
