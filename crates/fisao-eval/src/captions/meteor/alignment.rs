//! Which words of a caption go with which of a reference: as many as possible in as few runs as possible.

use std::ops::Range;

use super::{Fact, MeteorStage, MeteorTables};

/// Partial alignments that are followed at each word.
const BEAM: usize = 40;

/// A sentence with its words' numbers.
pub(super) struct Words {
    pub(super) words: Vec<String>,
    pub(super) numbers: Vec<u32>,
}

/// Words that go together.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) stage: MeteorStage,
    pub(super) caption: Range<usize>,
    pub(super) reference: Range<usize>,
}

/// Matches that do not overlap.
pub(super) struct Alignment {
    pub(super) matches: Vec<Match>,
    /// Runs of matches in the same order on both sides, without gaps.
    pub(super) chunks: u64,
}

pub(super) fn align(
    caption: &Words,
    reference: &Words,
    facts: &[Fact],
    tables: &MeteorTables,
) -> Alignment {
    let equal = caption.numbers == reference.numbers;
    let possible = possible_matches(caption, reference, facts, (!equal).then_some(tables));
    let start = Path::with_certain_matches(&possible, caption.numbers.len());
    let best = search(&possible, start);
    let chunks = count_chunks(&best.chosen);
    Alignment { matches: best.chosen.into_iter().flatten().collect(), chunks }
}

/// Every match, by the first word of the reference it covers. Without tables only equal words match.
fn possible_matches(
    caption: &Words,
    reference: &Words,
    facts: &[Fact],
    tables: Option<&MeteorTables>,
) -> Vec<Vec<Match>> {
    let mut possible: Vec<Vec<Match>> = vec![Vec::new(); reference.numbers.len()];
    let mut single = |stage, fits: &dyn Fn(u32, u32) -> bool| {
        for (at, &theirs) in reference.numbers.iter().enumerate() {
            for (place, &ours) in caption.numbers.iter().enumerate() {
                if fits(ours, theirs) {
                    let (caption, reference) = (place..place + 1, at..at + 1);
                    possible[at].push(Match { stage, caption, reference });
                }
            }
        }
    };
    single(MeteorStage::Exact, &|ours, theirs| ours == theirs);
    let Some(tables) = tables else { return possible };
    let fact = |number: u32| &facts[number as usize];
    single(MeteorStage::Stem, &|ours, theirs| {
        ours != theirs && fact(ours).stem == fact(theirs).stem
    });
    if tables.has_synonyms() {
        single(MeteorStage::Synonym, &|ours, theirs| {
            let (ours_sets, theirs_sets) = (&fact(ours).synsets, &fact(theirs).synsets);
            ours != theirs && ours_sets.iter().any(|set| theirs_sets.binary_search(set).is_ok())
        });
    }
    let stage = MeteorStage::Paraphrase;
    for (reference, caption) in tables.paraphrases(&reference.words, &caption.words) {
        possible[reference.start].push(Match { stage, caption, reference });
    }
    for (caption, reference) in tables.paraphrases(&caption.words, &reference.words) {
        possible[reference.start].push(Match { stage, caption, reference });
    }
    possible
}

/// An alignment of the first words of the reference.
#[derive(Clone)]
struct Path {
    chosen: Vec<Option<Match>>,
    caption_used: Vec<bool>,
    reference_used: Vec<bool>,
    /// Words matched on both sides; what is not exact counts half, rounded down.
    matched: (usize, usize),
    chunks: usize,
    distance: usize,
    /// Next word of the reference.
    next: usize,
    /// Where the caption goes on if the last chunk does.
    open: Option<usize>,
}

impl Path {
    /// Matches of which no word has another are in every alignment.
    fn with_certain_matches(possible: &[Vec<Match>], caption_words: usize) -> Self {
        let mut caption_choices = vec![0; caption_words];
        let mut reference_choices = vec![0; possible.len()];
        for found in possible.iter().flatten() {
            found.caption.clone().for_each(|at| caption_choices[at] += 1);
            found.reference.clone().for_each(|at| reference_choices[at] += 1);
        }
        let mut path = Self {
            chosen: vec![None; possible.len()],
            caption_used: vec![false; caption_words],
            reference_used: vec![false; possible.len()],
            matched: (0, 0),
            chunks: 0,
            distance: 0,
            next: 0,
            open: None,
        };
        for matches in possible {
            let [found] = matches.as_slice() else { continue };
            let certain = found.caption.clone().all(|at| caption_choices[at] == 1)
                && found.reference.clone().all(|at| reference_choices[at] == 1);
            if certain {
                path.choose(found);
            }
        }
        path
    }

    fn choose(&mut self, found: &Match) {
        self.caption_used[found.caption.clone()].fill(true);
        self.reference_used[found.reference.clone()].fill(true);
        self.chosen[found.reference.start] = Some(found.clone());
    }

    fn is_free(&self, found: &Match) -> bool {
        !self.caption_used[found.caption.clone()].contains(&true)
            && !self.reference_used[found.reference.clone()].contains(&true)
    }

    /// Counts a chosen match.
    fn take(&mut self, found: &Match) {
        let weighed = |words: usize| match found.stage {
            MeteorStage::Exact => words,
            _ => words / 2,
        };
        self.matched.0 += weighed(found.caption.len());
        self.matched.1 += weighed(found.reference.len());
        if self.open.is_some_and(|open| open != found.caption.start) {
            self.chunks += 1;
        }
        self.next = found.reference.end;
        self.open = Some(found.caption.end);
    }

    fn close(&mut self) {
        self.chunks += usize::from(self.open.take().is_some());
    }
}

/// Words on both sides that a match is apart.
fn distance(found: &Match) -> usize {
    found.caption.start.abs_diff(found.reference.start)
}

/// Most matches first, then fewest chunks, then least distance; what is equal stays in order.
fn rank(paths: &mut [Path]) {
    paths.sort_by(|a, b| {
        let matched = |path: &Path| path.matched.0 + path.matched.1;
        matched(b).cmp(&matched(a)).then(a.chunks.cmp(&b.chunks)).then(a.distance.cmp(&b.distance))
    });
}

fn search(possible: &[Vec<Match>], start: Path) -> Path {
    let mut paths = vec![start];
    for (at, matches) in possible.iter().enumerate() {
        rank(&mut paths);
        paths.truncate(BEAM);
        let first = paths[0].clone();
        let mut next = Vec::with_capacity(paths.len());
        for path in paths {
            step(path, at, matches, &mut next);
        }
        if next.is_empty() {
            next.push(first);
        }
        paths = next;
    }
    rank(&mut paths);
    paths.truncate(BEAM);
    paths.iter_mut().for_each(Path::close);
    rank(&mut paths);
    paths.swap_remove(0)
}

/// Every way to go on at a word of the reference.
fn step(mut path: Path, at: usize, possible: &[Match], next: &mut Vec<Path>) {
    if path.reference_used[at] {
        if at < path.next {
            next.push(path);
        } else if let Some(found) = path.chosen[path.next].clone() {
            path.take(&found);
            path.distance += distance(&found);
            next.push(path);
        }
        return;
    }
    for found in possible.iter().filter(|found| path.is_free(found)).cloned().collect::<Vec<_>>() {
        let mut chosen = path.clone();
        chosen.choose(&found);
        chosen.take(&found);
        next.push(chosen);
        // The program adds the distance to the path that skips the word, and so to the choices after this one.
        path.distance += distance(&found);
    }
    path.close();
    path.next += 1;
    next.push(path);
}

fn count_chunks(chosen: &[Option<Match>]) -> u64 {
    let (mut chunks, mut open, mut at) = (0, None, 0);
    while at < chosen.len() {
        if let Some(found) = &chosen[at] {
            chunks += u64::from(open != Some(found.caption.start));
            open = Some(found.caption.end);
            at = found.reference.end;
        } else {
            open = None;
            at += 1;
        }
    }
    chunks
}
