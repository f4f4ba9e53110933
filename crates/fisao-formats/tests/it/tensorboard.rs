//! Event files: byte by byte those that the tensorboard library writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fisao_formats::tensorboard::EventWriter;
use tempfile::tempdir;

fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("readable"))).collect();
    names.sort_unstable();
    names
}

/// The records of `fixtures/tensorboard/make.py`.
fn write(folder: &Path) {
    let (begun, resumed) = (1_700_000_000.25, 1_700_000_100.5);
    let mut events = EventWriter::create(folder, at(begun)).expect("a new folder");
    let writable = "the folder is writable";
    events.scalars(0, at(begun), [("reward", 0.0), ("kl", f64::NAN)]).expect(writable);
    let table = "| key | value |\n|---|---|\n| τ | 0.5 |";
    events.text("settings", 0, at(begun), table).expect(writable);
    let values: Vec<f64> = (0..=60).map(f64::from).collect();
    events.histogram("scores", 0, at(begun), &values).expect(writable);
    events.scalars(1, at(begun + 1.0), [("reward", -1.5), ("kl", 0.1)]).expect(writable);
    events.scalars(2, at(begun + 2.0), [("reward", 99.0), ("kl", 99.0)]).expect(writable);
    events.text("sample", 2, at(begun + 2.0), "").expect(writable);
    let mut events = EventWriter::resume(folder, 2, at(resumed)).expect("the folder is there");
    events.scalars(2, at(resumed), [("reward", 2.5), ("kl", 0.25)]).expect(writable);
    events.scalars(300, at(resumed + 1.0), [("reward", 3.5), ("kl", 0.5)]).expect(writable);
}

#[test]
fn event_files_match_the_reference() {
    let folder = tempdir().expect("a temporary folder");
    let ours = folder.path().join("run/tensorboard");
    write(&ours);
    let reference: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "fixtures", "tensorboard", "run"].iter().collect();
    assert_eq!(names(&ours), names(&reference));
    for name in names(&reference) {
        let read = |folder: &Path| fs::read(folder.join(&name)).expect("it is there");
        assert_eq!(read(&ours), read(&reference), "{name}");
    }
}

#[test]
fn records_are_flushed_as_soon_as_they_are_written() {
    let folder = tempdir().expect("a temporary folder");
    let mut events = EventWriter::create(folder.path(), at(5.0)).expect("a new folder");
    let path = events.path().to_owned();
    let length = || fs::metadata(&path).expect("it is there").len();
    let empty = length();
    events.scalar("reward", 3, at(6.0), 0.5).expect("writable");
    let one = length();
    // 16 bytes of frame, 9 of time, 2 of step, 2 and 2 of nested messages, 8 of tag, 5 of value.
    assert_eq!(one - empty, 16 + 9 + 2 + 2 + 2 + 8 + 5);
    events.scalars(4, at(6.0), []).expect("nothing to write");
    events.histogram("scores", 4, at(6.0), &[f64::NAN]).expect("nothing to write");
    assert_eq!(length(), one);
}

#[test]
fn event_file_names_increase_even_if_the_clock_goes_back() {
    let folder = tempdir().expect("a temporary folder");
    for name in ["events.out.tfevents.1700000000.host.12.0", "events.out.tfevents.other", "notes"] {
        fs::write(folder.path().join(name), "").expect("writable");
    }
    let name = |events: EventWriter| {
        events.path().file_name().expect("a file").to_str().expect("UTF-8").to_owned()
    };
    let begun = EventWriter::create(folder.path(), at(1_700_000_000.9)).expect("writable");
    assert_eq!(name(begun), "events.out.tfevents.1700000001.fisao");
    let set_back = EventWriter::resume(folder.path(), 7, at(12.0)).expect("writable");
    assert_eq!(name(set_back), "events.out.tfevents.1700000002.fisao");
    let later = EventWriter::resume(folder.path(), 7, at(1_800_000_000.0)).expect("writable");
    assert_eq!(name(later), "events.out.tfevents.1800000000.fisao");
}

#[test]
fn uncreatable_event_folder_is_reported_by_path() {
    let folder = tempdir().expect("a temporary folder");
    fs::write(folder.path().join("run"), "").expect("writable");
    let result = EventWriter::create(&folder.path().join("run/tensorboard"), at(1.0));
    let said = crate::message(result, &folder);
    assert!(said.starts_with("cannot create DIR/run/tensorboard: "), "{said}");
}
