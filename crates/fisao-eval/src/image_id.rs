//! Which image is meant: a number, a name or a file of COCO.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::written_id;

/// What a file calls an image. Numbers become text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ImageId(pub String);

impl<'de> Deserialize<'de> for ImageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written_id::deserialize(deserializer).map(Self)
    }
}

/// How two names were found to mean the same image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matched {
    /// They are equal.
    Exactly,
    /// Both end in the same number, as in 391895, "000000391895" and `COCO_val2014_000000391895.jpg`.
    ByNumber,
    /// They are equal but for folder and file ending.
    ByFileName,
}

/// Finds images by any of their names.
#[derive(Clone, Debug, Default)]
pub struct ImageIndex {
    exact: HashMap<String, usize>,
    /// `None` where several images share the number or name, which then says nothing.
    numbers: HashMap<u64, Option<usize>>,
    stems: HashMap<String, Option<usize>>,
}

impl ImageIndex {
    /// Adds an image; what is found of it later is `position`.
    pub fn insert(&mut self, id: &str, position: usize) {
        self.exact.insert(id.to_owned(), position);
        if let Some(number) = coco_number(id) {
            let entry = self.numbers.entry(number).or_insert(Some(position));
            *entry = entry.filter(|&known| known == position);
        }
        let entry = self.stems.entry(stem(id).to_owned()).or_insert(Some(position));
        *entry = entry.filter(|&known| known == position);
    }

    /// Adds another name of an image. What is a name already stays what it was.
    pub fn insert_alias(&mut self, name: &str, position: usize) {
        self.exact.entry(name.to_owned()).or_insert(position);
        self.stems.entry(stem(name).to_owned()).or_insert(Some(position));
    }

    /// The position of the image that a name means, and how it was found.
    pub fn find(&self, id: &str) -> Option<(usize, Matched)> {
        if let Some(&position) = self.exact.get(id) {
            return Some((position, Matched::Exactly));
        }
        let by_number = coco_number(id).and_then(|number| *self.numbers.get(&number)?);
        let by_name = || *self.stems.get(stem(id))?;
        by_number
            .map(|position| (position, Matched::ByNumber))
            .or_else(|| by_name().map(|position| (position, Matched::ByFileName)))
    }
}

/// Whether two names end in the same number of COCO.
pub(crate) fn same_number(a: &str, b: &str) -> bool {
    coco_number(a).is_some_and(|number| coco_number(b) == Some(number))
}

/// What an image is called whatever a file calls it: its number in COCO where the name is one, without leading zeros, else
/// the name itself.
pub(crate) fn canonical(id: &str) -> String {
    coco_number(id).map_or_else(|| id.to_owned(), |number| number.to_string())
}

/// A name without folder and file ending.
fn stem(id: &str) -> &str {
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The number of an image of COCO: all of the name, or its twelve digits behind `COCO_{split}_`.
fn coco_number(id: &str) -> Option<u64> {
    let stem = stem(id);
    let digits = match stem.strip_prefix("COCO_") {
        Some(rest) => rest.rsplit_once('_')?.1,
        None => stem,
    };
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_padded_number_and_coco_file_name_are_equivalent() {
        let names =
            ["391895", "000000391895", "COCO_val2014_000000391895.jpg", "a/000000391895.png"];
        for (position, stored) in names.iter().enumerate() {
            let mut index = ImageIndex::default();
            index.insert(stored, position);
            for asked in names {
                let how = if asked == *stored { Matched::Exactly } else { Matched::ByNumber };
                assert_eq!(index.find(asked), Some((position, how)), "{asked} in {stored}");
            }
            assert_eq!(index.find("391896"), None);
        }
    }

    #[test]
    fn images_are_found_by_file_name_without_folder_and_extension() {
        let mut index = ImageIndex::default();
        index.insert("pictures/red.v2.png", 7);
        assert_eq!(index.find("red.v2"), None, "its own ending could be meant");
        assert_eq!(index.find("red.v2.jpg"), Some((7, Matched::ByFileName)));
        assert_eq!(index.find("blue.png"), None);
    }

    #[test]
    fn ambiguous_image_names_are_not_matched() {
        let mut index = ImageIndex::default();
        index.insert("a/1.png", 0);
        index.insert("b/1.png", 1);
        assert_eq!(index.find("1"), None);
        assert_eq!(index.find("b/1.png"), Some((1, Matched::Exactly)));
    }

    #[test]
    fn image_ids_are_read_from_numbers_and_strings() {
        let ids: Vec<ImageId> = serde_json::from_str(r#"[42, "x.png", 391895.0]"#).unwrap();
        assert_eq!(ids, ["42", "x.png", "391895"].map(|id| ImageId(id.to_owned())));
        let said = |text| serde_json::from_str::<ImageId>(text).unwrap_err().to_string();
        assert!(said("[]").contains("expected an id: a text or a whole number"), "{}", said("[]"));
        assert!(said("1.5").starts_with("1.5 is not a whole number"), "{}", said("1.5"));
    }
}
