//! The option that a text means.

use serde::{Deserialize, Serialize};

use super::OptionQuestion;
use crate::answers::{Answer, Paired, PairingError, QuestionId, pair};

/// How an option is read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LetterRule {
    /// The text is the letter and nothing else (LLaVA's `convert_seed_for_submission.py`).
    Exact,
    /// The first character of the text, white space before it aside (lmms-eval's `seedbench`).
    FirstCharacter,
    /// A letter that stands alone, else the text of an option (VLMEvalKit's `can_infer`, as of 2026). Texts
    /// that VLMEvalKit would put to GPT mean nothing here. Its list of refusals is not repeated: such a text means
    /// something only if it names one option.
    Infer,
}

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// The option at this place, counted from 0.
    Option(usize),
    /// That none of them is right: the letter Z, in [`LetterRule::Infer`].
    Refused,
    /// Nothing that the rule understands.
    Unclear,
}

/// The letter of the option at a place: A is at 0. Places beyond Z have none and get a question mark.
pub fn letter(place: usize) -> char {
    u8::try_from(place).ok().filter(|place| *place < 26).map_or('?', |place| (b'A' + place) as char)
}

impl LetterRule {
    /// The option that a text means.
    pub fn read(self, text: &str, options: &[String]) -> Reading {
        let place = |found: char| (0..options.len()).find(|&place| letter(place) == found);
        let of_letter =
            |found: Option<char>| found.and_then(place).map_or(Reading::Unclear, Reading::Option);
        let mut letters = text.chars();
        match self {
            Self::Exact => of_letter(letters.next().filter(|_| letters.next().is_none())),
            Self::FirstCharacter => of_letter(text.trim().chars().next()),
            Self::Infer => match infer_letter(text, options.len()) {
                Reading::Unclear => infer_text(text, options),
                found => found,
            },
        }
    }
}

/// One letter that stands alone among the last four words counts; no letter but a Z is a refusal; else what
/// follows "answer is" counts, whatever its case.
fn infer_letter(text: &str, options: usize) -> Reading {
    let bare = text.replace(|mark| ".()[],:;!*#{}".contains(mark), " ");
    let words: Vec<&str> = bare.split_whitespace().collect();
    let first = |wanted: char| {
        words.iter().position(|word| word.strip_prefix(wanted).is_some_and(str::is_empty))
    };
    let found: Vec<(usize, usize)> =
        (0..options).filter_map(|place| Some((place, first(letter(place))?))).collect();
    match found[..] {
        [(place, word)] if word + 5 > words.len() => return Reading::Option(place),
        [] if first('Z').is_some() => return Reading::Refused,
        _ => {}
    }
    let lower = text.to_ascii_lowercase();
    let after = lower.match_indices("answer").find_map(|(at, word)| {
        let rest = skip_space(&lower[at + word.len()..])?.strip_prefix("is")?;
        let rest = skip_space(rest)?.trim_start_matches('*');
        rest.chars().next().filter(|letter| ('a'..='d').contains(letter))
    });
    let place = after.map(|letter| usize::from(letter as u8 - b'a'));
    place.filter(|&place| place < options).map_or(Reading::Unclear, Reading::Option)
}

/// What follows white space, of which there must be some.
fn skip_space(text: &str) -> Option<&str> {
    let rest = text.trim_start();
    (rest.len() < text.len()).then_some(rest)
}

/// The only option whose text is part of the answer, unless the answer is more than twice as long as all
/// options together.
fn infer_text(text: &str, options: &[String]) -> Reading {
    let text = text.to_lowercase();
    let length: usize = options.iter().map(|option| option.chars().count()).sum();
    if text.chars().count() > 2 * length {
        return Reading::Unclear;
    }
    let mut named = (0..options.len()).filter(|&at| text.contains(&options[at].to_lowercase()));
    match (named.next(), named.next()) {
        (Some(place), None) => Reading::Option(place),
        _ => Reading::Unclear,
    }
}

/// The options that answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picks {
    /// In the order of the questions; `None` where there is no answer.
    pub readings: Vec<Option<Reading>>,
    /// Answers to questions that were not asked.
    pub unknown: usize,
}

/// The options that answers mean.
///
/// # Errors
/// Answers that cannot be brought together with the questions.
pub fn pick_by_text(
    questions: &[OptionQuestion],
    answers: &[Answer],
    rule: LetterRule,
) -> Result<Picks, PairingError> {
    let ids: Vec<&QuestionId> = questions.iter().map(|question| &question.id).collect();
    let Paired { texts, unknown, .. } = pair(&ids, answers)?;
    let read = |(text, question): (Option<&str>, &OptionQuestion)| {
        text.map(|text| rule.read(text, &question.options))
    };
    Ok(Picks { readings: texts.into_iter().zip(questions).map(read).collect(), unknown })
}
