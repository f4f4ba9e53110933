//! `fisao score`: how well words fit an image, by a CLIP's measure.

use fisao_formats::images::open_image;
use fisao_runs::bundle::warn_of_photographs;
use fisao_runs::scorer::{ScoredCaption, ScoredMention, ScoredName, Scorer};
use fisao_runs::tasks::checked_images;
use fisao_runs::vocabulary::Vocabulary;
use fisao_runs::{Reporter, calibrations};
use fisao_verifier::regions::{ImageEmbedding, ScoreUnit};
use owo_colors::OwoColorize;
use serde::Serialize;

use crate::arguments::{Format, ScoreArguments};
use crate::output;
use fisao_report::escaping::one_line;

/// Up to this probability of being hallucinated a word is shown as believed.
const BELIEVED: f64 = 0.1;
/// Up to this probability it is shown as uncertain; above, as doubted.
const DOUBTED: f64 = 0.5;

/// The scores of one image, as printed.
#[derive(Debug, Serialize)]
struct ScoredImage {
    image: String,
    /// What the scores are.
    unit: ScoreUnit,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scores: Vec<NameScore>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    captions: Vec<ScoredCaption>,
}

#[derive(Debug, Serialize)]
struct NameScore {
    text: String,
    /// What was compared with the image: the text in the verifier's templates.
    sentences: Vec<String>,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_hallucinated: Option<f64>,
}

pub(crate) fn run(arguments: &ScoreArguments, reporter: &Reporter) -> anyhow::Result<()> {
    let images = checked_images(&arguments.images, arguments.damaged.images(), reporter)?;
    let calibration = arguments.calibration.as_deref().map(calibrations::read).transpose()?;
    let settings = arguments.scoring.resolve(calibration.as_ref());
    let source = arguments.verifier.source();
    let embedded = source.is_embedded();
    let words = Vocabulary::chosen(arguments.vocabulary.named(), embedded, calibration.as_ref())?;
    warn_of_photographs(embedded, images.iter().map(|image| image.size), reporter);
    let opened = arguments.device.open(reporter)?;
    let loaded = source.open(settings, &opened, reporter)?;
    let mut scorer = Scorer::new(&loaded, &words, calibration, reporter)?;
    for image in images {
        let embedding = scorer.embed(&loaded.views.of(&open_image(&image.file)?))?;
        let scored = ScoredImage {
            image: image.file.display().to_string(),
            unit: loaded.verifier.unit(),
            scores: names(&mut scorer, &embedding, &arguments.texts)?,
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

fn names(
    scorer: &mut Scorer,
    image: &ImageEmbedding,
    names: &[String],
) -> anyhow::Result<Vec<NameScore>> {
    let score = |name: &String| {
        let ScoredName { sentences, score, p_hallucinated } = scorer.name(image, name)?;
        Ok(NameScore { text: name.clone(), sentences, score, p_hallucinated })
    };
    names.iter().map(score).collect()
}

/// The scores of one image for people, with colour codes.
fn in_words(scored: &ScoredImage) -> String {
    let mut lines = vec![one_line(&scored.image).bold().to_string()];
    for score in &scored.scores {
        let name = coloured(&score.text, score.p_hallucinated);
        let sentences = score.sentences.join(" | ");
        let number = number(score.score, score.p_hallucinated);
        lines.push(format!("  {number}  {name}  {}", sentences.dimmed()));
    }
    for caption in &scored.captions {
        let text = caption.marked(in_colour).replace(['\n', '\r'], " ");
        lines.push(format!("  {text}"));
        for mention in &caption.mentions {
            let name = coloured(&mention.text, mention.p_hallucinated);
            let denied = if mention.negated { " (denied)" } else { "" };
            let number = number(mention.score, mention.p_hallucinated);
            lines.push(format!("  {number}  {name}{denied}"));
        }
    }
    lines.join("\n")
}

fn in_colour(mention: &ScoredMention) -> String {
    coloured(&mention.text, mention.p_hallucinated)
}

fn number(score: f64, p_hallucinated: Option<f64>) -> String {
    let probability =
        p_hallucinated.map_or_else(String::new, |p| format!("  p(hallucinated) {p:.2}"));
    format!("{score:>7.4}{probability}")
}

/// A word in the colour of its probability; without one only set off by a colour that says neither, for a
/// bare score is neither high nor low.
fn coloured(word: &str, p_hallucinated: Option<f64>) -> String {
    match p_hallucinated {
        None => word.cyan().to_string(),
        Some(p) if p <= BELIEVED => word.green().to_string(),
        Some(p) if p <= DOUBTED => word.yellow().to_string(),
        Some(_) => word.red().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    #[test]
    fn mentions_are_coloured_at_their_spans() {
        let mention = |bytes: Range<usize>, text: &str, p_hallucinated| ScoredMention {
            start: bytes.start - 1,
            end: bytes.end - 1,
            bytes,
            text: text.to_owned(),
            category: text.to_owned(),
            form: text.to_owned(),
            description: None,
            contrasted: Vec::new(),
            negated: false,
            score: 0.25,
            p_hallucinated,
        };
        let caption = ScoredCaption {
            caption: "É um dog and a cat.".to_owned(),
            mentions: vec![mention(6..9, "dog", Some(0.05)), mention(16..19, "cat", Some(0.9))],
        };
        let text = caption.marked(in_colour);
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), caption.caption);
        assert_eq!(text, format!("É um {} and a {}.", "dog".green(), "cat".red()));
    }
}
