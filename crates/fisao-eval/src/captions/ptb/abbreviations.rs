//! Abbreviations, whose full stop is part of the word.

use super::Found;
use super::text::{Text, blank, space};

/// Followed by a small letter as a rule: behind one of them a sentence may end.
const OFTEN_LAST: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif",
    "co", "colo", "conn", "corp", "cos", "ct", "dak", "dec", "esq", "est", "etc", "ext", "feb",
    "fla", "fri", "ga", "inc", "ind", "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky",
    "ltd", "mar", "md", "mich", "minn", "mo", "mon", "mont", "neb", "nev", "nov", "oct", "okla",
    "penn", "plc", "ppty", "pptys", "pte", "ptes", "pty", "ptys", "rd", "rt", "sep", "sept", "seq",
    "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ", "va", "vt", "wed",
    "wis", "wisc", "wyo",
];

/// As above, but words of their own without a capital.
const OFTEN_LAST_CAPITAL: &[&str] =
    &["ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"];

/// Followed by a name or a number.
const BEFORE_A_NAME: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf",
    "cie", "cmdr", "col", "comdr", "cpl", "dept", "det", "dr", "drs", "elec", "ens", "ft", "gen",
    "gov", "govs", "hon", "insp", "invt", "jos", "lieut", "lt", "maj", "messrs", "mlle", "mme",
    "mr", "mrs", "ms", "msgr", "mt", "natl", "pfc", "ph", "pres", "prof", "profs", "pvt", "rep",
    "reps", "rev", "sen", "sens", "sfc", "sgt", "spc", "st", "ste", "supt", "supts", "treas", "vs",
    "wm",
];

/// Abbreviations before a number only.
const BEFORE_A_NUMBER: &[&str] =
    &["art", "bldg", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"];

/// Words that begin a sentence behind initials.
const FIRST_WORDS: &[&str] = &[
    "A",
    "About",
    "According",
    "Additionally",
    "After",
    "An",
    "As",
    "At",
    "But",
    "Earlier",
    "He",
    "Her",
    "Here",
    "However",
    "If",
    "In",
    "It",
    "Last",
    "Many",
    "More",
    "Mr.",
    "Ms.",
    "Now",
    "Once",
    "One",
    "Other",
    "Our",
    "She",
    "Since",
    "So",
    "Some",
    "Such",
    "That",
    "The",
    "Their",
    "Then",
    "There",
    "These",
    "They",
    "This",
    "We",
    "What",
    "When",
    "While",
    "Yet",
    "You",
];

/// The letters at a position in lower case, with a full stop behind them, and where that ends.
fn stopped_letters(text: &Text, at: usize) -> Option<(String, usize)> {
    let stop = text.run(at, |it| it.is_ascii_alphabetic());
    let end = text.says(stop, ".").filter(|_| stop > at && stop - at <= 8)?;
    Some((text.slice(at, stop).iter().map(char::to_ascii_lowercase).collect(), end))
}

fn listed(list: &[&str], word: &str) -> bool {
    list.contains(&word)
}

/// "Dec.", and a full stop of its own where the sentence ends.
pub(super) fn often_last(text: &Text, at: usize) -> Option<Found> {
    let degree = text.says_any(at, &["ph.d.", "ed.d."]);
    let end = degree.or_else(|| {
        let (word, end) = stopped_letters(text, at)?;
        let capital = text.at(at).is_ascii_uppercase();
        let found = listed(OFTEN_LAST, &word) || (capital && listed(OFTEN_LAST_CAPITAL, &word));
        found.then_some(end)
    })?;
    let (next, second) = (text.at(end), text.at(end + 1));
    let ends = blank(next)
        && (blank(second)
            || second.is_uppercase()
            || super::marks::markup(text, end + 1).is_some());
    // The full stop is read twice: as part of the abbreviation and as the end of the sentence.
    let resume = if ends && end < text.len() { end - 1 } else { end };
    Some(Found { reach: end + 2, resume, ..Found::plain(end) })
}

/// "Pty." and "Co." before "Ltd".
pub(super) fn company(text: &Text, at: usize) -> Option<Found> {
    let end = text.says_any(at, &["pty.", "pte.", "co."])?;
    let next = text.one(end, space)?;
    let reach = text.says_any(next, &["ltd", "lim"])?;
    Some(Found { reach, ..Found::plain(end) })
}

/// "No." and "fig." before a number.
pub(super) fn before_a_number(text: &Text, at: usize) -> Option<Found> {
    let (word, end) = stopped_letters(text, at)?;
    let next = text.one(end, blank).unwrap_or(end);
    let found = listed(BEFORE_A_NUMBER, &word) && super::text::digit(text.at(next));
    found.then_some(Found { reach: next + 1, ..Found::plain(end) })
}

/// "Mr.", "vs.", "U.S.", "a.m." and a single letter.
pub(super) fn before_a_name(text: &Text, at: usize) -> Option<Found> {
    if let Some((word, end)) = stopped_letters(text, at) {
        let trade = listed(&["mfg", "mtg"], &word) && text.at(at + 1).is_ascii_lowercase();
        if trade || listed(BEFORE_A_NAME, &word) {
            return Some(Found::plain(end));
        }
    }
    Some(Found::plain(end_of_letters_with_stops(text, at)?))
}

/// One letter or more, each with a full stop.
fn end_of_letters_with_stops(text: &Text, at: usize) -> Option<usize> {
    let mut end = None;
    let mut start = at;
    while let Some(stop) =
        text.one(start, |it| it.is_ascii_alphabetic()).and_then(|letter| text.says(letter, "."))
    {
        (start, end) = (stop, Some(stop));
    }
    end
}

/// Two letters or more, each with a full stop: "U.S."
pub(super) fn end_of_initials(text: &Text, at: usize) -> Option<usize> {
    end_of_letters_with_stops(text, at).filter(|&end| end >= at + 4)
}

/// Initials before a word that begins a sentence; the full stop behind a single letter is then no part of it.
pub(super) fn before_a_sentence(text: &Text, at: usize) -> Option<Found> {
    let stop = end_of_letters_with_stops(text, at)?;
    let word = text.some(stop, usize::MAX, space)?;
    let capital = text.at(word).is_ascii_uppercase();
    let said = FIRST_WORDS.iter().filter_map(|first| text.says(word, first));
    let tag = super::marks::markup(text, word).map(|found| found.end);
    let ends = said.filter(|_| capital).chain(tag);
    let reach = ends.filter(|&end| blank(text.at(end))).max()? + 1;
    let end = if stop == at + 2 { stop - 1 } else { stop };
    Some(Found { reach, resume: stop - 1, ..Found::plain(end) })
}
