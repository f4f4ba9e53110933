//! Decoding and resampling against Pillow, and what is said about files that are wrong.

mod decoding;
mod resampling;

use fisao_images::ImageError;

/// The message of an error, with the folder that the test made shortened to `DIR`.
fn message<T: std::fmt::Debug>(
    result: Result<T, ImageError>,
    folder: &tempfile::TempDir,
) -> String {
    let error = result.expect_err("this input is wrong and has to be refused");
    error.to_string().replace(&folder.path().display().to_string(), "DIR")
}
