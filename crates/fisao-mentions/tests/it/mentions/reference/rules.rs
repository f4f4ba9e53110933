//! What denies a mention, word by word.

use std::ops::Range;

use super::Word;

/// A mention's words by index, its form and its category.
type Match = (Range<usize>, String, usize);

const AFFIRMING: &str = "only just merely simply doubt question mistaking wonder but except besides than all every \
    many much enough ordinary shortage";
const FUNCTION: &str = "a an the any other single visible sign signs trace traces hint of is are be been was were \
    appear appears seem seems to see seen show shows contain contains include includes have has having there";
const CONJUNCTIONS: &str = "and but or because though although while since so";
const SEEN: &str = "visible present seen shown depicted pictured found there";

fn among(word: &str, list: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

pub(super) fn verdicts(text: &str, words: &[Word], found: &[Match]) -> Vec<bool> {
    let mut before: Vec<bool> = Vec::new();
    for (index, (place, ..)) in found.iter().enumerate() {
        let earlier = index.checked_sub(1).map(|i| (found[i].0.end, before[i]));
        before.push(Rules { text, words, place: place.clone(), earlier }.denied_before());
    }
    let denied = found.iter().zip(before).map(|((place, ..), before)| {
        before || Rules { text, words, place: place.clone(), earlier: None }.denied_after()
    });
    denied.collect()
}

struct Rules<'a> {
    text: &'a str,
    words: &'a [Word],
    place: Range<usize>,
    earlier: Option<(usize, bool)>,
}

impl Rules<'_> {
    /// A word in lower case; nothing beyond the text.
    fn word(&self, at: Option<usize>) -> &str {
        at.and_then(|at| self.words.get(at)).map_or("", |word| &word.lower)
    }

    /// What stands after the word.
    fn gap(&self, at: usize) -> &str {
        &self.text[self.words[at].span.end..self.words[at + 1].span.start]
    }

    fn breaks(&self, at: usize) -> bool {
        self.gap(at).contains(|c| ".,;:!?()\n\u{2013}\u{2014}".contains(c))
    }

    fn is_contraction(&self, t: usize) -> bool {
        self.word(Some(t)) == "t" && t > 0 && ["'", "\u{2019}"].contains(&self.gap(t - 1))
    }

    /// The word before in the same clause.
    fn previous(&self, at: usize) -> Option<usize> {
        at.checked_sub(1).filter(|before| !self.breaks(*before))
    }

    fn denied_before(&self) -> bool {
        let (mut adjectives, mut or, mut commas, mut definite) = (0, false, 0, false);
        for at in (0..self.place.start).rev() {
            let word = self.word(Some(at));
            let next = self.word(Some(at + 1));
            if self.breaks(at) && next != "or" {
                let comma = self.gap(at).trim() == ",";
                let item = self.is_item(at);
                let listed = self.earlier.is_some_and(|(_, denied)| denied) && self.is_listed();
                if !comma || !item || commas == 8 || !(or || listed) {
                    return false;
                }
                (or, adjectives, commas) = (true, 0, commas + 1);
            }
            if let Some((end, denied)) = self.earlier
                && at < end
            {
                return or && denied;
            }
            let negated = self.previous(at).is_some_and(|p| self.is_plain_negation(p));
            match word {
                "no" | "not" | "never" | "cannot" | "neither" | "nor" | "none" => {
                    return self.cue(at, definite);
                }
                "t" if self.is_contraction(at) => return !self.is_litotes(),
                "without" | "lack" | "lacks" | "lacked" | "lacking" | "devoid" => return !negated,
                "free" if next == "of" => {
                    let previous = self.word(self.previous(at));
                    return !negated
                        && !among(previous, "set sets break breaks breaking broke broken");
                }
                "absence" | "void" | "empty" | "bereft" if next == "of" => return !negated,
                "longer" if self.word(self.previous(at)) == "no" => return self.no_longer(at - 1),
                "or" => or = true,
                _ if among(word, AFFIRMING) => return false,
                _ if among(word, FUNCTION) => {}
                _ => adjectives += 1,
            }
            if adjectives > 1 {
                return false;
            }
            definite |= among(word, "the these those his her its their our");
        }
        false
    }

    /// Neither a negation nor anything else that settles the matter.
    fn is_item(&self, at: usize) -> bool {
        let settling = "no not never neither nor none cannot without lack lacks lacked lacking devoid free absence \
            void empty bereft or t longer";
        let word = self.word(Some(at));
        !among(word, settling) && !among(word, AFFIRMING)
    }

    fn cue(&self, at: usize, definite: bool) -> bool {
        let direct = at + 1 == self.place.start;
        let hyphen = ["-", "\u{2010}", "\u{2011}"].contains(&self.gap(at));
        match self.word(Some(at)) {
            "none" => !(definite && self.word(Some(at + 1)) == "of"),
            "no" => direct || !(hyphen || among(self.word(self.previous(at)), "a an the")),
            "neither" | "nor" => direct || !hyphen,
            _ => (direct || !hyphen) && !self.is_litotes(),
        }
    }

    fn is_plain_negation(&self, at: usize) -> bool {
        among(self.word(Some(at)), "no not never") || self.is_contraction(at)
    }

    fn no_longer(&self, no: usize) -> bool {
        let be = self.previous(no).filter(|be| among(self.word(Some(*be)), "is are was were s"));
        be.is_some_and(|be| self.word(self.previous(be)) == "there")
    }

    fn is_litotes(&self) -> bool {
        let end = self.place.end;
        end + 1 < self.words.len()
            && self.word(Some(end)) == "without"
            && !self.breaks(end - 1)
            && !self.breaks(end)
            && self.word(Some(end + 1)).ends_with("ing")
    }

    fn is_listed(&self) -> bool {
        let (mut length, mut commas) = (0, 0);
        for at in self.place.end..self.words.len() {
            if self.gap(at - 1).trim() == "," {
                (length, commas) = (0, commas + 1);
            } else if self.breaks(at - 1) {
                return false;
            }
            if self.word(Some(at)) == "or" {
                return true;
            }
            length += 1;
            if commas == 0 || commas > 8 || length > 2 {
                return false;
            }
        }
        false
    }

    /// Sentences that deny, as patterns of words with single words or lists in each place.
    fn denied_after(&self) -> bool {
        let end = self.place.end;
        if end == self.words.len() {
            return false;
        }
        let gap = self.gap(end - 1);
        if self.word(Some(end)) == "free" {
            return ["-", "\u{2010}", "\u{2011}"].contains(&gap);
        }
        let be = "is are was were";
        let mut patterns: Vec<(Vec<String>, &str)> = vec![
            (vec![be.into(), "absent missing".into()], "closes or from"),
            (vec!["cannot".into(), "be".into(), SEEN.into()], "closes"),
        ];
        for no in ["not", "n't"].map(str::to_owned) {
            patterns.push((vec![be.into(), no.clone(), SEEN.into()], "closes"));
            patterns.push((vec![be.into(), no.clone(), "in".into()], "image"));
            patterns
                .push((vec!["can could".into(), no.clone(), "be".into(), SEEN.into()], "closes"));
            patterns.push((vec!["do does did".into(), no, "appear exist".into()], "closes"));
        }
        for start in [vec![be.to_owned()], vec![]] {
            for tail in ["nowhere|to|be|seen found", "nowhere|in|sight view"] {
                let tail = tail.split('|').map(str::to_owned);
                patterns.push((start.iter().cloned().chain(tail).collect(), ""));
            }
        }
        let matches = |(pattern, tail): &(Vec<String>, &str)| {
            self.follow(end, pattern).is_some_and(|at| self.tail(at, tail))
        };
        let with = self.word(Some(end)) == "nowhere";
        patterns.iter().any(matches) && self.is_subject(with)
    }

    /// Whether these words come next with space between; the index after them.
    fn follow(&self, mut at: usize, pattern: &[String]) -> Option<usize> {
        let space = |at: usize| {
            let gap = self.gap(at - 1);
            !gap.is_empty() && gap.chars().all(char::is_whitespace)
        };
        for expected in pattern {
            if expected == "n't" {
                at = (at < self.words.len() && self.is_contraction(at)).then_some(at + 1)?;
                continue;
            }
            let word = self.words.get(at).filter(|_| space(at))?;
            let written = word.lower.as_str();
            // "isn't" has its "n" before the apostrophe, "can't" has it of its own.
            let stem =
                written.strip_suffix('n').filter(|_| pattern[1..].iter().any(|no| no == "n't"));
            let fits = among(written, expected) || stem.is_some_and(|stem| among(stem, expected));
            at = fits.then_some(at + 1)?;
        }
        Some(at)
    }

    fn tail(&self, at: usize, kind: &str) -> bool {
        let next = |words: &str| self.follow(at, &[words.to_owned()]);
        let two = |first: &str, second: &str| {
            self.follow(at, &[first.to_owned(), second.to_owned()]).is_some()
        };
        let determiners = "the this that these any either";
        let images = "image picture photo photograph scene frame shot view sight";
        match kind {
            "image" => {
                let after = next(determiners).unwrap_or(at);
                self.follow(after, &[images.to_owned()]).is_some()
            }
            "" => true,
            _ => {
                at == self.words.len()
                    || self.breaks(at - 1)
                    || next(CONJUNCTIONS).is_some()
                    || next("here anywhere").is_some()
                    || two("at", "all")
                    || two("in", determiners)
                    || two("in", "sight view")
                    || kind == "closes or from" && next("from").is_some()
            }
        }
    }

    fn is_subject(&self, with: bool) -> bool {
        let own = "a an the any his her its their other";
        let starts = format!("{CONJUNCTIONS} that where{}", if with { " with" } else { "" });
        let mut adjectives = 0;
        for at in (0..self.place.start).rev() {
            let word = self.word(Some(at));
            if self.breaks(at) || among(word, &starts) {
                return true;
            }
            if !among(word, own) {
                adjectives += 1;
                if adjectives > 1 || among(self.word(Some(at + 1)), own) {
                    return false;
                }
            }
        }
        true
    }
}
