//! SHA-256 of what a number depends on, so that two reports can be told to be about the same.

use sha2::{Digest, Sha256};

/// Of names, each followed by a line feed; in hexadecimal.
pub(crate) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for name in names {
        digest.update(name);
        digest.update("\n");
    }
    hex::encode(digest.finalize())
}

/// Of a text; in hexadecimal.
pub(crate) fn of_text(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_standard_sha256() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_text("abc"), abc);
        assert_eq!(of_names(["7", "b.png"]), of_text("7\nb.png\n"));
    }
}
