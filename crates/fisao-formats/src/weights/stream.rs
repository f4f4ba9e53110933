//! A safetensors file written tensor by tensor: the header first, from what is known beforehand, then
//! each tensor's bytes as they are made.

use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::FormatError;
use crate::documents::write_atomically;

/// Bytes gathered before they are handed to the system.
const BUFFER: usize = 1 << 20;

/// The place of one tensor in a file.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Slot {
    pub(crate) fn new(name: String, dtype: Dtype, shape: Vec<usize>) -> Self {
        Self { name, dtype, shape }
    }

    /// Bytes it takes.
    pub(crate) fn length(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Why a tensor was not written.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The file takes no more.
    Io(std::io::Error),
    /// The tensor cannot be made.
    Tensor(FormatError),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<FormatError> for Stopped {
    fn from(error: FormatError) -> Self {
        Self::Tensor(error)
    }
}

/// Writes a file of the given tensors, in the given order, atomically; `write` is called once for
/// each and writes its bytes. The header carries `format: pt`, without which transformers refuses the
/// file.
pub(crate) fn write_stream(
    path: &Path,
    slots: &[Slot],
    mut write: impl FnMut(&Slot, &mut dyn Write) -> Result<(), Stopped>,
) -> Result<(), FormatError> {
    let header = header(slots).map_err(|error| FormatError::io("write", path, error))?;
    let mut failure = None;
    let written = write_atomically(path, |file| {
        let mut file = BufWriter::with_capacity(BUFFER, Counted { inner: file, count: 0 });
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut end = size_of::<u64>() + header.len();
        for slot in slots {
            match write(slot, &mut file) {
                Ok(()) => {}
                Err(Stopped::Io(error)) => return Err(error),
                Err(Stopped::Tensor(error)) => {
                    failure = Some(error);
                    return Err(std::io::Error::other("a tensor cannot be made"));
                }
            }
            end += slot.length();
            let found = file.get_ref().count + file.buffer().len();
            assert!(found == end, "`{}` ends at byte {found}, not {end}", slot.name);
        }
        file.flush()
    });
    match failure {
        Some(error) => Err(error),
        None => written,
    }
}

/// What is written, counted, so that no tensor can shift the ones after it.
struct Counted<W> {
    inner: W,
    count: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn header(slots: &[Slot]) -> std::io::Result<Vec<u8>> {
    let mut end = 0;
    let infos = slots.iter().map(|slot| {
        let start = end;
        end += slot.length();
        let (dtype, shape) = (slot.dtype, slot.shape.clone());
        (slot.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(format), infos.collect()).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata).map_err(std::io::Error::other)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}
