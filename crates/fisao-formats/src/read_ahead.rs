//! Unpacking on a thread of its own, beside whoever makes sense of what was unpacked.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes handed over at a time.
const PIECE: usize = 256 << 10;
/// Pieces that may wait to be read.
const AHEAD: usize = 4;

/// What another thread reads; that ends with the source, or when this is dropped.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl ReadAhead {
    /// Reads `source` ahead.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        thread::Builder::new()
            .name("fisao-unpacking".to_owned())
            .spawn(move || read_all(source, &sender))?;
        Ok(Self { pieces, piece: Vec::new(), at: 0 })
    }
}

fn read_all(mut source: impl Read, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let last = piece.is_empty() || read.is_err();
        // An empty piece is the end, so none goes before an error; whoever has stopped reading hears neither.
        let heard = (piece.is_empty() && read.is_err()) || pieces.send(Ok(piece)).is_ok();
        if let (Err(error), true) = (read, heard) {
            let _ = pieces.send(Err(error));
        }
        if last || !heard {
            return;
        }
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() {
            // An empty piece, or no thread any more, is the end.
            let Ok(piece) = self.pieces.recv() else { break };
            self.piece = piece?;
            self.at = 0;
            if self.piece.is_empty() {
                break;
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.piece.len());
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out few bytes at a time and fails at the end.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("truncated"));
            }
            let count = buffer.len().min(self.0).min(1000);
            buffer[..count].fill(b'x');
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn read_ahead_returns_all_bytes_in_order() {
        let bytes: Vec<u8> =
            (0..3 * PIECE + 17).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut found = Vec::new();
        ReadAhead::new(io::Cursor::new(bytes.clone())).unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, bytes);
        let mut empty = ReadAhead::new(io::empty()).unwrap();
        assert!(empty.fill_buf().unwrap().is_empty());
        assert!(empty.fill_buf().unwrap().is_empty());
    }

    #[test]
    fn read_error_is_returned_after_the_bytes_before_it() {
        let mut found = Vec::new();
        let error = ReadAhead::new(Failing(PIECE + 5)).unwrap().read_to_end(&mut found);
        assert_eq!(error.unwrap_err().to_string(), "truncated");
        assert_eq!(found.len(), PIECE + 5);
    }

    #[test]
    fn dropping_the_reader_ends_its_thread() {
        let mut reader = ReadAhead::new(io::repeat(7)).unwrap();
        assert_eq!(reader.fill_buf().unwrap()[0], 7);
        drop(reader);
    }
}
