//! How fast mentions are found: `cargo bench -p fisao-mentions --bench mentions`.
//!
//! Text, about 64 MB of it, is written here and is the same on every run: captions of about twelve words, of which
//! every tenth or so begins the name of an object, out of 722 categories. It is searched on one thread, as single
//! captions and as texts of 10 kB. Beside it stands what the memory gives: the same texts with their spaces counted.
//! Speeds are per second of processor time.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::hint::black_box;
use std::time::Instant;

use fisao_mentions::ObjectVocabulary;

const CORPUS_BYTES: usize = 64_000_000;
const LONG_TEXT_BYTES: usize = 10_000;
const RUNS: usize = 9;
/// How often a run counts spaces: once is too short for the clock, which ticks every few milliseconds.
const BASELINE_PASSES: usize = 16;

/// The 80 categories of COCO.
const COCO: &str = "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, \
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, \
    giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, \
    baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, \
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, \
    potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, \
    toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush";

/// With them, two-word names.
const KINDS: [&str; 18] = [
    "garden", "kitchen", "toy", "paper", "desk", "wall", "glass", "metal", "beach", "office",
    "door", "picnic", "snow", "bathroom", "concrete", "straw", "bamboo", "copper",
];
const THINGS: [&str; 24] = [
    "lamp", "basket", "shelf", "mirror", "ladder", "bucket", "fence", "statue", "curtain",
    "cushion", "tray", "cabinet", "brush", "hook", "pot", "gate", "railing", "panel", "lantern",
    "stool", "rug", "screen", "fan", "box",
];

/// Of which one-word names are made ("balodrin").
const ONSETS: [&str; 15] = [
    "balo", "ceru", "dimi", "fano", "grale", "hevu", "jolo", "krama", "luni", "mopa", "nido",
    "plura", "querni", "stavo", "welu",
];
const ENDINGS: [&str; 14] = [
    "drin", "bex", "ko", "mat", "nole", "pard", "quist", "ry", "sage", "tum", "vane", "with",
    "zor", "lark",
];

/// Words of captions that name nothing, the frequent ones more than once.
const FILLERS: &str = "a a a a a a a a a a the the the the the the the of of of in in in in on on on on with with \
    with and and and and is is is are to at at next an by his her its their that while some two front sitting \
    standing holding sits stands white black red blue green large small young old wooden wearing near \
    walking riding playing looking down up over through it there this who several many other top side background \
    behind under around parked filled covered street field water grass room road beach city snow air food sky \
    colorful bright brown yellow open close view game ready being has against another together each one outside \
    inside three different photograph picture image scene across along between lying laying hanging running \
    surrounded background, outdoors tall beautiful empty no not without building buildings hand head";

fn categories() -> Vec<(String, Vec<String>)> {
    let coco = COCO.split(", ").map(str::to_owned);
    let pairs =
        KINDS.iter().flat_map(|kind| THINGS.iter().map(move |thing| format!("{kind} {thing}")));
    let single =
        ONSETS.iter().flat_map(|onset| ENDINGS.iter().map(move |end| format!("{onset}{end}")));
    coco.chain(pairs).chain(single).map(|name| (name, Vec::new())).collect()
}

/// xorshift64: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// Captions, one a line.
fn corpus(names: &[(String, Vec<String>)]) -> String {
    let fillers: Vec<&str> = FILLERS.split_whitespace().collect();
    let mut dice = Dice(0x5eed_0fca_9710_0001);
    let mut text = String::with_capacity(CORPUS_BYTES + 200);
    while text.len() < CORPUS_BYTES {
        let start = text.len();
        for _ in 0..9 + dice.below(7) {
            // Half of the objects are COCO's: the frequent ones.
            match dice.below(20) {
                0 => text.push_str(&names[dice.below(80)].0),
                1 => text.push_str(&names[dice.below(names.len())].0),
                _ => text.push_str(fillers[dice.below(fillers.len())]),
            }
            text.push(' ');
        }
        text.pop();
        text[start..=start].make_ascii_uppercase();
        text.push_str(".\n");
    }
    text
}

/// Cuts at line ends into pieces of about `bytes` bytes.
fn long_texts(corpus: &str, bytes: usize) -> Vec<&str> {
    let mut texts = Vec::new();
    let mut rest = corpus;
    while rest.len() > bytes {
        let end = rest[bytes..].find('\n').map_or(rest.len(), |at| bytes + at + 1);
        texts.push(&rest[..end]);
        rest = &rest[end..];
    }
    texts.push(rest);
    texts
}

/// Seconds of processor time of this thread, so that waiting for a turn does not count; where the system does not tell,
/// seconds.
fn seconds(origin: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = spent.and_then(|spent| spent.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| origin.elapsed().as_secs_f64(), |nanoseconds| nanoseconds * 1e-9)
}

/// MB/s of several runs, in order.
struct Speeds(Vec<f64>);

impl Speeds {
    /// Goes through the texts that often in every run.
    fn measure(texts: &[&str], passes: usize, mut search: impl FnMut(&str) -> usize) -> Self {
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let origin = Instant::now();
        let mut speeds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = seconds(origin);
                let each = texts.iter().cycle().take(passes * texts.len());
                let found: usize = each.map(|text| search(black_box(text))).sum();
                black_box(found);
                (bytes * passes) as f64 / (seconds(origin) - start) / 1e6
            })
            .collect();
        speeds.sort_by(f64::total_cmp);
        Self(speeds)
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn report(&self, what: &str, baseline: &Self) {
        let (low, high) = (self.0[0], self.0[self.0.len() - 1]);
        let ratio = baseline.median() / self.median();
        let median = self.median();
        println!(
            "  {what:<16} {median:>7.0} MB/s ({low:.0} to {high:.0}), memory is {ratio:.1} times as fast"
        );
    }
}

fn count_spaces(text: &str) -> usize {
    // Of 128 bytes, whose count fits one: so the compiler can count many at once.
    let count = |bytes: &[u8]| bytes.iter().map(|byte| u8::from(*byte == b' ')).sum::<u8>();
    text.as_bytes().chunks(128).map(|bytes| usize::from(count(bytes))).sum()
}

fn main() {
    let names = categories();
    let categories = names.len();
    let corpus = corpus(&names);
    let vocabulary = match ObjectVocabulary::new(names) {
        Ok(vocabulary) => vocabulary,
        Err(error) => return println!("{error}"),
    };
    let captions: Vec<&str> = corpus.split_terminator('\n').collect();
    let long = long_texts(&corpus, LONG_TEXT_BYTES);
    println!(
        "{categories} categories, {:.1} MB of text, {RUNS} runs each",
        corpus.len() as f64 / 1e6
    );
    for (kind, texts) in [("captions", &captions), ("texts of 10 kB", &long)] {
        let mentions: usize = texts.iter().map(|text| vocabulary.mentions(text).count()).sum();
        println!("{} {kind}, {mentions} mentions:", texts.len());
        let memory = Speeds::measure(texts, BASELINE_PASSES, count_spaces);
        memory.report("spaces counted", &memory);
        Speeds::measure(texts, 1, |text| vocabulary.mentions(text).count())
            .report("mentions", &memory);
        let mentions = |text: &str| {
            let whole = 0..text.len();
            vocabulary.token_mentions(text, &[whole]).len()
        };
        Speeds::measure(texts, 1, mentions).report("units", &memory);
    }
}
