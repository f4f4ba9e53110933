//! `fisao score`: how well words fit an image, by a CLIP's measure.

use std::ops::Range;
use std::path::Path;

use fisao_formats::documents::read_json;
use fisao_formats::images::open_image;
use fisao_models::image::PixelValues;
use fisao_models::llava::Pictures;
use fisao_verifier::calibration::{Calibration, ProbabilityModel};
use fisao_verifier::mentions::ObjectVocabulary;
use fisao_verifier::scorer::Verifier;
use fisao_verifier::templates::Templates;
use owo_colors::OwoColorize;
use serde::Serialize;

use crate::arguments::{Format, ScoreArguments, VocabularyArguments};
use crate::bundle::{LoadedVerifier, verifier_from_arguments};
use crate::output;
use crate::reporter::Reporter;
use crate::tasks::checked_images;
use crate::vocabulary::Vocabulary;

/// From this probability on a word is shown as believed; it is the default target precision of the
/// reward.
const BELIEVED: f64 = 0.9;
/// Below this probability a word is shown as doubted.
const DOUBTED: f64 = 0.5;

/// The scores of one image, as printed.
#[derive(Debug, Serialize)]
struct ScoredImage {
    image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scores: Vec<NameScore>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    captions: Vec<ScoredCaption>,
}

#[derive(Debug, Serialize)]
struct NameScore {
    text: String,
    cosine: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ScoredCaption {
    caption: String,
    pub(super) mentions: Vec<ScoredMention>,
}

#[derive(Debug, Serialize)]
pub(super) struct ScoredMention {
    /// First character in the caption, counted from 0.
    pub(super) start: usize,
    /// Character after the last.
    pub(super) end: usize,
    /// The same in bytes.
    #[serde(skip)]
    bytes: Range<usize>,
    pub(super) text: String,
    pub(super) category: String,
    pub(super) form: String,
    /// Whether the caption says that the object is not there.
    pub(super) negated: bool,
    pub(super) cosine: f64,
    /// That the object is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f64>,
}

/// What turns an image into scores.
pub(super) struct Scorer {
    verifier: Verifier,
    vocabulary: ObjectVocabulary,
    calibration: Option<Calibration>,
}

pub(crate) fn run(arguments: &ScoreArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let images = checked_images(&arguments.images, reporter)?;
    let templates = templates(&arguments.templates);
    let device = arguments.device.open(reporter)?.device;
    let LoadedVerifier { verifier, processor } =
        verifier_from_arguments(arguments.verifier.as_ref(), templates, &device, reporter)?;
    let calibration = arguments.calibration.as_deref();
    let mut scorer = Scorer::new(verifier, &arguments.vocabulary, calibration)?;
    for image in images {
        let embedding = scorer.embed(&processor.process(&open_image(&image.file)?));
        let scored = ScoredImage {
            image: image.file.display().to_string(),
            scores: scorer.names(&embedding, &arguments.texts)?,
            captions: arguments
                .captions
                .iter()
                .map(|caption| scorer.caption(&embedding, caption))
                .collect::<anyhow::Result<_>>()?,
        };
        match arguments.format {
            Format::Text => output::line(in_words(&scored))?,
            Format::Json => output::json(&scored)?,
        }
    }
    Ok(())
}

/// The sentences that were given, or the usual one.
pub(super) fn templates(given: &[String]) -> Templates {
    let mut templates = Templates::default();
    if !given.is_empty() {
        given.clone_into(&mut templates.prompts);
    }
    templates
}

fn characters(text: &str) -> usize {
    text.chars().count()
}

fn read_calibration(path: &Path) -> anyhow::Result<Calibration> {
    let calibration: Calibration = read_json("calibration", path)?;
    calibration.validate()?;
    Ok(calibration)
}

impl Scorer {
    pub(super) fn new(
        verifier: Verifier,
        vocabulary: &VocabularyArguments,
        calibration: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let vocabulary = Vocabulary::from_arguments(vocabulary)?.for_mentions()?;
        let calibration = calibration.map(read_calibration).transpose()?;
        Ok(Self { verifier, vocabulary, calibration })
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    fn embed(&self, image: &PixelValues) -> Vec<f32> {
        let pictures = Pictures::new([image], &self.verifier.model().vision().device());
        self.verifier.embed_images(pictures.whole()).swap_remove(0)
    }

    fn names(&mut self, image: &[f32], names: &[String]) -> anyhow::Result<Vec<NameScore>> {
        self.verifier.learn(names.iter().map(String::as_str))?;
        let score = |name: &String| {
            let cosine = self.verifier.score(image, name);
            NameScore { text: name.clone(), cosine, probability: self.probability(cosine) }
        };
        Ok(names.iter().map(score).collect())
    }

    /// Scores what a caption names against an image's embedding.
    pub(super) fn caption(
        &mut self,
        image: &[f32],
        caption: &str,
    ) -> anyhow::Result<ScoredCaption> {
        // No tokenizer is involved: the whole text counts as one token.
        let whole = 0..caption.len();
        let units = self.vocabulary.units(caption, std::slice::from_ref(&whole));
        self.verifier.learn(units.iter().map(|unit| unit.form.as_str()))?;
        let mentions = units
            .into_iter()
            .map(|unit| {
                let cosine = self.verifier.score(image, &unit.form);
                ScoredMention {
                    start: characters(&caption[..unit.span.start]),
                    end: characters(&caption[..unit.span.end]),
                    bytes: unit.span,
                    text: unit.text,
                    category: self.vocabulary.category(unit.category).to_owned(),
                    form: unit.form,
                    negated: unit.negated,
                    cosine,
                    probability: self.probability(cosine),
                }
            })
            .collect();
        Ok(ScoredCaption { caption: caption.to_owned(), mentions })
    }

    fn probability(&self, cosine: f64) -> Option<f64> {
        let calibration = self.calibration.as_ref()?;
        Some(calibration.probability(cosine, ProbabilityModel::default()))
    }
}

/// The scores of one image for people, with colour codes.
fn in_words(scored: &ScoredImage) -> String {
    let mut lines = vec![scored.image.bold().to_string()];
    for score in &scored.scores {
        let name = coloured(&score.text, score.probability);
        lines.push(format!("  {}  {name}", number(score.cosine, score.probability)));
    }
    for caption in &scored.captions {
        lines.push(format!("  {}", marked(caption, in_colour)));
        for mention in &caption.mentions {
            let name = coloured(&mention.text, mention.probability);
            let denied = if mention.negated { " (denied)" } else { "" };
            let number = number(mention.cosine, mention.probability);
            lines.push(format!("  {number}  {name}{denied}"));
        }
    }
    lines.join("\n")
}

/// The caption with its object words as they are to be shown.
pub(super) fn marked(caption: &ScoredCaption, word: impl Fn(&ScoredMention) -> String) -> String {
    let mut text = String::new();
    let mut at = 0;
    for mention in &caption.mentions {
        text.push_str(&caption.caption[at..mention.bytes.start]);
        text.push_str(&word(mention));
        at = mention.bytes.end;
    }
    text + &caption.caption[at..]
}

fn in_colour(mention: &ScoredMention) -> String {
    coloured(&mention.text, mention.probability)
}

fn number(cosine: f64, probability: Option<f64>) -> String {
    let probability = probability.map_or_else(String::new, |p| format!("  p {p:.2}"));
    format!("{cosine:>7.4}{probability}")
}

/// A word in the colour of its probability; without one only set off by a colour that says neither, for a
/// bare cosine is neither high nor low.
fn coloured(word: &str, probability: Option<f64>) -> String {
    match probability {
        None => word.cyan().to_string(),
        Some(p) if p >= BELIEVED => word.green().to_string(),
        Some(p) if p >= DOUBTED => word.yellow().to_string(),
        Some(_) => word.red().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_marked_where_they_stand() {
        let mention = |bytes: Range<usize>, text: &str, probability| ScoredMention {
            start: bytes.start - 1,
            end: bytes.end - 1,
            bytes,
            text: text.to_owned(),
            category: text.to_owned(),
            form: text.to_owned(),
            negated: false,
            cosine: 0.25,
            probability,
        };
        let caption = ScoredCaption {
            caption: "É um dog and a cat.".to_owned(),
            mentions: vec![mention(6..9, "dog", Some(0.95)), mention(16..19, "cat", Some(0.1))],
        };
        let text = marked(&caption, in_colour);
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), caption.caption);
        assert_eq!(text, format!("É um {} and a {}.", "dog".green(), "cat".red()));
    }
}
