//! Results of which several threads write parts that do not touch each other, as columns of the same rows.

use std::mem::MaybeUninit;
use std::ops::Range;

/// Memory of a result, with numbers in it or without.
#[derive(Clone, Copy)]
pub(crate) struct DisjointSlices {
    start: *mut MaybeUninit<f32>,
    length: usize,
}

// SAFETY: it is used for disjoint ranges only.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
unsafe impl Send for DisjointSlices {}
// SAFETY: the same.
#[expect(unsafe_code, reason = "threads write columns of the same rows")]
unsafe impl Sync for DisjointSlices {}

impl DisjointSlices {
    /// `length` numbers from `start` on.
    pub(crate) fn new(start: *mut MaybeUninit<f32>, length: usize) -> Self {
        Self { start, length }
    }

    /// # Safety
    /// The memory is there, and nothing else uses the range meanwhile.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "threads write columns of the same rows")]
    #[inline(always)]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [MaybeUninit<f32>] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "a tile outside of its product"
        );
        // SAFETY: it lies inside, and nothing else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where the number at `index` lies.
    pub(crate) fn at(&self, index: usize) -> *mut MaybeUninit<f32> {
        assert!(index < self.length, "a panel outside of its product");
        self.start.wrapping_add(index)
    }
}
