//! What data something was begun with: digests of every row and image, so that going on with data that has been edited is
//! noticed, and the edit named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::FormatError;
use crate::digest::{sha256_bytes, sha256_file, sha256_parts};
use crate::documents::{read_json, write_json};

/// Layout of the file that this version writes.
const VERSION: u32 = 1;

/// The data that something was begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    version: u32,
    /// What else the results depend on, by what a person would call it; digests or short texts.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The rows, in their order.
    pub rows: Vec<RowDigest>,
}

/// Digests of one row, the first 8 bytes of a SHA-256 each: enough to notice an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowDigest {
    /// Of its texts: name, prompt and answer.
    pub text: u64,
    /// Of the bytes of its image file.
    pub image: u64,
}

impl RowDigest {
    /// Of a row's texts in order, and the [digest](digest_bytes) of its image.
    pub fn new<Part: AsRef<[u8]>>(texts: impl IntoIterator<Item = Part>, image: u64) -> Self {
        Self { text: first_8_bytes(&sha256_parts(texts)), image }
    }
}

impl Serialize for RowDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}{:016x}", self.text, self.image))
    }
}

impl<'de> Deserialize<'de> for RowDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let part = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        match (text.len(), part(0..16), part(16..32)) {
            (32, Some(text), Some(image)) => Ok(Self { text, image }),
            _ => Err(serde::de::Error::custom(format!("`{text}` is not a row's digest"))),
        }
    }
}

/// Digest of an image file's bytes.
pub fn digest_bytes(bytes: &[u8]) -> u64 {
    first_8_bytes(&sha256_bytes(bytes))
}

/// Of a SHA-256 in hexadecimal.
fn first_8_bytes(sha256: &str) -> u64 {
    u64::from_str_radix(&sha256[..16], 16).expect("a digest is hexadecimal")
}

/// Stands for an image that is not there, which a run may pass over.
const NOT_THERE: u64 = 0;

/// Digests of image files, each read once, on all cores.
#[derive(Debug, Default)]
pub struct FileDigests {
    known: HashMap<PathBuf, u64>,
}

impl FileDigests {
    /// Reads those of some files that are not known yet.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read<'a>(
        &mut self,
        files: impl IntoIterator<Item = &'a Path>,
    ) -> Result<(), FormatError> {
        let fresh: HashSet<&Path> =
            files.into_iter().filter(|&file| !self.known.contains_key(file)).collect();
        let fresh: Vec<&Path> = fresh.into_iter().collect();
        let found = fresh.into_par_iter().map(|file| {
            let digest = match sha256_file(file) {
                Ok(digest) => first_8_bytes(&digest),
                Err(FormatError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    NOT_THERE
                }
                Err(error) => return Err(error),
            };
            Ok((file.to_owned(), digest))
        });
        self.known.extend(found.collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }

    /// The digest of a file that was read.
    ///
    /// # Panics
    /// The file was not.
    pub fn of(&self, file: &Path) -> u64 {
        self.known[file]
    }
}

impl DataRecord {
    /// Of rows in their order.
    pub fn new(rows: Vec<RowDigest>) -> Self {
        Self { version: VERSION, inputs: BTreeMap::new(), rows }
    }

    /// The same with something else that the results depend on.
    #[must_use]
    pub fn with_input(mut self, name: &str, value: impl Into<String>) -> Self {
        self.inputs.insert(name.to_owned(), value.into());
        self
    }

    /// Reads a record; `None` where there is none, as earlier versions wrote none.
    ///
    /// # Errors
    /// It is there and cannot be read, or is of a later version.
    pub fn read(path: &Path) -> Result<Option<Self>, FormatError> {
        const WHAT: &str = "record of the data";
        if !path.exists() {
            return Ok(None);
        }
        let record: Self = read_json(WHAT, path)?;
        if record.version != VERSION {
            let reason = format!("it is of version {}, and this is {VERSION}", record.version);
            return Err(FormatError::Malformed { what: WHAT, path: path.to_owned(), reason });
        }
        Ok(Some(record))
    }

    /// Writes it atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FormatError> {
        write_json(path, self)
    }

    /// What has changed since this record was made; `None` if nothing has. Inputs that one of the two does not name are not
    /// compared: earlier versions wrote fewer of them down.
    pub fn changes(&self, now: &Self) -> Option<DataChanges> {
        let differs = |&(name, before): &(&String, &String)| {
            now.inputs.get(name).is_some_and(|now| now != before)
        };
        let input = self.inputs.iter().find(differs).map(|(name, _)| name);
        let rows = RowChanges::between(&self.rows, &now.rows);
        (input.is_some() || rows.is_some()).then(|| DataChanges { input: input.cloned(), rows })
    }
}

/// How data differs from what something was begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataChanges {
    /// The first of the other inputs that is another.
    pub input: Option<String>,
    /// How the rows differ.
    pub rows: Option<RowChanges>,
}

impl DataChanges {
    /// In words; `name` tells what the row at an index is called now.
    pub fn describe(&self, name: impl Fn(usize) -> String) -> String {
        let input = self.input.iter().map(|input| format!("the {input} is another"));
        let rows = self.rows.iter().map(|rows| rows.describe(&name));
        input.chain(rows).collect::<Vec<_>>().join("; ")
    }
}

/// How rows differ, in numbers, and the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChanges {
    /// Rows whose image is another under the same texts.
    pub images: usize,
    /// Rows whose texts are others about the same image.
    pub texts: usize,
    /// Rows that are new.
    pub added: usize,
    /// Rows that are no longer there.
    pub removed: usize,
    /// The first change.
    pub first: RowChange,
}

/// One change, at the index of its row: of the rows as they are now, but for one that was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// Another image under the same texts.
    Image(usize),
    /// Other texts about the same image.
    Text(usize),
    /// A new row.
    Added(usize),
    /// A row that is no longer there.
    Removed(usize),
    /// The same rows in another order.
    Moved(usize),
}

impl RowChanges {
    fn between(begun: &[RowDigest], now: &[RowDigest]) -> Option<Self> {
        let same = begun.iter().zip(now).take_while(|(a, b)| a == b).count();
        if same == begun.len() && same == now.len() {
            return None;
        }
        // What is left over on either side, whatever the order.
        let (gone, new) = (left_over(begun, now), left_over(now, begun));
        let (mut by_text, mut by_image) =
            (places(begun, &gone, |row| row.text), places(begun, &gone, |row| row.image));
        let mut unmatched: HashSet<usize> = gone.iter().copied().collect();
        let mut take = |found: Option<&mut Vec<usize>>| {
            let found = found?;
            while let Some(at) = found.pop() {
                if unmatched.remove(&at) {
                    return Some(at);
                }
            }
            None
        };
        let mut changes =
            Self { images: 0, texts: 0, added: 0, removed: 0, first: RowChange::Moved(same) };
        let mut first = None;
        for at in new {
            let change = if take(by_text.get_mut(&now[at].text)).is_some() {
                changes.images += 1;
                RowChange::Image(at)
            } else if take(by_image.get_mut(&now[at].image)).is_some() {
                changes.texts += 1;
                RowChange::Text(at)
            } else {
                changes.added += 1;
                RowChange::Added(at)
            };
            first.get_or_insert(change);
        }
        changes.removed = unmatched.len();
        let removed = unmatched.into_iter().min().map(RowChange::Removed);
        changes.first = first.or(removed).unwrap_or(RowChange::Moved(same));
        Some(changes)
    }

    fn describe(&self, name: &impl Fn(usize) -> String) -> String {
        let first = match self.first {
            RowChange::Image(at) => format!("the image of {} is another", name(at)),
            RowChange::Text(at) => format!("{} has another prompt or answer", name(at)),
            RowChange::Added(at) => format!("{} is new", name(at)),
            RowChange::Removed(at) => format!("what was row {} is no longer there", at + 1),
            RowChange::Moved(at) => {
                return format!("the rows are in another order, from {} on", name(at));
            }
        };
        let counts = [
            (self.images, "with another image"),
            (self.texts, "with another prompt or answer"),
            (self.added, "added"),
            (self.removed, "removed"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        format!("{first} (rows: {})", counts.join(", "))
    }
}

impl fmt::Display for DataChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(|at| format!("row {}", at + 1)))
    }
}

/// Indexes of the rows of `these` that `others` does not have, as often.
fn left_over(these: &[RowDigest], others: &[RowDigest]) -> Vec<usize> {
    let mut counts: HashMap<RowDigest, usize> = HashMap::new();
    for &row in others {
        *counts.entry(row).or_default() += 1;
    }
    let is_new = |(_, row): &(usize, &RowDigest)| match counts.get_mut(row) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    these.iter().enumerate().filter(is_new).map(|(at, _)| at).collect()
}

/// Indexes of some rows by a digest of theirs, the last first.
fn places(
    rows: &[RowDigest],
    indexes: &[usize],
    digest: impl Fn(&RowDigest) -> u64,
) -> HashMap<u64, Vec<usize>> {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for &at in indexes.iter().rev() {
        places.entry(digest(&rows[at])).or_default().push(at);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rows: &[(u64, u64)]) -> DataRecord {
        DataRecord::new(rows.iter().map(|&(text, image)| RowDigest { text, image }).collect())
    }

    fn said(begun: &[(u64, u64)], now: &[(u64, u64)]) -> String {
        record(begun).changes(&record(now)).map_or_else(String::new, |changes| changes.to_string())
    }

    #[test]
    fn every_kind_of_data_change_is_reported_with_its_first_row() {
        let begun = [(1, 10), (2, 20), (3, 20), (4, 40)];
        assert_eq!(said(&begun, &begun), "");
        assert_eq!(
            said(&begun, &[(1, 10), (2, 21), (3, 20), (4, 40)]),
            "the image of row 2 is another (rows: 1 with another image)"
        );
        assert_eq!(
            said(&begun, &[(1, 10), (2, 20), (3, 20), (5, 40)]),
            "row 4 has another prompt or answer (rows: 1 with another prompt or answer)"
        );
        assert_eq!(
            said(&begun, &[(0, 9), (1, 10), (2, 20), (3, 20), (4, 40)]),
            "row 1 is new (rows: 1 added)"
        );
        assert_eq!(
            said(&begun, &[(1, 10), (3, 20), (4, 40)]),
            "what was row 2 is no longer there (rows: 1 removed)"
        );
        assert_eq!(
            said(&begun, &[(1, 10), (3, 20), (2, 20), (4, 40)]),
            "the rows are in another order, from row 2 on"
        );
        assert_eq!(
            said(&begun, &[(7, 70), (1, 11), (2, 20), (3, 20)]),
            "row 1 is new (rows: 1 with another image, 1 added, 1 removed)"
        );
        // A row that is there twice counts twice.
        assert_eq!(said(&[(1, 10)], &[(1, 10), (1, 10)]), "row 2 is new (rows: 1 added)");
    }

    #[test]
    fn changed_input_is_reported_by_name() {
        let before = record(&[(1, 1)]).with_input("vocabulary", "a");
        let changes = before.changes(&record(&[(1, 1)]).with_input("vocabulary", "b")).unwrap();
        assert_eq!(changes.to_string(), "the vocabulary is another");
        let more = record(&[(1, 1)]).with_input("vocabulary", "a").with_input("model", "c");
        assert_eq!((before.changes(&more), more.changes(&before)), (None, None));
    }

    #[test]
    fn data_record_round_trips_through_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.json");
        assert_eq!(DataRecord::read(&path).unwrap(), None);
        let written = DataRecord::new(vec![RowDigest::new(["a", "b"], digest_bytes(b"image"))]);
        written.write(&path).unwrap();
        assert_eq!(DataRecord::read(&path).unwrap(), Some(written));
        let digest = |texts: &[&str]| RowDigest::new(texts, 0).text;
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
