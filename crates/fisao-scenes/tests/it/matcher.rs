//! A plain whole-word matcher, so that captions are judged by their text and not by their own lists.

use std::collections::HashMap;

use fisao_scenes::CATEGORIES;

pub(crate) struct Matcher {
    categories: HashMap<Vec<String>, String>,
    longest: usize,
}

impl Matcher {
    pub(crate) fn new() -> Self {
        let mut categories = HashMap::new();
        for category in CATEGORIES {
            let narrower = category.sprites.iter().filter_map(|sprite| sprite.narrower.as_ref());
            let nouns = std::iter::once(&category.noun).chain(category.synonyms).chain(narrower);
            for form in nouns.flat_map(|noun| [noun.singular, noun.plural]) {
                categories.insert(words(form), category.name().to_owned());
            }
        }
        let longest = categories.keys().map(Vec::len).max().unwrap_or(0);
        Self { categories, longest }
    }

    /// Categories named in the text, in order; the longest form wins.
    pub(crate) fn mentions(&self, text: &str) -> Vec<String> {
        let words = words(text);
        let mut mentions = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let hit = (1..=self.longest.min(words.len() - at))
                .rev()
                .find_map(|length| Some((length, self.categories.get(&words[at..at + length])?)));
            at += hit.map_or(1, |(length, _)| length);
            mentions.extend(hit.map(|(_, category)| category.clone()));
        }
        mentions
    }
}

pub(crate) fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
