//! From words to objects by the reference's rules, every distinct word worked out once.

use std::ops::Range;

use foldhash::{HashMap, HashMapExt as _};

use super::pairs;
use super::singular::singularize;
use super::tokens::{Lowered, Token, each_token};

/// Surface forms as they are listed, each with its category: looked up letter by letter, so a form with a
/// capital or a stray space is never found.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceForms<'v> {
    categories: HashMap<&'v str, usize>,
}

impl<'v> ReferenceForms<'v> {
    /// Of a form listed twice the last entry counts.
    pub(crate) fn new(entries: &'v [(String, Vec<String>)]) -> Self {
        let forms = entries.iter().enumerate().flat_map(|(index, (category, forms))| {
            std::iter::once(category).chain(forms).map(move |form| (form.as_str(), index))
        });
        Self { categories: forms.collect() }
    }
}

/// A word in the singular and what it names.
#[derive(Clone, Debug)]
struct Lexeme {
    singular: Box<str>,
    category: Option<usize>,
    opens_pair: bool,
    part: Part,
}

/// Words that matter to the rule about toilet seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Toilet,
    Seat,
    Neither,
}

/// The distinct words met so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lexicon {
    lexemes: Vec<Lexeme>,
    /// Token → its lexeme.
    tokens: HashMap<Box<str>, usize>,
    /// Two lexemes → the lexeme that they make together, if they do.
    joined: HashMap<(usize, usize), Option<usize>>,
    /// Words of the text at hand.
    words: Vec<(usize, Range<usize>)>,
}

impl Lexicon {
    /// The category of every mention with its bytes in the text, in order.
    pub(crate) fn mentions(
        &mut self,
        text: &str,
        forms: &ReferenceForms,
    ) -> Vec<(usize, Range<usize>)> {
        let lower = Lowered::new(text);
        self.read(&lower, forms);
        // "The seat of the toilet" is no chair, and neither is any other seat then.
        let toilet = self.words.iter().any(|&(at, _)| self.lexemes[at].part == Part::Toilet);
        let named = |(at, span): &(usize, Range<usize>)| {
            let lexeme = &self.lexemes[*at];
            let category = lexeme.category.filter(|_| !toilet || lexeme.part != Part::Seat)?;
            Some((category, lower.origin(span.clone())))
        };
        self.words.iter().filter_map(named).collect()
    }

    /// Fills `words` with the text's words, pairs joined.
    fn read(&mut self, lower: &Lowered, forms: &ReferenceForms) {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let mut open: Option<(usize, Range<usize>)> = None;
        each_token(&lower.text, |token, span| {
            let word = self.lexeme(token, forms);
            if let Some((first, start)) = open.take() {
                if let Some(whole) = self.whole(first, word, forms) {
                    words.push((whole, start.start..span.end));
                    return;
                }
                words.push((first, start));
            }
            if self.lexemes[word].opens_pair {
                open = Some((word, span));
            } else {
                words.push((word, span));
            }
        });
        words.extend(open);
        self.words = words;
    }

    fn lexeme(&mut self, token: &str, forms: &ReferenceForms) -> usize {
        if let Some(&known) = self.tokens.get(token) {
            return known;
        }
        let index = self.add(&singularize(token), forms);
        self.tokens.insert(token.into(), index);
        index
    }

    fn whole(&mut self, first: usize, second: usize, forms: &ReferenceForms) -> Option<usize> {
        if let Some(&known) = self.joined.get(&(first, second)) {
            return known;
        }
        let name = pairs::joined(&self.lexemes[first].singular, &self.lexemes[second].singular);
        let whole = name.map(|name| self.add(name, forms));
        self.joined.insert((first, second), whole);
        whole
    }

    fn add(&mut self, singular: &str, forms: &ReferenceForms) -> usize {
        self.lexemes.push(Lexeme {
            singular: singular.into(),
            category: forms.categories.get(singular).copied(),
            opens_pair: pairs::opens(singular),
            part: match singular {
                "toilet" => Part::Toilet,
                "seat" => Part::Seat,
                _ => Part::Neither,
            },
        });
        self.lexemes.len() - 1
    }
}

/// The words of a text as the reference compares them with its synonyms: in the singular, pairs joined.
pub fn words(text: &str) -> Vec<Token> {
    let lower = Lowered::new(text);
    let mut lexicon = Lexicon::default();
    lexicon.read(&lower, &ReferenceForms { categories: HashMap::new() });
    let words = lexicon.words.iter().map(|(at, span)| Token {
        text: lexicon.lexemes[*at].singular.to_string(),
        span: lower.origin(span.clone()),
    });
    words.collect()
}
