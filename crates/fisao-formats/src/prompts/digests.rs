//! Digests of a prompt set's rows, by which an edit of them is noticed.

use std::path::Path;

use rayon::prelude::*;

use super::{Answer, PromptRow, PromptSet, RowImage};
use crate::FormatError;
use crate::data_record::{DataRecord, FileDigests, RowDigest, digest_bytes};

/// Rows that are in memory at once.
const AT_ONCE: usize = 256;

impl PromptSet {
    /// Digests of all rows: their texts, and the bytes of their images, each file of which is read once. `advance` hears the
    /// number of rows that are done.
    ///
    /// # Errors
    /// A row or an image cannot be read.
    pub fn digests(&self, advance: &dyn Fn(usize)) -> Result<DataRecord, FormatError> {
        let mut files = FileDigests::default();
        let mut digests = Vec::with_capacity(self.len());
        for first in (0..self.len()).step_by(AT_ONCE) {
            let rows = first..self.len().min(first + AT_ONCE);
            let rows = rows.map(|index| self.row(index)).collect::<Result<Vec<_>, _>>()?;
            files.read(rows.iter().filter_map(file))?;
            let found = rows.par_iter().map(|row| {
                let image = match &row.image {
                    RowImage::File(path) => files.of(path),
                    RowImage::Bytes(bytes) => digest_bytes(bytes),
                };
                RowDigest::new(texts(row), image)
            });
            digests.par_extend(found);
            advance(digests.len());
        }
        Ok(DataRecord::new(digests))
    }
}

fn file(row: &PromptRow) -> Option<&Path> {
    match &row.image {
        RowImage::File(path) => Some(path),
        RowImage::Bytes(_) => None,
    }
}

/// Everything that a row says besides its image, told apart from what it does not say.
fn texts(row: &PromptRow) -> Vec<&str> {
    let mut texts = vec![row.id.as_str(), &row.prompt];
    match &row.answer {
        Answer::None => {}
        Answer::Response(response) => texts.push(response),
        Answer::Pair { chosen, rejected } => texts.extend([chosen.as_str(), rejected]),
    }
    texts
}
