//! The rewriting of a sentence by which NLTK finds its words: rule by rule, spaces are put around what stands
//! alone.

use std::ops::Range;

use super::tokens::{is_blank, is_word_letter};

/// A character and the byte of the sentence it came from.
#[derive(Clone, Copy)]
struct Cell {
    letter: char,
    at: u32,
}

/// A space that was put in; where it stands is never asked.
const SPACE: Cell = Cell { letter: ' ', at: 0 };

/// A sentence while it is rewritten.
pub(super) struct Sentence {
    cells: Vec<Cell>,
    /// Where the next rewriting goes, kept for its memory.
    rewritten: Vec<Cell>,
}

impl Sentence {
    pub(super) fn new(sentence: &str) -> Self {
        let cells = sentence.char_indices().map(|(at, letter)| Cell { letter, at: at as u32 });
        Self { cells: cells.collect(), rewritten: Vec::new() }
    }

    /// Hands on the words with their bytes in the sentence, contractions without an apostrophe not yet parted.
    pub(super) fn each_token(mut self, each: impl FnMut(&str, Range<usize>)) {
        self.opening_quotes();
        self.punctuation();
        self.alone(|letter| matches!(letter, '[' | ']' | '(' | ')' | '{' | '}' | '<' | '>'));
        self.pairs_alone('-');
        self.closing_quotes();
        self.split(each);
    }

    fn opening_quotes(&mut self) {
        self.runs_alone(1, |letter| letter == '`');
        self.alone(|letter| matches!(letter, '«' | '“' | '‘' | '„'));
        if let Some(first) = self.cells.first().copied().filter(|cell| cell.letter == '"') {
            let tick = Cell { letter: '`', ..first };
            self.cells.splice(..1, [tick, tick]);
        }
        self.pairs_alone('`');
        self.rewrite(
            |letter| matches!(letter, '"' | '\''),
            |cells, out| {
                let opens = " ([{<".contains(cells[0].letter);
                let quote = cells.get(1).filter(|_| opens)?;
                let (last, length) = match quote.letter {
                    '"' => (quote, 2),
                    '\'' => (cells.get(2).filter(|cell| cell.letter == '\'')?, 3),
                    _ => return None,
                };
                let tick = |cell: &Cell| Cell { letter: '`', at: cell.at };
                out.extend([cells[0], SPACE, tick(quote), tick(last), SPACE]);
                Some(length)
            },
        );
        // One letter behind an apostrophe is a word of its own, unless it is the ending of a word.
        self.rewrite(
            |letter| letter == '\'',
            |cells, out| {
                let letter = cells.get(1).filter(|_| cells[0].letter == '\'')?;
                let ends = !cells.get(2).is_some_and(|cell| is_word_letter(cell.letter));
                let single = is_word_letter(letter.letter) && !"mtsdn".contains(letter.letter);
                (ends && single).then(|| {
                    out.extend([cells[0], SPACE, *letter]);
                    2
                })
            },
        );
    }

    fn punctuation(&mut self) {
        self.final_stop();
        self.rewrite(is_separator, |cells, out| {
            let next = cells.get(1).filter(|_| is_separator(cells[0].letter))?;
            (!next.letter.is_ascii_digit()).then(|| {
                out.extend([SPACE, cells[0], SPACE, *next]);
                2
            })
        });
        if let Some(last) = self.cells.last().copied().filter(|last| is_separator(last.letter)) {
            self.cells.pop();
            self.cells.extend([SPACE, last, SPACE]);
        }
        self.runs_alone(2, |letter| letter == '.');
        // The original looks for a final full stop once more here, which by now always stands alone.
        self.alone(|letter| matches!(letter, ';' | '@' | '#' | '$' | '%' | '&' | '?' | '!'));
        self.rewrite(
            |letter| letter == '\'',
            |cells, out| {
                let quote =
                    cells.get(1).filter(|cell| cells[0].letter != '\'' && cell.letter == '\'')?;
                cells.get(2).filter(|cell| cell.letter == ' ').map(|_| {
                    out.extend([cells[0], SPACE, *quote, SPACE]);
                    3
                })
            },
        );
        self.alone(|letter| letter == '*');
    }

    /// Parts the full stop that ends the sentence, but for closing quotes and brackets, from its word.
    fn final_stop(&mut self) {
        let Some(stop) = self.cells.iter().rposition(|cell| cell.letter == '.') else { return };
        let closers =
            self.cells[stop + 1..].iter().take_while(|cell| "])}>\"'»”’ ".contains(cell.letter));
        let rest = stop + 1 + closers.count();
        let ends = self.cells[rest..].iter().all(|cell| is_blank(cell.letter));
        if ends && stop > 0 && self.cells[stop - 1].letter != '.' {
            self.cells.truncate(rest);
            self.cells.insert(stop + 1, SPACE);
            self.cells.insert(stop, SPACE);
            self.cells.push(SPACE);
        }
    }

    fn closing_quotes(&mut self) {
        self.cells.insert(0, SPACE);
        self.cells.push(SPACE);
        self.alone(|letter| matches!(letter, '»' | '”' | '’'));
        self.pairs_alone('\'');
        self.rewrite(
            |letter| letter == '"',
            |cells, out| {
                let quote = Cell { letter: '\'', at: cells[0].at };
                (cells[0].letter == '"').then(|| {
                    out.extend([SPACE, quote, quote, SPACE]);
                    1
                })
            },
        );
        self.rewrite(is_blank, |cells, out| {
            let length = cells.iter().take_while(|cell| is_blank(cell.letter)).count();
            (length > 0).then(|| {
                out.push(SPACE);
                length
            })
        });
        self.endings(&["'s", "'m", "'d", "'"]);
        self.endings(&["'ll", "'re", "'ve", "n't"]);
    }

    /// Parts endings of words that white space follows.
    fn endings(&mut self, endings: &[&str]) {
        self.rewrite(
            |letter| letter == '\'',
            |cells, out| {
                let (first, rest) = cells.split_first()?;
                let begins = matches!(rest.first()?.letter, '\'' | 'n');
                if !begins || matches!(first.letter, '\'' | ' ') {
                    return None;
                }
                let fits = |ending: &&&str| {
                    let letters = ending.bytes().chain([b' ']).map(char::from);
                    rest.len() > ending.len()
                        && letters.zip(rest).all(|(letter, cell)| letter == cell.letter)
                };
                let ending = endings.iter().find(fits)?;
                out.extend([*first, SPACE]);
                out.extend(&rest[..ending.len()]);
                out.push(SPACE);
                Some(ending.len() + 2)
            },
        );
    }

    /// Puts spaces around characters.
    fn alone(&mut self, stands_alone: impl Fn(char) -> bool) {
        self.rewrite(&stands_alone, |cells, out| {
            stands_alone(cells[0].letter).then(|| {
                out.extend([SPACE, cells[0], SPACE]);
                1
            })
        });
    }

    /// Puts spaces around runs of at least so many characters.
    fn runs_alone(&mut self, least: usize, belongs: impl Fn(char) -> bool) {
        self.rewrite(&belongs, |cells, out| {
            let length = cells.iter().take_while(|cell| belongs(cell.letter)).count();
            (length >= least).then(|| {
                out.push(SPACE);
                out.extend(&cells[..length]);
                out.push(SPACE);
                length
            })
        });
    }

    /// Puts spaces around two of a character.
    fn pairs_alone(&mut self, letter: char) {
        self.rewrite(
            |found| found == letter,
            |cells, out| {
                let second = cells.get(1).filter(|cell| cell.letter == letter)?;
                (cells[0].letter == letter).then(|| {
                    out.extend([SPACE, cells[0], *second, SPACE]);
                    2
                })
            },
        );
    }

    /// Goes through the sentence once. `rule` gets what is left of it and says how many characters it has
    /// replaced by what it wrote; `None` passes the first one on.
    /// Without the `trigger` in it a sentence is left alone.
    fn rewrite(
        &mut self,
        trigger: impl Fn(char) -> bool,
        rule: impl Fn(&[Cell], &mut Vec<Cell>) -> Option<usize>,
    ) {
        if !self.cells.iter().any(|cell| trigger(cell.letter)) {
            return;
        }
        let mut out = std::mem::take(&mut self.rewritten);
        out.clear();
        let mut at = 0;
        while at < self.cells.len() {
            at += rule(&self.cells[at..], &mut out).unwrap_or_else(|| {
                out.push(self.cells[at]);
                1
            });
        }
        self.rewritten = std::mem::replace(&mut self.cells, out);
    }

    fn split(&self, mut each: impl FnMut(&str, Range<usize>)) {
        let mut text = String::new();
        for word in self.cells.split(|cell| is_blank(cell.letter)) {
            if let (Some(first), Some(last)) = (word.first(), word.last()) {
                text.clear();
                text.extend(word.iter().map(|cell| cell.letter));
                each(&text, first.at as usize..last.at as usize + last.letter.len_utf8());
            }
        }
    }
}

fn is_separator(letter: char) -> bool {
    matches!(letter, ':' | ',')
}
