//! Words that mean something, found without a lower-cased copy of the text.
//!
//! A word is known by its [`Key`], read from the text in two loads. A table of bits says at once
//! that most words of a text are not listed.

use super::word_keys::Key;
use super::words::{Word, Words};

/// Lower-cased words with what they mean.
#[derive(Clone, Debug)]
pub(crate) struct Lexicon<M> {
    /// Open addressing; at least half of the places are free.
    places: Vec<Place>,
    entries: Vec<(String, M)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    /// Index among the entries, or [`FREE`].
    entry: usize,
}

/// No index among entries.
const FREE: usize = usize::MAX;

impl<M> Default for Lexicon<M> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<M> Lexicon<M> {
    /// Of lower-cased words, each listed once.
    pub(crate) fn new(entries: Vec<(String, M)>) -> Self {
        let size = (2 * entries.len()).next_power_of_two();
        let mut places = vec![Place { key: Key::of_whole(""), entry: FREE }; size];
        for (entry, (word, _)) in entries.iter().enumerate() {
            let key = Key::of_whole(word);
            let mut at = key.hash() as usize & (size - 1);
            while places[at].entry != FREE {
                at = (at + 1) & (size - 1);
            }
            places[at] = Place { key, entry };
        }
        Self { places, entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The words with what they mean, in the order given.
    pub(crate) fn entries(&self) -> &[(String, M)] {
        &self.entries
    }

    /// What a word of a text means, if it is listed.
    #[inline]
    pub(crate) fn get(&self, text: &str, word: Word) -> Option<&M> {
        let key = Key::of(text, word);
        if key.is_ascii(text, word) {
            self.find(key, key.hash(), || word.of(text))
        } else {
            self.get_lower_cased(&word.of(text).to_lowercase())
        }
    }

    /// Lower-casing can turn other letters into ASCII and change a word's length.
    #[cold]
    fn get_lower_cased(&self, word: &str) -> Option<&M> {
        let key = Key::of_whole(word);
        let entry = self.entry(key, key.hash(), |listed| listed == word)?;
        Some(&self.entries[entry].1)
    }

    /// Of a word in ASCII.
    #[inline]
    fn find<'t>(&self, key: Key, hash: u64, word: impl Fn() -> &'t str) -> Option<&M> {
        let same = |listed: &str| key.is_exact() || word().eq_ignore_ascii_case(listed);
        let entry = self.entry(key, hash, same)?;
        Some(&self.entries[entry].1)
    }

    #[inline]
    fn entry(&self, key: Key, hash: u64, same: impl Fn(&str) -> bool) -> Option<usize> {
        let last = self.places.len() - 1;
        let mut at = hash as usize & last;
        loop {
            let place = &self.places[at];
            if place.entry == FREE {
                return None;
            }
            if place.key == key && same(&self.entries[place.entry].0) {
                return Some(place.entry);
            }
            at = (at + 1) & last;
        }
    }
}

/// Bits that say whether a word may be listed: of 2,000 listed words, 3 % of the others pass.
const FILTER_BITS: u32 = 16;
const FILTER_WORDS: usize = 1 << (FILTER_BITS - u64::BITS.ilog2());

/// A lexicon for text in which few words are listed.
#[derive(Clone, Debug)]
pub(crate) struct SparseLexicon<M> {
    filter: Box<[u64; FILTER_WORDS]>,
    lexicon: Lexicon<M>,
}

impl<M> SparseLexicon<M> {
    pub(crate) fn new(lexicon: Lexicon<M>) -> Self {
        let mut filter = Box::new([0; FILTER_WORDS]);
        for (word, _) in lexicon.entries() {
            let (index, bit) = filter_bit(Key::of_whole(word).hash());
            filter[index] |= bit;
        }
        Self { filter, lexicon }
    }

    pub(crate) fn entries(&self) -> &[(String, M)] {
        self.lexicon.entries()
    }

    /// Goes on to the next word that is listed, and says what it means.
    #[inline]
    pub(crate) fn next_in<'a>(&self, text: &'a str, words: &mut Words<'a>) -> Option<(Word, &M)> {
        // A copy can live in registers.
        let mut here = words.clone();
        let found = loop {
            let Some(word) = here.next() else { break None };
            if here.mixed() {
                if let Some(meaning) = self.lexicon.get(text, word) {
                    break Some((word, meaning));
                }
                continue;
            }
            let key = Key::of(text, word);
            let hash = key.hash();
            let (index, bit) = filter_bit(hash);
            if self.filter[index] & bit != 0
                && let Some(meaning) = self.lexicon.find(key, hash, || word.of(text))
            {
                break Some((word, meaning));
            }
        };
        *words = here;
        found
    }
}

#[inline]
fn filter_bit(hash: u64) -> (usize, u64) {
    let top = hash >> (u64::BITS - FILTER_BITS);
    (top as usize / 64, 1 << (top % 64))
}
