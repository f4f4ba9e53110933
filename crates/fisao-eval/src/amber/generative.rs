//! CHAIR, Cover, Hal and Cog of descriptions.

use serde::{Deserialize, Serialize};

use super::data::{AmberData, AmberError, Annotation, Starts, one_decimal, percent};
use super::nouns::{self, Lemmas};
use crate::rates::rate;

/// What the descriptions scored, as fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generative {
    /// Nouns that name nothing there / nouns.
    pub chair: Option<f64>,
    /// Annotated objects named / annotated objects.
    pub cover: Option<f64>,
    /// Descriptions with a noun that names nothing there / descriptions.
    pub hal: Option<f64>,
    /// Likely hallucinations named / likely hallucinations.
    pub cog: Option<f64>,
    /// Nouns of the vocabulary, by occurrence.
    pub nouns: usize,
    /// Those that name nothing there.
    pub hallucinated: usize,
    /// Descriptions.
    pub descriptions: usize,
    /// The numbers as the official script prints them; `None` without descriptions.
    pub official: Option<OfficialDescriptions>,
    /// Every description.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_description: Vec<Description>,
}

/// Percentages with one decimal, over denominators that start at 0.001.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfficialDescriptions {
    /// CHAIR.
    pub chair: f64,
    /// Cover.
    pub cover: f64,
    /// Hal.
    pub hal: f64,
    /// Cog.
    pub cog: f64,
}

/// What one description names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Id of the query.
    pub id: u64,
    /// Nouns of the vocabulary, in order.
    pub nouns: Vec<Noun>,
    /// Annotated objects that count as named.
    pub covered: Vec<String>,
    /// Number of annotated objects.
    pub annotated: usize,
    /// Likely hallucinations that count as named.
    pub likely_named: Vec<String>,
    /// Number of likely hallucinations.
    pub likely: usize,
}

/// A noun and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noun {
    /// As written.
    pub text: String,
    /// The word of the vocabulary it stands for.
    pub word: String,
    /// What it names.
    pub named: Named,
}

/// What a noun names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// One of the words that are never wrong.
    Safe,
    /// Something annotated, or associated with it.
    There,
    /// Something that was expected to be hallucinated, or is associated with it.
    LikelyHallucination,
    /// Something else that is not there.
    Hallucination,
}

impl Description {
    /// Nouns that name nothing there.
    pub(super) fn hallucinated(&self) -> usize {
        self.nouns.iter().filter(|noun| noun.named.is_hallucination()).count()
    }
}

impl Named {
    fn is_hallucination(self) -> bool {
        matches!(self, Self::LikelyHallucination | Self::Hallucination)
    }
}

/// Annotated words and those that may stand for them, in the official order: first what is associated with each
/// word, then the words themselves. The first match counts, even if a later one is the word itself.
struct Targets<'a> {
    words: &'a [String],
    forms: Vec<(&'a str, usize)>,
    named: Vec<bool>,
}

impl<'a> Targets<'a> {
    fn new(id: u64, words: &'a [String], data: &'a AmberData) -> Result<Self, AmberError> {
        let mut forms = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let associated = data.associations.get(word);
            let associated =
                associated.ok_or_else(|| AmberError::NoAssociations { id, word: word.clone() })?;
            forms.extend(associated.iter().map(|form| (form.as_str(), place)));
        }
        forms.extend(words.iter().enumerate().map(|(place, word)| (word.as_str(), place)));
        Ok(Self { words, forms, named: vec![false; words.len()] })
    }

    /// Notes that a word was named, if it is one of them.
    fn name(&mut self, word: &str) -> bool {
        let found = self.forms.iter().find(|(form, _)| *form == word);
        if let Some(&(_, place)) = found {
            self.named[place] = true;
        }
        found.is_some()
    }

    fn named(&self) -> Vec<String> {
        let named = self.words.iter().zip(&self.named).filter(|(_, named)| **named);
        named.map(|(word, _)| word.clone()).collect()
    }
}

/// Judges one description.
pub(super) fn score_response(
    data: &AmberData,
    lemmas: &Lemmas,
    annotation: &Annotation,
    text: &str,
) -> Result<Description, AmberError> {
    let mut truth = Targets::new(annotation.id, &annotation.truth, data)?;
    let mut likely = Targets::new(annotation.id, &annotation.likely, data)?;
    let mut nouns = Vec::new();
    for (text, word) in nouns::nouns(text, lemmas) {
        let named = if data.safe_words.contains(word) {
            Named::Safe
        } else if truth.name(word) {
            Named::There
        } else if likely.name(word) {
            Named::LikelyHallucination
        } else {
            Named::Hallucination
        };
        nouns.push(Noun { text: text.to_owned(), word: word.to_owned(), named });
    }
    Ok(Description {
        id: annotation.id,
        nouns,
        covered: truth.named(),
        annotated: annotation.truth.len(),
        likely_named: likely.named(),
        likely: annotation.likely.len(),
    })
}

/// Sums up.
pub(super) fn summarise(per_description: Vec<Description>, starts: &Starts) -> Generative {
    let sum = |count: &dyn Fn(&Description) -> usize| per_description.iter().map(count).sum();
    let descriptions = per_description.len();
    let nouns: usize = sum(&|description| description.nouns.len());
    let hallucinated: usize = sum(&Description::hallucinated);
    let clean: usize = sum(&|description| usize::from(description.hallucinated() == 0));
    let (covered, annotated) = (sum(&|d| d.covered.len()), sum(&|d| d.annotated));
    let (likely_named, likely) = (sum(&|d| d.likely_named.len()), sum(&|d| d.likely));
    let official = |name: &str, part: usize, whole: usize| {
        let whole = starts.of(&format!("{name}_num")) + whole as f64;
        (starts.of(&format!("{name}_score")) + part as f64) / whole
    };
    Generative {
        chair: rate(hallucinated, nouns),
        cover: rate(covered, annotated),
        hal: rate(descriptions - clean, descriptions),
        cog: rate(likely_named, likely),
        nouns,
        hallucinated,
        descriptions,
        official: (descriptions > 0).then(|| OfficialDescriptions {
            chair: percent(official("chair", hallucinated, nouns)),
            cover: percent(official("safe_cover", covered, annotated)),
            hal: one_decimal(100.0 - official("non_hallu", clean, descriptions) * 100.0),
            cog: percent(official("hallu_cover", likely_named, likely)),
        }),
        per_description,
    }
}
