//! Object categories and the words that name them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::mentions::{Word, words};
use super::plurals::plurals;
use crate::digest;

/// Categories of objects with their surface forms, ready to be looked for in text.
#[derive(Clone, Debug)]
pub struct ObjectVocabulary {
    categories: Vec<String>,
    /// As given.
    entries: Vec<(String, Vec<String>)>,
    /// Names that hold an object's name and mean no object.
    neutral: Vec<String>,
    /// First word of a form → forms that begin with it, longest first.
    forms: HashMap<String, Vec<Form>>,
}

#[derive(Clone, Debug)]
struct Form {
    words: Vec<String>,
    /// `None` for a name that means no object.
    category: Option<usize>,
}

/// A vocabulary that cannot be used as given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VocabularyError {
    /// No categories at all.
    #[error("the object vocabulary is empty; give at least one category")]
    Empty,
    /// The same category twice.
    #[error("category '{category}' is listed twice; merge its surface forms into one entry")]
    DuplicateCategory {
        /// The repeated name.
        category: String,
    },
    /// A form without a single letter or digit.
    #[error("category '{category}' has the surface form '{form}', which holds no word; remove it")]
    NoWord {
        /// Category that lists the form.
        category: String,
        /// The form as given.
        form: String,
    },
    /// One form for two categories.
    #[error("'{form}' names both '{first}' and '{second}'; keep it under one of them")]
    Ambiguous {
        /// The form as read, lower-cased.
        form: String,
        /// Category that listed it first.
        first: String,
        /// Category that listed it again.
        second: String,
    },
}

impl ObjectVocabulary {
    /// Builds the matcher from (category, surface forms). The category's own name is always a
    /// form; plurals of every form are added unless another category lists that plural itself.
    ///
    /// # Errors
    /// An empty vocabulary, a repeated category, a form without a word, or a form given to two
    /// categories.
    pub fn new(entries: Vec<(String, Vec<String>)>) -> Result<Self, VocabularyError> {
        Self::with_neutral(entries, Vec::new())
    }

    /// The same, with phrases that hold the name of an object and mean none, like "train tracks" or "bus
    /// stop": strict rules pass over them. A phrase that is also a form of a category stays that form.
    ///
    /// # Errors
    /// As [`Self::new`]; a phrase without a word.
    pub fn with_neutral(
        entries: Vec<(String, Vec<String>)>,
        neutral: Vec<String>,
    ) -> Result<Self, VocabularyError> {
        if entries.is_empty() {
            return Err(VocabularyError::Empty);
        }
        let mut categories: Vec<String> = Vec::with_capacity(entries.len());
        let mut owners: HashMap<Vec<String>, usize> = HashMap::new();
        for (category, forms) in &entries {
            let category = category.clone();
            if categories.contains(&category) {
                return Err(VocabularyError::DuplicateCategory { category });
            }
            let index = categories.len();
            for form in std::iter::once(&category).chain(forms) {
                let key = key(&category, form)?;
                match owners.get(&key) {
                    Some(&owner) if owner != index => {
                        return Err(VocabularyError::Ambiguous {
                            form: key.join(" "),
                            first: categories[owner].clone(),
                            second: category,
                        });
                    }
                    _ => owners.insert(key, index),
                };
            }
            categories.push(category);
        }
        let phrases = neutral.iter().map(|phrase| key("", phrase)).collect::<Result<_, _>>()?;
        let forms = index_by_first_word(owners, phrases);
        Ok(Self { categories, entries, neutral, forms })
    }

    /// Category names, in the order given.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Categories with their surface forms, as given.
    pub fn entries(&self) -> &[(String, Vec<String>)] {
        &self.entries
    }

    /// Phrases that hold an object's name and mean no object, as given.
    pub fn neutral(&self) -> &[String] {
        &self.neutral
    }

    /// The category that a name means: its own name, or one of its forms.
    pub fn category_of(&self, name: &str) -> Option<&str> {
        let own = self.categories.iter().position(|category| category == name);
        let index = own.or_else(|| {
            let words = words(name);
            let (length, category) = self.longest_match(&words, |_| true)?;
            category.filter(|_| length == words.len())
        })?;
        Some(&self.categories[index])
    }

    /// SHA-256 of the vocabulary in hexadecimal, whatever the order it was listed in: equal for two reports
    /// exactly when the same words stood for the same categories. It is the digest of a JSON list of two: an
    /// object from category to forms, and the phrases that name nothing, all sorted, without repetition or
    /// spaces.
    pub fn sha256(&self) -> String {
        let sorted: BTreeMap<&str, BTreeSet<&str>> = self
            .entries
            .iter()
            .map(|(category, forms)| {
                (category.as_str(), forms.iter().map(String::as_str).collect())
            })
            .collect();
        let neutral: BTreeSet<&str> = self.neutral.iter().map(String::as_str).collect();
        // Text and maps of text always become JSON.
        digest::of_text(&serde_json::json!([sorted, neutral]).to_string())
    }

    /// Number of words and category of the longest form that `words` begin with, of those whose number of
    /// words `joined` lets stand together; no category for a form that names nothing.
    pub(crate) fn longest_match(
        &self,
        words: &[Word],
        joined: impl Fn(usize) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let form = self.forms.get(&*words.first()?.text)?.iter().find(|form| {
            form.words.len() <= words.len()
                && form.words.iter().zip(words).all(|(form, word)| *form == word.text)
                && joined(form.words.len())
        })?;
        Some((form.words.len(), form.category))
    }
}

/// The words of a form, lower-cased.
fn key(category: &str, form: &str) -> Result<Vec<String>, VocabularyError> {
    let key: Vec<String> = words(form).into_iter().map(|word| word.text.into_owned()).collect();
    let (category, form) = (category.to_owned(), form.to_owned());
    if key.is_empty() { Err(VocabularyError::NoWord { category, form }) } else { Ok(key) }
}

fn index_by_first_word(
    listed: HashMap<Vec<String>, usize>,
    neutral: Vec<Vec<String>>,
) -> HashMap<String, Vec<Form>> {
    let mut all: HashMap<_, _> =
        listed.iter().map(|(form, &category)| (form.clone(), Some(category))).collect();
    let mut listed: Vec<_> =
        listed.into_iter().map(|(form, category)| (form, Some(category))).collect();
    // Of two categories whose plurals agree the one listed first keeps it, whatever the map's order.
    listed.sort_by(|(a, i), (b, j)| (i, a).cmp(&(j, b)));
    for phrase in neutral {
        all.entry(phrase.clone()).or_insert(None);
        listed.push((phrase, None));
    }
    for (form, category) in listed {
        for plural in plural_forms(&form) {
            all.entry(plural).or_insert(category);
        }
    }
    let mut forms: HashMap<String, Vec<Form>> = HashMap::new();
    for (words, category) in all {
        forms.entry(words[0].clone()).or_default().push(Form { words, category });
    }
    for group in forms.values_mut() {
        group.sort_by_key(|form| std::cmp::Reverse(form.words.len()));
    }
    forms
}

/// Plurals of a name of one or more words: its last word ("traffic lights") and, in an "of" name,
/// its head too ("glasses of wine").
fn plural_forms(form: &[String]) -> Vec<Vec<String>> {
    let mut heads = vec![form.len() - 1];
    if let Some(of @ 1..) = form.iter().position(|word| word == "of") {
        heads.push(of - 1);
    }
    let plural_at = |head: usize| {
        plurals(&form[head]).into_iter().map(move |plural| {
            let mut words = form.to_vec();
            words[head] = plural;
            words
        })
    };
    heads.into_iter().flat_map(plural_at).collect()
}
