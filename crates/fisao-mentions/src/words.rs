//! Words of a text, as byte ranges.
//!
//! A word is a maximal run of letters, digits and combining accents. An apostrophe or a hyphen ends
//! it: "dog's" names a dog and "hot-dog" reads like "hot dog".
//!
//! Text is read in blocks of 64 bytes, each as a mask of the bytes that belong to words; where the
//! mask changes a word begins or ends. So the cost hardly depends on the letters, and no branch
//! waits for the end of a word, which cannot be foreseen.

use super::blocks::{BLOCK, Block};
use super::letters::is_word_letter;

/// Bytes of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) start: usize,
    /// Past the last byte.
    pub(crate) end: usize,
}

impl Word {
    pub(crate) fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }
}

/// Words of a text from left to right. A clone is cheap and looks ahead.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    text: &'a str,
    /// Where this block begins.
    block: usize,
    /// Where the next word begins, if it begins in this block or an earlier one.
    start: usize,
    /// Bits of this block where the words after that one begin.
    starts: u64,
    /// Bits of this block past the last byte of a word, from the next word on.
    ends: u64,
    /// Whether the last byte of this block belongs to a word.
    open: bool,
    /// Bytes of the block after this one that belong to the last letter of this one.
    spill: u64,
    /// Whether a block that the current word touches holds other than ASCII.
    mixed: bool,
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let before = Self {
            text,
            block: 0,
            start: 0,
            starts: 0,
            ends: 0,
            open: false,
            spill: 0,
            mixed: false,
        };
        before.reading(0)
    }

    /// Whether the word that came last can hold other than ASCII. May be true in vain.
    #[inline]
    pub(crate) fn mixed(&self) -> bool {
        self.mixed
    }

    /// The same with the block that begins at `start`.
    #[inline]
    fn reading(self, start: usize) -> Self {
        let mut block = Block::read(self.text.as_bytes(), start);
        let mut spill = 0;
        if block.other != 0 {
            (block, spill) = block.with_letters(self.text, start, self.spill);
        }
        let before = (block.word << 1) | u64::from(self.open);
        let starts = block.word & !before;
        Self {
            block: start,
            start: if self.open { self.start } else { start + starts.trailing_zeros() as usize },
            starts: if self.open { starts } else { without_lowest(starts) },
            ends: before & !block.word,
            open: block.word >> (BLOCK - 1) != 0,
            spill,
            // What a word began in an earlier block holds stays in mind until it ends.
            mixed: self.mixed && self.open || block.other != 0,
            ..self
        }
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    #[inline]
    fn next(&mut self) -> Option<Word> {
        while self.ends == 0 {
            let next = self.block + BLOCK;
            // An empty block after the last byte ends the word there.
            if next > self.text.len() {
                return None;
            }
            *self = self.clone().reading(next);
        }
        let end = self.block + self.ends.trailing_zeros() as usize;
        self.ends = without_lowest(self.ends);
        let word = Word { start: self.start, end };
        self.start = self.block + self.starts.trailing_zeros() as usize;
        self.starts = without_lowest(self.starts);
        Some(word)
    }
}

#[inline]
fn without_lowest(bits: u64) -> u64 {
    bits & bits.wrapping_sub(1)
}

/// The last word that ends at or before `end`, which lies between two words.
pub(crate) fn word_before(text: &str, end: usize) -> Option<Word> {
    let end = start_of_run(text, end, false);
    let start = start_of_run(text, end, true);
    (start < end).then_some(Word { start, end })
}

/// Where the run of word letters, or of others, that ends at `end` begins.
fn start_of_run(text: &str, end: usize, letters: bool) -> usize {
    let same = |byte: &&u8| byte.is_ascii() && byte.is_ascii_alphanumeric() == letters;
    let ascii = text.as_bytes()[..end].iter().rev().take_while(same).count();
    let start = end - ascii;
    match text[..start].chars().next_back() {
        Some(letter) if !letter.is_ascii() => {
            text[..start].trim_end_matches(|letter| is_word_letter(letter) == letters).len()
        }
        _ => start,
    }
}

/// Lower-cased words of a name.
pub(crate) fn lower_case_words(name: &str) -> Vec<String> {
    // Words are cut before lower-casing, which can change a word's length.
    Words::new(name).map(|word| word.of(name).to_lowercase()).collect()
}

/// Whether what stands between two words lets them form one name: space or hyphen, not a comma.
pub(crate) fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '\u{2010}' | '\u{2011}' | '_'))
}
