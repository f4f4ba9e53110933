//! Which letters words are made of.

/// Letters, digits and combining accents (U+0300 to U+036F).
#[inline]
pub(crate) fn is_word_letter(letter: char) -> bool {
    if letter.is_ascii() {
        return letter.is_ascii_alphanumeric();
    }
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}
