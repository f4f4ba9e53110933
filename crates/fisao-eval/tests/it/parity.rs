#![allow(dead_code, reason = "each scorer that has a reference uses it")]
//! Data to compare with the reference scorers, which is not part of the project: `FISAO_PARITY_DATA` names
//! its folder, by default `shared/data` beside the project.

use std::fs;
use std::path::PathBuf;

/// The bytes of one file of that data, or `None`, which is said with the name of the test.
#[expect(clippy::print_stderr, reason = "a test that does not run has to say so")]
pub(crate) fn data(test: &str, file: &str) -> Option<Vec<u8>> {
    let root: PathBuf = std::env::var_os("FISAO_PARITY_DATA").map_or_else(
        || [env!("CARGO_MANIFEST_DIR"), "..", "..", "..", "shared", "data"].iter().collect(),
        PathBuf::from,
    );
    let path = root.join(file);
    let bytes = fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {test} (no {file}; set FISAO_PARITY_DATA to the folder that holds it)");
    }
    bytes
}
