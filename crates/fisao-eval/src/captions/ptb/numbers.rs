//! Numbers: dates, fractions, telephone numbers, currency.

use super::text::{Text, blank, digit};
use super::{Form, Found};

/// 1/2/2003 and 1-2-03
pub(super) fn date(text: &Text, at: usize) -> Option<Found> {
    let slash = |at| text.one(at, |it| matches!(it, '-' | '/'));
    let day = text.some(at, 2, digit).and_then(slash)?;
    let year = text.some(day, 2, digit).and_then(slash)?;
    let end = text.some(year, 4, digit).filter(|&end| end >= year + 2)?;
    Some(Found::plain(end))
}

/// 1,000.50 and 12:30 and -5
pub(super) fn number(text: &Text, at: usize) -> Option<Found> {
    let start = text.one(at, |it| matches!(it, '-' | '+')).unwrap_or(at);
    let mut end = text.run(start, digit);
    let inner = |it| matches!(it, '.' | ':' | ',' | '\u{ad}' | '\u{66b}' | '\u{66c}');
    while let Some(next) = text.one(end, inner).and_then(|at| text.some(at, usize::MAX, digit)) {
        end = next;
    }
    let form = Form::WithoutSoftHyphens;
    (end > start).then_some(Found { form, ..Found::plain(end) })
}

/// x² and H₂
pub(super) fn raised(text: &Text, at: usize) -> Option<Found> {
    let sign = |it| matches!(it, '\u{207a}' | '\u{207b}' | '\u{208a}' | '\u{208b}');
    let start = text.one(at, sign).unwrap_or(at);
    let above = |it| matches!(it, '\u{2070}' | '¹' | '²' | '³' | '\u{2074}'..='\u{2079}');
    let below = |it| matches!(it, '\u{2080}'..='\u{2089}');
    let end =
        text.some(start, usize::MAX, above).or_else(|| text.some(start, usize::MAX, below))?;
    Some(Found::plain(end))
}

/// 1/2 and 3-1/2 and 3 1/2
pub(super) fn fraction(text: &Text, at: usize) -> Option<Found> {
    let bare = |start| {
        let slash = text.some(start, 4, digit)?;
        let below = text
            .says_any(slash, &["/", "\\/"])
            .or_else(|| text.one(slash, |it| it == '\u{2044}'))?;
        text.some(below, 4, digit)
    };
    let gap = |it| matches!(it, '-' | ' ' | '\u{a0}');
    let mixed = text.some(at, 4, digit).and_then(|end| text.one(end, gap)).and_then(bare);
    Some(Found { form: Form::Spaces, ..Found::plain(mixed.max(bare(at))?) })
}

/// ½
pub(super) fn fraction_sign(text: &Text, at: usize) -> Option<Found> {
    let end = text.one(at, |it| matches!(it, '¼'..='¾' | '\u{2153}'..='\u{215e}'))?;
    let form = match text.at(at) {
        '¼' => Form::Fixed("1/4"),
        '½' => Form::Fixed("1/2"),
        '¾' => Form::Fixed("3/4"),
        '\u{2153}' => Form::Fixed("1/3"),
        '\u{2154}' => Form::Fixed("2/3"),
        _ => Form::Plain,
    };
    Some(Found { form, ..Found::plain(end) })
}

/// $ and US$ and #
pub(super) fn dollar(text: &Text, at: usize) -> Option<Found> {
    let capitals = text.run(at, |it| it.is_ascii_uppercase());
    Some(Found::plain(text.says(capitals, "$").or_else(|| text.says(at, "#"))?))
}

/// Other currencies become a dollar, but for the cent and the pound.
pub(super) fn currency(text: &Text, at: usize) -> Option<Found> {
    let form = match text.at(at) {
        '¢' => Form::Fixed("cents"),
        '£' => Form::Fixed("#"),
        '\u{80}' | '¤' | '\u{20a0}' | '€' => Form::Fixed("$"),
        '¥' | '\u{60b}' | '\u{e3f}' | '\u{20a4}' | '\u{ffe0}' | '\u{ffe1}' | '\u{ffe5}'
        | '\u{ffe6}' => Form::Plain,
        _ => return None,
    };
    Some(Found { form, ..Found::plain(at + 1) })
}

/// '05 before white space.
pub(super) fn year(text: &Text, at: usize) -> Option<Found> {
    let start = text.apostrophe(at)?;
    let end = text.some(start, 2, |it| it.is_ascii_digit()).filter(|&end| end == start + 2)?;
    blank(text.at(end)).then_some(Found { reach: end + 1, ..Found::plain(end) })
}

/// Every end of a run of so many digits.
fn digits(text: &Text, at: usize, few: usize, many: usize) -> impl Iterator<Item = usize> {
    let run = text.run(at, |it| it.is_ascii_digit()) - at;
    (few..=many.min(run)).map(move |count| at + count)
}

/// (555) 555-1234 and +44 20 7946 0958 and 555.123.4567
pub(super) fn telephone(text: &Text, at: usize) -> Option<Found> {
    let end = with_gaps(text, at).max(with_stops(text, at))?;
    Some(Found { form: Form::SpacesAndParentheses, ..Found::plain(end) })
}

/// Behind none, one or two plus signs.
fn plus(text: &Text, at: usize) -> usize {
    text.run(at, |it| it == '+').min(at + 2)
}

fn with_gaps(text: &Text, at: usize) -> Option<usize> {
    let gap = |at| text.one(at, |it| matches!(it, '-' | ' ' | '\u{a0}'));
    let mut starts = Vec::new();
    if let Some(open) = text.says(at, "(") {
        for close in digits(text, open, 2, 3).filter_map(|end| text.says(end, ")")) {
            starts.push(close);
            starts.extend(text.one(close, |it| matches!(it, ' ' | '\u{a0}')));
        }
    }
    for first in digits(text, plus(text, at), 2, 4).filter_map(gap) {
        starts.push(first);
        starts.extend(digits(text, first, 2, 4).filter_map(gap));
    }
    let ends = starts.into_iter().flat_map(|start| digits(text, start, 3, 4)).flat_map(|middle| {
        let behind = gap(middle).map(|start| digits(text, start, 3, 5));
        digits(text, middle, 3, 5).chain(behind.into_iter().flatten())
    });
    ends.max()
}

fn with_stops(text: &Text, at: usize) -> Option<usize> {
    let stop = |end| text.says(end, ".");
    let area = digits(text, plus(text, at), 2, 4).filter_map(stop);
    area.chain([at])
        .flat_map(|start| digits(text, start, 2, 4).filter_map(stop))
        .flat_map(|start| digits(text, start, 3, 4).filter_map(stop))
        .flat_map(|start| digits(text, start, 3, 5))
        .max()
}
