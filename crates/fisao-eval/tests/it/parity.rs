#![allow(dead_code, reason = "each scorer that has a reference uses it")]
//! Data to compare with the reference scorers, which is not part of the project: `FISAO_PARITY_DATA` names
//! its folder, by default `shared/data` beside the project.

use std::fs;
use std::path::PathBuf;

use fisao_testkit::skipped::report_skipped;

/// The bytes of one file of that data, or `None`, which is reported with the name of the test.
pub(crate) fn data(test: &str, file: &str) -> Option<Vec<u8>> {
    let root: PathBuf = std::env::var_os("FISAO_PARITY_DATA").map_or_else(
        || [env!("CARGO_MANIFEST_DIR"), "..", "..", "..", "shared", "data"].iter().collect(),
        PathBuf::from,
    );
    let path = root.join(file);
    let bytes = fs::read(&path).ok();
    if bytes.is_none() {
        let reason = format!("no {file}; set FISAO_PARITY_DATA to the folder that holds it");
        report_skipped(test, &reason);
    }
    bytes
}
