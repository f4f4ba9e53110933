//! Object categories and the words that name them.

use std::collections::HashMap;

use super::mentions::{Word, words};
use super::plurals::plurals;

/// Categories of objects with their surface forms, ready to be looked for in text.
#[derive(Clone, Debug)]
pub struct ObjectVocabulary {
    categories: Vec<String>,
    /// First word of a form → forms that begin with it, longest first.
    forms: HashMap<String, Vec<Form>>,
}

#[derive(Clone, Debug)]
struct Form {
    words: Vec<String>,
    category: usize,
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
        if entries.is_empty() {
            return Err(VocabularyError::Empty);
        }
        let mut categories: Vec<String> = Vec::with_capacity(entries.len());
        let mut owners: HashMap<Vec<String>, usize> = HashMap::new();
        for (category, forms) in entries {
            if categories.contains(&category) {
                return Err(VocabularyError::DuplicateCategory { category });
            }
            let index = categories.len();
            for form in std::iter::once(&category).chain(&forms) {
                let key: Vec<String> = words(form).into_iter().map(|word| word.text).collect();
                if key.is_empty() {
                    let (category, form) = (category.clone(), form.clone());
                    return Err(VocabularyError::NoWord { category, form });
                }
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
        Ok(Self { categories, forms: index_by_first_word(owners) })
    }

    /// Category names, in the order given.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Number of words and category of the longest form that `words` begin with.
    pub(crate) fn longest_match(&self, words: &[Word]) -> Option<(usize, &str)> {
        let form = self.forms.get(&words.first()?.text)?.iter().find(|form| {
            form.words.len() <= words.len()
                && form.words.iter().zip(words).all(|(form, word)| *form == word.text)
        })?;
        Some((form.words.len(), &self.categories[form.category]))
    }
}

fn index_by_first_word(listed: HashMap<Vec<String>, usize>) -> HashMap<String, Vec<Form>> {
    let mut all = listed.clone();
    let mut listed: Vec<_> = listed.into_iter().collect();
    // Of two categories whose plurals agree the one listed first keeps it, whatever the map's order.
    listed.sort_by(|(a, i), (b, j)| (i, a).cmp(&(j, b)));
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
