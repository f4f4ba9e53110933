//! Rows in Parquet files, as Hugging Face datasets and pandas write them, found again by file, row group
//! and row.
//!
//! Rows are decoded a block at a time: a row group, or of one that is large, a run of rows. The last few
//! blocks stay decoded, and so whoever reads block after block decodes each of them once.

mod columns;
mod finite_file;
mod open_file;
mod pages;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::columns::rows_of;
use self::open_file::{OpenFile, Stored};
use super::fields::Fields;
use super::reading::{ImageReference, Reading};
use super::{Skipped, no_images};
use crate::FormatError;

/// Decoded bytes of a block, unless a single row has more.
const BLOCK_BYTES: u64 = 64 << 20;
/// Rows of a block.
const BLOCK_ROWS: u64 = 4096;
/// Decoded blocks that are kept.
const BLOCKS_KEPT: usize = 2;

type Row = Arc<Fields>;

/// A run of rows of a row group.
struct Block {
    /// Number of its first row among all rows that are not skipped.
    first: usize,
    file: u32,
    group: u32,
    /// Rows of the group before it.
    skip: u32,
    rows: u32,
    /// Rows that are not skipped, where some are.
    kept: Option<Box<[u16]>>,
}

impl Block {
    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.rows as usize, |kept| kept.len())
    }

    /// Rows of the block before one that is not skipped.
    fn row(&self, index: usize) -> usize {
        self.kept.as_ref().map_or(index, |kept| usize::from(kept[index]))
    }
}

#[derive(Default)]
struct Cache {
    file: Option<(u32, Arc<OpenFile>)>,
    blocks: VecDeque<(usize, Arc<[Row]>)>,
}

/// The rows of one or more files.
pub(super) struct ParquetIndex {
    files: Vec<PathBuf>,
    blocks: Vec<Block>,
    len: usize,
    cache: Mutex<Cache>,
}

impl ParquetIndex {
    /// Reads the footers of files, and of the image columns as much as tells which rows have one image.
    ///
    /// `path` is what errors about all files together name.
    ///
    /// # Errors
    /// A file is unreadable or damaged, or no row has an image.
    pub(super) fn open(path: &Path, files: Vec<PathBuf>) -> Result<(Self, Skipped), FormatError> {
        let mut index =
            Self { files, blocks: Vec::new(), len: 0, cache: Mutex::new(Cache::default()) };
        let mut skipped = Skipped::default();
        let (mut rows, mut fields) = (0, BTreeSet::new());
        for number in 0..index.files.len() {
            let file = OpenFile::open(&index.files[number])?;
            let schema = file.footer.file_metadata().schema().get_fields();
            fields = schema.iter().map(|field| field.name().to_owned()).collect();
            if file.image().is_none() {
                return Err(no_images(&index.files[number], 1, &fields, false, skipped));
            }
            rows += index.add(&file, number, &mut skipped)?;
        }
        if index.len == 0 {
            return Err(no_images(path, rows, &fields, true, skipped));
        }
        Ok((index, skipped))
    }

    /// Adds the blocks of a file, and counts its rows.
    fn add(
        &mut self,
        file: &OpenFile,
        number: usize,
        skipped: &mut Skipped,
    ) -> Result<usize, FormatError> {
        let mut all = 0;
        for (group, metadata) in file.footer.row_groups().iter().enumerate() {
            let rows = u32::try_from(metadata.num_rows()).map_err(|_| FormatError::Prompts {
                path: file.path.clone(),
                reason: format!("has a row group of {} rows", metadata.num_rows()),
                hint: None,
            })?;
            all += rows as usize;
            let counts = if rows == 0 { None } else { file.image_counts(group)? };
            let leaves = file.columns.iter().flat_map(|(_, node)| node.leaves());
            let bytes =
                leaves.map(|leaf| metadata.column(leaf).uncompressed_size().max(0).unsigned_abs());
            let row_bytes = (bytes.sum::<u64>() / u64::from(rows.max(1))).max(1);
            let step = (BLOCK_BYTES / row_bytes).clamp(1, BLOCK_ROWS) as u32;
            for skip in (0..rows).step_by(step as usize) {
                let rows = step.min(rows - skip);
                let counts =
                    counts.as_ref().map(|counts| &counts[skip as usize..][..rows as usize]);
                let kept = counts.and_then(|counts| {
                    let none = counts.iter().filter(|&&count| count == 0).count();
                    let several = counts.iter().filter(|&&count| count > 1).count();
                    skipped.without_image += none;
                    skipped.several_images += several;
                    let kept = (0_u16..).zip(counts).filter(|&(_, &count)| count == 1);
                    (none + several > 0).then(|| kept.map(|(row, _)| row).collect())
                });
                let number_of = |number| {
                    u32::try_from(number).expect("no folder and no footer holds 2³² of them")
                };
                let (file, group) = (number_of(number), number_of(group));
                let block = Block { first: self.len, file, group, skip, rows, kept };
                if block.len() > 0 {
                    self.len += block.len();
                    self.blocks.push(block);
                }
            }
        }
        Ok(all)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Which rows are decoded together.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        self.blocks.iter().map(|block| block.first..block.first + block.len())
    }

    /// A row.
    ///
    /// # Errors
    /// Its file is damaged or gone, or the row is wrong.
    pub(super) fn row(&self, index: usize) -> Result<Reading, FormatError> {
        let number = self.blocks.partition_point(|block| block.first <= index) - 1;
        let rows = self.block(number)?;
        let block = &self.blocks[number];
        let row = &rows[block.row(index - block.first)];
        let reading = Reading::of(row).map_err(|reason| self.row_error(index, reason))?;
        match reading.image {
            ImageReference::Absent => Err(self.row_error(index, "it has no image".to_owned())),
            ImageReference::Several(count) => {
                Err(self.row_error(index, format!("it has {count} images")))
            }
            _ if reading.prompts.len() > 1 => {
                let reason = "`prompts` has several texts, which only JSON may have; write a row for \
                              each of them";
                Err(self.row_error(index, reason.to_owned()))
            }
            _ => Ok(reading),
        }
    }

    /// An error about a row.
    pub(super) fn row_error(&self, index: usize, reason: String) -> FormatError {
        let number = self.blocks.partition_point(|block| block.first <= index) - 1;
        let block = &self.blocks[number];
        let file = self.cached_file(&mut self.lock(), block.file);
        let before = file.map_or(0, |file| {
            let groups = file.footer.row_groups().iter().take(block.group as usize);
            groups.map(|group| rows_of(group).unwrap_or(0)).sum::<usize>()
        });
        let number = before + block.skip as usize + block.row(index - block.first) + 1;
        let path = self.files[block.file as usize].clone();
        FormatError::PromptRow { path, unit: "row", number, reason }
    }

    /// Hands on what tells the images of all rows apart, from end to end: their names, and only of those
    /// without one the content, which is most of the file.
    ///
    /// # Errors
    /// A file is damaged or gone, a row's image is wrong; what `each` returns.
    pub(super) fn for_each_name(
        &self,
        each: &mut dyn FnMut(&ImageReference) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        for block in &self.blocks {
            let file = self.cached_file(&mut self.lock(), block.file)?;
            let Some(image) = file.image() else { continue };
            let named = match image.1.field("path") {
                Some(_) => Some(file.block(block, &image.1.without("bytes"))?),
                None => None,
            };
            let mut whole = None;
            for index in 0..block.len() {
                let row = block.row(index);
                let image_of = |rows: &[Row]| {
                    ImageReference::of_row(&rows[row])
                        .map_err(|reason| self.row_error(block.first + index, reason))
                };
                let name = named.as_deref().map(image_of).transpose()?;
                if let Some(name) = name.filter(|name| *name != ImageReference::Absent) {
                    each(&name)?;
                    continue;
                }
                let rows = match whole.take() {
                    Some(rows) => rows,
                    None => file.block(block, &image.1)?,
                };
                each(&image_of(&rows)?)?;
                whole = Some(rows);
            }
        }
        Ok(())
    }

    /// Hands on the names of images that are files of their own, from end to end, and nothing for those
    /// that are stored with the prompts.
    ///
    /// # Errors
    /// As for [`Self::for_each_name`].
    pub(super) fn for_each_file(
        &self,
        each: &mut dyn FnMut(Option<&str>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        for block in &self.blocks {
            let file = self.cached_file(&mut self.lock(), block.file)?;
            let Some((_, image)) = file.image() else { continue };
            let rows = match file.stored(block, image) {
                Stored::All => None,
                Stored::Some => Some(file.block(block, image)?),
                Stored::None => Some(file.block(block, &image.without("bytes"))?),
            };
            for index in 0..block.len() {
                let found = rows.as_deref().map(|rows| {
                    ImageReference::of_row(&rows[block.row(index)])
                        .map_err(|reason| self.row_error(block.first + index, reason))
                });
                match found.transpose()? {
                    Some(ImageReference::Path(name)) => each(Some(&name))?,
                    _ => each(None)?,
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, number: usize) -> Result<Arc<[Row]>, FormatError> {
        let mut cache = self.lock();
        if let Some(at) = cache.blocks.iter().position(|(cached, _)| *cached == number) {
            // The block that was used last is given up last.
            if let Some(block) = cache.blocks.remove(at) {
                let rows = Arc::clone(&block.1);
                cache.blocks.push_back(block);
                return Ok(rows);
            }
        }
        let block = &self.blocks[number];
        let file = self.cached_file(&mut cache, block.file)?;
        while cache.blocks.len() >= BLOCKS_KEPT {
            cache.blocks.pop_front();
        }
        let (skip, count) = (block.skip as usize, block.rows as usize);
        let rows: Arc<[Row]> = file.rows(&file.columns, block.group as usize, skip, count)?.into();
        cache.blocks.push_back((number, Arc::clone(&rows)));
        Ok(rows)
    }

    fn cached_file(&self, cache: &mut Cache, number: u32) -> Result<Arc<OpenFile>, FormatError> {
        if let Some((_, file)) = cache.file.as_ref().filter(|(cached, _)| *cached == number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenFile::open(&self.files[number as usize])?);
        let needed = self.blocks.iter().rev().find(|block| block.file == number);
        let groups = file.footer.num_row_groups();
        if needed.is_some_and(|block| {
            let group = block.group as usize;
            group >= groups
                || file.footer.row_group(group).num_rows() < i64::from(block.skip + block.rows)
        }) {
            return Err(FormatError::Prompts {
                path: file.path.clone(),
                reason: "has changed since it was opened".to_owned(),
                hint: Some("leave the file as it is while a run reads it, and run again"),
            });
        }
        cache.file = Some((number, Arc::clone(&file)));
        Ok(file)
    }
}
