//! One piece of memory, cut into buffers.

use crate::{Buffer, CudaError, Driver};

/// What to do where images have no room while they are encoded.
pub(crate) const FEWER_IMAGES: &str = "encode fewer images at a time";

/// Where every buffer begins, bytes.
const ALIGNMENT: usize = 256;

/// Gives out pieces of one reserved buffer, one behind the other. Without a buffer it only counts.
#[derive(Debug, Clone)]
pub struct Arena {
    whole: Option<Buffer>,
    used: usize,
}

impl Arena {
    /// An arena that counts what would be taken.
    pub fn counting() -> Self {
        Self { whole: None, used: 0 }
    }

    /// An arena in reserved memory.
    pub fn within(whole: Buffer) -> Self {
        Self { whole: Some(whole), used: 0 }
    }

    /// The next `bytes` bytes.
    ///
    /// # Panics
    /// When the reserved memory is smaller than what was counted.
    pub fn take(&mut self, bytes: usize) -> Buffer {
        let first = self.used;
        self.used += bytes.next_multiple_of(ALIGNMENT);
        match self.whole {
            Some(whole) => whole.slice(first, bytes),
            None => Buffer::new(first as u64, bytes),
        }
    }

    /// Bytes taken so far.
    pub fn used(&self) -> usize {
        self.used
    }
}

/// Reserves memory for some work, and gives it back whatever became of that; of two errors the first says more.
///
/// # Errors
/// Those of [`reserve`] and of the work.
pub(crate) fn with_reserved<T>(
    driver: &mut dyn Driver,
    what: &'static str,
    needed: usize,
    hint: &'static str,
    work: impl FnOnce(&mut dyn Driver, &mut Arena) -> Result<T, CudaError>,
) -> Result<T, CudaError> {
    let memory = reserve(driver, what, needed, hint)?;
    let done = work(driver, &mut Arena::within(memory));
    let released = driver.release(memory);
    let done = done?;
    released.map(|()| done)
}

/// Reserves memory, if the card has as much left.
///
/// # Errors
/// [`CudaError::Memory`] with `what` it is for and the `hint` where it has not, and those of the driver.
pub(crate) fn reserve(
    driver: &mut dyn Driver,
    what: &'static str,
    needed: usize,
    hint: &'static str,
) -> Result<Buffer, CudaError> {
    let free = driver.memory()?.free;
    if needed > free {
        return Err(CudaError::Memory { what, needed, free, hint });
    }
    driver.reserve(needed)
}
