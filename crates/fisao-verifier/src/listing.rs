//! Object vocabularies as plain text, and the built-in one.
//!
//! ```text
//! # comment
//! couch, sofa, settee        one category a line, then its surface forms
//! hot dog                    # comment behind white space
//!
//! [neutral]                  from here on: phrases that hold a form and mean no object
//! couch potato
//! ```
//!
//! A list of names, one a line, is such a file, and so are CHAIR's synonyms. Plurals need not be listed, see
//! [`ObjectVocabulary`](crate::mentions::ObjectVocabulary).

/// The line that begins the neutral phrases.
const NEUTRAL: &str = "[neutral]";

/// Categories with their surface forms, in the order listed, and neutral phrases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// (category, forms); the category's own name is not among the forms.
    pub entries: Vec<(String, Vec<String>)>,
    /// Phrases that hold an object's name and mean no object.
    pub neutral: Vec<String>,
}

/// A line that lists nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} begins with a comma, so it names no category; write the category first")]
pub struct ListingError {
    /// Counted from 1.
    pub line: usize,
}

impl Listing {
    /// Reads a listing.
    ///
    /// # Errors
    /// A line whose category is empty.
    pub fn parse(text: &str) -> Result<Self, ListingError> {
        let mut listing = Self::default();
        let mut neutral = false;
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = without_comment(line).trim();
            if line.is_empty() {
                continue;
            }
            if line == NEUTRAL {
                neutral = true;
            } else if neutral {
                listing.neutral.push(line.to_owned());
            } else {
                let mut forms = line.split(',').map(|form| form.trim().to_owned());
                let category = forms.next().filter(|category| !category.is_empty());
                let category = category.ok_or(ListingError { line: index + 1 })?;
                let forms = forms.filter(|form| !form.is_empty()).collect();
                listing.entries.push((category, forms));
            }
        }
        Ok(listing)
    }

    /// The built-in list of several hundred everyday things, COCO's 80 among them.
    pub fn everyday() -> Self {
        Self::parse(include_str!("../data/everyday.txt")).expect("the built-in list can be read")
    }
}

/// A line up to the first # at its beginning or behind white space.
fn without_comment(line: &str) -> &str {
    let begins = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(begins);
    &line[..comment.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mentions::ObjectVocabulary;

    #[test]
    fn listing_lines_are_categories_followed_by_neutral_phrases() {
        let text = "\u{feff}# furniture\ncouch,sofa , settee,\n\n hot dog # eaten\n # c\n[neutral]\ncouch potato\n";
        let listing = Listing::parse(text).unwrap();
        let couch = ("couch".to_owned(), vec!["sofa".to_owned(), "settee".to_owned()]);
        assert_eq!(listing.entries, [couch, ("hot dog".to_owned(), Vec::new())]);
        assert_eq!(listing.neutral, ["couch potato"]);
        assert_eq!(Listing::parse("a\n, b"), Err(ListingError { line: 2 }));
    }

    #[test]
    fn everyday_vocabulary_is_large_and_unambiguous() {
        let Listing { entries, neutral } = Listing::everyday();
        assert!(entries.len() >= 500, "{} categories", entries.len());
        let vocabulary = ObjectVocabulary::with_neutral(entries, &neutral).unwrap();
        let names = |text: &str| -> Vec<String> {
            let mentions = vocabulary.token_mentions(text, std::slice::from_ref(&(0..text.len())));
            mentions
                .iter()
                .map(|mention| vocabulary.category(mention.category).to_owned())
                .collect()
        };
        assert_eq!(
            names("Two kittens sleep on a sofa next to a glass of wine and hot dogs."),
            ["cat", "couch", "wine glass", "hot dog"]
        );
        assert!(names("You can watch the train of thought of a couch potato.").is_empty());
    }
}
