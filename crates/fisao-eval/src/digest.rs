//! SHA-256 of what a number depends on, so that two reports can be told to be about the same.

use sha2::{Digest, Sha256};

/// Of names, each followed by a line feed; in hexadecimal.
pub(crate) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for name in names {
        digest.update(name);
        digest.update("\n");
    }
    hexadecimal(&digest.finalize())
}

/// Of a text; in hexadecimal.
pub(crate) fn of_text(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_text("abc"), abc);
        assert_eq!(of_names(["7", "b.png"]), of_text("7\nb.png\n"));
    }
}
