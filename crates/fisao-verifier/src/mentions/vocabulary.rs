//! Object categories and the words that name them.

use std::collections::HashMap;
use std::ops::Range;

use super::plurals::plurals;
use super::words::{Word, joins, words};

/// Categories of objects with their surface forms, ready to be looked for in text.
#[derive(Clone, Debug)]
pub struct ObjectVocabulary {
    categories: Vec<String>,
    /// First word of a spelling → spellings that begin with it, longest first.
    spellings: HashMap<String, Vec<Spelling>>,
}

/// A surface form or one of its plurals.
#[derive(Clone, Debug)]
struct Spelling {
    words: Vec<String>,
    form: String,
    /// `None` for a phrase that holds an object's name and means no object.
    category: Option<usize>,
}

/// Words of a text that name a category.
#[derive(Debug)]
pub(crate) struct Match<'a> {
    pub(crate) words: Range<usize>,
    pub(crate) category: usize,
    pub(crate) form: &'a str,
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
    /// form; plurals of every form are added unless some category lists that plural itself.
    ///
    /// # Errors
    /// An empty vocabulary, a repeated category, a form without a word, or a form given to two
    /// categories.
    pub fn new(entries: Vec<(String, Vec<String>)>) -> Result<Self, VocabularyError> {
        Self::with_neutral(entries, &[])
    }

    /// The same with phrases that hold an object's name and mean no object, such as "baby blanket": where one is the
    /// longest match, nothing is named. A phrase that some category lists stays that category's.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn with_neutral(
        entries: Vec<(String, Vec<String>)>,
        neutral: &[String],
    ) -> Result<Self, VocabularyError> {
        if entries.is_empty() {
            return Err(VocabularyError::Empty);
        }
        let mut categories: Vec<String> = Vec::with_capacity(entries.len());
        let mut listed: Vec<Spelling> = Vec::new();
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
                match owners.insert(key.clone(), index) {
                    Some(owner) if owner != index => {
                        return Err(VocabularyError::Ambiguous {
                            form: key.join(" "),
                            first: categories[owner].clone(),
                            second: category,
                        });
                    }
                    Some(_) => {}
                    None => {
                        let form = key.join(" ");
                        listed.push(Spelling { words: key, form, category: Some(index) });
                    }
                }
            }
            categories.push(category);
        }
        for phrase in neutral {
            let words: Vec<String> = words(phrase).into_iter().map(|word| word.text).collect();
            if !words.is_empty() && !owners.contains_key(&words) {
                let form = words.join(" ");
                listed.push(Spelling { words, form, category: None });
            }
        }
        Ok(Self { categories, spellings: index_by_first_word(listed) })
    }

    /// Category names, in the order given.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Name of a category, by the index a unit carries.
    ///
    /// # Panics
    /// If the index is not one of this vocabulary's.
    pub fn category(&self, index: usize) -> &str {
        &self.categories[index]
    }

    /// Maximal mentions in order, leftmost and longest first.
    pub(crate) fn matches(&self, text: &str, words: &[Word]) -> Vec<Match<'_>> {
        let mut matches = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let joined = 1 + words[at..]
                .windows(2)
                .take_while(|pair| joins(&text[pair[0].span.end..pair[1].span.start]))
                .count();
            let Some(spelling) = self.longest(&words[at..at + joined]) else {
                at += 1;
                continue;
            };
            let end = at + spelling.words.len();
            let form = spelling.form.as_str();
            let found = spelling.category.map(|category| Match { words: at..end, category, form });
            matches.extend(found);
            at = end;
        }
        matches
    }

    fn longest(&self, words: &[Word]) -> Option<&Spelling> {
        self.spellings.get(&words.first()?.text)?.iter().find(|spelling| {
            spelling.words.len() <= words.len()
                && spelling.words.iter().zip(words).all(|(expected, word)| *expected == word.text)
        })
    }
}

fn index_by_first_word(listed: Vec<Spelling>) -> HashMap<String, Vec<Spelling>> {
    let plurals = listed.iter().flat_map(plural_spellings).collect::<Vec<_>>();
    let mut spellings: HashMap<String, Vec<Spelling>> = HashMap::new();
    // Listed forms come first: a generated plural never takes a word from whoever lists it.
    for spelling in listed.into_iter().chain(plurals) {
        let group = spellings.entry(spelling.words[0].clone()).or_default();
        if group.iter().all(|known| known.words != spelling.words) {
            group.push(spelling);
        }
    }
    for group in spellings.values_mut() {
        group.sort_by_key(|spelling| std::cmp::Reverse(spelling.words.len()));
    }
    spellings
}

/// Plurals of a name of one or more words: its last word ("traffic lights") and, in an "of" name,
/// its head too ("glasses of wine").
fn plural_spellings(form: &Spelling) -> Vec<Spelling> {
    let mut heads = vec![form.words.len() - 1];
    if let Some(of @ 1..) = form.words.iter().position(|word| word == "of") {
        heads.push(of - 1);
    }
    let plural_at = |head: usize| {
        plurals(&form.words[head]).into_iter().map(move |plural| {
            let mut spelling = form.clone();
            spelling.words[head] = plural;
            spelling
        })
    };
    heads.into_iter().flat_map(plural_at).collect()
}
