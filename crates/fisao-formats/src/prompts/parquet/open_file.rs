//! One Parquet file: its footer, and rows of some of its columns.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::statistics::Statistics;

use super::columns::{Assembly, Leaf, Node, Shape, UNEVEN, Wanted, columns, is_text, rows_of};
use super::finite_file::FiniteFile;
use super::{Block, Row};
use crate::FormatError;
use crate::files::open_file;
use crate::prompts::fields::{Fields, IMAGE_FIELDS};

/// A file whose footer has been read.
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    file: Arc<FiniteFile>,
    pub(super) footer: ParquetMetaData,
    pub(super) columns: Vec<(&'static str, Node)>,
}

impl OpenFile {
    pub(super) fn open(path: &Path) -> Result<Self, FormatError> {
        let file = open_file("prompt file (Parquet)", path)?;
        let footer = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&file))
            .map_err(|error| damaged(path, &error))?;
        let columns = columns(footer.file_metadata().schema_descr());
        let length = file.metadata().map_err(|error| FormatError::io("read", path, error))?.len();
        for leaf in columns.iter().flat_map(|(_, node)| node.leaves()) {
            for group in footer.row_groups() {
                let column = group.column(leaf);
                let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
                let end = start.checked_add(column.compressed_size());
                let (start, end) = (u64::try_from(start), end.map(u64::try_from));
                let inside = matches!((start, end), (Ok(start), Some(Ok(end))) if start <= end && end <= length);
                if !inside {
                    let reason = "its footer points outside the file".to_owned();
                    return Err(damaged(path, &ParquetError::General(reason)));
                }
            }
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(FiniteFile::new(file)), footer, columns })
    }

    /// The column of the image.
    pub(super) fn image(&self) -> Option<&(&'static str, Node)> {
        IMAGE_FIELDS.iter().find_map(|name| self.columns.iter().find(|(column, _)| column == name))
    }

    /// Some columns of some rows of a row group.
    pub(super) fn rows(
        &self,
        columns: &[(&'static str, Node)],
        group: usize,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Row>, FormatError> {
        let group = self.footer.row_group(group);
        let read = || -> Result<Vec<Row>, ParquetError> {
            let leaves = columns.iter().flat_map(|(_, node)| node.leaves());
            let leaves = leaves
                .map(|leaf| {
                    Ok((leaf, Leaf::read(&self.file, group, leaf, skip, count, Wanted::Values)?))
                })
                .collect::<Result<_, ParquetError>>()?;
            let mut assembly = Assembly(leaves);
            let row = |_| -> Result<Row, ParquetError> {
                let cell = |(name, node): &(&'static str, Node)| Ok((*name, assembly.cell(node)?));
                let cells = columns.iter().map(cell).collect::<Result<_, ParquetError>>()?;
                Ok(Arc::new(Fields::new(cells)))
            };
            (0..count).map(row).collect()
        };
        guarded(read).map_err(|error| damaged(&self.path, &error))
    }

    /// A single column over the rows of a block.
    pub(super) fn block(&self, block: &Block, node: &Node) -> Result<Vec<Row>, FormatError> {
        let columns = self.image().map(|(name, _)| (*name, node.clone()));
        let (skip, count) = (block.skip as usize, block.rows as usize);
        self.rows(columns.as_slice(), block.group as usize, skip, count)
    }

    /// What the statistics of a row group tell about where its images are.
    pub(super) fn stored(&self, block: &Block, image: &Node) -> Stored {
        let group = self.footer.row_group(block.group as usize);
        let bytes = match &image.item().shape {
            Shape::Leaf(leaf) => {
                return if is_text(group.column(*leaf)) { Stored::None } else { Stored::All };
            }
            _ => image.field("bytes").and_then(|bytes| bytes.leaves().first().copied()),
        };
        let Some(bytes) = bytes.map(|leaf| group.column(leaf)) else { return Stored::None };
        match bytes.statistics().and_then(Statistics::null_count_opt) {
            Some(0) => Stored::All,
            Some(nulls) if i64::try_from(nulls) == Ok(bytes.num_values()) => Stored::None,
            _ => Stored::Some,
        }
    }

    /// How many images every row of a row group has, or `None` if each has one.
    pub(super) fn image_counts(&self, group: usize) -> Result<Option<Vec<u32>>, FormatError> {
        let Some((_, image)) = self.image() else { return Ok(None) };
        let metadata = self.footer.row_group(group);
        let listed = matches!(image.shape, Shape::List { .. });
        let nulls =
            |leaf: &usize| metadata.column(*leaf).statistics().and_then(Statistics::null_count_opt);
        let text = matches!(image.item().shape, Shape::Leaf(_));
        let leaves = image.leaves();
        // Text may be empty, which no statistics tell.
        if !listed
            && !text
            && (image.defined == 0 || leaves.iter().any(|leaf| nulls(leaf) == Some(0)))
        {
            return Ok(None);
        }
        let size = |leaf: &usize| metadata.column(*leaf).compressed_size();
        let Some(lightest) = leaves.into_iter().min_by_key(size) else { return Ok(None) };
        let rows = rows_of(metadata).map_err(|error| damaged(&self.path, &error))?;
        let leaf =
            guarded(|| Leaf::read(&self.file, metadata, lightest, 0, rows, Wanted::Presence))
                .map_err(|error| damaged(&self.path, &error))?;
        let defined = image.item().defined;
        let mut counts = Vec::new();
        for (at, present) in leaf.present().enumerate() {
            let level = leaf.definitions.get(at).copied().unwrap_or(leaf.most);
            let there = if text { present } else { level >= defined };
            if leaf.repetitions.get(at).copied().unwrap_or(0) == 0 {
                counts.push(0);
            }
            if let Some(count) = counts.last_mut() {
                *count += u32::from(there);
            }
        }
        // A list that the first row continues has no row to belong to.
        if counts.len() != rows {
            return Err(damaged(&self.path, &ParquetError::General(UNEVEN.to_owned())));
        }
        Ok(Some(counts))
    }
}

/// How many images of a row group are stored in it, instead of being named.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    All,
    Some,
    None,
}

/// Runs what uses the `parquet` crate, which panics over some damaged files. Nothing that it has touched
/// is used after that.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let done = panic::catch_unwind(AssertUnwindSafe(read));
    done.unwrap_or_else(|_| Err(ParquetError::General("its data contradict themselves".to_owned())))
}

fn damaged(path: &Path, error: &ParquetError) -> FormatError {
    let reason = match error {
        ParquetError::General(reason) | ParquetError::NYI(reason) | ParquetError::EOF(reason) => {
            reason.clone()
        }
        other => other.to_string(),
    };
    FormatError::Malformed { what: "Parquet file", path: path.to_owned(), reason }
}
