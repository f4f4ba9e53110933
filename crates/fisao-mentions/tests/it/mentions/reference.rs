//! Mentions by the rules as one would write them down, to compare the quick way with.
//!
//! Nothing here is shared with the library: words are strings, text is searched from every word.

mod rules;
mod texts;

use std::collections::HashMap;
use std::ops::Range;

use fisao_mentions::ObjectVocabulary;
use proptest::prelude::*;

use texts::{arbitrary_spans, entries, neutral, text, tokens};

/// Lower-cased word and its bytes.
struct Word {
    lower: String,
    span: Range<usize>,
}

/// What the library should find: category, form, bytes, verdict.
type Found = (usize, String, Range<usize>, bool);

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}

fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (at, letter) in text.char_indices().filter(|(_, letter)| is_letter(*letter)) {
        let end = at + letter.len_utf8();
        match words.last_mut().filter(|word| word.span.end == at) {
            Some(word) => word.span.end = end,
            None => words.push(Word { lower: String::new(), span: at..end }),
        }
    }
    for word in &mut words {
        word.lower = text[word.span.clone()].to_lowercase();
    }
    words
}

/// Regular plurals that the vocabulary of these tests needs.
fn plurals(word: &str) -> Vec<String> {
    let of = |plurals: &[&str]| plurals.iter().map(ToString::to_string).collect();
    match word {
        "person" => of(&["people", "persons"]),
        "man" | "woman" => vec![word.replace("man", "men")],
        "baby" => of(&["babies"]),
        "puppy" => of(&["puppies"]),
        "sky" => of(&["skies"]),
        "glass" => of(&["glasses"]),
        "skis" => Vec::new(),
        "straße" => of(&["straßes"]),
        _ => vec![format!("{word}s")],
    }
}

/// Words of a spelling → its form and its category.
type Spellings = HashMap<Vec<String>, (String, Option<usize>)>;

fn spellings() -> Spellings {
    let forms = entries().into_iter().enumerate().flat_map(|(index, (category, forms))| {
        std::iter::once(category).chain(forms).map(move |form| (form, Some(index)))
    });
    let listed: Vec<_> = forms.chain(neutral().into_iter().map(|form| (form, None))).collect();
    let split = |form: &str| words(form).into_iter().map(|word| word.lower).collect::<Vec<_>>();
    let mut spellings = Spellings::new();
    for (form, category) in &listed {
        let words = split(form);
        let form = words.join(" ");
        spellings.entry(words).or_insert((form, *category));
    }
    // Plurals come when everything listed has its place.
    for (form, category) in &listed {
        let words = split(form);
        let last = words.len() - 1;
        let before_of = words.iter().position(|word| word == "of").filter(|of| *of > 0);
        for head in [Some(last), before_of.map(|of| of - 1)].into_iter().flatten() {
            for plural in plurals(&words[head]) {
                let mut spelling = words.clone();
                spelling[head] = plural;
                spellings.entry(spelling).or_insert((words.join(" "), *category));
            }
        }
    }
    spellings
}

fn joins(between: &str) -> bool {
    between.chars().all(|c| c.is_whitespace() || "-_\u{2010}\u{2011}".contains(c))
}

fn mentions(text: &str, spellings: &Spellings) -> Vec<Found> {
    let words = words(text);
    let mut found: Vec<(Range<usize>, String, usize)> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let fits = |end: &usize| {
            let name = &words[at..*end];
            let joined =
                name.windows(2).all(|two| joins(&text[two[0].span.end..two[1].span.start]));
            let name: Vec<String> = name.iter().map(|word| word.lower.clone()).collect();
            joined && spellings.contains_key(&name)
        };
        let Some(end) = (at + 1..=words.len().min(at + 6)).rev().find(fits) else {
            at += 1;
            continue;
        };
        let name: Vec<String> = words[at..end].iter().map(|word| word.lower.clone()).collect();
        let (form, category) = &spellings[&name];
        found.extend(category.map(|category| (at..end, form.clone(), category)));
        at = end;
    }
    let verdicts = rules::verdicts(text, &words, &found);
    let spanned = found.into_iter().zip(verdicts).map(|((place, form, category), negated)| {
        let span = words[place.start].span.start..words[place.end - 1].span.end;
        (category, form, span, negated)
    });
    spanned.collect()
}

fn tokens_meeting(span: &Range<usize>, spans: &[Range<usize>]) -> Option<Range<usize>> {
    let meet = (0..spans.len())
        .filter(|&token| span.clone().any(|byte| spans[token].contains(&byte)))
        .collect::<Vec<_>>();
    Some(*meet.first()?..*meet.last()? + 1)
}

fn vocabulary() -> ObjectVocabulary {
    ObjectVocabulary::with_neutral(entries(), &neutral()).expect("a well-formed vocabulary")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mentions_equal_the_reference_implementation(text in text()) {
        let vocabulary = vocabulary();
        let found: Vec<Found> = vocabulary
            .mentions(&text)
            .map(|it| (it.category, it.form.to_owned(), it.span, it.negated))
            .collect();
        prop_assert_eq!(found, mentions(&text, &spellings()));
    }

    #[test]
    fn mention_tokens_are_those_overlapping_its_span((text, spans) in prop_oneof![tokens(), arbitrary_spans()]) {
        let vocabulary = vocabulary();
        let found: Vec<_> =
            vocabulary.token_mentions(&text, &spans).into_iter().map(|mention| (mention.span, mention.tokens)).collect();
        let expected: Vec<_> = vocabulary
            .mentions(&text)
            .filter_map(|it| Some((it.span.clone(), tokens_meeting(&it.span, &spans)?)))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn mention_spans_are_ordered_and_on_character_boundaries(text in any::<String>(), more in text()) {
        let text = text + &more;
        let vocabulary = vocabulary();
        let mut end = 0;
        for mention in vocabulary.mentions(&text) {
            prop_assert!(mention.span.start >= end && mention.span.start < mention.span.end);
            end = mention.span.end;
            prop_assert!(text.get(mention.span).is_some());
        }
    }
}
