//! What is really in the images: from COCO's annotations, or from lists of objects.

mod annotations;
mod document;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, BufRead};
use std::ops::Deref;

use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};

use self::annotations::Annotations;
use self::document::{Document, DocumentSeed};
use super::{MentionFinder, ObjectVocabulary, Rules};
use crate::image_id::{ImageIndex, same_number};
use crate::rows::{Place, RowError, at_column, read_rows};

/// Image id → categories really in the image; and what the images' files are called, where that is another name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroundTruth {
    objects: BTreeMap<String, BTreeSet<String>>,
    files: BTreeMap<String, String>,
}

impl Deref for GroundTruth {
    type Target = BTreeMap<String, BTreeSet<String>>;

    fn deref(&self) -> &Self::Target {
        &self.objects
    }
}

impl From<BTreeMap<String, BTreeSet<String>>> for GroundTruth {
    fn from(objects: BTreeMap<String, BTreeSet<String>>) -> Self {
        Self { objects, files: BTreeMap::new() }
    }
}

impl FromIterator<(String, BTreeSet<String>)> for GroundTruth {
    fn from_iter<I: IntoIterator<Item = (String, BTreeSet<String>)>>(images: I) -> Self {
        images.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl GroundTruth {
    /// What the file of an image is called: its id, unless the ground truth names a file.
    pub fn file_of<'a>(&'a self, id: &'a str) -> &'a str {
        self.files.get(id).map_or(id, String::as_str)
    }

    /// Finds images by any of their names; what is found is the place among [`keys`](BTreeMap::keys).
    pub fn index(&self) -> ImageIndex {
        let mut index = ImageIndex::default();
        for (position, id) in self.objects.keys().enumerate() {
            index.insert(id, position);
        }
        for (position, id) in self.objects.keys().enumerate() {
            if let Some(file) = self.files.get(id) {
                index.insert_alias(file, position);
            }
        }
        index
    }
}

/// Shapes that are understood, for error messages.
const EXPECTED: &str = r#"rows of {"image_id": …, "objects": ["…"]}, one object of {"id": ["…"]}, or COCO's instances_*.json or captions_*.json"#;

/// Text that is not ground truth.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The text cannot be read.
    #[error("cannot be read: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// A list with a broken entry.
    #[error(transparent)]
    Row(#[from] RowError),
    /// An object that is not ground truth.
    #[error("{}; expected {EXPECTED}", at_column(Place::line(*line), error))]
    Document {
        /// Line the parser had come to, counted from 1.
        line: usize,
        /// What the parser met.
        error: serde_json::Error,
    },
    /// Ground truth given twice for one image in one file.
    #[error("image '{image_id}' has ground truth twice; merge its rows into one")]
    Repeated {
        /// The image.
        image_id: String,
    },
    /// An annotation of a category without a name.
    #[error(
        "image '{image_id}' has an annotation of category {category_id}, which \"categories\" does \
         not list; give the whole instances_*.json"
    )]
    UnknownCategoryId {
        /// The image.
        image_id: String,
        /// The number.
        category_id: u64,
    },
}

/// What ground truth was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroundTruthSummary {
    /// Images that have ground truth now.
    pub images: usize,
    /// Images given with a list of their objects.
    pub lists: usize,
    /// Annotated instances of COCO.
    pub instances: usize,
    /// Ground-truth captions of COCO.
    pub captions: usize,
    /// Annotated categories that the vocabulary does not know, with their annotations. They are left out, which
    /// is right where no caption can name them, and wrong where the vocabulary calls them something else.
    pub unknown_categories: BTreeMap<String, usize>,
}

/// Gathers ground truth from any number of files; what several files say of one image is put together. They
/// have to call it by the same name for that.
#[derive(Debug)]
pub struct GroundTruthReader<'v> {
    finder: Option<(&'v ObjectVocabulary, MentionFinder<'v>)>,
    truth: GroundTruth,
    summary: GroundTruthSummary,
}

impl<'v> GroundTruthReader<'v> {
    /// A reader that knows COCO's annotations too: categories are taken by the names of the vocabulary, and
    /// captions name objects by the rules given.
    pub fn new(vocabulary: &'v ObjectVocabulary, rules: Rules) -> Self {
        let finder = Some((vocabulary, MentionFinder::new(vocabulary, rules)));
        Self { finder, ..Self::of_lists() }
    }

    /// A reader of lists only.
    fn of_lists() -> Self {
        Self { finder: None, truth: GroundTruth::default(), summary: GroundTruthSummary::default() }
    }

    /// Adds a file. What kind it is shows in its contents.
    ///
    /// - rows of `{"image_id" | "image": …, "objects": […]}`, as a list or one per line;
    /// - one object from image ids to lists of objects;
    /// - `{"objects": [names], "images": {id: [indices of names]}}`;
    /// - COCO's `instances_*.json` and `captions_*.json`, whatever the order of their parts, in memory that
    ///   grows with the images and not with the annotations. Images that are listed without any annotation hold
    ///   nothing.
    ///
    /// # Errors
    /// Text that is none of these, with the line; an image twice in one file.
    pub fn read(&mut self, mut reader: impl BufRead) -> Result<(), InputError> {
        // Images that only earlier files have told of, so far.
        let mut earlier: HashSet<String> = self.truth.keys().cloned().collect();
        let first = opening(&mut reader).map_err(|source| InputError::Io { source })?;
        if first == Some(b'[') || starts_with_a_row(&mut reader) {
            return self.read_rows(reader, &mut earlier);
        }
        let mut text = serde_json::Deserializer::from_reader(reader);
        while text.end().is_err() {
            let seed = DocumentSeed { finder: self.finder.as_mut().map(|(_, finder)| finder) };
            let document = seed
                .deserialize(&mut text)
                .map_err(|error| InputError::Document { line: error.line(), error })?;
            self.add(document, &mut earlier)?;
        }
        Ok(())
    }

    /// What was gathered.
    pub fn finish(mut self) -> (GroundTruth, GroundTruthSummary) {
        self.summary.images = self.truth.len();
        (self.truth, self.summary)
    }

    fn read_rows(
        &mut self,
        reader: impl BufRead,
        earlier: &mut HashSet<String>,
    ) -> Result<(), InputError> {
        let mut repeated = None;
        let done = read_rows(reader, r#"{"image_id": …, "objects": ["…"]}"#, |place, row| {
            let Document::Lists(lists) = row else {
                let reason =
                    "is not a row of ground truth; give {\"image_id\": …, \"objects\": […]}";
                return Err(RowError::Meaning { place, reason: reason.to_owned() });
            };
            self.add_lists(lists, earlier).map_err(|error| {
                repeated = Some(error);
                RowError::Meaning { place, reason: String::new() }
            })
        });
        repeated.map_or_else(|| done.map_err(InputError::Row), Err)
    }

    fn add(&mut self, document: Document, earlier: &mut HashSet<String>) -> Result<(), InputError> {
        match document {
            Document::Lists(lists) => self.add_lists(lists, earlier),
            Document::Annotations(annotations) => self.add_annotations(annotations),
        }
    }

    fn add_lists(
        &mut self,
        lists: Vec<(String, Vec<String>)>,
        earlier: &mut HashSet<String>,
    ) -> Result<(), InputError> {
        for (image_id, objects) in lists {
            self.summary.lists += 1;
            let entry = match self.truth.objects.entry(image_id) {
                Entry::Vacant(entry) => {
                    // What no earlier file has is new to this one, too.
                    entry.insert(objects.into_iter().collect());
                    continue;
                }
                Entry::Occupied(entry) => entry,
            };
            if !earlier.remove(entry.key()) {
                return Err(InputError::Repeated { image_id: entry.key().clone() });
            }
            entry.into_mut().extend(objects);
        }
        Ok(())
    }

    fn add_annotations(&mut self, annotations: Annotations) -> Result<(), InputError> {
        // Annotations are only ever read with a vocabulary at hand.
        let Some((vocabulary, _)) = self.finder else { return Ok(()) };
        self.summary.instances +=
            annotations.instances.values().flat_map(BTreeMap::values).sum::<usize>();
        self.summary.captions += annotations.captions;
        for (image_id, file) in annotations.images {
            if let Some(file) = file.filter(|file| !same_number(&image_id, file)) {
                self.truth.files.insert(image_id.clone(), file);
            }
            self.truth.objects.entry(image_id).or_default();
        }
        for (image_id, mentioned) in annotations.mentioned {
            let names = mentioned.into_iter().map(|at| vocabulary.categories()[at].clone());
            self.truth.objects.entry(image_id).or_default().extend(names);
        }
        for (image_id, instances) in annotations.instances {
            let truth = self.truth.objects.entry(image_id.clone()).or_default();
            for (category_id, count) in instances {
                let Some(name) = annotations.categories.get(&category_id) else {
                    return Err(InputError::UnknownCategoryId { image_id, category_id });
                };
                if let Some(category) = vocabulary.category_of(name) {
                    truth.insert(category.to_owned());
                } else {
                    *self.summary.unknown_categories.entry(name.clone()).or_default() += count;
                }
            }
        }
        Ok(())
    }
}

/// Reads lists of objects, in any shape that [`GroundTruthReader::read`] knows but COCO's own, which take a
/// vocabulary to be understood.
///
/// # Errors
/// Text that is no ground truth, or an image listed twice.
pub fn read_ground_truth(reader: impl BufRead) -> Result<GroundTruth, InputError> {
    let mut truth = GroundTruthReader::of_lists();
    truth.read(reader)?;
    Ok(truth.finish().0)
}

/// Whether the first line is a row of its own, so that lines can be read one by one, which is quicker. A line that
/// does not fit the reader's buffer is left to the parser of documents, to which lines are the same.
fn starts_with_a_row(reader: &mut impl BufRead) -> bool {
    let buffer = reader.fill_buf().unwrap_or_default();
    let end = buffer.iter().position(|&byte| byte == b'\n');
    end.is_some_and(|end| {
        let row = serde_json::from_slice::<Document>(&buffer[..end]);
        matches!(row, Ok(Document::Lists(_)))
    })
}

/// The first byte behind byte order mark and white space, which stays unread.
fn opening(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    // Line breaks stay, so that errors count lines as an editor does.
    while reader.fill_buf()?.first().is_some_and(|byte| [0xEF, 0xBB, 0xBF, b' '].contains(byte)) {
        reader.consume(1);
    }
    let buffer = reader.fill_buf()?;
    Ok(buffer.iter().copied().find(|byte| !byte.is_ascii_whitespace()))
}
