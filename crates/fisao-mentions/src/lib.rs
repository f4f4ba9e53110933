//! Text → mentions: the objects a response names and the tokens that spell them.
//!
//! Mentions are found on words, never on sub-word pieces, and mapped back to tokens through the byte
//! range each token spelled; so the same response gives the same mentions under any tokenizer.
//!
//! # Rules
//!
//! 1. A word is a maximal run of letters, digits and combining accents (U+0300 to U+036F), compared
//!    in lower case. An apostrophe ends it: "dog's" names a dog.
//! 2. Words form one name where nothing but white space, hyphens (-, U+2010, U+2011) and underscores
//!    stands between them: "hot-dog" reads like "hot dog", "car, seat" does not like "car seat".
//! 3. From left to right, at each word the longest spelling that fits is taken, and the search goes
//!    on behind it. So what lies in a longer name ("hot dog") or reaches into it is not named.
//! 4. Neutral phrases ("baby blanket") take part in 3 and name nothing.
//! 5. Plurals of all forms are spellings too, but for those that some category or neutral phrase
//!    lists: what is listed means what it is listed under.
//! 6. A mention may be denied; see `negation.rs` for the rules.
//!
//! # Speed
//!
//! Most words of a text name nothing, and cost a few instructions each: masks of 64 bytes tell where
//! words are (`blocks.rs`, `words.rs`), two loads make a number of a word (`word_keys.rs`), and a
//! table of bits says that none of the listed names begins with it (`lexicon.rs`). Only words that
//! pass are compared, and words that are not ASCII are lower-cased as Unicode has it. What lies
//! before a mention is read only where a word that denies went by. `benches/mentions.rs` measures.
#![doc = include_str!("../README.md")]

mod blocks;
mod letters;
mod lexicon;
mod negation;
mod nouns;
mod plurals;
mod spellings;
mod tokens;
mod vocabulary;
mod word_keys;
mod words;

use std::ops::Range;

use negation::Place;
pub use nouns::{NameKind, NounName, descriptions, noun_names};
pub use plurals::plurals;
use spellings::Found;
use tokens::SpellingTokens;
pub use vocabulary::{ObjectVocabulary, VocabularyError};
use words::Words;

/// One maximal mention of an object category in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention<'v> {
    /// Index of the category; [`ObjectVocabulary::category`] gives its name.
    pub category: usize,
    /// Surface form of the vocabulary that matched, before the plural: "traffic light" for
    /// "Traffic lights".
    pub form: &'v str,
    /// Bytes of the text that name the object.
    pub span: Range<usize>,
    /// Whether the text says that the object is *not* there.
    pub negated: bool,
}

/// One maximal mention of an object category in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMention {
    /// Index of the category; [`ObjectVocabulary::category`] gives its name.
    pub category: usize,
    /// Surface form of the vocabulary that matched, before the plural: "traffic light" for
    /// "Traffic lights". What a prompt template takes.
    pub form: String,
    /// The words, as written.
    pub text: String,
    /// Bytes of the response that name the object.
    pub span: Range<usize>,
    /// Tokens that spell it: first to last token whose bytes meet `span`. Never empty.
    pub tokens: Range<usize>,
    /// Whether the response says that the object is *not* there ("no dog", "without a car"). Such
    /// a mention claims nothing the image could confirm and takes no part in scoring.
    pub negated: bool,
    /// How the response [describes](descriptions) it, where that was asked for: "small brown {}".
    pub description: Option<String>,
}

impl ObjectVocabulary {
    /// Objects a text names, in order and without overlap: at each word the longest surface form
    /// that fits wins. Nothing is allocated, unless a word holds other than ASCII.
    pub fn mentions<'a>(&'a self, text: &'a str) -> Mentions<'a> {
        Mentions { vocabulary: self, text, words: Words::new(text), earlier: None }
    }

    /// What a text that is a name and nothing else names.
    pub fn mention_of<'a>(&'a self, name: &'a str) -> Option<Mention<'a>> {
        self.mentions(name).find(|mention| mention.span == (0..name.len()))
    }

    /// Up to which byte of a text its [mentions](Self::mentions) stay what they are, whatever is appended to it: one that begins
    /// before it is complete, one that begins there or later may still become longer or vanish. Whether a mention is negated may
    /// still change.
    pub fn settled(&self, text: &str) -> usize {
        self.spellings().settled(text)
    }

    /// Mentions of a decoded response, in order and without overlap: at each word the longest surface
    /// form that fits wins. `spans[t]` are the bytes of `text` that token `t` spelled, empty for
    /// tokens that spell nothing; a mention that no token spelled is not a mention.
    pub fn token_mentions(&self, text: &str, spans: &[Range<usize>]) -> Vec<TokenMention> {
        let mut tokens = None;
        let locate = |mention: Mention| {
            let tokens = tokens.get_or_insert_with(|| SpellingTokens::new(spans));
            Some(TokenMention {
                category: mention.category,
                form: mention.form.to_owned(),
                text: text[mention.span.clone()].to_owned(),
                tokens: tokens.meeting(&mention.span)?,
                span: mention.span,
                negated: mention.negated,
                description: None,
            })
        };
        self.mentions(text).filter_map(locate).collect()
    }
}

/// Says of every mention of a text how the text [describes](descriptions) it.
pub fn describe(text: &str, mentions: &mut [TokenMention]) {
    let spans: Vec<Range<usize>> = mentions.iter().map(|mention| mention.span.clone()).collect();
    for (mention, description) in mentions.iter_mut().zip(descriptions(text, &spans)) {
        mention.description = description;
    }
}

/// Mentions of a text, as [`ObjectVocabulary::mentions`] finds them.
#[derive(Clone, Debug)]
pub struct Mentions<'a> {
    vocabulary: &'a ObjectVocabulary,
    text: &'a str,
    words: Words<'a>,
    /// Where the mention before ended, and whether it was negated.
    earlier: Option<(usize, bool)>,
}

impl<'a> Iterator for Mentions<'a> {
    type Item = Mention<'a>;

    fn next(&mut self) -> Option<Mention<'a>> {
        let spellings = self.vocabulary.spellings();
        let mut denial = false;
        loop {
            let found = spellings.next_in(self.text, &mut self.words, &mut denial)?;
            let Found { first, end, meaning } = found;
            let Some(category) = meaning.category else {
                // Its words went by unseen.
                denial = true;
                continue;
            };
            let place = Place {
                text: self.text,
                first,
                end,
                following: &self.words,
                earlier: self.earlier,
            };
            let may_be = denial || self.earlier.is_some_and(|(_, denied)| denied);
            let before = may_be && place.is_denied_before();
            let negated = before || place.is_denied_after();
            self.earlier = Some((end, before));
            let span = first.start..end;
            return Some(Mention { category, form: &meaning.form, span, negated });
        }
    }
}
