//! Object categories and the words that name them.

use std::collections::{BTreeSet, HashMap};

use super::plurals::plurals;
use super::spellings::{Meaning, Spelling, Spellings};
use super::words::lower_case_words;

/// Words of the longest form or neutral phrase.
const LONGEST_FORM: usize = 64;

/// Categories of objects with their surface forms, ready to be looked for in text.
#[derive(Clone, Debug)]
pub struct ObjectVocabulary {
    categories: Vec<String>,
    spellings: Spellings,
}

/// A vocabulary that cannot be used as given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
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
    /// A form or a neutral phrase of more words than any name has.
    #[error("'{beginning} …' has {words} words; a form or phrase may have at most {LONGEST_FORM}")]
    TooLong {
        /// How it begins.
        beginning: String,
        /// How many words it has.
        words: usize,
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
                let key: Vec<String> = lower_case_words(form);
                if key.is_empty() {
                    let (category, form) = (category.clone(), form.clone());
                    return Err(VocabularyError::NoWord { category, form });
                }
                check_length(&key)?;
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
                        let meaning = Meaning { form, category: Some(index) };
                        listed.push(Spelling { words: key, meaning });
                    }
                }
            }
            categories.push(category);
        }
        for phrase in neutral {
            let words: Vec<String> = lower_case_words(phrase);
            check_length(&words)?;
            if !words.is_empty() && !owners.contains_key(&words) {
                let form = words.join(" ");
                listed.push(Spelling { words, meaning: Meaning { form, category: None } });
            }
        }
        // Listed forms come first: a generated plural never takes a word from whoever lists it.
        let plurals = listed.iter().flat_map(plural_spellings).collect::<Vec<_>>();
        listed.extend(plurals);
        Ok(Self { categories, spellings: Spellings::new(listed) })
    }

    /// A vocabulary of no objects, which finds nothing: for texts whose objects are not known yet.
    pub fn nothing() -> Self {
        Self { categories: Vec::new(), spellings: Spellings::new(Vec::new()) }
    }

    /// Category names, in the order given.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// Name of a category, by the index a mention carries.
    ///
    /// # Panics
    /// If the index is not one of this vocabulary's.
    pub fn category(&self, index: usize) -> &str {
        &self.categories[index]
    }

    /// Every surface form that a mention can carry with the index of its category, in alphabetical order.
    pub fn forms(&self) -> impl Iterator<Item = (&str, usize)> {
        let meanings = self.spellings.meanings().into_iter();
        let forms = meanings.filter_map(|meaning| Some((meaning.form.as_str(), meaning.category?)));
        forms.collect::<BTreeSet<_>>().into_iter()
    }

    pub(crate) fn spellings(&self) -> &Spellings {
        &self.spellings
    }
}

/// Spellings are searched for word by word, as deep as the longest has words.
fn check_length(words: &[String]) -> Result<(), VocabularyError> {
    if words.len() <= LONGEST_FORM {
        return Ok(());
    }
    let beginning = words[..4].join(" ").chars().take(80).collect();
    Err(VocabularyError::TooLong { beginning, words: words.len() })
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
