//! Characters of a caption by position, and the classes that the rules speak of.

/// A caption. What is asked for behind its end is a line break, as in a file of captions.
pub(super) struct Text {
    characters: Vec<char>,
}

impl Text {
    /// Every kind of line break is a space: a caption is one line.
    pub(super) fn new(caption: &str) -> Self {
        let one_line = |character| match character {
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}' => ' ',
            other => other,
        };
        Self { characters: caption.chars().map(one_line).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.characters.len()
    }

    pub(super) fn at(&self, position: usize) -> char {
        self.characters.get(position).copied().unwrap_or('\n')
    }

    pub(super) fn slice(&self, start: usize, end: usize) -> &[char] {
        &self.characters[start..end]
    }

    /// The end of the run of characters that pass, from a position on.
    pub(super) fn run(&self, start: usize, passes: impl Fn(char) -> bool) -> usize {
        let rest = self.characters.get(start..).unwrap_or_default();
        start + rest.iter().take_while(|&&character| passes(character)).count()
    }

    /// As [`Text::run`], of at least one character and at most `most`.
    pub(super) fn some(
        &self,
        start: usize,
        most: usize,
        passes: impl Fn(char) -> bool,
    ) -> Option<usize> {
        let end = self.run(start, passes).min(start.saturating_add(most));
        (end > start).then_some(end)
    }

    /// Behind a text in ASCII that stands at the position in any case.
    pub(super) fn says(&self, start: usize, text: &str) -> Option<usize> {
        let end = start + text.len();
        let found = self.characters.get(start..end)?;
        let same = |(a, b): (&char, char)| a.eq_ignore_ascii_case(&b);
        found.iter().zip(text.chars()).all(same).then_some(end)
    }

    /// Behind the first of several texts that stands at the position.
    pub(super) fn says_any(&self, start: usize, texts: &[&str]) -> Option<usize> {
        texts.iter().find_map(|text| self.says(start, text))
    }

    /// Behind one character that passes.
    pub(super) fn one(&self, start: usize, passes: impl Fn(char) -> bool) -> Option<usize> {
        (start < self.len() && passes(self.at(start))).then_some(start + 1)
    }

    /// Behind an apostrophe.
    pub(super) fn apostrophe(&self, start: usize) -> Option<usize> {
        self.one(start, |it| matches!(it, '\'' | '\u{92}' | '’'))
            .or_else(|| self.says(start, "&apos;"))
    }

    /// Behind an apostrophe or what is typed in its place inside of words.
    pub(super) fn inner_apostrophe(&self, start: usize) -> Option<usize> {
        self.apostrophe(start)
            .or_else(|| self.one(start, |it| matches!(it, '`' | '\u{91}' | '‘' | '‛')))
    }

    /// The end of a run of letters that make a word, entities of accented vowels among them.
    pub(super) fn letters(&self, start: usize) -> usize {
        let mut end = start;
        loop {
            end = self.run(end, word_letter);
            match self.accented(end) {
                Some(next) => end = next,
                None => return end,
            }
        }
    }

    /// Behind an entity such as `&eacute;`.
    fn accented(&self, start: usize) -> Option<usize> {
        let vowel = self.says(start, "&").and_then(|at| {
            self.one(at, |it| matches!(it.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u'))
        })?;
        self.says_any(vowel, &["acute;", "grave;", "uml;"])
    }
}

/// White space within a line.
pub(super) fn space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}')
}

/// White space and ends of lines.
pub(super) fn blank(character: char) -> bool {
    space(character) || matches!(character, '\n' | '\u{85}')
}

/// The zeros of the scripts that have digits of their own.
const ZEROS: [char; 34] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}',
    '\u{be6}', '\u{c66}', '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}',
    '\u{1090}', '\u{17e0}', '\u{1810}', '\u{1946}', '\u{19d0}', '\u{1a80}', '\u{1a90}', '\u{1b50}',
    '\u{1bb0}', '\u{1c40}', '\u{1c50}', '\u{a620}', '\u{a8d0}', '\u{a900}', '\u{a9d0}', '\u{aa50}',
    '\u{abf0}', '\u{ff10}',
];

/// A digit of any script.
pub(super) fn digit(character: char) -> bool {
    let of_script = |&zero: &char| (zero as u32..zero as u32 + 10).contains(&(character as u32));
    character.is_ascii_digit() || (!character.is_ascii() && ZEROS.iter().any(of_script))
}

/// A letter of any script, of the characters of 16 bits. Signs on letters and letters in circles are none.
pub(super) fn letter(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphabetic();
    }
    character <= '\u{ffff}'
        && character.is_alphabetic()
        && !sits_on_a_letter(character)
        && !matches!(character, '\u{614}' | '\u{24b6}'..='\u{24e9}')
}

/// A letter or a digit of any script.
pub(super) fn letter_or_digit(character: char) -> bool {
    letter(character) || digit(character)
}

/// What words are made of: letters, soft hyphens and marks that sit on letters.
fn word_letter(character: char) -> bool {
    letter(character) || (!character.is_ascii() && sits_on_a_letter(character))
}

/// The soft hyphen and signs of the scripts below U+0ED0.
fn sits_on_a_letter(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{2c2}'..='\u{2c5}' | '\u{2d2}'..='\u{2df}' | '\u{2e5}'..='\u{2eb}'
        | '\u{2ed}' | '\u{2ef}'..='\u{36f}' | '\u{375}' | '\u{378}' | '\u{379}'
        | '\u{384}' | '\u{385}' | '\u{3f6}' | '\u{483}'..='\u{487}'
        | '\u{55a}'..='\u{55f}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}'
        | '\u{5c4}' | '\u{5c5}' | '\u{5c7}' | '\u{615}'..='\u{61a}' | '\u{64b}'..='\u{65e}'
        | '\u{670}' | '\u{6d6}'..='\u{6e4}' | '\u{6e7}'..='\u{6ed}' | '\u{6fd}' | '\u{6fe}' | '\u{70f}' | '\u{711}'
        | '\u{730}'..='\u{74c}' | '\u{7a6}'..='\u{7b0}' | '\u{7eb}'..='\u{7f3}'
        | '\u{900}'..='\u{903}' | '\u{93c}' | '\u{93e}'..='\u{94e}' | '\u{951}'..='\u{955}'
        | '\u{962}' | '\u{963}' | '\u{981}'..='\u{983}' | '\u{9bc}' | '\u{9be}'..='\u{9c4}' | '\u{9c7}'
        | '\u{9c8}' | '\u{9cb}'..='\u{9cd}' | '\u{9d7}' | '\u{9e2}' | '\u{9e3}'
        | '\u{a01}'..='\u{a03}' | '\u{a3c}' | '\u{a3e}'..='\u{a4f}' | '\u{a81}'..='\u{a83}'
        | '\u{abc}' | '\u{abe}'..='\u{acf}' | '\u{b82}' | '\u{bbe}'..='\u{bc2}' | '\u{bc6}'..='\u{bc8}'
        | '\u{bca}'..='\u{bcd}' | '\u{c01}'..='\u{c03}' | '\u{c3e}'..='\u{c56}'
        | '\u{d3e}'..='\u{d44}' | '\u{d46}'..='\u{d48}' | '\u{e31}' | '\u{e34}'..='\u{e3a}'
        | '\u{e47}'..='\u{e4e}' | '\u{eb1}' | '\u{eb4}'..='\u{ebc}' | '\u{ec8}'..='\u{ecd}')
}

/// What joins the parts of a word.
pub(super) fn hyphen(character: char) -> bool {
    matches!(character, '-' | '_' | '\u{58a}' | '\u{2010}' | '\u{2011}')
}

/// Marks within a sentence.
pub(super) fn inside_mark(character: char) -> bool {
    matches!(character, ',' | ';' | ':' | '\u{3001}')
}
