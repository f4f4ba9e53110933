//! Where in an image a name is looked for.

use serde::{Deserialize, Serialize};

/// How names are scored against images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ScoreConfig {
    /// What a BLIP-2 verifier scores with; the others have one head only. Default: contrastive.
    pub head: ScoreHead,
    /// Where in an image a name is looked for. Default: auto.
    pub regions: Regions,
    /// Crops along each side of the image with regions = "crops"; at least 2. Default: 2, so four crops of two thirds
    /// of each side.
    pub crops: u32,
    /// Take from each name's score its mean over images that do not mention it. Image–text scores lean towards some words
    /// whatever the image, and one threshold for all words asks too much of them. Default: true.
    pub centred: bool,
    /// Standard deviation of noise that is added to every score, of whole responses, too, and always the same for the same image and
    /// text: how well does alignment do with a worse verifier? Unit: that of the scores. From 0 to 1000. Default: 0, none.
    pub noise: f64,
    /// What of a mention is scored. Default: name.
    pub wording: Wording,
    /// How many names of other objects, the nearest to a name for the text encoder, are scored besides; half their mean is taken from the
    /// name's score ("dog" less "cat" and "wolf"): does the image show this rather than what it is easily taken for? From 0 to
    /// 16; each costs as much as the name. Default: 0.
    pub contrast: u32,
    /// Fraction of the decoder's layers, from the last one back, whose states are read where the decoder is the verifier
    /// (--verifier decoder); at least one layer. Above 0, at most 1. Default: 0.5, the second half, where image states have come
    /// close to words (Jiang et al. 2024, arXiv 2410.02762).
    pub reading_layers: f64,
}

/// What of a mention is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Wording {
    /// The object's name in the vocabulary, whatever is said of it: "dog".
    #[default]
    Name,
    /// The name with what the response says of it, without articles and numbers: "small brown dog". A contrast is then with
    /// the same words about another object ("small brown cat"). Every phrase is embedded when it is first met.
    Phrase,
}

/// What a BLIP-2 verifier scores with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScoreHead {
    /// Cosines of the queries' embeddings of the image with that of the text, of which the best counts (ITC).
    #[default]
    Contrastive,
    /// Log-odds of the matching head, which reads image and text together (ITM), nats. One pass of the Q-Former for every pair of
    /// image and name, and the states of each image are kept: slower, and for BLIP-2 checkpoints only.
    Matching,
}

/// What a verifier's scores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScoreUnit {
    /// Cosines, of a contrastive model.
    Cosine,
    /// Log-odds of a match, nats, of a matching head.
    LogOdds,
    /// Log-probabilities, nats, of a decoder.
    LogProbability,
}

/// Where in an image a name is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Regions {
    /// In the whole of it and its patches, weighted as the calibration found best; the whole alone where patches do not
    /// help, and without a calibration.
    #[default]
    Auto,
    /// In the whole of it: the pooled embedding.
    Whole,
    /// In its patches, too: mean of the whole's cosine and the best patch's.
    Patches,
    /// In overlapping crops, too, each encoded by itself: the best cosine of whole and crops. What is small in the
    /// image is larger in a crop; each crop costs as much as the image.
    Crops,
}

/// Fractions of the regions in a score with regions = "auto": (1 − patches) · whole + patches · best patch, cosine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionWeights {
    /// Of the best patch, from 0 to 1; the rest is that of the whole.
    pub patches: f64,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            head: ScoreHead::default(),
            regions: Regions::default(),
            crops: 2,
            centred: true,
            noise: 0.0,
            wording: Wording::default(),
            contrast: 0,
            reading_layers: 0.5,
        }
    }
}

impl ScoreConfig {
    /// Images that show one image: one, or the whole and its crops.
    pub fn views(&self) -> usize {
        if self.regions == Regions::Crops { 1 + (self.crops * self.crops) as usize } else { 1 }
    }

    /// Checks ranges, and what goes together.
    ///
    /// # Errors
    /// The setting's key and its range, as a sentence.
    pub fn validate(&self) -> Result<(), ScoreConfigError> {
        let whole = matches!(self.regions, Regions::Auto | Regions::Whole);
        if self.head == ScoreHead::Matching && !whole {
            let found = format!("{:?}", self.regions).to_lowercase();
            let range = "auto or whole with score.head = \"matching\", which reads the whole image";
            return Err(ScoreConfigError { key: "score.regions", found, range });
        }
        if self.regions == Regions::Crops && !(2..=8).contains(&self.crops) {
            let found = self.crops.to_string();
            return Err(ScoreConfigError { key: "score.crops", found, range: "from 2 to 8" });
        }
        if !(0.0..=1000.0).contains(&self.noise) {
            let found = self.noise.to_string();
            return Err(ScoreConfigError { key: "score.noise", found, range: "from 0 to 1000" });
        }
        if self.contrast > 16 {
            let found = self.contrast.to_string();
            return Err(ScoreConfigError { key: "score.contrast", found, range: "from 0 to 16" });
        }
        if !(self.reading_layers > 0.0 && self.reading_layers <= 1.0) {
            let (key, found) = ("score.reading-layers", self.reading_layers.to_string());
            return Err(ScoreConfigError { key, found, range: "above 0, at most 1" });
        }
        Ok(())
    }
}

/// A setting of the score lies outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {found}; it must be {range}")]
pub struct ScoreConfigError {
    /// Full key.
    pub key: &'static str,
    /// The value found, as text.
    pub found: String,
    /// What it may be.
    pub range: &'static str,
}

/// What the verifier made of one image. An encoder makes unit vectors; where it makes several of one image or patch (BLIP-2's queries),
/// they stand one after the other, and the best of their cosines counts. A decoder reads a log-probability, nats, for each token of its
/// vocabulary, and has no parts. Of a matching head it is the states that the head reads, position by position, without parts.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageEmbedding {
    /// Of the whole image, `f_v`.
    pub whole: Vec<f32>,
    /// Of its patches or crops, row by row; empty where only the whole counts.
    pub parts: Vec<Vec<f32>>,
}

#[cfg(feature = "scorer")]
impl ImageEmbedding {
    /// Of the whole image and its crops, in this order.
    pub(crate) fn of_views(views: &[Vec<f32>]) -> Self {
        Self { whole: views[0].clone(), parts: views[1..].to_vec() }
    }

    pub(crate) fn is_finite(&self) -> bool {
        std::iter::once(&self.whole).chain(&self.parts).flatten().all(|value| value.is_finite())
    }
}

impl ImageEmbedding {
    /// Cosine of the whole image with the same image by another encoder; of several vectors the mean.
    pub fn mean_cosine(&self, other: &Self) -> f64 {
        // Each of the vectors is of length 1, so that all of them together have their number as squared length.
        let count = cosine(&self.whole, &self.whole).max(f64::MIN_POSITIVE);
        cosine(&self.whole, &other.whole) / count
    }

    /// Score with a unit text embedding; `weights` count where regions are weighted.
    pub fn score(&self, text: &[f32], regions: Regions, weights: RegionWeights) -> f64 {
        let whole = best_cosine(&self.whole, text);
        let best = || self.parts.iter().map(|part| best_cosine(part, text)).fold(-1.0, f64::max);
        match regions {
            Regions::Auto if weights.patches > 0.0 => {
                (1.0 - weights.patches) * whole + weights.patches * best()
            }
            Regions::Auto | Regions::Whole => whole,
            Regions::Patches => f64::midpoint(whole, best()),
            Regions::Crops => whole.max(best()),
        }
    }
}

/// A rectangle of an image, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

/// Overlapping windows over an image of a size (width, height), row by row: `per_side`² of them, each 2/(`per_side` + 1) of
/// the image's width and height, so that neighbours share half of themselves.
pub fn crop_windows((width, height): (u32, u32), per_side: u32) -> Vec<Window> {
    let along = |length: u32, index: u32| {
        let edge = |step: u32| u64::from(length) * u64::from(step) / u64::from(per_side + 1);
        let (start, end) = (edge(index) as u32, edge(index + 2) as u32);
        // An image of few pixels still has something to show in every window.
        let start = start.min(length - 1);
        (start, (end - start).max(1))
    };
    let cells = (0..per_side).flat_map(|row| (0..per_side).map(move |column| (row, column)));
    cells
        .map(|(row, column)| {
            let ((x, width), (y, height)) = (along(width, column), along(height, row));
            Window { x, y, width, height }
        })
        .collect()
}

/// Largest inner product of a unit vector with one of several, which stand one after the other in `vectors`.
pub fn best_cosine(vectors: &[f32], text: &[f32]) -> f64 {
    vectors.chunks_exact(text.len()).map(|vector| cosine(vector, text)).fold(-1.0, f64::max)
}

/// Inner product of two unit vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}
