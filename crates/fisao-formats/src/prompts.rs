//! Prompt sets: which images a model is asked about in training, how, and what is a good answer.
//!
//! | form | rows |
//! |---|---|
//! | a folder of images | one per image, under the default prompt |
//! | JSON lines, or a JSON list of objects | one per prompt of an object |
//! | a Parquet file, or a folder of them | one per row |
//!
//! Which form a file has shows in its content, not its name. A row's fields are those of LLaVA-Instruct
//! and of TRL's datasets:
//!
//! * `image`, or `images` with one: a file's name, an encoded file in base64, bare or as a `data:` URL, or, in Parquet, an
//!   encoded file as it is (Hugging Face datasets' structure of `bytes` and `path`, or bytes).
//! * `prompt`, `question` or `text`, the first that is there: text or a conversation; `prompts`, in JSON:
//!   a list of texts, each of which is a row; or a conversation in `conversations` or `messages`. Without
//!   any, or with an empty one, the default prompt.
//! * `chosen` and `rejected`, or one of `response`, `answer`, `completion` and `caption`: text, or a
//!   conversation whose last turn of the assistant is meant. Lists of reference answers are not read.
//! * `id`, `question_id` or `uid`.
//!
//! A conversation is a list of `role` and `content`, or `from` and `value`; of it the first turn of the
//! user is the prompt, and the turn of the assistant that follows it the response. The placeholder
//! `<image>` is taken out of such a turn, as LLaVA does it, and from the ends of a prompt that is plain
//! text; in the midst of one it stays, for that is a whole model input.
//!
//! Rows without an image, which LLaVA-Instruct has, and rows with several are left out and counted.
//! Every row of a JSON file is checked when it is opened, those of Parquet when they are read.
//!
//! A million rows do not sit in memory: of a JSON file 16 bytes per row do, of Parquet files an entry
//! per block of rows, of a folder the files' names.

mod digests;
mod elements;
mod fields;
mod form;
mod image_folder;
mod json;
mod order;
mod parquet;
mod reading;
mod row;
mod turns;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::form::PromptKind;
use self::form::{Form, recognise};
use self::image_folder::{ImageFolder, shortened};
use self::json::{JsonIndex, Layout};
pub use self::order::Split;
use self::parquet::ParquetIndex;
use self::reading::{ImageReference, Reading};
pub use self::row::{Answer, ImageCheck, PromptRow, RowImage};
use crate::FormatError;
use crate::images::{is_hidden, list_images};

/// Rows that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Rows without an image.
    pub without_image: usize,
    /// Rows with more than one image.
    pub several_images: usize,
}

enum Source {
    Folder(Vec<Box<OsStr>>),
    Json(JsonIndex),
    Parquet(ParquetIndex),
}

/// Rows of a prompt set, read by index.
pub struct PromptSet {
    path: PathBuf,
    images: ImageFolder,
    default_prompt: String,
    source: Source,
    skipped: Skipped,
}

impl fmt::Debug for PromptSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("PromptSet");
        text.field("path", &self.path).field("kind", &self.kind()).field("len", &self.len());
        text.finish_non_exhaustive()
    }
}

impl PromptSet {
    /// Opens a prompt set: a folder of images, a JSON file, a Parquet file or a folder of such. A folder
    /// with Parquet files in it is one of those, and all of them are read, in the order of their names.
    ///
    /// Names of images are looked up in `images`, or, without it, in the folder of the prompts, and may not lead out of
    /// it; a folder of images needs none. `default_prompt` is for rows that have none of their own.
    ///
    /// # Errors
    /// The path is absent, of none of these forms, packed, damaged, empty or without images; a row of a
    /// JSON file, or the first of a Parquet file, is wrong. The error names the file and the row.
    pub fn open(
        path: &Path,
        images: Option<&Path>,
        default_prompt: &str,
    ) -> Result<Self, FormatError> {
        Self::open_within(path, images, false, default_prompt)
    }

    /// The same of prompts that may name images anywhere, by `..` or absolute paths.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_outside_images(
        path: &Path,
        images: Option<&Path>,
        default_prompt: &str,
    ) -> Result<Self, FormatError> {
        Self::open_within(path, images, true, default_prompt)
    }

    fn open_within(
        path: &Path,
        images: Option<&Path>,
        outside: bool,
        default_prompt: &str,
    ) -> Result<Self, FormatError> {
        let own = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let images = ImageFolder::new(images.unwrap_or(own), outside);
        let (source, skipped) = if path.is_dir() {
            open_folder(path)?
        } else {
            match recognise(path)? {
                Form::Json(layout) => {
                    let (index, skipped) = JsonIndex::open(path, layout, &images)?;
                    (Source::Json(index), skipped)
                }
                Form::Parquet => {
                    let (index, skipped) = ParquetIndex::open(path, vec![path.to_owned()])?;
                    (Source::Parquet(index), skipped)
                }
            }
        };
        let default_prompt = default_prompt.to_owned();
        let set = Self { path: path.to_owned(), images, default_prompt, source, skipped };
        if u32::try_from(set.len()).is_err() {
            return Err(FormatError::Prompts {
                path: path.to_owned(),
                reason: format!("has {} rows, more than 2³² − 1", set.len()),
                hint: Some("divide it into several sets"),
            });
        }
        if let Source::Parquet(_) = set.source {
            set.row(0)?;
        }
        Ok(set)
    }

    /// Number of rows, at least one.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Folder(names) => names.len(),
            Source::Json(index) => index.len(),
            Source::Parquet(index) => index.len(),
        }
    }

    /// Whether there are no rows, which cannot be: such a set does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The form of the set.
    pub fn kind(&self) -> PromptKind {
        match &self.source {
            Source::Folder(_) => PromptKind::Folder,
            Source::Json(index) if index.layout() == Layout::Lines => PromptKind::JsonLines,
            Source::Json(_) => PromptKind::JsonList,
            Source::Parquet(_) => PromptKind::Parquet,
        }
    }

    /// How many rows of the files were left out, for which reasons.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Reads a row.
    ///
    /// # Errors
    /// The file has become unreadable or has changed since it was opened; a row of Parquet is wrong, or
    /// its file damaged.
    ///
    /// # Panics
    /// `index` is not below [`Self::len`].
    pub fn row(&self, index: usize) -> Result<PromptRow, FormatError> {
        assert!(index < self.len(), "row {index} of a prompt set of {} rows", self.len());
        let (reading, prompt) = match &self.source {
            Source::Folder(names) => return Ok(self.image_row(&names[index])),
            Source::Json(json) => json.row(index)?,
            Source::Parquet(parquet) => (parquet.row(index)?, 0),
        };
        self.understood(index, reading, prompt)
    }

    fn image_row(&self, name: &OsStr) -> PromptRow {
        let text = name.to_string_lossy().into_owned();
        PromptRow {
            id: text.clone(),
            image_name: text,
            image: RowImage::File(self.path.join(name)),
            prompt: self.default_prompt.clone(),
            answer: Answer::None,
        }
    }

    fn understood(
        &self,
        index: usize,
        reading: Reading,
        number: usize,
    ) -> Result<PromptRow, FormatError> {
        let wrong = |reason: String| match &self.source {
            Source::Folder(_) => FormatError::Prompts {
                path: self.path.clone(),
                reason: format!("has no row {index}: {reason}"),
                hint: None,
            },
            Source::Json(json) => json.row_error(index, reason),
            Source::Parquet(parquet) => parquet.row_error(index, reason),
        };
        let image_name = reading
            .image
            .name()
            .map_or_else(|| format!("{} row {}", self.path.display(), index + 1), str::to_owned);
        let image = match reading.image {
            ImageReference::Path(name) => RowImage::File(self.images.file(&name).map_err(wrong)?),
            ImageReference::Bytes { bytes, .. } => RowImage::Bytes(bytes.to_vec()),
            ImageReference::DataUrl(url) => {
                let text = url.split_once(',').map_or("", |(_, text)| text);
                let bytes = reading::decode_base64(text)
                    .ok_or_else(|| wrong("the data URL of its image is not base64".to_owned()))?;
                RowImage::Bytes(bytes)
            }
            ImageReference::Base64(text) => {
                let bytes = reading::decode_base64(&text).ok_or_else(|| {
                    wrong("its image is base64 that is truncated or is damaged".to_owned())
                })?;
                RowImage::Bytes(bytes)
            }
            ImageReference::Absent | ImageReference::Several(_) => {
                return Err(wrong("it does not have one image".to_owned()));
            }
        };
        let mut id = reading.id.unwrap_or_else(|| image_name.clone());
        if reading.prompts.len() > 1 {
            id = format!("{id}#{}", number + 1);
        }
        let prompt = reading.prompts.into_iter().nth(number).filter(|prompt| !prompt.is_empty());
        let prompt = prompt.unwrap_or_else(|| self.default_prompt.clone());
        Ok(PromptRow { id, image_name, image, prompt, answer: reading.answer })
    }

    /// Rows that are best read together, as consecutive ranges of all indexes: what is decoded at once of
    /// Parquet files, and one range of everything for other forms.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        match &self.source {
            Source::Folder(_) | Source::Json(_) => std::iter::once(0..self.len()).collect(),
            Source::Parquet(index) => index.blocks().collect(),
        }
    }

    /// Some rows in a random order, in which those of a [block](Self::blocks) follow each other, so that
    /// each block is decoded once. The order is the same for the same seed on every machine.
    pub fn shuffled(&self, rows: &[u32], seed: u64) -> Vec<u32> {
        order::shuffle(rows, &self.blocks(), seed)
    }

    /// Holds out about a `fraction` (of 1) of the images, with all their rows: no image is on both sides.
    ///
    /// An image is known by its name as the row gives it, and one without a name by its content. Which
    /// are held out depends on the seed and these names alone, whatever other rows there are. The fraction
    /// is met on average: of 1000 images with a fraction of 0.1 it is 100 ± 9.
    ///
    /// `advance` hears the number of rows that are done. Nameless images in Parquet files are read from
    /// end to end for it.
    ///
    /// # Errors
    /// A Parquet file is damaged or has become unreadable.
    pub fn split(
        &self,
        fraction: f64,
        seed: u64,
        advance: &dyn Fn(usize),
    ) -> Result<Split, FormatError> {
        let images = self.image_digests(advance)?;
        Ok(order::split(images.into_iter(), fraction, seed))
    }

    /// The rows of each image, images in a random order that depends on the seed and their names alone; the rows of one in theirs.
    ///
    /// `advance` hears the number of rows that are done. Nameless images in Parquet files are read from end to end for it.
    ///
    /// # Errors
    /// A Parquet file is damaged or has become unreadable.
    pub fn shuffled_images(
        &self,
        seed: u64,
        advance: &dyn Fn(usize),
    ) -> Result<Vec<Vec<u32>>, FormatError> {
        Ok(order::by_image(&self.image_digests(advance)?, seed))
    }

    /// For each row what its image is known by.
    fn image_digests(&self, advance: &dyn Fn(usize)) -> Result<Vec<u32>, FormatError> {
        match &self.source {
            Source::Folder(names) => {
                let name = |name: &OsStr| name.to_string_lossy().into_owned();
                let images = names.iter().map(|entry| ImageReference::Path(name(entry)).digest());
                Ok(images.collect())
            }
            Source::Json(index) => Ok(index.images().collect()),
            Source::Parquet(index) => {
                let mut images = Vec::new();
                index.for_each_name(&mut |image| {
                    images.push(image.digest());
                    advance(images.len());
                    Ok(())
                })?;
                Ok(images)
            }
        }
    }

    /// Looks at the images of all rows, each file once where its rows follow each other, and says of which rows they cannot be
    /// used, and why, as far as the check goes. `advance` hears the number of rows that are done.
    ///
    /// # Errors
    /// A row cannot be read; that is another matter than its image.
    pub fn unusable_images(
        &self,
        check: ImageCheck,
        advance: &dyn Fn(usize),
    ) -> Result<Vec<(usize, FormatError)>, FormatError> {
        let mut unusable = Vec::new();
        let mut last: Option<(PathBuf, bool)> = None;
        for index in 0..self.len() {
            let row = self.row(index)?;
            let again = match (&row.image, &last) {
                (RowImage::File(path), Some((known, good))) if path == known => Some(*good),
                _ => None,
            };
            // A bad file is opened again for each of its rows, which are few.
            if again != Some(true) {
                let checked = row.check_image(check);
                if let RowImage::File(path) = &row.image {
                    last = Some((path.clone(), checked.is_ok()));
                }
                unusable.extend(checked.err().map(|error| (index, error)));
            }
            advance(index + 1);
        }
        Ok(unusable)
    }

    /// Looks whether the images are there that are files of their own, without opening them. `advance`
    /// hears the number of rows that are done.
    ///
    /// # Errors
    /// Some are not: how many, and the first few of them.
    pub fn check_images(&self, advance: &dyn Fn(usize)) -> Result<(), FormatError> {
        /// Missing images that are named.
        const NAMED: usize = 4;
        let (mut done, mut missing, mut names) = (0, 0, Vec::new());
        let mut last = (PathBuf::new(), true);
        let mut check = |path: Option<PathBuf>| {
            if let Some(path) = path {
                // Rows about the same image usually follow each other.
                if last.0 != path {
                    let there = path.is_file();
                    last = (path, there);
                    if !there && names.len() < NAMED {
                        names.push(shortened(&last.0.display().to_string()));
                    }
                }
                missing += usize::from(!last.1);
            }
            done += 1;
            advance(done);
            Ok(())
        };
        match &self.source {
            Source::Folder(entries) => {
                entries.iter().try_for_each(|name| check(Some(self.path.join(&**name))))?;
            }
            Source::Json(index) => index.for_each_image(&mut |image| match image {
                // Where it is was looked at when the file was opened.
                ImageReference::Path(name) => check(self.images.file(name).ok()),
                _ => check(None),
            })?,
            Source::Parquet(index) => {
                let mut at = 0;
                index.for_each_file(&mut |name| {
                    let file = name.map(|name| self.images.file(name)).transpose();
                    at += 1;
                    check(file.map_err(|reason| index.row_error(at - 1, reason))?)
                })?;
            }
        }
        if missing == 0 {
            return Ok(());
        }
        let (path, rows) = (self.path.clone(), self.len());
        Err(FormatError::MissingImages { path, missing, rows, names })
    }
}

/// The error for a set in which no row is left, of `rows` that it has.
fn no_images(
    path: &Path,
    rows: usize,
    fields: &BTreeSet<String>,
    image_field: bool,
    skipped: Skipped,
) -> FormatError {
    let (reason, hint) = if rows == 0 {
        ("has no rows".to_owned(), None)
    } else if image_field {
        let Skipped { without_image, several_images } = skipped;
        let reason = format!(
            "has no row with one image: {without_image} have none, and {several_images} several"
        );
        (reason, None)
    } else {
        let fields = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>();
        let hint = "the image is looked for in `image` or `images`, the prompt in `prompt`, \
                    `question`, `text`, `prompts`, `conversations` or `messages`";
        (format!("names no images: its fields are {}", fields.join(", ")), Some(hint))
    };
    FormatError::Prompts { path: path.to_owned(), reason, hint }
}

fn open_folder(path: &Path) -> Result<(Source, Skipped), FormatError> {
    let failed = |error| FormatError::io("read", path, error);
    let mut shards = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        let parquet = entry.extension() == Some(OsStr::new("parquet"));
        if parquet && !is_hidden(&entry) && entry.is_file() {
            shards.push(entry);
        }
    }
    if shards.is_empty() {
        let names = list_images(path)?.into_iter();
        let name = |image: PathBuf| image.file_name().map(OsString::from);
        let names = names.filter_map(name).map(OsString::into_boxed_os_str).collect();
        return Ok((Source::Folder(names), Skipped::default()));
    }
    shards.sort_unstable();
    let (index, skipped) = ParquetIndex::open(path, shards)?;
    Ok((Source::Parquet(index), skipped))
}
