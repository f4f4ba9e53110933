//! Words as numbers, and how often each run of up to four of them occurs.

use std::collections::HashMap;

/// Longest run that is counted, as in BLEU-4 and CIDEr.
pub(super) const LONGEST: usize = 4;

/// Words of a run from the left; zeros fill the rest.
pub(super) type Gram = [u32; LONGEST];

/// Gives every word a number, from 1 up.
#[derive(Default)]
pub(super) struct Numbering {
    numbers: HashMap<String, u32>,
}

impl Numbering {
    pub(super) fn number(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.numbers.get(word) {
            return number;
        }
        let number = self.numbers.len() as u32 + 1;
        self.numbers.insert(word.to_owned(), number);
        number
    }
}

/// A caption as the metrics see it.
pub(super) struct Sentence {
    /// Tokens for ROUGE-L: an empty caption is one empty token.
    pub(super) tokens: Vec<u32>,
    /// Number of words for BLEU: tokens that hold white space, such as "1 1/2", are several.
    pub(super) words: usize,
    /// Every run of one to four words with its count, sorted.
    pub(super) grams: Vec<(Gram, u32)>,
}

impl Sentence {
    pub(super) fn new(tokens: &[String], numbering: &mut Numbering) -> Self {
        let words: Vec<u32> = tokens
            .iter()
            .flat_map(|token| token.split_whitespace())
            .map(|word| numbering.number(word))
            .collect();
        let mut numbers: Vec<u32> = tokens.iter().map(|token| numbering.number(token)).collect();
        if numbers.is_empty() {
            numbers.push(numbering.number(""));
        }
        Self { tokens: numbers, words: words.len(), grams: counted(&words) }
    }
}

/// Number of words in a run, from 1.
pub(super) fn order(gram: &Gram) -> usize {
    gram.iter().take_while(|&&word| word != 0).count()
}

fn counted(words: &[u32]) -> Vec<(Gram, u32)> {
    let mut grams: Vec<Gram> = (1..=LONGEST.min(words.len()))
        .flat_map(|order| words.windows(order))
        .map(|run| {
            let mut gram = [0; LONGEST];
            gram[..run.len()].copy_from_slice(run);
            gram
        })
        .collect();
    grams.sort_unstable();
    let mut counts: Vec<(Gram, u32)> = Vec::with_capacity(grams.len());
    for gram in grams {
        match counts.last_mut() {
            Some((last, count)) if *last == gram => *count += 1,
            _ => counts.push((gram, 1)),
        }
    }
    counts
}

/// The count of a run in sorted counts.
pub(super) fn count_of(counts: &[(Gram, u32)], gram: &Gram) -> u32 {
    counts.binary_search_by_key(gram, |&(gram, _)| gram).map_or(0, |at| counts[at].1)
}
