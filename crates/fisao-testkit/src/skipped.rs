//! Tests that do not run, for want of what they need.

use std::fs::OpenOptions;
use std::io::{Write as _, stderr};

/// Says that a test did not run, and why: on stderr itself, as what macros print is shown of failed tests only, and in the file
/// that `FISAO_SKIPPED_TESTS` names, by which `cargo xtask check` lists all at its end.
///
/// # Panics
/// The list cannot be written.
pub fn report_skipped(test: &str, reason: &str) {
    let line = format!("skipped: {test} ({reason})\n");
    stderr().write_all(line.as_bytes()).expect("stderr is open");
    if let Some(path) = std::env::var_os("FISAO_SKIPPED_TESTS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list can be written");
    }
}
