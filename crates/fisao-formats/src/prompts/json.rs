//! Rows in a JSON file, one per line or as a list, found again by where they stand in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::elements::{Elements, ElementsError};
use super::fields::{Fields, IMAGE_FIELDS};
use super::image_folder::ImageFolder;
use super::reading::{ImageReference, Reading};
use super::{Skipped, no_images};
use crate::FormatError;
use crate::files::open_file;

/// How rows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One object per line.
    Lines,
    /// One list of objects.
    List,
}

impl Layout {
    fn unit(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::List => "entry",
        }
    }
}

/// One prompt: 16 bytes that say where it is.
#[derive(Clone, Copy)]
struct Entry {
    /// First byte of the row in the file, of 48 bits, below the number of its prompt, of 16.
    place: u64,
    /// Bytes of the row.
    length: u32,
    /// Digest of the image.
    image: u32,
}

const OFFSET_BITS: u32 = 48;

impl Entry {
    fn offset(self) -> u64 {
        self.place & ((1 << OFFSET_BITS) - 1)
    }

    fn prompt(self) -> usize {
        (self.place >> OFFSET_BITS) as usize
    }
}

/// What is done with a row, without the white space around it.
type Visit<'a> = dyn FnMut(Place, &[u8]) -> Result<(), FormatError> + 'a;

/// A row on its way through a file.
struct Place {
    offset: u64,
    /// Counted from 1, with blank lines.
    number: usize,
}

/// The rows of a file.
pub(super) struct JsonIndex {
    path: PathBuf,
    layout: Layout,
    file: Mutex<File>,
    entries: Vec<Entry>,
}

impl JsonIndex {
    /// Reads a file once from end to end, and checks every row on the way.
    ///
    /// # Errors
    /// The file is unreadable or damaged, a row is wrong, or none has an image.
    pub(super) fn open(
        path: &Path,
        layout: Layout,
        images: &ImageFolder,
    ) -> Result<(Self, Skipped), FormatError> {
        let mut entries = Vec::new();
        let mut skipped = Skipped::default();
        let mut survey = Survey::default();
        scan(path, layout, &mut |place, row| {
            let wrong = |reason| row_error(path, layout, place.number, reason);
            let fields = parse(row, layout).map_err(wrong)?;
            let reading = Reading::of(&fields).map_err(wrong)?;
            images.check(&reading.image).map_err(wrong)?;
            survey.note(&fields, row);
            let image = match reading.image {
                ImageReference::Absent => {
                    skipped.without_image += 1;
                    return Ok(());
                }
                ImageReference::Several(_) => {
                    skipped.several_images += 1;
                    return Ok(());
                }
                one => one.digest(),
            };
            let length = u32::try_from(row.len());
            let length = length.map_err(|_| wrong("it is longer than 4 GiB".to_owned()))?;
            if place.offset >> OFFSET_BITS != 0 {
                return Err(wrong("the file is too large".to_owned()));
            }
            for prompt in 0..reading.prompts.len() {
                let prompt = u16::try_from(prompt)
                    .map_err(|_| wrong("it has more than 65 536 prompts".to_owned()))?;
                let place = u64::from(prompt) << OFFSET_BITS | place.offset;
                entries.push(Entry { place, length, image });
            }
            Ok(())
        })?;
        if entries.is_empty() {
            return Err(no_images(path, survey.rows, &survey.fields, survey.image_field, skipped));
        }
        entries.shrink_to_fit();
        let file = Mutex::new(open(path)?);
        Ok((Self { path: path.to_owned(), layout, file, entries }, skipped))
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Digests of the images of all rows.
    pub(super) fn images(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.image)
    }

    /// A row, and which of its prompts the index stands for.
    ///
    /// # Errors
    /// The file has changed since it was opened, or cannot be read any more.
    pub(super) fn row(&self, index: usize) -> Result<(Reading, usize), FormatError> {
        let entry = self.entries[index];
        let mut row = vec![0; entry.length as usize];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let read =
                file.seek(SeekFrom::Start(entry.offset())).and_then(|_| file.read_exact(&mut row));
            read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.changed(),
                _ => FormatError::io("read", &self.path, error),
            })?;
        }
        // Every row was whole when the index was made.
        let fields = parse(&row, self.layout).map_err(|_| self.changed())?;
        let reading = Reading::of(&fields).map_err(|_| self.changed())?;
        if entry.prompt() >= reading.prompts.len() || reading.image.digest() != entry.image {
            return Err(self.changed());
        }
        Ok((reading, entry.prompt()))
    }

    /// The error for a row that was good when the file was opened and then was not.
    pub(super) fn row_error(&self, index: usize, reason: String) -> FormatError {
        let mut found = None;
        let offset = self.entries[index].offset();
        let scanned = scan(&self.path, self.layout, &mut |place, _| {
            if place.offset == offset {
                found = Some(place.number);
            }
            Ok(())
        });
        match (scanned, found) {
            (Ok(()), Some(number)) => row_error(&self.path, self.layout, number, reason),
            _ => self.changed(),
        }
    }

    fn changed(&self) -> FormatError {
        FormatError::Prompts {
            path: self.path.clone(),
            reason: "has changed since it was opened".to_owned(),
            hint: Some("leave the file as it is while a run reads it, and run again"),
        }
    }

    /// Hands on what every prompt says of its image, from end to end.
    ///
    /// # Errors
    /// The file cannot be read; what `each` returns.
    pub(super) fn for_each_image(
        &self,
        each: &mut dyn FnMut(&ImageReference) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        scan(&self.path, self.layout, &mut |_, row| {
            let fields = parse(row, self.layout).map_err(|_| self.changed())?;
            let reading = Reading::of(&fields).map_err(|_| self.changed())?;
            match reading.image {
                ImageReference::Absent | ImageReference::Several(_) => Ok(()),
                image => reading.prompts.iter().try_for_each(|_| each(&image)),
            }
        })
    }
}

/// What is known of the fields of a file, for the message that it has no images.
#[derive(Default)]
struct Survey {
    rows: usize,
    image_field: bool,
    fields: BTreeSet<String>,
}

impl Survey {
    fn note(&mut self, fields: &Fields, row: &[u8]) {
        const LOOKED_AT: usize = 100;
        self.rows += 1;
        self.image_field |= IMAGE_FIELDS.iter().any(|field| fields.has(field));
        if !self.image_field && self.rows <= LOOKED_AT {
            let row = serde_json::from_slice::<Map<String, Value>>(row).unwrap_or_default();
            self.fields.extend(row.into_iter().map(|(field, _)| field));
        }
    }
}

/// Hands every row of a file to `each`.
fn scan(path: &Path, layout: Layout, each: &mut Visit) -> Result<(), FormatError> {
    const BUFFER: usize = 1 << 20;
    let mut reader = BufReader::with_capacity(BUFFER, open(path)?);
    let mut row = Vec::new();
    match layout {
        Layout::Lines => {
            let mut offset = 0;
            for number in 1.. {
                row.clear();
                let read = reader.read_until(b'\n', &mut row);
                let read = read.map_err(|error| FormatError::io("read", path, error))?;
                if read == 0 {
                    break;
                }
                let line = row.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&row).trim_ascii_start();
                let place = Place { offset: offset + (read - line.len()) as u64, number };
                let line = line.trim_ascii_end();
                if !line.is_empty() {
                    each(place, line)?;
                }
                offset += read as u64;
            }
        }
        Layout::List => {
            let mut elements = Elements::new(reader);
            for number in 1.. {
                let next = elements.next(&mut row).map_err(|error| match error {
                    ElementsError::Io(error) => FormatError::io("read", path, error),
                    ElementsError::Damaged(reason) => {
                        row_error(path, layout, number, reason.to_owned())
                    }
                })?;
                let Some(offset) = next else { break };
                each(Place { offset, number }, &row)?;
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, FormatError> {
    open_file("prompt file", path)
}

fn row_error(path: &Path, layout: Layout, number: usize, reason: String) -> FormatError {
    FormatError::PromptRow { path: path.to_owned(), unit: layout.unit(), number, reason }
}

/// Parses a row; the reason why not tells the column, if the row is a line.
fn parse(row: &[u8], layout: Layout) -> Result<Fields, String> {
    serde_json::from_slice(row).map_err(|error| {
        if let Err(error) = str::from_utf8(row) {
            let byte = error.valid_up_to() + 1;
            return format!("not UTF-8 from its byte {byte} on; convert the file to UTF-8");
        }
        let (line, column) = (error.line(), error.column());
        let said = error.to_string();
        let reason = said.strip_suffix(&format!(" at line {line} column {column}"));
        let reason = reason.unwrap_or(&said);
        match layout {
            Layout::List => reason.to_owned(),
            Layout::Lines if error.is_eof() => {
                format!("{reason}; give one object per line, or one list of objects")
            }
            Layout::Lines => format!("{reason} (column {column})"),
        }
    })
}
