//! English noun phrases: articles, numbers, plurals, "a pair of".

/// A countable way to name an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noun {
    /// Form for one object, e.g. `"knife"`.
    pub singular: &'static str,
    /// Form for several objects, e.g. `"knives"`.
    pub plural: &'static str,
    /// Counting word (one, several) of nouns that need one: `("pair", "pairs")` of `"skis"`.
    pub unit: Option<(&'static str, &'static str)>,
}

impl Noun {
    pub(crate) const fn new(singular: &'static str, plural: &'static str) -> Self {
        Self { singular, plural, unit: None }
    }

    pub(crate) const fn counted_in(self, one: &'static str, several: &'static str) -> Self {
        Self { unit: Some((one, several)), ..self }
    }

    /// `count` of these with an article or number: "an apple", "two knives", "a pair of skis".
    pub fn counted(&self, count: usize) -> String {
        let quantity = |singular: &str, plural: &str| match count {
            1 => with_article(singular),
            _ => format!("{} {plural}", number_word(count)),
        };
        match self.unit {
            Some((one, several)) => format!("{} of {}", quantity(one, several), self.plural),
            None => quantity(self.singular, self.plural),
        }
    }

    /// The bare noun for `count` objects: "apple", "knives", "pair of skis".
    pub fn bare(&self, count: usize) -> String {
        match (self.unit, count) {
            (Some((one, _)), 1) => format!("{one} of {}", self.plural),
            (Some((_, several)), _) => format!("{several} of {}", self.plural),
            (None, 1) => self.singular.to_owned(),
            (None, _) => self.plural.to_owned(),
        }
    }
}

/// "a" or "an" by the first letter. The world's words have no silent h and no "uni-" with an exception of
/// their own, so the letter decides.
pub(crate) fn with_article(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

fn number_word(count: usize) -> &'static str {
    match count {
        2 => "two",
        3 => "three",
        _ => "several",
    }
}

/// Joins phrases as English does: "x", "x and y", "x, y and z".
pub(crate) fn joined(phrases: &[String]) -> String {
    match phrases {
        [] => String::new(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// The text with its first letter in upper case.
pub(crate) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}
