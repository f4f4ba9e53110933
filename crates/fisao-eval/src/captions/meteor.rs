//! METEOR 1.5 for English.
//!
//! Denkowski & Lavie, *Meteor Universal: Language Specific Translation Evaluation for Any Target Language*, WMT 2014,
//! with the parameters of its program for English (`-l en -norm`), which pycocoevalcap runs:
//!
//! ```text
//! P, R   = Σ_stages w_i (δ content matches + (1 − δ) function matches) / (δ content words + (1 − δ) function words)
//! F      = 1 / ((1 − α)/P + α/R)
//! METEOR = F · (1 − γ (chunks / matches)^β)
//! α = 0.85, β = 0.2, γ = 0.6, δ = 0.75; w = 1, 0.6, 0.8, 0.6 for exact, stem, synonym and paraphrase
//! ```
//!
//! Without a chunk penalty when both sentences match as a whole. The best of several references counts. Over a set, the
//! counts of the best references are summed first; sentences that match as a whole add no chunk.
//!
//! The program brings data along that are not part of this project: the words and synsets of WordNet, a table of
//! paraphrases and a list of function words. [`MeteorTables`] reads them where a user has them; without them the stages
//! of synonyms and paraphrases are left out and a function-word list of our own is used, so that the value is lower and
//! **not comparable** with published METEOR. [`MeteorTables::stages`] says which stages a value has.

mod alignment;
mod normal_form;
mod tables;

use std::collections::HashMap;
use std::ops::Add;

use rust_stemmers::{Algorithm, Stemmer};
use serde::{Deserialize, Serialize};

use alignment::{Words, align};
use normal_form::meteor_words;
pub use tables::{MeteorStage, MeteorTableError, MeteorTables};

const ALPHA: f64 = 0.85;
const BETA: f64 = 0.2;
const GAMMA: f64 = 0.6;
const DELTA: f64 = 0.75;
/// Worth of a match, by stage.
const WEIGHTS: [f64; STAGES] = [1.0, 0.6, 0.8, 0.6];
const STAGES: usize = 4;

/// Words of a sentence, or its matched words by stage: those with content and function words.
#[derive(derive_more::Add, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordCounts {
    /// Words with content.
    pub content: u64,
    /// Function words.
    pub function: u64,
}

impl WordCounts {
    fn weighted(self) -> f64 {
        DELTA * self.content as f64 + (1.0 - DELTA) * self.function as f64
    }

    fn total(self) -> u64 {
        self.content + self.function
    }

    fn count(&mut self, is_function_word: bool) {
        let part = if is_function_word { &mut self.function } else { &mut self.content };
        *part += 1;
    }
}

/// All that METEOR knows of a caption and its best reference or, summed, of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteorCounts {
    /// Words of the caption.
    pub caption: WordCounts,
    /// Words of the reference.
    pub reference: WordCounts,
    /// Matched words of the caption: exact, stem, synonym, paraphrase.
    pub caption_matches: [WordCounts; STAGES],
    /// Matched words of the reference.
    pub reference_matches: [WordCounts; STAGES],
    /// Runs of matches in the same order on both sides; a run that is all of both sentences is not counted.
    pub chunks: u64,
}

impl MeteorCounts {
    /// METEOR; 0 where nothing matches.
    pub fn score(&self) -> f64 {
        // Summed in the program's order: the best reference may hang on the last bit.
        let fraction = |matches: &[WordCounts; STAGES], all: WordCounts| {
            let mut weighted = 0.0;
            for (found, weight) in matches.iter().zip(WEIGHTS) {
                weighted += found.content as f64 * weight * DELTA;
            }
            for (found, weight) in matches.iter().zip(WEIGHTS) {
                weighted += found.function as f64 * weight * (1.0 - DELTA);
            }
            weighted / all.weighted()
        };
        let (ours, theirs) = (total(&self.caption_matches), total(&self.reference_matches));
        if ours == 0 || theirs == 0 {
            return 0.0;
        }
        let precision = fraction(&self.caption_matches, self.caption);
        let recall = fraction(&self.reference_matches, self.reference);
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragments = self.chunks as f64 / ((ours + theirs) as f64 / 2.0);
        (mean * (1.0 - GAMMA * fragments.powf(BETA))).max(0.0)
    }

    /// Without its chunk, if all words of both sentences are in one.
    fn without_whole_chunk(self) -> Self {
        let whole = total(&self.caption_matches) == self.caption.total()
            && total(&self.reference_matches) == self.reference.total();
        Self { chunks: if whole && self.chunks == 1 { 0 } else { self.chunks }, ..self }
    }
}

/// Matched words of all stages.
fn total(matches: &[WordCounts; STAGES]) -> u64 {
    matches.iter().map(|stage| stage.total()).sum()
}

impl Add for MeteorCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = |a: [WordCounts; STAGES], b: [WordCounts; STAGES]| {
            std::array::from_fn(|at| a[at] + b[at])
        };
        Self {
            caption: self.caption + other.caption,
            reference: self.reference + other.reference,
            caption_matches: sum(self.caption_matches, other.caption_matches),
            reference_matches: sum(self.reference_matches, other.reference_matches),
            chunks: self.chunks + other.chunks,
        }
    }
}

/// What is known of a word.
struct Fact {
    /// Number of its stem.
    stem: u32,
    synsets: Vec<u32>,
    is_function_word: bool,
}

/// Aligns captions with references. What was found of a word is kept.
pub(super) struct Meteor<'a> {
    tables: &'a MeteorTables,
    stemmer: Stemmer,
    numbers: HashMap<String, u32>,
    stems: HashMap<String, u32>,
    facts: Vec<Fact>,
}

impl<'a> Meteor<'a> {
    pub(super) fn new(tables: &'a MeteorTables) -> Self {
        Self {
            tables,
            stemmer: Stemmer::create(Algorithm::English),
            numbers: HashMap::new(),
            stems: HashMap::new(),
            facts: Vec::new(),
        }
    }

    /// Counts of a caption with the reference that gives it the highest score, the first of several.
    pub(super) fn counts(&mut self, tokens: &[String], references: &[Vec<String>]) -> MeteorCounts {
        let caption = self.words(tokens);
        let mut best: Option<(f64, MeteorCounts)> = None;
        for reference in references {
            let reference = self.words(reference);
            let counts = self.against(&caption, &reference);
            let score = counts.score();
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, counts));
            }
        }
        best.map(|(_, counts)| counts).unwrap_or_default()
    }

    fn words(&mut self, tokens: &[String]) -> Words {
        let words = meteor_words(&tokens.join(" "));
        let numbers = words.iter().map(|word| self.number(word)).collect();
        Words { words, numbers }
    }

    fn number(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.numbers.get(word) {
            return number;
        }
        let number = self.facts.len() as u32;
        let next = self.stems.len() as u32;
        let stem = *self.stems.entry(self.stemmer.stem(word).into_owned()).or_insert(next);
        let synsets = self.tables.synsets(word);
        let is_function_word = self.tables.is_function_word(word);
        self.facts.push(Fact { stem, synsets, is_function_word });
        self.numbers.insert(word.to_owned(), number);
        number
    }

    fn against(&self, caption: &Words, reference: &Words) -> MeteorCounts {
        let alignment = align(caption, reference, &self.facts, self.tables);
        let is_function_word = |number: &u32| self.facts[*number as usize].is_function_word;
        let mut counts = MeteorCounts { chunks: alignment.chunks, ..MeteorCounts::default() };
        caption.numbers.iter().for_each(|word| counts.caption.count(is_function_word(word)));
        reference.numbers.iter().for_each(|word| counts.reference.count(is_function_word(word)));
        for found in alignment.matches {
            let stage = found.stage as usize;
            for word in &caption.numbers[found.caption.clone()] {
                counts.caption_matches[stage].count(is_function_word(word));
            }
            for word in &reference.numbers[found.reference.clone()] {
                counts.reference_matches[stage].count(is_function_word(word));
            }
        }
        counts.without_whole_chunk()
    }
}
