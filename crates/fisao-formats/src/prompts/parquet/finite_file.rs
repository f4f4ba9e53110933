//! A file that says where it ends.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::reader::{ChunkReader, Length};

/// A file in which reading on at its end is an error. The `parquet` crate's reader of page headers skips as many bytes as a damaged
/// header announces, 2³¹ of them, without asking whether any came.
pub(super) struct FiniteFile(File);

impl FiniteFile {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Length for FiniteFile {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for FiniteFile {
    type T = FiniteRead;

    fn get_read(&self, start: u64) -> Result<FiniteRead> {
        Ok(FiniteRead(self.0.get_read(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// Reads up to the end of the file, and fails there.
pub(super) struct FiniteRead(BufReader<File>);

impl Read for FiniteRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};

    use parquet::file::reader::ChunkReader as _;

    use super::FiniteFile;

    #[test]
    fn reading_past_the_end_is_an_error() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        std::io::Write::write_all(&mut file, b"12").expect("room for two bytes");
        let mut rest = FiniteFile::new(file).get_read(1).expect("the second byte");
        let mut byte = [0];
        assert_eq!(rest.read(&mut byte).expect("a byte"), 1);
        assert_eq!(rest.read(&mut byte).expect_err("the end").kind(), ErrorKind::UnexpectedEof);
        assert_eq!(rest.read(&mut []).expect("nothing is asked for"), 0);
    }
}
