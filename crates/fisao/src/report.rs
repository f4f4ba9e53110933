//! The self-contained HTML report of an alignment run.
//!
//! [`render`] turns a [`Report`] into one page that makes no request to anywhere: style, charts
//! (SVG) and images (PNG as data URIs) are inside it, and it follows the reader's light or dark
//! colour scheme. `crate::printer` prints the same [`Report`] for a terminal.

mod axis;
mod curves;
mod gallery;
mod histogram;
pub(crate) mod html;
pub(crate) mod plots;
pub(crate) mod samples;
pub(crate) mod scatter;
mod scores;
#[cfg(test)]
mod tests;
pub(crate) mod verdicts;

/// An image in memory as a PNG file.
pub(crate) fn png(
    pixels: &[u8],
    (width, height): (u32, u32),
    colours: ExtendedColorType,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, width, height, colours)
        .expect("an image in memory can be encoded");
    bytes
}

/// Style of every page.
const STYLE: &str = include_str!("report/style.css");

#[cfg(test)]
pub(crate) use tests::sample;

pub(crate) use scores::{Judgement, Metric, headline};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use serde::Serialize;

/// Everything a report shows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Title of the page.
    pub(crate) title: String,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Scores before and after alignment, one row for each way of decoding; the first row is the
    /// one the headline speaks of.
    pub(crate) before_after: Vec<ReportRow>,
    /// How well the verifier tells correct from hallucinated mentions.
    pub(crate) verifier: VerifierFacts,
    /// What was recorded during training.
    pub(crate) curves: Vec<Curve>,
    /// Held-out images with their captions before and after.
    pub(crate) gallery: Vec<GalleryItem>,
    /// Name and value of whatever identifies the run: times, memory, versions.
    pub(crate) facts: Vec<(String, String)>,
    /// What the reader must know before believing the numbers.
    pub(crate) warnings: Vec<String>,
    /// Attribution of the images.
    pub(crate) attribution: String,
}

/// Scores of one way of decoding.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReportRow {
    /// How captions were decoded, such as `greedy` or `sampled T=1`.
    pub(crate) decoding: String,
    /// The model before alignment.
    pub(crate) base: Scores,
    /// The same model with the trained adapter.
    pub(crate) aligned: Scores,
}

/// Caption scores over a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Scores {
    /// Hallucinated mentions over all mentions, a fraction.
    pub(crate) chair_i: f64,
    /// Captions with a hallucinated mention over all captions, a fraction.
    pub(crate) chair_s: f64,
    /// Objects mentioned over objects present, a fraction.
    pub(crate) recall: f64,
    /// Mean caption length in tokens.
    pub(crate) mean_length: f64,
    /// Number of captions.
    pub(crate) captions: usize,
}

/// The verifier's scores (cosines) on the base model's own words, from the calibration split.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VerifierFacts {
    /// Probability that a correct mention outscores a hallucinated one.
    pub(crate) auc: f64,
    /// Mean score of correct mentions.
    pub(crate) mu_correct: f64,
    /// Standard deviation over correct mentions.
    pub(crate) sigma_correct: f64,
    /// Mean score of hallucinated mentions.
    pub(crate) mu_hallucinated: f64,
    /// Standard deviation over hallucinated mentions.
    pub(crate) sigma_hallucinated: f64,
    /// Score from which a word is rewarded, where the reward has thresholds.
    pub(crate) tau_plus: Option<f64>,
    /// Score up to which a word is penalised, where the reward has thresholds.
    pub(crate) tau_minus: Option<f64>,
    /// Score from which a word earns the largest reward, where the reward rises steadily.
    pub(crate) full_reward: Option<f64>,
    /// Score up to which a word pays the largest penalty, where the reward rises steadily.
    pub(crate) full_penalty: Option<f64>,
    /// Score at which the reward changes sign, where the reward has no thresholds.
    pub(crate) boundary: Option<f64>,
    /// Counts of correct mentions in bins of equal width over `hist_range`.
    pub(crate) correct_hist: Vec<usize>,
    /// Counts of hallucinated mentions in the same bins.
    pub(crate) hallucinated_hist: Vec<usize>,
    /// Lower and upper end of the histograms.
    pub(crate) hist_range: (f64, f64),
}

/// One quantity over training.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Curve {
    /// Name shown above the chart.
    pub(crate) name: String,
    /// Unit of the values; may be empty.
    pub(crate) unit: String,
    /// Iteration and value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// One image and what the model said about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GalleryItem {
    /// The image as a PNG file.
    #[serde(skip)]
    pub(crate) image_png: Vec<u8>,
    /// Identifier of the image.
    pub(crate) image_id: String,
    /// Names of the objects that are in the image.
    pub(crate) truth: Vec<String>,
    /// Caption of the base model.
    pub(crate) before: ColouredCaption,
    /// Caption of the aligned model.
    pub(crate) after: ColouredCaption,
}

/// A caption with a verdict on each of its object mentions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ColouredCaption {
    /// The caption.
    pub(crate) text: String,
    /// Verdicts in the order of the text.
    pub(crate) words: Vec<WordVerdict>,
}

/// What verifier and annotations say about one mention.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WordVerdict {
    /// First byte of the mention in the caption.
    pub(crate) start: usize,
    /// Byte after the mention.
    pub(crate) end: usize,
    /// Category the mention stands for.
    pub(crate) category: String,
    /// Verifier score, a cosine.
    pub(crate) score: f64,
    /// Calibrated probability that the mention is correct.
    pub(crate) probability: f64,
    /// Whether the annotations call it hallucinated; `None` where there are none.
    pub(crate) hallucinated: Option<bool>,
}

/// Renders the report as one HTML page.
pub(crate) fn render(report: &Report) -> String {
    let facts = report
        .facts
        .iter()
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", html::escape(name), html::escape(value))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let main = html::fill(
        include_str!("report/main.html").trim_end(),
        &[
            ("title", &html::escape(&report.title)),
            ("seed", &report.seed.to_string()),
            ("headline", &html::escape(&headline(report))),
            ("warnings", &warnings(&report.warnings)),
            ("tiles", &scores::tiles(report)),
            ("table", &scores::table(report)),
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
pub(crate) fn warnings(warnings: &[String]) -> String {
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
