//! Readers tried with damaged files: valid ones, changed at random, must be read or refused, and never be a panic, a hang or
//! a large allocation.
//!
//! A test makes [`Reader`]s of valid files and hands them to [`run`]. By default each gets a few hundred inputs of one seed;
//! the environment asks for more: `FISAO_FUZZ_READER` (a name, else all), `FISAO_FUZZ_INPUTS`, `FISAO_FUZZ_SEED`. An input
//! that is a finding is written to `target/fuzz`, and is made again by its seed and number. Where one ends the whole process,
//! `target/fuzz/READER-SEED-current` holds the number of one up to 16 before it; `FISAO_FUZZ_FIRST` begins there.

mod allocation;
mod mutation;

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use allocation::CountedAllocator;
pub use mutation::Form;
use mutation::Random;

/// Inputs of a reader in an ordinary test.
const INPUTS: u64 = 300;
/// Bytes that a reader may use at a time for each byte of its input, beside those that it may use for any.
const BYTES_EACH: usize = 64;
/// Bytes that most readers may use at a time for any input.
pub const BYTES: usize = 64 << 20;
/// An input that takes more of the processor's time is a finding; one that takes a minute by the clock ends the test at once.
const LONGEST: Duration = Duration::from_secs(5);
const HANG: Duration = Duration::from_mins(1);
/// Every so many inputs of a long run the number is noted.
const NOTED: u64 = 16;
/// Findings of a reader after which the rest is not worth the time.
const ENOUGH: usize = 5;

/// What reads a file.
pub type Read = Box<dyn Fn(&[u8])>;

/// Something that reads what others wrote.
pub struct Reader {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What its files consist of, for changes that reach beyond their first bytes.
    pub form: Form,
    /// Bytes that it may use at a time, beside 64 for each of the input.
    pub bytes: usize,
    /// Valid files.
    pub files: Vec<Vec<u8>>,
    /// Reads one. Its result is of no interest.
    pub read: Read,
}

/// Parts of the paths of libraries whose panics are caught: tokenizers with its tables, Parquet with its buffers.
const CAUGHT: [&str; 4] = ["/tokenizers-", "/spm_precompiled-", "/parquet-", "/bytes-"];

/// Where the last panic was, other than those that a reader catches on purpose.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// The first input that is tried.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// When the input that is being read was begun, in milliseconds since the start and from 1; 0 for none.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Damaged files of a form, the same for the same seed.
pub fn inputs(
    form: Form,
    files: &[Vec<u8>],
    seed: u64,
    count: u64,
) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| mutation::mutate(form, files, &mut Random::new(seed, number)))
}

/// Tries readers, and panics with all that was found.
pub fn run(readers: &[Reader], allocator: &CountedAllocator) {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let number = |name: &str| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    let only = variable("FISAO_FUZZ_READER");
    let inputs = number("FISAO_FUZZ_INPUTS").unwrap_or(INPUTS);
    let seed = number("FISAO_FUZZ_SEED").unwrap_or(0);
    FIRST.store(number("FISAO_FUZZ_FIRST").unwrap_or(0), Ordering::Relaxed);
    let chosen =
        readers.iter().filter(|reader| only.as_ref().is_none_or(|only| reader.name == only));
    watch();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(note_panic));
    let mut found = String::new();
    let mut report = String::new();
    for reader in chosen {
        let began = Instant::now();
        let (tried, findings) = try_reader(reader, inputs, seed, allocator);
        let seconds = began.elapsed().as_secs_f64();
        let name = reader.name;
        let count = findings.len();
        writeln!(
            report,
            "{name}: {tried} inputs of seed {seed} in {seconds:.1} s, {count} findings"
        )
        .expect("a String takes everything");
        for finding in findings {
            writeln!(found, "{name}: {finding}").expect("a String takes everything");
        }
    }
    panic::set_hook(hook);
    // For whoever asked for more than an ordinary test; no result depends on it.
    let folder = folder();
    let _ = std::fs::create_dir_all(&folder);
    let file = OpenOptions::new().create(true).append(true).open(folder.join("report.txt"));
    let _ = file.and_then(|mut file| file.write_all(report.as_bytes()));
    assert!(found.is_empty(), "{found}\n{report}");
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/fuzz"))
}

fn try_reader(
    reader: &Reader,
    inputs: u64,
    seed: u64,
    allocator: &CountedAllocator,
) -> (u64, Vec<String>) {
    let mut findings = Vec::new();
    for file in &reader.files {
        (reader.read)(file);
    }
    // What ends the process, such as a stack that overflows, leaves no other trace.
    let current = folder().join(format!("{}-{seed}-current", reader.name));
    let long = inputs > INPUTS && std::fs::create_dir_all(folder()).is_ok();
    let mut noted = long.then(|| File::create(&current).ok()).flatten();
    let first = FIRST.load(Ordering::Relaxed);
    for number in first..inputs {
        let mut random = Random::new(seed, number);
        let input = mutation::mutate(reader.form, &reader.files, &mut random);
        if let Some(noted) = noted.as_mut().filter(|_| number.is_multiple_of(NOTED)) {
            // In place: files that are cut and written anew are slow.
            let _ = noted.rewind().and_then(|()| write!(noted, "{number:20}"));
        }
        let Some(what) = try_input(reader, &input, allocator) else { continue };
        let path = folder().join(format!("{}-{seed}-{number}", reader.name));
        let kept = std::fs::create_dir_all(folder()).and_then(|()| std::fs::write(&path, &input));
        let kept = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
        findings.push(format!("input {number} of seed {seed}: {what} ({kept})"));
        if findings.len() == ENOUGH {
            return (number + 1, findings);
        }
    }
    let _ = std::fs::remove_file(current);
    (inputs, findings)
}

/// What is wrong with how an input is read.
fn try_input(reader: &Reader, input: &[u8], allocator: &CountedAllocator) -> Option<String> {
    *PANIC.lock().expect("nothing panics with it in hand") = None;
    let (began, worked) = (Instant::now(), processor_time());
    BEGUN.store(elapsed() + 1, Ordering::Relaxed);
    let before = allocator.begin();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (reader.read)(input)));
    let peak = allocator.peak().saturating_sub(before);
    BEGUN.store(0, Ordering::Relaxed);
    let panicked = PANIC.lock().expect("nothing panics with it in hand").take();
    if let Some(place) = panicked {
        return Some(format!("a panic at {place}"));
    }
    if outcome.is_err() {
        return Some("a panic".to_owned());
    }
    let allowed = BYTES_EACH * input.len() + reader.bytes;
    if peak > allowed {
        return Some(format!("{peak} bytes at a time for an input of {}", input.len()));
    }
    let mut took = began.elapsed();
    if let (Some(before), Some(now)) = (worked, processor_time()) {
        took = took.min(now.saturating_sub(before));
    }
    (took > LONGEST).then(|| format!("{:.1} s", took.as_secs_f64()))
}

/// Processor time of this process so far, where the system tells: on a busy machine others have the processor in between.
fn processor_time() -> Option<Duration> {
    /// Milliseconds of a tick, on every Linux.
    const TICK: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: the eleven fields before the ticks of the program and of the kernel for it.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Some(Duration::from_millis(TICK * ticks.sum::<Result<u64, _>>().ok()?))
}

/// Notes a panic of any thread, but for those of libraries that are caught where they are called.
fn note_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let caught = CAUGHT.iter().any(|library| place.contains(library));
    // Those of the standard library and of indexing are reported where they were called, in the library's file.
    if !caught && let Ok(mut last) = PANIC.lock() {
        let payload = info.payload_as_str().unwrap_or_default();
        let payload = payload.chars().take(200).collect::<String>();
        *last = Some(format!("{place}: {payload}"));
    }
}

/// Milliseconds since the first call.
fn elapsed() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(u64::MAX)
}

/// Ends the process when one input is read without end: a thread cannot be.
fn watch() {
    elapsed();
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let begun = BEGUN.load(Ordering::Relaxed);
            if begun > 0 && Duration::from_millis(elapsed().saturating_sub(begun)) > HANG {
                std::process::abort();
            }
        }
    });
}
