//! The pages of a column, unpacked.
//!
//! The `parquet` crate unpacks zstd with the C library. Here it is told that such a column is not
//! packed, and what it hands on is unpacked in Rust.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use ruzstd::decoding::StreamingDecoder;

use super::finite_file::FiniteFile;

/// The pages of a column of a row group, which has `rows` rows.
pub(super) fn pages(
    file: Arc<FiniteFile>,
    column: &ColumnChunkMetaData,
    rows: usize,
) -> Result<Box<dyn PageReader>> {
    match column.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) => {
            Ok(Box::new(SerializedPageReader::new(file, column, rows, None)?))
        }
        Compression::ZSTD(_) => {
            let column = column.clone().into_builder();
            let column = column.set_compression(Compression::UNCOMPRESSED).build()?;
            let packed = SerializedPageReader::new(file, &column, rows, None)?;
            Ok(Box::new(ZstdPages { packed }))
        }
        other => Err(ParquetError::NYI(format!(
            "it is packed with {}, which is not read; write it anew with compression=\"snappy\" or \
             \"zstd\"",
            other.to_string().split('(').next().unwrap_or_default()
        ))),
    }
}

struct ZstdPages {
    packed: SerializedPageReader<FiniteFile>,
}

impl PageReader for ZstdPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.packed.get_next_page()?.map(unpack).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.packed.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.packed.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.packed.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        self.packed.take_deferred_dictionary()?.map(unpack).transpose()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.packed.at_record_boundary()
    }
}

impl Iterator for ZstdPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn unpack(mut page: Page) -> Result<Page> {
    match &mut page {
        Page::DictionaryPage { buf, .. } | Page::DataPage { buf, .. } => *buf = unpacked(buf, 0)?,
        Page::DataPageV2 {
            buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, ..
        } => {
            if *is_compressed {
                // The levels before the values are never packed.
                *buf = unpacked(buf, (*def_levels_byte_len + *rep_levels_byte_len) as usize)?;
            }
        }
    }
    Ok(page)
}

/// A copy of a page whose first `plain` bytes are not packed.
fn unpacked(page: &Bytes, plain: usize) -> Result<Bytes> {
    /// No page may be larger.
    const MOST: u64 = i32::MAX as u64;
    let damaged = |error: &dyn std::error::Error| {
        ParquetError::General(format!("a page is damaged: {error}"))
    };
    if plain > page.len() {
        return Err(ParquetError::General("a page is shorter than its levels".to_owned()));
    }
    let mut whole = page[..plain].to_vec();
    let mut packed = &page[plain..];
    while !packed.is_empty() {
        let mut frame = StreamingDecoder::new(&mut packed).map_err(|error| damaged(&error))?;
        let read = frame.by_ref().take(MOST).read_to_end(&mut whole);
        if read.map_err(|error| damaged(&error))? as u64 == MOST {
            return Err(ParquetError::General("a page has more than 2 GiB".to_owned()));
        }
    }
    Ok(whole.into())
}
