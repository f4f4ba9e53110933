//! The page of `fisao verify`: images, captions with coloured words, and where each word is seen.

use std::ops::Range;

use fisao_verifier::scorer::HeatMap;
use image::{ExtendedColorType, RgbImage};

use super::html::{escape, fill, marked, number, page};
use super::{data_url, png};

/// Everything the page shows.
#[derive(Debug)]
pub struct VerdictPage {
    /// What was found in all captions.
    pub summary: String,
    /// Captions that were judged and are not shown.
    pub left_out: usize,
    /// Whether words have probabilities.
    pub calibrated: bool,
    /// Captions, the most doubtful first.
    pub cards: Vec<CaptionCard>,
}

/// A caption with its image.
#[derive(Debug)]
pub struct CaptionCard {
    /// Identifier of the image.
    pub image_id: String,
    /// The image as the verifier takes it.
    pub image: RgbImage,
    /// The caption.
    pub caption: String,
    /// Its object mentions, in order.
    pub words: Vec<VerdictWord>,
}

/// An object mention with its verdict.
#[derive(Debug)]
pub struct VerdictWord {
    /// Where it stands in the caption.
    pub bytes: Range<usize>,
    /// What it names.
    pub category: String,
    /// Whether the caption says that it is not there.
    pub negated: bool,
    /// Score with the image.
    pub score: f64,
    /// Probability that it is not there.
    pub p_hallucinated: Option<f64>,
    /// Whether it counts as hallucinated.
    pub hallucinated: Option<bool>,
    /// Where it is seen, if that is to be shown.
    pub heat_map: Option<HeatMap>,
}

impl VerdictPage {
    /// The page, which makes no request to anywhere.
    pub fn render(&self) -> String {
        let cards: Vec<String> = self.cards.iter().map(CaptionCard::render).collect();
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!("<p class=\"note\">{count} less doubtful captions are not shown.</p>"),
        };
        let colours = if self.calibrated {
            "Mentions are red where they are likely hallucinated and blue where they are likely correct."
        } else {
            "Words have no colour of their own, as no calibration says which score is high."
        };
        let main = fill(
            include_str!("verdicts.html").trim_end(),
            &[
                ("summary", &escape(&self.summary)),
                ("colours", colours),
                ("cards", &cards.join("\n")),
                ("left_out", &left_out),
            ],
        );
        page("Hallucinated mentions", &main)
    }
}

impl CaptionCard {
    fn render(&self) -> String {
        let id = escape(&self.image_id);
        let size = self.image.dimensions();
        let image = data_url(&png(self.image.as_raw(), size, ExtendedColorType::Rgb8));
        // One scale for all words of an image: what is seen nowhere stays pale.
        let range = heat_map_range(self.words.iter().filter_map(|word| word.heat_map.as_ref()));
        let maps: Vec<String> = self.words.iter().filter_map(|word| word.map(range)).collect();
        format!(
            "<article class=\"card verdict\" style=\"--image:url({image})\">\n\
             <div class=\"image\"><i role=\"img\" aria-label=\"{id}\"></i><code>{id}</code></div>\n\
             <div><p class=\"caption\">{}</p>\n<div class=\"maps\">{}</div></div>\n</article>",
            coloured(&self.caption, &self.words),
            maps.concat(),
        )
    }
}

/// A caption with its object mentions in the colours of their verdicts.
pub(crate) fn coloured(caption: &str, words: &[VerdictWord]) -> String {
    let words = words.iter().map(|word| (word.bytes.clone(), word));
    marked(caption, words, |text, word| {
        let (class, strength) = word.colour();
        format!(
            "<mark class=\"word {class}\" style=\"--strength:{strength:.0}%\" title=\"{}\">{}</mark>",
            escape(&word.numbers()),
            escape(text),
        )
    })
}

impl VerdictWord {
    /// Class of the mark and strength of its colour, per cent.
    fn colour(&self) -> (&'static str, f64) {
        match (self.p_hallucinated, self.hallucinated) {
            _ if self.negated => ("denied", 0.0),
            (Some(p), Some(true)) => ("hallucinated absent", 100.0 * p),
            (Some(p), _) => ("correct", 100.0 * (1.0 - p)),
            (None, _) => ("correct", 0.0),
        }
    }

    fn numbers(&self) -> String {
        let score = number(self.score, 3);
        let category = &self.category;
        match self.p_hallucinated {
            _ if self.negated => format!("{category}: negated, not scored"),
            Some(p) => format!("{category}: score {score}, p(hallucinated) {}", number(p, 2)),
            None => format!("{category}: score {score}"),
        }
    }

    /// The image in small, brightened where the word is seen.
    fn map(&self, range: (f64, f64)) -> Option<String> {
        let overlay = overlay(self.heat_map.as_ref()?, range);
        let (class, _) = self.colour();
        let value = match self.p_hallucinated {
            Some(p) => format!("p {}", number(p, 2)),
            None => number(self.score, 3),
        };
        Some(format!(
            "<figure class=\"{class}\"><i style=\"--map:url({overlay})\"></i>\
             <figcaption>{} <small>{value}</small></figcaption></figure>",
            escape(&self.category),
        ))
    }
}

/// The range of several heat maps.
pub(crate) fn heat_map_range<'a>(maps: impl Iterator<Item = &'a HeatMap>) -> (f64, f64) {
    maps.map(HeatMap::range)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (l, h)| (low.min(l), high.max(h)))
}

/// The URL of an image of one pixel a patch: dark and opaque where the word is not seen, clear where it is seen best.
pub(crate) fn overlay(map: &HeatMap, (low, high): (f64, f64)) -> String {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let pixels: Vec<u8> = map
        .values
        .iter()
        .flat_map(|value| {
            let seen = ((value - low) / span).clamp(0.0, 1.0);
            [12, 14, 24, (235.0 * (1.0 - seen)) as u8]
        })
        .collect();
    data_url(&png(&pixels, (map.columns as u32, map.rows as u32), ExtendedColorType::Rgba8))
}
