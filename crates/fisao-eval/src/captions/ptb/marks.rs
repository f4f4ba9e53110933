//! Punctuation: quotation marks, brackets, dashes, smileys, tags, symbols.

use super::text::Text;
use super::{Form, Found};

fn fixed(end: usize, written: &'static str) -> Found {
    Found { form: Form::Fixed(written), ..Found::plain(end) }
}

/// `<b>`, `<img src="x">`, `</b>`, `<!-- x -->`
pub(super) fn markup(text: &Text, at: usize) -> Option<Found> {
    let open = text.says(at, "<")?;
    let end = comment(text, open).or_else(|| tag(text, open))?;
    Some(Found { form: Form::Spaces, ..Found::plain(end) })
}

fn comment(text: &Text, open: usize) -> Option<usize> {
    let next = text.one(open, |it| matches!(it, '!' | '?'))?;
    let first = text.one(next, |it| it.is_ascii_alphabetic() || it == '-')?;
    text.says(text.run(first, |it| it != '>'), ">")
}

fn tag(text: &Text, open: usize) -> Option<usize> {
    let name = |start| {
        let first = text.one(start, |it| it.is_ascii_alphabetic())?;
        let inner = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | ':' | '.' | '-');
        Some(text.run(first, inner))
    };
    let gap = |start| text.run(start, |it| it == ' ');
    if let Some(closing) = text.says(open, "/") {
        return text.says(gap(name(closing)?), ">");
    }
    let mut end = name(open)?;
    loop {
        let start = gap(end);
        let Some(attribute) = (start > end).then(|| name(start)).flatten() else { break };
        let value = text.says(gap(attribute), "=").and_then(|next| quoted(text, gap(next)));
        end = value.unwrap_or(attribute);
    }
    let slash = gap(end);
    text.says(gap(text.says(slash, "/").unwrap_or(slash)), ">")
}

fn quoted(text: &Text, at: usize) -> Option<usize> {
    let mark = text.at(at);
    let start = text.one(at, |it| matches!(it, '\'' | '"'))?;
    text.one(text.run(start, |it| it != mark), |_| true)
}

/// Dashes and their entities.
pub(super) fn dash(text: &Text, at: usize) -> Option<Found> {
    let sign = |it| matches!(it, '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}');
    let entity = || text.says_any(at, &["&md;", "&mdash;", "&ndash;"]);
    Some(fixed(text.one(at, sign).or_else(entity)?, "--"))
}

/// Runs of hyphens; three and four are a dash.
pub(super) fn hyphens(text: &Text, at: usize) -> Option<Found> {
    let end = text.some(at, usize::MAX, |it| it == '-')?;
    Some(if (3..=4).contains(&(end - at)) { fixed(end, "--") } else { Found::plain(end) })
}

/// `&amp;`, `&lt;`, `&gt;` and what the Treebank's own files hold.
pub(super) fn entity(text: &Text, at: usize) -> Option<Found> {
    let and = text.says(at, "&")?;
    let number =
        text.says(and, "#").and_then(|it| text.some(it, usize::MAX, |d| d.is_ascii_digit()));
    if let Some(end) = text.says(and, "amp;") {
        return Some(fixed(end, "&"));
    }
    let names = ["ht;", "tl;", "ur;", "lr;", "qc;", "ql;", "qr;", "odq;", "cdq;"];
    let named = || text.says_any(and, &names);
    Some(Found::plain(number.and_then(|end| text.says(end, ";")).or_else(named)?))
}

/// Three full stops to five, perhaps with spaces between them.
pub(super) fn ellipsis(text: &Text, at: usize) -> Option<Found> {
    let close = Some(text.run(at, |it| it == '.').min(at + 5)).filter(|&end| end >= at + 3);
    let mut wide = None;
    let mut end = text.says(at, ".");
    for count in 2..=5 {
        let next = end.and_then(|end| text.one(end, |it| matches!(it, ' ' | '\u{a0}')));
        end = next.and_then(|next| text.says(next, "."));
        wide = if count > 2 { wide.max(end) } else { None };
    }
    let sign = text.one(at, |it| matches!(it, '\u{85}' | '\u{2026}'));
    let end = close.max(wide).max(sign)?;
    Some(fixed(end, "..."))
}

/// Straight double quotation marks, which open before a letter, a digit or a dollar.
pub(super) fn double_quote(text: &Text, at: usize) -> Option<Found> {
    let end = text.says_any(at, &["\"", "&quot;"])?;
    let next = text.at(end);
    if next.is_ascii_alphanumeric() || next == '$' {
        return Some(Found { reach: end + 1, ..fixed(end, "``") });
    }
    Some(fixed(end, "''"))
}

/// An apostrophe before two letters opens a quotation.
pub(super) fn opening_quote(text: &Text, at: usize) -> Option<Found> {
    let end = text.one(at, |it| it == '\'')?;
    let ends = matches!(text.at(end + 1), ' ' | '\t' | '\n' | '\r' | '\u{a0}');
    let opens = text.at(end).is_ascii_alphabetic() && !ends;
    opens.then(|| Found { reach: end + 2, ..fixed(end, "`") })
}

/// Other quotation marks, one or two.
pub(super) fn quotes(text: &Text, at: usize) -> Option<Found> {
    let sign =
        |it| matches!(it, '`' | '‘'..='\u{201f}' | '\u{91}'..='\u{94}' | '‹' | '›' | '«' | '»');
    let two = text.says(at, "''").or_else(|| text.some(at, 2, sign));
    let end = two.max(text.apostrophe(at))?;
    Some(Found { form: Form::ClosingQuote, ..Found::plain(end) })
}

/// Comparison signs, also as entities; two of them together.
pub(super) fn angle(text: &Text, at: usize) -> Option<Found> {
    if let Some(end) = text.says_any(at, &["<<", ">>"]) {
        return Some(Found::plain(end));
    }
    Some(match text.says_any(at, &["<", "&lt;"]) {
        Some(end) => fixed(end, "<"),
        None => fixed(text.says_any(at, &[">", "&gt;"])?, ">"),
    })
}

/// Brackets.
pub(super) fn bracket(text: &Text, at: usize) -> Option<Found> {
    let written = match text.at(at) {
        '(' => "-LRB-",
        ')' => "-RRB-",
        '[' => "-LSB-",
        ']' => "-RSB-",
        '{' => "-LCB-",
        '}' => "-RCB-",
        _ => return None,
    };
    Some(fixed(at + 1, written))
}

/// `:-)` before what is neither letter nor digit.
pub(super) fn smiley(text: &Text, at: usize) -> Option<Found> {
    let hat = text.one(at, |it| matches!(it, '<' | '>')).unwrap_or(at);
    let eyes = text.one(hat, |it| matches!(it, ':' | ';' | '='))?;
    let nose = text.one(eyes, |it| matches!(it, '-' | 'o' | '*' | '\''));
    let mouth = |start| {
        let mouths = "()DPdpO\\{@|[]";
        text.one(start, |it| mouths.contains(it))
            .filter(|&end| !text.at(end).is_ascii_alphanumeric())
    };
    let end = nose.and_then(mouth).or_else(|| mouth(eyes))?;
    Some(Found { reach: end + 1, form: Form::Parentheses, ..Found::plain(end) })
}

/// `^_^` and `(^_^)`
pub(super) fn wide_smiley(text: &Text, at: usize) -> Option<Found> {
    let eye =
        |start| text.one(start, |it| matches!(it, '-' | '^' | 'x' | '=' | '~' | '<' | '>' | '\''));
    let bare = eye(at).and_then(|next| text.says(next, "_")).and_then(eye);
    let framed = || {
        let open = text.says(at, "(")?;
        let next = eye(open)?;
        let mouth = text.one(next, |it| matches!(it, '_' | '.')).unwrap_or(next);
        text.says(eye(mouth)?, ")")
    };
    let end = bare.or_else(framed)?;
    Some(Found { form: Form::Parentheses, ..Found::plain(end) })
}

/// Runs of one sign: `@@`, `##`, `__`, `**`, `?!`
pub(super) fn run_of_signs(text: &Text, at: usize) -> Option<Found> {
    let first = text.at(at);
    let end = match first {
        '@' | '#' | '_' | '*' => text.some(at, usize::MAX, |it| it == first)?,
        '?' | '!' => text.some(at, usize::MAX, |it| matches!(it, '?' | '!'))?,
        '\\' => (1..=3).map_while(|count| text.says(at, &"\\*".repeat(count))).last()?,
        _ => return None,
    };
    Some(Found::plain(end))
}

/// A sign that stands alone.
pub(super) fn sign(text: &Text, at: usize) -> Option<Found> {
    text.one(at, |it| if it.is_ascii() { ascii_sign(it) } else { other_sign(it) }).map(Found::plain)
}

fn ascii_sign(character: char) -> bool {
    matches!(
        character,
        ',' | ';' | ':' | '.' | '=' | '/' | '+' | '%' | '&' | '~' | '^' | '|' | '\\'
    )
}

fn other_sign(character: char) -> bool {
    matches!(character,
        '¡' | '¦'..='©' | '¬' | '®'..='´' | '¶'..='¹' | '¿' | '×' | '÷' | '\u{37e}' | '\u{387}'
        | '\u{589}' | '\u{5be}' | '\u{5c0}' | '\u{5c3}' | '\u{5c6}' | '\u{5f3}' | '\u{5f4}'
        | '\u{600}'..='\u{603}' | '\u{606}'..='\u{60a}' | '\u{60c}' | '\u{614}' | '\u{61b}'
        | '\u{61e}' | '\u{61f}' | '\u{66a}' | '\u{66d}' | '\u{6d4}' | '\u{700}'..='\u{70d}'
        | '\u{7f6}'..='\u{7f8}' | '\u{964}' | '\u{965}' | '\u{e4f}' | '\u{1fbd}'
        | '\u{2016}' | '\u{2017}' | '\u{2020}'..='\u{2023}' | '\u{2030}'..='\u{2038}'
        | '\u{203b}' | '\u{203e}'..='\u{2042}' | '\u{2044}' | '\u{207a}'..='\u{207e}'
        | '\u{208a}'..='\u{208e}' | '\u{2100}'..='\u{214f}' | '\u{2190}'..='\u{2bff}'
        | '\u{3001}' | '\u{3002}' | '\u{3012}' | '\u{30fb}' | '\u{ff01}'..='\u{ff0f}'
        | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}
