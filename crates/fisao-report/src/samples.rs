//! The page of samples: what the policy says of some images after so many iterations.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::html::{escape, fill, page};
use super::verdicts::{VerdictWord, coloured};

/// A caption that the policy wrote.
#[derive(Debug)]
pub struct Sample {
    /// The image as a PNG file, if it is to be shown.
    pub image_png: Option<Vec<u8>>,
    /// What the policy was asked.
    pub prompt: String,
    /// What it answered.
    pub caption: String,
    /// Object mentions of the answer, in order.
    pub words: Vec<VerdictWord>,
}

/// Samples after `done` iterations as one page, which makes no request to anywhere.
pub fn samples_page(done: usize, samples: &[Sample]) -> String {
    let title = match done {
        0 => "Samples before training".to_owned(),
        done => format!("Samples after iteration {done}"),
    };
    let cards: Vec<String> =
        samples.iter().enumerate().map(|(index, sample)| card(index + 1, sample)).collect();
    let values = [("title", title.clone()), ("cards", cards.join("\n"))];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    let main = fill(include_str!("samples.html").trim_end(), &values);
    page(&title, &main)
}

fn card(number: usize, sample: &Sample) -> String {
    let image = sample.image_png.as_ref().map_or_else(String::new, |png| {
        let png = STANDARD.encode(png);
        format!("<img alt=\"image {number}\" src=\"data:image/png;base64,{png}\">")
    });
    format!(
        "<article class=\"card\">\n<div class=\"image\">{image}</div>\n<div><h4>{}</h4>\n\
         <p class=\"caption\">{}</p></div>\n</article>",
        escape(&sample.prompt),
        coloured(&sample.caption, &sample.words),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let word = |start: usize, category: &str, p: f64| VerdictWord {
            bytes: start..start + category.len(),
            category: category.to_owned(),
            negated: false,
            score: 0.25,
            p_hallucinated: Some(p),
            hallucinated: Some(p >= 0.5),
            heat_map: None,
        };
        Sample {
            image_png: Some(vec![0, 1, 2]),
            prompt: "<b>Describe</b>".into(),
            caption: "A dog & a cat.".into(),
            words: vec![word(2, "dog", 0.1), word(10, "cat", 0.9)],
        }
    }

    #[test]
    fn sample_page_marks_mentions_and_escapes_text() {
        let page = samples_page(20, &[sample(), Sample { image_png: None, ..sample() }]);
        let body = page.split_once("<body>").expect("the page has a body").1;
        insta::assert_snapshot!(body);
    }

    #[test]
    fn samples_of_the_base_model_are_named_as_such() {
        let page = samples_page(0, &[sample()]);
        assert!(page.contains("<h1>Samples before training</h1>"), "{page}");
    }

    #[test]
    fn sample_page_loads_no_external_resources() {
        let page = samples_page(20, &[sample()]);
        assert!(!page.contains("{{"), "a placeholder has no value");
        for fetch in ["http://", "https://", "url(", "<script", "<link", "@import", "srcset"] {
            assert!(!page.contains(fetch), "the page contains {fetch}");
        }
    }
}
