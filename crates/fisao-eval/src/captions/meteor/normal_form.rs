//! Words as METEOR divides them anew: hyphenated words fall apart, "'s" and "n't" lose their apostrophe's company.

/// Words of a text in lower case.
pub(super) fn meteor_words(text: &str) -> Vec<String> {
    let mut text: Vec<char> = format!(" {text} ").chars().collect();
    text = spaced_signs(&text);
    let digit = |it: char| it.is_ascii_digit();
    let other = |it: char| !it.is_ascii_digit();
    for (before, after) in [(other as Class, other as Class), (digit, other), (other, digit)] {
        text = between(&text, ',', before, after, " , ");
    }
    text = quotes_and_dashes(&text);
    text = between(&text, '-', |it| it == '.' || word_sign(it), word_sign, " ");
    let no_letter = |it: char| !word_letter(it);
    let neither = |it: char| !word_letter(it) && !it.is_ascii_digit();
    text = between(&text, '\'', no_letter, no_letter, " ' ");
    text = between(&text, '\'', neither, word_letter, " ' ");
    text = between(&text, '\'', word_letter, no_letter, " ' ");
    text = between(&text, '\'', word_letter, word_letter, " '");
    text = between(&text, '\'', digit, |it| it == 's', " '");
    let text: String = text.into_iter().collect();
    full_stops(&text)
}

type Class = fn(char) -> bool;

fn word_letter(character: char) -> bool {
    character.is_ascii_alphabetic()
        || matches!(character, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ž' | 'Ѐ'..='\u{527}'
            | '\u{a640}'..='\u{a66e}' | '\u{a67e}'..='\u{a697}' | '\u{1d00}'..='\u{1d7f}')
}

fn word_sign(character: char) -> bool {
    character.is_ascii_digit() || word_letter(character)
}

/// Spaces around what is no letter, digit, full stop, comma, hyphen or single quotation mark; runs of full stops
/// stand alone.
fn spaced_signs(text: &[char]) -> Vec<char> {
    let inside = |it: char| word_sign(it) || matches!(it, '.' | '\'' | '`' | ',' | '-' | '‘' | '’');
    let mut spaced = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let stops = text[at..].iter().take_while(|&&it| it == '.').count();
        if stops > 1 {
            spaced.push(' ');
            spaced.extend(std::iter::repeat_n('.', stops));
            spaced.push(' ');
            at += stops;
            continue;
        }
        if text[at].is_whitespace() {
            spaced.push(' ');
        } else if inside(text[at]) {
            spaced.push(text[at]);
        } else {
            spaced.extend([' ', text[at], ' ']);
        }
        at += 1;
    }
    spaced
}

/// Replaces a mark between two characters of these classes; the second does not count as the first of the next
/// place, so that "a-b-c" keeps its second hyphen, as in the program.
fn between(text: &[char], mark: char, before: Class, after: Class, written: &str) -> Vec<char> {
    let mut replaced = Vec::with_capacity(text.len() + 4);
    let mut at = 0;
    while at < text.len() {
        replaced.push(text[at]);
        match text.get(at + 1..at + 3) {
            Some(&[middle, last]) if middle == mark && before(text[at]) && after(last) => {
                replaced.extend(written.chars());
                replaced.push(last);
                at += 3;
            }
            _ => at += 1,
        }
    }
    replaced
}

fn quotes_and_dashes(text: &[char]) -> Vec<char> {
    let text: String = text.iter().collect();
    let text = text.replace(['`', '‘', '’'], "'").replace("''", " \" ").replace(['“', '”'], " \" ");
    text.replace('–', " - ").replace("--", " - ").chars().collect()
}

/// Full stops at the end of words: dropped from abbreviations such as "u.s.", kept before a word in lower case, else a
/// word of their own.
fn full_stops(text: &str) -> Vec<String> {
    let tokens: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut words = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        let word = token.strip_suffix('.').filter(|word| !word.is_empty() && !word.ends_with('.'));
        let Some(word) = word else {
            words.push((*token).to_owned());
            continue;
        };
        let lower = tokens
            .get(at + 1)
            .is_some_and(|next| next.starts_with(|it: char| it.is_ascii_lowercase()));
        if word.contains('.') && word.contains(word_letter) {
            words.push(token.replace('.', ""));
        } else if lower || matches!(word, "v" | "vs" | "rev") {
            words.push((*token).to_owned());
        } else {
            words.extend([word.to_owned(), ".".to_owned()]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::meteor_words;

    #[test]
    fn words_are_tokenised_as_by_the_meteor_reference() {
        for (text, words) in [
            ("a black-and-white cat 's toy", "a black and white cat ' s toy"),
            ("he does n't", "he does n 't"),
            ("x-y-z", "x y-z"),
            ("1,000 dogs and/or $ 5", "1,000 dogs and / or $ 5"),
            ("the u.s. flag on st. john street vs. 5", "the us flag on st. john street vs. 5"),
            ("a dog no. 5", "a dog no . 5"),
            ("1\u{a0}1/2 cups", "1 1 / 2 cups"),
            ("o'clock 1970 's '90s", "o 'clock 1970 ' s ' 90s"),
        ] {
            assert_eq!(meteor_words(text).join(" "), words, "{text}");
        }
        assert!(meteor_words("").is_empty());
    }
}
