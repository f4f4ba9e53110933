#![allow(dead_code, reason = "each scorer that has a reference uses it")]
//! Data to compare with the reference scorers, which is not part of the project: `FISAO_PARITY_DATA` names
//! its folder, by default `shared/data` beside the project.

use std::fs::{self, OpenOptions};
use std::io::{Write as _, stderr};
use std::path::PathBuf;

/// The bytes of one file of that data, or `None`, which is reported with the name of the test.
pub(crate) fn data(test: &str, file: &str) -> Option<Vec<u8>> {
    let root: PathBuf = std::env::var_os("FISAO_PARITY_DATA").map_or_else(
        || [env!("CARGO_MANIFEST_DIR"), "..", "..", "..", "shared", "data"].iter().collect(),
        PathBuf::from,
    );
    let path = root.join(file);
    let bytes = fs::read(&path).ok();
    if bytes.is_none() {
        report_skipped(&format!(
            "skipped: {test} (no {file}; set FISAO_PARITY_DATA to the folder that holds it)\n"
        ));
    }
    bytes
}

/// Says that a test did not run: on stderr itself, as what macros print is shown of failed tests only, and in the file that
/// `FISAO_SKIPPED_TESTS` names, by which `cargo xtask check` lists all at its end.
fn report_skipped(line: &str) {
    stderr().write_all(line.as_bytes()).expect("stderr is open");
    if let Some(path) = std::env::var_os("FISAO_SKIPPED_TESTS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list can be written");
    }
}
