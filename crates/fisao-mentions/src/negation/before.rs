//! Negations before a mention.

use std::sync::LazyLock;

use super::super::lexicon::Lexicon;
use super::super::words::{Word, word_before};
use super::{Place, ends_clause, is_any, is_apostrophe, is_comma, is_hyphen};

/// What a word says of the mention after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Denies it.
    Cue,
    /// Denies it, and after another negation claims it.
    Privative,
    /// The same, if "of" follows.
    PrivativeOf,
    /// Takes a negation before it back.
    Affirming,
    /// Does not end a negation's reach.
    Function,
    /// Carries the verdict of the mention before.
    Or,
    /// A letter that denies after an apostrophe.
    Contraction,
    /// Takes "no" back, but for "there is no longer".
    Longer,
}

const CUES: &[&str] = &["no", "not", "never", "neither", "nor", "none", "cannot"];
const PRIVATIVES: &[&str] = &["without", "lack", "lacks", "lacked", "lacking", "devoid"];
const PRIVATIVES_OF: &[&str] = &["free", "absence", "void", "empty", "bereft"];

/// "not only a dog", "no doubt a dog" and "none but a dog" claim the dog, "not all dogs" and "no
/// shortage of dogs" some dogs.
pub(super) const AFFIRMING: &[&str] = &[
    "only",
    "just",
    "merely",
    "simply",
    "doubt",
    "question",
    "mistaking",
    "wonder",
    "but",
    "except",
    "besides",
    "than",
    "all",
    "every",
    "many",
    "much",
    "enough",
    "ordinary",
    "shortage",
];

/// Words between a negation and what it denies that do not end its reach.
const FUNCTION_WORDS: &[&str] = &[
    "a", "an", "the", "any", "other", "single", "visible", "sign", "signs", "trace", "traces",
    "hint", "of", "is", "are", "be", "been", "was", "were", "appear", "appears", "seem", "seems",
    "to", "see", "seen", "show", "shows", "contain", "contains", "include", "includes", "have",
    "has", "having", "there",
];

/// "none of the dogs" says something of dogs that are there.
const DEFINITE: &[&str] = &["the", "these", "those", "his", "her", "its", "their", "our"];
const FORMS_OF_BE: &[&str] = &["is", "are", "was", "were", "s"];
const RELEASES: &[&str] = &["set", "sets", "break", "breaks", "breaking", "broke", "broken"];

/// Commas that a list with "or" may hold.
const LONGEST_LIST: usize = 8;

static ROLES: LazyLock<Lexicon<Role>> = LazyLock::new(|| {
    let groups = [
        (CUES, Role::Cue),
        (PRIVATIVES, Role::Privative),
        (PRIVATIVES_OF, Role::PrivativeOf),
        (AFFIRMING, Role::Affirming),
        (FUNCTION_WORDS, Role::Function),
        (&["or"], Role::Or),
        (&["t"], Role::Contraction),
        (&["longer"], Role::Longer),
    ];
    let words =
        groups.iter().flat_map(|(words, role)| words.iter().map(move |word| (*word, *role)));
    Lexicon::new(words.map(|(word, role)| (word.to_owned(), role)).collect())
});

/// Words without which nothing before a mention denies it.
pub(crate) fn denying_words() -> impl Iterator<Item = &'static str> {
    [CUES, PRIVATIVES, PRIVATIVES_OF, &["t"]].into_iter().flatten().copied()
}

/// What lies between a word and the mention, as far as the walk came.
struct Reach {
    /// The word after, or the mention's first.
    next: Word,
    /// Words that are no function words, since the last comma of a list.
    adjectives: usize,
    /// Whether "or" was passed, or a comma that stands for it.
    alternative: bool,
    /// Commas passed.
    commas: usize,
    /// Whether a word says that what follows is known.
    definite: bool,
}

pub(super) fn denies(place: &Place) -> bool {
    let text = place.text;
    let mut reach =
        Reach { next: place.first, adjectives: 0, alternative: false, commas: 0, definite: false };
    while let Some(word) = word_before(text, reach.next.start) {
        let between = &text[word.end..reach.next.start];
        if ends_clause(between) && !is_any(text, reach.next, &["or"]) {
            if !is_comma(between) || !reach.goes_on_past_comma(place, word) {
                return false;
            }
            (reach.alternative, reach.adjectives) = (true, 0);
            reach.commas += 1;
        }
        if let Some((end, verdict)) = place.earlier
            && word.end <= end
        {
            return reach.alternative && verdict;
        }
        match ROLES.get(text, word) {
            Some(Role::Cue) => return reach.cue_denies(place, word),
            Some(Role::Contraction) if is_contraction(text, word) => return !is_litotes(place),
            Some(Role::Privative) => return !follows_negation(text, word),
            Some(Role::PrivativeOf) if is_any(text, reach.next, &["of"]) => {
                return !follows_negation(text, word) && !is_released(text, word);
            }
            Some(Role::Affirming) => return false,
            Some(Role::Longer) if follows(text, word, &["no"]).is_some() => {
                return is_no_longer_there(text, word);
            }
            Some(Role::Or) => reach.alternative = true,
            Some(Role::Function) => {}
            _ => reach.adjectives += 1,
        }
        if reach.adjectives > 1 {
            return false;
        }
        reach.definite |= is_any(text, word, DEFINITE);
        reach.next = word;
    }
    false
}

impl Reach {
    /// Whether a comma after `word` separates items of a list whose verdict "or" carries.
    fn goes_on_past_comma(&self, place: &Place, word: Word) -> bool {
        // "No, a dog or a cat": no item, but an answer.
        let item = matches!(ROLES.get(place.text, word), None | Some(Role::Function));
        let after_denied = place.earlier.is_some_and(|(_, denied)| denied);
        let in_list = self.alternative || after_denied && is_listed(place);
        item && in_list && self.commas < LONGEST_LIST
    }

    fn cue_denies(&self, place: &Place, cue: Word) -> bool {
        let text = place.text;
        let direct = self.next == place.first;
        if is_any(text, cue, &["none"]) {
            return !(self.definite && is_any(text, self.next, &["of"]));
        }
        let hyphen = is_hyphen(&text[cue.end..self.next.start]);
        if is_any(text, cue, &["no"]) {
            let named = hyphen || follows(text, cue, &["a", "an", "the"]).is_some();
            return direct || !named;
        }
        (direct || !hyphen) && (is_any(text, cue, &["neither", "nor"]) || !is_litotes(place))
    }
}

/// Whether the mention is followed by further items of a list that ends in "or".
fn is_listed(place: &Place) -> bool {
    let text = place.text;
    let (mut before, mut since_comma, mut commas) = (place.end, 0, 0);
    for word in place.following.clone() {
        let between = &text[before..word.start];
        if is_comma(between) {
            (since_comma, commas) = (0, commas + 1);
        } else if ends_clause(between) {
            return false;
        }
        if is_any(text, word, &["or"]) {
            return true;
        }
        since_comma += 1;
        // The mention itself ends its item.
        if commas == 0 || commas > LONGEST_LIST || since_comma > 2 {
            return false;
        }
        before = word.end;
    }
    false
}

/// "cannot see a dog without noticing".
fn is_litotes(place: &Place) -> bool {
    let text = place.text;
    let mut words = place.following.clone();
    let (Some(without), Some(verb)) = (words.next(), words.next()) else { return false };
    is_any(text, without, &["without"])
        && !ends_clause(&text[place.end..without.start])
        && !ends_clause(&text[without.end..verb.start])
        && verb.of(text).to_lowercase().ends_with("ing")
}

/// The word right before, in the same clause, if it is one of those given.
fn follows(text: &str, word: Word, listed: &[&str]) -> Option<Word> {
    let before = word_before(text, word.start)?;
    let same_clause = !ends_clause(&text[before.end..word.start]);
    (same_clause && is_any(text, before, listed)).then_some(before)
}

fn follows_negation(text: &str, word: Word) -> bool {
    follows(text, word, &["no", "not", "never"]).is_some()
        || follows(text, word, &["t"]).is_some_and(|t| is_contraction(text, t))
}

/// "set free of its leash". "free" only; nobody is set empty.
fn is_released(text: &str, word: Word) -> bool {
    is_any(text, word, &["free"]) && follows(text, word, RELEASES).is_some()
}

/// "there is no longer a dog".
fn is_no_longer_there(text: &str, longer: Word) -> bool {
    follows(text, longer, &["no"])
        .and_then(|no| follows(text, no, FORMS_OF_BE))
        .is_some_and(|be| follows(text, be, &["there"]).is_some())
}

/// Whether a "t" is that of "isn't".
fn is_contraction(text: &str, t: Word) -> bool {
    word_before(text, t.start).is_some_and(|stem| is_apostrophe(&text[stem.end..t.start]))
}
