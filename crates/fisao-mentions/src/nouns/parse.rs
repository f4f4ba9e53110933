//! Noun phrases of a text, by the classes of its words.

use std::ops::Range;

use super::lexicon::Classes;
use crate::words::{Words, joins};

/// Words behind "on the", "at the", "in the" or "to the" that say where something is.
const PLACES: [&str; 16] = [
    "left",
    "right",
    "top",
    "bottom",
    "middle",
    "centre",
    "center",
    "upper",
    "lower",
    "corner",
    "foreground",
    "background",
    "front",
    "back",
    "far",
    "side",
];

/// A noun phrase: what stands before its nouns, and its nouns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Phrase {
    /// The number before it, as written.
    pub(super) number: Option<String>,
    /// Whether it stands behind "pair of".
    pub(super) in_pairs: bool,
    /// Whether it stands behind "a" or "an".
    pub(super) one: bool,
    /// Whether an article, a number, an adjective or a measure says that a noun follows.
    pub(super) announced: bool,
    /// Listed adjectives and colours, from left to right.
    pub(super) modifiers: Vec<String>,
    /// One word or more, of which the last is mostly the head.
    pub(super) nouns: Vec<String>,
    /// Where it is said to be: "on the left".
    pub(super) place: Option<String>,
    /// Bytes from the first word that describes it to the last noun: "black and white dog" of "a black and white dog".
    pub(super) described: Range<usize>,
}

struct Token {
    word: String,
    /// Its bytes.
    span: Range<usize>,
    classes: Classes,
    /// Whether nothing but white space or a hyphen stands before it.
    joined: bool,
    /// Whether nothing but a comma stands before it.
    listed: bool,
}

impl Token {
    /// Whether it can be a noun or stand right before one.
    fn may_name(&self) -> bool {
        let names = [
            Classes::NOUN,
            Classes::COLOUR,
            Classes::ADJECTIVE,
            Classes::ABSTRACT,
            Classes::SETTING,
        ];
        self.classes == Classes::default() || names.into_iter().any(|class| self.classes.any(class))
    }
}

/// The words of what may become a phrase.
#[derive(Default)]
struct Open {
    phrase: Phrase,
    /// Whether an article, a pronoun or a number stands before it.
    determined: bool,
    measure: Option<String>,
    /// Where what describes it begins, if it does before its own words: "black" of "black and white dog".
    begins: Option<usize>,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.phrase.modifiers.is_empty() && self.phrase.nouns.is_empty() && self.measure.is_none()
    }

    /// Takes the bytes of a word into what is described.
    fn reach(&mut self, token: &Token) {
        let begin = *self.begins.get_or_insert(token.span.start);
        self.phrase.described = begin..token.span.end;
    }

    fn add_noun(&mut self, token: &Token) {
        self.reach(token);
        self.phrase.nouns.push(token.word.clone());
    }

    /// Whether a noun must follow.
    fn wants_noun(&self) -> bool {
        self.phrase.nouns.is_empty()
            && self.measure.is_none()
            && (self.determined || !self.phrase.modifiers.is_empty())
    }
}

/// Phrases of a text in order.
pub(super) fn phrases(text: &str) -> Vec<Phrase> {
    let mut end = 0;
    let tokens: Vec<Token> = Words::new(text)
        .map(|word| {
            let before = &text[end..word.start];
            let (joined, listed) = (end > 0 && joins(before), before.trim() == ",");
            end = word.end;
            let span = word.start..word.end;
            let word = word.of(text).to_lowercase();
            Token { classes: Classes::of(&word), word, span, joined, listed }
        })
        .collect();
    let mut found = Vec::new();
    let mut open = Open::default();
    let mut behind_place = 0;
    for (at, token) in tokens.iter().enumerate() {
        if at < behind_place {
            continue;
        }
        let (classes, rest) = (token.classes, &tokens[at..]);
        if !token.joined {
            close(&mut open, rest, &mut found);
        }
        let is = |class| classes.any(class);
        if is(Classes::NOUN) || classes == Classes::default() {
            add_noun(&mut open, rest, &mut found);
        } else if is(Classes::DETERMINER) {
            close(&mut open, rest, &mut found);
            open.determined = true;
            open.phrase.one = matches!(token.word.as_str(), "a" | "an");
        } else if is(Classes::NUMBER) {
            if !open.is_empty() {
                close(&mut open, rest, &mut found);
            }
            open.determined = true;
            open.phrase.number = Some(token.word.clone());
        } else if is(Classes::MEASURE) && open.phrase.nouns.is_empty() {
            open.measure = Some(token.word.clone());
        } else if is(Classes::COLOUR.or(Classes::ADJECTIVE)) {
            let last = !rest.get(1).is_some_and(|next| next.joined && next.may_name());
            if last && !open.phrase.nouns.is_empty() {
                // "traffic light"
                open.add_noun(token);
                continue;
            }
            if !open.phrase.nouns.is_empty() || open.measure.is_some() {
                close(&mut open, rest, &mut found);
            }
            open.reach(token);
            open.phrase.modifiers.push(token.word.clone());
        } else if is(Classes::ABSTRACT.or(Classes::SETTING)) {
            // "Sports" is one, "play" may be a verb.
            if !is(Classes::VERB) || open.wants_noun() {
                add_noun(&mut open, rest, &mut found);
            } else {
                close(&mut open, rest, &mut found);
            }
        } else if is(Classes::VERB) && open.wants_noun() {
            add_noun(&mut open, rest, &mut found);
        } else if is(Classes::PARTICIPLE) {
            if open.wants_noun() {
                open.add_noun(token);
            } else {
                close(&mut open, rest, &mut found);
            }
        } else if is(Classes::ADVERB) && open.wants_noun() && open.phrase.modifiers.is_empty() {
            // "a very big dog", but not "blue slowly turns into white"
        } else {
            close(&mut open, rest, &mut found);
            if let Some(place) = place_at(&tokens[at..]) {
                behind_place = at + place.split(' ').count();
                let last = found
                    .last_mut()
                    .filter(|last| token.joined && last.nouns.last() == Some(&tokens[at - 1].word));
                if let Some(last) = last {
                    last.place = Some(place);
                }
            }
        }
    }
    close(&mut open, &[], &mut found);
    found
}

/// The first of the words that follow may be the head, or stand before it.
fn add_noun(open: &mut Open, rest: &[Token], found: &mut Vec<Phrase>) {
    if open.measure.is_some() {
        // "a couple skiers"
        close(open, rest, found);
    }
    open.add_noun(&rest[0]);
}

/// Ends the phrase before the words that follow.
fn close(open: &mut Open, rest: &[Token], found: &mut Vec<Phrase>) {
    let Open { mut phrase, determined, measure, begins } = std::mem::take(open);
    if let Some(measure) = measure {
        if rest.first().is_some_and(|token| token.word == "of") {
            open.determined = true;
            open.phrase.in_pairs = measure.starts_with("pair");
            open.phrase.number = phrase.number;
        }
        return;
    }
    if phrase.nouns.is_empty() {
        // "an orange", but not "a blue and white bowl", "a big, brown dog"
        let describes = Classes::COLOUR.or(Classes::ADJECTIVE).or(Classes::PARTICIPLE);
        let next = rest.iter().find(|token| token.word != "and");
        let apart = rest.first().is_some_and(|token| token.word == "and" || token.listed);
        let coordinated = apart && next.is_some_and(|token| token.classes.any(describes));
        open.begins = begins.filter(|_| coordinated);
        let noun = phrase.modifiers.pop().filter(|_| determined && !coordinated);
        let Some(noun) = noun else { return };
        phrase.nouns.push(noun);
    }
    phrase.announced = determined || !phrase.modifiers.is_empty();
    found.push(phrase);
}

/// The adverbial of place that begins with a preposition: "on the left side".
fn place_at(tokens: &[Token]) -> Option<String> {
    let [preposition, article, places @ ..] = tokens else { return None };
    let begins = matches!(preposition.word.as_str(), "on" | "at" | "in" | "to")
        && article.word == "the"
        && article.joined;
    let is_place = |token: &&Token| token.joined && PLACES.contains(&token.word.as_str());
    let places: Vec<&str> =
        places.iter().take_while(is_place).map(|token| token.word.as_str()).collect();
    let whole = begins && !places.is_empty();
    whole.then(|| format!("{} the {}", preposition.word, places.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nouns(text: &str) -> Vec<String> {
        phrases(text).iter().map(|phrase| phrase.nouns.join(" ")).collect()
    }

    #[test]
    fn phrases_end_at_verbs_prepositions_and_commas() {
        assert_eq!(nouns("A man riding a bike next to two dogs."), ["man", "bike", "dogs"]);
        assert_eq!(
            nouns("A dog sitting on the sofa, cats and a lamp"),
            ["dog", "sofa", "cats", "lamp"]
        );
        assert_eq!(
            nouns("There is a fire hydrant in front of a brick building."),
            ["fire hydrant", "building"]
        );
    }

    #[test]
    fn adjectives_numbers_and_places_are_kept_apart() {
        let found = phrases("Two small brown dogs on the left and an orange at the top.");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].number.as_deref(), Some("two"));
        assert_eq!(found[0].modifiers, ["small", "brown"]);
        assert_eq!(found[0].nouns, ["dogs"]);
        assert_eq!(found[0].place.as_deref(), Some("on the left"));
        assert_eq!(found[1].nouns, ["orange"]);
        assert_eq!(found[1].place.as_deref(), Some("at the top"));
    }

    #[test]
    fn descriptions_reach_from_the_first_modifier_to_the_noun() {
        let described = |text: &str| -> Vec<String> {
            phrases(text).into_iter().map(|phrase| text[phrase.described].to_owned()).collect()
        };
        assert_eq!(
            described("Two small brown dogs, a black and white cat and the big, red fire hydrant."),
            ["small brown dogs", "black and white cat", "big, red fire hydrant"]
        );
        assert_eq!(described("A pair of old scissors by an orange"), ["old scissors", "orange"]);
        assert_eq!(described("The cat is big. Brown dogs run."), ["cat", "Brown dogs"]);
        assert_eq!(described("The sky is blue and white clouds"), ["sky", "blue and white clouds"]);
    }

    #[test]
    fn measures_give_way_to_what_is_measured() {
        let found = phrases("a pair of scissors and a slice of pizza, a couple of people");
        let names: Vec<_> = found.iter().map(|phrase| phrase.nouns.join(" ")).collect();
        assert_eq!(names, ["scissors", "pizza", "people"]);
        assert!(found[0].in_pairs && !found[1].in_pairs);
    }

    #[test]
    fn colours_are_nouns_only_behind_an_article() {
        assert_eq!(
            nouns("The background is plain blue. A blue and white bowl."),
            ["background", "bowl"]
        );
        assert_eq!(nouns("an orange and a banana"), ["orange", "banana"]);
    }
}
