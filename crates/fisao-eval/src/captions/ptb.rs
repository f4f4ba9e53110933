//! Words of a caption as the Penn Treebank divides them.
//!
//! Behaves as `PTBTokenizer` of Stanford's `CoreNLP` 3.4.1 with `-preserveLines -lowerCase`, which pycocoevalcap
//! runs. That is a scanner: of many rules, the one that reaches furthest wins, the first of several that reach
//! equally far. A rule may look at characters behind its token; they count towards its reach. What no rule
//! matches is left out. The rules here say what that program does in code of our own; they are checked against it
//! (`fixtures/ptb_tokens`).

mod abbreviations;
mod addresses;
mod marks;
mod numbers;
mod text;
mod words;

use text::Text;

/// What a rule found.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Behind the token.
    end: usize,
    /// Behind all that the rule looked at.
    reach: usize,
    /// Where the next token may begin.
    resume: usize,
    form: Form,
}

impl Found {
    /// A token as it stands.
    fn plain(end: usize) -> Self {
        Self { end, reach: end, resume: end, form: Form::Plain }
    }
}

/// How a token is written out.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    Fixed(&'static str),
    WithoutSoftHyphens,
    /// `&amp;` becomes `&`.
    Ampersand,
    /// Spaces become ones that do not break.
    Spaces,
    /// `(` becomes `-LRB-`.
    Parentheses,
    SpacesAndParentheses,
    /// Quotation marks as LaTeX writes them.
    ClosingQuote,
}

type Rule = fn(&Text, usize) -> Option<Found>;

/// In the order in which they win.
const RULES: &[Rule] = &[
    words::fused,
    marks::markup,
    marks::dash,
    marks::entity,
    words::word,
    words::negated,
    words::with_apostrophe,
    words::you,
    addresses::full_address,
    addresses::likely_address,
    addresses::letter_address,
    addresses::tag,
    words::auxiliary,
    words::not,
    numbers::date,
    numbers::number,
    numbers::raised,
    numbers::fraction,
    numbers::fraction_sign,
    words::whole,
    words::with_slashes,
    numbers::dollar,
    numbers::currency,
    abbreviations::before_a_sentence,
    abbreviations::before_a_number,
    abbreviations::company,
    abbreviations::often_last,
    abbreviations::before_a_name,
    numbers::year,
    addresses::file,
    words::stopped_word,
    numbers::telephone,
    marks::double_quote,
    marks::angle,
    marks::smiley,
    marks::wide_smiley,
    marks::bracket,
    marks::hyphens,
    marks::ellipsis,
    marks::run_of_signs,
    words::hyphenated,
    words::stopped_compound,
    words::compound,
    words::stopped_initials_and,
    words::initials_and,
    marks::opening_quote,
    words::begun_auxiliary,
    marks::quotes,
    marks::sign,
];

/// Words and punctuation of a caption in lower case. Characters that are neither, such as pictograms, are left
/// out; line breaks count as spaces.
pub fn treebank_tokens(caption: &str) -> Vec<String> {
    let text = Text::new(caption);
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text.at(at) == ' ' {
            at += 1;
        } else if let Some(end) = text.says(at, "&nbsp;") {
            at = end;
        } else if let Some(end) = bare_word(&text, at) {
            tokens.push(text.slice(at, end).iter().map(char::to_ascii_lowercase).collect());
            at = end;
        } else if let Some(found) = furthest(&text, at) {
            tokens.push(written(text.slice(at, found.end), found.form));
            at = found.resume;
        } else {
            at += 1;
        }
    }
    tokens
}

/// Tokens that caption metrics do not count. Brackets are on pycocoevalcap's list too, but as `-LRB-`, which
/// no token in lower case equals: they count as words.
const PUNCTUATION: [&str; 13] =
    ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// Tokens of a caption without punctuation, as pycocoevalcap's metrics see them.
pub fn caption_tokens(caption: &str) -> Vec<String> {
    let mut tokens = treebank_tokens(caption);
    tokens.retain(|token| !PUNCTUATION.contains(&token.as_str()));
    tokens
}

fn furthest(text: &Text, at: usize) -> Option<Found> {
    let mut best: Option<Found> = None;
    for found in RULES.iter().filter_map(|rule| rule(text, at)) {
        if best.is_none_or(|best| found.reach > best.reach) {
            best = Some(found);
        }
    }
    best
}

/// A word of plain letters before a space, on which all rules agree: nearly all words, in a fraction of the
/// time.
fn bare_word(text: &Text, at: usize) -> Option<usize> {
    let end = text.some(at, usize::MAX, |it| it.is_ascii_alphabetic())?;
    let alone = text.at(end) == ' ' || end == text.len();
    (alone && words::fused(text, at).is_none_or(|found| found.reach != end)).then_some(end)
}

fn written(token: &[char], form: Form) -> String {
    let as_it_stands = || token.iter().collect::<String>();
    let without_breaks = |text: String| text.replace(' ', "\u{a0}");
    let brackets = |text: String| text.replace('(', "-LRB-").replace(')', "-RRB-");
    let written = match form {
        Form::Plain => as_it_stands(),
        Form::Fixed(text) => text.to_owned(),
        Form::WithoutSoftHyphens => without_soft_hyphens(token),
        Form::Ampersand => ampersands(&as_it_stands()),
        Form::Spaces => without_breaks(as_it_stands()),
        Form::Parentheses => brackets(as_it_stands()),
        Form::SpacesAndParentheses => brackets(without_breaks(as_it_stands())),
        Form::ClosingQuote => closing_quotes(&as_it_stands()),
    };
    written.to_lowercase()
}

/// A token of nothing else is a hyphen.
fn without_soft_hyphens(token: &[char]) -> String {
    let rest: String = token.iter().filter(|&&it| it != '\u{ad}').collect();
    if rest.is_empty() { "-".to_owned() } else { rest }
}

fn ampersands(token: &str) -> String {
    token.to_ascii_lowercase().replace("&amp;", "&")
}

fn closing_quotes(token: &str) -> String {
    let mut written = String::with_capacity(token.len());
    for character in token.replace("&apos;", "'").chars() {
        match character {
            '\u{91}' | '‘' | '‛' | '‹' => written.push('`'),
            '\u{92}' | '’' | '›' => written.push('\''),
            '\u{93}' | '“' | '«' => written.push_str("``"),
            '\u{94}' | '”' | '»' => written.push_str("''"),
            other => written.push(other),
        }
    }
    written
}
