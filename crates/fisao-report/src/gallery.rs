//! Images with their captions before and after, every object mention coloured by its score.

use super::html::{escape, marked, number};
use super::verdicts::{heat_map_range, overlay};
use super::{ColouredCaption, DOUBTFUL, GalleryItem, VerifierFacts, WordVerdict, data_url};

/// Scores at the ends and in the middle of the diverging colour scale: full colour at the two
/// class means, no colour at the decision boundary.
#[derive(Clone, Copy, Debug)]
struct ColourScale {
    low: f64,
    middle: f64,
    high: f64,
}

impl ColourScale {
    fn new(facts: &VerifierFacts) -> Self {
        let low = facts.mu_hallucinated.min(facts.mu_correct);
        let high = facts.mu_hallucinated.max(facts.mu_correct);
        let between_thresholds =
            facts.tau_minus.zip(facts.tau_plus).map(|(minus, plus)| f64::midpoint(minus, plus));
        let middle = facts
            .boundary
            .or(between_thresholds)
            .filter(|middle| *middle > low && *middle < high)
            .unwrap_or_else(|| f64::midpoint(low, high));
        Self { low, middle, high }
    }

    /// Side of the scale and strength of the colour in per cent.
    fn colour(&self, score: f64) -> (&'static str, f64) {
        let (side, end) =
            if score >= self.middle { ("correct", self.high) } else { ("hallucinated", self.low) };
        let span = (end - self.middle).abs().max(f64::MIN_POSITIVE);
        let strength = ((score - self.middle).abs() / span * 100.0).clamp(0.0, 100.0);
        (side, if strength.is_finite() { strength } else { 0.0 })
    }
}

/// The legend of the colours.
pub(crate) fn legend(facts: &VerifierFacts) -> String {
    let scale = ColourScale::new(facts);
    format!(
        "<div class=\"scale\"><span>hallucinated mean {}</span><i></i><span>correct mean {}</span>\
         </div>\n<p>Neutral at {}. A mention with a <mark class=\"word absent\">wavy line</mark> names \
         something that is not in the image. Point at a mention for its numbers.</p>",
        number(scale.low, 3),
        number(scale.high, 3),
        number(scale.middle, 3),
    )
}

/// One card for each image.
pub(crate) fn render(items: &[GalleryItem], facts: &VerifierFacts) -> String {
    if items.is_empty() {
        return "<p class=\"empty\">No images were kept.</p>".to_owned();
    }
    let scale = ColourScale::new(facts);
    items.iter().map(|item| card(item, scale)).collect::<Vec<_>>().join("\n")
}

fn card(item: &GalleryItem, scale: ColourScale) -> String {
    let objects: Vec<String> =
        item.truth.iter().map(|name| format!("<li>{}</li>", escape(name))).collect();
    let id = escape(&item.image_id);
    format!(
        "<article class=\"card\">\n<div class=\"image\"><img alt=\"{id}\" \
         src=\"{}\"><code>{id}</code></div>\n<div class=\"captions\">\n\
         {}\n{}{}\n<ul class=\"truth\" aria-label=\"In the image\">{}</ul>\n</div>\n</article>",
        data_url(&item.image),
        caption("before", &item.before, scale),
        caption("after", &item.after, scale),
        heat_maps(item),
        objects.concat(),
    )
}

fn caption(label: &str, caption: &ColouredCaption, scale: ColourScale) -> String {
    let absent = caption.words.iter().filter(|word| word.hallucinated == Some(true)).count();
    let known = caption.words.iter().any(|word| word.hallucinated.is_some());
    let doubtful = caption.words.iter().filter(|word| word.probability < DOUBTFUL).count();
    let count = match (known, absent) {
        (false, _) if doubtful > 0 => format!("<span class=\"worse\">{doubtful} doubtful</span>"),
        (false, _) => String::new(),
        (true, 0) => "<span class=\"better\">nothing hallucinated</span>".to_owned(),
        (true, absent) => format!("<span class=\"worse\">{absent} hallucinated</span>"),
    };
    format!("<h4>{label} {count}</h4>\n<p class=\"caption\">{}</p>", coloured_text(caption, scale))
}

/// Where the verifier sees the words that have a heat map, those of both captions, each category once; nothing where none has.
fn heat_maps(item: &GalleryItem) -> String {
    let Some(view) = &item.verifier_view else { return String::new() };
    let words = item.before.words.iter().chain(&item.after.words);
    let mut words: Vec<&WordVerdict> = words.filter(|word| word.heat_map.is_some()).collect();
    words.sort_by(|a, b| a.category.cmp(&b.category).then(a.probability.total_cmp(&b.probability)));
    words.dedup_by(|a, b| a.category == b.category);
    let range = heat_map_range(words.iter().filter_map(|word| word.heat_map.as_ref()));
    let figures = words.into_iter().filter_map(|word| {
        let map = overlay(word.heat_map.as_ref()?, range);
        Some(format!(
            "<figure><i style=\"display:block;aspect-ratio:1;--map:url({map})\"></i><figcaption>{} <small>p {}</small>\
             </figcaption></figure>",
            escape(&word.category),
            number(word.probability, 2),
        ))
    });
    let figures: String = figures.collect();
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "\n<div class=\"maps\" style=\"--image:url({})\" aria-label=\"Where doubtful words are seen\">{figures}</div>",
        data_url(view)
    )
}

/// The caption's text with its mentions marked.
fn coloured_text(caption: &ColouredCaption, scale: ColourScale) -> String {
    let mut words: Vec<&WordVerdict> = caption.words.iter().collect();
    words.sort_by_key(|word| word.start);
    let words = words.into_iter().map(|word| (word.start..word.end, word));
    marked(&caption.text, words, |text, word| mark(text, word, scale))
}

fn mark(text: &str, word: &WordVerdict, scale: ColourScale) -> String {
    let (side, strength) = scale.colour(word.score);
    let (class, truth) = match word.hallucinated {
        Some(true) => (" absent", "not in the image"),
        Some(false) => ("", "in the image"),
        None => ("", "no annotation"),
    };
    format!(
        "<mark class=\"word {side}{class}\" style=\"--strength:{}%\" title=\"{}: score {}, \
         p(correct) {}, {truth}\">{}</mark>",
        number(strength, 0),
        escape(&word.category),
        number(word.score, 3),
        number(word.probability, 2),
        escape(text),
    )
}
