//! Words that mean the same, in the formats of METEOR 1.5's own data.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};
use std::ops::Range;

use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize};

use super::normal_form::meteor_words;
use crate::captions::{CaptionInput, References, caption_tokens};

/// How words were found to go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeteorStage {
    /// They are equal.
    Exact,
    /// They have the same stem (Porter's second stemmer).
    Stem,
    /// They share a synset of WordNet.
    Synonym,
    /// They are in a table of paraphrases.
    Paraphrase,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeteorTableError {
    /// The text cannot be read, or is not UTF-8.
    #[error("METEOR's {table} cannot be read: {source}")]
    Io {
        /// Which table.
        table: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An entry is incomplete or broken.
    #[error("METEOR's {table}, line {line}: {reason}")]
    Entry {
        /// Which table.
        table: &'static str,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Our own list, used where METEOR's is not given: words that make up a thousandth of English text or more.
const FUNCTION_WORDS: &[&str] = &[
    "a", "about", "after", "all", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can",
    "for", "from", "had", "has", "have", "he", "her", "his", "i", "if", "in", "into", "is", "it",
    "its", "more", "not", "of", "on", "one", "or", "out", "over", "s", "she", "so", "some", "than",
    "that", "the", "their", "there", "they", "this", "to", "two", "up", "was", "we", "were",
    "what", "when", "which", "who", "will", "with", "would", "you", "'", "'s", "'t", ",", ".",
    "\"", "-", ":", ";", "?", "!", "(", ")", "$",
];

/// What METEOR knows of words beyond their spelling.
#[derive(Clone, Debug, Default)]
pub struct MeteorTables {
    function_words: Option<HashSet<String>>,
    synonyms: Option<Synonyms>,
    paraphrases: Option<Paraphrases>,
}

#[derive(Clone, Debug, Default)]
struct Synonyms {
    /// Base forms of irregular forms.
    bases: HashMap<String, Vec<String>>,
    synsets: HashMap<String, Vec<u32>>,
}

#[derive(Clone, Debug, Default)]
struct Paraphrases {
    /// Phrases in the order of the file, by the phrase that they stand for.
    phrases: HashMap<String, Vec<Vec<String>>>,
    /// Words of the longest.
    longest: usize,
}

/// Endings and what stands in their place in the base form, as in WordNet's morphology, in METEOR's order.
const ENDINGS: [(&str, &str); 20] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("s", ""),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

impl MeteorTables {
    /// Reads function words, one per line (`function/english.words`).
    ///
    /// # Errors
    /// Text that cannot be read.
    pub fn read_function_words(&mut self, reader: impl BufRead) -> Result<(), MeteorTableError> {
        let table = "function words";
        let words: io::Result<HashSet<String>> = reader.lines().collect();
        self.function_words = Some(words.map_err(|source| MeteorTableError::Io { table, source })?);
        Ok(())
    }

    /// Reads irregular forms (`synonym/english.exceptions`) and synsets (`synonym/english.synsets`): pairs of
    /// lines, a word and then its forms or the numbers of its synsets.
    ///
    /// # Errors
    /// Text that cannot be read, an incomplete pair, a synset that is not a number.
    pub fn read_synonyms(
        &mut self,
        exceptions: impl BufRead,
        synsets: impl BufRead,
    ) -> Result<(), MeteorTableError> {
        let mut synonyms = Synonyms::default();
        groups::<2>(exceptions, "irregular forms", |_, [base, forms]| {
            for form in forms.split_ascii_whitespace() {
                let bases = synonyms.bases.entry(form.to_owned()).or_default();
                bases.push(base.trim_end().to_owned());
            }
            Ok(())
        })?;
        let table = "synsets";
        groups::<2>(synsets, table, |line, [word, numbers]| {
            let numbers: Result<Vec<u32>, _> =
                numbers.split_ascii_whitespace().map(str::parse).collect();
            let reason = "a synset is a number";
            let mut numbers =
                numbers.map_err(|_| MeteorTableError::Entry { table, line: line + 1, reason })?;
            numbers.sort_unstable();
            synonyms.synsets.insert(word.trim_end().to_owned(), numbers);
            Ok(())
        })?;
        self.synonyms = Some(synonyms);
        Ok(())
    }

    /// Reads paraphrases (`paraphrase-en`, unpacked): a probability, a phrase and a phrase that stands for it, each on
    /// its line. Only those are kept whose words occur in these captions and references.
    ///
    /// # Errors
    /// Text that cannot be read, or an incomplete entry.
    pub fn read_paraphrases(
        &mut self,
        reader: impl BufRead,
        captions: &[CaptionInput],
        references: &References,
    ) -> Result<(), MeteorTableError> {
        let texts = captions.iter().map(|input| &input.caption);
        let texts = texts.chain(references.images().iter().flat_map(|(_, captions)| captions));
        let known: foldhash::HashSet<Vec<u8>> = texts
            .flat_map(|text| meteor_words(&caption_tokens(text).join(" ")))
            .map(String::into_bytes)
            .collect();
        let mut paraphrases = Paraphrases::default();
        let is_known = |line: &[u8]| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.all(|word| known.contains(word))
        };
        // Millions of lines, of which few are kept: they are looked at as bytes, and known words are text.
        byte_groups::<3>(reader, "paraphrases", |_, [_, phrase, other]| {
            if is_known(phrase) && is_known(other) {
                let text = |line| String::from_utf8_lossy(line);
                paraphrases.add(&text(phrase), &text(other));
            }
            Ok(())
        })?;
        self.paraphrases = Some(paraphrases);
        Ok(())
    }

    /// The stages that a value has with these tables.
    pub fn stages(&self) -> Vec<MeteorStage> {
        let mut stages = vec![MeteorStage::Exact, MeteorStage::Stem];
        stages.extend(self.synonyms.as_ref().map(|_| MeteorStage::Synonym));
        stages.extend(self.paraphrases.as_ref().map(|_| MeteorStage::Paraphrase));
        stages
    }

    /// Whether the function words are METEOR's and not our own.
    pub fn has_function_words(&self) -> bool {
        self.function_words.is_some()
    }

    pub(super) fn has_synonyms(&self) -> bool {
        self.synonyms.is_some()
    }

    pub(super) fn is_function_word(&self, word: &str) -> bool {
        match &self.function_words {
            Some(words) => words.contains(word),
            None => FUNCTION_WORDS.contains(&word),
        }
    }

    /// Synsets of a word and of its base forms, sorted.
    pub(super) fn synsets(&self, word: &str) -> Vec<u32> {
        let Some(synonyms) = &self.synonyms else { return Vec::new() };
        let of = |word: &str| synonyms.synsets.get(word).into_iter().flatten().copied();
        let mut synsets: Vec<u32> = of(word).collect();
        match synonyms.bases.get(word) {
            Some(bases) => synsets.extend(bases.iter().flat_map(|base| of(base))),
            None => synsets.extend(synonyms.base(word).iter().flat_map(|base| of(base))),
        }
        synsets.sort_unstable();
        synsets
    }

    /// Phrases of one sentence with those of the other that are listed as standing for them.
    pub(super) fn paraphrases(
        &self,
        one: &[String],
        other: &[String],
    ) -> Vec<(Range<usize>, Range<usize>)> {
        let Some(table) = &self.paraphrases else { return Vec::new() };
        let mut found = Vec::new();
        for start in 0..one.len() {
            for end in start + 1..=(start + table.longest).min(one.len()) {
                let phrases = table.phrases.get(&one[start..end].join(" "));
                for phrase in phrases.into_iter().flatten() {
                    let places = (0..other.len()).filter(|&at| other[at..].starts_with(phrase));
                    found.extend(places.map(|at| (start..end, at..at + phrase.len())));
                }
            }
        }
        found
    }
}

impl Paraphrases {
    fn add(&mut self, phrase: &str, other: &str) {
        let phrase: Vec<&str> = phrase.split_ascii_whitespace().collect();
        let other: Vec<String> = other.split_ascii_whitespace().map(str::to_owned).collect();
        if !phrase.is_empty() && !other.is_empty() {
            self.longest = self.longest.max(phrase.len());
            self.phrases.entry(phrase.join(" ")).or_default().push(other);
        }
    }
}

impl Synonyms {
    /// The first base form by rule that has a synset. Of words in "-ful" it is that of the whole with "ful" once
    /// more, which never has one: so does METEOR.
    fn base(&self, word: &str) -> Option<String> {
        if word.ends_with("ss") || word.encode_utf16().count() <= 2 {
            return Some(word.to_owned());
        }
        let base = ENDINGS.iter().find_map(|(ending, base)| {
            let form = format!("{}{base}", word.strip_suffix(ending)?);
            self.synsets.contains_key(&form).then_some(form)
        });
        base.filter(|_| !word.ends_with("ful"))
    }
}

/// [`groups`] of lines that may be anything.
fn byte_groups<const LINES: usize>(
    mut reader: impl BufRead,
    table: &'static str,
    mut each: impl FnMut(usize, [&[u8]; LINES]) -> Result<(), MeteorTableError>,
) -> Result<(), MeteorTableError> {
    // What the last buffer had of a group that goes on in the next.
    let mut started = Vec::new();
    let mut line = 1;
    loop {
        let buffer = reader.fill_buf().map_err(|source| MeteorTableError::Io { table, source })?;
        if buffer.is_empty() {
            break;
        }
        let length = buffer.len();
        let mut rest = buffer;
        if !started.is_empty() {
            let missing = LINES - memchr_iter(b'\n', &started).count();
            let end = memchr_iter(b'\n', rest).nth(missing - 1).map(|at| at + 1);
            started.extend_from_slice(&rest[..end.unwrap_or(length)]);
            rest = &rest[end.unwrap_or(length)..];
            if end.is_some() {
                let (group, _) = group(&started).expect("it was just completed");
                each(line, group)?;
                line += LINES;
                started.clear();
            }
        }
        while let Some((group, length)) = group(rest) {
            each(line, group)?;
            line += LINES;
            rest = &rest[length..];
        }
        started.extend_from_slice(rest);
        reader.consume(length);
    }
    // The last line may lack its end.
    if started.last().is_some_and(|&byte| byte != b'\n') {
        started.push(b'\n');
    }
    match group(&started) {
        Some((group, _)) => each(line, group),
        None if started.is_empty() => Ok(()),
        None => {
            let line = line + memchr_iter(b'\n', &started).count();
            let reason = "the entry that ends here is incomplete";
            Err(MeteorTableError::Entry { table, line, reason })
        }
    }
}

/// The first lines of a text, if they are all there, and their length with the last one's end.
fn group<const LINES: usize>(text: &[u8]) -> Option<([&[u8]; LINES], usize)> {
    let mut lines = [&text[..0]; LINES];
    let mut from = 0;
    for line in &mut lines {
        let end = from + memchr(b'\n', &text[from..])?;
        *line = &text[from..end];
        from = end + 1;
    }
    Some((lines, from))
}

/// Hands on a file's lines, so many at a time, with the number of the first.
fn groups<const LINES: usize>(
    mut reader: impl BufRead,
    table: &'static str,
    mut each: impl FnMut(usize, &[String; LINES]) -> Result<(), MeteorTableError>,
) -> Result<(), MeteorTableError> {
    let mut group = [const { String::new() }; LINES];
    for line in (1..).step_by(LINES) {
        for (at, text) in group.iter_mut().enumerate() {
            text.clear();
            let read = reader.read_line(text);
            if read.map_err(|source| MeteorTableError::Io { table, source })? == 0 {
                let reason = "the entry that ends here is incomplete";
                let broken = Err(MeteorTableError::Entry { table, line: line + at, reason });
                return if at == 0 { Ok(()) } else { broken };
            }
        }
        each(line, &group)?;
    }
    Ok(())
}
