//! Lists of images that a number is about, so that it can be compared with another.

use std::fmt;
use std::io::{self, BufRead};

use super::{ChairInput, GroundTruth};
use crate::digest;
use crate::image_id::{ImageId, ImageIndex, canonical};
use crate::rows::shortened;

/// Ids of COCO's images that CHAIR is measured on, one a line. They are drawn by `fixtures/chair_500/draw.py`.
const CHAIR_500: &str = include_str!("chair_500.txt");

/// Images by their ids, each once, under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageList {
    /// What it is called.
    pub name: String,
    ids: Vec<String>,
}

/// A list that cannot be used, or that does not fit what is measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageListError {
    /// The text cannot be read.
    #[error("cannot be read: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// A JSON list of something else.
    #[error("is not a JSON list of ids: {error}; write [42, 73, …], or one id a line")]
    Json {
        /// What the parser met.
        error: serde_json::Error,
    },
    /// A list of nothing.
    #[error("names no image; write one id a line")]
    Empty,
    /// One image twice, so that it is not clear how many there are.
    #[error("names image '{id}' twice; remove one of them")]
    Repeated {
        /// The image.
        id: String,
    },
    /// Images of the list that something lacks.
    #[error("{missing} of the {} images of {list} {lack}, first '{first}'", .images)]
    Missing {
        /// The list's name.
        list: String,
        /// How many it has.
        images: usize,
        /// How many of them are missing.
        missing: usize,
        /// The first of those.
        first: String,
        /// What they have none of.
        lack: Lack,
    },
}

/// What images of a list have none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A caption.
    Caption,
    /// Ground truth.
    GroundTruth,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caption => "have no caption",
            Self::GroundTruth => "have no ground truth",
        })
    }
}

impl ImageList {
    /// Name of the fixed list of 500.
    pub const CHAIR_500: &'static str = "chair-500";

    /// The fixed list: 500 images of COCO's val2014 that are also in val2017, so that no model has seen them that was
    /// trained on train2017.
    pub fn chair_500() -> Self {
        let ids = CHAIR_500.lines().map(str::to_owned).collect();
        Self { name: Self::CHAIR_500.to_owned(), ids }
    }

    /// Ids, one a line or as a JSON list. Empty lines are passed over.
    ///
    /// # Errors
    /// Text that is neither, an empty list, an image twice.
    pub fn read(name: &str, mut reader: impl BufRead) -> Result<Self, ImageListError> {
        let mut text = String::new();
        reader.read_to_string(&mut text).map_err(|source| ImageListError::Io { source })?;
        let text = text.trim_start_matches('\u{feff}').trim();
        let ids: Vec<String> = if text.starts_with('[') {
            let ids: Vec<ImageId> =
                serde_json::from_str(text).map_err(|error| ImageListError::Json { error })?;
            ids.into_iter().map(|ImageId(id)| id).collect()
        } else {
            text.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect()
        };
        if ids.is_empty() {
            return Err(ImageListError::Empty);
        }
        let mut sorted: Vec<String> = ids.iter().map(|id| canonical(id)).collect();
        sorted.sort_unstable();
        if let Some([id, ..]) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ImageListError::Repeated { id: shortened(id) });
        }
        Ok(Self { name: name.to_owned(), ids })
    }

    /// The ids, in the order of the list.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// [`image_ids_sha256`](super::ChairReport::image_ids_sha256) of a report on exactly these images.
    pub fn sha256(&self) -> String {
        let mut ids: Vec<String> = self.ids.iter().map(|id| canonical(id)).collect();
        ids.sort_unstable();
        digest::of_names(ids.iter().map(String::as_str))
    }

    /// Which of some captions describe images of the list, in order; `true` for those that do.
    ///
    /// # Errors
    /// Images of the list without a caption.
    pub fn captions(&self, captions: &[ChairInput]) -> Result<Vec<bool>, ImageListError> {
        let mut index = ImageIndex::default();
        for (position, id) in self.ids.iter().enumerate() {
            index.insert(id, position);
        }
        let mut described = vec![false; self.ids.len()];
        let mut listed = |caption: &ChairInput| {
            let found = index.find(&caption.image_id);
            found.is_some_and(|(position, _)| {
                described[position] = true;
                true
            })
        };
        let kept = captions.iter().map(&mut listed).collect();
        self.all(&described, Lack::Caption)?;
        Ok(kept)
    }

    /// What the ground truth calls the images, in the order of the list.
    ///
    /// # Errors
    /// Images of the list without ground truth.
    pub fn names<'t>(&self, truth: &'t GroundTruth) -> Result<Vec<&'t str>, ImageListError> {
        let (index, names) = (truth.index(), truth.keys().collect::<Vec<_>>());
        let found: Vec<Option<usize>> =
            self.ids.iter().map(|id| index.find(id).map(|(position, _)| position)).collect();
        let known: Vec<bool> = found.iter().map(Option::is_some).collect();
        self.all(&known, Lack::GroundTruth)?;
        Ok(found.into_iter().flatten().map(|position| names[position].as_str()).collect())
    }

    fn all(&self, present: &[bool], lack: Lack) -> Result<(), ImageListError> {
        let Some(first) = present.iter().position(|present| !present) else { return Ok(()) };
        Err(ImageListError::Missing {
            list: self.name.clone(),
            images: self.ids.len(),
            missing: present.iter().filter(|present| !**present).count(),
            first: shortened(&self.ids[first]),
            lack,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn captions(ids: &[&str]) -> Vec<ChairInput> {
        let caption = |id: &&str| ChairInput { image_id: (*id).to_owned(), caption: String::new() };
        ids.iter().map(caption).collect()
    }

    #[test]
    fn chair_500_is_the_list_that_was_published() {
        let list = ImageList::chair_500();
        let numbers: BTreeSet<u32> = list.ids().iter().map(|id| id.parse().unwrap()).collect();
        assert_eq!((list.ids().len(), numbers.len()), (500, 500));
        assert_eq!(
            list.sha256(),
            "392df2b44c4a19c807d19c6be6ba218132a66f94f0a2f41e2b5333d58343fde8"
        );
    }

    #[test]
    fn lists_are_read_from_lines_and_json() {
        let read = |text: &str| ImageList::read("mine", text.as_bytes());
        let lines = read("42\n\n 000000000073 \nphoto.jpg\n").unwrap();
        assert_eq!(lines.ids(), ["42", "000000000073", "photo.jpg"]);
        assert_eq!(read("[42, \"000000000073\", \"photo.jpg\"]").unwrap(), lines);
        assert_eq!(lines.sha256(), digest::of_names(["42", "73", "photo.jpg"]));
        let said = |text: &str| read(text).unwrap_err().to_string();
        assert!(said("\n").contains("names no image"));
        assert!(said("7\n8\n007\n").contains("'7' twice"));
        assert!(said("[{}]").contains("not a JSON list of ids"));
    }

    #[test]
    fn captions_of_other_images_are_left_out_and_missing_ones_named() {
        let list = ImageList::read("mine", "42\n73\n".as_bytes()).unwrap();
        let named = captions(&["COCO_val2014_000000000073.jpg", "9", "42", "42"]);
        assert_eq!(list.captions(&named).unwrap(), [true, false, true, true]);
        let error = list.captions(&captions(&["42", "9"])).unwrap_err().to_string();
        assert_eq!(error, "1 of the 2 images of mine have no caption, first '73'");
        let truth: GroundTruth =
            [("000000000042".to_owned(), BTreeSet::new())].into_iter().collect();
        let error = list.names(&truth).unwrap_err().to_string();
        assert_eq!(error, "1 of the 2 images of mine have no ground truth, first '73'");
    }
}
