//! Which of the listed names, longest first, a text goes on with.

use std::collections::BTreeMap;

use super::lexicon::{Lexicon, SparseLexicon};
use super::negation;
use super::words::{Word, Words, joins, word_before};

/// A surface form or one of its plurals.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    /// In lower case, at least one.
    pub(crate) words: Vec<String>,
    pub(crate) meaning: Meaning,
}

/// What a spelling stands for.
#[derive(Clone, Debug)]
pub(crate) struct Meaning {
    /// The surface form.
    pub(crate) form: String,
    /// `None` for a phrase that holds an object's name and means no object.
    pub(crate) category: Option<usize>,
}

/// Spellings that agree in their first words, as a tree in which every word is a step.
#[derive(Clone, Debug, Default)]
struct Step {
    /// Whether it is the first word and can deny what follows; see [`negation`].
    denies: bool,
    /// Of the spelling that ends here.
    meaning: Option<Meaning>,
    /// What its spellings go on with.
    further: Lexicon<Step>,
}

impl Step {
    /// The step to which the first `depth` words lead, which the spellings share.
    fn new(spellings: Vec<(Vec<String>, Meaning)>, depth: usize) -> Self {
        let ends_here = spellings.iter().find(|(words, _)| words.len() == depth);
        let meaning = ends_here.map(|(_, meaning)| meaning.clone());
        Self { denies: false, meaning, further: Lexicon::new(further(spellings, depth)) }
    }
}

/// Every spelling of a vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Spellings {
    firsts: SparseLexicon<Step>,
}

impl Spellings {
    /// Of equal spellings the first one counts.
    pub(crate) fn new(spellings: Vec<Spelling>) -> Self {
        let spellings = spellings.into_iter().map(|spelling| (spelling.words, spelling.meaning));
        let mut firsts = further(spellings.collect(), 0);
        for word in negation::denying_words() {
            match firsts.iter_mut().find(|(first, _)| first == word) {
                Some((_, step)) => step.denies = true,
                None => firsts.push((word.to_owned(), Step { denies: true, ..Step::default() })),
            }
        }
        Self { firsts: SparseLexicon::new(Lexicon::new(firsts)) }
    }

    /// What all spellings mean, in no order.
    pub(crate) fn meanings(&self) -> Vec<&Meaning> {
        let mut meanings = Vec::new();
        let mut steps: Vec<&Step> = self.firsts.entries().iter().map(|(_, step)| step).collect();
        while let Some(step) = steps.pop() {
            meanings.extend(&step.meaning);
            steps.extend(step.further.entries().iter().map(|(_, step)| step));
        }
        meanings
    }

    /// The next spelling in a text, at each word the longest. Moves `words` past it, and sets
    /// `denial` if words went by that can deny what follows.
    #[inline]
    pub(crate) fn next_in<'a>(
        &self,
        text: &'a str,
        words: &mut Words<'a>,
        denial: &mut bool,
    ) -> Option<Found<'_>> {
        loop {
            let (first, step) = self.firsts.next_in(text, words)?;
            *denial |= step.denies;
            if let Some((end, meaning)) = longest(step, text, first, words) {
                return Some(Found { first, end, meaning });
            }
        }
    }
}

impl Spellings {
    /// Up to which byte of a text its spellings stay what they are, whatever is appended to it: the beginning of the first word
    /// that may still grow, or with which a longer spelling may still begin.
    pub(crate) fn settled(&self, text: &str) -> usize {
        let mut words = Words::new(text);
        while let Some((first, step)) = self.firsts.next_in(text, &mut words) {
            if may_continue(step, text, first, words.clone()) {
                return first.start;
            }
            longest(step, text, first, &mut words);
        }
        match word_before(text, text.len()) {
            Some(last) if last.end == text.len() => last.start,
            _ => text.len(),
        }
    }
}

/// Whether what is appended to a text can make a spelling of its `first` word, or another one. `ahead` are the words that follow.
fn may_continue(first_step: &Step, text: &str, first: Word, mut ahead: Words<'_>) -> bool {
    let (mut step, mut word) = (first_step, first);
    loop {
        if word.end == text.len() {
            return true;
        }
        if step.further.is_empty() {
            return false;
        }
        let Some(next) = ahead.next() else { return joins(&text[word.end..]) };
        if !joins(&text[word.end..next.start]) {
            return false;
        }
        if next.end == text.len() {
            let begun = next.of(text).to_lowercase();
            return step.further.entries().iter().any(|(word, _)| word.starts_with(&begun));
        }
        let Some(further) = step.further.get(text, next) else { return false };
        (step, word) = (further, next);
    }
}

/// A spelling in a text.
#[derive(Debug)]
pub(crate) struct Found<'s> {
    pub(crate) first: Word,
    /// Where its last word ends.
    pub(crate) end: usize,
    pub(crate) meaning: &'s Meaning,
}

/// The longest spelling that the text goes on with after its `first` word. Moves `words` past it,
/// and leaves them where they are if there is none.
fn longest<'s, 'a>(
    first_step: &'s Step,
    text: &'a str,
    first: Word,
    words: &mut Words<'a>,
) -> Option<(usize, &'s Meaning)> {
    let mut longest = first_step.meaning.as_ref().map(|meaning| (first.end, meaning));
    if first_step.further.is_empty() {
        return longest;
    }
    let (mut step, mut word, mut ahead) = (first_step, first, words.clone());
    while !step.further.is_empty() {
        let Some(next) = ahead.next().filter(|next| joins(&text[word.end..next.start])) else {
            break;
        };
        let Some(further) = step.further.get(text, next) else { break };
        (step, word) = (further, next);
        if let Some(meaning) = &step.meaning {
            longest = Some((word.end, meaning));
            *words = ahead.clone();
        }
    }
    longest
}

/// The words that follow on the first `depth` ones, which the spellings share.
fn further(spellings: Vec<(Vec<String>, Meaning)>, depth: usize) -> Vec<(String, Step)> {
    let mut further: BTreeMap<String, Vec<(Vec<String>, Meaning)>> = BTreeMap::new();
    for (words, meaning) in spellings {
        if let Some(next) = words.get(depth) {
            further.entry(next.clone()).or_default().push((words, meaning));
        }
    }
    further.into_iter().map(|(next, shared)| (next, Step::new(shared, depth + 1))).collect()
}
