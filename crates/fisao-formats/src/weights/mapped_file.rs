//! One safetensors file, memory-mapped: only the tensors that are asked for are read from the disk, and
//! those that are wanted as they are stored are used where they lie, without a copy.
//!
//! A file that another process shortens while it is mapped ends this one (SIGBUS) when a page that is gone
//! is read. Its length is looked at when it is opened and again before each tensor is handed out, which tells
//! of a file that was shortened in between; what lies in the map stays at the mercy of others for as long as
//! it is used. Replacing a file, by renaming another into its place or removing it, does no harm.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata};

use super::damage;
use super::writer::StoredDtype;
use crate::FormatError;
use crate::files::open_file;

/// Bytes of the little-endian header length that opens every file.
const LENGTH_BYTES: usize = 8;
/// A header beyond this is damage: a million tensors fit in it. The format's own limit.
const LARGEST_HEADER: u64 = 100_000_000;

/// A safetensors file whose header has been checked against its length.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    map: Arc<Mmap>,
    metadata: Metadata,
    data_start: usize,
}

/// One tensor of a [`MappedFile`], still on the disk.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    map: &'a Arc<Mmap>,
    range: Range<usize>,
}

/// What keeps a map alive for as long as a tensor lies in it.
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// The file is absent, truncated, no regular file, or its header is damaged.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = open_file("weights file", path)?;
        #[expect(
            unsafe_code,
            reason = "mapping is unsound if another process changes the file meanwhile; files are \
                      replaced by rename everywhere in this workspace, and reading 14 GB into memory \
                      instead would double the peak"
        )]
        // SAFETY: the map is read-only, and lives no longer than the open file's contents.
        let map =
            unsafe { Mmap::map(&file) }.map_err(|error| FormatError::io("map", path, error))?;
        let (metadata, data_start) = read_header(path, &map)?;
        Ok(Self { path: path.to_owned(), file, map: Arc::new(map), metadata, data_start })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length, bytes.
    pub fn length(&self) -> u64 {
        self.map.len() as u64
    }

    /// Refuses to read on in a file that somebody has shortened.
    ///
    /// # Errors
    /// [`FormatError::Shortened`].
    pub fn check_length(&self) -> Result<(), FormatError> {
        let data = self.file.metadata();
        let found = data.map_err(|error| FormatError::io("read", &self.path, error))?.len();
        let mapped = self.length();
        if found >= mapped {
            return Ok(());
        }
        Err(FormatError::Shortened { path: self.path.clone(), mapped, found })
    }

    /// Everything before the data of its tensors.
    pub(crate) fn header(&self) -> &[u8] {
        &self.map[..self.data_start]
    }

    /// The keys of its tensors, in the order of their data.
    pub fn keys(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// A tensor by its key.
    pub fn tensor(&self, key: &str) -> Option<StoredTensor<'_>> {
        let info = self.metadata.info(key)?;
        let (start, end) = info.data_offsets;
        let range = self.data_start + start..self.data_start + end;
        Some(StoredTensor { dtype: info.dtype, shape: &info.shape, map: &self.map, range })
    }
}

impl<'a> StoredTensor<'a> {
    /// Its shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Its type as the format spells it ("F32", "BF16", …).
    pub fn dtype_name(&self) -> String {
        self.dtype.to_string()
    }

    /// Its values as they are stored, little-endian.
    pub fn bytes(&self) -> &'a [u8] {
        &self.map[self.range.clone()]
    }

    /// Its type, if that is a float of 16 or 32 bits.
    pub fn float_type(&self) -> Option<DType> {
        StoredDtype::of(self.dtype).map(StoredDtype::burn)
    }

    /// Its values as f32 in a shape of as many elements; `None` if they are not floats of 16 or 32
    /// bits.
    pub fn to_f32(&self, shape: &[usize]) -> Option<TensorData> {
        self.converted(shape, DType::F32)
    }

    /// Its values in a float type of 16 or 32 bits; `None` if they are not stored in one.
    pub fn converted(&self, shape: &[usize], dtype: DType) -> Option<TensorData> {
        if self.float_type()? == dtype {
            return self.as_stored(shape);
        }
        let copy = self.copied(shape, dtype);
        self.release();
        copy
    }

    fn copied(&self, shape: &[usize], dtype: DType) -> Option<TensorData> {
        let wide = TensorData::new(self.values()?, shape.to_vec());
        Some(if dtype == DType::F32 { wide } else { wide.convert_dtype(dtype) })
    }

    /// Its values in the type they are stored in, in a shape of as many elements; `None` if they are
    /// not floats of 16 or 32 bits. They stay where they are, in the map, which lives as long as they
    /// do.
    pub fn as_stored(&self, shape: &[usize]) -> Option<TensorData> {
        let dtype = self.float_type()?;
        let bytes = self.bytes();
        // The format promises no alignment, and what lies in memory otherwise is read as a whole value.
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.size());
        let little = cfg!(target_endian = "little");
        if aligned && little && !bytes.is_empty() {
            let shared = bytes::Bytes::from_owner(Shared(Arc::clone(self.map)));
            let shared =
                Bytes::from_shared(shared.slice(self.range.clone()), AllocationProperty::File);
            return Some(TensorData::from_bytes(shared, shape.to_vec(), dtype));
        }
        self.copied(shape, dtype)
    }

    /// How many of its values are NaN or infinite; 0 of a type that is no float.
    pub fn count_not_finite(&self) -> usize {
        /// Those of two bytes whose exponent is all ones.
        fn halves(bytes: &[u8], exponent: u16) -> usize {
            let (words, _) = bytes.as_chunks::<2>();
            words.iter().filter(|&&word| u16::from_le_bytes(word) & exponent == exponent).count()
        }
        let count = match self.dtype {
            Dtype::F32 => {
                let (words, _) = self.bytes().as_chunks::<4>();
                words.iter().filter(|&&word| !f32::from_le_bytes(word).is_finite()).count()
            }
            Dtype::F16 => halves(self.bytes(), 0x7c00),
            Dtype::BF16 => halves(self.bytes(), 0x7f80),
            _ => 0,
        };
        self.release();
        count
    }

    /// Gives the pages back that were read of the tensor: they would count as this process's memory for
    /// as long as the file is open.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            #[expect(
                unsafe_code,
                reason = "dropping pages is unsound for private writable maps only"
            )]
            // SAFETY: the map is a read-only view of a file, whose pages are read again when needed.
            let dropped = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
            // It is a matter of accounting only.
            drop(dropped);
        }
    }

    /// Its type.
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Some of its values as f32, counted in row-major order; `None` if they are not floats of 16 or
    /// 32 bits.
    pub(crate) fn values_at(&self, range: Range<usize>) -> Option<Vec<f32>> {
        let size = self.dtype.bitsize() / 8;
        to_f32(self.dtype, self.bytes().get(range.start * size..range.end * size)?)
    }

    fn values(&self) -> Option<Vec<f32>> {
        to_f32(self.dtype, self.bytes())
    }
}

fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    // The format does not promise alignment, so values are read as bytes.
    match dtype {
        Dtype::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            Some(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
        }
        Dtype::F16 => Some(widen(bytes, f16::from_le_bytes)),
        Dtype::BF16 => Some(widen(bytes, bf16::from_le_bytes)),
        _ => None,
    }
}

/// Half-precision values to f32, block by block so that the conversion is vectorised without a second
/// copy of the tensor.
fn widen<H: Copy + Default>(bytes: &[u8], from_bytes: impl Fn([u8; 2]) -> H) -> Vec<f32>
where
    [H]: HalfFloatSliceExt,
{
    const BLOCK: usize = 4096;
    let (words, _) = bytes.as_chunks::<2>();
    let mut values = vec![0.0; words.len()];
    let mut block = [H::default(); BLOCK];
    for (words, values) in words.chunks(BLOCK).zip(values.chunks_mut(BLOCK)) {
        for (half, &word) in block.iter_mut().zip(words) {
            *half = from_bytes(word);
        }
        block[..words.len()].convert_to_f32_slice(values);
    }
    values
}

/// Checks the header: its length, its JSON, every offset, and that the data ends where the file does.
fn read_header(path: &Path, bytes: &[u8]) -> Result<(Metadata, usize), FormatError> {
    let found = bytes.len() as u64;
    let length = |expected| FormatError::Length { path: path.to_owned(), expected, found };
    let damaged = |reason: String| FormatError::Safetensors { path: path.to_owned(), reason };

    let Some((&prefix, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(length(LENGTH_BYTES as u64));
    };
    let header_length = u64::from_le_bytes(prefix);
    if header_length > LARGEST_HEADER {
        if let Some(other) = damage::other_content(bytes) {
            return Err(damaged(format!("it is {other}")));
        }
        return Err(damaged(format!(
            "it opens with a header length of {header_length} bytes, more than any has"
        )));
    }
    let whole = usize::try_from(header_length).ok();
    let Some(header) = whole.and_then(|whole| rest.get(..whole)) else {
        return Err(length(LENGTH_BYTES as u64 + header_length));
    };
    let data_start = LENGTH_BYTES + header.len();
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| {
        damaged(damage::of_header(header).unwrap_or_else(|| format!("header: {error}")))
    })?;
    let expected = (data_start as u64).saturating_add(metadata.data_len() as u64);
    if expected == found { Ok((metadata, data_start)) } else { Err(length(expected)) }
}
